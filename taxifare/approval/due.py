"""What there is to do next: which month to run, and which comparison to ask a person about.

It is derived each time from what is published and what is on record (`Known`); nothing else is remembered, so it makes
no difference whether a month was run by hand, by a backfill or by a sensor. Whoever asks does what is due.

Why nothing is remembered: docs/decisions.md, under approval.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from taxifare.approval import alarms, policies, promotions, requests, standing
from taxifare.approval.alarms import AlarmRecord
from taxifare.approval.approvals import Approvals
from taxifare.approval.ledger import Entries
from taxifare.approval.records import (
    Alarm,
    Comparison,
    Delivery,
    EvidenceUnreadableError,
    Notice,
    Outcome,
    Promotion,
    Request,
    RequestState,
    SpentToken,
    readable,
)
from taxifare.approval.standing import StandingRecord, terms_of
from taxifare.approval.tokens import (
    about_alarm,
    about_expiry,
    about_promotion,
    about_request,
    about_standing,
    about_standing_end,
)
from taxifare.gate.evidence import Verdict
from taxifare.settings import ChallengerName, MonthSettings, Settings
from taxifare.trips.editions import BASE, is_so_far
from taxifare.trips.months import Month, parse_month

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""Between attempts to send a message."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What is on record at one moment.

    Attributes:
        comparisons: The latest comparison of each subject.
        promotion: The promotion in force, None before the first.
        requests: Those from which follows what is due, oldest first, see `Entries.at_hand`.
        outcomes: How those of them that are closed ended.
        deliveries: The messages that arrived about those that are open.
        notices: The other messages that arrived.
        spent: The spent tokens: links in messages from before are dead.
        standing: The standing approvals.
        alarms: The alarms.
        rolled_back: The rollback that took each version out of production, by version, see `promotions.rolled_back`.
    """

    comparisons: Mapping[str, Comparison]
    promotion: Promotion | None
    requests: Sequence[Request]
    outcomes: Collection[Outcome]
    deliveries: Collection[Delivery]
    notices: Collection[Notice] = ()
    spent: Sequence[SpentToken] = ()
    standing: StandingRecord = field(default_factory=StandingRecord)
    alarms: AlarmRecord = field(default_factory=AlarmRecord)
    rolled_back: Mapping[str, Promotion] = field(default_factory=dict)

    @classmethod
    def of(cls, approvals: Approvals) -> "Known":
        """Returns what is on record now; the registry agrees afterwards.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger does not know.
        """
        approvals.repair()
        with approvals.ledger.reading() as entries:
            return cls.read(entries)

    @classmethod
    def read(cls, entries: Entries) -> "Known":
        """Returns what is on record in one view of the ledger; it does not look whether the registry agrees."""
        history = entries.promotions()
        return cls(
            entries.comparisons(),
            history[-1] if history else None,
            *entries.at_hand(),
            entries.notices(),
            entries.spent_tokens(),
            standing.read(entries),
            alarms.read(entries),
            promotions.rolled_back(history),
        )

    @property
    def production(self) -> str | None:
        """The version in production, None where there is none."""
        return None if self.promotion is None else self.promotion.version

    @property
    def replaced(self) -> str | None:
        """The version that production replaced; None where it replaced none, or a rollback returned to it."""
        promotion = self.promotion
        return promotion.replaced_version if promotion is not None and promotion.kind == "promotion" else None

    @property
    def is_blank(self) -> bool:
        """Whether nothing has happened yet: then the base model comes first, where there are base years."""
        return not self.comparisons and self.promotion is None

    @property
    def settled(self) -> set[tuple[str, str]]:
        """The subjects, with their revisions, on which somebody has decided."""
        decided = {outcome.request_id for outcome in self.outcomes if outcome.by is not None}
        return {(request.subject, request.revision) for request in self.requests if request.id in decided}

    @cached_property
    def ends(self) -> Mapping[str, Outcome]:
        """How each request that is no longer open ended."""
        return {outcome.request_id: outcome for outcome in self.outcomes}

    @cached_property
    def last_rounds(self) -> Mapping[tuple[str, str], Request]:
        """The last question about each subject and digest of evidence."""
        return {(request.subject, request.evidence_digest): request for request in self.requests}

    @cached_property
    def live_from(self) -> Mapping[str, int]:
        """For each thing about which a token was spent, the number of the first message whose links work."""
        return {spent.about: spent.messages for spent in self.spent}

    def round_on(self, comparison: Comparison) -> Request | None:
        """Returns the last question about a comparison, None where nobody was asked about it."""
        return self.last_rounds.get((comparison.subject, comparison.evidence_digest))


def to_learn_so_far(known: Known) -> Alarm | None:
    """Returns the alarm whose month's days so far are to be learned; None without an approved one, or once compared.

    Args:
        known: What is on record.
    """
    alarm = known.alarms.ended_as(RequestState.APPROVED, known.promotion)
    compared = None if alarm is None else known.comparisons.get(alarm.month)
    if compared is None:
        return alarm
    # An earlier alarm of the same month has changed production since: the month is learned again.
    return alarm if is_so_far(compared.revision) and compared.production_version != known.production else None


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
        run_key: The same for the same reason, so that a month is requested once for each. It names the comparison that
            is out of date, because a reason can recur: a month restated and restored, a promotion and a rollback.
    """

    month: Month
    why: Why
    run_key: str


@dataclass(frozen=True)
class Undecided:
    """What has to be decided on before a month is run.

    Attributes:
        subject: The month before it, or `base`.
        is_compared: Whether it has been compared, as it is published now, with what is in production now: if so the
            decision is about to be made, otherwise it never will be.
    """

    subject: str
    is_compared: bool


def next_month(published: Mapping[Month, str], known: Known) -> Due | None:
    """Returns the oldest month to run, None where there is nothing to do.

    While one start waits for its answer, no other is prepared, see `waiting_start`: a start needs one decision, not
    six.

    Args:
        published: Revision of each month that is `covered`.
        known: What is on record.
    """
    due = next(months_due(published, known), None)
    return None if due is not None and due.why is Why.NEW and waiting_start(known) is not None else due


def covered(published: Mapping[Month, str], settings: MonthSettings, now: datetime) -> dict[Month, str]:
    """Returns the published months that are run at all, and their revisions: FIRST_MONTH to LAST_MONTH, once over.

    A month is over when the next one has begun in UTC, whatever a source has of it earlier.

    >>> months = {parse_month(month): "a1" for month in ("2014-12", "2015-01", "2015-02", "2015-03")}
    >>> first = MonthSettings(FIRST_MONTH="2015-01", LAST_MONTH="")
    >>> [str(month) for month in covered(months, first, datetime.fromisoformat("2015-03-01T00:00Z"))]
    ['2015-01', '2015-02']

    Args:
        published: Revision of each month that the source has.
        settings: Say which months are worked on.
        now: The moment, in UTC.
    """
    over = parse_month(f"{now:%Y-%m}") - 1
    last = over if settings.last_month is None else min(settings.last_month, over)
    return {month: revision for month, revision in published.items() if settings.first_month <= month <= last}


def months_due(published: Mapping[Month, str], known: Known) -> Iterator[Due]:
    """Yields the months that are behind what is published and decided, oldest first.

    A month is due when it has not been compared, or only its days so far; when its content at the source has changed
    since; or when production has changed, its question was not answered, and it is later than what production learned
    last, so that its question can be asked again. Months up to that one are history.

    Args:
        published: Revision of each month that is `covered`.
        known: What is on record.
    """
    settled, learned = known.settled, last_learned(known)
    for month, revision in sorted(published.items()):
        comparison = known.comparisons.get(str(month))
        key = f"{month}:{revision}"
        if comparison is None or is_so_far(comparison.revision):
            if learned is None or month >= learned:
                yield Due(month, Why.NEW, key)
            continue
        moved = comparison.production_version != known.production
        if comparison.revision != revision:
            yield Due(month, Why.RESTATED, f"{key}:after {comparison.staging_run}")
        elif moved and (str(month), revision) not in settled and (learned is None or month > learned):
            yield Due(month, Why.PRODUCTION_CHANGED, f"{key}:v{known.production}:after {comparison.staging_run}")


def waiting_start(known: Known) -> Comparison | None:
    """Returns the start that waits for its answer, asked about or not yet; None where something is in production.

    Args:
        known: What is on record.
    """
    if known.production is not None:
        return None
    for comparison in sorted(known.comparisons.values(), key=requests.by_subject):
        asked = known.round_on(comparison)
        is_open = asked is None or asked.id not in known.ends
        if is_open and requests.makes_sense(comparison, None) and _is_question(comparison):
            return comparison
    return None


def undecided_before(month: Month, revisions: Mapping[str, str], known: Known, settings: Settings) -> Undecided | None:
    """Returns what has to be decided on before the month is run, None where nothing has.

    That is the month before it – before the first, the base model – if a policy decides on it: what the policy promotes
    is what the month is compared with. Nothing waits for a person.

    Args:
        month: The month to be run.
        revisions: Revision of each subject that is published; `base` is among them where there are base years.
        known: What is on record.
        settings: Who decides.
    """
    earlier = [subject for subject in revisions if subject != BASE and subject < str(month)]
    if not earlier and known.production is not None:
        return None
    before = max(earlier, default=BASE)
    if before not in revisions or (before, revisions[before]) in known.settled:
        return None
    comparison = known.comparisons.get(before)
    if before != BASE and _is_history(parse_month(before), comparison, revisions[before], last_learned(known)):
        return None
    if comparison is not None and requests.makes_sense(comparison, known.production) and not _is_question(comparison):
        return None
    is_compared = comparison is not None and (comparison.revision, comparison.production_version) == (
        revisions[before],
        known.production,
    )
    as_it_is = comparison if is_compared else None
    if not policies.decides_on(before, as_it_is, known.standing, known.rolled_back, settings):
        return None
    return Undecided(before, is_compared)


def _is_history(month: Month, comparison: Comparison | None, revision: str, learned: Month | None) -> bool:
    """Whether a month will not be run again, see `months_due`: nobody decides on it any more."""
    if learned is None:
        return False
    if comparison is None or is_so_far(comparison.revision):
        return month < learned
    return comparison.revision == revision and month <= learned


def to_retrain(known: Known, challengers: Collection[ChallengerName]) -> Request | None:
    """Returns the approved request whose month production is to be retrained on whole, None where there is none.

    That is the month that production learned, if it became production by a month's approval: the base model has no
    month, and what a rollback returns to was retrained when it was approved. A month's days so far are no whole month.

    Args:
        known: What is on record.
        challengers: Which compete; unless the whole month is one of them, nothing is retrained.
    """
    if known.promotion is None or "whole month" not in challengers:
        return None
    approved = known.promotion.request_id
    whole = (one for one in known.requests if one.subject != BASE and not is_so_far(one.revision))
    return next((request for request in whole if request.id == approved), None)


def to_ask(known: Known, channels: Collection[str], settings: Settings) -> list[Comparison]:
    """Returns the comparisons whose question has not reached every channel with links that work, oldest subject first.

    They include one on which a policy has yet to decide, even if its message has arrived everywhere, and one whose
    question ended as void and makes sense again. They exclude one against a version other than the present production,
    whose question is void; one in which both models predict the same; and, with a warning, one whose evidence this
    release cannot read.

    Args:
        known: What is on record.
        channels: Where messages have to arrive.
        settings: Who decides.
    """
    arrived = {
        (delivery.request_id, delivery.channel)
        for delivery in known.deliveries
        if delivery.reminder >= known.live_from.get(about_request(delivery.request_id), 0)
    }

    def is_untold(comparison: Comparison) -> bool:
        if not requests.makes_sense(comparison, known.production):
            return False
        asked = known.round_on(comparison)
        end = None if asked is None else known.ends.get(asked.id)
        if asked is not None and end is None and all((asked.id, channel) in arrived for channel in channels):
            return policies.decision_on(comparison, known.standing, known.rolled_back, settings) is not None
        return (end is None or requests.is_void(end)) and _is_question(comparison)

    return sorted(filter(is_untold, known.comparisons.values()), key=requests.by_subject)


def to_tell(known: Known, channels: Collection[str], faults: Iterable[str] = ()) -> list[str]:
    """Returns what people have to be told and has not reached every channel, as `tokens` calls it.

    That is the change of production in force, with the link back; each question that ended unanswered although it still
    makes sense, with the link that asks it again; a standing approval that is asked for, and one that is over; an open
    alarm, and one about what is in production that nobody answered; and faults.

    Args:
        known: What is on record.
        channels: Where messages have to arrive.
        faults: What else has gone wrong, see `faults`.
    """
    arrived = {
        (notice.about, notice.channel)
        for notice in known.notices
        if notice.message >= known.live_from.get(notice.about, 0)
    }
    asked = filter(None, map(known.round_on, known.comparisons.values()))
    about = [] if known.promotion is None else [about_promotion(known.promotion.sequence)]
    about += [
        about_expiry(request.id)
        for request in asked
        if request.id in known.ends
        and known.ends[request.id].state is RequestState.EXPIRED
        and requests.makes_sense(request, known.production)
    ]
    about += _about_standing(known.standing)
    if known.alarms.open is not None and readable(known.alarms.open) is not None:
        about.append(about_alarm(known.alarms.open.id))
    if (lapsed := known.alarms.ended_as(RequestState.EXPIRED, known.promotion)) is not None:
        about.append(about_expiry(lapsed.id))
    about += faults
    return [found for found in about if not all((found, channel) in arrived for channel in channels)]


def _about_standing(record: StandingRecord) -> list[str]:
    """Returns what is to be told about standing approvals, as `tokens` calls it; one with a successor is no news."""
    about = []
    if record.open is not None and readable(record.open) is not None:
        about.append(about_standing(record.open.id))
    elif record.open is not None:
        _log.warning("nobody is asked about %s: another release has written its evidence", record.open.id)
    over = [end for request in record.requests if (end := record.ends.get(request.id)) is not None][-1:]
    return [*about, *(about_standing_end(end.standing_id) for end in over if end.cause != "successor")]


def standing_due_after(known: Known, settings: Settings) -> str | None:
    """Returns the month after which a standing approval is to be asked for; None where none is.

    With APPROVAL_POLICY=standing it is asked for once a candidate has a track record against production that is not
    surely worse; not while the question is open, was rejected for those months, or was asked on the same evidence, and
    after the end of an approval not before another month has been compared.

    Args:
        known: What is on record.
        settings: Who decides, and on which terms.
    """
    if settings.approval_policy != "standing" or known.production is None:
        return None
    months = [one for one in known.comparisons.values() if one.is_of_month]
    latest = max(months, key=lambda one: one.subject, default=None)
    if latest is None or latest.production_version != known.production or not _speaks_for_standing(latest):
        return None
    was_asked = any(request.subject == latest.subject for request in known.standing.requests)
    # After a rollback or a regret it is not asked for again on what was known then.
    was_ended = any(end.at >= latest.compared_at for end in known.standing.ends.values())
    following = str(parse_month(latest.subject) + 1)
    if was_asked or was_ended or known.standing.is_asked_for(following, terms_of(settings)):
        return None
    return latest.subject


def _speaks_for_standing(comparison: Comparison) -> bool:
    """Whether there is a track record against production, and it is not surely worse."""
    evidence = readable(comparison)
    if evidence is None:
        return False
    is_against = evidence.verdict in {Verdict.REJECT, Verdict.LEAK, Verdict.UNSCORABLE}
    return evidence.track_record is not None and not is_against


def pause_before_try(tries: int) -> float:
    """Returns the seconds to wait after so many attempts to send a message: doubled each time, up to an hour.

    >>> [pause_before_try(tries) for tries in (0, 1, 2, 3, 7, 8, 100)]
    [0.0, 30.0, 60.0, 120.0, 1920.0, 3600.0, 3600.0]
    """
    return min(FIRST_PAUSE_S * 2 ** (tries - 1), LONGEST_PAUSE_S) if tries else 0.0


def is_past(month: Month, known: Known) -> bool:
    """Whether a later month has been compared: that one then says how things stand."""
    return any(one.is_of_month and parse_month(one.subject) > month for one in known.comparisons.values())


def _is_question(comparison: Comparison) -> bool:
    """Whether there is something to decide on; logs a warning if this release cannot read the evidence."""
    try:
        return comparison.evidence.verdict is not Verdict.UNCHANGED
    except EvidenceUnreadableError as error:
        _log.warning("nobody is asked about %s: %s", comparison.subject, error)
        return False


def last_learned(known: Known) -> Month | None:
    """Returns the month up to which production has learned, None for the base model or where nothing is known.

    That is the month it was approved on: the lessons between what it knows and that month were not worth keeping. A
    version that a rollback returned to has no request of its own; the first question about it was on the month that it
    learned. For one approved on a month's days so far, that month is yet to be learned; it is the last month that had
    been compared whole by then, because the month before may not have been published yet, and is then to be learned,
    too.
    """
    about = [request for request in known.requests if request.staging_version == known.production]
    approved = [request for request in about if known.promotion and request.id == known.promotion.request_id]
    request = next(iter([*approved, *about]), None)
    if request is None or request.subject == BASE:
        return None
    if not is_so_far(request.revision):
        return parse_month(request.subject)
    # A month that was restated since was compared later as well, but asked about earlier.
    told = [(one.subject, one.revision, one.compared_at) for one in known.comparisons.values()]
    told += [(one.subject, one.revision, one.requested_at) for one in known.requests]
    by_then = {
        subject
        for subject, revision, at in told
        if subject < request.subject and at <= request.requested_at and not is_so_far(revision)
    }
    return max(map(parse_month, by_then), default=None)
