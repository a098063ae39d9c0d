"""The inventory of months: what the source has of each, and what has become of it here: in the lake, restated, decided.

Which of them is to be run next is derived in `approval.due`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known, covered
from taxifare.approval.promotions import taken_out_since
from taxifare.approval.records import Outcome, Promotion, Request
from taxifare.reports.months import ending, months_on_record
from taxifare.settings import MonthSettings, Settings
from taxifare.sources.base import CannotTellError, SourceError, TripSource
from taxifare.sources.whole_months import why_waiting
from taxifare.texts import counted
from taxifare.trips.months import Month


@dataclass(frozen=True)
class KnownMonth:
    """A month that the source or the lake has.

    Attributes:
        month: The month.
        published: Its revision at the source, None where the source does not have it.
        in_lake: Its revision in the lake, None where the lake does not have it.
        decided: The latest decision on it, or what else came of comparing it; empty where it was not compared.
        is_told: Whether the source can tell.
        waits: Why it is not used yet, None where nothing is known against it.
        is_covered: Whether it is worked on at all: from FIRST_MONTH to LAST_MONTH, and over.
        answer: The latest decision of a person or policy on it; None where there is none, or a newer question waits.
        is_on_earlier_edition: Whether that rested on an earlier edition of its trips.
        taken_out: The rollback that has since taken out what it approved; None without one.
    """

    month: Month
    published: str | None
    in_lake: str | None
    decided: str
    is_told: bool = True
    waits: str | None = None
    is_covered: bool = True
    answer: Outcome | None = None
    is_on_earlier_edition: bool = False
    taken_out: Promotion | None = None

    @property
    def state(self) -> str:
        """Where it stands, in a word or two.

        >>> from taxifare.trips.months import parse_month
        >>> KnownMonth(parse_month("2015-01"), "b2", "a1", "").state
        'restated'
        """
        if not self.is_told:
            return "cannot tell"
        if self.published is None:
            return "no longer published"
        if not self.is_covered:
            return "not worked on"
        if self.waits:
            return "not whole yet"
        if self.in_lake is None:
            return "published"
        return "in the lake" if self.in_lake == self.published else "restated"


def known_months(
    source: TripSource, approvals: Approvals | None, in_lake: Mapping[Month, str], settings: Settings
) -> Iterator[KnownMonth]:
    """Yields the months that the source or the lake has, oldest first.

    Args:
        source: Says what is published.
        approvals: Say what was decided; None where there is no ledger yet.
        in_lake: The months in the lake and their revisions.
        settings: Say when a month is whole, and where it is on record what was seen of it.

    Raises:
        SourceError: The source does not answer.
        CannotTellError: After all that is known: of a month the source cannot tell whether it is published.
    """
    doubt = None
    try:
        published = source.months()
    except CannotTellError as error:
        published, doubt = error.before, error
    requests, outcomes, on_record, rolled_back = [], [], dict[str, str](), dict[str, Promotion]()
    if approvals is not None:
        with approvals.ledger.reading() as entries:
            requests, outcomes = entries.requests(), entries.outcomes()
            known = Known.read(entries)
            on_record = {one.subject: one.decision for one in months_on_record(known)}
            rolled_back = dict(known.rolled_back)
    asked = {request.id: request for request in requests}
    answers: dict[str, tuple[Request, Outcome]] = {}
    for outcome in outcomes:  # oldest first: the latest of a month stays
        if outcome.by is not None:
            request = asked[outcome.request_id]
            answers[request.subject] = (request, outcome)
    ended = {outcome.request_id for outcome in outcomes}
    is_asked = {request.subject for request in requests if request.id not in ended}
    worked_on = covered(published, settings, datetime.now(UTC))
    rides = source.rides()
    for month in sorted({*published, *in_lake, *([] if doubt is None else [doubt.month])}):
        revision = published.get(month)
        answered = None if str(month) in is_asked else answers.get(str(month))
        answer = None if answered is None else answered[1]
        taken_out = None if answered is None else taken_out_since(*answered, rolled_back)
        is_earlier = answered is not None and revision not in {None, answered[0].revision}
        decided = "waits for an answer" if str(month) in is_asked else on_record.get(str(month), "")
        if answer is not None:
            decided = ending(answer, taken_out) + (", on an earlier edition" if is_earlier else "")
        is_told, is_new = doubt is None or month < doubt.month, revision != in_lake.get(month)
        waits = why_waiting(source, month, revision, rides, settings, settings.lake) if revision and is_new else None
        is_covered = revision is None or month in worked_on
        yield KnownMonth(
            month,
            revision,
            in_lake.get(month),
            decided,
            is_told,
            waits,
            is_covered,
            answer,
            is_earlier,
            taken_out,
        )
    if doubt is not None:
        raise doubt


def nothing_to_work_on(source: TripSource, published: Mapping[Month, str], settings: MonthSettings) -> str:
    """Returns why there is no month to work on: where the source looked, for what, and what is there instead.

    Args:
        source: Was asked.
        published: What it has.
        settings: Say which months are worked on.
    """
    if published:
        return (
            f"published: {told_months(published)}; worked on: none, by "
            f"FIRST_MONTH={settings.first_month}, LAST_MONTH={settings.last_month or ''}; set them to the months "
            "that you have; a month is worked on once it is over"
        )
    try:
        source.read_month(settings.first_month)
    except SourceError as error:
        return f"there is no month of trips: {error}"
    return f"there is no month of trips: {settings.first_month} is there by now: try again"


def told_months(months: Collection[Month]) -> str:
    """Returns how many months there are, and which.

    >>> from taxifare.trips.months import parse_month
    >>> told_months([parse_month("2015-02"), parse_month("2015-01")]), told_months([parse_month("2015-01")])
    ('2 months, 2015-01 to 2015-02', '1 month, 2015-01')
    """
    first, last = min(months), max(months)
    return f"{counted(len(months), 'months')}, {first if first == last else f'{first} to {last}'}"
