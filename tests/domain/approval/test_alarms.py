"""An alarm asks a person once for a promotion, is answered like any question, and is over when production changes."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from taxifare.approval.comparisons import record
from taxifare.approval.delivery import send_notice, send_reminders
from taxifare.approval.due import (
    Due,
    Known,
    Why,
    is_past,
    last_learned,
    months_due,
    to_learn_so_far,
    to_retrain,
    to_tell,
)
from taxifare.approval.errors import ApprovalError, SettledError, TokenError, UnsignedError
from taxifare.approval.records import Alarm, RequestState, readable
from taxifare.approval.tokens import about_alarm
from taxifare.approval.verification import TamperedError, verify
from taxifare.gate.evidence import Verdict
from taxifare.settings import Settings
from taxifare.trips.months import parse_month
from tests.support.approvals import ALARM as EVIDENCE
from tests.support.approvals import LINKS, PERSON, Office, evidence
from tests.support.world import Chat


@pytest.fixture
def office(empty_ledger_url: str) -> Office:
    """Version 1 is in production."""
    return Office.open(empty_ledger_url).with_first_model()


def raised(office: Office) -> Alarm:
    return office.approvals.raise_alarm(EVIDENCE, "1")


def answer(office: Office, alarm: Alarm, decision: str = "approve", **changes: str) -> RequestState:
    token = office.approvals.answer_tokens(alarm)[decision]  # type: ignore[index]
    said = {"decided_by": "Ada", "reason": "the fares rose", "token": token} | changes
    return office.approvals.decide(alarm.id, decision, **said).state  # type: ignore[arg-type]


def told(office: Office, chat: Chat, settings: Settings = PERSON) -> list[str]:
    """Sends what is to be told; what was sent."""
    for about in to_tell(Known.of(office.approvals), [chat.channel]):
        send_notice(office.approvals, chat, about, LINKS, settings)
    return [message.text for message in chat.messages if message.key.startswith("Alarm")]


def test_a_person_is_asked_once_with_evidence_and_tokens(office: Office) -> None:
    chat, alarm = Chat(), raised(office)
    (text,) = told(office, chat)
    assert text.startswith("The error of production has grown: retrain on the days of 2012-09 so far?")
    assert "the MAE of version 1 has been 2.60 USD on 1,800 rides; at its usual skill it would have been 1.60" in text
    assert "fell from 50.0% to 18.8%" in text
    assert "09-04 2.60 (3.0), 09-05 2.60 (6.0)" in text
    assert "expect at most 0.1 false alarms a year" in text
    assert "fares_2012_09" in text
    for decision, token in office.approvals.answer_tokens(alarm).items():
        assert f"{decision.capitalize()}: https://pages/{decision}/{alarm.id}?{token}" in text
    assert raised(office) == alarm, "the same promotion has one alarm"
    assert office.approvals.raise_alarm(EVIDENCE.model_copy(update={"threshold": 9}), "1") == alarm
    assert told(office, chat) == [text]
    verify(office.approvals.ledger, [])


def test_the_database_keeps_the_latch(office: Office) -> None:
    alarm = raised(office)
    for other in (replace(alarm, id="b"), replace(alarm, id="c", version="2", sequence=7)):
        with pytest.raises(sa.exc.IntegrityError), office.approvals.ledger.writing() as entries:
            entries.add_alarm(other)


@pytest.mark.parametrize(("decision", "state"), [("approve", RequestState.APPROVED), ("reject", RequestState.REJECTED)])
def test_it_is_answered_with_a_token_and_the_answer_stays(office: Office, decision: str, state: RequestState) -> None:
    alarm = raised(office)
    with pytest.raises(TokenError):
        answer(office, alarm, decision, token="guessed")
    with pytest.raises(UnsignedError):
        answer(office, alarm, decision, reason=" ")
    assert answer(office, alarm, decision) is state
    assert answer(office, alarm, decision) is state, "a command that was killed can be repeated"
    with pytest.raises(SettledError):
        answer(office, alarm, "reject" if decision == "approve" else "approve")
    record = Known.of(office.approvals).alarms
    assert record.open is None
    assert to_learn_so_far(Known.of(office.approvals)) == (alarm if decision == "approve" else None)
    assert [entry.version for entry in office.approvals.record.history()] == ["1"], "nothing is promoted by it"
    assert raised(office) == alarm, "whatever the answer, nobody is asked again before production changes"


def test_who_does_not_answer_is_reminded_then_told_and_the_latch_is_still_closed(office: Office) -> None:
    chat, alarm = Chat(), raised(office)
    assert send_reminders(office.approvals, [chat], LINKS, PERSON) == [], "nobody was asked yet"
    asked = told(office, chat)
    office.clock.move(days=PERSON.reminder_days)
    assert send_reminders(office.approvals, [chat], LINKS, PERSON) == [alarm.id]
    assert send_reminders(office.approvals, [chat], LINKS, PERSON) == []
    reminded = chat.messages[-1].text
    assert reminded.splitlines()[-1] == f"Alarm {alarm.id}, message 1"
    office.clock.move(days=31 - PERSON.reminder_days)
    office.approvals.expire()
    assert send_reminders(office.approvals, [chat], LINKS, PERSON) == []
    assert Known.of(office.approvals).alarms.outcomes[alarm.id].state is RequestState.EXPIRED
    assert told(office, chat) == told(office, chat) == [*asked, reminded]
    assert [message.key for message in chat.messages].count(f"Expiry of {alarm.id}") == 1
    assert "is compared like any month when it is published" in chat.messages[-1].text
    with pytest.raises(SettledError):
        answer(office, alarm)
    assert raised(office) == alarm


def test_it_can_be_answered_up_to_its_last_moment(office: Office) -> None:
    alarm = raised(office)
    office.clock.moment = alarm.valid_until
    office.approvals.expire()
    assert Known.of(office.approvals).alarms.open == alarm
    assert answer(office, alarm) is RequestState.APPROVED


def test_an_answer_a_moment_later_comes_too_late(office: Office) -> None:
    alarm = raised(office)
    token = office.approvals.answer_tokens(alarm)["approve"]
    office.clock.moment = alarm.valid_until + timedelta(microseconds=1)
    with pytest.raises(SettledError, match=f"nobody answered until {alarm.valid_until:%Y-%m-%d %H:%M} UTC"):
        answer(office, alarm, token=token)
    outcome = Known.of(office.approvals).alarms.outcomes[alarm.id]
    assert (outcome.state, outcome.by) == (RequestState.EXPIRED, None)


def test_a_promotion_makes_it_void_and_opens_the_latch(office: Office) -> None:
    alarm = raised(office)
    office.approve(office.ask("2012-09", "2", "1"))
    record = Known.of(office.approvals).alarms
    assert record.outcomes[alarm.id].state is RequestState.VOID
    assert "promotion 2 has changed production since" in record.state(alarm)
    with pytest.raises(ApprovalError, match="version 1 was watched, and version 2 is in production"):
        raised(office)
    assert office.approvals.raise_alarm(EVIDENCE, "2").sequence == 2


def test_asked_again_its_links_are_fresh_and_those_of_before_dead(office: Office) -> None:
    chat, alarm = Chat(), raised(office)
    told(office, chat)
    before = office.approvals.answer_tokens(alarm)["approve"]
    assert office.approvals.ask_again(alarm.id) == alarm
    with pytest.raises(TokenError):
        answer(office, alarm, token=before)
    first, second = told(office, chat)
    assert second.splitlines()[-1] == f"Alarm {alarm.id}, message 1"
    assert answer(office, alarm) is RequestState.APPROVED
    assert first != second
    assert about_alarm(alarm.id) not in to_tell(Known.of(office.approvals), ["another channel"])


def test_evidence_that_was_changed_is_found_and_that_of_another_release_asks_nobody(office: Office) -> None:
    alarm = raised(office)
    assert alarm.evidence == EVIDENCE
    other = replace(alarm, evidence_json='{"of": "another release"}')
    assert readable(other) is None
    office.approve(office.ask("2012-09", "2", "1"))
    with office.approvals.ledger.writing() as entries:
        entries.add_alarm(replace(other, id="forged", sequence=2, version="2"))
    assert told(office, Chat()) == []
    with pytest.raises(TamperedError, match=r"the evidence of alarms .2. does not have the digest"):
        verify(office.approvals.ledger, [])


def test_what_was_learned_so_far_leaves_the_whole_month_to_be_learned(office: Office) -> None:
    """Approved on its days so far, production has yet to learn the whole month, and what was not published by then."""
    answer(office, raised(office))
    assert to_learn_so_far(Known.of(office.approvals)) is not None
    request = office.ask("2012-09", "2", "1", revision="so-far-2012-09-08-a1b2")
    assert to_learn_so_far(Known.of(office.approvals)) is None, "it is compared, and asked about"
    office.approve(request)
    record, september = Known.of(office.approvals), parse_month("2012-09")
    assert last_learned(record) is None, "no month had been compared by then"
    assert to_retrain(record, ["warm", "whole month"]) is None
    late = {september - 2: "r", september - 1: "r", september: "r1"}
    assert [one.month for one in months_due(late, record)] == sorted(late)
    assert list(months_due(late, record))[-1] == Due(september, Why.NEW, "2012-09:r1")
    again = office.approvals.raise_alarm(EVIDENCE, "2")
    answer(office, again)
    assert to_learn_so_far(Known.of(office.approvals)) == again, "a second alarm of the month learns further"
    whole = office.ask("2012-09", "3", "2", revision="r1")
    assert to_learn_so_far(Known.of(office.approvals)) is None
    assert office.approvals.record.decided_on_other_editions(whole) == (), "the days so far were not restated"


def test_a_month_that_was_compared_without_a_question_is_learned_too(office: Office) -> None:
    """August changed nothing, so nobody was asked about it; it had been compared when the days so far were approved."""
    august = evidence("2012-08", "1", "1", verdict=Verdict.UNCHANGED)
    record(office.approvals.ledger, office.gathered(august), office.clock())
    answer(office, raised(office))
    office.approve(office.ask("2012-09", "2", "1", revision="so-far-2012-09-08-a1b2"))
    assert last_learned(Known.of(office.approvals)) == parse_month("2012-08")


def test_days_so_far_are_no_month(office: Office) -> None:
    """Who asks for the last month that was compared is told of August, whatever September's days so far have shown."""
    office.reject(office.ask("2012-07", "2", "1"))
    office.clock.move(days=1)
    office.approve(office.ask("2012-09", "3", "1", revision="so-far-2012-09-08-a1b2"))
    record, august = Known.of(office.approvals), parse_month("2012-08")
    assert last_learned(record) == august - 1, "August was not published by then"
    assert [one.month for one in months_due({august - 1: "r1", august: "r1"}, record)] == [august]
    office.clock.move(days=1)
    office.reject(office.ask("2012-08", "4", "3"))
    office.ask("2012-07", "5", "3", revision="restated")
    record = Known.of(office.approvals)
    assert last_learned(record) == august - 1, "August was compared since, July was before it was restated"
    assert (is_past(august, record), is_past(august - 1, record)) == (False, True)
    standing = Settings(_env_file=None, approval_policy="standing")
    asked = office.approvals.ask_standing(standing)
    assert (asked.subject, asked.first_month) == ("2012-08", "2012-09")
    assert [one.month for one in asked.evidence.months] == ["2012-07", "2012-08"]
