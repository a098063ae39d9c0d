"""The message that asks a person for a decision, and how it reaches them.

A message is sent once. Delivery is on record in the ledger, and only one process sends at a time. What no sender can
know is whether a server that failed to answer had accepted the message all the same; so the message carries a key (its
last line, and the `Idempotency-Key` header), and before anything is posted the channel is searched for it. Where the
chat does not let its messages be read, a fault after accepting shows the message twice: the same question, never two.

What sending once can mean: docs/decisions.md, under approval.
"""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from tenacity import Retrying, before_sleep_log, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import (
    Message,
    Notifier,
    PassingDeliveryError,
)
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.message import Links, message
from taxifare.approval.records import Delivery, Request
from taxifare.settings import AskingSettings

_log = logging.getLogger(__name__)

ATTEMPTS = 5


def send_request(
    approvals: Approvals,
    notifier: Notifier,
    request_id: str,
    links: Links,
    settings: AskingSettings,
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
        links: Where the message leads.
        settings: Who decides.
        reminder: 0 for the question itself, n for its n-th reminder.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
        sleep: Waits between attempts.

    Raises:
        UnknownRequestError: No such request.
        DeliveryError: It could not be delivered; the request stays, and sending again asks nobody twice.
    """
    request = approvals.record.find(request_id)
    head = approvals.record.head()
    text = message(
        request,
        approvals.tokens.of(request),
        links,
        settings,
        head=head,
        reminder=reminder,
        restated=approvals.record.decided_on_other_editions(request),
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
    if sent and head is not None:
        told = ToldHeads(settings.home, approvals.ledger.place)
        told.remember(ToldHead(head, f"{text.key} to {notifier.channel}", approvals.now()))
    return sent


def _send(approvals: Approvals, notifier: Notifier, request: Request, text: Message, reminder: int) -> bool:
    # Under the ledger's lock: two processes never both find it unsent. One attempt is short, see TIMEOUT_S.
    with approvals.ledger.writing() as entries:
        sent = {(delivery.channel, delivery.reminder) for delivery in entries.deliveries(request.id)}
        if (notifier.channel, reminder) in sent or entries.outcome(request.id) is not None:
            return False
        notifier.deliver(text)
        entries.add_delivery(Delivery(request.id, notifier.channel, reminder, approvals.now()))
    return True


def send_reminders(
    approvals: Approvals,
    notifiers: Iterable[Notifier],
    links: Links,
    settings: AskingSettings,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """The open requests that people were reminded of just now: those last spoken of REMINDER_DAYS ago.

    Raises:
        DeliveryError: A reminder could not be delivered; the next call tries again.
    """
    due = approvals.record.due_reminders(timedelta(days=settings.reminder_days), approvals.now())
    for request in due:
        with approvals.ledger.reading() as entries:
            number = 1 + max(delivery.reminder for delivery in entries.deliveries(request.id))
        for notifier in notifiers:
            send_request(approvals, notifier, request.id, links, settings, reminder=number, sleep=sleep)
    return [request.id for request in due]
