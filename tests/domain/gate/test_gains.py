"""Gains by day: the interval of a mean where rides of one day go wrong together, and months put together."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from taxifare.gate.gains import Gains, days_of, gains_of
from taxifare.gate.scores import Interval, mean_interval, paired_gains
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK
from tests.support.comparison import RIDES


def by_hand(gains: npt.NDArray[np.float64], days: npt.NDArray[np.int_]) -> tuple[float, float]:
    """The mean and its standard error as the books have them: residuals added up by day, then squared."""
    mean = gains.mean()
    sums = np.array([(gains[days == day] - mean).sum() for day in np.unique(days)])
    clusters = len(sums)
    return float(mean), math.sqrt(clusters / (clusters - 1) * np.square(sums).sum()) / len(gains)


def test_three_days_worked_by_hand() -> None:
    """Means of 1, 2 and 6 cents on days of equal length: 3, with a standard error of √(7/3), times t = 4.303."""
    interval = gains_of(np.array([1.0, 1.0, 2.0, 2.0, 6.0, 6.0]), np.array([1, 1, 2, 2, 3, 3])).interval
    assert interval.mean == 3.0
    assert interval.high - interval.mean == pytest.approx(4.30265 * math.sqrt(7 / 3), abs=1e-4)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


@given(st.integers(0, 10_000))
def test_sums_by_day_say_the_same_as_the_rides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 7, 80)
    gains = rng.normal(0.02, 1.0, 80) + days * 0.1
    mean, error = by_hand(gains, days)
    interval = gains_of(gains, days).interval
    assert interval.mean == pytest.approx(mean)
    quantile = stats.t.ppf(0.975, len(np.unique(days)) - 1)
    assert interval.high - interval.mean == pytest.approx(quantile * error, rel=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 29))
def test_months_put_together_are_one_long_month(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    days, gains = np.sort(rng.integers(0, 30, 300)), rng.normal(0.0, 1.0, 300)
    before = days < cut
    if before.all() or not before.any():
        return
    both = gains_of(gains[before], days[before]) + gains_of(gains[~before], days[~before])
    assert both.model_dump() == pytest.approx(gains_of(gains, days).model_dump())


def test_no_rides_and_one_day_say_nothing_of_chance() -> None:
    assert Gains().interval.model_dump() == {"mean": 0.0, "low": -math.inf, "high": math.inf}
    one = gains_of(np.array([1.0, 2.0]), np.array([5, 5])).interval
    assert (one.mean, one.low, one.high) == (1.5, -math.inf, math.inf)


def test_the_same_gain_on_every_ride_has_no_spread() -> None:
    interval = gains_of(np.full(600, 0.1), np.arange(600) // 100).interval
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)


def test_a_day_is_the_day_of_the_pickup() -> None:
    assert len(np.unique(days_of(RIDES))) == RIDES["pickup_datetime"].dt.date.nunique()


@pytest.fixture(scope="module")
def real_gains(real_trips: Path) -> pd.DataFrame:
    """Gains of a meter fitted to last month over one fitted to the years before, on the rides of four real months."""

    def month(number: int) -> pd.DataFrame:
        trips = clean(
            as_trip_table(pd.read_parquet(real_trips / f"taxi_2015_{number:02d}.parquet"), "x"), NEW_YORK, FARE
        )
        return trips.trips.assign(km=compute_features(trips.trips, NEW_YORK)["haversine_km"].to_numpy())

    def fitted(trips: pd.DataFrame) -> npt.NDArray[np.float64]:
        return np.polyfit(trips["km"], trips["fare_amount"], 1)

    months = [month(number) for number in range(1, 6)]
    old = fitted(months[0]) * np.array([0.97, 0.95])
    gains = []
    for before, trips in pairwise(months):
        paid = trips["fare_amount"].to_numpy()
        gains.append(paired_gains(np.polyval(old, trips["km"]), np.polyval(fitted(before), trips["km"]), paid))
    days = np.concatenate([days_of(trips) for trips in months[1:]])
    return pd.DataFrame({"gain": np.concatenate(gains), "day": days})


@pytest.mark.real_trips
@pytest.mark.parametrize("number", [6, 30])
def test_on_real_rides_with_days_drawn_anew_intervals_by_day_cover_and_those_by_ride_do_not(
    real_gains: pd.DataFrame, number: int
) -> None:
    """Weeks of six days, and records of thirty, drawn from four months: how often is the mean of all of them within?"""
    rng = np.random.default_rng(1)
    by_day = [part.to_numpy() for _, part in real_gains.groupby("day")["gain"]]
    truth = real_gains["gain"].mean()

    def covers(interval: Interval) -> bool:
        return interval.low <= truth <= interval.high

    clustered, single = [], []
    for _ in range(1_000):
        drawn = [by_day[day] for day in rng.integers(0, len(by_day), number)]
        gains, days = np.concatenate(drawn), np.repeat(np.arange(number), [len(day) for day in drawn])
        clustered.append(covers(gains_of(gains, days).interval))
        single.append(covers(mean_interval(gains)))
    assert 0.92 < np.mean(clustered) < 0.98
    assert np.mean(single) < 0.8
