"""The base years as a file of shuffled trips: however many there are, a part of them is in memory at a time.

A trip's place in the file is decided by a hash of its values and the seed. Hence the same trips give the same file,
however the source divides them; equal trips meet, wherever they were published; and the first trips of the file are a
random sample of all, which is what scales, pictures and a smaller `DATASET_SIZE` are taken from.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import IO
from weakref import finalize

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxifare.model.exposure import Exposure
from taxifare.settings import Settings
from taxifare.sources.base import ensure_target
from taxifare.trips.cities import City
from taxifare.trips.cleaning import clean, is_duplicate, row_hashes
from taxifare.trips.editions import BASE, Edition, Trips
from taxifare.trips.preparation import with_features
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.splitting import last_training_time
from taxifare.trips.table import COLUMN_NAMES, TRIP_COLUMNS, Kind, TripTableError
from taxifare.trips.targets import TARGETS, TargetName

VALIDATION_SHARE = 0.05

VALIDATION_TRIPS = 100_000
"""The latest twentieth is for validation, and no more than this, which tells errors of a cent apart: of six years, the
last weeks are enough to validate on; the rest is better used for training."""

SAMPLE_TRIPS = 200_000
"""Training trips that stand for all of them where all are too many: in pictures, scales, references and tuning."""

GROUP_TRIPS = 2**16
"""Trips of a row group: what training holds of the file."""

_SHARDS = 128
"""Parts of the file while it is being made; a hundred million trips are 100 MB a part."""

_TOGETHER = 2**18
"""Trips of small parts that are cleaned and filed together."""

_ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "timestamp": pa.timestamp("us"),
    "number": pa.float64(),
    "integer": pa.int32(),
}

_SCHEMA = pa.schema([(column.name, _ARROW_TYPES[column.kind]) for column in TRIP_COLUMNS])

_PANDAS_TYPES = {pa.large_string(): pd.StringDtype("pyarrow"), pa.int32(): pd.Int32Dtype()}


class BaseTrips:
    """Clean trips of the base years in an open file, without features: training trips in random order, then the rest.

    Each comes with its `target`, which is computed when it is read.

    Args:
        file: What `gather_base` made, or a copy of it; closed when nobody has the trips any more.

    Attributes:
        edition: Which trips these are.
        target: What they were cleaned for.

    Raises:
        TripTableError: The file is not of that form.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        finalize(self, file.close)
        self._parquet = pq.ParquetFile(file)
        marks = self._parquet.schema_arrow.metadata or {}
        if b"target" not in marks or "is_validation" not in self._parquet.schema_arrow.names:
            raise TripTableError("the file of the base trips is of an earlier version: materialize base_trips again")
        self.edition = Edition(marks[b"subject"].decode(), marks[b"revision"].decode())
        self.target = TARGETS[marks[b"target"].decode()].name

    def __reduce__(self) -> tuple[Callable[[bytes], "BaseTrips"], tuple[bytes]]:
        """Lets the trips go to another process, as the bytes of their file."""
        content = BytesIO()
        self.copy_to(content)
        return _from_bytes, (content.getvalue(),)

    def copy_to(self, file: IO[bytes]) -> None:
        """Writes the file into another one."""
        self._file.seek(0)
        copyfileobj(self._file, file)

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
        """Validation trips in all, at most `VALIDATION_TRIPS`."""
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
        trips = _frame(self._parquet.read_row_group(group, use_threads=False))
        return trips.assign(target=TARGETS[self.target].of(trips))


def _from_bytes(content: bytes) -> BaseTrips:
    return BaseTrips(BytesIO(content))


@dataclass(frozen=True)
class Gathered:
    """The base years, drawn, shuffled and on disk, and what became of the published trips.

    Attributes:
        trips: Those that are kept.
        published_trips: How many the source published.
        left_out: Published rows that are no trips or were not drawn, by reason.
        dropped: Trips dropped by cleaning, by rule.
    """

    trips: BaseTrips
    published_trips: int
    left_out: Mapping[str, int]
    dropped: Mapping[str, int]


def gather_base(published: BasePublication, settings: Settings) -> Gathered:
    """Returns at most `DATASET_SIZE` clean trips of the base years, drawn at random, in a file without a name.

    Trips stream through 128 files, by their hashes, and from each into the final one. The files are in `TAXIFARE_HOME`
    and nameless: they are gone with the process, however it ends.

    Raises:
        SourceError: The source cannot be read, or no trip tells the target.
        SplitError: There are too few trips.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    published_trips, known, left_out, dropped = 0, 0, Counter[str](), Counter[str]()
    with ExitStack() as files:
        shards = [_Shard(settings.home, files) for _ in range(_SHARDS)]
        for trips in _together(published.parts, left_out):
            published_trips += len(trips)
            known += int(trips[settings.target_facts.column].count())
            cleaned = clean(trips, settings.city_facts, settings.target_facts)
            dropped.update(cleaned.dropped)
            _scatter(cleaned.trips, shards, settings.seed)
            _drop_needless(shards, settings.dataset_size)
        ensure_target(settings.target_facts, known, published_trips, published.origin)
        edition = Edition(BASE, published.revision)
        kept, repeated, moment = _survey(shards, settings.dataset_size)
        dropped["duplicate"] += repeated
        left_out["not_drawn"] += published_trips - dropped.total() - kept
        file = TemporaryFile(dir=settings.home)  # noqa: SIM115 - BaseTrips closes it
        _write(_drawn(shards, settings.dataset_size), moment, edition, settings.target, file)
    return Gathered(BaseTrips(file), published_trips, left_out, dropped)


class _Shard:
    """Trips whose hashes are neighbours, on disk."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - closed with all others
        files.callback(self._file.close)
        self._writer = pa.ipc.new_stream(self._file, _SCHEMA.append(pa.field("hash", pa.uint64())))
        self.trips = 0

    def append(self, trips: pa.Table) -> None:
        """Adds trips."""
        self._writer.write_table(trips)
        self.trips += len(trips)

    def read(self) -> pa.Table:
        """Returns the trips in order of their hashes, the first of those that share one first."""
        self._writer.close()
        self._file.seek(0)
        trips = pa.ipc.open_stream(self._file).read_all().combine_chunks()
        return trips.take(np.argsort(trips["hash"].to_numpy(), kind="stable"))

    def close(self) -> None:
        """Frees the disk."""
        self._file.close()


def _together(parts: Iterable[Publication], left_out: Counter[str]) -> Iterator[pd.DataFrame]:
    """Yields the trips of the parts, small ones together; counts what the source left out."""
    waiting: list[pd.DataFrame] = []
    for part in parts:
        left_out.update(part.dropped)
        waiting.append(part.trips[list(COLUMN_NAMES)])
        if sum(map(len, waiting)) >= _TOGETHER:
            yield pd.concat(waiting, ignore_index=True)
            waiting = []
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def _scatter(trips: pd.DataFrame, shards: Sequence[_Shard], seed: int) -> None:
    """Appends each trip to the shard of its hash; those of shards that are no longer needed are left out."""
    hashes = row_hashes(trips, seed)
    number = hashes >> np.uint64(64 - (_SHARDS - 1).bit_length())
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(shards)), side="right")
    table = pa.Table.from_pandas(trips, schema=_SCHEMA, preserve_index=False).append_column("hash", pa.array(hashes))
    table = table.take(order[: ends[-1]]).combine_chunks()
    for shard, start, end in zip(shards, [0, *ends[:-1]], ends, strict=True):
        shard.append(table.slice(start, end - start))


def _drop_needless(shards: list[_Shard], dataset_size: int | None) -> None:
    """Closes the last shards if those before them hold enough trips."""
    while dataset_size is not None and sum(shard.trips for shard in shards[:-1]) >= dataset_size:
        shards.pop().close()


def _drawn(shards: Iterable[_Shard], dataset_size: int | None) -> Iterator[tuple[pa.Table, int]]:
    """Yields the trips in order of their hashes, at most `dataset_size`, and how many equal ones were dropped."""
    left = dataset_size
    for shard in shards:
        trips = shard.read()
        repeated = is_duplicate(_frame(trips))
        trips = trips.filter(pa.array(~repeated)).drop_columns("hash").slice(0, left)
        yield trips, int(repeated.sum())
        if left is not None:
            left -= len(trips)


def _survey(shards: Iterable[_Shard], dataset_size: int | None) -> tuple[int, int, np.datetime64]:
    """Returns how many trips are drawn and how many equal ones dropped, and the moment that starts the validation.

    Raises:
        SplitError: There are too few.
    """
    kept = repeated = 0
    latest = np.empty(0, dtype="datetime64[us]")
    for trips, equal in _drawn(shards, dataset_size):
        kept, repeated = kept + len(trips), repeated + equal
        latest = np.concatenate([latest, trips["pickup_datetime"].to_numpy()])
        if len(latest) > VALIDATION_TRIPS:
            latest = np.partition(latest, -VALIDATION_TRIPS - 1)[-VALIDATION_TRIPS - 1 :]
    return kept, repeated, last_training_time(latest, min(round(kept * VALIDATION_SHARE), VALIDATION_TRIPS))


def _write(
    drawn: Iterable[tuple[pa.Table, int]],
    moment: np.datetime64,
    edition: Edition,
    target: TargetName,
    file: IO[bytes],
) -> None:
    """Writes the trips up to the moment in the order they come, then those after it."""
    schema = _SCHEMA.append(pa.field("is_validation", pa.bool_()))
    marks = {"subject": edition.subject, "revision": edition.revision, "target": target}
    with pq.ParquetWriter(file, schema.with_metadata(marks)) as writer:
        waiting, validation = [], []
        for trips, _ in drawn:
            later = pc.greater(trips["pickup_datetime"], pa.scalar(moment))
            marked = trips.append_column("is_validation", later)
            validation.append(marked.filter(later))
            waiting.append(marked.filter(pc.invert(later)))
            if sum(map(len, waiting)) >= GROUP_TRIPS:
                together = pa.concat_tables(waiting)
                whole = len(together) // GROUP_TRIPS * GROUP_TRIPS
                writer.write_table(together.slice(0, whole), GROUP_TRIPS)
                waiting = [together.slice(whole)]
        writer.write_table(pa.concat_tables(waiting), GROUP_TRIPS)
        writer.write_table(pa.concat_tables(validation), GROUP_TRIPS)


def _frame(trips: pa.Table) -> pd.DataFrame:
    """Returns trips with the types of the trip table."""
    frame: pd.DataFrame = trips.to_pandas(types_mapper=_PANDAS_TYPES.get, ignore_metadata=True)
    return frame
