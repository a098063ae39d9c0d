"""A decision people can trust: each test is a way in which approvals have gone wrong somewhere."""

import logging
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from taxifare.approval import approvals as approval
from taxifare.approval.approvals import Approvals
from taxifare.approval.errors import (
    AgainstVerdictError,
    ApprovalError,
    DecisionRefusedError,
    NotAdoptedError,
    RegistryBehindError,
    RollbackError,
    SettledError,
    TokenError,
    UnknownRequestError,
    UnsignedError,
)
from taxifare.approval.records import Delivery, Promotion, Refusal, RequestState
from taxifare.approval.tokens import approval_secret
from taxifare.gate.evidence import Verdict
from taxifare.model.store import RegistryError
from taxifare.settings import Settings
from tests.support.approvals import FileRegistry, MemoryRegistry, Office, evidence, in_processes
from tests.support.registry import registry_at


def refusals(office: Office) -> list[Refusal]:
    with office.approvals.ledger.reading() as entries:
        return entries.refusals()


def versions(office: Office) -> list[str]:
    return [entry.version for entry in office.approvals.record.history()]


# From the first model to the second


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
        "month": "2015-01",
        "verdict": "PROMOTE",
        "request": second.id,
        "decision": "approved",
        "decided_by": "Ada",
        "decision_reason": "I looked at the slices",
        "promoted_by": "Ada",
        "promoted_at": "2015-02-01T10:00:00+00:00",
        "replaced": "1",
        "replaced_by": "-",
    }
    assert office.registry.tags["1"]["replaced_by"] == "2"


def test_a_rejected_model_does_not_become_production(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    assert office.reject(request).state == RequestState.REJECTED
    assert office.approvals.production() == "1"
    assert office.registry.tags["2"]["decision"] == "rejected"
    with pytest.raises(SettledError, match="is rejected by Ada"):
        office.approve(request)


# Asking


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
    # Coming across the older evidence again, as a sensor does, must not bring its question back.
    office.ask("2015-01", "2", "1")
    assert office.approvals.record.open_requests() == (other_month, latest)


def test_evidence_against_a_version_that_is_no_longer_production_is_void_from_the_start(office: Office) -> None:
    february = evidence("2015-02", "3", "1")
    office.approve(office.ask("2015-01", "2", "1"))
    late = office.request(february)
    assert office.approvals.record.state(late) == RequestState.VOID
    with pytest.raises(SettledError, match="from version 1 to version 2 since the evidence was gathered"):
        office.approve(late)


def test_a_model_compared_with_itself_is_not_a_question(office: Office) -> None:
    itself = office.ask("2015-01", "1", "1")
    assert office.approvals.record.state(itself) == RequestState.VOID
    with pytest.raises(SettledError, match="version 1 is production already"):
        office.approve(itself)


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
        office.approvals.tokens.ensure(again, office.approvals.tokens.of(request))
    office.approve(again)
    assert office.approvals.production() == "2"


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


def test_only_a_question_that_ended_unanswered_is_asked_again(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    with pytest.raises(ApprovalError, match="is open"):
        office.approvals.ask_again(request.id)
    office.reject(request)
    with pytest.raises(ApprovalError, match="is rejected"):
        office.approvals.ask_again(request.id)
    with pytest.raises(UnknownRequestError):
        office.approvals.ask_again("nonsense")


def test_after_a_rollback_a_void_question_makes_sense_again(office: Office) -> None:
    february = office.ask("2015-02", "3", "1")
    office.approve(office.ask("2015-01", "2", "1"))
    assert office.approvals.record.state(february) == RequestState.VOID
    office.approvals.rollback(by="Ada", reason="complaints")
    office.approve(office.approvals.ask_again(february.id))
    assert office.approvals.production() == "3"


# Deciding


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
        "token": office.approvals.tokens.of(request),
    }
    with pytest.raises(error) as caught:
        office.approvals.decide(decision="approve", **good | change)
    assert office.approvals.production() == "1"
    assert office.approvals.record.state(request) == RequestState.REQUESTED
    assert [refusal.why for refusal in refusals(office)] == [str(caught.value)]


def test_a_token_opens_one_request_only(office: Office) -> None:
    january, february = office.ask("2015-01", "2", "1"), office.ask("2015-02", "3", "1")
    with pytest.raises(TokenError):
        office.approvals.decide(january.id, "approve", "Eve", "mixed up", office.approvals.tokens.of(february))


def test_a_token_of_another_secret_opens_nothing(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    elsewhere = Approvals(office.approvals.ledger, office.registry, b"another secret")
    with pytest.raises(TokenError):
        office.approvals.decide(request.id, "approve", "Eve", "guessed", elsewhere.tokens.of(request))


def test_a_word_that_is_no_decision_is_a_mistake_of_the_caller(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    with pytest.raises(ValueError, match="approve or reject, not 'approved'"):
        office.decide(request, "approved")  # type: ignore[arg-type]


def test_the_same_decision_again_is_the_same_and_another_persons_is_told(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    outcome = office.approve(request, by="Ada")
    office.clock.move(hours=1)
    assert office.approve(request, by="Ada") == outcome
    assert versions(office) == ["1", "2"]
    with pytest.raises(SettledError, match="is approved by Ada since 2015-02-01 09:00 UTC: I looked at the slices"):
        office.approve(request, by="Bob")
    with pytest.raises(SettledError, match="is approved by Ada"):
        office.reject(request, by="Ada")
    assert [refusal.by for refusal in refusals(office)] == ["Bob", "Ada"]


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


# Several at once


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
    assert len(refusals(office)) == 1
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
    assert versions(office) == ["1", winner]
    assert office.approvals.production() == office.registry.production_version() == winner


# Dying in between


class Killed(BaseException):
    """Stands for the end of a process."""


def die_at(step: int) -> Callable[[str], None]:
    """A hook that ends this process, without any clean-up, the `step`-th time it is passed."""
    passed = 0

    def hook(_where: object) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def killed_at(step: int, url: str, registry: Path, command: Callable[[Office], object]) -> bool:
    """Whether a process that ran the command was killed at a step: an insert, a commit or a call of the registry."""

    def work() -> None:
        hook = die_at(step)
        sa.event.listen(
            sa.Engine, "before_cursor_execute", lambda *args: args[2].startswith("INSERT") and hook("insert")
        )
        sa.event.listen(sa.Engine, "commit", lambda _connection: hook("commit"))
        command(Office.open(url, FileRegistry(path=registry, before=hook, after=hook)))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def test_an_approval_killed_at_any_step_is_finished_by_whatever_comes_next(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    for step in range(1, 200):
        production = office.approvals.production()
        staging = str(step + 1)
        request = office.ask("2015-01", staging, production)

        killed = killed_at(step, ledger_url, path, lambda there, request=request: there.approve(request))

        # Whatever command comes next, here a mere look, finds one truth and makes the registry tell it.
        found = office.approvals.production()
        assert found == office.registry.production_version() == office.approvals.record.history()[-1].version
        assert (found == staging) == (office.approvals.record.state(request) == RequestState.APPROVED)
        assert office.registry.tags[staging]["decision"] == office.approvals.record.state(request)
        # The person, who saw it die, tries again.
        office.approve(request)
        assert office.approvals.production() == office.registry.production_version() == staging
        assert office.registry.tags[staging]["decided_by"] == "Ada"
        if production is not None:
            assert office.registry.tags[production]["replaced_by"] == staging
        assert len(office.approvals.record.history()) == step + 1
        if not killed:
            break
    assert 10 < step < 199


def test_a_rollback_killed_at_any_step_and_repeated_goes_back_one_step(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    office.approve(office.ask("2015-01", "2", "1"))
    for step in range(1, 200):
        office.approvals.rollback("2", by="Ada", reason=f"again for step {step}") if step > 1 else None
        killed = killed_at(
            step, ledger_url, path, lambda there, step=step: there.approvals.rollback("1", by="Bob", reason=str(step))
        )
        assert office.approvals.production() == office.registry.production_version()
        office.approvals.rollback("1", by="Bob", reason=str(step))
        assert office.approvals.production() == office.registry.production_version() == "1"
        assert len(office.approvals.record.history()) == 2 * step + 1
        if not killed:
            break
    assert 10 < step < 199


def test_a_request_killed_at_any_step_is_made_once(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    for step in range(1, 200):
        killed = killed_at(step, ledger_url, path, lambda there, step=step: there.ask("2015-01", str(step + 1), "1"))
        request = office.ask("2015-01", str(step + 1), "1")
        assert office.approvals.record.open_requests() == (request,)
        assert office.registry.tags[str(step + 1)]["decision"] == "requested"
        if not killed:
            break
    assert 5 < step < 199


def failing(call: str) -> Callable[[str], None]:
    """A hook that makes one kind of call fail."""

    def hook(name: str) -> None:
        if name == call:
            raise RegistryError("connection refused")

    return hook


@pytest.mark.parametrize("call", ["production_version", "set_production", "tag"])
def test_a_registry_that_is_down_is_never_taken_for_an_empty_one(office: Office, call: str) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.before = failing(call)
    with pytest.raises((RegistryError, RegistryBehindError)):
        office.approve(request)
    office.registry.before = lambda _call: None

    recorded = office.approvals.record.outcome(request.id)
    assert office.approvals.production() == office.registry.alias == ("2" if recorded else "1")
    assert office.approve(request).state == RequestState.APPROVED
    assert versions(office) == ["1", "2"]


def test_when_the_alias_cannot_be_set_the_person_learns_that_the_decision_stands(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.before = failing("set_production")
    with pytest.raises(
        RegistryBehindError, match=r"recorded, but .* \(connection refused\); the next command catches up"
    ):
        office.approve(request)
    assert office.approvals.record.state(request) == RequestState.APPROVED


def test_a_version_that_is_gone_from_the_registry_is_neither_asked_about_nor_promoted(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.before = failing("tag")
    with pytest.raises(RegistryError):
        office.approve(request)
    with pytest.raises(RegistryError):
        office.ask("2015-02", "3", "1")
    assert office.approvals.record.open_requests() == (request,)
    assert versions(office) == ["1"]


def test_a_version_that_somebody_deleted_stops_nothing_but_its_own_tags(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.ask("2015-01", "2", "1")
    office.clock.move(days=40)
    office.registry.before = failing("tag")
    assert len(office.approvals.expire()) == 1
    assert office.approvals.production() == "1"
    assert "version 2 does not tell its story" in caplog.text
    office.registry.before = lambda _call: None
    assert office.approvals.repair() == ("tags of version 2",)
    assert office.registry.tags["2"]["decision"] == "expired"


def test_an_alias_moved_by_hand_is_put_back_and_said(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.registry.alias = "7"
    with caplog.at_level(logging.WARNING):
        assert office.approvals.production() == "1"
    assert office.registry.alias == "1"
    assert "production is version 1, was 7" in caplog.text
    assert office.approvals.repair() == ()


# History and going back


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
    assert versions(office) == ["1", "2", "3"]
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


# Reminders


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


# The secret


def test_the_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path / "state", approval_secret=None)
    made = in_processes([lambda: approval_secret(settings)] * 4)
    assert made == [approval_secret(settings)] * 4
    assert len(made[0]) >= 32
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_comes_second_uses_the_secret_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_too_late(draft: str, path: Path) -> None:
        path.write_bytes(b"the other process was faster")
        link(draft, path)

    monkeypatch.setattr(os, "link", link_too_late)
    assert approval_secret(Settings(taxifare_home=tmp_path)) == b"the other process was faster"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_secret_that_is_set_is_used_if_it_is_one(tmp_path: Path) -> None:
    assert approval_secret(Settings(taxifare_home=tmp_path, approval_secret="sixteen letters!")) == b"sixteen letters!"
    with pytest.raises(ApprovalError, match="at least 16 characters") as caught:
        approval_secret(Settings(taxifare_home=tmp_path, approval_secret="hunter2"))
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_approvals_from_settings_use_their_ledger(tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path)
    assert Approvals.from_settings(settings, MemoryRegistry()).production() is None
    assert (tmp_path / "ledger.db").exists()


# A real model registry


@pytest.mark.end_to_end
def test_the_registry_of_mlflow_tells_the_same_story(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    registry = registry_at(store)
    registry.prepare()
    client = MlflowClient(store, store)
    for _ in range(3):
        client.create_model_version("taxifare", str(tmp_path), run_id=None)
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}", registry)

    assert office.approvals.production() is None
    office.approve(office.ask("base", "1", None))
    request = office.ask("2015-01", "2", "1")
    office.approve(request)
    office.reject(office.ask("2015-02", "3", "2"))

    assert registry.production_version() == "2"
    assert registry.describe("2").tags.items() >= {
        ("month", "2015-01"),
        ("verdict", "PROMOTE"),
        ("request", request.id),
        ("decision", "approved"),
        ("decided_by", "Ada"),
        ("replaced", "1"),
    }
    assert registry.describe("1").tags["replaced_by"] == "2"
    assert registry.describe("3").tags["decision"] == "rejected"

    registry.set_production("3")
    assert office.approvals.production() == registry.production_version() == "2"
    assert office.approvals.rollback(by="Ada", reason="complaints").version == registry.production_version() == "1"

    with pytest.raises(RegistryError):
        office.ask("2015-03", "9", "1")
