"""The watch adds up what days lack, forgets one bad day, and on real rides sees a fare rise and nothing else."""

from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.monitoring.outcomes import days_of, expected
from taxifare.monitoring.watch import (
    ALLOWANCE,
    CLIP,
    FEWEST_DAYS,
    FEWEST_RIDES,
    THRESHOLD,
    evidence_of,
    lacks,
    scores,
    watch,
)
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.trips.cleaning import clean
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess, split_month, with_target_and_features
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK

SKILLS = st.lists(st.floats(-1, 1, width=32), min_size=0, max_size=40)


def days(skills: npt.ArrayLike, rides: int = 400, first: str = "2012-01-01") -> pd.DataFrame:
    """A daily table of these skills, on rides that are equally hard every day."""
    skill = np.asarray(skills, np.float64)
    index = pd.date_range(first, periods=len(skill), name="day")
    return pd.DataFrame(
        {"rides": rides, "mae": 2 * (1 - skill), "difficulty": 2.0, "skill": skill, "bias": 0.0}, index=index
    )


def usual(n: int = 60, seed: int = 1) -> npt.NDArray[np.float64]:
    """Days whose skill is around a third, four points apart."""
    return 0.33 + 0.04 * np.random.default_rng(seed).standard_normal(n)


def test_worked_numbers() -> None:
    """Fourteen days around 0.30 whose median absolute deviation is 0.02, then one of 0.22: (0.30 - 0.22) / 0.029652."""
    reference = [0.28, 0.32] * 7
    (lack,) = lacks(np.array([*reference, 0.22]), np.full(15, 400.0))[FEWEST_DAYS:]
    assert lack == pytest.approx(0.08 / (1.4826 * 0.02))
    with_few_rides = np.array([400.0] * 14 + [100.0])
    assert lacks(np.array([*reference, 0.22]), with_few_rides)[-1] == pytest.approx(lack / 2), "half as sure"
    assert scores(np.array([3.0, 3.5, 1.0, 6.0, 6.0, 6.0])).tolist() == [1.0, 2.5, 1.5, 5.5, 9.5, 13.5]


def test_a_rise_raises_the_alarm_in_three_days_and_one_bad_day_none() -> None:
    quiet = watch(days(usual()))
    assert (quiet.alarm, quiet.rise.empty) == (None, True)
    assert watch(days([*usual(), -0.5, *usual(20, seed=2)])).alarm is None, "a day of snow"
    risen = watch(days([*usual(), *(usual(6, seed=3) - 0.3)]))
    assert risen.alarm == date(2012, 3, 3), "the third day"
    assert len(risen.rise) == 3
    assert risen.usual_skill == pytest.approx(0.33, abs=0.02)
    evidence = evidence_of(risen, "USD", "2012-03", ["fares_2012_09"])
    assert evidence.recent_skill == pytest.approx(risen.rise["skill"].mean(), abs=0.001)
    assert evidence.usual_mae == pytest.approx(2 * (1 - risen.usual_skill), abs=0.001)
    assert evidence.mae > evidence.usual_mae + 0.4
    assert evidence.days[-1].score >= THRESHOLD


def test_a_hard_month_is_no_alarm() -> None:
    """Rides that are half as hard again for anybody raise the error by as much, and the skill stays."""
    hard = days(usual(90))
    hard.loc[hard.index[60] :, ["mae", "difficulty"]] *= 1.5
    assert watch(hard).alarm is None


def test_days_that_say_nothing_are_left_out() -> None:
    found = days([*usual(), -1.0, -1.0, -1.0])
    found.loc[found.index[-3:], "rides"] = FEWEST_RIDES - 1
    assert watch(found).alarm is None
    assert watch(days([])).alarm is None
    assert "0 days are known" in watch(days([])).says


@given(SKILLS)
def test_a_score_is_never_below_zero_and_rises_by_no_more_than_a_day_can_count(skills: list[float]) -> None:
    lack = lacks(np.array(skills, np.float64), np.full(len(skills), 400.0))
    score = scores(lack)
    assert (np.isnan(lack) | (np.abs(lack) <= CLIP)).all()
    assert (score >= 0).all()
    assert (np.diff(score, prepend=0) <= CLIP - ALLOWANCE + 1e-9).all()
    assert (score[:FEWEST_DAYS] == 0).all()


@given(SKILLS, SKILLS)
def test_what_comes_later_changes_nothing_of_before_so_an_alarm_stays(before: list[float], after: list[float]) -> None:
    then, now = watch(days(before)), watch(days([*before, *after]))
    np.testing.assert_allclose(now.days["score"].to_numpy()[: len(before)], then.days["score"])
    if then.alarm is not None:
        assert (now.alarm, len(now.rise)) == (then.alarm, len(then.rise))


@given(SKILLS, st.floats(0.25, 4), st.floats(-0.5, 0.5))
def test_it_is_the_same_in_any_unit_and_at_any_level_of_skill(skills: list[float], scale: float, level: float) -> None:
    rides = np.full(len(skills), 400.0)
    plain = np.round(np.array(skills, np.float64), 3)
    if len(np.unique(plain)) > 3:
        moved = lacks(plain * scale + level, rides)
        steady = np.isfinite(moved) & (np.abs(moved) < CLIP - 1e-6) & (np.abs(moved) > 0)
        np.testing.assert_allclose(moved[steady], lacks(plain, rides)[steady], atol=1e-4)


def crude(trips: pd.DataFrame, until: str) -> pd.DataFrame:
    """Outcomes after a day of a least-squares model of the trips before it: nobody renews it."""
    times = trips["pickup_datetime"]
    part = (times.dt.hour // 2 + 12 * (times.dt.dayofweek >= 5)).to_numpy(np.int64)
    hours = np.eye(24, dtype=np.float32)[part]
    grid = trips["grid_km"].to_numpy(np.float32)[:, None]
    airport = (trips[["pickup_jfk_km", "dropoff_jfk_km"]].min(axis=1) < 2.5).to_numpy(np.float32)[:, None]
    design = np.hstack([hours, grid * hours, np.sqrt(grid), airport, airport * grid])
    truth, learned = trips["target"].to_numpy(np.float64), (times < until).to_numpy()
    weights, *_ = np.linalg.lstsq(design[learned].astype(np.float64), truth[learned], rcond=None)
    outcomes = trips.assign(truth=truth, predicted=design @ weights)[~learned]
    return outcomes.assign(reference=expected(outcomes))


def test_two_quiet_years_of_the_simulated_city_raise_no_alarm_and_its_fare_rise_does(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        taxifare_home=tmp_path,
        simulator_trips_per_month=6_000,
        first_month="2013-01",
        simulator_scenario="fare-rise",
        simulator_scenario_from="2015-03",
    )
    source, first = make_source(settings), parse_month("2013-01")
    months = [split_month(source.read_month(first + n), first + n, 0.2) for n in range(27)]
    trips = pd.concat([preprocess(month, settings.city_facts, FARE).trips.frame for month in months])
    watched = watch(days_of(crude(trips, "2013-03-01")))
    assert watched.days.loc[:"2015-02-28", "score"].max() < THRESHOLD / 2
    assert watched.alarm is not None
    assert date(2015, 3, 3) <= watched.alarm <= date(2015, 3, 10)


@pytest.mark.real_trips
def test_on_real_rides_it_is_quiet_for_months_and_sees_the_fare_rise_within_five_days(real_trips: Path) -> None:
    """A least-squares model of the first quarter of 2012, which nobody renews: April to August, then 4 September."""
    first, end = (pd.Timestamp(day, tz="UTC") for day in ("2012-01-01", "2012-09-12"))
    table = pd.read_parquet(
        real_trips / "taxi_base_2009_2014.parquet",
        filters=[("pickup_datetime", ">=", first), ("pickup_datetime", "<", end)],
    )
    trips = clean(as_trip_table(table, "real"), NEW_YORK, FARE).trips
    watched = watch(days_of(crude(with_target_and_features(trips, NEW_YORK, FARE), "2012-04-01")))
    assert watched.alarm is not None
    assert date(2012, 9, 5) <= watched.alarm <= date(2012, 9, 8)
    before = watched.days.loc[: pd.Timestamp("2012-09-03"), "score"]
    assert before.max() < THRESHOLD
