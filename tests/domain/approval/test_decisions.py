"""Decisions: who may answer, what counts, and what becomes of two answers at once."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from taxifare.approval import approvals as approval
from taxifare.approval.errors import (
    AgainstVerdictError,
    ApprovalError,
    DecisionRefusedError,
    SettledError,
    TokenError,
    UnknownRequestError,
    UnsignedError,
)
from taxifare.approval.ledger import LedgerError
from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from tests.support.approvals import FileRegistry, Office, in_processes


def test_a_model_becomes_production_when_somebody_approves_it(ledger_url: str) -> None:
    office = Office.open(ledger_url)
    assert office.approvals.production() is None

    first = office.ask("base", "1", None)
    assert office.approvals.record.state(first) == RequestState.REQUESTED
    assert office.registry.tags["1"]["decision"] == "requested"
    assert office.approvals.production() is None

    outcome = office.approve(first)
    assert (outcome.state, outcome.by) == (RequestState.APPROVED, "Ada")
    assert office.approvals.record.state(first) == RequestState.APPROVED
    assert office.approvals.production() == office.registry.alias == "1"

    second = office.ask("2015-01", "2", "1")
    assert office.approvals.record.open_requests() == (second,)
    office.clock.move(hours=1)
    office.approve(second)
    assert office.approvals.production() == office.registry.alias == "2"

    last = office.approvals.record.history()[-1]
    assert (last.sequence, last.version, last.replaced_version, last.kind) == (2, "2", "1", "promotion")
    assert (last.request_id, last.by, last.evidence_digest) == (second.id, "Ada", second.evidence_digest)
    assert office.registry.tags["2"] == {
        "asked_about": "2015-01",
        "verdict": "PROMOTE",
        "request": second.id,
        "decision": "approved",
        "decided_by": "Ada",
        "decision_reason": "I looked at the slices",
        "promoted_by": "Ada",
        "promoted_at": "2015-02-01T10:00:00+00:00",
        "replaced": "1",
        "replaced_by": "-",
        "skill": "0.153226",  # 1 - 2.10 / 2.48
        "footing": '{"mae":2.1,"difficulty_mae":2.48}',
    }
    assert office.registry.tags["1"]["replaced_by"] == "2"


def test_a_rejected_model_does_not_become_production(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    assert office.reject(request).state == RequestState.REJECTED
    assert office.approvals.production() == "1"
    assert office.registry.tags["2"]["decision"] == "rejected"
    with pytest.raises(SettledError, match="is rejected by Ada"):
        office.approve(request)


def test_a_decision_that_comes_too_late_is_refused_although_nothing_ran_to_expire_the_request(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.clock.move(days=31)
    with pytest.raises(SettledError, match="is expired"):
        office.approve(request)
    assert office.approvals.production() == "1"


def test_a_decision_in_the_last_instant_counts_and_one_after_it_does_not(office: Office) -> None:
    in_time, too_late = office.ask("2015-01", "2", "1"), office.ask("2015-02", "3", "1")
    office.clock.moment = in_time.valid_until
    office.reject(in_time)
    assert office.approvals.record.state(in_time) == RequestState.REJECTED
    office.clock.moment = too_late.valid_until + timedelta(microseconds=1)
    with pytest.raises(SettledError, match="is expired"):
        office.reject(too_late)


@pytest.mark.parametrize("verdict", [Verdict.HOLD, Verdict.REJECT, Verdict.UNSCORABLE, Verdict.LEAK])
def test_approving_against_the_verdict_takes_an_override(office: Office, verdict: Verdict) -> None:
    request = office.ask("2015-01", "2", "1", verdict=verdict, mae=2.5)
    with pytest.raises(AgainstVerdictError, match=f"is {verdict}; approving it takes an override"):
        office.approve(request)
    assert office.approvals.production() == "1"
    assert office.approvals.record.state(request) == RequestState.REQUESTED

    assert office.approve(request, override=True).override
    assert office.approvals.production() == "2"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"request_id": "2015-01-v2-nonsense"}, UnknownRequestError),
        ({"request_id": "\0"}, UnknownRequestError),
        ({"token": "0" * 32}, TokenError),
        ({"token": ""}, TokenError),
        ({"token": "größer"}, TokenError),
        ({"decided_by": ""}, UnsignedError),
        ({"decided_by": " \n\t"}, UnsignedError),
        ({"reason": ""}, UnsignedError),
    ],
)
def test_a_decision_without_what_it_takes_is_refused_and_recorded(
    office: Office, change: dict[str, str], error: type[DecisionRefusedError]
) -> None:
    request = office.ask("2015-01", "2", "1")
    good = {
        "request_id": request.id,
        "decided_by": "Eve",
        "reason": "why not",
        "token": office.approvals.answer_tokens(request)["approve"],
    }
    with pytest.raises(error) as caught:
        office.approvals.decide(decision="approve", **good | change)
    assert office.approvals.production() == "1"
    assert office.approvals.record.state(request) == RequestState.REQUESTED
    assert [refusal.why for refusal in office.refusals()] == [str(caught.value)]


def test_a_word_that_is_no_decision_is_a_mistake_of_the_caller(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    with pytest.raises(ValueError, match="approve or reject, not 'approved'"):
        office.approvals.decide(request.id, "approved", "Ada", "a slip")  # type: ignore[arg-type]


def test_the_same_decision_again_is_the_same_and_another_persons_is_told(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    outcome = office.approve(request, by="Ada")
    office.clock.move(hours=1)
    assert office.approve(request, by="Ada") == outcome
    assert office.versions() == ["1", "2"]
    with pytest.raises(SettledError, match="is approved by Ada since 2015-02-01 09:00 UTC: I looked at the slices"):
        office.approve(request, by="Bob")
    with pytest.raises(SettledError, match="is approved by Ada"):
        office.reject(request, by="Ada")
    assert [refusal.by for refusal in office.refusals()] == ["Bob", "Ada"]


def test_a_text_that_nobody_would_read_is_refused_and_the_limit_is_told(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    for identity, by, reason in (
        (request.id, "Ada", "x" * 1001),
        (request.id, "y" * 5000, "why"),
        ("z" * 5000, "A", "b"),
    ):
        with pytest.raises(ApprovalError, match=r"at most 1,000 characters, received [15],00[01]") as caught:
            office.approvals.decide(identity, "approve", by, reason)
        assert len(str(caught.value)) < 200
    assert office.approvals.record.open_requests() == (request,)


def test_half_a_character_is_cleaned_or_refused(office: Office) -> None:
    with pytest.raises(LedgerError, match=r"expected texts that can be stored, received .*ud800"):
        office.ask("2015-01\ud800", "2", "1")
    request = office.ask("2015-01", "2", "1")
    with pytest.raises(LedgerError, match="half a character"):
        office.approvals.void_restated("2015-01", "r\ud800")
    assert office.approvals.record.open_requests() == (request,)
    assert office.approvals.decide(request.id, "approve", "Ada\ud800", "why\udfff").by == "Ada\ufffd"


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_an_answer_is_never_dated_before_its_question(office: Office, decision: approval.Decision) -> None:
    request = office.ask("2015-01", "2", "1")
    office.clock.move(days=-400)
    assert office.decide(request, decision).at == request.requested_at
    assert office.approvals.record.history()[-1].promoted_at == request.requested_at


@pytest.mark.parametrize("decisions", [("approve", "approve"), ("approve", "reject")])
def test_of_two_people_deciding_at_once_one_wins_and_the_other_is_told(
    ledger_url: str, tmp_path: Path, decisions: tuple[approval.Decision, approval.Decision]
) -> None:
    office = Office.open(ledger_url, FileRegistry(path=tmp_path / "registry.json")).with_first_model()
    request = office.ask("2015-01", "2", "1")

    def decide(who: str, what: approval.Decision) -> Callable[[], Any]:
        return lambda: office.decide(request, what, by=who)

    answers = in_processes([decide("Ada", decisions[0]), decide("Bob", decisions[1])])

    (told,) = [answer for answer in answers if isinstance(answer, Exception)]
    (won,) = [answer for answer in answers if not isinstance(answer, Exception)]
    assert won == office.approvals.record.outcome(request.id)
    assert f"is {won.state} by {won.by}" in str(told)
    assert len(office.refusals()) == 1
    expected = "2" if won.state == RequestState.APPROVED else "1"
    assert office.approvals.production() == office.registry.production_version() == expected


def test_of_promotions_racing_one_wins_and_the_others_are_void(ledger_url: str, tmp_path: Path) -> None:
    office = Office.open(ledger_url, FileRegistry(path=tmp_path / "registry.json")).with_first_model()
    rivals = [office.ask(f"2015-0{month}", str(month + 1), "1") for month in range(1, 5)]

    answers = in_processes([lambda request=request: office.approve(request) for request in rivals])

    told = [str(answer) for answer in answers if isinstance(answer, Exception)]
    assert len(told) == 3
    winner = office.approvals.record.history()[-1].version
    assert all(f"production moved from version 1 to version {winner}" in text for text in told)
    assert office.versions() == ["1", winner]
    assert office.approvals.production() == office.registry.production_version() == winner
