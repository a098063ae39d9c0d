"""A standing approval from the question to its end: what it lets become production, and everything that ends it."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taxifare.approval import standing
from taxifare.approval.asking import AskOutcome, ask
from taxifare.approval.channels import Message
from taxifare.approval.comparisons import record
from taxifare.approval.delivery import send_notice, send_reminders, send_request
from taxifare.approval.due import Known, standing_due_after, to_ask, to_tell, undecided_before
from taxifare.approval.errors import ApprovalError, LedgerBehindError, SettledError, TokenError, UnsignedError
from taxifare.approval.records import Outcome, RequestState, StandingEnd, StandingRequest, digest_of
from taxifare.approval.verification import TamperedError, verify
from taxifare.gate.evidence import Evidence, Verdict
from taxifare.settings import Settings
from taxifare.trips.city_files import shipped
from taxifare.trips.months import parse_month
from tests.support.approvals import LINKS, PERSON, FileRegistry, Office, in_processes
from tests.support.standing import STANDING, WORSE_AIRPORT, month

pytestmark = pytest.mark.databases("sqlite")

FIRST, SECOND, THIRD = (parse_month(f"2015-0{number}") for number in (1, 2, 3))
CHANNELS = ("chat",)


@dataclass
class Chat:
    """A chat that keeps what it is told."""

    channel: str = "chat"
    messages: list[Message] = field(default_factory=list)

    def deliver(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture
def chat() -> Chat:
    return Chat()


@dataclass
class Firm:
    """An office with a chat, in which months are run."""

    office: Office
    chat: Chat
    settings: Settings = STANDING

    def run(self, found: Evidence) -> None:
        self.office.clock.move(hours=1)
        record(self.office.approvals.ledger, self.office.gathered(found), self.office.clock())

    def tick(self) -> list[AskOutcome]:
        """What the sensor's runs do: ask, decide, tell."""
        approvals = self.office.approvals
        asked = [
            ask(approvals, comparison, [self.chat], LINKS, self.settings)
            for comparison in to_ask(self.known, CHANNELS, self.settings)
        ]
        if standing_due_after(self.known, self.settings) is not None:
            approvals.ask_standing(self.settings)
        for about in to_tell(self.known, CHANNELS):
            send_notice(approvals, self.chat, about, LINKS, self.settings)
        return asked

    @property
    def known(self) -> Known:
        return Known.of(self.office.approvals)

    @property
    def open(self) -> StandingRequest:
        waiting = self.known.standing.open
        assert waiting is not None
        return waiting

    def answer(self, request: StandingRequest, state: str = "approve", by: str = "Ada") -> Outcome:
        decision = "approve" if state == "approve" else "reject"
        token = self.office.approvals.answer_tokens(request)[decision]
        return self.office.approvals.decide(request.id, decision, by, "I read the terms", token)

    def who_decides(self) -> str:
        with self.office.approvals.ledger.reading() as entries:
            return standing.who_decides(entries, self.settings)

    def said(self) -> str:
        return self.chat.messages[-1].text


@pytest.fixture
def firm(office: Office, chat: Chat) -> Firm:
    """January was held, and a standing approval is asked for."""
    firm = Firm(office, chat)
    firm.run(month("2015-01", "2", "1", so_far=0))
    assert standing_due_after(firm.known, STANDING) == "2015-01"
    firm.tick()
    return firm


@pytest.fixture
def agreed(firm: Firm) -> Firm:
    """The same, and a person has agreed."""
    firm.answer(firm.open)
    return firm


def test_a_person_is_asked_once_with_terms_evidence_and_tokens(firm: Firm) -> None:
    request = firm.open
    assert (request.first_month, request.last_month, request.production_version) == ("2015-02", "2016-01", "1")
    text = firm.said()
    assert text.startswith("May candidates be promoted automatically from 2015-02 to 2016-01?")
    assert "better, with 95 % confidence, by more than 0.01 USD a ride" in text
    assert "Over 1 month on record it would have promoted none, asked a person about none, and changed nothing" in text
    assert text.splitlines()[-1] == f"Standing approval {request.id}"
    tokens = firm.office.approvals.answer_tokens(request)
    for decision, token in tokens.items():
        assert f"{decision.capitalize()}: https://pages/{decision}/{request.id}?{token}" in text
    told = len(firm.chat.messages)
    firm.tick()
    assert (len(firm.chat.messages), firm.open) == (told, request), "asked once"


def test_nobody_is_asked_under_another_policy(office: Office, chat: Chat) -> None:
    firm = Firm(office, chat, PERSON)
    firm.run(month("2015-01", "2", "1"))
    firm.tick()
    assert firm.known.standing.requests == []
    with pytest.raises(ApprovalError, match="APPROVAL_POLICY: expected standing, received person"):
        office.approvals.ask_standing(PERSON)


def test_under_another_policy_an_approval_in_force_decides_nothing_and_that_is_said(agreed: Firm) -> None:
    given = agreed.known.standing.in_force
    assert given is not None
    assert agreed.who_decides() == f"under {given.id}, until 2016-01"
    assert replace(agreed, settings=PERSON).who_decides() == (
        f"APPROVAL_POLICY=person, under which {given.id} decides nothing"
    )
    withdrawn(agreed)
    assert replace(agreed, settings=PERSON).who_decides() == "APPROVAL_POLICY=person"


def test_before_a_month_was_compared_there_is_nothing_to_go_by(office: Office, chat: Chat) -> None:
    assert standing_due_after(Known.of(office.approvals), STANDING) is None
    with pytest.raises(ApprovalError, match="expected a month that was compared"):
        office.approvals.ask_standing(STANDING)


def test_the_month_it_rests_on_stays_a_person_s_to_decide(firm: Firm) -> None:
    firm.answer(firm.open)
    firm.tick()
    assert [request.subject for request in firm.office.approvals.record.open_requests()] == ["2015-01"]


@pytest.mark.databases("sqlite", "postgresql")
def test_what_is_surely_better_becomes_production_under_it_and_is_told(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1"))
    (asked,) = agreed.tick()
    name = agreed.known.standing.requests[0].id
    assert asked.decided is not None
    assert (asked.decided.state, asked.decided.by, asked.decided.override) == (
        RequestState.APPROVED,
        f"standing approval {name}",
        True,
    )
    assert agreed.office.versions() == ["1", "3"]
    assert agreed.office.registry.alias == "3"
    with agreed.office.approvals.ledger.reading() as entries:
        assert entries.standing_uses() == {asked.request.id: name}
    question = next(sent.text for sent in agreed.chat.messages if sent.key == f"Request {asked.request.id}")
    assert f"Decided under standing approval {name}: approve, because " in question
    assert "Approve:" not in question
    assert f"By promotion, standing approval {name}" in agreed.said()
    verify(agreed.office.approvals.ledger, [])


def test_what_is_not_better_stays_without_a_question(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1", so_far=0))
    (asked,) = agreed.tick()
    assert asked.decided is not None
    assert (asked.decided.state, asked.decided.override) == (RequestState.REJECTED, False)
    assert agreed.office.versions() == ["1"]
    with agreed.office.approvals.ledger.reading() as entries:
        assert entries.standing_uses() == {}


def test_where_something_speaks_against_a_person_is_asked(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1", objections=(WORSE_AIRPORT,)))
    (asked,) = agreed.tick()
    assert asked.decided is None
    assert "Approve: https://pages/approve/" in next(
        sent.text for sent in agreed.chat.messages if sent.key == f"Request {asked.request.id}"
    )
    assert asked.request in agreed.office.approvals.record.open_requests()


def test_a_decision_that_was_cut_off_after_its_message_is_made_at_the_next_tick(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1"))
    (comparison,) = (one for one in to_ask(agreed.known, CHANNELS, STANDING) if one.subject == "2015-02")
    ask(agreed.office.approvals, comparison, [agreed.chat], LINKS, PERSON)
    assert agreed.office.versions() == ["1"]
    agreed.tick()
    assert agreed.office.versions() == ["1", "3"]


def test_months_wait_for_what_it_decides_and_not_for_a_person(agreed: Firm) -> None:
    revisions = {str(one): "r1" for one in (FIRST, SECOND, THIRD)}

    def waits_for(one: object) -> str | None:
        found = undecided_before(one, revisions, agreed.known, STANDING)  # type: ignore[arg-type]
        return None if found is None else found.subject

    assert waits_for(SECOND) is None, "January is a person's to decide"
    assert waits_for(THIRD) == "2015-02", "not compared yet"
    agreed.run(month("2015-02", "3", "1", objections=(WORSE_AIRPORT,)))
    assert waits_for(THIRD) is None
    agreed.run(month("2015-02", "4", "1"))
    assert waits_for(THIRD) == "2015-02"
    agreed.tick()
    assert waits_for(THIRD) is None


# What ends it


def rolled_back(firm: Firm) -> None:
    firm.office.approvals.rollback(by="Bea", reason="fares look odd")


def withdrawn(firm: Firm) -> None:
    firm.office.approvals.withdraw_standing(by="Bea", reason="not while tolls change")


def regretted(firm: Firm) -> None:
    firm.run(month("2015-03", "4", "3", so_far=0, looking_back=-0.01))


@pytest.mark.parametrize(
    ("end", "cause", "by"),
    [(rolled_back, "rollback", "Bea"), (withdrawn, "withdrawal", "Bea"), (regretted, "regret", None)],
)
def test_each_end_is_on_record_told_and_asks_a_person_again(
    agreed: Firm, end: Callable[[Firm], None], cause: str, by: str | None
) -> None:
    agreed.run(month("2015-02", "3", "1"))
    agreed.tick()
    name = agreed.known.standing.requests[0].id
    end(agreed)
    over = agreed.known.standing.ends[name]
    assert (over.cause, over.by) == (cause, by)
    assert agreed.known.standing.in_force is None
    agreed.tick()
    assert any(f"The standing approval {name} is over: by {cause}" in sent.text for sent in agreed.chat.messages)
    production = agreed.known.production
    assert production is not None
    agreed.run(month("2015-04", "5", production))
    asked = [asked for asked in agreed.tick() if asked.request.subject == "2015-04"]
    assert [one.decided for one in asked] == [None]
    assert agreed.open.first_month == "2015-05", "after the next month a person is asked anew"
    verify(agreed.office.approvals.ledger, [])


def test_a_promotion_that_is_not_regretted_or_not_its_own_leaves_it_in_force(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1", looking_back=-0.01))
    assert agreed.known.standing.in_force is not None, "what was in production was a person's choice"
    agreed.tick()
    agreed.run(month("2015-03", "4", "3", so_far=0, looking_back=-0.0005))
    assert agreed.known.standing.in_force is not None, "not surely worse"


def test_trips_that_production_has_learned_from_regret_nothing(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1"))
    agreed.tick()
    agreed.run(month("2015-03", "4", "3", verdict=Verdict.LEAK, looking_back=-0.01))
    assert agreed.known.standing.in_force is not None


def test_what_waited_for_it_reaches_a_person_with_links_once_it_is_over(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1"))
    (comparison,) = (one for one in to_ask(agreed.known, CHANNELS, STANDING) if one.subject == "2015-02")
    # Killed between the message, which says that nobody has to answer, and the decision.
    request = agreed.office.approvals.request(comparison)
    assert send_request(agreed.office.approvals, agreed.chat, request.id, LINKS, STANDING)
    assert "Approve:" not in agreed.said()
    withdrawn(agreed)
    agreed.tick()
    questions = [sent.text for sent in agreed.chat.messages if f"Request {request.id}" in sent.key]
    assert "Approve: https://pages/approve/" in questions[-1]
    assert agreed.office.versions() == ["1"]


@pytest.mark.parametrize("subject", ["2015-01", "2016-02", "base"])
def test_no_month_beyond_its_term_is_covered(agreed: Firm, subject: str) -> None:
    covering = agreed.known.standing.covering
    assert covering(subject, standing.terms_of(STANDING)) is None
    given = covering("2016-01", standing.terms_of(STANDING))
    assert given is not None
    assert f"{given.id} is of 2015-02 to 2016-01" in agreed.known.standing.said_of(subject, standing.terms_of(STANDING))


@pytest.mark.parametrize(
    "changed",
    [{"slice_tolerance": 0.5}, {"minimum_gain": 0.001}, {"bias_tolerance": 1.0}, {"city": shipped("chicago")}],
)
def test_terms_that_nobody_agreed_to_are_asked_about_anew(agreed: Firm, changed: dict[str, object]) -> None:
    other = replace(agreed, settings=STANDING.model_copy(update=changed))
    other.run(month("2015-02", "3", "1"))
    assert "was agreed to on other terms than .env has now" in other.who_decides()
    (asked,) = [asked for asked in other.tick() if asked.request.subject == "2015-02"]
    assert asked.decided is None
    before, now = other.known.standing.requests
    other.answer(now)
    assert other.known.standing.in_force == now
    assert other.known.standing.ends[before.id].cause == "successor"


def test_terms_that_were_looser_for_a_while_promote_nothing_when_they_are_back(agreed: Firm) -> None:
    loose = replace(agreed, settings=STANDING.model_copy(update={"slice_tolerance": 1.0}))
    loose.run(month("2015-02", "3", "1", at_airports=-0.5))
    (asked,) = loose.tick()
    assert asked.decided is None, "nobody has agreed to these terms"
    agreed.tick()
    assert agreed.office.versions() == ["1"]
    assert asked.request in agreed.office.approvals.record.open_requests()


def test_an_approval_of_before_the_city_was_one_of_the_terms_covers_nothing(firm: Firm) -> None:
    asked = firm.open
    firm.answer(asked, "reject")
    known = json.loads(asked.evidence_json)
    del known["terms"]["city"]
    written = json.dumps(known)
    before = replace(asked, id="of-before", evidence_json=written, evidence_digest=digest_of(written))
    with firm.office.approvals.ledger.writing() as entries:
        entries.add_standing_request(before)
    firm.answer(before)
    assert firm.known.standing.in_force == before
    assert firm.known.standing.covering("2015-02", standing.terms_of(STANDING)) is None
    verify(firm.office.approvals.ledger, [])


@pytest.mark.databases("sqlite", "postgresql")
def test_a_refusal_holds_for_the_months_it_was_asked_about(firm: Firm) -> None:
    firm.answer(firm.open, "reject")
    firm.run(month("2015-02", "3", "1"))
    firm.tick()
    assert firm.known.standing.open is None
    firm.run(month("2016-01", "4", "1"))
    firm.tick()
    assert firm.open.first_month == "2016-02"


def test_a_question_that_nobody_answers_is_reminded_of_expires_and_comes_with_the_next_month(firm: Firm) -> None:
    waiting = firm.open
    firm.office.clock.move(days=STANDING.reminder_days)
    assert waiting.id in send_reminders(firm.office.approvals, [firm.chat], LINKS, STANDING)
    assert firm.said().splitlines()[-1] == f"Standing approval {waiting.id}, message 1"
    firm.office.clock.move(days=31)
    firm.office.approvals.expire()
    assert firm.known.standing.outcomes[waiting.id].state is RequestState.EXPIRED
    firm.tick()
    assert firm.known.standing.open is None, "not on the same evidence"
    firm.run(month("2015-02", "3", "1", so_far=0))
    firm.tick()
    assert firm.open.first_month == "2015-03"


def test_it_can_be_answered_up_to_its_last_moment(firm: Firm) -> None:
    waiting = firm.open
    firm.office.clock.moment = waiting.valid_until
    firm.office.approvals.expire()
    firm.answer(waiting)
    assert firm.known.standing.in_force == waiting


def test_an_answer_that_comes_too_late_does_not_count(firm: Firm) -> None:
    waiting = firm.open
    firm.office.clock.moment = waiting.valid_until + timedelta(microseconds=1)
    with pytest.raises(SettledError, match="expired"):
        firm.answer(waiting)
    assert firm.known.standing.in_force is None


def test_a_rollback_makes_the_question_void(firm: Firm) -> None:
    waiting = firm.open
    firm.office.approvals.rollback("none", by="Bea", reason="the meter is broken")
    assert firm.known.standing.outcomes[waiting.id].state is RequestState.VOID


def test_asked_for_by_hand_a_question_that_ran_out_is_no_answer(firm: Firm) -> None:
    before = firm.open
    firm.office.clock.move(days=31)
    asked = firm.office.approvals.ask_standing(STANDING)
    assert (asked.id, asked.round) == (f"{before.id}-r2", 2)
    assert asked.valid_until > firm.office.clock()
    assert firm.known.standing.outcomes[before.id].state is RequestState.EXPIRED


def test_a_question_of_another_release_keeps_no_other_message_and_no_other_question(firm: Firm) -> None:
    firm.answer(firm.open, "reject")
    foreign = replace(
        firm.known.standing.requests[0], id="of-another", evidence_json='{"terms": 1}', evidence_digest=""
    )
    with firm.office.approvals.ledger.writing() as entries:
        entries.add_standing_request(foreign)
    january = firm.office.approvals.record.open_requests()[0]
    firm.office.approve(january, override=True)
    firm.tick()
    assert firm.said().startswith("In production: version 2"), "what else there is to tell is told"
    firm.run(month("2015-02", "3", "2", so_far=0))
    asked = firm.office.approvals.ask_standing(STANDING)
    assert (firm.open, firm.known.standing.outcomes[foreign.id].state) == (asked, RequestState.VOID)


def test_what_waits_for_a_predecessor_reaches_a_person_once_another_has_taken_its_place(agreed: Firm) -> None:
    agreed.run(month("2015-02", "3", "1"))
    (comparison,) = (one for one in to_ask(agreed.known, CHANNELS, STANDING) if one.subject == "2015-02")
    request = agreed.office.approvals.request(comparison)
    assert send_request(agreed.office.approvals, agreed.chat, request.id, LINKS, STANDING)
    successor = agreed.office.approvals.ask_standing(STANDING)
    (about,) = to_tell(agreed.known, CHANNELS)
    send_notice(agreed.office.approvals, agreed.chat, about, LINKS, STANDING)
    assert "Over 2 months on record it would have promoted 1 (2015-02), asked a person about none" in agreed.said()
    before = agreed.known.standing.in_force
    agreed.answer(successor, by="Bea")
    assert before is not None
    end = agreed.known.standing.ends[before.id]
    assert (end.cause, end.by, end.reason) == ("successor", "Bea", f"{successor.id} takes its place")
    assert not successor.covers("2015-02")
    agreed.tick()
    questions = [sent.text for sent in agreed.chat.messages if f"Request {request.id}" in sent.key]
    assert "Approve: https://pages/approve/" in questions[-1]


def test_a_ledger_whose_newer_entries_are_lost_promotes_nothing_by_itself(tmp_path: Path, chat: Chat) -> None:
    """What is lost may have ended the approval, as here, where somebody has withdrawn it and people were told."""
    settings = Settings(_env_file=None, approval_policy="standing", taxifare_home=tmp_path)
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}", home=tmp_path).with_first_model()
    firm = Firm(office, chat, settings)
    firm.run(month("2015-01", "2", "1", so_far=0))
    firm.tick()
    firm.answer(firm.open)
    with sqlite3.connect(tmp_path / "ledger.db") as ledger, sqlite3.connect(tmp_path / "backup.db") as backup:
        ledger.backup(backup)
    withdrawn(firm)
    firm.tick()
    with sqlite3.connect(tmp_path / "ledger.db") as ledger, sqlite3.connect(tmp_path / "backup.db") as backup:
        backup.backup(ledger)
    with pytest.raises(LedgerBehindError):
        firm.tick()
    office.approvals.adopt(by="Ada", reason="the disk of the newer one is gone")
    over = firm.known.standing.ends[firm.known.standing.requests[0].id]
    assert (over.cause, over.by) == ("withdrawal", "Ada")
    assert over.reason == "the newer ledger is lost: the disk of the newer one is gone"
    firm.run(month("2015-02", "3", "1"))
    firm.tick()
    assert office.versions() == ["1"]


@pytest.mark.databases("sqlite", "postgresql")
def test_an_approval_and_its_end_at_once_are_one_after_the_other(tmp_path: Path, chat: Chat, ledger_url: str) -> None:
    """Three processes at once: two that decide under it, on two months, and a person who ends it."""
    firm = Firm(Office.open(ledger_url, FileRegistry(path=tmp_path / "registry.json")).with_first_model(), chat)
    firm.run(month("2015-01", "2", "1", so_far=0))
    firm.tick()
    firm.answer(firm.open)
    approvals = firm.office.approvals
    waiting = []
    for subject, version in (("2015-02", "3"), ("2015-03", "4")):
        firm.run(month(subject, version, "1"))
        waiting.append(approvals.request(firm.known.comparisons[subject]))
    deciding = [lambda one=one: approvals.decide_by_policy(one.id, STANDING) for one in waiting]
    found = in_processes([*deciding, lambda: approvals.withdraw_standing(by="Bea", reason="not now")])
    assert [answer for answer in found if isinstance(answer, StandingEnd)]
    with approvals.ledger.reading() as entries:
        places = {link.entry_table: link.number for link in entries.links()}
        uses = entries.standing_uses()
    assert len(firm.office.versions()) == 1 + len(uses) <= 2, "none, or one before the end"
    assert all(places["standing_uses"] < places["standing_ends"] for _ in uses)
    verify(approvals.ledger, [])


# Who may


def test_tokens_of_other_questions_and_other_answers_open_nothing(firm: Firm) -> None:
    request, approvals = firm.open, firm.office.approvals
    january = approvals.record.open_requests()[0]
    wrong = [approvals.answer_tokens(january)["approve"], approvals.answer_tokens(request)["reject"], "", "é" * 32]
    for token in wrong:
        with pytest.raises(TokenError):
            approvals.decide(request.id, "approve", "Eve", "let me in", token)
    with pytest.raises(TokenError):
        approvals.decide(january.id, "approve", "Eve", "and here", approvals.answer_tokens(request)["approve"])
    assert firm.known.standing.in_force is None
    assert [refusal.by for refusal in firm.office.refusals()] == ["Eve"] * 5


@pytest.mark.databases("sqlite", "postgresql")
def test_an_answer_is_signed_and_counts_once(firm: Firm) -> None:
    request, approvals = firm.open, firm.office.approvals
    token = approvals.answer_tokens(request)["approve"]
    with pytest.raises(UnsignedError):
        approvals.decide(request.id, "approve", "", "", token)
    with pytest.raises(TokenError):
        approvals.decide(request.id, "approve", "Ada", "yes", token)
    first = firm.answer(request)
    assert firm.answer(request) == first
    with pytest.raises(SettledError):
        firm.answer(request, "reject", by="Bea")
    withdrawn(firm)
    with pytest.raises(SettledError, match="over by withdrawal: not while tolls change"):
        firm.answer(request)


def test_asked_again_the_links_of_before_are_dead_and_fresh_ones_come(firm: Firm) -> None:
    """As after the key of the tokens was lost: on this machine, for no message has a link to it."""
    request, approvals = firm.open, firm.office.approvals
    before = approvals.answer_tokens(request)["approve"]
    with pytest.raises(TokenError, match="no message about"):
        approvals.ask_again(request.id, before)
    assert approvals.ask_again(request.id) == request
    with pytest.raises(TokenError):
        approvals.decide(request.id, "approve", "Eve", "an old link", before)
    firm.tick()
    fresh = approvals.answer_tokens(request)["approve"]
    assert (fresh != before, fresh in firm.said()) == (True, True)
    firm.answer(request)
    with pytest.raises(
        ApprovalError, match=r"does not wait for an answer, it is approved by Ada; taxifare standing ask"
    ):
        approvals.ask_again(request.id)


def test_ending_what_is_not_there_or_without_a_name_is_refused(firm: Firm) -> None:
    with pytest.raises(ApprovalError, match="no standing approval is in force"):
        withdrawn(firm)
    firm.answer(firm.open)
    with pytest.raises(UnsignedError):
        firm.office.approvals.withdraw_standing(by=" ", reason="because")


@pytest.mark.databases("sqlite", "postgresql")
def test_the_database_lets_nothing_be_approved_under_what_nobody_agreed_to(firm: Firm) -> None:
    january = firm.office.approvals.record.open_requests()[0]
    firm.office.approve(january, override=True)
    with pytest.raises(sa.exc.IntegrityError), firm.office.approvals.ledger.writing() as entries:
        entries.add_standing_use(january.id, firm.known.standing.requests[0].id)


def test_its_evidence_is_of_the_last_month_against_what_is_in_production(office: Office, chat: Chat) -> None:
    """A later month was compared with a version that has been rolled back since: it says nothing about this one."""
    firm = Firm(office, chat)
    firm.run(month("2015-01", "2", "1", so_far=0.03))
    firm.office.approve(firm.office.approvals.request(firm.known.comparisons["2015-01"]), override=True)
    firm.run(month("2015-02", "3", "2", so_far=0.5))
    firm.office.approvals.rollback(by="Bea", reason="fares look odd")
    asked = office.approvals.ask_standing(STANDING)
    evidence = asked.evidence
    assert (asked.subject, [one.month for one in evidence.months]) == ("2015-01", ["2015-01"])
    assert evidence.so_far is not None
    assert evidence.so_far.mean == pytest.approx(0.03)


def test_terms_other_than_those_that_were_shown_are_named(firm: Firm) -> None:
    """Somebody who may add entries, and seals them, gives an approval with tolerances that no message has shown."""
    asked = firm.open
    verify(firm.office.approvals.ledger, [])
    looser = asked.evidence_json.replace('"slice_tolerance": 0.1', '"slice_tolerance": 9.0')
    with firm.office.approvals.ledger.writing() as entries:
        entries.add_standing_request(replace(asked, id="looser", round=9, evidence_json=looser))
    with pytest.raises(TamperedError, match=r"evidence of standing_requests .* does not have the digest"):
        verify(firm.office.approvals.ledger, [])
