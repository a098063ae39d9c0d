"""A ride explained: what was paid and predicted, where it belongs, and the rides that are most like it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.operations.explaining import explain
from taxifare.reports.tables import worst_rides
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.stored import STORED, marks_of
from taxifare.trips.targets import FARE
from taxifare_dagster.lake import month_with
from tests.support.small import small_settings


def test_a_ride_is_told_with_its_kinds_rules_and_neighbours(january_trips: Trips, tmp_path: Path) -> None:
    trips = january_trips.frame
    place = int(np.argmin(trips["dropoff_jfk_km"]))
    ride = trips.iloc[place]
    told = explain(ride["key"], "2015-01", trips, [], small_settings(tmp_path))
    assert told.actual == ride["target"]
    assert told.pickup == ride["pickup_datetime"]
    assert {"JFK", "over 10 km"} <= set(told.slices)
    assert told.rules == ("tolls_2010_12", "fares_2012_09", "tolls_2013_03")
    assert told.part == ("validation" if ride["is_validation"] else "training")
    assert ride["key"] not in [like.key for like in told.similar]
    apart = [like.apart_km for like in told.similar]
    assert len(apart) == 5
    assert max(apart) < float(np.median(trips["pickup_jfk_km"]))
    # The flat rate is that of the month's difficulty: a constant and a price per km.
    training = trips[~trips["is_validation"]]
    per_km, constant = np.polyfit(training["haversine_km"].astype(float), training["target"].astype(float), 1)
    assert told.at_rate == pytest.approx(constant + per_km * float(ride["haversine_km"]), rel=1e-6)


def test_the_month_of_a_key_is_found_in_the_lake(january: pd.DataFrame, tmp_path: Path) -> None:
    lake = small_settings(tmp_path).lake
    assert month_with("a key", lake) is None
    folder = lake / "preprocessed_data"
    folder.mkdir(parents=True)
    for month, rides in (("2015-01", january.iloc[:100]), ("2015-02", january.iloc[100:200])):
        rides.attrs.update(marks_of(Edition(month, "a1b2"), "fare"))
        rides.to_parquet(str(folder / f"{month}-01.parquet"))
    found = month_with(january["key"].iloc[150], lake)
    assert found is not None
    assert str(found[0]) == "2015-02"
    assert len(found[1]) == 100
    assert set(found[1]) == STORED, "features of an earlier release are not of today's city"
    assert month_with("a key", lake) is None


def test_the_worst_rides_come_first(january: pd.DataFrame) -> None:
    trips = january.head(50)
    predicted = trips["target"].to_numpy(np.float64).copy()
    predicted[[7, 3]] += (5.0, -9.0)
    table = worst_rides(predicted, trips, FARE, most=3)
    assert [row[0] for row in table.rows[:2]] == [trips["key"].iloc[3], trips["key"].iloc[7]]
    assert [row[-1] for row in table.rows[:2]] == pytest.approx([-9.0, 5.0])
    assert [heading.name for heading in table.headings][-3:] == ["paid, USD", "predicted, USD", "off, USD"]
