"""The message that asks a person for a decision, and how it reaches them.

A message is sent once. Delivery is on record in the ledger, and only one process sends at a time. What no sender can
know is whether a server that failed to answer had accepted the message all the same; so the message carries a key (its
last line, and the `Idempotency-Key` header), and before anything is posted the channel is searched for it. Where the
chat does not let its messages be read, a fault after accepting shows the message twice: the same question, never two.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Protocol
from urllib.parse import quote, urlsplit

import requests
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from taxifare.approval import APPROVABLE, Approvals, Decision, by_verdict
from taxifare.evaluation import Contender, Interval, Verdict
from taxifare.ledger import Delivery, Outcome, Request
from taxifare.settings import Settings
from taxifare.targets import Unit

_log = logging.getLogger(__name__)

CODE_LOCATION = "taxifare_dagster.definitions"
TIMEOUT_SECONDS = 5
ATTEMPTS = 5
PASSING_STATUS = frozenset({408, 425, 429})

VERDICT_IN_WORDS = {
    Verdict.PROMOTE: "the new model is better",
    Verdict.HOLD: "no difference worth a promotion",
    Verdict.REJECT: "the new model is worse",
    Verdict.COLD_START: "nothing is in production yet",
    Verdict.UNSCORABLE: "the production model could not be scored",
    Verdict.LEAK: "a model has been trained on the trips it was scored on",
}


class DeliveryError(RuntimeError):
    """A message that could not be delivered, and will not be by trying again."""


class PassingDeliveryError(DeliveryError):
    """A message that could not be delivered now: no connection, no answer in time, or a server in trouble."""


@dataclass(frozen=True)
class Message:
    """A text to deliver.

    Attributes:
        key: Its last line, by which it is recognised in a channel.
        text: The whole, as plain text.
        links: The links in it, name and address; each stands in the text as `name: address`.
    """

    key: str
    text: str
    links: tuple[tuple[str, str], ...] = ()


class Notifier(Protocol):
    """A way to reach people."""

    @property
    def channel(self) -> str:
        """Where messages go; deliveries are recorded under it."""

    def deliver(self, message: Message) -> None:
        """Delivers a message, in one attempt; raises PassingDeliveryError or DeliveryError."""


class Console:
    """Writes messages to the log."""

    channel = "log"

    def deliver(self, message: Message) -> None:
        """Logs the message."""
        _log.info("%s", message.text)


class WagonChat:
    """Posts messages to a channel of the Wagon chat: `POST {base_url}/{channel}/messages` with author and content."""

    def __init__(self, base_url: str, channel: str, author: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = f"{base_url.rstrip('/')}/{quote(channel, safe='')}/messages"
        self._author = author
        self._timeout = timeout

    @property
    def channel(self) -> str:
        """The address of the channel's messages."""
        return self._url

    def deliver(self, message: Message) -> None:
        """Posts the message, unless it is in the channel already.

        Raises:
            PassingDeliveryError: No connection, no answer in time, 429 or 5xx.
            DeliveryError: Any other refusal; names the address and the status.
        """
        if self._shows(message.key):
            return
        content = {"author": self._author, "content": message.text}
        _post(self._url, content, message.key, shown_as=self._url, timeout=self._timeout)

    def _shows(self, key: str) -> bool:
        """Whether the channel is known to show the message; a chat that cannot be read shows nothing."""
        try:
            answer = requests.get(self._url, timeout=self._timeout)
            found = answer.json() if answer.ok else []
        except requests.RequestException:
            return False
        posts = found.get("messages", []) if isinstance(found, dict) else found
        return isinstance(posts, list) and any(key in _lines(post) for post in posts)


def _lines(post: object) -> list[str]:
    content = post.get("content") if isinstance(post, dict) else None
    return content.splitlines() if isinstance(content, str) else []


class SlackWebhook:
    """Posts messages to an incoming webhook of Slack, or of Mattermost, Rocket.Chat and others that speak its format.

    The address is a secret: whoever knows it can post. Records and errors name its host and a hash of it.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout = timeout

    @property
    def channel(self) -> str:
        """The webhook's host, and what tells it from others there."""
        return f"webhook {urlsplit(self._url).hostname} {_fingerprint(self._url)}"

    def deliver(self, message: Message) -> None:
        """Posts the message, its first line bold and its links by name.

        Raises:
            PassingDeliveryError: No connection, no answer in time, 429 or 5xx.
            DeliveryError: Any other refusal.
        """
        _post(self._url, {"text": in_slack_format(message)}, message.key, shown_as=self.channel, timeout=self._timeout)


class Service:
    """Sends messages through apprise: mail, Teams, Telegram, Discord and a hundred others, by their apprise address."""

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def channel(self) -> str:
        """The service, and what tells its address from others there; the address itself may hold a password."""
        return f"{urlsplit(self._url).scheme} {_fingerprint(self._url)}"

    def deliver(self, message: Message) -> None:
        """Sends the message with its first line as the title.

        Raises:
            DeliveryError: The address is not one of apprise's.
            PassingDeliveryError: The service did not take it; apprise does not say why.
        """
        import apprise

        service = apprise.Apprise()
        if not service.add(self._url):
            raise DeliveryError(f"{self.channel}: not an address that apprise knows")
        title, _, body = message.text.partition("\n")
        if not service.notify(title=title, body=body):
            raise PassingDeliveryError(f"{self.channel}: the service did not take the message")


def in_slack_format(message: Message) -> str:
    r"""The message in Slack's markup: the first line bold, links by name, nothing else of it taken for markup.

    >>> url = "https://x.example/?a=1&b"
    >>> print(in_slack_format(Message("key", f"A < B\nSee: {url}\nkey", (("See", url),))))
    *A &lt; B*
    <https://x.example/?a=1&amp;b|See>
    key
    """
    text = escape(message.text, quote=False)
    for label, url in message.links:
        text = text.replace(escape(f"{label}: {url}", quote=False), f"<{escape(url, quote=False)}|{label}>")
    first, _, rest = text.partition("\n")
    return f"*{first}*\n{rest}"


def _post(url: str, content: Mapping[str, str], key: str, *, shown_as: str, timeout: float) -> None:
    """Posts JSON, in one attempt; raises PassingDeliveryError or DeliveryError, which call the address `shown_as`."""
    try:
        answer = requests.post(
            url, json=content, headers={"Idempotency-Key": key}, timeout=timeout, allow_redirects=False
        )
    except requests.RequestException as error:
        # An address that is none stays none; whatever else happens between two machines may pass.
        fault = DeliveryError if isinstance(error, ValueError) else PassingDeliveryError
        if shown_as == url:
            raise fault(f"POST {url}: {error}") from error
        # The transport's own words, and its traceback, would tell the address.
        raise fault(f"POST {shown_as}: {type(error).__name__}") from None
    if answer.ok and not answer.is_redirect:
        return
    passing = answer.status_code >= 500 or answer.status_code in PASSING_STATUS
    fault = PassingDeliveryError if passing else DeliveryError
    raise fault(f"POST {shown_as} answered {answer.status_code} {answer.reason}: {answer.text[:200]}")


def _fingerprint(secret: str) -> str:
    """What tells a secret from another without telling it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def notifiers(settings: Settings) -> tuple[Notifier, ...]:
    """How the settings say that people are reached, every way of them; the log where they say none."""
    found: list[Notifier] = []
    if settings.chat_base_url is not None and settings.chat_channel is not None:
        found.append(WagonChat(settings.chat_base_url, settings.chat_channel, settings.chat_author))
    if settings.slack_webhook_url is not None:
        found.append(SlackWebhook(settings.slack_webhook_url.get_secret_value()))
    if settings.notify_urls is not None:
        found += map(Service, settings.notify_urls.get_secret_value().split())
    return tuple(found) or (Console(),)


def message(
    request: Request,
    token: str,
    settings: Settings,
    *,
    reminder: int = 0,
    restated: Sequence[Outcome] = (),
    comparison_page: str | None = None,
) -> Message:
    """The question, as plain text a person can judge by: the numbers, what they mean, and where to answer.

    Args:
        request: What is asked.
        token: Goes into the links that answer it.
        settings: For the links.
        reminder: 0 for the question itself, n for its n-th reminder.
        restated: Decisions on earlier editions of the same trips.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
    """
    evidence = request.evidence
    production = evidence.production.scores if evidence.production else None
    staging = evidence.staging.scores
    key = f"Request {request.id}" + (f", reminder {reminder}" if reminder else "")
    lines = [
        # The course's format: other software reads this line.
        f"Evaluation MAE: {_amount(production.mae if production else None)} - New training MAE: {_amount(staging.mae)}",
        f"{request.subject}: {request.verdict}, {VERDICT_IN_WORDS[request.verdict]}",
        *(f"- {reason}" for reason in evidence.reasons),
        *(
            f"Restated: that {earlier.request_id} was {earlier.state} by {earlier.by}, {_moment(earlier.at)}, "
            "rests on an earlier edition of these trips"
            for earlier in restated
        ),
    ]
    if evidence.gain is not None:
        lines.append(f"Gain a trip: {_interval(evidence.gain, evidence.unit)}, on the same {staging.trips:,} trips")
    if evidence.slices:
        worst = min(evidence.slices, key=lambda slice_: slice_.gain.mean)
        lines.append(
            f"Worst slice: {worst.name}, gain {_interval(worst.gain, evidence.unit)}, on {worst.staging.trips:,} trips"
        )
    lines += [
        f"Bias: production {_signed(production.bias if production else None)}, staging {_signed(staging.bias)}",
        f"With its correction: production {_corrected(evidence.production)}, staging {_corrected(evidence.staging)}",
        f"Difficulty: a plain rate per km is {_amount(evidence.difficulty_mae)} off on these trips",
        f"Versions: {request.staging_version} to replace {request.production_version or 'nothing'},"
        f" evidence {request.evidence_digest[:12]}",
    ]
    links = [("See", subject_link(request.subject, settings))]
    if comparison_page:
        links.append(("Compare the runs", comparison_page))
    if settings.approval_policy == "gate":
        lines.append(f"The policy decides to {by_verdict(request.verdict)}; asked {_moment(request.requested_at)}")
    else:
        lines.append(f"Decide before {_moment(request.valid_until)}; asked {_moment(request.requested_at)}")
        if request.verdict not in APPROVABLE:
            lines.append("Approving is against the verdict: it takes override: true, and a reason that says why")
        links += [
            ("Approve", decision_link(request, token, "approve", settings)),
            ("Reject", decision_link(request, token, "reject", settings)),
        ]
    lines += [*(f"{name}: {address}" for name, address in links), key]
    return Message(key, "\n".join(lines), tuple(links))


def subject_link(subject: str, settings: Settings) -> str:
    """Address of the subject's staging model in Dagster's UI."""
    assets = f"{settings.dagster_url.rstrip('/')}/assets"
    return (
        f"{assets}/base_model"
        if subject == "base"
        else f"{assets}/staging_model?view=partitions&partition={subject}-01"
    )


def decision_link(request: Request, token: str, decision: Decision, settings: Settings) -> str:
    """Address of Dagster's launchpad with `decision_job` filled in, but for who and why."""
    config = "\n".join(
        [
            "ops:",
            "  decide:",
            "    config:",
            f"      request: {json.dumps(request.id)}",
            f"      token: {json.dumps(token)}",
            f"      decision: {decision}",
            '      decided_by: ""',
            '      reason: ""',
            "      override: false",
            "",
        ]
    )
    job = f"{settings.dagster_url.rstrip('/')}/locations/{CODE_LOCATION}/jobs/decision_job"
    return f"{job}/playground/setup?config={quote(config, safe='')}"


def send_request(
    approvals: Approvals,
    notifier: Notifier,
    request_id: str,
    settings: Settings,
    *,
    reminder: int = 0,
    comparison_page: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether the message was sent just now: not if it had arrived before, nor if the request is no longer open.

    Passing faults are retried after 1, 2, 4 and 8 seconds and a little chance: `ATTEMPTS` times in all.

    Args:
        approvals: Where the request and its deliveries are recorded.
        notifier: How people are reached.
        request_id: The request.
        settings: For the links in the message.
        reminder: 0 for the question itself, n for its n-th reminder.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
        sleep: Waits between attempts.

    Raises:
        UnknownRequestError: No such request.
        DeliveryError: It could not be delivered; the request stays, and sending again asks nobody twice.
    """
    request = approvals.find(request_id)
    text = message(
        request,
        approvals.token(request),
        settings,
        reminder=reminder,
        restated=approvals.decided_on_other_editions(request),
        comparison_page=comparison_page,
    )
    for attempt in Retrying(
        retry=retry_if_exception_type(PassingDeliveryError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(initial=1, max=10),
        sleep=sleep,
        before_sleep=before_sleep_log(_log, logging.WARNING),
        reraise=True,
    ):
        with attempt:
            sent = _send(approvals, notifier, request, text, reminder)
    return sent


def _send(approvals: Approvals, notifier: Notifier, request: Request, text: Message, reminder: int) -> bool:
    # Under the ledger's lock: two processes never both find it unsent. One attempt is short, see TIMEOUT_SECONDS.
    with approvals.ledger.writing() as book:
        sent = {(delivery.channel, delivery.reminder) for delivery in book.deliveries(request.id)}
        if (notifier.channel, reminder) in sent or book.outcome(request.id) is not None:
            return False
        notifier.deliver(text)
        book.add_delivery(Delivery(request.id, notifier.channel, reminder, approvals.now()))
    return True


def send_reminders(
    approvals: Approvals,
    notifiers: Iterable[Notifier],
    settings: Settings,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """The open requests that people were reminded of just now: those last spoken of REMINDER_DAYS ago.

    Raises:
        DeliveryError: A reminder could not be delivered; the next call tries again.
    """
    due = approvals.due_reminders(timedelta(days=settings.reminder_days))
    for request in due:
        with approvals.ledger.reading() as book:
            number = 1 + max(delivery.reminder for delivery in book.deliveries(request.id))
        for notifier in notifiers:
            send_request(approvals, notifier, request.id, settings, reminder=number, sleep=sleep)
    return [request.id for request in due]


def _amount(amount: float | None) -> str:
    return "none" if amount is None else f"{amount:.2f}"


def _signed(amount: float | None) -> str:
    return "none" if amount is None else f"{amount:+.2f}"


def _corrected(contender: Contender | None) -> str:
    """Bias and error of the predictions that a version raises against its bias."""
    if contender is None:
        return "none"
    return f"{_signed(contender.corrected.bias)} at an MAE of {_amount(contender.corrected.mae)}"


def _interval(interval: Interval, unit: Unit) -> str:
    return f"{interval.mean:+.3f} {unit} (95 % interval {interval.low:+.3f} to {interval.high:+.3f})"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
