"""Slices: the kinds of trips that carry much of the error, and both models on each of them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.gains import SlicedGains, days_of, gains_of
from taxifare.gate.scores import FloatArray, Interval, Scores, paired_gains, score
from taxifare.trips.cities import City
from taxifare.values import Frozen

MINIMUM_SLICE_TRIPS = 30
"""Slices with fewer trips are not judged: their interval would say nothing."""

LONG_TRIP_KM = 10.0

SAME_POINT, SAME_POINT_KM = "same point", 0.05
"""Rides that end where they begin, nearer than this as the crow flies: nothing tells where they went in between."""

TOLERANCE_FACTORS: Mapping[str, float] = {SAME_POINT: 5.0}
"""By how much the tolerance of a slice is larger, because its gains are known that much less precisely."""


class SliceComparison(Frozen):
    """Both models on one kind of trips."""

    name: str
    production: Scores
    staging: Scores
    gain: Interval


def judged_features(city: City) -> tuple[str, ...]:
    """Returns the names of the features that trips need to be judged by.

    >>> from taxifare.trips.city_files import shipped
    >>> judged_features(shipped("new-york").facts)[:5]
    ('haversine_km', 'is_night', 'is_rush', 'pickup_jfk_km', 'dropoff_jfk_km')
    """
    airports = (f"{end}_{airport.code.lower()}_km" for airport in city.airports for end in ("pickup", "dropoff"))
    return ("haversine_km", "is_night", "is_rush", *airports)


def slice_masks(trips: pd.DataFrame, city: City) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns, for each kind of trips that carries much of the error, which trips belong to it.

    Kinds: an end at an airport, over 10 km, the same point at both ends, night, weekday evening rush. On real trips the
    first two are 7 % of the trips and 19 % of the absolute error, the third is 0.8 % and 38 % of the squared one.

    Args:
        trips: Trips with features, n rows.
        city: Gives the airports.
    """
    masks = {
        airport.code: (
            trips[[f"pickup_{airport.code.lower()}_km", f"dropoff_{airport.code.lower()}_km"]].min(axis=1)
            < airport.radius_km
        ).to_numpy()
        for airport in city.airports
    }
    return masks | {
        f"over {LONG_TRIP_KM:.0f} km": (trips["haversine_km"] > LONG_TRIP_KM).to_numpy(),
        SAME_POINT: (trips["haversine_km"] < SAME_POINT_KM).to_numpy(),
        "night": (trips["is_night"] > 0).to_numpy(),
        "rush hour": (trips["is_rush"] > 0).to_numpy(),
    }


def tolerance_of(slice_name: str, tolerance: float) -> float:
    """Returns by how much a slice may get worse, where `tolerance` is the setting.

    >>> tolerance_of("JFK", 0.1), tolerance_of("same point", 0.1)
    (0.1, 0.5)
    """
    return TOLERANCE_FACTORS.get(slice_name, 1.0) * tolerance


def compare_slices(
    production_predicted: FloatArray, staging_predicted: FloatArray, trips: pd.DataFrame, city: City
) -> tuple[SliceComparison, ...]:
    """Returns both models' scores on each slice that has at least `MINIMUM_SLICE_TRIPS` trips.

    Args:
        production_predicted: Production's predictions, shape (n,).
        staging_predicted: Staging's predictions of the same trips, shape (n,).
        trips: The trips with features and `target`, n rows.
        city: Gives the airports.
    """
    actual = trips["target"].to_numpy(np.float64)
    gains = sliced_gains(production_predicted, staging_predicted, trips, city).slices
    return tuple(
        SliceComparison(
            name=name,
            production=score(production_predicted[mask], actual[mask]),
            staging=score(staging_predicted[mask], actual[mask]),
            gain=gains[name].interval,
        )
        for name, mask in slice_masks(trips, city).items()
        if mask.sum() >= MINIMUM_SLICE_TRIPS
    )


def sliced_gains(
    production_predicted: FloatArray, candidate_predicted: FloatArray, trips: pd.DataFrame, city: City
) -> SlicedGains:
    """Returns by how much the candidate is closer than production, on all trips and on each kind of them.

    Args:
        production_predicted: Production's predictions, shape (n,).
        candidate_predicted: The candidate's predictions of the same trips, shape (n,).
        trips: The trips with features and `target`, n rows.
        city: Gives the airports.

    Raises:
        EvaluationError: As `paired_gains`.
    """
    gains = paired_gains(production_predicted, candidate_predicted, trips["target"].to_numpy(np.float64))
    days = days_of(trips)
    return SlicedGains(
        all=gains_of(gains, days),
        slices={name: gains_of(gains[mask], days[mask]) for name, mask in slice_masks(trips, city).items()},
    )
