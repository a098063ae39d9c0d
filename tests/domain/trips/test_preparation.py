"""A sound month: how a publication becomes trips to learn from, and each thing that can be wrong with it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import (
    faults_of,
    inspect_clean,
    inspect_published,
    preprocess,
    split_month,
    with_features,
)
from taxifare.trips.publication import Publication
from taxifare.trips.splitting import SplitError, split_by_time
from tests.support.small import raw_month, small_settings

JANUARY = parse_month("2015-01")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small_settings(tmp_path_factory.mktemp("sound"), simulator_trips_per_month=300)


@pytest.fixture(scope="module")
def published(own: Settings) -> Publication:
    return make_source(own).read_month(JANUARY)


@pytest.fixture(scope="module")
def raw(own: Settings) -> Trips:
    """January as published, which is sound; not to be changed in place."""
    return raw_month(own, "2015-01")


# From a publication to trips that can be learned from


def test_a_month_is_of_its_edition_and_its_latest_share_is_for_validation(published: Publication) -> None:
    trips = split_month(published, JANUARY, 0.2)
    assert (trips.edition, trips.target) == (Edition("2015-01", published.revision), None)
    assert trips.frame["is_validation"].tolist() == split_by_time(published.trips, 0.2).tolist()
    pd.testing.assert_frame_equal(trips.frame.drop(columns="is_validation"), published.trips)
    assert "is_validation" not in published.trips, "the publication stays as it was"


def test_what_the_source_publishes_for_validation_is_taken(published: Publication) -> None:
    every_third = pd.Series(np.arange(len(published.trips)) % 3 == 0, name="is_validation")
    trips = split_month(replace(published, is_validation=every_third), JANUARY, 0.2)
    assert trips.frame["is_validation"].tolist() == every_third.tolist()


def test_a_month_that_cannot_be_split_is_an_error(published: Publication) -> None:
    with pytest.raises(SplitError, match="1 trips cannot be split"):
        split_month(replace(published, trips=published.trips.head(1)), JANUARY, 0.2)


def test_preprocessing_keeps_the_edition_the_split_and_the_keys(raw: Trips, own: Settings) -> None:
    done = preprocess(raw, own.city_facts, own.target_facts)
    assert (done.trips.edition, done.trips.target) == (raw.edition, "fare")
    trips = done.trips.frame
    assert len(trips) + sum(done.dropped.values()) == len(raw.frame)
    kept = raw.frame.set_index("key").loc[trips["key"]]
    assert trips["is_validation"].tolist() == kept["is_validation"].tolist()
    assert trips["fare_amount"].tolist() == kept["fare_amount"].tolist()
    assert not trips[list(feature_names(own.city_facts))].isna().to_numpy().any()


def test_features_stand_beside_what_is_known(raw: Trips, own: Settings) -> None:
    trips = preprocess(raw, own.city_facts, own.target_facts).trips.frame
    known = [*raw.frame.columns, "target"]
    pd.testing.assert_frame_equal(with_features(trips[known], own.city_facts), trips)
    assert list(trips.columns) == [*known, *feature_names(own.city_facts)]


# What speaks against a month


def found(raw: Trips, own: Settings) -> dict[str, object]:
    """What is found at fault, by the name of the rule."""
    trips = preprocess(raw, own.city_facts, own.target_facts).trips.frame
    faults = faults_of(raw, trips, JANUARY, own.minimum_trips, (*feature_names(own.city_facts), "target"))
    return {fault.name: dict(fault.found) for fault in faults}


def test_a_sound_month_has_no_fault_and_shows_what_was_counted(raw: Trips, own: Settings) -> None:
    assert found(raw, own) == {}
    trips = preprocess(raw, own.city_facts, own.target_facts).trips.frame
    inspections = (
        *inspect_published(raw.frame, JANUARY, own.minimum_trips),
        *inspect_clean(trips, len(raw.frame), ["target"]),
    )
    assert {inspection.name: dict(inspection.found) for inspection in inspections} == {
        "has_trip_columns": {"wrong_columns": {}},
        "is_within_month": {"trips_outside": 0},
        "has_enough_trips": {"trips": len(raw.frame), "minimum_trips": own.minimum_trips},
        "has_unique_keys": {"repeated_keys": 0},
        "keeps_most_trips": {"share_kept": len(trips) / len(raw.frame), "minimum_share_kept": 0.8},
        "has_no_nulls": {"null_values": {}},
    }


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        pytest.param(
            lambda trips: trips.assign(passenger_count=trips["passenger_count"].astype("Int64")),
            {"has_trip_columns": {"wrong_columns": {"passenger_count": "Int64"}}},
            id="a column of another type",
        ),
        pytest.param(
            lambda trips: trips.assign(
                pickup_datetime=trips["pickup_datetime"].where(trips.index > 0, pd.Timestamp("2014-12-31 23:59:59"))
            ),
            {"is_within_month": {"trips_outside": 1}},
            id="a trip of the month before",
        ),
        pytest.param(
            lambda trips: trips.assign(
                pickup_datetime=trips["pickup_datetime"].where(trips.index > 1, pd.Timestamp("2015-02-01"))
            ),
            {"is_within_month": {"trips_outside": 2}},
            id="two trips at the next midnight",
        ),
        pytest.param(
            lambda trips: trips.head(99), {"has_enough_trips": {"trips": 99, "minimum_trips": 100}}, id="too few trips"
        ),
        pytest.param(
            lambda trips: trips.assign(key=trips["key"].where(trips.index > 2, trips["key"].iloc[0])),
            {"has_unique_keys": {"repeated_keys": 2}},
            id="a key three times",
        ),
    ],
)
def test_each_fault_of_what_is_published_is_named_and_counted(
    raw: Trips, own: Settings, spoil: Callable[[pd.DataFrame], pd.DataFrame], fault: dict[str, object]
) -> None:
    assert found(replace(raw, frame=spoil(raw.frame)), own) == fault


def test_a_month_of_which_cleaning_keeps_less_than_four_fifths_is_at_fault(raw: Trips, own: Settings) -> None:
    kept = len(preprocess(raw, own.city_facts, own.target_facts).trips.frame)
    rows = len(raw.frame)

    def lost(trips: int) -> Trips:
        """The month with the fares of so many kept trips lost."""
        keys = preprocess(raw, own.city_facts, own.target_facts).trips.frame["key"].head(trips)
        fares = raw.frame["fare_amount"].where(~raw.frame["key"].isin(keys))
        return replace(raw, frame=raw.frame.assign(fare_amount=fares))

    most = kept - int(np.ceil(0.8 * rows))
    assert found(lost(most), own) == {}
    assert found(lost(most + 1), own) == {
        "keeps_most_trips": {"share_kept": (kept - most - 1) / rows, "minimum_share_kept": 0.8}
    }


def test_nulls_are_counted_by_column(raw: Trips, own: Settings) -> None:
    trips = preprocess(raw, own.city_facts, own.target_facts).trips.frame
    spoiled = trips.assign(target=trips["target"].where(trips.index > 2), hour=trips["hour"].where(trips.index > 0))
    (_, nulls) = inspect_clean(spoiled, len(raw.frame), ["hour", "weekday", "target"])
    assert (nulls.is_passed, nulls.found) == (False, {"null_values": {"hour": 1, "target": 3}})


def test_all_faults_of_a_month_are_named(raw: Trips, own: Settings) -> None:
    bad = raw.frame.head(60)
    bad = bad.assign(key=bad["key"].where(bad.index > 1, "twice"))
    assert list(found(replace(raw, frame=bad), own)) == ["has_enough_trips", "has_unique_keys"]


def test_what_is_wrong_is_said_in_words_with_the_setting_the_columns_in_the_file_and_a_way_out(
    raw: Trips, own: Settings
) -> None:
    names = {"key": "ride_id", "pickup_datetime": "at"}
    early = raw.frame["pickup_datetime"].where(raw.frame.index > 0, pd.Timestamp("2014-12-31 23:59:59"))
    bad = raw.frame.assign(pickup_datetime=early, fare_amount=raw.frame["fare_amount"].astype(str)).head(60)
    bad = bad.assign(key=bad["key"].where(bad.index > 1, "twice"))
    told = {fault.name: fault.in_words(names) for fault in inspect_published(bad, JANUARY, 100)}
    assert told == {
        "has_trip_columns": "column fare_amount: expected the type float64, received object: materialize raw_new_data "
        "of 2015-01 again, which reads it anew from its source",
        "is_within_month": "column at (TRIP_COLUMNS: pickup_datetime=at): expected times from 2015-01-01 00:00:00 "
        "until before 2015-02-01 00:00:00, received others in 1 trip: move these rows to the files of their months",
        "has_enough_trips": "expected at least 100 trips in 2015-01 (MINIMUM_TRIPS=100), received 60: add those that "
        "are missing, or set a lower MINIMUM_TRIPS",
        "has_unique_keys": "column ride_id (TRIP_COLUMNS: key=ride_id): expected each key once in 2015-01, received 1 "
        "trip whose key an earlier one has: give each a key of its own, or leave the column out, and trips are "
        "numbered",
    }
    trips = preprocess(raw, own.city_facts, own.target_facts).trips.frame
    spoiled = trips.assign(target=trips["target"].where(trips.index > 2), pickup_datetime=None)
    told = {
        fault.name: fault.in_words(names)
        for fault in inspect_clean(spoiled.head(79_999 * len(spoiled) // 100_000), len(spoiled), ["target"])
    }
    assert told["keeps_most_trips"].startswith("expected at least 80% of the trips to be such as can be learned from, ")
    assert "received 79." in told["keeps_most_trips"], "what is too little does not read as enough"
    (_, nulls) = inspect_clean(spoiled.head(5), 5, ["pickup_datetime", "target"])
    assert nulls.in_words(names) == (
        "expected values in all trips that cleaning keeps, received none in at (TRIP_COLUMNS: pickup_datetime=at) "
        "(5 trips), target (3 trips): add them, or leave these rows out"
    )
