"""The inventory of months: what the source has of each, and what has become of it here: in the lake, restated, decided.

Which of them is to be run next is derived in `approval.due`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from taxifare.approval.approvals import Approvals
from taxifare.approval.records import Outcome, Request
from taxifare.settings import Settings
from taxifare.sources.base import CannotTellError, TripSource
from taxifare.sources.whole_months import why_waiting
from taxifare.trips.months import Month


@dataclass(frozen=True)
class KnownMonth:
    """A month that the source or the lake has.

    Attributes:
        month: The month.
        published: Its revision at the source, None where the source does not have it.
        in_lake: Its revision in the lake, None where the lake does not have it.
        decided: The latest decision on it, in words; empty where there was none.
        is_told: Whether the source can tell.
        waits: Why it is not used yet, None where nothing is known against it.
    """

    month: Month
    published: str | None
    in_lake: str | None
    decided: str
    is_told: bool = True
    waits: str | None = None

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
    requests, outcomes = [], []
    if approvals is not None:
        with approvals.ledger.reading() as entries:
            requests, outcomes = entries.requests(), entries.outcomes()
    asked = {request.id: request for request in requests}
    answers: dict[str, tuple[Request, Outcome]] = {}
    for outcome in outcomes:  # oldest first: the latest of a month stays
        if outcome.by is not None:
            request = asked[outcome.request_id]
            answers[request.subject] = (request, outcome)
    rides = source.rides()
    for month in sorted({*published, *in_lake, *([] if doubt is None else [doubt.month])}):
        revision, decided = published.get(month), _decided(published.get(month), answers.get(str(month)))
        is_told, is_new = doubt is None or month < doubt.month, revision != in_lake.get(month)
        waits = why_waiting(month, revision, rides, settings, settings.lake) if revision and is_new else None
        yield KnownMonth(month, revision, in_lake.get(month), decided, is_told, waits)
    if doubt is not None:
        raise doubt


def _decided(revision: str | None, answer: tuple[Request, Outcome] | None) -> str:
    """Returns the latest decision on a month in words, and whether it rested on an earlier edition."""
    if answer is None:
        return ""
    request, outcome = answer
    restated = revision is not None and request.revision != revision
    return f"{outcome.state} by {outcome.by}" + (", on an earlier edition" if restated else "")
