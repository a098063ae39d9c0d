"""Gathering the base trips: from what a source published of many years to one file of clean trips in random order.

A trip's place in the file is decided by a hash of its values and the seed. Hence the same trips give the same file,
however the source divides them; equal trips meet, wherever they were published; and a smaller `DATASET_SIZE` is the
beginning of a larger one. What the file looks like is said in `base_trips`.

Why a hash decides: docs/decisions.md, under training.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa

from taxifare.secrets import private_folder
from taxifare.settings import Settings
from taxifare.sources.base import SourceError, ensure_target
from taxifare.training.base_trips import ARROW_SCHEMA, BaseTrips, write_base_trips
from taxifare.trips.cleaning import clean, is_duplicate, row_hashes
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.dropped import why_dropped
from taxifare.trips.editions import BASE, Edition
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.splitting import last_training_time
from taxifare.trips.stored import as_frame

VALIDATION_SHARE = 0.05

VALIDATION_TRIPS = 100_000
"""The latest twentieth is for validation, and no more than this, which tells errors of a cent apart: of six years, the
last weeks are enough to validate on; the rest is better used for training."""

_SHARDS = 128
"""Parts of the file while it is being made; a hundred million trips are 100 MB a part."""

_TOGETHER = 2**18
"""Trips of small parts that are cleaned and filed together."""


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
    private_folder(settings.home)
    published_trips, known, left_out, dropped = 0, 0, Counter[str](), Counter[str]()
    why = ""
    with ExitStack() as files:
        shards = [_Shard(settings.home, files) for _ in range(_SHARDS)]
        for part in _together(published.parts, left_out):
            published_trips += len(part)
            known += int(part[settings.target_facts.column].count())
            cleaned = clean(part, settings.city_facts, settings.target_facts)
            dropped.update(cleaned.dropped)
            if not why and cleaned.trips.empty:
                why = why_dropped(part, settings.city, settings.target_facts, dict(settings.trip_columns)) or ""
            _scatter(cleaned.trips, shards, settings.seed)
            _drop_needless(shards, settings.dataset_size)
        ensure_target(settings.target_facts, known, published_trips, published.origin)
        _ensure_some_are_clean(published, published_trips, dropped, why, settings)
        kept, repeated, moment = _survey(shards, settings.dataset_size)
        dropped["duplicate"] += repeated
        left_out["not_drawn"] += published_trips - dropped.total() - kept
        drawn = (trips for trips, _ in _drawn(shards, settings.dataset_size))
        file = TemporaryFile(dir=settings.home)  # noqa: SIM115 - BaseTrips closes it
        trips = write_base_trips(drawn, moment, Edition(BASE, published.revision), settings.target, file)
    return Gathered(trips, published_trips, left_out, dropped)


def _ensure_some_are_clean(
    published: BasePublication, published_trips: int, dropped: Mapping[str, int], why: str, settings: Settings
) -> None:
    """Ensures that cleaning has left some of the trips.

    Raises:
        SourceError: It has left none: they are of another city, for one.
    """
    if sum(dropped.values()) >= published_trips:
        reasons = ", ".join(f"{rule} {trips:,}" for rule, trips in dropped.items() if trips)
        raise SourceError(
            f"{published.origin}: expected rides that can be learned from, with CITY={settings.city.told}, received "
            f"{published_trips:,} trips, all of them dropped: {reasons or 'there are none'}{why and '. '}{why}"
        )


class _Shard:
    """Trips whose hashes are neighbours, on disk."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - closed with all others
        files.callback(self._file.close)
        self._writer = pa.ipc.new_stream(self._file, ARROW_SCHEMA.append(pa.field("hash", pa.uint64())))
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
    table = pa.Table.from_pandas(trips, schema=ARROW_SCHEMA, preserve_index=False).append_column(
        "hash", pa.array(hashes)
    )
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
        repeated = is_duplicate(as_frame(trips))
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
