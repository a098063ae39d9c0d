"""What a sound month is, once: how a publication is split, cleaned and given its features, and what speaks against it.

The assets and their checks, rehearsal and replay all go by this: the checks show every inspection, a rehearsal leaves
out a month that has a fault, a replay names its faults. Which trips are dropped one by one is said in `cleaning`.

Why there is one definition: docs/decisions.md, under trips.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.texts import counted
from taxifare.trips import stored
from taxifare.trips.cities import City
from taxifare.trips.cleaning import MINIMUM_SHARE_KEPT, clean, duplicates_in
from taxifare.trips.columns import COLUMN_NAMES, TRIP_COLUMNS, in_file
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.months import Month, bounds
from taxifare.trips.publication import LargePublication, Publication
from taxifare.trips.splitting import last_training_time, split_by_time
from taxifare.trips.stored import OnTrips, StoredTrips, store
from taxifare.trips.table import DTYPES
from taxifare.trips.targets import Target

AnyTrips = TypeVar("AnyTrips", Trips, StoredTrips)


@dataclass(frozen=True)
class Preprocessed(Generic[AnyTrips]):
    """Trips ready to learn from: clean, with target and `is_validation`; what cleaning dropped by rule.

    Those in memory have their features; of those in a file they are computed when they are read.
    """

    trips: AnyTrips
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Inspection:
    """What one rule of a sound month found.

    Attributes:
        name: Of the rule.
        is_passed: Whether the month keeps the rule.
        found: What was counted, in either case.
        fault: What is wrong with a month that does not keep it, and the way out; columns of the trip table in braces.
    """

    name: str
    is_passed: bool
    found: Mapping[str, object]
    fault: str

    def in_words(self, names: Mapping[str, str]) -> str:
        """Returns what is wrong with a month that does not keep the rule, and what to do about it.

        >>> twice = Inspection("has_unique_keys", False, {"repeated_keys": 3}, "column {key}: 3 are not unique")
        >>> twice.in_words({}), twice.in_words({"key": "ride_id"})
        ('column key: 3 are not unique', 'column ride_id (TRIP_COLUMNS: key=ride_id): 3 are not unique')

        Args:
            names: What columns are called in the files, as TRIP_COLUMNS says.
        """
        return self.fault.format_map({name: in_file(name, names) for name in COLUMN_NAMES})


def split_month(published: Publication, month: Month, validation_share: float) -> Trips:
    """Returns a month as it was published, with `is_validation`: as published, or else the latest share by time.

    Raises:
        SplitError: There are too few trips to split.
    """
    is_validation = published.is_validation
    if is_validation is None:
        is_validation = split_by_time(published.trips, validation_share)
    return Trips(Edition(str(month), published.revision), published.trips.assign(is_validation=is_validation))


def split_opened_month(
    published: Publication | LargePublication,
    month: Month,
    validation_share: float,
    folder: Path,
    on_trips: OnTrips | None = None,
) -> Trips | StoredTrips:
    """Returns a month as `split_month` does; a large one in a file without a name, however the source gives it.

    Args:
        published: The month.
        month: Which one.
        validation_share: Share of the trips wanted for validation.
        folder: Where the file of a large one is.
        on_trips: Told of the progress of a large one.

    Raises:
        SplitError: There are too few trips to split.
    """
    if isinstance(published, Publication):
        whole = split_month(published, month, validation_share)
        if whole.rides <= stored.MOST_IN_MEMORY:
            return whole
        starts = range(0, whole.rides, stored.BATCH_TRIPS)
        parts = (whole.frame.iloc[start : start + stored.BATCH_TRIPS] for start in starts)
        return store(parts, whole.edition, None, folder, on_trips)
    moment = last_training_time(published.pickups, round(len(published.pickups) * validation_share))
    marked = (trips.assign(is_validation=trips["pickup_datetime"] > moment) for trips in published.parts())
    return store(marked, Edition(str(month), published.revision), None, folder, on_trips)


def preprocess(raw: Trips, city: City, target: Target) -> Preprocessed[Trips]:
    """Returns the clean trips with target and features, one row a trip, and the number of trips dropped by each rule.

    Args:
        raw: A trip table with `is_validation`.
        city: Gives the rules and the geometry.
        target: What is to be learned of them.
    """
    cleaned = clean(raw.frame, city, target)
    frame = with_target_and_features(cleaned.trips, city, target)
    return Preprocessed(replace(raw, frame=frame, target=target.name), cleaned.dropped)


def preprocess_large(
    raw: StoredTrips, city: City, target: Target, folder: Path, on_trips: OnTrips | None = None
) -> Preprocessed[StoredTrips]:
    """Returns what `preprocess` does of a month that is too large for memory, in a file without a name.

    It has the target, and no features: they are computed when trips are read that need them.

    Args:
        raw: A trip table with `is_validation`.
        city: Gives the rules and the geometry.
        target: What is to be learned of them.
        folder: Where the file is.
        on_trips: Told of the progress.
    """
    dropped, repeated = Counter[str](), duplicates_in(raw.batches)

    def cleaned() -> Iterator[pd.DataFrame]:
        start = 0
        for batch in raw.batches():
            part = clean(batch, city, target, repeated[start : start + len(batch)])
            dropped.update(part.dropped)
            start += len(batch)
            yield part.trips.assign(target=target.of(part.trips))

    return Preprocessed(store(cleaned(), raw.edition, target.name, folder, on_trips), dropped)


def with_target_and_features(trips: pd.DataFrame, city: City, target: Target) -> pd.DataFrame:
    """Returns clean trips with the target and their features beside the columns they have."""
    return with_features(trips.assign(target=target.of(trips)), city)


def with_features(trips: pd.DataFrame, city: City) -> pd.DataFrame:
    """Returns clean trips with their features beside the columns they have."""
    names = feature_names(city)
    features = pd.DataFrame(features_of(trips, city, names).T, columns=list(names), index=trips.index, copy=False)
    return pd.concat([trips, features], axis=1, copy=False)


def features_of(trips: pd.DataFrame, city: City, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Returns the named features of clean trips (k, n); what they are made of is in memory for some trips at a time."""
    block = np.empty((len(names), len(trips)), dtype=np.float32)
    for start in range(0, len(trips), stored.BATCH_TRIPS):
        computed = compute_features(trips.iloc[start : start + stored.BATCH_TRIPS], city)
        for row, name in zip(block, names, strict=True):
            row[start : start + len(computed)] = computed[name].to_numpy()
    return block


def inspect_published(trips: pd.DataFrame | StoredTrips, month: Month, minimum_trips: int) -> tuple[Inspection, ...]:
    """Returns whether trips as published are a month of trips: columns and types, times, number, keys.

    Args:
        trips: As published.
        month: Which month they should be of.
        minimum_trips: Fewest trips of a month.
    """
    wrong, outside, (first, end) = dict[str, str](), 0, bounds(month)
    for part in [trips] if isinstance(trips, pd.DataFrame) else trips.batches():
        wrong |= {
            column.name: str(part.get(column.name, pd.Series(dtype="object")).dtype)
            for column in TRIP_COLUMNS
            if column.name not in part or part[column.name].dtype != pd.api.types.pandas_dtype(DTYPES[column.kind])
        }
        times = part["pickup_datetime"]
        outside += int((~((times >= first) & (times < end))).sum())
    repeated = _repeated_keys(trips)
    enough = {"trips": len(trips), "minimum_trips": minimum_trips}
    types = {column.name: DTYPES[column.kind] for column in TRIP_COLUMNS}
    columns = (f"column {{{name}}}: expected the type {types[name]}, received {kind}" for name, kind in wrong.items())
    return (
        Inspection(
            "has_trip_columns",
            not wrong,
            {"wrong_columns": wrong},
            f"{'; '.join(columns)}: materialize raw_new_data of {month} again, which reads it anew from its source",
        ),
        Inspection(
            "is_within_month",
            not outside,
            {"trips_outside": outside},
            f"column {{pickup_datetime}}: expected times from {first} until before {end}, received others in "
            f"{counted(outside, 'trips')}: move these rows to the files of their months",
        ),
        Inspection(
            "has_enough_trips",
            len(trips) >= minimum_trips,
            enough,
            f"expected at least {counted(minimum_trips, 'trips')} in {month} (MINIMUM_TRIPS={minimum_trips}), received "
            f"{len(trips):,}: add those that are missing, or set a lower MINIMUM_TRIPS",
        ),
        Inspection(
            "has_unique_keys",
            not repeated,
            {"repeated_keys": repeated},
            f"column {{key}}: expected each key once in {month}, received {counted(repeated, 'trips')} whose key an "
            "earlier one has: give each a key of its own, or leave the column out, and trips are numbered",
        ),
    )


def _repeated_keys(trips: pd.DataFrame | StoredTrips) -> int:
    """Returns how many trips have a key that an earlier one has.

    The keys of a file are told apart by hashes of 64 bits, of which fifteen million have two alike once in 160,000.
    """
    if isinstance(trips, pd.DataFrame):
        return int(trips["key"].duplicated().sum())
    hashes, start = np.empty(len(trips), dtype=np.uint64), 0
    for batch in trips.batches(["key"]):
        keys = batch["key"].astype(object)
        hashes[start : start + len(keys)] = pd.util.hash_pandas_object(keys, index=False, categorize=False)
        start += len(keys)
    # Sorted where they are: np.unique keeps a table of them, which takes several times their memory.
    hashes.sort()
    return int(np.count_nonzero(hashes[1:] == hashes[:-1]))


def inspect_clean(
    trips: pd.DataFrame | StoredTrips, published_trips: int, needed: Sequence[str]
) -> tuple[Inspection, ...]:
    """Returns whether enough of a month can be learned from: the share that cleaning kept, and nulls.

    Args:
        trips: Clean trips of the month.
        published_trips: How many were published.
        needed: Columns that have a value for every trip: features and target, or what these are made of.
    """
    share_kept, counts = len(trips) / published_trips, Counter[str]()
    for part in [trips] if isinstance(trips, pd.DataFrame) else trips.batches(needed):
        counts.update({name: int(part[name].isna().sum()) for name in needed})
    nulls = {name: count for name, count in counts.items() if count}
    shares = {"share_kept": share_kept, "minimum_share_kept": MINIMUM_SHARE_KEPT}
    empty = (
        f"{f'{{{name}}}' if name in COLUMN_NAMES else name} ({counted(count, 'trips')})"
        for name, count in nulls.items()
    )
    return (
        Inspection(
            "keeps_most_trips",
            share_kept >= MINIMUM_SHARE_KEPT,
            shares,
            # Rounded down, so that what is too little never reads as enough.
            f"expected at least {MINIMUM_SHARE_KEPT:.0%} of the trips to be such as can be learned from, received "
            f"{math.floor(1_000 * share_kept) / 1_000:.1%}: mend the rows that cleaning drops",
        ),
        Inspection(
            "has_no_nulls",
            not nulls,
            {"null_values": nulls},
            f"expected values in all trips that cleaning keeps, received none in {', '.join(empty)}: add them, or "
            "leave these rows out",
        ),
    )


def faults_of(
    raw: Trips | StoredTrips,
    cleaned: pd.DataFrame | StoredTrips,
    month: Month,
    minimum_trips: int,
    needed: Sequence[str],
) -> tuple[Inspection, ...]:
    """Returns the inspections that a month does not pass; none where it is sound.

    Args:
        raw: As published.
        cleaned: What cleaning kept of it.
        month: Which month it should be.
        minimum_trips: See `inspect_published`.
        needed: See `inspect_clean`.
    """
    published = raw.frame if isinstance(raw, Trips) else raw
    inspections = (
        *inspect_published(published, month, minimum_trips),
        *inspect_clean(cleaned, len(published), needed),
    )
    return tuple(inspection for inspection in inspections if not inspection.is_passed)
