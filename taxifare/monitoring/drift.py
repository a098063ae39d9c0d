"""Input drift: whether rides differ from those that production learned from. It is shown; by itself it is no alarm.

Rides are compared with earlier rides of the same calendar mix – the same weekdays and times of day – so that a month
with five Mondays is no drift. Inputs cannot say whether prices have moved: at the largest fare rise on record no
feature did, so they raise no alarm (docs/monitoring.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.columns import COORDINATES
from taxifare.trips.features import feature_names

BINS = 10
"""Bins of the population stability index: tenths of the reference."""

LEAST_SHARE = 1e-4
"""What an empty bin counts as, because the logarithm of 0 is not finite."""

THRESHOLD = 0.02
"""Threshold for a feature's index. Chosen on months before July 2012, none of which reached a quarter of it."""

CHANCE = 27.9
"""99.9 % quantile of chi-square with `BINS` - 1 degrees of freedom, what chance adds, times the number of rides."""

FALSE_ALARMS = "of 33 quiet months from October 2012 to June 2015 none had a feature beyond it"
"""What `THRESHOLD` was measured to do, see `bench/watch.py`."""

_HOURS_A_PART = 3

_CALENDAR = frozenset({"year_sin", "year_cos", "trend_years"})
"""Features that say which day it is: they differ every day."""

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureDrift:
    """How far a feature's values are from earlier ones.

    Attributes:
        name: The feature.
        index: The population stability index.
        threshold: `THRESHOLD` plus what chance alone adds to the index at this number of rides.
    """

    name: str
    index: float
    threshold: float

    @property
    def is_beyond(self) -> bool:
        """Whether it drifts by more than it ever did while nothing had changed."""
        return self.index > self.threshold


@dataclass(frozen=True)
class InputDrift:
    """What a month's inputs show.

    Attributes:
        rides: How many.
        reference_rides: How many earlier rides they are compared with.
        features: Each feature, the one with the most drift first.
        missing: The share of published trips without a value, by column.
        outside: The share of published trips outside the city's box or with an invalid passenger count.
        by_hour: The share of rides that begin in each hour of the day, now and before: columns `now`, `before`.
    """

    rides: int
    reference_rides: int
    features: tuple[FeatureDrift, ...]
    missing: Mapping[str, float]
    outside: Mapping[str, float]
    by_hour: pd.DataFrame

    @property
    def beyond(self) -> tuple[str, ...]:
        """The features that drift by more than they ever did while nothing had changed."""
        return tuple(feature.name for feature in self.features if feature.is_beyond)

    @property
    def says(self) -> str:
        """A summary in words."""
        farthest = self.features[0]
        named = ", ".join(self.beyond) or "none"
        return (
            f"beyond the threshold: {named}. The farthest is {farthest.name}, PSI {farthest.index:.3f} of "
            f"{farthest.threshold:.3f}; {FALSE_ALARMS}. Price changes do not show here; see production_watch"
        )


def input_drift(published: pd.DataFrame, rides: pd.DataFrame, before: pd.DataFrame, city: City) -> InputDrift:
    """Returns how a month's rides differ from those that were learned from, and faults of the published trips.

    Args:
        published: The month's trips as published.
        rides: The clean ones, with features.
        before: Earlier clean rides, with features, see `rehearsal.reservoir`; at least one.
        city: Gives features and limits.
    """
    weights = calendar_weights(rides, before)
    names = [name for name in feature_names(city) if name not in _CALENDAR | {rule.name for rule in city.rules}]
    noise = CHANCE * (1 / len(rides) + float((weights**2).sum()) / float(weights.sum()) ** 2)
    found = []
    for name in names:
        then, now = (of_rides[name].to_numpy(np.float64) for of_rides in (before, rides))
        found.append(FeatureDrift(name, psi(then, now, weights), THRESHOLD + noise))
    return InputDrift(
        rides=len(rides),
        reference_rides=len(before),
        features=tuple(sorted(found, key=lambda feature: -feature.index)),
        missing={name: float(published[name].isna().mean()) for name in (*COORDINATES, "passenger_count")},
        outside=_outside(published, city),
        by_hour=pd.DataFrame({"now": _by_hour(rides), "before": _by_hour(before)}),
    )


def calendar_weights(rides: pd.DataFrame, before: pd.DataFrame) -> _Numbers:
    """Returns weights for earlier rides that give them together the weekdays and hours of the rides.

    Args:
        rides: With `pickup_datetime`.
        before: Earlier rides, n of them, likewise.

    Returns:
        Shape (n,), adding up to the number of rides whose weekday and time of day also occur among earlier rides.
    """
    now, then = _parts_of_week(rides), _parts_of_week(before)
    cells = 7 * 24 // _HOURS_A_PART
    wanted, there = np.bincount(now, minlength=cells), np.bincount(then, minlength=cells)
    weights: _Numbers = (wanted / np.maximum(there, 1))[then]
    return weights


def psi(before: _Numbers, now: _Numbers, weights: _Numbers | None = None, bins: int = BINS) -> float:
    """Returns the population stability index: Σ (p - q) ln(p / q) over the tenths of the earlier values.

    Values that fill a tenth or more by themselves, such as one passenger, are a bin of their own.

    >>> same = np.arange(1000.0)
    >>> psi(same, same)
    0.0
    >>> round(psi(same, same + 100), 2)
    0.76

    Args:
        before: Earlier values, shape (n,).
        now: Values to compare with them, shape (m,).
        weights: Weights of the earlier values, shape (n,); None: all 1.
        bins: Number of bins.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))

    def shares(values: _Numbers, counts: _Numbers | None = None) -> _Numbers:
        found = np.bincount(np.searchsorted(edges, values, side="left"), weights=counts, minlength=len(edges) + 1)
        share: _Numbers = np.maximum(found / found.sum(), LEAST_SHARE)
        return share

    was, is_now = shares(before, weights), shares(now)
    return float(((is_now - was) * np.log(is_now / was)).sum())


def _parts_of_week(rides: pd.DataFrame) -> npt.NDArray[np.int64]:
    times = rides["pickup_datetime"].dt
    parts: npt.NDArray[np.int64] = np.asarray(
        times.dayofweek * (24 // _HOURS_A_PART) + times.hour // _HOURS_A_PART, np.int64
    )
    return parts


def _by_hour(rides: pd.DataFrame) -> pd.Series:
    hours = np.asarray(rides["pickup_datetime"].dt.hour, np.int64)
    return pd.Series(np.bincount(hours, minlength=24) / max(len(hours), 1), name="share")


def _outside(published: pd.DataFrame, city: City) -> dict[str, float]:
    """Returns the share of trips that have a value which is not valid in the city."""
    ranges = {
        name: city.longitude_range_deg if "longitude" in name else city.latitude_range_deg for name in COORDINATES
    }
    ranges["passenger_count"] = (1, city.max_passengers)
    found = {}
    for name, (least, most) in ranges.items():
        values = published[name].to_numpy(dtype=np.float64, na_value=np.nan)
        found[name] = float(((values < least) | (values > most)).mean()) if len(values) else 0.0
    return found
