"""The file of the base trips: its form, how it is written and read. However many there are, memory holds a part.

The trips of the base years are in an order that `gathering` decides, those for training first, then those for
validation. The first trips of the file are a random sample of all, which is what scales, pictures and studies take.
Which trips are in it, and in what order, is not decided here.

Why they stream: docs/decisions.md, under training.
"""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from shutil import copyfileobj
from typing import IO
from weakref import finalize

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxifare.model.exposure import Exposure
from taxifare.trips.cities import City
from taxifare.trips.columns import TRIP_COLUMNS, Kind
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.preparation import with_features
from taxifare.trips.stored import as_frame
from taxifare.trips.table import TripTableError
from taxifare.trips.targets import TARGETS, TargetName

SAMPLE_TRIPS = 200_000
"""Training trips that stand for all of them where all are too many: in pictures, scales, references and tuning."""

GROUP_TRIPS = 2**16
"""Trips of a row group: what training holds of the file."""

_ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "timestamp": pa.timestamp("us"),
    "number": pa.float64(),
    "integer": pa.int32(),
}

ARROW_SCHEMA = pa.schema([(column.name, _ARROW_TYPES[column.kind]) for column in TRIP_COLUMNS])
"""The columns of the trip table."""


class BaseTrips:
    """Clean trips of the base years in an open file, without features: training trips in random order, then the rest.

    Each comes with its `target`, which is computed when it is read.

    Args:
        file: What `write_base_trips` wrote, or a copy of it; closed when nobody has the trips any more.

    Attributes:
        edition: Which trips these are.
        target: What they were cleaned for.

    Raises:
        TripTableError: The file is not of that form.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        finalize(self, file.close)
        self._parquet = pq.ParquetFile(file, page_checksum_verification=True)
        marks = self._parquet.schema_arrow.metadata or {}
        if b"target" not in marks or "is_validation" not in self._parquet.schema_arrow.names:
            raise TripTableError("the file of the base trips is of an earlier version: materialize base_trips again")
        self.edition = Edition(marks[b"subject"].decode(), marks[b"revision"].decode())
        self.target = TARGETS[marks[b"target"].decode()].name

    def copy_to(self, file: IO[bytes]) -> None:
        """Writes the file into another one."""
        self._file.seek(0)
        copyfileobj(self._file, file)

    @cached_property
    def content(self) -> str:
        """A digest of the end of the file, which has sizes, numbers and extremes of every column of every part."""
        self._file.seek(-8, os.SEEK_END)
        length = int.from_bytes(self._file.read(4), "little")
        self._file.seek(-8 - length, os.SEEK_END)
        return sha256(self._file.read(length)).hexdigest()[:16]

    @cached_property
    def training_counts(self) -> tuple[int, ...]:
        """Training trips of each part."""
        return tuple(self._parquet.metadata.row_group(group).num_rows for group in self._groups(is_validation=False))

    @property
    def training_trips(self) -> int:
        """Training trips in all."""
        return sum(self.training_counts)

    @property
    def validation_trips(self) -> int:
        """Validation trips in all, see `gathering`."""
        return int(self._parquet.metadata.num_rows) - self.training_trips

    @property
    def exposure(self) -> tuple[Exposure, ...]:
        """What a model has seen that was trained on the training trips."""
        column = self._parquet.schema_arrow.get_field_index("pickup_datetime")
        spans = [
            self._parquet.metadata.row_group(group).column(column).statistics
            for group in self._groups(is_validation=False)
        ]
        first, last = min(span.min for span in spans), max(span.max for span in spans)
        return (
            Exposure(
                subject=self.edition.subject, revision=self.edition.revision, first_pickup=first, last_pickup=last
            ),
        )

    def batches(self) -> Iterator[pd.DataFrame]:
        """Yields all trips, with `is_validation` and `target`, at most `GROUP_TRIPS` at a time."""
        for group in range(self._parquet.metadata.num_row_groups):
            yield self._read(group)

    def training_part(self, number: int) -> pd.DataFrame:
        """Returns a part of the training trips; the first is number 0."""
        return self._read(number)

    def first_training(self, most: int) -> pd.DataFrame:
        """Returns the first training trips of the file, a random sample of them all."""
        befores = accumulate(self.training_counts[:-1], initial=0)
        return pd.concat(
            [self.training_part(part).head(most - before) for part, before in enumerate(befores) if before < most],
            ignore_index=True,
        )

    def preprocessed(self, city: City, training_trips: int | None = SAMPLE_TRIPS) -> Trips:
        """Returns a random sample of the training trips, and all validation trips, with features, in order of time.

        Args:
            city: Gives the features.
            training_trips: Most training trips; None is all.
        """
        training = self.first_training(self.training_trips if training_trips is None else training_trips)
        validation = [self._read(group) for group in self._groups(is_validation=True)]
        trips = pd.concat([training, *validation]).sort_values(["pickup_datetime", "key"], ignore_index=True)
        return Trips(self.edition, with_features(trips, city), self.target)

    def _groups(self, *, is_validation: bool) -> Iterator[int]:
        """Yields the numbers of the row groups of training or of validation trips; no group has both."""
        column = self._parquet.schema_arrow.get_field_index("is_validation")
        for group in range(self._parquet.metadata.num_row_groups):
            if self._parquet.metadata.row_group(group).column(column).statistics.max is is_validation:
                yield group

    def _read(self, group: int) -> pd.DataFrame:
        trips = as_frame(self._parquet.read_row_group(group, use_threads=False))
        return trips.assign(target=TARGETS[self.target].of(trips))


def write_base_trips(
    trips: Iterable[pa.Table], moment: np.datetime64, edition: Edition, target: TargetName, file: IO[bytes]
) -> BaseTrips:
    """Returns the trips in the file: those up to the moment in the order they come, then those after it.

    Args:
        trips: Tables of `ARROW_SCHEMA`, read once.
        moment: Trips that start after it are for validation.
        edition: Which trips these are.
        target: What they were cleaned for.
        file: An empty file, open for reading and writing.
    """
    schema = ARROW_SCHEMA.append(pa.field("is_validation", pa.bool_()))
    marks = {"subject": edition.subject, "revision": edition.revision, "target": target}
    with pq.ParquetWriter(file, schema.with_metadata(marks), write_page_checksum=True) as writer:
        waiting, validation = [], []
        for table in trips:
            later = pc.greater(table["pickup_datetime"], pa.scalar(moment))
            marked = table.append_column("is_validation", later)
            validation.append(marked.filter(later))
            waiting.append(marked.filter(pc.invert(later)))
            if sum(map(len, waiting)) >= GROUP_TRIPS:
                together = pa.concat_tables(waiting)
                whole = len(together) // GROUP_TRIPS * GROUP_TRIPS
                writer.write_table(together.slice(0, whole), GROUP_TRIPS)
                waiting = [together.slice(whole)]
        writer.write_table(pa.concat_tables(waiting), GROUP_TRIPS)
        writer.write_table(pa.concat_tables(validation), GROUP_TRIPS)
    return BaseTrips(file)
