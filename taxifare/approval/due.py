"""What there is to do next: which month to run, and which comparison to ask a person about.

Derived each time from what is published, what has been compared and what has been decided; nothing is remembered
besides, so a month that was run by hand, by backfill or by a sensor is the same to it.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from taxifare.approval.records import Comparison, Delivery, EvidenceUnreadableError, Outcome, Promotion, Request
from taxifare.settings import ChallengerName
from taxifare.trips.editions import BASE
from taxifare.trips.months import Month, parse_month

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""Between tries at sending a message."""


_log = logging.getLogger(__name__)


class Why(StrEnum):
    """Why a month is due."""

    NEW = "new"
    RESTATED = "restated"
    PRODUCTION_CHANGED = "production changed"


@dataclass(frozen=True)
class Due:
    """A month to run.

    Attributes:
        month: The month.
        why: What makes it due.
        run_key: The same for the same reason to run: a month is requested once for it. It names the comparison that is
            out of date, because a reason can come back: a month restated and restored, a promotion and a rollback.
    """

    month: Month
    why: Why
    run_key: str


def next_month(
    published: Mapping[Month, str],
    compared: Mapping[str, Comparison],
    production_version: str | None,
    requests: Collection[Request],
    outcomes: Collection[Outcome],
) -> Due | None:
    """Returns the oldest month to run, None where there is nothing to do.

    A month is due when it has not been compared; when its content has changed at the source since; or when production
    has, its question was not answered, and it is later than what production learned last – so that its question can be
    asked anew. Months at or before that are history. While nothing is in production and the question of a month waits,
    no further month is: a start has to be decided on once, not six times over.

    Args:
        published: Revision of each month the source has and the partitions cover.
        compared: The latest comparison of each subject.
        production_version: What is in production now.
        requests: All requests.
        outcomes: How those that ended did.
    """
    settled = _settled(requests, outcomes)
    learned = _last_learned(production_version, requests)
    ended = {outcome.request_id for outcome in outcomes}
    start_waits = production_version is None and any(
        request.subject != BASE and request.id not in ended for request in requests
    )
    for month, revision in sorted(published.items()):
        comparison = compared.get(str(month))
        key = f"{month}:{revision}"
        if comparison is None:
            return None if start_waits else Due(month, Why.NEW, key)
        if comparison.revision != revision:
            return Due(month, Why.RESTATED, f"{key}:after {comparison.staging_run}")
        moved = comparison.production_version != production_version
        if moved and (str(month), revision) not in settled and (learned is None or month > learned):
            return Due(month, Why.PRODUCTION_CHANGED, f"{key}:v{production_version}:after {comparison.staging_run}")
    return None


def undecided_before(
    month: Month,
    revisions: Mapping[str, str],
    production_version: str | None,
    requests: Collection[Request],
    outcomes: Collection[Outcome],
) -> str | None:
    """Returns what has to be decided on before the month is run, None where nothing has.

    That is the month before it – the base model, before the first – where a policy decides: what it promotes is what
    the month is compared with.

    Args:
        month: The month to be run.
        revisions: Revision of each subject that is published; `base` is among them where there are base years.
        production_version: What is in production now.
        requests: All requests.
        outcomes: How those that ended did.
    """
    earlier = [subject for subject in revisions if subject != BASE and subject < str(month)]
    if not earlier and production_version is not None:
        return None
    before = max(earlier, default=BASE)
    is_settled = before not in revisions or (before, revisions[before]) in _settled(requests, outcomes)
    return None if is_settled else before


def to_retrain(
    promotion: Promotion | None, requests: Collection[Request], challengers: Collection[ChallengerName]
) -> Request | None:
    """Returns the approved request whose month production is to be retrained on whole, None where there is none.

    That is the month it learned, when it became production by a month's approval: the base model has no month, and
    what a rollback returns to was retrained when it was approved.

    Args:
        promotion: The promotion in force.
        requests: All requests.
        challengers: Which compete; unless the whole month is one of them, nothing is retrained.
    """
    if promotion is None or "whole month" not in challengers:
        return None
    return next(
        (request for request in requests if request.id == promotion.request_id and request.subject != BASE), None
    )


def to_ask(
    compared: Mapping[str, Comparison],
    production_version: str | None,
    requests: Collection[Request],
    outcomes: Collection[Outcome],
    deliveries: Collection[Delivery],
    channels: Collection[str],
) -> list[Comparison]:
    """Returns the comparisons that have not reached every channel, oldest subject first.

    One against another version than the present production is left out: its question is void. So is one whose evidence
    another release has written in a shape that this one cannot read, with a warning.

    Args:
        compared: The latest comparison of each subject.
        production_version: What is in production now.
        requests: All requests.
        outcomes: How those that ended did.
        deliveries: The messages that arrived.
        channels: Where they have to arrive.
    """
    arrived = {(delivery.request_id, delivery.channel) for delivery in deliveries}
    told = {request.id for request in requests if all((request.id, channel) in arrived for channel in channels)}
    told |= {outcome.request_id for outcome in outcomes}
    asked = {(request.subject, request.evidence_digest): request.id for request in requests}

    def is_untold(comparison: Comparison) -> bool:
        if comparison.production_version != production_version:
            return False
        is_told = asked.get((comparison.subject, comparison.evidence_digest)) in told
        return not is_told and _is_readable(comparison)

    # "base" is before every month though it sorts after them.
    return sorted(
        filter(is_untold, compared.values()), key=lambda comparison: (comparison.subject != BASE, comparison.subject)
    )


def pause_before_try(tries: int) -> float:
    """Returns the seconds between the last of so many tries at sending a message and the next: doubled up to an hour.

    >>> [pause_before_try(tries) for tries in (0, 1, 2, 3, 7, 8, 100)]
    [0.0, 30.0, 60.0, 120.0, 1920.0, 3600.0, 3600.0]
    """
    return min(FIRST_PAUSE_S * 2 ** (tries - 1), LONGEST_PAUSE_S) if tries else 0.0


def _is_readable(comparison: Comparison) -> bool:
    """Whether this release can read the evidence; says so where it cannot."""
    try:
        _ = comparison.evidence
    except EvidenceUnreadableError as error:
        _log.warning("nobody is asked about %s: %s", comparison.subject, error)
        return False
    return True


def _settled(requests: Collection[Request], outcomes: Collection[Outcome]) -> set[tuple[str, str]]:
    """Returns the subjects, with their revisions, that somebody has decided on."""
    decided = {outcome.request_id for outcome in outcomes if outcome.by is not None}
    return {(request.subject, request.revision) for request in requests if request.id in decided}


def _last_learned(production_version: str | None, requests: Collection[Request]) -> Month | None:
    """Returns the month that production was trained on last, None for the base model or where nothing is known."""
    subjects = [request.subject for request in requests if request.staging_version == production_version]
    return parse_month(subjects[-1]) if subjects and subjects[-1] != BASE else None
