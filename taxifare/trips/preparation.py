"""A month made ready: split, cleaned, with target and features; and what speaks against it."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.cleaning import Cleaned, clean
from taxifare.trips.editions import edition_of
from taxifare.trips.features import compute_features
from taxifare.trips.targets import TARGET_MARK, Target


@dataclass(frozen=True)
class Preprocessed:
    """Trips ready to learn from: clean, with target, features and `is_validation`; what cleaning dropped by rule."""

    trips: pd.DataFrame
    dropped: Mapping[str, int]


def preprocess(trips: pd.DataFrame, city: City, target: Target) -> Preprocessed:
    """Returns the clean trips with target and features, one row a trip, and the number of trips dropped by each rule.

    Args:
        trips: A stamped trip table with `is_validation`.
        city: Gives the rules and the geometry.
        target: What is to be learned of them.
    """
    cleaned: Cleaned = clean(trips, city, target)
    kept = cleaned.trips.assign(target=target.of(cleaned.trips))
    processed = edition_of(trips).stamp(pd.concat([kept, compute_features(kept, city)], axis=1))
    processed.attrs[TARGET_MARK] = target.name
    return Preprocessed(processed, cleaned.dropped)
