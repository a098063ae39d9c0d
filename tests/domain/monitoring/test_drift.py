"""Drift is that of rides, not of the calendar; a month that differs by chance alone is within the threshold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.monitoring.drift import InputDrift, calendar_weights, input_drift, psi
from taxifare.trips.features import compute_features
from tests.support.cities import NEW_YORK


def rides(n: int, first: str, days: int, seed: int, *, east: float = 0.0) -> pd.DataFrame:
    """Rides around Midtown with their features, more of them in the evening; all of them may begin further east."""
    draws = np.random.default_rng(seed)
    minutes = draws.integers(0, days, n) * 1440 + draws.triangular(0, 1200, 1440, n).astype(int)
    trips = pd.DataFrame(
        {
            "pickup_datetime": (pd.Timestamp(first) + pd.to_timedelta(minutes, unit="min")).astype("datetime64[us]"),
            "pickup_longitude": -73.98 + east + 0.02 * draws.standard_normal(n),
            "pickup_latitude": 40.75 + 0.02 * draws.standard_normal(n),
            "dropoff_longitude": -73.97 + 0.02 * draws.standard_normal(n),
            "dropoff_latitude": 40.76 + 0.02 * draws.standard_normal(n),
            "passenger_count": pd.array(draws.integers(1, 4, n), dtype="Int32"),
        }
    )
    return pd.concat([trips, compute_features(trips, NEW_YORK)], axis=1)


def drift(now: pd.DataFrame, before: pd.DataFrame) -> InputDrift:
    return input_drift(now, now, before, NEW_YORK)


@pytest.mark.parametrize("n", [300, 5_000])
def test_rides_of_the_same_city_are_within_the_threshold_however_few(n: int) -> None:
    found = drift(rides(n, "2012-03-01", 31, 1), rides(20_000, "2011-01-01", 365, 2))
    assert found.beyond == ()
    assert found.says.startswith("beyond the threshold: none. The farthest is ")


def test_a_month_of_mondays_is_no_drift_and_one_that_begins_elsewhere_is() -> None:
    before = rides(20_000, "2011-01-03", 364, 2)
    mondays = rides(5_000, "2012-03-05", 1, 3)
    assert psi(before["weekday"].to_numpy(np.float64), mondays["weekday"].to_numpy(np.float64)) > 1
    assert drift(mondays, before).beyond == ()
    elsewhere = drift(rides(5_000, "2012-03-01", 31, 1, east=0.02), before)
    assert elsewhere.features[0].name == "pickup_east_km"
    assert {"pickup_east_km", "east_km"} <= set(elsewhere.beyond)
    assert "dropoff_east_km" not in elsewhere.beyond


def test_what_is_missing_or_elsewhere_is_told_by_column() -> None:
    month = rides(1_000, "2012-03-01", 31, 1)
    published = month.copy()
    published.loc[:9, "dropoff_latitude"] = np.nan
    published.loc[:19, "pickup_longitude"] = 0.0
    published.loc[:4, "passenger_count"] = 208
    found = input_drift(published, month, month, NEW_YORK)
    assert (found.missing["dropoff_latitude"], found.missing["pickup_longitude"]) == (0.01, 0.0)
    assert (found.outside["pickup_longitude"], found.outside["passenger_count"]) == (0.02, 0.005)
    assert found.by_hour.sum().tolist() == pytest.approx([1.0, 1.0])


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=50), st.permutations(range(50)))
def test_the_index_is_none_for_the_same_values_in_any_order(values: list[float], order: list[int]) -> None:
    before = np.array(values, np.float64)
    now = before[[place for place in order if place < len(values)]]
    assert psi(before, now) == 0
    assert psi(before, now + 1_000) > 0


@given(st.integers(1, 400), st.integers(1, 400))
def test_weights_give_what_was_before_the_calendar_of_the_rides(now: int, before: int) -> None:
    month, year = rides(now, "2012-03-01", 31, 1), rides(before, "2011-01-01", 365, 2)
    weights = calendar_weights(month, year)
    assert weights.sum() <= now + 1e-9
    assert (weights >= 0).all()
