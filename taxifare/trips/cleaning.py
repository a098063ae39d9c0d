"""Cleaning: which published trips are rides that can be learned from, and why the others are not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.columns import COLUMN_NAMES, COORDINATES
from taxifare.trips.table import TripTableError
from taxifare.trips.targets import Target

MINIMUM_SHARE_KEPT = 0.8
"""Cleaning keeps 97 % of real trips; a month that loses a fifth has another format or another fault."""

_IDENTITY = tuple(name for name in COLUMN_NAMES if name != "key")

# Multipliers of SplitMix64 (Steele, Lea and Flood 2014), a mixer whose output bits all depend on all input bits.
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)

_MIX_2 = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Cleaned:
    """Trips that can be learned from, and what was left out.

    Attributes:
        trips: The kept rows in their order, with every column they came with and a fresh index.
        dropped: Rows dropped by rule, in the order the rules apply; a rule that dropped nothing counts zero. A row
            that breaks several rules is counted under the first.
    """

    trips: pd.DataFrame
    dropped: dict[str, int]


def clean(trips: pd.DataFrame, city: City, target: Target, repeated: npt.NDArray[np.bool_] | None = None) -> Cleaned:
    """Returns the trips that can be learned from, and how many were dropped by which rule.

    The rules, in order (limits: the Le Wagon course's, in `cities.py` and `targets.py`):

    1. `missing_value`: a coordinate is null, or what the target is made of. A null passenger count is no reason and
       stays null.
    2. `duplicate`: equal to an earlier trip in everything but its key, nulls counting as equal.
    3. `zero_coordinate`: a coordinate is exactly 0, which is what a meter without a satellite fix writes, and 0 is not
       in the city.
    4. `outside_city`: an end lies outside the city's box, whose edges belong to it.
    5. `passenger_count`: not in 1 … `city.max_passengers`.
    6. `fare` or `duration`, the target: not strictly between 0 and `target.most`.

    What a ride cost is no reason to doubt how long it took, nor the other way round.

    Args:
        trips: A trip table (`trips.as_trip_table`); further columns are carried along and play no part.
        city: Where the trips are.
        target: What is to be learned of them.
        repeated: Which are duplicates, where the trips are a part of those that are told apart; None to look here.

    Raises:
        TripTableError: A column of the trip table is missing.
    """
    kept = np.ones(len(trips), dtype=np.bool_)
    dropped = {}
    for rule, breaks in broken_rules(trips, city, target, repeated).items():
        dropped[rule] = int(np.count_nonzero(kept & breaks))
        kept &= ~breaks
    return Cleaned(trips=trips[kept].reset_index(drop=True), dropped=dropped)


def broken_rules(
    trips: pd.DataFrame, city: City, target: Target, repeated: npt.NDArray[np.bool_] | None = None
) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns which trips break each rule of `clean`, in the order of the rules; a trip may break several.

    Raises:
        TripTableError: A column of the trip table is missing.
    """
    missing = [name for name in _IDENTITY if name not in trips.columns]
    if missing:
        raise TripTableError(f"cleaning: missing columns {', '.join(missing)}; expected a trip table")
    coordinates = {name: trips[name].to_numpy(dtype=np.float64) for name in COORDINATES}
    ranges = coordinate_ranges(city)
    values = target.of(trips).to_numpy(dtype=np.float64)
    passengers_known = trips["passenger_count"].notna().to_numpy()
    passengers = trips["passenger_count"].to_numpy(dtype=np.int64, na_value=0)
    return {
        "missing_value": _any(np.isnan(column) for column in (*coordinates.values(), values)),
        "duplicate": is_duplicate(trips) if repeated is None else repeated,
        "zero_coordinate": _any(
            column == 0 for name, column in coordinates.items() if not ranges[name][0] <= 0 <= ranges[name][1]
        ),
        "outside_city": _any(~_between(column, ranges[name]) for name, column in coordinates.items()),
        "passenger_count": passengers_known & ~_between(passengers, (1, city.max_passengers)),
        target.name: ~((values > 0) & (values < target.most)),
    }


def coordinate_ranges(city: City) -> dict[str, tuple[float, float]]:
    """Returns the smallest and the largest value of each coordinate."""
    return {name: city.longitude_range_deg if "longitude" in name else city.latitude_range_deg for name in COORDINATES}


def _any(conditions: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Returns, row by row, whether one of the conditions holds."""
    return np.asarray(np.logical_or.reduce(list(conditions)))


def _between(values: npt.NDArray[Any], limits: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Returns, row by row, whether the value lies within the limits, both included; a null does not."""
    return (values >= limits[0]) & (values <= limits[1])


def is_duplicate(trips: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Returns, row by row, whether an earlier row is equal in everything but its key.

    Rows are hashed to 64 bits first; only rows that share a hash, which are few, are compared value by value.
    """
    hashes = row_hashes(trips)
    shared = _shared(hashes)
    duplicate = np.zeros(len(trips), dtype=np.bool_)
    if len(shared):
        candidates = np.flatnonzero(np.isin(hashes, shared))
        duplicate[candidates] = trips[list(_IDENTITY)].iloc[candidates].duplicated().to_numpy()
    return duplicate


def duplicates_in(batches: Callable[[], Iterable[pd.DataFrame]]) -> npt.NDArray[np.bool_]:
    """Returns what `is_duplicate` does of trips that are read batch by batch, in order; they are read twice."""
    hashes = np.concatenate([row_hashes(batch) for batch in batches()])
    shared = _shared(hashes)
    duplicate = np.zeros(len(hashes), dtype=np.bool_)
    if not len(shared):
        return duplicate
    rows, candidates, start = list[pd.DataFrame](), list[npt.NDArray[np.intp]](), 0
    for batch in batches():
        of_batch = np.flatnonzero(np.isin(hashes[start : start + len(batch)], shared))
        rows.append(batch[list(_IDENTITY)].iloc[of_batch])
        candidates.append(start + of_batch)
        start += len(batch)
    duplicate[np.concatenate(candidates)] = pd.concat(rows).duplicated().to_numpy()
    return duplicate


def _shared(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Returns the hashes that several rows have, each once."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def row_hashes(trips: pd.DataFrame, seed: int = 0) -> npt.NDArray[np.uint64]:
    """Returns a 64-bit hash of each row's values but its key: equal rows have equal hashes, other seeds other ones."""
    hashes = np.full(len(trips), seed % 2**64, dtype=np.uint64)
    for name in _IDENTITY:
        column = trips[name]
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            bits = column.to_numpy().view(np.uint64)
        else:
            # Adding zero makes -0.0 the 0.0 it equals; nulls become the one NaN.
            bits = (column.to_numpy(dtype=np.float64, na_value=np.nan) + 0.0).view(np.uint64)
        hashes ^= bits
        hashes ^= hashes >> np.uint64(30)
        hashes *= _MIX_1
        hashes ^= hashes >> np.uint64(27)
        hashes *= _MIX_2
        hashes ^= hashes >> np.uint64(31)
    return hashes
