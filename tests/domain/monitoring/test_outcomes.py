"""Outcomes: how far off predictions were, day by day, against what a flat per-km rate expects."""

import numpy as np
import pandas as pd
import pytest

from taxifare.gate.scores import reference_mae
from taxifare.monitoring.outcomes import DAY_RIDES, days_of, expected, given
from taxifare.trips.features import haversine_km
from tests.support.outcomes import priced_rides


def test_days_tell_how_far_off_predictions_were_and_what_a_rate_per_km_would_have_been() -> None:
    told = priced_rides(400)
    days = days_of(told)
    assert days.index.tolist() == [pd.Timestamp("2015-03-02"), pd.Timestamp("2015-03-03")]
    assert list(days.columns) == ["rides", "mae", "difficulty", "skill", "bias"]
    assert days["rides"].tolist() == [200, 200]
    error = (told["predicted"] - told["truth"])[told["pickup_datetime"].dt.day == 2]
    assert days["mae"].iloc[0] == pytest.approx(error.abs().mean())
    assert days["bias"].iloc[0] == pytest.approx(error.mean())
    assert days["difficulty"].iloc[0] == pytest.approx(np.sqrt(2 / np.pi), rel=0.15)
    assert days["skill"].iloc[0] == pytest.approx(1 - days["mae"].iloc[0] / days["difficulty"].iloc[0])


def test_a_ride_without_a_truth_is_in_no_day_and_shadow_is_left_to_whoever_asks() -> None:
    told = priced_rides(300)
    told.loc[0, "truth"] = np.nan
    assert days_of(told)["rides"].sum() == 299
    told.loc[1:100, "served_as"] = "shadow"
    assert days_of(given(told))["rides"].sum() == 199
    assert days_of(told.iloc[:0]).empty


def test_the_difficulty_of_days_is_that_of_the_month_on_the_same_rides() -> None:
    told = priced_rides(6000, days=20)
    frame = told.assign(
        target=told["truth"],
        haversine_km=haversine_km(
            *(told[f"{end}_{axis}"] for end in ("pickup", "dropoff") for axis in ("longitude", "latitude"))
        ),
    )
    difficulty = (told["reference"] - told["truth"]).abs().mean()
    assert difficulty == pytest.approx(reference_mae(frame, frame), rel=0.01)


def test_a_rate_follows_its_day_and_small_days_share_one() -> None:
    told = priced_rides(2 * DAY_RIDES)
    dearer = told.assign(truth=told["truth"].where(told["pickup_datetime"].dt.day == 2, 1.5 * told["truth"]))
    by_day = (expected(dearer) - dearer["truth"]).abs().mean()
    small = dearer.iloc[: 2 * DAY_RIDES - 2]
    together = (expected(small) - small["truth"]).abs().mean()
    assert by_day < 1.5 < together


@pytest.mark.parametrize("rides", [0, 1, 2])
def test_too_few_rides_expect_nothing(rides: int) -> None:
    assert priced_rides(3).iloc[:rides].pipe(expected).isna().all()
    assert days_of(priced_rides(rides).assign(reference=np.nan))["skill"].isna().all()
