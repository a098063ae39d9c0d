"""What the source has of each month, and what has become of it here: in the lake, restated, decided."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq
from upath import UPath

from taxifare.approval import Approvals
from taxifare.ledger import Outcome, Request
from taxifare.months import Month, month_of_partition
from taxifare.settings import Settings
from taxifare.sources.base import TripSource

RAW_TRIPS = "raw_new_data"
"""The asset whose files say which edition of a month is in the lake."""


@dataclass(frozen=True)
class MonthInStock:
    """A month.

    Attributes:
        month: The month.
        published: Its revision at the source, None where the source does not have it.
        in_lake: Its revision in the lake, None where the lake does not have it.
        decided: The latest decision on it, in words; empty where there was none.
    """

    month: Month
    published: str | None
    in_lake: str | None
    decided: str

    @property
    def state(self) -> str:
        """Where it stands, in a word or two.

        >>> from taxifare.months import parse_month
        >>> MonthInStock(parse_month("2015-01"), "b2", "a1", "").state
        'restated'
        """
        if self.published is None:
            return "no longer published"
        if self.in_lake is None:
            return "published"
        return "in the lake" if self.in_lake == self.published else "restated"


def take_stock(settings: Settings, source: TripSource, approvals: Approvals) -> Iterator[MonthInStock]:
    """Yields the months that the source or the lake has, oldest first.

    Raises:
        SourceError: The source does not answer.
    """
    published = source.months()
    in_lake = dict(_editions(settings.lake / RAW_TRIPS))
    with approvals.ledger.reading() as book:
        requests, outcomes = book.requests(), book.outcomes()
    for month in sorted({*published, *in_lake}):
        revision = published.get(month)
        yield MonthInStock(month, revision, in_lake.get(month), _decided(month, revision, requests, outcomes))


def _editions(folder: UPath) -> Iterator[tuple[Month, str]]:
    """Yields the months in the lake and their revisions; of each file, only its end is read."""
    for path in folder.glob("????-??-01.parquet") if folder.exists() else ():
        with path.open("rb") as file:
            marks = json.loads((pq.read_schema(file).metadata or {})[b"PANDAS_ATTRS"])
        yield month_of_partition(path.stem), marks["revision"]


def _decided(month: Month, revision: str | None, requests: Collection[Request], outcomes: Collection[Outcome]) -> str:
    """Returns the latest decision on a month in words, and whether it rested on an earlier edition."""
    asked = {request.id: request for request in requests if request.subject == str(month)}
    answers = [outcome for outcome in outcomes if outcome.by is not None and outcome.request_id in asked]
    if not answers:
        return ""
    last = max(answers, key=lambda outcome: outcome.at)
    restated = revision is not None and asked[last.request_id].revision != revision
    return f"{last.state} by {last.by}" + (", on an earlier edition" if restated else "")
