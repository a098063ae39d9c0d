"""Features: worked by hand, stateless, finite, and true to the city's wall clock."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxifare.trips.columns import KNOWN_AT_PICKUP
from taxifare.trips.features import (
    KM_PER_DEGREE,
    InputError,
    RideFeatures,
    compute_features,
    feature_names,
    grid_distance_km,
    haversine_km,
)
from taxifare.trips.table import as_trip_table
from tests.support.cities import NEW_YORK
from tests.support.places import REAL_TRIPS

TIMES_SQUARE = (-73.9855, 40.7580)
JFK = (-73.7781, 40.6413)


def trip(
    pickup: tuple[float, float] = TIMES_SQUARE,
    dropoff: tuple[float, float] = JFK,
    at: str = "2014-07-02 17:26:21",
    passengers: int | None = 2,
) -> pd.DataFrame:
    row = {
        "pickup_datetime": at,
        "pickup_longitude": pickup[0],
        "pickup_latitude": pickup[1],
        "dropoff_longitude": dropoff[0],
        "dropoff_latitude": dropoff[1],
        "passenger_count": passengers,
        "fare_amount": 52.0,
    }
    return as_trip_table(pd.DataFrame([row]), "test")


def features_of(**changes) -> pd.Series:
    return compute_features(trip(**changes), NEW_YORK).iloc[0]


def test_the_columns_are_those_announced_in_float32_in_one_block():
    features = compute_features(trip(), NEW_YORK)
    assert tuple(features.columns) == feature_names(NEW_YORK)
    assert len(set(features.columns)) == len(features.columns)
    assert (features.dtypes == np.float32).all()
    assert np.shares_memory(features.to_numpy(), features.to_numpy())


def test_a_degree_of_latitude_is_111_195_km():
    assert pytest.approx(111.195, abs=0.001) == KM_PER_DEGREE
    assert haversine_km(0, 40, 0, 41) == pytest.approx(KM_PER_DEGREE)
    assert haversine_km(0, 0, 180, 0) == pytest.approx(180 * KM_PER_DEGREE)


def test_times_square_to_jfk():
    # cos(40.7°) = 0.7581, so that 0.2074° of longitude are 17.48 km and -0.1167° of latitude are -12.98 km.
    features = features_of()
    assert features["east_km"] == pytest.approx(17.48, abs=0.01)
    assert features["north_km"] == pytest.approx(-12.98, abs=0.01)
    assert features["haversine_km"] == pytest.approx(np.hypot(17.48, 12.98), abs=0.03)
    assert features["bearing_sin"] == pytest.approx(17.48 / 21.77, abs=0.001)
    assert features["bearing_cos"] == pytest.approx(-12.98 / 21.77, abs=0.001)
    assert features["dropoff_jfk_km"] == pytest.approx(0, abs=0.001)
    assert features["pickup_jfk_km"] == pytest.approx(21.77, abs=0.01)


def test_the_grid_distance_follows_the_avenues():
    sine, cosine = np.sin(np.radians(29)), np.cos(np.radians(29))
    along, across = np.float32([sine * 3]), np.float32([cosine * 3])
    assert grid_distance_km(along, across, 29.0)[0] == pytest.approx(3)  # up an avenue: no detour
    assert grid_distance_km(-across, along, 29.0)[0] == pytest.approx(3)  # down a street: no detour
    # Halfway between avenue and street the way is √2 as long as the line.
    diagonal = np.float32([np.sin(np.radians(29 + 45))]), np.float32([np.cos(np.radians(29 + 45))])
    assert grid_distance_km(*diagonal, 29.0)[0] == pytest.approx(np.sqrt(2))


def test_positions_count_from_the_middle_of_the_box():
    features = features_of(pickup=(-74.0, 40.7), dropoff=(-74.0, 40.8))
    assert features["pickup_east_km"] == features["pickup_north_km"] == 0
    assert features["dropoff_north_km"] == pytest.approx(0.1 * KM_PER_DEGREE, rel=1e-5)
    assert features["bearing_sin"] == 0
    assert features["bearing_cos"] == 1


def test_a_trip_that_ends_where_it_started_is_defined():
    features = features_of(dropoff=TIMES_SQUARE)
    zero = ["haversine_km", "grid_km", "east_km", "north_km", "bearing_sin"]
    assert (features[zero] == 0).all()
    assert features["bearing_cos"] == 1


def test_the_clock_is_the_citys():
    features = features_of(at="2014-07-02 18:00:59 UTC")  # a Wednesday; files write UTC and mean New York
    assert features["hour"] == 18
    assert features["weekday"] == 2
    assert features["hour_sin_1"] == pytest.approx(-1)
    assert features["hour_cos_1"] == pytest.approx(0, abs=1e-6)
    assert features["hour_sin_2"] == pytest.approx(0, abs=1e-6)
    assert features["hour_cos_2"] == pytest.approx(-1)
    assert features["week_sin"] == pytest.approx(np.sin(2 * np.pi * (2 + 18 / 24) / 7))


@pytest.mark.parametrize(
    ("at", "night", "rush"),
    [
        ("2014-07-02 15:59:59", 0, 0),
        ("2014-07-02 16:00:00", 0, 1),
        ("2014-07-02 19:59:59", 0, 1),
        ("2014-07-02 20:00:00", 1, 0),
        ("2014-07-03 05:59:59", 1, 0),
        ("2014-07-03 06:00:00", 0, 0),
        ("2014-07-05 17:00:00", 0, 0),  # a Saturday has no rush
    ],
)
def test_night_and_rush(at, night, rush):
    features = features_of(at=at)
    assert (features["is_night"], features["is_rush"]) == (night, rush)


@pytest.mark.parametrize(
    ("at", "in_force"),
    [
        ("2010-12-30 23:59:59", []),
        ("2010-12-31 00:00:00", ["tolls_2010_12"]),
        ("2012-09-03 23:59:59", ["tolls_2010_12"]),
        ("2012-09-04 00:00:00", ["tolls_2010_12", "fares_2012_09"]),
        ("2015-03-22 00:00:00", [rule.name for rule in NEW_YORK.rules]),
    ],
)
def test_a_dated_rule_is_in_force_from_midnight_of_its_day(at, in_force):
    features = features_of(at=at)
    assert [rule.name for rule in NEW_YORK.rules if features[rule.name]] == in_force


def test_season_and_trend():
    new_year = features_of(at="2012-01-01 00:00:00")
    assert (new_year["year_sin"], new_year["year_cos"]) == (0, 1)
    assert new_year["trend_years"] == pytest.approx(12, abs=0.002)
    assert features_of(at="2012-07-01 12:00:00")["year_cos"] == pytest.approx(-1, abs=0.001)


def test_a_null_passenger_count_is_taken_for_one():
    assert features_of(passengers=None)["passengers"] == 1
    assert features_of(passengers=4)["passengers"] == 4


def test_what_is_known_only_after_the_pickup_is_not_read():
    only_known = trip()[list(KNOWN_AT_PICKUP)]
    pd.testing.assert_frame_equal(compute_features(only_known, NEW_YORK), compute_features(trip(), NEW_YORK))


def test_no_trips_give_no_features():
    features = compute_features(trip().iloc[:0], NEW_YORK)
    assert features.shape == (0, len(feature_names(NEW_YORK)))


@pytest.mark.parametrize("column", ["pickup_longitude", "dropoff_latitude", "pickup_datetime"])
def test_a_null_is_an_error_that_names_its_column(column):
    trips = trip()
    trips[column] = None
    trips[column] = trips[column].astype("datetime64[us]" if column == "pickup_datetime" else "float64")
    with pytest.raises(InputError, match=f"column {column}: 1 of 1 values are null"):
        compute_features(trips, NEW_YORK)


places = st.tuples(st.floats(-74.3, -73.7), st.floats(40.5, 40.9))
moments = st.datetimes(pd.Timestamp("2009-01-01"), pd.Timestamp("2026-12-31")).map(str)
any_trips = st.lists(
    st.builds(trip, places, places, moments, st.one_of(st.none(), st.integers(1, 7))), min_size=1, max_size=8
)


@settings(max_examples=50)
@given(any_trips)
def test_features_are_finite_and_do_not_depend_on_other_trips(single_trips):
    together = compute_features(pd.concat(single_trips), NEW_YORK)
    assert np.isfinite(together.to_numpy()).all()
    alone = pd.concat([compute_features(one, NEW_YORK) for one in single_trips])
    pd.testing.assert_frame_equal(together, alone)


@settings(max_examples=50)
@given(places, places)
def test_the_way_back_has_the_same_length_and_the_opposite_direction(here, there):
    out, back = features_of(pickup=here, dropoff=there), features_of(pickup=there, dropoff=here)
    assert out["grid_km"] == back["grid_km"]
    assert out["east_km"] == -back["east_km"]
    assert out["haversine_km"] == pytest.approx(back["haversine_km"], rel=1e-4, abs=1e-4)
    line_km = np.hypot(out["east_km"], out["north_km"])
    assert out["haversine_km"] == pytest.approx(line_km, rel=0.0031, abs=0.001)  # the projection's promise
    assert line_km * 0.999 - 1e-4 <= out["grid_km"] <= line_km * 1.4143 + 1e-4


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.exists(), reason=f"no real trips at {REAL_TRIPS}")
def test_real_pickups_are_rarest_between_four_and_five_on_the_citys_clock():
    january = as_trip_table(pd.read_parquet(REAL_TRIPS / "taxi_2015_01.parquet"), "January")
    hours = compute_features(january, NEW_YORK)["hour"].astype(int)
    assert hours.value_counts().idxmin() in (4, 5)


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.exists(), reason=f"no real trips at {REAL_TRIPS}")
def test_a_real_ride_has_the_same_features_alone_to_the_bit_whatever_was_asked_before():
    january = as_trip_table(pd.read_parquet(REAL_TRIPS / "taxi_2015_01.parquet"), "January")
    trips = january[january["pickup_longitude"].notna()].sample(2_000, random_state=1)
    together = compute_features(trips, NEW_YORK).to_numpy()
    features = RideFeatures(NEW_YORK)
    columns = [trips[name].to_numpy() for name in KNOWN_AT_PICKUP]
    moments, west, south, east, north, passengers = (column[:, None] for column in columns)
    for row, expected in enumerate(together):
        alone = features.of(
            moments[row].astype("datetime64[s]"), (west[row], south[row]), (east[row], north[row]), passengers[row]
        )
        assert alone.tobytes() == expected.tobytes()
