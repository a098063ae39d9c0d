"""Trips from a BigQuery table: months by half-open windows, only the columns of a trip, at a bounded cost.

What a query would read is asked first, which costs nothing, and logged; one that would read more than
`maximum_bytes` is not run. Google's client tries passing faults (429, 5xx, no connection) again, with doubling pauses
and jitter, for `patience_s`; all else fails at once. Why a month is identified by its rows: docs/decisions.md, under
sources.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from taxifare.settings import BigQuerySettings
from taxifare.sources.base import (
    MonthNotPublishedError,
    NoBaseError,
    Sample,
    SourceError,
    TripSource,
    checked_month,
    checked_trips,
    not_there,
    now_in,
    told_apart,
    untold_dropoffs,
)
from taxifare.sources.bigquery_client import PATIENCE_S, OpenClient, connect, in_our_words, patient
from taxifare.sources.files import SAMPLE_ROWS
from taxifare.trips.columns import TRIP_COLUMNS
from taxifare.trips.months import Month, bounds
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.table import TripTableError, check_column_names

if TYPE_CHECKING:
    from google.cloud import bigquery

_log = logging.getLogger(__name__)

_MODULUS = 10**12
"""Fingerprints are added modulo this: the sum over ten million trips still fits BigQuery's integers."""

_TOTALS = f"COUNT(*) AS trips, SUM(MOD(fingerprint, {_MODULUS})) AS total"
_MONTH = "DATE_TRUNC(DATE(pickup_datetime), MONTH) AS month"

_TIME_TYPES = ("TIMESTAMP", "DATETIME")

_ADVICE = {
    "missing": "check BIGQUERY_TABLE and BIGQUERY_LOCATION",
    "refused": "the account needs the role BigQuery Job User in BIGQUERY_PROJECT and BigQuery Data Viewer on the table",
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class BigQuery(TripSource):
    """Publishes the trips of a BigQuery table.

    A revision is the number of trips and the sum of their fingerprints (FarmHash of a trip's columns): it does not
    depend on the order of rows, and changes when a row does. BigQuery computes it from all columns, so it is asked for
    again only when the table's metadata, which are free, have changed. A table without a column `key` has its trips
    numbered, ordered by pickup time and fingerprint.

    Attributes:
        table: `project.dataset.table`.
        first_month: The first month; the years before it are the base years.
        last_month: The last month that is worked on, None: the present one.
        base_rows: Most trips of the base years, those with the smallest fingerprints; None: all.
        maximum_bytes: Most bytes that a query may read.
        client: Opens a client of BigQuery.
        time_zone: Of the city.
        patience_s: How long passing faults of one call are tried again.
    """

    table: str
    first_month: Month
    base_rows: int | None
    maximum_bytes: int
    client: OpenClient
    time_zone: str = "America/New_York"
    patience_s: float = PATIENCE_S
    last_month: Month | None = None
    _known: dict[str, tuple[object, Any]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_settings(cls, settings: BigQuerySettings, client: "OpenClient | None" = None) -> Self:
        """Returns the table BIGQUERY_TABLE; without a client, one with the credentials of the environment."""
        return cls(
            table=settings.bigquery_table,
            first_month=settings.first_month,
            last_month=settings.last_month,
            base_rows=settings.dataset_size,
            maximum_bytes=settings.bigquery_maximum_bytes,
            client=client or partial(connect, settings.bigquery_project, settings.bigquery_location),
            time_zone=settings.time_zone,
        )

    def months(self) -> dict[Month, str]:
        """Returns the months from the first on that are over, and their revisions.

        Raises:
            CannotTellError: A month has no trip though a later one has.
            SourceError: BigQuery does not answer, or the table is missing, not readable or no table of trips.
        """
        return told_apart(self._over(), self.first_month, self.last_month, f"BigQuery table {self.table}")

    def rides(self) -> dict[Month, int]:
        """Returns how many trips start in each month that is over.

        Raises:
            SourceError: As `months`.
        """
        return {month: int(revision.partition("-")[0]) for month, revision in self._over().items()}

    def sample(self, month: Month | None) -> Sample:
        """Returns some trips of a month, or of the base years: those with the smallest fingerprints.

        Raises:
            NoBaseError: No trip starts before the first month.
            SourceError: As `months`, or rows are not trips.
        """
        origin = f"BigQuery table {self.table}"
        since, until = (None, self.first_month.start_time) if month is None else bounds(month)
        with self._opened() as asked:
            rows = asked.trips(since, until, rows=SAMPLE_ROWS)
        if month is None and not rows.num_rows:
            raise self._no_base()
        checked = checked_trips if month is None else partial(checked_month, month=month)
        trips = checked(_frame(rows), origin=origin, time_zone=self.time_zone)
        return Sample(Publication(trips, _revision_of(rows), origin), None)

    def read_month(self, month: Month) -> Publication:
        """Returns the month's trips.

        Raises:
            MonthNotPublishedError: The table has no trip of the month, the month is not over or before the first.
            SourceError: As `months`, or rows are not trips.
        """
        origin = f"BigQuery table {self.table}"
        if not self.first_month <= month < now_in(self.time_zone).to_period("M"):
            raise MonthNotPublishedError(f"{origin}: no month {month}: months are over and from {self.first_month} on")
        with self._opened() as asked:
            rows = asked.trips(*bounds(month), rows=None)
        if not rows.num_rows:
            raise not_there(self, month, f"{origin}: no month {month}: no trip starts in it")
        frame = _frame(rows)
        trips = checked_month(frame, month, origin, self.time_zone)
        return Publication(trips, _revision_of(rows), origin, dropped=untold_dropoffs(frame, trips))

    def read_base(self) -> BasePublication:
        """Returns trips of the years before the first month, at most `base_rows`.

        Raises:
            NoBaseError: The table has none.
            SourceError: As `months`, or rows are not trips.
        """
        origin = f"BigQuery table {self.table}"
        with self._opened() as asked:
            rows = asked.trips(None, self.first_month.start_time, rows=self.base_rows)
        if not rows.num_rows:
            raise self._no_base()
        frame = _frame(rows)
        trips = checked_trips(frame, origin, self.time_zone)
        published = Publication(trips, _revision_of(rows), origin, dropped=untold_dropoffs(frame, trips))
        return BasePublication([published], published.revision, origin)

    def base_revision(self) -> str:
        """Returns the revision of the trips that `read_base` returns.

        Raises:
            NoBaseError: The table has none.
            SourceError: As `months`.
        """
        with self._opened() as asked:
            until = self.first_month.start_time
            revision = self._remembered("base", asked, lambda: asked.base_revision(until, self.base_rows))
        if revision is None:
            raise self._no_base()
        return revision

    def _over(self) -> dict[Month, str]:
        """Returns the revisions of the months from the first on that are over and have trips."""
        with self._opened() as asked:
            revisions = self._remembered("months", asked, lambda: asked.revisions(self.first_month))
        this_month = now_in(self.time_zone).to_period("M")
        return {month: revision for month, revision in revisions.items() if month < this_month}

    def _no_base(self) -> NoBaseError:
        return NoBaseError(f"BigQuery table {self.table}: no base years: no trip starts before {self.first_month}")

    @contextmanager
    def _opened(self) -> "Iterator[_Asked]":
        """Yields the table, described and checked; what BigQuery and its client raise becomes a SourceError."""
        with in_our_words(self.table, SourceError, _ADVICE), self.client() as client:
            retry = patient(self.patience_s)
            table = client.get_table(self.table, retry=retry)
            yield _Asked(client, table, _columns(table), self.maximum_bytes, retry)

    def _remembered(self, what: str, asked: "_Asked", compute: Callable[[], Result]) -> Result:
        """Returns what was computed of the table as it is, or computes it."""
        table = asked.table
        state = (table.etag, table.modified, table.num_rows)
        known_state, known = self._known.get(what, (None, None))
        # Of views and of tables that rows stream into, the metadata do not tell when the rows change.
        if known_state != state or table.table_type != "TABLE" or table.streaming_buffer is not None:
            known = compute()
            self._known[what] = (state, known)
        result: Result = known
        return result


@dataclass(frozen=True)
class _Asked:
    """A table of trips and the client to ask."""

    client: "bigquery.Client"
    table: "bigquery.Table"
    columns: tuple[str, ...]
    maximum_bytes: int
    retry: Any

    def trips(self, first: datetime | None, until: datetime, rows: int | None) -> pa.Table:
        """Returns the trips that start in `[first, until)` with their fingerprints, in an order of their own."""
        found = self._answer(self._trips(first, until, rows), first, until)
        return found.sort_by([("pickup_datetime", "ascending"), ("fingerprint", "ascending")])

    def revisions(self, first_month: Month) -> dict[Month, str]:
        """Returns the revision of each month from the first on, oldest first."""
        first = first_month.start_time
        query = f"SELECT {_MONTH}, {_TOTALS} FROM ({self._trips(first, None, None)}) GROUP BY month"  # noqa: S608
        found = self._answer(query, first, None).to_pylist()
        return {
            pd.Period(row["month"], freq="M"): _revision(row["trips"], row["total"])
            for row in sorted(found, key=lambda row: str(row["month"]))
        }

    def base_revision(self, until: datetime, rows: int | None) -> str | None:
        """Returns the revision of the trips before `until`, None where there are none."""
        query = f"SELECT {_TOTALS} FROM ({self._trips(None, until, rows)})"  # noqa: S608
        (found,) = self._answer(query, None, until).to_pylist()
        return _revision(found["trips"], found["total"]) if found["trips"] else None

    def _trips(self, first: datetime | None, until: datetime | None, rows: int | None) -> str:
        """Returns the query for trips of a window: half-open, so that a midnight is in one month."""
        columns = ", ".join(self.columns)
        window = " AND ".join(
            f"pickup_datetime {condition}"
            for condition, moment in ((">= @first", first), ("< @until", until))
            if moment is not None
        )
        # Every value in the query is a parameter; names come from the trip table and the settings.
        query = (
            f"SELECT {columns}, FARM_FINGERPRINT(TO_JSON_STRING(STRUCT({columns}))) AS fingerprint "  # noqa: S608
            f"FROM `{self.table.reference}` WHERE {window}"
        )
        return query if rows is None else f"{query} ORDER BY fingerprint LIMIT {rows}"

    def _answer(self, query: str, first: datetime | None, until: datetime | None) -> pa.Table:
        """Returns the rows of a query that reads no more than it may."""
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        kind = next(column.field_type for column in self.table.schema if column.name == "pickup_datetime")
        parameters = [
            ScalarQueryParameter(name, kind, value)
            for name, value in (("first", first), ("until", until))
            if value is not None
        ]
        dry = QueryJobConfig(dry_run=True, query_parameters=parameters)
        reads_bytes = self.client.query(query, job_config=dry, retry=self.retry).total_bytes_processed or 0
        _log.info("%s: a query that reads %.1f MB", self.table.reference, reads_bytes / 1e6)
        if reads_bytes > self.maximum_bytes:
            raise SourceError(
                f"BigQuery table {self.table.reference}: a query would read {reads_bytes:,} bytes, expected at most "
                f"{self.maximum_bytes:,}: raise BIGQUERY_MAXIMUM_BYTES or copy the months you need to a smaller table"
            )
        bounded = QueryJobConfig(maximum_bytes_billed=self.maximum_bytes, query_parameters=parameters)
        job = self.client.query(query, job_config=bounded, retry=self.retry)
        # The Storage API sends columns as they lie there, in a tenth of the time; it is a package of its own.
        has_storage_api = find_spec("google.cloud.bigquery_storage") is not None
        return job.result(retry=self.retry).to_arrow(create_bqstorage_client=has_storage_api)


def _revision(trips: int, total: int) -> str:
    return f"{trips}-{total}"


def _revision_of(rows: pa.Table) -> str:
    """Returns the revision of rows that were read, equal to the one BigQuery computes."""
    fingerprints = rows["fingerprint"].to_numpy()
    return _revision(rows.num_rows, int(np.fmod(fingerprints, _MODULUS).sum()))


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Returns the trips without their fingerprints."""
    text = pd.StringDtype("pyarrow")
    frame: pd.DataFrame = rows.drop_columns("fingerprint").to_pandas(types_mapper={pa.string(): text}.get)
    return frame


def _columns(table: "bigquery.Table") -> tuple[str, ...]:
    """Returns the columns of a trip that the table has.

    Raises:
        SourceError: One is missing, or pickup times are of another type.
    """
    origin, types = f"BigQuery table {table.reference}", {column.name: column.field_type for column in table.schema}
    present = tuple(column.name for column in TRIP_COLUMNS if column.name in types)
    try:
        check_column_names(present, origin, types)
    except TripTableError as error:
        raise SourceError(str(error)) from error
    if types["pickup_datetime"] not in _TIME_TYPES:
        raise SourceError(
            f"{origin}: column pickup_datetime: expected {' or '.join(_TIME_TYPES)}, "
            f"received {types['pickup_datetime']}"
        )
    return present
