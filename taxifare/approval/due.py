"""What there is to do next: which month to run, and which comparison to ask a person about.

Derived each time from what is published and what is on record (`Known`); nothing is remembered besides, so a month that
was run by hand, by backfill or by a sensor is the same to it. Doing it is the business of whoever asks.

Why nothing is remembered: docs/decisions.md, under approval.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from taxifare.approval.approvals import Approvals
from taxifare.approval.records import Comparison, Delivery, EvidenceUnreadableError, Outcome, Promotion, Request
from taxifare.settings import ChallengerName
from taxifare.trips.editions import BASE
from taxifare.trips.months import Month, parse_month

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""Between tries at sending a message."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is on record at one moment.

    Attributes:
        comparisons: The latest comparison of each subject.
        promotion: The promotion in force, None before the first.
        requests: Those that say what is due, oldest first, see `Entries.at_hand`.
        outcomes: How those of them that ended did.
        deliveries: The messages that arrived about those that are open.
    """

    comparisons: Mapping[str, Comparison]
    promotion: Promotion | None
    requests: Sequence[Request]
    outcomes: Collection[Outcome]
    deliveries: Collection[Delivery]

    @classmethod
    def of(cls, approvals: Approvals) -> "Known":
        """Returns what is on record now; the registry agrees afterwards.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger never heard of.
        """
        approvals.repair()
        with approvals.ledger.reading() as entries:
            return cls(entries.comparisons(), entries.last_promotion(), *entries.at_hand())

    @property
    def production(self) -> str | None:
        """The version in production, None where there is none."""
        return None if self.promotion is None else self.promotion.version

    @property
    def is_blank(self) -> bool:
        """Whether everything is yet to begin: the base model comes first then, where there are base years."""
        return not self.comparisons and self.promotion is None

    @property
    def settled(self) -> set[tuple[str, str]]:
        """The subjects, with their revisions, that somebody has decided on."""
        decided = {outcome.request_id for outcome in self.outcomes if outcome.by is not None}
        return {(request.subject, request.revision) for request in self.requests if request.id in decided}

    @property
    def ended(self) -> set[str]:
        """The requests that are not open any more."""
        return {outcome.request_id for outcome in self.outcomes}


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


@dataclass(frozen=True)
class Undecided:
    """What has to be decided on before a month is run.

    Attributes:
        subject: The month before it, or `base`.
        is_compared: Whether it has been compared, as it is published now, with what is in production now: then the
            decision is about to be made, and else it never will be.
    """

    subject: str
    is_compared: bool


def next_month(published: Mapping[Month, str], known: Known) -> Due | None:
    """Returns the oldest month to run, None where there is nothing to do.

    A month is due when it has not been compared; when its content has changed at the source since; or when production
    has, its question was not answered, and it is later than what production learned last – so that its question can be
    asked anew. Months at or before that are history. While nothing is in production and the question of a month waits,
    no further month is: a start has to be decided on once, not six times over.

    Args:
        published: Revision of each month the source has and the partitions cover.
        known: What is on record.
    """
    settled, learned = known.settled, _last_learned(known)
    start_waits = known.production is None and any(
        request.subject != BASE and request.id not in known.ended for request in known.requests
    )
    for month, revision in sorted(published.items()):
        comparison = known.comparisons.get(str(month))
        key = f"{month}:{revision}"
        if comparison is None:
            return None if start_waits else Due(month, Why.NEW, key)
        if comparison.revision != revision:
            return Due(month, Why.RESTATED, f"{key}:after {comparison.staging_run}")
        moved = comparison.production_version != known.production
        if moved and (str(month), revision) not in settled and (learned is None or month > learned):
            return Due(month, Why.PRODUCTION_CHANGED, f"{key}:v{known.production}:after {comparison.staging_run}")
    return None


def undecided_before(month: Month, revisions: Mapping[str, str], known: Known) -> Undecided | None:
    """Returns what has to be decided on before the month is run, None where nothing has.

    That is the month before it – the base model, before the first – where a policy decides: what it promotes is what
    the month is compared with.

    Args:
        month: The month to be run.
        revisions: Revision of each subject that is published; `base` is among them where there are base years.
        known: What is on record.
    """
    earlier = [subject for subject in revisions if subject != BASE and subject < str(month)]
    if not earlier and known.production is not None:
        return None
    before = max(earlier, default=BASE)
    if before not in revisions or (before, revisions[before]) in known.settled:
        return None
    comparison = known.comparisons.get(before)
    return Undecided(
        before,
        is_compared=comparison is not None
        and (comparison.revision, comparison.production_version) == (revisions[before], known.production),
    )


def to_retrain(known: Known, challengers: Collection[ChallengerName]) -> Request | None:
    """Returns the approved request whose month production is to be retrained on whole, None where there is none.

    That is the month it learned, when it became production by a month's approval: the base model has no month, and
    what a rollback returns to was retrained when it was approved.

    Args:
        known: What is on record.
        challengers: Which compete; unless the whole month is one of them, nothing is retrained.
    """
    if known.promotion is None or "whole month" not in challengers:
        return None
    approved = known.promotion.request_id
    return next((request for request in known.requests if request.id == approved and request.subject != BASE), None)


def to_ask(known: Known, channels: Collection[str]) -> list[Comparison]:
    """Returns the comparisons that have not reached every channel, oldest subject first.

    One against another version than the present production is left out: its question is void. So is one whose evidence
    another release has written in a shape that this one cannot read, with a warning.

    Args:
        known: What is on record.
        channels: Where messages have to arrive.
    """
    arrived = {(delivery.request_id, delivery.channel) for delivery in known.deliveries}
    told = {request.id for request in known.requests if all((request.id, channel) in arrived for channel in channels)}
    told |= known.ended
    asked = {(request.subject, request.evidence_digest): request.id for request in known.requests}

    def is_untold(comparison: Comparison) -> bool:
        if comparison.production_version != known.production:
            return False
        is_told = asked.get((comparison.subject, comparison.evidence_digest)) in told
        return not is_told and _is_readable(comparison)

    # "base" is before every month though it sorts after them.
    return sorted(
        filter(is_untold, known.comparisons.values()),
        key=lambda comparison: (comparison.subject != BASE, comparison.subject),
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


def _last_learned(known: Known) -> Month | None:
    """Returns the month that production was trained on last, None for the base model or where nothing is known."""
    subjects = [request.subject for request in known.requests if request.staging_version == known.production]
    return parse_month(subjects[-1]) if subjects and subjects[-1] != BASE else None
