"""Asking: a comparison becomes a request, reaches every channel, and where a policy decides, is decided on at once.

`due` says whether there is something to ask; `delivery` takes one message to one channel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import DeliveryError, Notifier
from taxifare.approval.delivery import send_request
from taxifare.approval.message import Links
from taxifare.approval.records import Comparison, Outcome, Request
from taxifare.settings import Settings


@dataclass(frozen=True)
class AskOutcome:
    """What came of asking.

    Attributes:
        request: The request.
        sent: The channels that its message reached just now.
        faults: What is wrong with the channels that it did not reach; they are to be tried again.
        decided: What a policy decided just now, None where a person decides or the policy had decided before.
    """

    request: Request
    sent: tuple[str, ...]
    faults: tuple[DeliveryError, ...]
    decided: Outcome | None


def ask(
    approvals: Approvals,
    comparison: Comparison,
    notifiers: Iterable[Notifier],
    links: Links,
    settings: Settings,
    *,
    comparison_page: str | None = None,
    rules: Sequence[str] = (),
) -> AskOutcome:
    """Returns what came of asking about a comparison; repeated after a failure, it asks nothing twice.

    A channel that is down neither keeps the message from the others nor the policy from deciding. While a person reads
    the message, the version is made ready to be served, which takes seconds.

    Args:
        approvals: Where the request and the decision are recorded.
        comparison: What is asked about.
        notifiers: How people are reached.
        links: Where the message leads.
        settings: Who decides, and on which terms.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
        rules: Dated rules that have come into force since production was trained, in words.

    Raises:
        ApprovalError: The comparison cannot be asked about, or the policy's decision does not stand.
    """
    approvals.void_restated(comparison.subject, comparison.revision)
    request = approvals.request(comparison)
    sent, faults = [], []
    for notifier in notifiers:
        try:
            if send_request(
                approvals, notifier, request.id, links, settings, comparison_page=comparison_page, rules=rules
            ):
                sent.append(notifier.channel)
        except DeliveryError as error:
            faults.append(error)
    approvals.prepare(request.staging_version)
    return AskOutcome(request, tuple(sent), tuple(faults), approvals.decide_by_policy(request.id, settings))
