"""Luck: how often a candidate that is no better, or worse, is ever promoted in a year of monthly looks."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from taxifare.gate.evidence import Verdict
from taxifare.gate.gains import Gains, days_of, gains_of
from taxifare.gate.scores import paired_gains
from taxifare.gate.verdict import weighed
from taxifare.settings import GateSettings
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK

LOOKS = 12

DAYS_BEFORE, LAST_DAYS = 25, 6

SETTINGS = GateSettings()

pytestmark = pytest.mark.real_trips


@pytest.fixture(scope="module")
def by_day(real_trips: Path) -> list[npt.NDArray[np.float64]]:
    """Gains of one meter over another on real rides, day by day, moved so that on the whole none is better."""
    found = []
    for number in range(1, 6):
        published = as_trip_table(pd.read_parquet(real_trips / f"taxi_2015_{number:02d}.parquet"), "x")
        trips = clean(published, NEW_YORK, FARE).trips
        km, paid = compute_features(trips, NEW_YORK)["haversine_km"].to_numpy(), trips["fare_amount"].to_numpy()
        # Two that resemble each other as the models of two months do: a few dozen cents apart.
        gains = paired_gains(3.4 + 2.62 * km, 3.0 + 2.75 * km, paid)
        found += [part.to_numpy() for _, part in pd.Series(gains).groupby(days_of(trips))]
    mean = np.concatenate(found).mean()
    return [gains - mean for gains in found]


def year(by_day: list[npt.NDArray[np.float64]], true_gain: float, rng: np.random.Generator) -> Iterator[Verdict]:
    """The verdicts of twelve months against the same production, of days drawn anew."""
    record = Gains()
    for look in range(LOOKS):
        days = [by_day[day] + true_gain for day in rng.integers(0, len(by_day), DAYS_BEFORE + LAST_DAYS)]
        numbers = np.repeat(np.arange(len(days)), [len(day) for day in days]) + 100 * look
        gains, is_last = np.concatenate(days), numbers % 100 >= DAYS_BEFORE
        week = gains_of(gains[is_last], numbers[is_last])
        record = record + gains_of(gains[~is_last], numbers[~is_last]) + week
        verdict, _ = weighed(week.interval, record, (), SETTINGS)
        yield verdict
        if verdict is Verdict.REJECT:
            record = Gains()


def share_ever_promoted(by_day: list[npt.NDArray[np.float64]], true_gain: float, years: int = 100) -> float:
    rng = np.random.default_rng(7)
    return float(np.mean([Verdict.PROMOTE in year(by_day, true_gain, rng) for _ in range(years)]))


def test_of_candidates_that_are_no_better_at_most_one_in_twenty_is_ever_promoted(
    by_day: list[npt.NDArray[np.float64]],
) -> None:
    assert share_ever_promoted(by_day, 0.0, years=400) <= 0.05


def test_a_candidate_that_loses_three_cents_never_is(by_day: list[npt.NDArray[np.float64]]) -> None:
    assert share_ever_promoted(by_day, -0.03) == 0.0


def test_one_that_saves_three_cents_nearly_always_is(by_day: list[npt.NDArray[np.float64]]) -> None:
    assert share_ever_promoted(by_day, 0.03) > 0.95
