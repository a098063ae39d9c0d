"""The simulated taxi meter: worked fares, the city it resembles, and months that never depend on one another."""

import re
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.sources.base import MonthNotPublishedError, SourceError
from taxifare.sources.simulator.city import PLACES, from_grid_km, to_grid_km
from taxifare.sources.simulator.meter import TARIFFS, metered_fare
from taxifare.sources.simulator.source import GENERATOR_VERSION, Simulator
from taxifare.trips.months import parse_month
from tests.support.cities import NEW_YORK
from tests.support.places import REAL_TRIPS

MILE_KM = 1.609344
CITY = Simulator(
    seed=42,
    trips_per_month=3_000,
    base_trips=7_200,
    first_month=parse_month("2015-01"),
    last_month=parse_month("2015-06"),
    scenario="as-it-was",
    scenario_from=parse_month("2015-03"),
)
BIG_CITY = replace(CITY, trips_per_month=200_000)


def month_of(city: Simulator, month: str) -> pd.DataFrame:
    return city.read_month(parse_month(month)).trips


def fare(miles: float, standing_min: float, unit_usd: float) -> float:
    return round(float(metered_fare(np.array([miles * MILE_KM]), np.array([standing_min]), np.array([unit_usd]))[0]), 2)


def near(trips: pd.DataFrame, end: str, name: str, radius_km: float) -> "pd.Series[bool]":
    place = next(place for place in PLACES if place.name == name)
    east = (trips[f"{end}_longitude"] - place.longitude_deg) * 84.3
    north = (trips[f"{end}_latitude"] - place.latitude_deg) * 111.0
    return east**2 + north**2 < radius_km**2


def typical(trips: pd.DataFrame) -> pd.DataFrame:
    """The trips of the city's box with a fare and passengers, and how far their ends lie apart."""
    east = (trips["dropoff_longitude"] - trips["pickup_longitude"]) * 84.3
    north = (trips["dropoff_latitude"] - trips["pickup_latitude"]) * 111.0
    inside = trips["fare_amount"].between(0.01, 399) & trips["passenger_count"].between(1, 7)
    for end in ("pickup", "dropoff"):
        inside &= trips[f"{end}_longitude"].between(*NEW_YORK.longitude_range_deg)
        inside &= trips[f"{end}_latitude"].between(*NEW_YORK.latitude_range_deg)
    return trips.assign(km=np.hypot(east, north))[inside]


# The meter


def test_two_miles_with_lights_before_and_after_the_fare_rise_of_2012() -> None:
    """Ten fifths of a mile and 3.5 minutes standing are 13.5 units: the 14th has begun, the flag drop pays one."""
    assert fare(2, 3.5, TARIFFS[1].unit_usd) == round(2.50 + 13 * 0.40, 2) == 7.70
    assert fare(2, 3.5, TARIFFS[2].unit_usd) == round(2.50 + 13 * 0.50, 2) == 9.00


def test_two_miles_on_an_empty_road_are_ten_units_exactly() -> None:
    assert fare(2, 0, 0.50) == 2.50 + 9 * 0.50
    assert fare(2.001, 0, 0.50) == 2.50 + 10 * 0.50, "the eleventh is paid as soon as it begins"


def test_who_gets_in_and_out_pays_the_flag_drop() -> None:
    assert fare(0, 0, 0.50) == fare(0.05, 0.5, 0.50) == 2.50


@given(
    st.floats(min_value=0, max_value=60),
    st.floats(min_value=0, max_value=180),
    st.floats(min_value=0, max_value=10),
    st.sampled_from([0.40, 0.50, 0.60]),
)
def test_the_meter_only_climbs_and_only_by_whole_units(miles: float, standing: float, more: float, unit: float) -> None:
    usd = fare(miles, standing, unit)
    units = (usd - 2.50) / unit
    assert usd >= 2.50
    assert units == pytest.approx(round(units), abs=1e-6)
    assert fare(miles + more, standing, unit) >= usd
    assert fare(miles, standing + more, unit) >= usd


def test_the_tariff_changes_on_the_dates_that_cities_knows() -> None:
    assert [tariff.since for tariff in TARIFFS[1:]] == [rule.since for rule in NEW_YORK.rules]
    assert TARIFFS[0].since == date(2009, 1, 1)


@pytest.mark.parametrize(
    ("month", "flat", "toll"),
    [
        ("2010-06", 45.0, 4.57),
        ("2012-01", 45.0, 4.80),
        ("2012-10", 52.0, 4.80),
        ("2014-05", 52.0, 5.33),
        ("2015-04", 52.0, 5.54),
    ],
)
def test_kennedy_airport_costs_the_flat_fare_both_ways_with_or_without_the_toll(
    month: str, flat: float, toll: float
) -> None:
    trips = month_of(replace(BIG_CITY, first_month=parse_month("2010-01")), month)
    for one, other in (("pickup", "dropoff"), ("dropoff", "pickup")):
        rides = trips[near(trips, one, "JFK", 1.5) & near(trips, other, "Times Square", 0.8)]
        fares = set(rides["fare_amount"].round(2))
        assert {flat, round(flat + toll, 2)} <= fares, "some take the tunnel, some the bridge that is free"
        metered = rides["fare_amount"][~rides["fare_amount"].isin([flat, round(flat + toll, 2)])]
        assert len(metered) <= 2, "but for a negative fare or an end scattered out of place"


def test_the_fare_rise_of_2012_starts_at_midnight() -> None:
    trips = month_of(replace(BIG_CITY, first_month=parse_month("2012-01")), "2012-09")
    trips = trips[trips["fare_amount"].between(2.50, 7.25)]  # too little to have a toll in it
    in_half_dollars = np.isclose((trips["fare_amount"] * 2) % 1, 0)
    rise = pd.Timestamp("2012-09-04")
    before, after = trips["pickup_datetime"] < rise, trips["pickup_datetime"] >= rise
    assert in_half_dollars[before].mean() < 0.4
    assert in_half_dollars[after].mean() == 1.0


def test_newark_costs_the_meter_a_surcharge_and_the_way_back() -> None:
    trips = month_of(BIG_CITY, "2015-01")
    rides = trips[near(trips, "dropoff", "EWR", 1.5) & near(trips, "pickup", "Times Square", 1.0)]
    assert rides["fare_amount"].median() > 60


# The city


def test_rides_resemble_those_of_early_2015() -> None:
    """Real months have mean fare 12.87, median 9.50, 2.11 km as the crow flies, 5.6 % beyond 10 km."""
    trips = typical(month_of(BIG_CITY, "2015-02"))
    assert 12.2 < trips["fare_amount"].mean() < 13.2
    assert 8.5 <= trips["fare_amount"].median() <= 10
    assert 1.9 < trips["km"].median() < 2.4
    assert 0.04 < (trips["km"] > 10).mean() < 0.06
    minutes = (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() / 60
    assert 8 < minutes.median() < 14
    assert minutes.min() > 0


def test_rush_hour_costs_more_a_kilometre_than_the_night() -> None:
    trips = typical(month_of(BIG_CITY, "2015-05"))
    trips = trips[trips["km"].between(1, 8)]
    hour, weekday = trips["pickup_datetime"].dt.hour, trips["pickup_datetime"].dt.dayofweek

    def usd_per_km(chosen: "pd.Series[bool]") -> float:
        return float((trips["fare_amount"][chosen] - 2.50).sum() / trips["km"][chosen].sum())

    assert usd_per_km((weekday < 5) & hour.between(11, 15)) > 1.3 * usd_per_km(hour.between(3, 5))
    assert usd_per_km((weekday < 5) & hour.between(8, 9)) > 1.2 * usd_per_km((weekday >= 5) & hour.between(8, 9))


def test_people_sleep_at_five_and_go_out_at_seven_in_the_evening() -> None:
    hours = month_of(BIG_CITY, "2015-01")["pickup_datetime"].dt.hour.value_counts()
    assert hours.idxmin() in {4, 5}
    assert hours.idxmax() in {18, 19}


def test_the_fare_cannot_be_computed_from_what_is_known_at_pickup() -> None:
    """A line on the distance leaves 2.55 of error on real trips of 2015; a better model 1.8, and never nothing."""
    trips = typical(month_of(BIG_CITY, "2015-02"))
    known = np.column_stack([np.ones(len(trips)), trips["km"]])
    line, *_ = np.linalg.lstsq(known, trips["fare_amount"].to_numpy(), rcond=None)
    assert 1.8 < np.abs(trips["fare_amount"] - known @ line).mean() < 2.8


def test_defects_come_at_their_natural_rate() -> None:
    trips = month_of(replace(CITY, trips_per_month=1_000_000), "2015-01")
    zero = trips["pickup_longitude"].eq(0) | trips["dropoff_longitude"].eq(0)
    assert 0.018 < zero.mean() < 0.022
    assert 0.003 < trips["passenger_count"].eq(0).mean() < 0.004
    assert trips["passenger_count"].eq(208).any()
    assert trips["fare_amount"].eq(6770).any()
    assert 10 < (trips["fare_amount"] < 0).sum() < 100
    assert trips["fare_amount"].eq(0).any()
    assert trips["dropoff_longitude"].isna().any()
    assert not trips["pickup_longitude"].isna().any()
    assert 0.97 < len(typical(trips)) / len(trips) < 0.98, "the course's cleaning keeps 97.4 % of real trips"


@given(st.floats(min_value=-74.3, max_value=-73.7), st.floats(min_value=40.5, max_value=40.9))
def test_the_grid_and_the_globe_agree(longitude: float, latitude: float) -> None:
    back = from_grid_km(*to_grid_km(np.array([longitude]), np.array([latitude])))
    assert np.allclose(np.concatenate(back), [longitude, latitude], atol=1e-6)


# Months


def test_a_month_is_the_same_whatever_else_was_made() -> None:
    alone = month_of(CITY, "2015-04")
    other = replace(CITY, first_month=parse_month("2014-06"), last_month=None, base_trips=1_000)
    _ = month_of(other, "2014-06"), other.read_base()
    pd.testing.assert_frame_equal(month_of(other, "2015-04"), alone)
    assert other.months()[parse_month("2015-04")] == CITY.months()[parse_month("2015-04")]


def test_another_seed_is_another_city() -> None:
    other = replace(CITY, seed=43)
    assert not month_of(other, "2015-01")["fare_amount"].equals(month_of(CITY, "2015-01")["fare_amount"])
    assert set(other.months().values()).isdisjoint(CITY.months().values())


def test_keys_are_unique_and_written_as_kaggle_writes_them() -> None:
    keys = month_of(BIG_CITY, "2015-01")["key"]
    assert keys.is_unique
    assert all(re.fullmatch(r"2015-01-\d\d \d\d:\d\d:\d\d\.00000\d\d", key) for key in keys.head(1_000))


def test_the_base_years_have_all_their_trips_in_all_their_months() -> None:
    base = CITY.read_base().whole().trips
    by_month = base["pickup_datetime"].dt.to_period("M").value_counts()
    assert len(base) == 7_200
    assert (by_month.index.min(), by_month.index.max()) == (parse_month("2009-01"), parse_month("2014-12"))
    assert len(by_month) == 72
    assert by_month.between(90, 110).all(), "about a hundred a month, by the season"
    assert base["key"].is_unique


def test_the_base_years_end_before_the_first_month() -> None:
    base = replace(CITY, first_month=parse_month("2012-08")).read_base().whole().trips
    assert len(base) == 7_200
    assert base["pickup_datetime"].max() < pd.Timestamp("2012-08-01")


def test_few_base_trips_leave_some_months_empty() -> None:
    assert len(replace(CITY, base_trips=10).read_base().whole().trips) == 10


def test_without_base_years_says_so() -> None:
    with pytest.raises(SourceError, match=r"no base years: .* received 2009-01"):
        replace(CITY, first_month=parse_month("2009-01")).read_base()


def test_without_a_last_month_it_publishes_until_the_last_that_is_over() -> None:
    def months_at(now: str) -> list[str]:
        return [str(month) for month in replace(CITY, last_month=None, now=lambda: pd.Timestamp(now)).months()]

    assert months_at("2015-03-31 23:59:59") == ["2015-01", "2015-02"]
    assert months_at("2015-04-01 00:00:00") == ["2015-01", "2015-02", "2015-03"]
    assert months_at("2015-01-15") == []


def test_a_month_that_is_not_over_is_not_published() -> None:
    waiting = replace(CITY, last_month=None, now=lambda: pd.Timestamp("2015-01-15"))
    with pytest.raises(MonthNotPublishedError, match="no month 2015-01; months are none before 2015-01 is over"):
        month_of(waiting, "2015-01")


def test_months_outside_the_span_are_refused_with_the_span() -> None:
    for month in ("2014-12", "2015-07"):
        with pytest.raises(MonthNotPublishedError, match=f"no month {month}; months are 2015-01 to 2015-06"):
            month_of(CITY, month)


# Scenarios


def test_a_scenario_restates_only_the_months_it_touches() -> None:
    changed = replace(CITY, scenario="fare-rise")
    restated = [str(month) for month, revision in changed.months().items() if revision != CITY.months()[month]]
    assert restated == ["2015-03", "2015-04", "2015-05", "2015-06"]
    assert changed.base_revision() == CITY.base_revision()
    pd.testing.assert_frame_equal(month_of(changed, "2015-02"), month_of(CITY, "2015-02"))


def test_the_month_a_scenario_never_starts_in_means_nothing() -> None:
    assert replace(CITY, scenario_from=parse_month("2015-05")).months() == CITY.months()


def test_a_fare_rise_makes_the_same_rides_dearer() -> None:
    before, after = month_of(CITY, "2015-04"), month_of(replace(CITY, scenario="fare-rise"), "2015-04")
    same = [column for column in before if column != "fare_amount"]
    pd.testing.assert_frame_equal(after[same], before[same])
    assert 1.14 < typical(after)["fare_amount"].mean() / typical(before)["fare_amount"].mean() < 1.19


def test_slow_traffic_makes_the_same_rides_longer_and_so_dearer() -> None:
    before, after = month_of(CITY, "2015-04"), month_of(replace(CITY, scenario="slow-traffic"), "2015-04")
    minutes = [(trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() for trips in (before, after)]
    assert (minutes[1] / minutes[0]).median() == pytest.approx(1 / 0.7, rel=0.01)
    assert after["pickup_longitude"].equals(before["pickup_longitude"])
    assert 1.1 < typical(after)["fare_amount"].mean() / typical(before)["fare_amount"].mean() < 1.3


def test_rows_that_change_need_a_new_generator_version() -> None:
    """A revision names the rows: if this fails, raise GENERATOR_VERSION and write down the new sum."""
    sums = {1: 37217.65}
    assert round(month_of(CITY, "2015-01")["fare_amount"].sum(), 2) == sums[GENERATOR_VERSION]


# Reality


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.is_dir(), reason=f"needs the real trips in {REAL_TRIPS}")
def test_fares_and_distances_are_those_of_a_real_month() -> None:
    real = pd.read_parquet(REAL_TRIPS / "taxi_2015_02.parquet")
    simulated = month_of(BIG_CITY, "2015-02")
    for column in ("fare_amount", "km"):
        quantiles = [typical(trips)[column].quantile([0.25, 0.5, 0.75, 0.9, 0.95]) for trips in (real, simulated)]
        assert (quantiles[1] / quantiles[0]).between(0.85, 1.18).all(), column
    hours = [trips["pickup_datetime"].dt.hour.value_counts(normalize=True).sort_index() for trips in (real, simulated)]
    assert (hours[1] - hours[0]).abs().sum() < 0.08
