"""Asking about a comparison: every channel that can be reached hears once; what a policy decides needs no channel."""

from dataclasses import dataclass, field

import pytest

from taxifare.approval.asking import AskOutcome, ask
from taxifare.approval.channels import DeliveryError, Message
from taxifare.approval.comparisons import record
from taxifare.approval.due import Known, to_ask
from taxifare.approval.promotions import rolled_back, rolled_back_in_words
from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from taxifare.settings import Settings
from tests.support.approvals import LINKS, Office, evidence

pytestmark = pytest.mark.databases("sqlite")


@dataclass
class Channel:
    """A channel that keeps what it is told, or is down."""

    channel: str
    is_down: bool = False
    messages: list[Message] = field(default_factory=list)

    def deliver(self, message: Message) -> None:
        if self.is_down:
            raise DeliveryError(f"{self.channel} is gone")
        self.messages.append(message)


@pytest.fixture
def chat() -> Channel:
    return Channel("chat")


@pytest.fixture
def webhook() -> Channel:
    return Channel("webhook")


def ask_about(
    office: Office, *channels: Channel, verdict: Verdict = Verdict.PROMOTE, revision: str = "r1", policy: str = "person"
) -> AskOutcome:
    """January's comparison, asked about."""
    found = evidence("2015-01", "2", "1", verdict=verdict, revision=revision)
    comparison = record(office.approvals.ledger, found, office.clock())
    return ask(
        office.approvals,
        comparison,
        channels,
        LINKS,
        Settings(approval_policy=policy),
        comparison_page="https://side-by-side",
    )


def test_every_channel_is_told_once_and_a_person_decides(office: Office, chat: Channel, webhook: Channel) -> None:
    asked = ask_about(office, chat, webhook)
    assert (asked.sent, asked.faults, asked.decided) == (("chat", "webhook"), (), None)
    again = ask_about(office, chat, webhook)
    assert (again.request, again.sent, again.faults) == (asked.request, (), ())
    assert [len(channel.messages) for channel in (chat, webhook)] == [1, 1]
    assert "https://side-by-side" in chat.messages[0].text
    assert office.approvals.record.open_requests() == (asked.request,)


def test_a_channel_that_is_down_keeps_the_message_from_no_other_and_gets_it_later(
    office: Office, chat: Channel, webhook: Channel
) -> None:
    chat.is_down = True
    asked = ask_about(office, chat, webhook)
    assert (asked.sent, [str(fault) for fault in asked.faults]) == (("webhook",), ["chat is gone"])
    chat.is_down = False
    assert ask_about(office, chat, webhook).sent == ("chat",)


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(Verdict.PROMOTE, RequestState.APPROVED), (Verdict.HOLD, RequestState.REJECTED)],
)
@pytest.mark.parametrize("is_down", [False, True])
def test_a_policy_decides_once_whether_or_not_anybody_hears_of_it(
    office: Office, chat: Channel, verdict: Verdict, state: RequestState, is_down: bool
) -> None:
    chat.is_down = is_down
    asked = ask_about(office, chat, verdict=verdict, policy="gate")
    outcome = office.approvals.record.outcome(asked.request.id)
    assert outcome is not None
    assert asked.decided == outcome
    assert (outcome.state, outcome.by, outcome.reason) == (state, "policy gate", f"the verdict is {verdict}")


def test_what_the_policy_has_decided_it_does_not_decide_again(office: Office, chat: Channel) -> None:
    assert ask_about(office, chat, verdict=Verdict.HOLD, policy="gate").decided is not None
    assert ask_about(office, chat, verdict=Verdict.HOLD, policy="gate").decided is None


def test_the_question_about_an_earlier_edition_is_void(office: Office, chat: Channel) -> None:
    first = ask_about(office, chat).request
    second = ask_about(office, chat, revision="r2").request
    assert office.approvals.record.open_requests() == (second,)
    outcome = office.approvals.record.outcome(first.id)
    assert outcome is not None
    assert (outcome.state, outcome.reason) == (RequestState.VOID, "2015-01 restated as r2")


def test_who_goes_back_past_several_versions_takes_out_all_of_them_and_to_nothing_every_one(office: Office) -> None:
    """The gate promoted 2 and 3, and both are bad; in one step or in two, neither is promoted again by itself."""
    gate = Settings(approval_policy="gate")

    def offered(subject: str, staging: str, production: str | None) -> AskOutcome:
        found = record(office.approvals.ledger, evidence(subject, staging, production), office.clock())
        return ask(office.approvals, found, [], LINKS, gate, comparison_page=None)

    for subject, staging, production in (("2015-01", "2", "1"), ("2015-02", "3", "2")):
        assert offered(subject, staging, production).decided is not None
    office.approvals.rollback("1", by="Grace", reason="both are bad")
    gone_back = rolled_back(office.approvals.record.history())
    assert {version: change.sequence for version, change in gone_back.items()} == {"2": 4, "3": 4}
    assert rolled_back_in_words("2", gone_back["2"]) == (
        "version 2 was in production before; on 2015-02-01 Grace went back to version 1: both are bad"
    )
    assert offered("2015-03", "2", "1").decided is None
    assert offered("2015-04", "4", "1").decided is not None, "another one is"
    office.approvals.rollback("none", by="Grace", reason="no model at all")
    assert set(rolled_back(office.approvals.record.history())) == {"1", "2", "3", "4"}
    assert offered("2015-05", "5", None).decided is None, "whoever took the model out says when there is one again"


def test_who_took_a_version_out_stays_who_did_whatever_is_rolled_back_later(office: Office) -> None:
    """Jon's rollback to nothing took the blame for what Ida had found bad, and putting 3 back blamed whoever did."""
    for subject, staging, production in (("2015-01", "2", "1"), ("2015-02", "3", "2"), ("2015-03", "4", "3")):
        found = record(office.approvals.ledger, evidence(subject, staging, production), office.clock())
        asked = ask(office.approvals, found, [], LINKS, Settings(approval_policy="gate"), comparison_page=None)
        assert asked.decided is not None

    def gone_back(to: str, by: str) -> dict[str, str]:
        office.approvals.rollback(to, by=by, reason=f"{by} says so")
        return {version: change.by for version, change in rolled_back(office.approvals.record.history()).items()}

    assert gone_back("3", "Ida") == {"4": "Ida"}
    assert gone_back("none", "Jon") == {"1": "Jon", "2": "Jon", "3": "Jon", "4": "Ida"}
    assert gone_back("3", "Kim") == {"4": "Ida"}, "3 is back, and with it what it had replaced"
    assert gone_back("2", "Lee") == {"3": "Lee", "4": "Ida"}
    assert gone_back("4", "Mia") == {}


@pytest.mark.parametrize(("verdict", "waits"), [(Verdict.PROMOTE, True), (Verdict.HOLD, False)])
def test_a_policy_never_puts_back_what_a_person_took_out_of_production(
    office: Office, chat: Channel, verdict: Verdict, *, waits: bool
) -> None:
    """January's version was rolled back, February offers it again: the message says so, and a person is asked."""
    assert ask_about(office, chat, policy="gate").decided is not None
    office.approvals.rollback(by="Grace", reason="complaints from JFK")
    february = record(office.approvals.ledger, evidence("2015-02", "2", "1", verdict=verdict), office.clock())
    gate = Settings(approval_policy="gate")
    asked = ask(office.approvals, february, [chat], LINKS, gate, comparison_page=None)
    told = chat.messages[-1].text
    assert (
        "It was rolled back: version 2 was in production until 2015-02-01, when Grace went back to version 1: "
        "complaints from JFK. Only a person puts it back"
    ) in told
    assert (asked.decided is None, "Decide before" in told) == (waits, waits)
    assert to_ask(Known.of(office.approvals), ["chat"], gate) == [], "nothing is left to be done by itself"
    if waits:
        office.approve(asked.request)
        assert office.approvals.production() == "2"
        march = record(office.approvals.ledger, evidence("2015-03", "3", "2"), office.clock())
        after = ask(office.approvals, march, [chat], LINKS, gate, comparison_page=None)
        assert (office.approvals.production(), "rolled back" in chat.messages[-1].text) == ("3", False)
        assert after.decided is not None
