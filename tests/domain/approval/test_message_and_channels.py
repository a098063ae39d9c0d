"""The message says what a person needs, reaches them, and reaches them once."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taxifare.approval.channels import (
    DeliveryError,
    Message,
    PassingDeliveryError,
    Service,
    SlackWebhook,
    WagonChat,
    notifiers,
)
from taxifare.approval.delivery import ATTEMPTS, send_notice, send_reminders, send_request
from taxifare.approval.errors import UnknownRequestError
from taxifare.approval.faults import damage, failure
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.message import message, verdict_in_words
from taxifare.approval.policies import PolicyDecision
from taxifare.approval.records import Decision
from taxifare.gate.evidence import Objection, Verdict
from taxifare.gate.gains import SlicedGains, gains_of
from taxifare.gate.scores import Interval
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.secrets import remember
from taxifare.settings import Settings
from tests.support.approvals import LINKS, Office, evidence, in_processes
from tests.support.echo import echo_server
from tests.support.servers import Chat, Webhook, chat_server, webhook_server

pytestmark = pytest.mark.databases("sqlite")

SETTINGS = Settings(chat_base_url=None, chat_channel=None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which delivery remembers what it told."""
    settings = Settings(taxifare_home=tmp_path / "home", chat_base_url=None, chat_channel=None)
    monkeypatch.setitem(globals(), "SETTINGS", settings)
    return settings.home


@pytest.fixture
def chat() -> Iterator[Chat]:
    with chat_server() as chat:
        yield chat


@pytest.fixture
def wagon(chat: Chat) -> WagonChat:
    return WagonChat(chat.url, "taxi fares", "taxifare", timeout_s=0.5)


@pytest.fixture
def pauses() -> list[float]:
    return []


# What it says

TOKENS: dict[Decision, str] = {"approve": "TOKEN OF YES", "reject": "TOKEN OF NO"}


def test_where_a_policy_decides_the_message_says_what_it_does_and_asks_nobody(office: Office) -> None:
    request = office.ask("2015-03", "2", "1")
    told = message(request, TOKENS, LINKS, PolicyDecision("approve", "policy gate", "the verdict is PROMOTE"))
    assert "Decided by policy: approve; asked " in told.text
    assert "TOKEN" not in told.text
    assert [name for name, _ in told.links] == ["See", "In plain words"]
    assert told.text.splitlines()[-1] == f"Request {request.id}"


def test_the_message_tells_everything_a_decision_needs(office: Office) -> None:
    request = office.ask("2015-03", "2", "1")
    text = message(request, TOKENS, LINKS).text
    assert text.splitlines()[:-5] == [
        "Evaluation MAE: 2.31 - New training MAE: 2.10",
        "2015-03: PROMOTE, the new model is better",
        "- the gain exceeds 0.01 USD",
        "On the month's last days: +0.210 USD (95 % interval +0.170 to +0.250) a ride, on 4,000 rides",
        "How to read this: + means closer to the truth. With other days like these, the mean would fall within the "
        "interval 19 times out of 20. It describes these rides; next month's may differ",
        "Worst slice on the month's last days: airport, gain -0.020 USD (95 % interval -inf to +inf), on 4,000 rides",
        "Bias (mean error a ride): production 0.45 USD too low, staging 0.25 USD too low",
        "Bias after correction: production 0.05 USD too low (MAE 2.31), staging 0.05 USD too low (MAE 2.10)",
        "Difficulty: a flat per-km rate has an MAE of 2.48 on these rides",
        f"Versions: 2 to replace 1, evidence {request.evidence_digest[:12]}",
        "Decide before 2015-03-03 09:00 UTC; asked 2015-02-01 09:00 UTC",
    ]
    assert text.splitlines()[-5:-1] == [
        "See: https://pages/2015-03",
        "In plain words: https://pages/reports/2015-03.html",
        f"Approve: https://pages/approve/{request.id}?TOKEN OF YES",
        f"Reject: https://pages/reject/{request.id}?TOKEN OF NO",
    ]
    assert text.splitlines()[-1] == f"Request {request.id}"


@pytest.mark.parametrize(("mae", "is_warned"), [(2.47, False), (2.48, True), (2.6, True)])
def test_a_model_that_is_no_better_than_a_flat_rate_is_not_recommended_in_silence(
    office: Office, mae: float, is_warned: bool
) -> None:
    text = message(office.ask("2015-03", "2", "1", mae=mae), TOKENS, LINKS).text
    warning = f"Beware: staging, with an MAE of {mae:.2f}, is no better than that flat rate."
    assert (warning in text, text.splitlines()[0][:16]) == (is_warned, "Evaluation MAE: ")


def test_the_track_record_is_one_figure_in_the_message(office: Office) -> None:
    """Three months of 4,000 rides that saved 2 cents each, and one kind of ride that lost."""
    days = np.repeat(np.arange(20), 200)
    gains = SlicedGains(
        all=gains_of(np.full(4_000, 0.02) + days % 2 * 0.002, days),
        slices={"JFK": gains_of(np.full(40, -0.1), np.repeat(np.arange(20), 2)), "EWR": gains_of(np.ones(2), days[:2])},
    )
    months = tuple(MonthOnRecord(month=f"2015-0{n}", revision="r", candidate="2", gains=gains) for n in (1, 2, 3))
    found = evidence("2015-03", "2", "1").model_copy(
        update={"track_record": TrackRecord(production="1", months=months)}
    )
    text = message(office.request(found), TOKENS, LINKS).text
    since = "since version 1 went into production"
    assert f"Saved so far: +0.021 USD (95 % interval +0.021 to +0.021) a ride, on the 12,000 rides {since}\n" in text
    worst = f"Worst slice {since}: JFK, gain -0.100 USD (95 % interval -0.100 to -0.100), on 120 rides"
    assert worst in text


@pytest.mark.parametrize(
    ("gain", "objections", "words"),
    [
        (Interval(mean=0.03, low=0.004, high=0.05), (), "but perhaps by less than a promotion has to be worth"),
        (Interval(mean=0.03, low=0.02, high=0.05), ("JFK trips get worse",), "but not in everything that is checked"),
        (Interval(mean=0.03, low=-0.01, high=0.05), (), "no difference worth a promotion"),
    ],
)
def test_a_hold_says_what_a_better_model_lacks(gain: Interval, objections: tuple[str, ...], words: str) -> None:
    against = tuple(Objection(about="slice", name="JFK", reason=reason) for reason in objections)
    changes = {"gain": gain, "objections": against, "verdict": Verdict.HOLD, "reasons": objections or ("not shown",)}
    found = evidence("2015-03", "2", "1").model_copy(update=changes)
    assert verdict_in_words(found).endswith(words)
    assert ("is better" in verdict_in_words(found)) == (gain.low > 0)


def test_rules_that_production_has_not_learned_are_named(office: Office) -> None:
    text = message(office.ask("2015-03", "2", "1"), TOKENS, LINKS, rules=("2015-03-22 tolls rise",)).text
    assert "\nVersion 1 was trained before a rule came into force: 2015-03-22 tolls rise\n" in text


def test_a_first_model_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    request = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").ask("base", "1", None)
    text = message(request, TOKENS, LINKS).text
    assert text.startswith(
        "Evaluation MAE: none - New training MAE: 2.10\nbase: COLD_START, nothing is in production yet\n"
    )
    assert "Bias (mean error a ride): production none, staging 0.25 USD too low" in text
    assert "Bias after correction: production none, staging 0.05 USD too low (MAE 2.10)" in text
    assert "Versions: 1 to replace nothing" in text
    assert "See: https://pages/base\n" in text
    assert "How to read this" not in text
    assert "override: true" not in text


@pytest.mark.parametrize("verdict", [Verdict.HOLD, Verdict.REJECT, Verdict.UNSCORABLE, Verdict.LEAK])
def test_who_may_approve_against_the_verdict_only_is_told_how(office: Office, verdict: Verdict) -> None:
    text = message(office.ask("2015-03", "2", "1", verdict=verdict), TOKENS, LINKS).text
    assert (
        "Approving would go against the verdict: on the page that opens, change override: false to override: true"
        in text
    )


# How it is sent


def send(office: Office, wagon: WagonChat, request_id: str, pauses: list[float], **more: Any) -> bool:
    return send_request(office.approvals, wagon, request_id, LINKS, SETTINGS, sleep=pauses.append, **more)


def test_the_head_of_the_ledger_stands_in_the_message_and_is_remembered_outside_the_ledger(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float], home: Path
) -> None:
    request = office.ask("2015-03", "2", "1")
    head = office.approvals.record.head()
    assert head is not None
    assert send(office, wagon, request.id, pauses)
    assert f"\nLedger: {head}\n" in chat.messages[0]["content"]
    (told,) = ToldHeads(home, office.approvals.ledger.place).read()
    key = office.approvals.tokens.fingerprint
    assert told == ToldHead(head, f"Request {request.id} to {wagon.channel}", office.clock(), key)
    assert not send(office, wagon, request.id, pauses)
    assert send(office, wagon, request.id, pauses, reminder=1)
    assert len(ToldHeads(home, office.approvals.ledger.place).read()) == 2


def test_the_question_arrives_once_however_often_it_is_sent(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]
) -> None:
    request = office.ask("2015-03", "2", "1")
    assert send(office, wagon, request.id, pauses)
    assert not send(office, wagon, request.id, pauses)
    (posted,) = chat.messages
    assert posted["channel"] == "taxi fares"
    assert posted["author"] == "taxifare"
    assert posted["content"].startswith("Evaluation MAE: 2.31 - New training MAE: 2.10\n")
    assert posted["headers"]["Idempotency-Key"] == f"Request {request.id}"
    assert office.approvals.answer_tokens(request)["approve"] in posted["content"]


def test_reminders_are_messages_of_their_own(office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]) -> None:
    request = office.ask("2015-03", "2", "1")
    for reminder in (0, 1, 1, 2, 1):
        send(office, wagon, request.id, pauses, reminder=reminder)
    keys = [text.splitlines()[-1].removeprefix(f"Request {request.id}") for text in chat.contents("taxi fares")]
    assert keys == ["", ", reminder 1", ", reminder 2"]


def test_nobody_is_asked_what_is_settled(office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]) -> None:
    request = office.ask("2015-03", "2", "1")
    office.reject(request)
    assert not send(office, wagon, request.id, pauses)
    with pytest.raises(UnknownRequestError):
        send(office, wagon, "nonsense", pauses)
    assert chat.posts == 0


@pytest.mark.parametrize("fault", ["500", "503", "429", "slow", "drop"])
def test_passing_faults_are_waited_out(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float], fault: str
) -> None:
    chat.faults = [fault, fault]
    request = office.ask("2015-03", "2", "1")
    assert send(office, wagon, request.id, pauses)
    assert len(chat.messages) == 1
    assert len(pauses) == 2
    assert pauses[0] < pauses[1]


@pytest.mark.parametrize("fault", ["accept-500", "accept-slow"])
def test_a_server_that_accepts_and_then_fails_is_not_asked_to_accept_again(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float], fault: str
) -> None:
    chat.faults = [fault]
    assert send(office, wagon, office.ask("2015-03", "2", "1").id, pauses)
    assert (len(chat.messages), chat.posts) == (1, 1)


def test_where_the_chat_cannot_be_read_such_a_message_shows_twice_under_one_key(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]
) -> None:
    chat.faults, chat.readable = ["accept-500"], False
    assert send(office, wagon, office.ask("2015-03", "2", "1").id, pauses)
    first, second = chat.messages
    assert first["content"] == second["content"]
    assert first["headers"]["Idempotency-Key"] == second["headers"]["Idempotency-Key"]


def test_a_fault_that_does_not_pass_ends_with_a_limit_and_the_request_stays(
    office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]
) -> None:
    request = office.ask("2015-03", "2", "1")
    chat.faults = ["500"] * ATTEMPTS
    with pytest.raises(PassingDeliveryError, match=f"POST {chat.url}/taxi%20fares/messages answered 500"):
        send(office, wagon, request.id, pauses)
    assert (chat.posts, len(pauses)) == (ATTEMPTS, ATTEMPTS - 1)
    assert office.approvals.record.open_requests() == (request,)
    assert send(office, wagon, request.id, pauses)
    assert len(chat.messages) == 1


def test_a_permanent_refusal_is_not_repeated(office: Office, chat: Chat, wagon: WagonChat, pauses: list[float]) -> None:
    chat.faults = ["403"]
    with pytest.raises(DeliveryError, match="answered 403 Forbidden"):
        send(office, wagon, office.ask("2015-03", "2", "1").id, pauses)
    assert (chat.posts, pauses) == (1, [])


def test_an_address_that_is_none_is_not_tried_again(office: Office, pauses: list[float]) -> None:
    with pytest.raises(DeliveryError, match="wagon-chat/fares/messages") as caught:
        send(office, WagonChat("wagon-chat", "fares", "taxifare"), office.ask("2015-03", "2", "1").id, pauses)
    assert not isinstance(caught.value, PassingDeliveryError)
    assert pauses == []


def test_a_chat_that_is_not_there_is_a_passing_fault(office: Office, pauses: list[float]) -> None:
    with pytest.raises(PassingDeliveryError):
        send(office, WagonChat("http://127.0.0.1:1", "fares", "taxifare"), office.ask("2015-03", "2", "1").id, pauses)
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.databases("sqlite", "postgresql")
def test_of_processes_sending_at_once_one_sends(ledger_url: str, chat: Chat, wagon: WagonChat) -> None:
    office = Office.open(ledger_url).with_first_model()
    request = office.ask("2015-03", "2", "1")
    sent = in_processes([lambda: send_request(office.approvals, wagon, request.id, LINKS, SETTINGS)] * 3)
    assert sorted(sent) == [False, False, True]
    assert len(chat.messages) == 1


def test_a_chat_that_sends_us_on_is_not_followed(office: Office, pauses: list[float]) -> None:
    """What stands elsewhere is not what people read, and a question posted there would show its tokens to others."""
    with echo_server(status=200) as elsewhere, echo_server(status=307, onward=elsewhere.host) as moved:
        wagon = WagonChat(f"http://{moved.host}", "fares", "taxifare")
        with pytest.raises(DeliveryError, match="307"):
            send(office, wagon, office.ask("2015-03", "2", "1").id, pauses)
    assert (len(moved.received), elsewhere.received) == (2, []), "read, then posted to"


@pytest.mark.parametrize("listed", ["[]", "{}", '{"messages": 3}', '[{"content": null}, 7]', "no json"])
def test_a_chat_that_lists_anything_at_all_is_posted_to(
    office: Office, wagon: WagonChat, chat: Chat, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    import requests

    answer = requests.Response()
    answer.status_code, answer.raw = 200, io.BytesIO(listed.encode())
    monkeypatch.setattr(requests, "get", lambda *_args, **_kwargs: answer)
    wagon.deliver(Message("key", "text\nkey"))
    assert chat.contents("taxi fares") == ["text\nkey"]


# Where it goes


def test_messages_go_everywhere_that_is_set() -> None:
    everywhere = notifiers(
        Settings(
            chat_base_url="https://chat.example/api/",
            chat_channel="fares",
            slack_webhook_url="https://hooks.example/T0/secret-path",
            notify_urls="json://127.0.0.1:9/a mailto://ada:secret-password@example.org",
        )
    )
    assert [type(notifier) for notifier in everywhere] == [WagonChat, SlackWebhook, Service, Service]
    assert len({notifier.channel for notifier in everywhere}) == 4
    assert not any("secret" in notifier.channel for notifier in everywhere)
    assert notifiers(SETTINGS) == ()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook_server() as server:
        yield server


def test_a_webhook_gets_bold_and_named_links(office: Office, hook: Webhook) -> None:
    request = office.ask("2015-03", "2", "1")
    assert send_request(
        office.approvals, SlackWebhook(hook.url), request.id, LINKS, SETTINGS, comparison_page="http://m/#/c?r=1&e=2"
    )
    (post,) = hook.posts
    lines = post["text"].splitlines()
    assert lines[0] == "*Evaluation MAE: 2.31 - New training MAE: 2.10*"
    assert "<http://m/#/c?r=1&amp;e=2|Compare the runs>" in lines
    assert any(line.startswith("<http") and line.endswith("|Approve>") for line in lines)
    assert lines[-1] == f"Request {request.id}"
    assert not send_request(office.approvals, SlackWebhook(hook.url), request.id, LINKS, SETTINGS), "sent once"
    assert len(hook.posts) == 1


def test_a_webhook_s_address_is_in_no_error_and_no_record(office: Office, hook: Webhook) -> None:
    hook.statuses += [500] * ATTEMPTS
    request = office.ask("2015-03", "2", "1")
    with pytest.raises(PassingDeliveryError) as failed:
        send_request(office.approvals, SlackWebhook(hook.url), request.id, LINKS, SETTINGS, sleep=lambda _: None)
    assert hook.secret not in str(failed.value)
    with pytest.raises(PassingDeliveryError) as down:
        SlackWebhook("http://127.0.0.1:9/services/T0/very-secret", timeout_s=1).deliver(Message("k", "t\nk"))
    assert "very-secret" not in str(down.value)
    assert send_request(office.approvals, SlackWebhook(hook.url), request.id, LINKS, SETTINGS)
    with office.approvals.ledger.reading() as entries:
        assert all(hook.secret not in delivery.channel for delivery in entries.deliveries())


def test_other_services_get_the_message_through_apprise(office: Office, hook: Webhook) -> None:
    request = office.ask("2015-03", "2", "1")
    service = Service(hook.url.replace("http://", "json://"))
    assert send_request(office.approvals, service, request.id, LINKS, SETTINGS)
    (post,) = hook.posts
    assert post["title"] == "Evaluation MAE: 2.31 - New training MAE: 2.10"
    assert request.id in post["message"]
    hook.statuses.append(500)
    with pytest.raises(PassingDeliveryError):
        service.deliver(Message("key", "title\nkey"))
    with pytest.raises(DeliveryError, match="not an address"):
        Service("nothing://at.all").deliver(Message("key", "title\nkey"))


def test_who_does_not_answer_is_reminded_after_a_week_and_again_a_week_later(office: Office, hook: Webhook) -> None:
    request, webhook = office.ask("2015-03", "2", "1"), SlackWebhook(hook.url)
    send_request(office.approvals, webhook, request.id, LINKS, SETTINGS)
    assert send_reminders(office.approvals, [webhook], LINKS, SETTINGS) == []
    office.clock.move(days=7)
    assert send_reminders(office.approvals, [webhook], LINKS, SETTINGS) == [request.id]
    assert send_reminders(office.approvals, [webhook], LINKS, SETTINGS) == []
    office.clock.move(days=7)
    assert send_reminders(office.approvals, [webhook], LINKS, SETTINGS) == [request.id]
    assert [post["text"].splitlines()[-1] for post in hook.posts] == [
        f"Request {request.id}",
        f"Request {request.id}, reminder 1",
        f"Request {request.id}, reminder 2",
    ]
    office.approve(request)
    office.clock.move(days=7)
    assert send_reminders(office.approvals, [webhook], LINKS, SETTINGS) == []


def test_a_dead_channel_keeps_the_reminder_from_no_other(office: Office, hook: Webhook, chat: Chat) -> None:
    request, alive = office.ask("2015-03", "2", "1"), SlackWebhook(hook.url)
    send_request(office.approvals, alive, request.id, LINKS, SETTINGS)
    office.clock.move(days=7)
    chat.faults = ["404"]
    with pytest.raises(DeliveryError, match="404"):
        send_reminders(office.approvals, [WagonChat(chat.url, "fares", "taxifare"), alive], LINKS, SETTINGS)
    assert hook.posts[-1]["text"].splitlines()[-1] == f"Request {request.id}, reminder 1"


# What has gone wrong


def test_a_fault_is_told_once_and_its_words_are_cleaned_and_show_no_secret(office: Office, hook: Webhook) -> None:
    remember("open-sesame-of-the-bucket")
    why = "GET \x1b[31mhttp://x/?sig=open-sesame-of-the-bucket\x1b[0m\n" + "and so on " * 100
    fault = failure("of run 4f", "monthly_job, 2015-03", "failed", why, LINKS.run("4f"), holds_back=True)
    head = office.approvals.record.head()
    for _ in range(2):
        send_notice(office.approvals, SlackWebhook(hook.url), fault.about, LINKS, SETTINGS, fault=fault)
    (post,) = hook.posts
    lines = post["text"].splitlines()
    assert lines[0] == "*Failed: monthly_job, 2015-03*"
    assert lines[1].startswith("Why: GET http://x/?sig=…")
    assert len(lines[1]) < 600
    assert lines[-3:] == [f"Ledger: {head}", "<https://pages/runs/4f|See>", "Failure of run 4f"]


def test_production_that_is_not_what_was_approved_is_told_with_the_ways_out(office: Office, chat: Chat) -> None:
    assert office.approvals.damage() is None
    office.registry.altered.add("1")
    found = office.approvals.damage()
    assert found == ("1", "version 1 cannot be loaded: its files are not those")
    fault = damage(*found, LINKS.production())
    wagon = WagonChat(chat.url, "fares", "taxifare")
    for _ in range(2):
        send_notice(office.approvals, wagon, fault.about, LINKS, SETTINGS, fault=fault)
    (text,) = chat.contents("fares")
    assert text.splitlines()[:2] == ["Damaged: version 1, which is in production", f"Why: {found[1]}"]
    assert 'taxifare rollback --to VERSION (or none) --by YOU --reason "WHY"' in text
    office.approvals.rollback("none", by="Ada", reason="it is damaged")
    assert office.approvals.damage() is None
