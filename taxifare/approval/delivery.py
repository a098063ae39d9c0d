"""The message that asks a person for a decision, and how it reaches them.

A message is sent once. Delivery is on record in the ledger, and only one process sends at a time. No sender can know
whether a server that failed to answer accepted the message all the same; so the message carries a key (its last line,
and the `Idempotency-Key` header), and before anything is posted the channel is searched for it. Where messages of the
chat cannot be read, a fault after accepting shows the message twice: the same question, never two.

What sending once can mean: docs/decisions.md, under approval.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from taxifare.approval import promotions, requests, standing
from taxifare.approval.approvals import Approvals
from taxifare.approval.chain import Head
from taxifare.approval.channels import DeliveryError, Message, Notifier, PassingDeliveryError
from taxifare.approval.faults import FaultNotice
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.ledger import Entries
from taxifare.approval.message import (
    Links,
    alarm_expiry_notice,
    alarm_question,
    expiry_notice,
    fault_notice,
    message,
    promotion_notice,
    standing_end_notice,
    standing_question,
)
from taxifare.approval.policies import decision_on
from taxifare.approval.records import Delivery, Notice, Request
from taxifare.approval.tokens import about_request, to_answer, to_ask_again, to_go_back
from taxifare.settings import Settings

_log = logging.getLogger(__name__)

ATTEMPTS = 5


@dataclass(frozen=True)
class _Letter:
    """A message to one channel, written when its turn has come: what it shows is true while it is sent.

    Attributes:
        is_needed: Whether it has not been sent yet, and still makes sense.
        text: What it says.
        record: Records that it arrived.
    """

    is_needed: Callable[[Entries], bool]
    text: Callable[[Entries, Head | None], Message]
    record: Callable[[Entries], None]


def send_request(
    approvals: Approvals,
    notifier: Notifier,
    request_id: str,
    links: Links,
    settings: Settings,
    *,
    reminder: int | None = None,
    comparison_page: str | None = None,
    rules: Sequence[str] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether the message was sent just now: not if it had arrived before, nor if the request is no longer open.

    A question that reached the channel is sent once more if its links are dead because an answer failed. Temporary
    faults are retried after 1, 2, 4 and 8 seconds with some jitter: `ATTEMPTS` attempts in all.

    Args:
        approvals: Where the request and its deliveries are recorded.
        notifier: How people are reached.
        request_id: The request.
        links: Where the message leads.
        settings: Who decides.
        reminder: n for the n-th message after the question; None for the question itself, or its next edition.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
        rules: Dated rules that have come into force since production was trained, in words.
        sleep: Waits between attempts.

    Raises:
        UnknownRequestError: No such request.
        DeliveryError: It could not be delivered; the request stays, and sending again asks nobody twice.
    """
    request = approvals.record.find(request_id)
    about, restated = about_request(request.id), approvals.record.decided_on_other_editions(request)

    def number(entries: Entries) -> int:
        return _live_from(about, entries) if reminder is None else reminder

    def is_needed(entries: Entries) -> bool:
        arrived = [sent.reminder for sent in entries.deliveries(request.id) if sent.channel == notifier.channel]
        return max(arrived, default=-1) < number(entries) and entries.outcome(request.id) is None

    def text(entries: Entries, head: Head | None) -> Message:
        spent, rolled_back = entries.spent_tokens(about), promotions.rolled_back(entries.promotions())
        return message(
            request,
            approvals.tokens.answers(request, entries),
            links,
            decision_on(request, standing.read(entries), rolled_back, settings),
            head=head,
            reminder=number(entries),
            dead_links=spent[-1].why if spent else None,
            rolled_back=rolled_back.get(request.staging_version),
            restated=restated,
            other_starts=_other_starts(request, entries),
            comparison_page=comparison_page,
            rules=rules,
        )

    def record(entries: Entries) -> None:
        entries.add_delivery(Delivery(request.id, notifier.channel, number(entries), approvals.now()))

    return _send(approvals, notifier, _Letter(is_needed, text, record), settings, sleep)


def send_notice(
    approvals: Approvals,
    notifier: Notifier,
    about: str,
    links: Links,
    settings: Settings,
    *,
    fault: FaultNotice | None = None,
    reminder: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether a notice, see `due.to_tell`, was sent just now: not if it had arrived before.

    Args:
        approvals: Where notices are recorded.
        notifier: How people are reached.
        about: What it is about, as `due.to_tell` names it.
        links: Where the message leads.
        settings: Where this machine keeps what it has told.
        fault: What has happened, where that is not on record.
        reminder: n for the n-th message after the first; None for the first, or its next edition.
        sleep: Waits between attempts.

    Raises:
        DeliveryError: It could not be delivered; sending again tells nobody twice.
    """

    def number(entries: Entries) -> int:
        return _live_from(about, entries) if reminder is None else reminder

    def is_needed(entries: Entries) -> bool:
        arrived = [notice.message for notice in entries.notices(about) if notice.channel == notifier.channel]
        return max(arrived, default=-1) < number(entries) and _makes_sense(about, entries)

    def record(entries: Entries) -> None:
        entries.add_notice(Notice(about, notifier.channel, number(entries), approvals.now()))

    def text(entries: Entries, head: Head | None) -> Message:
        if fault is not None:
            return fault_notice(fault, head)
        return _notice(about, number(entries), entries, approvals, links, head)

    return _send(approvals, notifier, _Letter(is_needed, text, record), settings, sleep)


def _notice(
    about: str, number: int, entries: Entries, approvals: Approvals, links: Links, head: Head | None
) -> Message:
    """Returns what a notice says."""
    kind, _, name = about.partition(" ")
    raised = next((alarm for alarm in entries.alarms() if alarm.id == name), None)
    if kind == "expiry" and raised is not None:
        return alarm_expiry_notice(raised, links, head)
    if kind == "expiry":
        request = requests.found(entries, name)
        return expiry_notice(request, links, approvals.tokens.of(to_ask_again(request), entries), number, head)
    if kind in {"standing", "standing-end"}:
        return _of_standing(kind, name, number, entries, approvals, links, head)
    if raised is not None:
        tokens = approvals.tokens.answers(raised, entries)
        return alarm_question(raised, raised.evidence, tokens, links, number, head)
    promotion = next(entry for entry in entries.promotions() if entry.sequence == int(name))
    way_back = approvals.tokens.of(to_go_back(promotion, promotion.replaced_version), entries)
    return promotion_notice(promotion, links, way_back, number, head)


def _of_standing(
    kind: str, name: str, number: int, entries: Entries, approvals: Approvals, links: Links, head: Head | None
) -> Message:
    """Returns the question about a standing approval, or what is told of its end."""
    record = standing.read(entries)
    request = next(asked for asked in record.requests if asked.id == name)
    if kind == "standing":
        tokens = approvals.tokens.answers(request, entries)
        return standing_question(request, request.evidence, tokens, links, number, head)
    used = [request_id for request_id, under in entries.standing_uses().items() if under == name]
    return standing_end_notice(record.ends[name], used, links, head)


def _send(
    approvals: Approvals, notifier: Notifier, letter: _Letter, settings: Settings, sleep: Callable[[float], None]
) -> bool:
    """Whether the letter was sent just now; raises DeliveryError."""
    approvals.ensure_told()
    sent = False
    for attempt in Retrying(
        retry=retry_if_exception_type(PassingDeliveryError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(initial=1, max=10),
        sleep=sleep,
        before_sleep=before_sleep_log(_log, logging.WARNING),
        reraise=True,
    ):
        # Under the ledger's lock: two processes never both find it unsent. One attempt is short, see TIMEOUT_S.
        with attempt, approvals.ledger.writing() as entries:
            sent, head = letter.is_needed(entries), entries.head()
            if sent:
                text = letter.text(entries, head)
                notifier.deliver(text)
                letter.record(entries)
    if sent and head is not None:
        said = f"{text.key} to {notifier.channel}"
        told = ToldHead(head, said, approvals.now(), approvals.tokens.fingerprint)
        ToldHeads(settings.home, approvals.ledger.place).remember(told)
    return sent


def _makes_sense(about: str, entries: Entries) -> bool:
    """Whether a notice is still news: a standing approval or an alarm that has been answered no longer asks."""
    kind, _, name = about.partition(" ")
    answered = {"standing": entries.standing_outcomes, "alarm": entries.alarm_outcomes}
    return kind not in answered or name not in answered[kind]()


def _live_from(about: str, entries: Entries) -> int:
    """Returns the number of the first message whose links are not dead."""
    spent = entries.spent_tokens(about)
    return spent[-1].messages if spent else 0


def _other_starts(request: Request, entries: Entries) -> list[Request]:
    """Returns the other open requests where nothing is in production yet."""
    if request.production_version is not None:
        return []
    return [other for other in entries.open_requests() if other.id != request.id]


def send_reminders(
    approvals: Approvals,
    notifiers: Iterable[Notifier],
    links: Links,
    settings: Settings,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """The open questions that people were reminded of just now: those whose last message is REMINDER_DAYS old.

    Raises:
        DeliveryError: Some reminders could not be delivered, all others were; the next call tries again.
    """
    faults = []
    due = approvals.record.due_reminders(timedelta(days=settings.reminder_days), approvals.now())
    for asked in due:
        about = to_answer(asked, "approve").about
        with approvals.ledger.reading() as entries:
            sent = [delivery.reminder for delivery in entries.deliveries(asked.id)]
            sent += [notice.message for notice in entries.notices(about)]
        number = 1 + max(sent)
        for notifier in notifiers:
            try:
                if isinstance(asked, Request):
                    send_request(approvals, notifier, asked.id, links, settings, reminder=number, sleep=sleep)
                else:
                    send_notice(approvals, notifier, about, links, settings, reminder=number, sleep=sleep)
            except DeliveryError as error:
                faults.append(str(error))
    if faults:
        raise DeliveryError("; ".join(faults))
    return [asked.id for asked in due]
