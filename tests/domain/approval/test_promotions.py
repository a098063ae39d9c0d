"""Promotions: who was production when, and going back."""

from datetime import date, timedelta

import pytest

from taxifare.approval.errors import (
    NotAdoptedError,
    RollbackError,
    SettledError,
)
from taxifare.approval.records import Promotion, RequestState
from tests.support.approvals import MemoryRegistry, Office


def test_a_promotion_voids_every_request_that_expected_the_version_it_replaced(office: Office) -> None:
    january, february = office.ask("2015-01", "2", "1"), office.ask("2015-02", "3", "1")
    office.approve(january)
    assert office.approvals.record.open_requests() == ()
    with pytest.raises(SettledError, match="production moved from version 1 to version 2") as caught:
        office.approve(february, override=True)
    assert caught.value.outcome.state == RequestState.VOID
    assert office.registry.tags["3"]["decision"] == "void"


def test_a_promotion_that_went_past_these_rules_is_noticed_all_the_same(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    with office.approvals.ledger.writing() as entries:
        entries.promote(Promotion(2, "9", "1", "rollback", None, "Eve", "by hand", None, office.clock.moment))
    with pytest.raises(SettledError, match="production moved from version 1 to version 9"):
        office.approve(request)
    assert office.approvals.production() == "9"


def test_history_tells_who_was_production_when(office: Office) -> None:
    begin = office.clock.moment
    office.clock.move(days=30)
    office.approve(office.ask("2015-02", "2", "1"))
    office.clock.move(days=30)
    office.approvals.rollback(by="Bob", reason="complaints from the airport")

    def version_on(when: date) -> str | None:
        entry = office.approvals.record.production_on(when)
        return entry.version if entry else None

    assert version_on(begin - timedelta(seconds=1)) is None
    assert version_on(begin) == "1"
    assert version_on(begin.date()) == "1"
    assert version_on(begin.date() - timedelta(days=1)) is None
    assert version_on(begin + timedelta(days=45)) == "2"
    assert version_on(begin.date() + timedelta(days=60)) == "1"
    last = office.approvals.record.history()[-1]
    assert (last.kind, last.by, last.reason, last.replaced_version) == (
        "rollback",
        "Bob",
        "complaints from the airport",
        "2",
    )


def test_a_clock_that_goes_backwards_does_not_turn_history_round(office: Office) -> None:
    office.clock.move(days=10)
    office.approve(office.ask("2015-02", "2", "1"))
    office.clock.move(days=-5)
    office.approve(office.ask("2015-03", "3", "2"))
    assert office.versions() == ["1", "2", "3"]
    assert office.approvals.production() == "3"
    entry = office.approvals.record.production_on(office.clock.moment + timedelta(days=100))
    assert entry is not None
    assert entry.version == "3"


def test_rollback_goes_back_step_by_step_and_never_forward(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    office.approve(office.ask("2015-02", "3", "2"))
    assert office.approvals.rollback(by="Ada", reason="first").version == "2"
    assert office.approvals.rollback(by="Ada", reason="second").version == "1"
    with pytest.raises(RollbackError, match="version 1 replaced nothing"):
        office.approvals.rollback(by="Ada", reason="third")
    assert office.approvals.rollback("3", by="Ada", reason="it was not the model").version == "3"
    assert office.registry.alias == "3"


def test_a_rollback_voids_the_requests_made_meanwhile(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    request = office.ask("2015-02", "3", "2")
    office.approvals.rollback(by="Ada", reason="complaints")
    with pytest.raises(SettledError, match="production moved from version 2 to version 1"):
        office.approve(request)


def test_going_back_is_no_way_round_a_decision(office: Office) -> None:
    office.ask("2015-01", "2", "1")
    with pytest.raises(RollbackError, match="version 2 was never production"):
        office.approvals.rollback("2", by="Eve", reason="quicker")
    with pytest.raises(RollbackError, match="version 1 is production already"):
        office.approvals.rollback("1", by="Eve", reason="?")
    with pytest.raises(RollbackError, match="needs who"):
        office.approvals.rollback(by=" ", reason="?")
    with pytest.raises(RollbackError, match="needs who"):
        office.approvals.rollback(by="Eve", reason="")


def test_a_production_version_the_ledger_never_heard_of_is_adopted_on_purpose_only(ledger_url: str) -> None:
    office = Office.open(ledger_url, MemoryRegistry(alias="7"))
    with pytest.raises(NotAdoptedError, match="adopt it: taxifare rollback --to 7"):
        office.approvals.production()
    with pytest.raises(NotAdoptedError):
        office.ask("2015-01", "8", "7")
    for wrong in ("6", None):
        with pytest.raises(RollbackError, match="adopt it with --to"):
            office.approvals.rollback(wrong, by="Ada", reason="adopted")
    office.approvals.rollback("7", by="Ada", reason="adopted")
    assert office.approvals.production() == "7"


def test_there_is_nothing_to_go_back_to_before_the_first_model(ledger_url: str) -> None:
    with pytest.raises(RollbackError, match="nothing was ever promoted"):
        Office.open(ledger_url).approvals.rollback(by="Ada", reason="?")
