"""What a sound month is, once: how a publication is split, cleaned and given its features, and what speaks against it.

The assets and their checks, rehearsal and replay all go by this: the checks show every inspection, a rehearsal leaves
out a month that has a fault, a replay names its faults. Which trips are dropped one by one is said in `cleaning`.

Why there is one definition: docs/decisions.md, under trips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.cleaning import MINIMUM_SHARE_KEPT, clean
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import compute_features
from taxifare.trips.months import Month, bounds
from taxifare.trips.publication import Publication
from taxifare.trips.splitting import split_by_time
from taxifare.trips.table import DTYPES, TRIP_COLUMNS
from taxifare.trips.targets import Target


@dataclass(frozen=True)
class Preprocessed:
    """Trips ready to learn from: clean, with target, features and `is_validation`; what cleaning dropped by rule."""

    trips: Trips
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Inspection:
    """What one rule of a sound month found.

    Attributes:
        name: Of the rule.
        is_passed: Whether the month keeps the rule.
        found: What was counted, in either case.
    """

    name: str
    is_passed: bool
    found: Mapping[str, object]

    def __str__(self) -> str:
        """What was found, in a line.

        >>> str(Inspection("has_enough_trips", False, {"trips": 60, "minimum_trips": 100}))
        'has_enough_trips (trips 60, minimum_trips 100)'
        """
        return f"{self.name} ({', '.join(f'{what} {value}' for what, value in self.found.items())})"


def split_month(published: Publication, month: Month, validation_share: float) -> Trips:
    """Returns a month as it was published, with `is_validation`: as published, or else the latest share by time.

    Raises:
        SplitError: There are too few trips to split.
    """
    is_validation = published.is_validation
    if is_validation is None:
        is_validation = split_by_time(published.trips, validation_share)
    return Trips(Edition(str(month), published.revision), published.trips.assign(is_validation=is_validation))


def preprocess(raw: Trips, city: City, target: Target) -> Preprocessed:
    """Returns the clean trips with target and features, one row a trip, and the number of trips dropped by each rule.

    Args:
        raw: A trip table with `is_validation`.
        city: Gives the rules and the geometry.
        target: What is to be learned of them.
    """
    cleaned = clean(raw.frame, city, target)
    frame = with_target_and_features(cleaned.trips, city, target)
    return Preprocessed(replace(raw, frame=frame, target=target.name), cleaned.dropped)


def with_target_and_features(trips: pd.DataFrame, city: City, target: Target) -> pd.DataFrame:
    """Returns clean trips with the target and their features beside the columns they have."""
    return with_features(trips.assign(target=target.of(trips)), city)


def with_features(trips: pd.DataFrame, city: City) -> pd.DataFrame:
    """Returns clean trips with their features beside the columns they have."""
    return pd.concat([trips, compute_features(trips, city)], axis=1)


def inspect_published(trips: pd.DataFrame, month: Month, minimum_trips: int) -> tuple[Inspection, ...]:
    """Returns whether trips as published are a month of trips: columns and types, times, number, keys.

    Args:
        trips: As published.
        month: Which month they should be of.
        minimum_trips: Fewest trips of a month.
    """
    wrong = {
        column.name: str(trips.get(column.name, pd.Series(dtype="object")).dtype)
        for column in TRIP_COLUMNS
        if column.name not in trips or trips[column.name].dtype != pd.api.types.pandas_dtype(DTYPES[column.kind])
    }
    first, end = bounds(month)
    times = trips["pickup_datetime"]
    outside = int((~((times >= first) & (times < end))).sum())
    repeated = int(trips["key"].duplicated().sum())
    enough = {"trips": len(trips), "minimum_trips": minimum_trips}
    return (
        Inspection("has_trip_columns", not wrong, {"wrong_columns": wrong}),
        Inspection("is_within_month", not outside, {"trips_outside": outside}),
        Inspection("has_enough_trips", len(trips) >= minimum_trips, enough),
        Inspection("has_unique_keys", not repeated, {"repeated_keys": repeated}),
    )


def inspect_clean(trips: pd.DataFrame, published_trips: int, needed: Sequence[str]) -> tuple[Inspection, ...]:
    """Returns whether enough of a month can be learned from: the share that cleaning kept, and nulls.

    Args:
        trips: Clean trips of the month.
        published_trips: How many were published.
        needed: Columns that have a value for every trip: features and target, or what these are made of.
    """
    share_kept = len(trips) / published_trips
    nulls = {name: int(count) for name, count in trips[list(needed)].isna().sum().items() if count}
    shares = {"share_kept": share_kept, "minimum_share_kept": MINIMUM_SHARE_KEPT}
    return (
        Inspection("keeps_most_trips", share_kept >= MINIMUM_SHARE_KEPT, shares),
        Inspection("has_no_nulls", not nulls, {"null_values": nulls}),
    )


def faults_of(
    raw: Trips, cleaned: pd.DataFrame, month: Month, minimum_trips: int, needed: Sequence[str]
) -> tuple[Inspection, ...]:
    """Returns the inspections that a month does not pass; none where it is sound.

    Args:
        raw: As published.
        cleaned: What cleaning kept of it.
        month: Which month it should be.
        minimum_trips: See `inspect_published`.
        needed: See `inspect_clean`.
    """
    inspections = (
        *inspect_published(raw.frame, month, minimum_trips),
        *inspect_clean(cleaned, len(raw.frame), needed),
    )
    return tuple(inspection for inspection in inspections if not inspection.is_passed)
