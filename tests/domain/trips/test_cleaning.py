"""Cleaning: every rule alone, the order of the rules, and the real base years."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.table import TripTableError, as_trip_table
from taxifare.trips.targets import DURATION, FARE
from tests.support.cities import NEW_YORK
from tests.support.places import REAL_TRIPS

RULES = ["missing_value", "duplicate", "zero_coordinate", "outside_city", "passenger_count", "fare"]


def trips(**changes: list[object]) -> pd.DataFrame:
    """Three good trips, minutes apart, with some columns replaced."""
    columns: dict[str, list[object]] = {
        "pickup_datetime": ["2015-01-01 10:00:00", "2015-01-01 10:01:00", "2015-01-01 10:02:00"],
        "pickup_longitude": [-73.98, -73.97, -73.96],
        "pickup_latitude": [40.75, 40.76, 40.77],
        "dropoff_longitude": [-73.95, -73.96, -73.99],
        "dropoff_latitude": [40.77, 40.78, 40.70],
        "passenger_count": [1, 2, 3],
        "fare_amount": [7.5, 9.0, 12.0],
    }
    return as_trip_table(pd.DataFrame(columns | changes), "test")


DURATION_RULES = [*RULES[:-1], "duration"]


def dropped(**counts: int) -> dict[str, int]:
    return dict.fromkeys(RULES, 0) | counts


def test_good_trips_are_kept_as_they_are():
    cleaned = clean(trips(), NEW_YORK, FARE)
    pd.testing.assert_frame_equal(cleaned.trips, trips())
    assert cleaned.dropped == dropped()
    assert list(cleaned.dropped) == RULES


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("pickup_longitude", None, "missing_value"),
        ("dropoff_latitude", None, "missing_value"),
        ("fare_amount", None, "missing_value"),
        ("pickup_longitude", 0.0, "zero_coordinate"),
        ("dropoff_latitude", -0.0, "zero_coordinate"),
        ("pickup_latitude", 40.4999, "outside_city"),
        ("pickup_latitude", -73.98, "outside_city"),
        ("dropoff_longitude", -73.6999, "outside_city"),
        ("dropoff_longitude", np.inf, "outside_city"),
        ("passenger_count", 0, "passenger_count"),
        ("passenger_count", 8, "passenger_count"),
        ("passenger_count", 208, "passenger_count"),
        ("fare_amount", 0.0, "fare"),
        ("fare_amount", -2.5, "fare"),
        ("fare_amount", 400.0, "fare"),
        ("fare_amount", 6770.0, "fare"),
    ],
)
def test_one_defect_drops_one_trip_under_its_rule(column, value, rule):
    values = trips()[column].tolist()
    cleaned = clean(trips(**{column: [values[0], value, values[2]]}), NEW_YORK, FARE)
    assert cleaned.dropped == dropped(**{rule: 1})
    pd.testing.assert_frame_equal(cleaned.trips, trips().iloc[[0, 2]].reset_index(drop=True))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pickup_longitude", -74.3),
        ("pickup_latitude", 40.9),
        ("passenger_count", None),
        ("passenger_count", 1),
        ("passenger_count", 7),
        ("fare_amount", 0.01),
        ("fare_amount", 399.99),
    ],
)
def test_the_edges_of_the_rules_are_kept(column, value):
    values = trips()[column].tolist()
    cleaned = clean(trips(**{column: [values[0], value, values[2]]}), NEW_YORK, FARE)
    assert cleaned.dropped == dropped()
    assert cleaned.trips[column].isna().sum() == (value is None)


@pytest.mark.parametrize(
    ("drop_off", "rule"),
    [
        (None, "missing_value"),
        ("2015-01-01 10:01:00", "duration"),  # when it began
        ("2015-01-01 09:59:00", "duration"),
        ("2015-01-01 13:01:00", "duration"),  # three hours
        ("2015-01-02 09:58:00", "duration"),  # a meter that ran all day
        ("2015-01-01 10:01:01", None),
        ("2015-01-01 13:00:59", None),
    ],
)
def test_a_duration_is_known_and_between_nothing_and_three_hours(drop_off: str | None, rule: str | None) -> None:
    times = ["2015-01-01 10:10:00", drop_off, "2015-01-01 10:20:00"]
    cleaned = clean(trips(dropoff_datetime=times), NEW_YORK, DURATION)
    assert cleaned.dropped == dict.fromkeys(DURATION_RULES, 0) | ({} if rule is None else {rule: 1})
    assert list(cleaned.dropped) == DURATION_RULES


@pytest.mark.parametrize("fare", [None, -9.0, 6770.0])
def test_what_a_ride_cost_is_no_reason_to_doubt_how_long_it_took(fare: float | None) -> None:
    rides = trips(fare_amount=[7.5, fare, 12.0], dropoff_datetime=["2015-01-01 10:10:00"] * 3)
    assert len(clean(rides, NEW_YORK, DURATION).trips) == 3
    assert len(clean(rides.assign(dropoff_datetime=pd.NaT), NEW_YORK, FARE).trips) == 2


def test_a_trip_that_breaks_several_rules_is_counted_once_under_the_first():
    broken = trips(pickup_longitude=[None, 0.0, 12.0], passenger_count=[0, 0, 0], fare_amount=[-1.0, -1.0, -1.0])
    assert clean(broken, NEW_YORK, FARE).dropped == dropped(missing_value=1, zero_coordinate=1, outside_city=1)


def test_of_equal_trips_the_first_stays_whatever_their_keys():
    twice = pd.concat([trips().assign(key=list("abc")), trips().assign(key=list("def"))], ignore_index=True)
    twice = as_trip_table(twice, "test")
    cleaned = clean(twice, NEW_YORK, FARE)
    assert cleaned.dropped == dropped(duplicate=3)
    assert cleaned.trips["key"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("column", [name for name in COLUMN_NAMES if name not in ("key", "dropoff_datetime")])
def test_trips_that_differ_in_one_column_are_no_duplicates(column):
    other = trips()
    one_more = pd.Timedelta(microseconds=1) if column == "pickup_datetime" else 1e-9
    other[column] = other[column] + (1 if column == "passenger_count" else one_more)
    assert clean(pd.concat([trips(), other], ignore_index=True), NEW_YORK, FARE).dropped["duplicate"] == 0


def test_trips_with_null_passengers_are_duplicates_only_of_each_other():
    unknown = trips(passenger_count=[None, 2, 3])
    assert clean(pd.concat([unknown, unknown], ignore_index=True), NEW_YORK, FARE).dropped["duplicate"] == 3
    assert clean(pd.concat([unknown, trips()], ignore_index=True), NEW_YORK, FARE).dropped["duplicate"] == 2


def test_further_columns_are_carried_along():
    marked = trips(fare_amount=[7.5, -9.0, 12.0]).assign(is_validation=[False, False, True])
    assert clean(marked, NEW_YORK, FARE).trips["is_validation"].tolist() == [False, True]


def test_no_trips_is_no_error():
    cleaned = clean(trips().iloc[:0], NEW_YORK, FARE)
    assert len(cleaned.trips) == 0
    assert cleaned.dropped == dropped()


def test_a_missing_column_is_named():
    with pytest.raises(TripTableError, match="missing columns fare_amount; expected a trip table"):
        clean(trips().drop(columns="fare_amount"), NEW_YORK, FARE)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-73.98, 0.0, -0.0, 12.0, None]),
            st.sampled_from([1, 0, 208, None]),
            st.sampled_from([7.5, 0.0, -3.0, 6770.0, None]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_trip_is_kept_or_counted_once_and_cleaning_twice_changes_nothing(rows):
    longitude, passengers, fare = (list(values) for values in zip(*rows, strict=True))
    n = len(rows)
    table = trips(
        pickup_datetime=["2015-01-01 10:00:00"] * n,
        pickup_longitude=longitude,
        pickup_latitude=[40.75] * n,
        dropoff_longitude=[-73.95] * n,
        dropoff_latitude=[40.77] * n,
        passenger_count=passengers,
        fare_amount=fare,
    )
    cleaned = clean(table, NEW_YORK, FARE)
    assert len(cleaned.trips) + sum(cleaned.dropped.values()) == n
    assert len(cleaned.trips) <= 2  # one good place, one good fare: with one passenger or an unknown number
    again = clean(cleaned.trips, NEW_YORK, FARE)
    pd.testing.assert_frame_equal(again.trips, cleaned.trips)
    assert again.dropped == dropped()


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.exists(), reason=f"no real trips at {REAL_TRIPS}")
def test_the_rules_keep_97_3_percent_of_the_real_base_years():
    trips = as_trip_table(pd.read_parquet(REAL_TRIPS / "taxi_base_2009_2014.parquet"), "base")
    cleaned = clean(trips, NEW_YORK, FARE)
    assert len(cleaned.trips) / len(trips) == pytest.approx(0.973, abs=0.001)
    complete = trips.dropna(subset=["dropoff_longitude", "dropoff_latitude"]).drop(columns="key")
    assert cleaned.dropped["duplicate"] == complete.duplicated().sum() > 0
