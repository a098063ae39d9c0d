"""Explaining a ride of a prepared month: what was paid, what the versions of the month predict, and rides like it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.scores import at_rate_per_km
from taxifare.gate.slices import slice_masks
from taxifare.serving.bundle import Bundle
from taxifare.serving.making import rides_of
from taxifare.settings import ProblemSettings
from taxifare.trips.features import haversine_km

SIMILAR = 5
"""Rides that are shown beside the one."""

_KM_AN_HOUR_APART = 1.0
"""How far two rides at other times of the day seem apart, for each hour."""


@dataclass(frozen=True)
class Predicted:
    """What a version predicts of the ride, in the unit of the target.

    Attributes:
        role: Production or staging, when the month was compared.
        version: Which.
        value: The prediction.
        upper: The upper one.
    """

    role: str
    version: str
    value: float
    upper: float


@dataclass(frozen=True)
class Similar:
    """A ride of the month that is like the one: how far its two ends are from those of the other, in all."""

    key: str
    pickup: datetime
    apart_km: float
    haversine_km: float
    actual: float


@dataclass(frozen=True)
class Explanation:
    """What is known of a ride.

    Attributes:
        key: Its key.
        month: Its month.
        part: Whether models learned from it or were judged by it.
        pickup: When it began on the city's clock.
        places: Longitude and latitude of both ends, degrees.
        haversine_km: How long it is as the crow flies.
        passengers: How many rode, None where that is not known.
        actual: What was paid, or how long it took.
        at_rate: The same at the month's flat per-km rate, which difficulty is measured by.
        predicted: What the versions of the month predict.
        slices: Which kinds of trips it belongs to.
        rules: The dated rules in force.
        similar: The rides that are most like it, the nearest first.
    """

    key: str
    month: str
    part: str
    pickup: datetime
    places: tuple[tuple[float, float], tuple[float, float]]
    haversine_km: float
    passengers: int | None
    actual: float
    at_rate: float
    predicted: tuple[Predicted, ...]
    slices: tuple[str, ...]
    rules: tuple[str, ...]
    similar: tuple[Similar, ...]


def explain(
    key: str, month: str, trips: pd.DataFrame, versions: Iterable[tuple[str, Bundle]], settings: ProblemSettings
) -> Explanation:
    """Returns what is known of a ride of a prepared month.

    Args:
        key: Of the ride, which is among the trips.
        month: Which month they are of.
        trips: The month's trips with features, `target` and `is_validation`.
        versions: The models to ask, each with its role.
        settings: Name the city.
    """
    row = int(np.flatnonzero((trips["key"] == key).to_numpy())[0])
    one = trips.iloc[[row]]
    ride, city = one.iloc[0], settings.city_facts
    predicted = []
    for role, bundle in versions:
        quotes = bundle.quote(rides_of(one))
        predicted.append(Predicted(role, bundle.manifest.version, float(quotes.fare[0]), float(quotes.upper[0])))
    passengers = ride["passenger_count"]
    return Explanation(
        key=key,
        month=month,
        part="validation" if ride["is_validation"] else "training",
        pickup=ride["pickup_datetime"].to_pydatetime(),
        places=(
            (float(ride["pickup_longitude"]), float(ride["pickup_latitude"])),
            (float(ride["dropoff_longitude"]), float(ride["dropoff_latitude"])),
        ),
        haversine_km=float(ride["haversine_km"]),
        passengers=None if pd.isna(passengers) else int(passengers),
        actual=float(ride["target"]),
        at_rate=float(at_rate_per_km(trips[~trips["is_validation"]], one)[0]),
        predicted=tuple(predicted),
        slices=tuple(name for name, mask in slice_masks(one, city).items() if mask[0]),
        rules=tuple(rule.name for rule in city.rules if rule.since <= ride["pickup_datetime"].date()),
        similar=tuple(_similar(row, trips)),
    )


def _similar(row: int, trips: pd.DataFrame) -> Iterator[Similar]:
    """Yields the rides that are most like one, by both ends and the time of the day."""
    apart_km: npt.NDArray[np.float64] = np.zeros(len(trips))
    for end in ("pickup", "dropoff"):
        longitude, latitude = (trips[f"{end}_{axis}"].to_numpy(np.float64) for axis in ("longitude", "latitude"))
        apart_km += haversine_km(longitude, latitude, longitude[row], latitude[row])
    hours = np.abs(trips["hour"].to_numpy(np.float64) - float(trips["hour"].iloc[row]))
    unlike = apart_km + _KM_AN_HOUR_APART * np.minimum(hours, 24 - hours)
    unlike[row] = np.inf
    for place in np.argsort(unlike, kind="stable")[: min(SIMILAR, len(trips) - 1)]:
        found = trips.iloc[int(place)]
        yield Similar(
            str(found["key"]),
            found["pickup_datetime"].to_pydatetime(),
            float(apart_km[place]),
            float(found["haversine_km"]),
            float(found["target"]),
        )
