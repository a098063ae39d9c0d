"""Targets: what is computed of a trip, and that nothing but the unit tells one comparison from the other."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.replay.policies import ReplayError, policies_of
from taxifare.replay.replaying import replay
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.base import SourceError, ensure_target
from taxifare.trips.columns import TRIP_COLUMNS
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.months import parse_month
from taxifare.trips.table import DTYPES
from taxifare.trips.targets import DURATION, FARE, TARGETS
from tests.support.small import clean_month, small_settings

MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2030, 1, 1)).map(pd.Timestamp)


def trips(pickups: list[pd.Timestamp], seconds: list[float | None], fares: list[float]) -> pd.DataFrame:
    starts = pd.Series(pickups, dtype=DTYPES["timestamp"])
    ends = (starts + pd.to_timedelta(pd.Series(seconds, dtype="float64"), unit="s")).astype(DTYPES["timestamp"])
    return pd.DataFrame({"pickup_datetime": starts, "dropoff_datetime": ends, "fare_amount": fares})


def test_worked_numbers() -> None:
    noon = pd.Timestamp("2015-03-08 12:00")
    rides = trips([noon] * 4, [90.0, 0.0, -60.0, None], [7.5, -2.5, 0.0, 52.0])
    assert FARE.of(rides).tolist() == [7.5, -2.5, 0.0, 52.0]
    assert DURATION.of(rides).tolist()[:3] == [1.5, 0.0, -1.0]
    assert np.isnan(DURATION.of(rides)[3])


@given(st.lists(st.tuples(MOMENTS, st.integers(-86_400, 86_400)), min_size=1), st.integers(0, 10**6))
def test_a_duration_is_the_way_from_pickup_to_drop_off_whenever_it_was(
    rides: list[tuple[pd.Timestamp, int]], later_s: int
) -> None:
    pickups, seconds = [moment for moment, _ in rides], [float(span) for _, span in rides]
    table = trips(pickups, seconds, [1.0] * len(rides))
    minutes = DURATION.of(table)
    assert minutes.to_numpy() * 60 == pytest.approx(seconds)
    shifted = table.assign(**{name: table[name] + pd.Timedelta(seconds=later_s) for name in table.columns[:2]})
    np.testing.assert_array_equal(DURATION.of(shifted), minutes)


def test_a_target_is_a_column_that_no_prediction_may_use() -> None:
    columns = {column.name: column for column in TRIP_COLUMNS}
    assert all(not columns[target.column].known_at_pickup for target in TARGETS.values())
    assert {target.name: target for target in TARGETS.values()} == TARGETS
    assert len({target.unit for target in TARGETS.values()} | {target.model_name for target in TARGETS.values()}) == 4


def test_features_are_the_same_for_both_targets(settings: Settings) -> None:
    """Knowing how long rides took, or what they cost, changes nothing of what the network is told."""
    trips = clean_month(settings.model_copy(update={"target": "duration"}), "2015-01")
    of_durations, names = trips.frame, list(feature_names(settings.city_facts))
    spoiled = of_durations.assign(dropoff_datetime=of_durations["pickup_datetime"], fare_amount=0.0, target=0.0)
    pd.testing.assert_frame_equal(compute_features(spoiled, settings.city_facts), of_durations[names])
    assert of_durations["target"].between(0, 180, inclusive="neither").all()
    assert trips.target == "duration"


def test_trips_of_which_none_tells_the_target_are_named() -> None:
    ensure_target(DURATION, known=1, trips=12_459, origin="jan.csv: month 2015-01")
    told = (
        "jan.csv: month 2015-01: column dropoff_datetime: expected values, which TARGET=duration needs, received none"
    )
    with pytest.raises(SourceError, match=f"{told} in 12,459 trips"):
        ensure_target(DURATION, known=0, trips=12_459, origin="jan.csv: month 2015-01")


def test_the_courses_threshold_is_about_fares(settings: Settings) -> None:
    own = small_settings(settings.home, target="duration")
    january = parse_month("2015-01")
    with pytest.raises(ReplayError, match=r"TARGET=duration in min allows, .* threshold: .* fares below 2\.5 USD"):
        replay(make_source(own), own, first=january, last=january, policies=policies_of(["gate", "threshold"]))
