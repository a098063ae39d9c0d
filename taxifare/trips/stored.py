"""Trips of a month in a parquet file, in order of time: opened, not read. However many they are, memory holds a batch.

A month of up to `MOST_IN_MEMORY` trips is worked on in memory, as a frame; one of more goes by batches from where it is
published to where its errors are added up. Why there is a bound, and why at this number: docs/decisions.md, under
trips.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import IO
from weakref import finalize

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.table import TripTableError
from taxifare.trips.targets import TargetName

MOST_IN_MEMORY = 1_000_000
"""Trips of a month that is worked on in memory and learned whole."""

MOST_LEARNED = 800_000
"""Training trips that are drawn from a month of more: as many as the largest month in memory has."""

MOST_JUDGED = 200_000
"""Validation trips that are drawn from a month of more, likewise."""

BATCH_TRIPS = 2**18
"""Trips that are in memory at a time, and in a row group."""

STORED = frozenset({*COLUMN_NAMES, "is_validation", "target"})
"""Columns of files of trips. Features of other facts of the city may stand there of earlier releases: none are read."""

_MARKS = b"PANDAS_ATTRS"
"""Where pandas keeps a frame's `attrs` in parquet files: subject, revision and target."""

_PANDAS_TYPES = {
    pa.string(): pd.StringDtype("pyarrow"),
    pa.large_string(): pd.StringDtype("pyarrow"),
    pa.int32(): pd.Int32Dtype(),
}

OnTrips = Callable[[int], None]
"""Told how many trips have been worked on so far, batch by batch."""


class StoredTrips:
    """Trips of one edition in an open parquet file: their columns in `STORED`.

    Args:
        file: What `store` wrote, or a frame with marks that pandas wrote; closed when nobody has the trips any more.

    Attributes:
        edition: Which trips these are.
        target: What they were made ready for; None for trips as published.

    Raises:
        TripTableError: The file does not say which edition they are.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        finalize(self, file.close)
        self._parquet = pq.ParquetFile(file, page_checksum_verification=True)
        schema = self._parquet.schema_arrow
        self._columns = [name for name in schema.names if name in STORED]
        marks = json.loads((schema.metadata or {}).get(_MARKS, b"{}"))
        if not marks.keys() >= {"subject", "revision"}:
            raise TripTableError(
                f"expected trips marked with their subject and revision, received {marks or 'no marks'}"
            )
        self.edition = Edition(marks["subject"], marks["revision"])
        self.target: TargetName | None = marks.get("target")

    def __len__(self) -> int:
        """Returns how many trips there are."""
        return int(self._parquet.metadata.num_rows)

    @property
    def rides(self) -> int:
        """How many trips there are."""
        return len(self)

    @property
    def fits_in_memory(self) -> bool:
        """Whether they are few enough to be worked on as a frame."""
        return len(self) <= MOST_IN_MEMORY

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Yields all trips, each once, in the file's order.

        Args:
            columns: Of these alone; None is all.
        """
        yield from map(as_frame, self.tables(columns))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yields what `batches` does, in Arrow's form."""
        wanted = self._columns if columns is None else columns
        for batch in self._parquet.iter_batches(BATCH_TRIPS, columns=wanted, use_threads=False):
            yield pa.Table.from_batches([batch])

    @property
    def validation_trips(self) -> int:
        """How many of them are for validation."""
        return sum(int(batch["is_validation"].sum()) for batch in self.batches(["is_validation"]))

    def every_so_many(self, most: int) -> pd.DataFrame:
        """Returns at most so many trips, evenly spread over the file."""
        step, start = max(-(-len(self) // most), 1), 0
        parts = [self._parquet.schema_arrow.empty_table().select(self._columns)]
        for table in self.tables():
            # Rows are taken, not sliced: a slice would keep its whole batch in memory.
            parts.append(table.take(pa.array(range(-start % step, len(table), step), pa.int64())))
            start += len(table)
        return as_frame(pa.concat_tables(parts))

    def in_memory(self) -> Trips:
        """Returns the trips in memory."""
        self._file.seek(0)
        with pd.option_context("mode.string_storage", "pyarrow"):
            frame = pd.read_parquet(self._file, columns=self._columns, page_checksum_verification=True)
        frame.attrs = {}
        return Trips(self.edition, frame, self.target)

    def copy_to(self, file: IO[bytes]) -> None:
        """Writes the file into another one."""
        self._file.seek(0)
        copyfileobj(self._file, file)


def store(
    batches: Iterable[pd.DataFrame],
    edition: Edition,
    target: TargetName | None,
    folder: Path,
    on_trips: OnTrips | None = None,
) -> StoredTrips:
    """Returns trips in a file without a name, which is gone with the process, however it ends.

    Args:
        batches: At least one, of the same columns, read once.
        edition: Which trips they are.
        target: What they were made ready for; None for trips as published.
        folder: Where the file is: on a disk with room for it.
        on_trips: Told of the progress.
    """
    file, marks = TemporaryFile(dir=folder), json.dumps(marks_of(edition, target)).encode()  # noqa: SIM115
    writer, written = None, 0
    for batch in batches:
        table = pa.Table.from_pandas(batch, preserve_index=False)
        if writer is None:
            schema = table.schema.with_metadata({**(table.schema.metadata or {}), _MARKS: marks})
            writer = pq.ParquetWriter(file, schema, write_page_checksum=True)
        writer.write_table(table, BATCH_TRIPS)
        written += len(batch)
        if on_trips is not None:
            on_trips(written)
    if writer is None:
        raise TripTableError(f"{edition.subject}: expected trips, received none")
    writer.close()
    pa.default_memory_pool().release_unused()
    return StoredTrips(file)


def as_frame(trips: pa.Table, *, is_used_up: bool = False) -> pd.DataFrame:
    """Returns trips with the types of the trip table.

    Args:
        trips: In Arrow's form.
        is_used_up: Whether nobody needs that any more: it is freed column by column.
    """
    frame: pd.DataFrame = trips.to_pandas(
        types_mapper=_PANDAS_TYPES.get, ignore_metadata=True, self_destruct=is_used_up, split_blocks=is_used_up
    )
    if is_used_up:
        pa.default_memory_pool().release_unused()
    return frame


def marks_of(edition: Edition, target: TargetName | None) -> dict[str, str]:
    """Returns how a file says which trips it has.

    >>> marks_of(Edition("2015-01", "a1b2"), None)
    {'subject': '2015-01', 'revision': 'a1b2'}
    """
    marks = {"subject": edition.subject, "revision": edition.revision}
    return marks if target is None else marks | {"target": target}
