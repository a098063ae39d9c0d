"""Requests: how a comparison becomes a question, who is reminded of it, and what ends it without an answer."""

from datetime import timedelta
from typing import Any

import pytest

from taxifare.approval.comparisons import comparison_of, record
from taxifare.approval.errors import (
    ApprovalError,
    SettledError,
    TokenError,
    UnknownRequestError,
)
from taxifare.approval.promotions import in_use
from taxifare.approval.records import Delivery, Request, RequestState
from taxifare.approval.tokens import to_ask_again
from tests.support.approvals import Office, content_of, evidence


def test_the_evidence_is_kept_exactly_as_it_was_shown_infinite_bounds_included(office: Office) -> None:
    shown = evidence("2015-01", "2", "1")
    request = office.approvals.record.find(office.request(shown).id)
    assert request.evidence == shown
    assert request.evidence.digest == request.evidence_digest


def test_the_same_evidence_is_asked_about_once(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.clock.move(hours=5)
    assert office.ask("2015-01", "2", "1") == request
    office.reject(request)
    assert office.ask("2015-01", "2", "1") == request
    assert office.approvals.record.state(request) == RequestState.REJECTED


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        ({"staging": "3"}, "superseded by staging 3"),
        ({"revision": "r2"}, "2015-01 restated as r2"),
        ({"mae": 2.2}, "superseded by newer evidence"),
    ],
)
def test_newer_evidence_on_a_month_voids_the_older_request(office: Office, newer: dict[str, Any], why: str) -> None:
    older = office.ask("2015-01", "2", "1")
    other_month = office.ask("2015-02", "9", "1")
    latest = office.ask(**{"subject": "2015-01", "staging": "2", "production": "1"} | newer)
    assert office.approvals.record.open_requests() == (other_month, latest)
    with pytest.raises(SettledError, match=why):
        office.approve(older)
    # Coming across the older evidence again, as a run that was slow does, must not bring its question back.
    assert office.approvals.request(comparison_of(older.evidence, office.clock())) == older
    assert office.approvals.record.open_requests() == (other_month, latest)


def test_evidence_against_a_version_that_is_no_longer_production_is_void_from_the_start(office: Office) -> None:
    february = evidence("2015-02", "3", "1")
    office.approve(office.ask("2015-01", "2", "1"))
    late = office.request(february)
    assert office.approvals.record.state(late) == RequestState.VOID
    with pytest.raises(SettledError, match="from version 1 to version 2 since the evidence was gathered"):
        office.approve(late)


def test_a_model_compared_with_itself_is_not_a_question(office: Office) -> None:
    with pytest.raises(ApprovalError, match=r"expected two versions .* received version 1 as both .* run the month"):
        office.ask("2015-01", "1", "1")
    assert office.approvals.record.open_requests() == ()


@pytest.mark.parametrize("whose", ["staging", "production"])
@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_evidence_by_other_files_than_those_on_record_is_refused(
    office: Office, whose: str, digest: str | None
) -> None:
    with office.approvals.ledger.writing() as entries:
        for version in ("1", "2"):
            entries.add_content(content_of(version), office.clock())
    honest = office.gathered(evidence("2015-01", "2", "1"))
    scored = getattr(honest, whose)
    forged = honest.model_copy(update={whose: scored.model_copy(update={"files_digest": digest})})
    with pytest.raises(ApprovalError, match=r"by its files on record, digest 0{12}, received .* run the month again"):
        record(office.approvals.ledger, forged, office.clock())
    with pytest.raises(ApprovalError, match="by its files on record"):
        office.approvals.request(comparison_of(forged, office.clock()))
    before = comparison_of(evidence("2015-01", "2", "1"), office.clock(), schema=2)
    assert office.approvals.request(before).staging_version == "2", "an earlier release did not know the files"


def test_a_restated_month_voids_its_open_request_and_names_the_decisions_that_rest_on_it(office: Office) -> None:
    decided = office.ask("2015-01", "2", "1")
    office.reject(decided)
    opened = office.ask("2015-01", "3", "1")
    other = office.ask("2015-02", "4", "1")

    assert office.approvals.void_restated("2015-01", "r2") == (opened,)
    assert office.approvals.record.open_requests() == (other,)
    assert office.approvals.void_restated("2015-01", "r2") == ()

    again = office.ask("2015-01", "5", "1", revision="r2")
    assert [outcome.request_id for outcome in office.approvals.record.decided_on_other_editions(again)] == [decided.id]
    assert office.approvals.record.decided_on_other_editions(other) == ()
    assert office.approvals.record.decided_on_other_editions(decided) == ()


def test_a_request_nobody_answers_expires_and_can_be_asked_again(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    assert office.approvals.expire() == ()
    office.clock.moment = request.valid_until
    assert office.approvals.expire() == (), "the last moment is still in time"
    office.clock.move(microseconds=1)
    assert office.approvals.expire() == (request,)
    assert office.approvals.expire() == ()
    assert office.approvals.record.state(request) == RequestState.EXPIRED
    assert office.registry.tags["2"]["decision"] == "expired"

    again = office.approvals.ask_again(request.id)
    assert (again.id, again.evidence) == (f"{request.id}-r2", request.evidence)
    with pytest.raises(TokenError):
        office.approvals.decide(
            again.id, "approve", "Eve", "old link", office.approvals.answer_tokens(request)["approve"]
        )
    office.approve(again)
    assert office.approvals.production() == "2"


def test_only_a_question_that_ended_unanswered_is_asked_again_and_one_that_is_open_gets_fresh_links(
    office: Office,
) -> None:
    request = office.ask("2015-01", "2", "1")
    of_before = office.approvals.answer_tokens(request)["approve"]
    assert office.approvals.ask_again(request.id) == request
    with pytest.raises(TokenError):
        office.approvals.decide(request.id, "approve", "Eve", "an old link", of_before)
    assert office.approvals.record.state(request) == RequestState.REQUESTED
    office.reject(request)
    with pytest.raises(ApprovalError, match="is rejected"):
        office.approvals.ask_again(request.id)
    with pytest.raises(UnknownRequestError):
        office.approvals.ask_again("nonsense")


def test_the_last_question_that_still_stands_is_the_one_in_shadow(office: Office) -> None:
    def asked() -> Request | None:
        with office.approvals.ledger.reading() as entries:
            return in_use(entries, office.clock())[1]

    assert asked() is None
    january, february = office.ask("2015-01", "2", "1"), office.ask("2015-02", "3", "1")
    assert asked() == february
    office.reject(february)
    assert asked() == january
    office.clock.move(days=31)
    assert asked() is None, "nobody can answer it any more, although nobody has written that down yet"
    march = office.ask("2015-03", "4", "1")
    assert asked() == march
    office.approvals.rollback("none", by="Ada", reason="it errs")
    assert asked() is None


def test_after_a_rollback_a_void_question_makes_sense_again(office: Office) -> None:
    february = office.ask("2015-02", "3", "1")
    office.approve(office.ask("2015-01", "2", "1"))
    assert office.approvals.record.state(february) == RequestState.VOID
    office.approvals.rollback(by="Ada", reason="complaints")
    office.approve(office.approvals.ask_again(february.id))
    assert office.approvals.production() == "3"


def test_a_question_that_was_delivered_and_not_answered_is_due_for_a_reminder(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    week = timedelta(days=7)
    office.clock.move(days=8)
    assert office.approvals.record.due_reminders(week, office.clock()) == ()
    with office.approvals.ledger.writing() as entries:
        entries.add_delivery(Delivery(request.id, "log", 0, office.clock.moment))
    office.clock.move(days=6)
    assert office.approvals.record.due_reminders(week, office.clock()) == ()
    office.clock.move(days=1)
    assert office.approvals.record.due_reminders(week, office.clock()) == (request,)
    with office.approvals.ledger.writing() as entries:
        entries.add_delivery(Delivery(request.id, "log", 1, office.clock.moment))
    assert office.approvals.record.due_reminders(week, office.clock()) == ()
    office.clock.moment = request.valid_until
    assert office.approvals.record.due_reminders(week, office.clock()) == (request,)
    office.clock.move(seconds=1)
    assert office.approvals.record.due_reminders(week, office.clock()) == ()


def test_what_nobody_answers_is_asked_again_as_often_as_somebody_wants(office: Office) -> None:
    """By whichever of its rounds it is called; a link asks again once."""
    first = office.ask("2015-01", "2", "1")
    with office.approvals.ledger.reading() as entries:
        link = office.approvals.tokens.of(to_ask_again(first), entries)
    office.clock.move(days=31)
    office.approvals.expire()
    second = office.approvals.ask_again(first.id, link)
    office.clock.move(days=31)
    office.approvals.expire()
    with pytest.raises(ApprovalError, match="was asked again since"):
        office.approvals.ask_again(first.id, link)
    third = office.approvals.ask_again(first.id)
    assert [request.round for request in (first, second, third)] == [1, 2, 3]
    assert office.approvals.record.open_requests() == (third,)
