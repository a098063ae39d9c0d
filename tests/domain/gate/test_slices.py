"""Slices: kinds of rides that carry much of the error."""

import numpy as np
import pytest

from taxifare.gate.slices import MINIMUM_SLICE_TRIPS, SAME_POINT, SAME_POINT_KM, compare_slices, slice_masks
from tests.support.cities import NEW_YORK
from tests.support.comparison import PAID, RIDES, VALIDATION

# Slices


def test_slices_are_found_by_hand() -> None:
    trips = RIDES.head(4).assign(
        pickup_jfk_km=[2.4, 2.6, 20, 20],
        dropoff_lga_km=[20, 1.5, 1.7, 20],
        haversine_km=[10.0, 10.1, SAME_POINT_KM, 0.04],
        is_night=[1.0, 0, 0, 0],
        is_rush=[0.0, 0, 1, 0],
    )
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slice_masks(trips, NEW_YORK).items()} == {
        "JFK": [0],
        "LGA": [1],
        "EWR": [],
        "over 10 km": [1],
        SAME_POINT: [3],
        "night": [0],
        "rush hour": [2],
    }


def test_a_slice_of_few_rides_is_not_judged() -> None:
    at_jfk = np.where(np.arange(len(PAID)) < MINIMUM_SLICE_TRIPS - 1, 1.0, 20.0)
    few = VALIDATION.assign(pickup_jfk_km=at_jfk)
    enough = VALIDATION.assign(pickup_jfk_km=np.roll(at_jfk, 1).clip(None, 20), dropoff_jfk_km=at_jfk)
    names = [[part.name for part in compare_slices(PAID, PAID, trips, NEW_YORK)] for trips in (few, enough)]
    assert names == [["over 10 km", "night", "rush hour"], ["JFK", "over 10 km", "night", "rush hour"]]


def test_a_slice_has_both_models_scores_and_its_own_gain() -> None:
    is_night = VALIDATION["is_night"].to_numpy() > 0
    production_predicted, staging_predicted = PAID + 2, PAID + np.where(is_night, -3, 1)
    night = next(
        part
        for part in compare_slices(production_predicted, staging_predicted, VALIDATION, NEW_YORK)
        if part.name == "night"
    )
    assert night.staging.trips == is_night.sum()
    assert (night.production.bias, night.staging.bias) == (pytest.approx(2), pytest.approx(-3))
    assert night.gain.mean == pytest.approx(-1)
