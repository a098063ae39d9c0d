"""The trip table: what rows become on the way in, and which rows are refused with what words."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxifare.trips.columns import COLUMN_NAMES, KNOWN_AT_PICKUP, TRIP_COLUMNS
from taxifare.trips.table import DTYPES, TripTableError, as_trip_table
from tests.support.places import REAL_TRIPS


def rows(**columns: Any) -> pd.DataFrame:
    """Three rides as Kaggle writes them, with what the test changes."""
    kaggle = {
        "key": ["2015-01-27 13:08:24.0000002", "2015-01-27 13:08:24.0000003", "2011-10-08 11:53:44.0000002"],
        "fare_amount": [8.5, 4.0, 6.1],
        "pickup_datetime": ["2015-01-27 13:08:24 UTC", "2015-01-27 13:08:24 UTC", "2011-10-08 11:53:44 UTC"],
        "pickup_longitude": [-73.97332, -73.986862, -73.982524],
        "pickup_latitude": [40.763805, 40.719383, 40.75126],
        "dropoff_longitude": [-73.98143, -73.998886, -73.979654],
        "dropoff_latitude": [40.743835, 40.739201, 40.746139],
        "passenger_count": [1, 1, 208],
    }
    return pd.DataFrame(kaggle | columns)


def test_rides_come_out_typed_and_sorted_by_pickup() -> None:
    table = as_trip_table(rows(), "a test")
    assert list(table.columns) == list(COLUMN_NAMES)
    assert {column.name: str(table[column.name].dtype) for column in TRIP_COLUMNS} == {
        column.name: "string" if column.kind == "text" else DTYPES[column.kind] for column in TRIP_COLUMNS
    }
    assert table["fare_amount"].tolist() == [6.1, 8.5, 4.0], "oldest first, ties in the source's order"
    assert table["passenger_count"].tolist() == [208, 1, 1], "nothing is repaired: that is cleaning's business"
    assert table["dropoff_datetime"].isna().all()


def test_the_hour_on_the_clock_in_new_york_stays_the_hour() -> None:
    """Kaggle writes wall-clock time and calls it UTC; the course converted it, and 8 in the morning became 3."""
    aware = pd.to_datetime(["2015-07-01 08:00", "2015-07-01 09:00", "2015-07-01 10:00"]).tz_localize("UTC")
    for pickups in (
        aware.strftime("%Y-%m-%d %H:%M:%S UTC").tolist(),
        aware,
        aware.as_unit("us"),
        aware.tz_localize(None),
    ):
        table = as_trip_table(rows(pickup_datetime=pickups), "a test")
        assert table["pickup_datetime"].dt.hour.tolist() == [8, 9, 10]


def test_text_that_spells_numbers_is_read() -> None:
    table = as_trip_table(rows(fare_amount=["8.5", "4", "6.1"], passenger_count=["1", "2.0", None]), "a test")
    assert table["fare_amount"].tolist() == [6.1, 8.5, 4.0]
    assert table["passenger_count"].tolist() == [pd.NA, 1, 2]


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("fare_amount", [1.0, "free", "gratis"], "expected number, received 'free' (the first of 2 such values)"),
        ("passenger_count", [1, 1.5, 2], "expected integer, received 1.5 (the first of 1 such values)"),
        ("passenger_count", [1, 3e9, 2], "expected integer, received 3000000000.0"),
        ("pickup_datetime", ["2015-01-01 10:00", "soon", "2015-01-02 10:00"], "expected timestamp, received 'soon'"),
        ("pickup_datetime", ["2015-01-01 10:00", None, "2015-01-02 10:00"], "1 null values, expected none"),
        ("key", ["a", None, "c"], "1 null values, expected none"),
    ],
)
def test_a_value_of_another_type_is_named(column: str, values: list[Any], told: str) -> None:
    with pytest.raises(TripTableError) as refusal:
        as_trip_table(rows(**{column: values}), "trips.csv")
    assert str(refusal.value).startswith(f"trips.csv: column {column}: ")
    assert told in str(refusal.value)


def test_missing_unknown_and_repeated_columns_are_named_together() -> None:
    frame = rows(tip=1.0).drop(columns=["fare_amount", "passenger_count"])
    frame = pd.concat([frame, frame[["pickup_latitude"]]], axis=1)
    with pytest.raises(TripTableError) as refusal:
        as_trip_table(frame, "trips.csv")
    assert "missing columns passenger_count, fare_amount; unknown columns tip; repeated columns pickup_latitude" in str(
        refusal.value
    )


def test_a_prediction_may_use_only_what_is_known_at_pickup() -> None:
    assert not {"fare_amount", "dropoff_datetime", "key"} & set(KNOWN_AT_PICKUP)
    assert {"pickup_datetime", "dropoff_longitude", "passenger_count"} <= set(KNOWN_AT_PICKUP)


@settings(max_examples=30)
@given(st.permutations(range(20)))
def test_the_order_of_rows_with_distinct_times_does_not_matter(order: list[int]) -> None:
    frame = pd.concat([rows().iloc[[0]]] * 20, ignore_index=True)
    frame["pickup_datetime"] = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.arange(20), unit="min")
    frame["fare_amount"] = np.arange(20.0)
    pd.testing.assert_frame_equal(as_trip_table(frame.iloc[order], "shuffled"), as_trip_table(frame, "sorted"))


def test_a_trip_table_becomes_the_same_trip_table() -> None:
    once = as_trip_table(rows(), "a test")
    pd.testing.assert_frame_equal(as_trip_table(once, "again"), once)


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.is_dir(), reason=f"needs the real trips in {REAL_TRIPS}")
def test_a_real_month_is_the_same_from_text_and_from_parquet() -> None:
    text = as_trip_table(pd.read_csv(REAL_TRIPS / "taxi_2015_01.csv.gz"), "csv")
    typed = as_trip_table(pd.read_parquet(REAL_TRIPS / "taxi_2015_01.parquet"), "parquet")
    pd.testing.assert_frame_equal(text, typed)
    assert text["pickup_datetime"].dt.hour.value_counts().idxmin() in {4, 5}, "New York sleeps at four, not at nine"
