"""Promotions: who was production when, and going back."""

from datetime import date, timedelta

import pytest
import sqlalchemy as sa

from taxifare.approval.errors import (
    ApprovalError,
    NeverComparedError,
    NotAdoptedError,
    RollbackError,
    SettledError,
    TokenError,
    UnsignedError,
)
from taxifare.approval.records import Promotion, RequestState
from taxifare.approval.tables import VERSIONS
from taxifare.approval.tokens import to_go_back
from tests.support.approvals import MemoryRegistry, Office, content_of


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
    with pytest.raises(RollbackError, match="nothing came before version 1"):
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
    with pytest.raises(UnsignedError, match="a rollback: expected who decides and why"):
        office.approvals.rollback("none", by=" ", reason="?")
    with pytest.raises(UnsignedError, match="a rollback: expected who decides and why"):
        office.approvals.rollback("none", by="Eve", reason="")


def test_a_production_version_the_ledger_never_heard_of_is_adopted_on_purpose_only(ledger_url: str) -> None:
    office = Office.open(ledger_url, MemoryRegistry(alias="7", tags={"7": {}}))
    with pytest.raises(NotAdoptedError, match="adopt it: taxifare adopt"):
        office.approvals.production()
    with pytest.raises(NotAdoptedError):
        office.ask("2015-01", "8", "7")
    with pytest.raises(RollbackError, match="nothing was ever in production"):
        office.approvals.rollback("7", by="Ada", reason="mine")
    with pytest.raises(ApprovalError, match="an adoption: expected who decides and why"):
        office.approvals.adopt(by="", reason="mine")
    assert office.approvals.adopt(by="Ada", reason="mine") == (content_of("7"),)
    assert office.approvals.production() == "7"
    assert office.approvals.adopt(by="Eve", reason="again") == (), "what is on record stays as it is"
    with office.approvals.ledger._begin(exclusive=False) as connection:
        (row,) = connection.execute(sa.select(VERSIONS.c.version, VERSIONS.c.adopted_by, VERSIONS.c.reason))
    assert tuple(row) == ("7", "Ada", "mine"), "who vouched for files that nobody here has made"


def test_what_was_in_production_when_a_month_was_compared_is_found_by_the_month(office: Office) -> None:
    office.approve(office.ask("2015-02", "2", "1"))
    office.ask("2015-01", "3", "2")
    at = office.approvals.record.production_at
    assert [getattr(at(subject), "version", None) for subject in ("base", "2015-02", "2015-01")] == [None, "1", "2"]
    with pytest.raises(NeverComparedError, match=r"2015-03 was never compared.* Compared: 2015-01, 2015-02\. taxifare"):
        at("2015-03")


def test_a_person_can_take_the_model_out_of_production_and_put_another_in(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    waiting = office.ask("2015-02", "3", "2")
    out = office.approvals.rollback("none", by="Ada", reason="it quotes nonsense")
    assert (out.version, out.replaced_version, out.by) == (None, "2", "Ada")
    assert office.approvals.rollback("none", by="Ada", reason="it quotes nonsense") == out, "a repeated command"
    with pytest.raises(RollbackError, match="nothing is in production already"):
        office.approvals.rollback("none", by="Bob", reason="likewise")
    assert office.approvals.production() is office.registry.alias is None
    assert office.approvals.record.state(waiting) is RequestState.VOID
    office.approvals.rollback("1", by="Ada", reason="the first one was good")
    assert office.approvals.production() == office.registry.alias == "1"
    assert [entry.version for entry in office.approvals.record.history()] == ["1", "2", None, "1"]


def test_a_link_back_is_good_for_one_way_back_in_one_state_of_the_world(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    with office.approvals.ledger.reading() as entries:
        link = office.approvals.tokens.of(to_go_back(entries.promotions()[-1], "1"), entries)
    with pytest.raises(TokenError):
        office.approvals.rollback("none", by="Eve", reason="further than the link says", token=link)
    with pytest.raises(TokenError):
        office.approvals.rollback("1", by="Eve", reason="guessed", token="0" * 32)
    assert office.approvals.rollback("1", by="Ada", reason="complaints", token=link).version == "1"
    with pytest.raises(TokenError):
        office.approvals.rollback("2", by="Eve", reason="forward by the link back", token=link)
    assert office.versions() == ["1", "2", "1"]


def test_a_link_back_that_was_used_in_vain_is_spent_and_a_fresh_one_is_due(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    promotion = office.approvals.record.history()[-1]

    def link() -> str:
        with office.approvals.ledger.reading() as entries:
            return office.approvals.tokens.of(to_go_back(promotion, "1"), entries)

    used = link()
    with pytest.raises(UnsignedError, match="a rollback: expected who decides and why"):
        office.approvals.rollback("1", by="", reason="I forgot my name", token=used)
    with pytest.raises(TokenError):
        office.approvals.rollback("1", by="Eve", reason="found it in the log", token=used)
    assert office.approvals.rollback("1", by="Ada", reason="complaints", token=link()).version == "1"


def test_there_is_nothing_to_go_back_to_before_the_first_model(ledger_url: str) -> None:
    with pytest.raises(RollbackError, match="nothing was ever in production"):
        Office.open(ledger_url).approvals.rollback(by="Ada", reason="?")


def test_what_a_decision_costs_does_not_depend_on_what_is_past(office: Office) -> None:
    """It ends the questions that wait, with so many statements each: the lock is held no longer as the ledger fills."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    sa.event.listen(office.approvals.ledger._engine, "before_cursor_execute", count)
    version, costs = 1, []
    for waiting in (2, 4, 6, 6):
        production = office.versions()[-1]
        asked = []
        for number in range(1, waiting + 1):
            version += 1
            asked.append(office.ask(f"2015-{number:02}", str(version), production))
        while office.approvals.repair():
            pass
        statements = 0
        office.approve(asked[0])
        costs.append(statements)
    assert costs[1] - costs[0] == costs[2] - costs[1]
    assert costs[3] == costs[2], "with three times as much on record"
