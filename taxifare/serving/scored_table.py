"""Scored months in a BigQuery table, besides the lake: a month's rows are replaced all at once, or stay as they were.

The lake's file is loaded as it is, in parts, into a temporary table, from which one statement replaces the month's
rows. If a process dies before that, what it leaves expires after a day. Why it is a statement and not a partition:
docs/decisions.md, under serving.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import log2
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import uuid4

import pyarrow.parquet as pq
from upath import UPath

from taxifare.errors import ToldError
from taxifare.serving.files import FAULT, VERSION, columns_of
from taxifare.settings import BigQuerySettings
from taxifare.sources.bigquery_client import PATIENCE_S, OpenClient, connect, in_our_words, patient
from taxifare.trips.columns import TRIP_COLUMNS, Kind
from taxifare.trips.months import Month

if TYPE_CHECKING:
    from google.cloud import bigquery

MONTH, PROMOTION = "month", "promotion"

_TYPES: dict[Kind, str] = {"text": "STRING", "timestamp": "DATETIME", "number": "FLOAT", "integer": "INTEGER"}
"""BigQuery's names for types."""

_LEFT_FOR = timedelta(days=1)

_ADVICE = {
    "missing": "make the data set, or check SCORED_TRIPS_TABLE and BIGQUERY_LOCATION",
    "refused": (
        "the account needs the role BigQuery Job User in BIGQUERY_PROJECT and BigQuery Data Editor on the data set of "
        "SCORED_TRIPS_TABLE"
    ),
}


class ScoredTableError(ToldError, RuntimeError):
    """The table cannot be written, or is a different one; says what was expected and what to do."""


@dataclass(frozen=True)
class Field:
    """A column of the table: its name, BigQuery's type, and what it means, with the unit."""

    name: str
    kind: str
    description: str


@dataclass(frozen=True)
class ScoredTable:
    """A table of scored rides.

    Attributes:
        name: `project.dataset.table`; the table is created if missing, its data set is not.
        currency: Currency of the fares that were paid.
        maximum_bytes: Most bytes that a query may read.
        client: Opens a client of BigQuery.
        patience_s: How long a call is retried after transient faults.
    """

    name: str
    currency: str
    maximum_bytes: int
    client: OpenClient
    patience_s: float = PATIENCE_S

    @classmethod
    def from_settings(cls, settings: BigQuerySettings, client: "OpenClient | None" = None) -> Self | None:
        """Returns the table SCORED_TRIPS_TABLE, None where none is named; the default client is that of `connect`."""
        if settings.scored_trips_table is None:
            return None
        return cls(
            settings.scored_trips_table,
            settings.city.currency.name,
            settings.bigquery_maximum_bytes,
            client or partial(connect, settings.bigquery_project, settings.bigquery_location),
        )

    def replace(self, scored: UPath, month: Month, promotion: int, unit: str) -> int:
        """Returns how many rides the month has in the table: from now on, those of the file.

        Args:
            scored: The month's rides with their answers, a parquet file of the lake.
            month: Which one; other months stay as they are.
            promotion: Number of the promotion of the version that scored them.
            unit: Unit of the answers.

        Raises:
            ScoredTableError: BigQuery does not answer or refuses, or the table has other columns; the month is
                unchanged.
        """
        with scored.open("rb") as file, in_our_words(self.name, ScoredTableError, _ADVICE), self.client() as client:
            return _Replacement(self, client).made(file, month, promotion, unit)


def fields_of(unit: str, currency: str) -> tuple[Field, ...]:
    """Returns the columns of a table of scored rides.

    >>> [(field.name, field.kind) for field in fields_of("USD", "USD")][-7:-3]
    [('fare_usd', 'FLOAT'), ('upper_fare_usd', 'FLOAT'), ('corrected_fare_usd', 'FLOAT'), ('quoted_fare_usd', 'FLOAT')]
    """
    value, upper, corrected, quoted, *_ = columns_of(unit)
    return (
        Field(MONTH, "DATE", "First day of the month that the ride is published in"),
        *(Field(column.name, _TYPES[column.kind], column.described(currency)) for column in TRIP_COLUMNS),
        Field("is_validation", "BOOLEAN", "Whether models of the month are judged by the ride"),
        Field(value, "FLOAT", f"The prediction ({unit})"),
        Field(upper, "FLOAT", f"The upper prediction ({unit})"),
        Field(corrected, "FLOAT", f"The prediction corrected for its bias, to add up many ({unit})"),
        Field(quoted, "FLOAT", f"The prediction as the meter would show it ({unit})"),
        Field(VERSION, "STRING", "Number of the registered version that gave the answers"),
        Field(FAULT, "STRING", "Why the ride cannot be priced; null where it is"),
        Field(PROMOTION, "INTEGER", "Number of the promotion that put the version in production"),
    )


@dataclass(frozen=True)
class _Replacement:
    """A month on its way into the table."""

    table: ScoredTable
    client: "bigquery.Client"

    def made(self, file: IO[bytes], month: Month, promotion: int, unit: str) -> int:
        """Returns how many rides the month has now."""
        fields = {field.name: field for field in fields_of(unit, self.table.currency)}
        # In the order of the file, which has no drop-off times if rides were published without them.
        ours = [fields[name] for name in pq.ParquetFile(file).schema_arrow.names if name in fields]
        kept = self._kept(tuple(fields.values()))
        with self._beside(ours) as beside:
            rides = self._done(partial(self._load, file, beside, ours)).output_rows
            self._done(partial(self._merge, kept, beside, ours, month, promotion))
        return int(rides or 0)

    def _kept(self, fields: Sequence[Field]) -> "bigquery.Table":
        """Returns the table, which is created if missing.

        Raises:
            ScoredTableError: It lacks a column, or has one of another type.
        """
        from google.cloud import bigquery

        table = bigquery.Table(self.table.name, _schema(fields))
        self.client.get_dataset(bigquery.DatasetReference(table.project, table.dataset_id), retry=self._retry)
        table.description = "Every ride of each month as published, priced by the model in production (taxifare)"
        table.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.MONTH, field=MONTH)
        found = self.client.create_table(table, exists_ok=True, retry=self._retry)
        types = {column.name: column.field_type for column in found.schema}
        for field in fields:
            if types.get(field.name) != field.kind:
                raise ScoredTableError(
                    f"BigQuery table {self.table.name}: expected a column {field.name} of {field.kind}, received "
                    f"{types.get(field.name, 'none')}: name another table in SCORED_TRIPS_TABLE, it is made where it "
                    "is missing; each target needs its own"
                )
        return found

    @contextmanager
    def _beside(self, fields: Sequence[Field]) -> "Iterator[bigquery.Table]":
        """Yields a temporary table that exists for the duration of the block."""
        from google.api_core.exceptions import GoogleAPIError
        from google.cloud import bigquery

        table = bigquery.Table(f"{self.table.name}_unfinished_{uuid4().hex}", _schema(fields))
        table.expires = datetime.now(UTC) + _LEFT_FOR
        beside = self.client.create_table(table, retry=self._retry)
        try:
            yield beside
        finally:
            with suppress(GoogleAPIError):  # it expires by itself
                self.client.delete_table(beside, retry=self._retry, not_found_ok=True)

    def _load(self, file: IO[bytes], beside: "bigquery.Table", fields: Sequence[Field]) -> "bigquery.LoadJob":
        from google.cloud import bigquery

        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=_schema(fields),
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        )
        # Parts of a file are sent again after 1, 2, 4 … s, as often as the patience allows.
        retries = int(log2(1 + self.table.patience_s))
        return self.client.load_table_from_file(file, beside, rewind=True, num_retries=retries, job_config=config)

    def _merge(
        self, kept: "bigquery.Table", beside: "bigquery.Table", fields: Sequence[Field], month: Month, promotion: int
    ) -> "bigquery.QueryJob":
        from google.cloud import bigquery

        columns = ", ".join(f"`{field.name}`" for field in fields)
        # Values are parameters; names come from the trip table, the settings and ourselves.
        statement = (
            f"MERGE `{kept.reference}` AS kept USING `{beside.reference}` AS scored ON FALSE "  # noqa: S608
            f"WHEN NOT MATCHED BY SOURCE AND kept.{MONTH} = @{MONTH} THEN DELETE "
            f"WHEN NOT MATCHED BY TARGET THEN INSERT ({columns}, {MONTH}, {PROMOTION}) "
            f"VALUES ({columns}, @{MONTH}, @{PROMOTION})"
        )
        config = bigquery.QueryJobConfig(
            maximum_bytes_billed=self.table.maximum_bytes,
            query_parameters=[
                bigquery.ScalarQueryParameter(MONTH, "DATE", month.start_time.date()),
                bigquery.ScalarQueryParameter(PROMOTION, "INT64", promotion),
            ],
        )
        return self.client.query(statement, job_config=config, retry=self._retry, job_retry=None)

    def _done(self, start: Callable[[], Any]) -> Any:
        """Returns a job that succeeded; one that failed for a transient reason is started again."""

        def to_its_end() -> Any:
            job = start()
            job.result(retry=self._retry)
            return job

        return self._retry(to_its_end)()

    @property
    def _retry(self) -> Any:
        return patient(self.table.patience_s)


def _schema(fields: Sequence[Field]) -> "list[bigquery.SchemaField]":
    from google.cloud import bigquery

    return [bigquery.SchemaField(field.name, field.kind, description=field.description) for field in fields]
