"""A month waits until it is whole, whatever publishes it, says why, and can be taken anyway on the record."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from taxifare.settings import Settings
from taxifare.sources import CannotTellError, SourceError, TripSource, make_source
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.whole_months import NothingToTakeError, NotWholeError, take, taken, whole_month, why_waiting
from taxifare.trips.months import Month, parse_month
from taxifare.trips.wholeness import extent_of
from tests.support.google_cloud import BigQueryServer
from tests.support.publisher import Publisher, lewagon_files, publisher_server, tlc_files
from tests.support.socrata import Portal, from_trip_table, portal_server
from tests.support.socrata import published as published_rows

JANUARY, FEBRUARY, MARCH = (parse_month(f"2015-0{number}") for number in (1, 2, 3))

CITY = Simulator(
    seed=5,
    trips_per_month=400,
    base_trips=800,
    first_month=JANUARY,
    last_month=MARCH,
    scenario="as-it-was",
    scenario_from=JANUARY,
)

Trips = dict[Month, pd.DataFrame]

Publish = Callable[[Trips], TripSource]


@cache
def rides_of(month: Month) -> pd.DataFrame:
    return CITY.read_month(month).trips


def whole() -> Trips:
    """Three months as they are."""
    return {month: rides_of(month) for month in (JANUARY, FEBRUARY, MARCH)}


def partial(trips: pd.DataFrame) -> pd.DataFrame:
    """A month that is put up while it is written: its rides end in the middle of it."""
    return trips[trips["pickup_datetime"].dt.day <= 17]


def spilled_over(trips: pd.DataFrame) -> pd.DataFrame:
    """A month that begins with what the last update of the one before has spilled into it."""
    return trips.head(6).assign(
        pickup_datetime=lambda rows: rows["pickup_datetime"].dt.normalize().iloc[0] + pd.to_timedelta(range(6), "min")
    )


def thin(trips: pd.DataFrame) -> pd.DataFrame:
    """A month that reaches its end, with a tenth of the rides."""
    return trips[::10]


@pytest.fixture(params=["parquet", "csv", "csv.gz", "lewagon", "tlc", "chicago", "bigquery"])
def publish(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Publish]:
    """What makes a source that publishes months."""
    home = tmp_path / "state"
    folder = tmp_path / "trips"
    folder.mkdir()

    def in_folder(months: Trips) -> TripSource:
        for month, trips in months.items():
            file = folder / f"taxi_{month.start_time:%Y_%m}.{request.param}"
            trips.to_parquet(file, index=False) if request.param == "parquet" else trips.to_csv(file, index=False)
        return make_source(
            Settings(trip_source="folder", trip_folder=folder, trip_folder_quiet_s=0, taxifare_home=home)
        )

    match request.param:
        case "lewagon" | "tlc" as name:
            with publisher_server() as publisher:
                yield lambda months: by_publisher(name, months, publisher, home)
        case "chicago":
            with portal_server() as portal:
                yield lambda months: by_portal(months, portal, home)
        case "bigquery":
            server: BigQueryServer = request.getfixturevalue("bigquery")
            yield lambda months: in_bigquery(months, server, home)
        case _:
            yield in_folder


def by_publisher(name: str, months: Trips, publisher: Publisher, home: Path) -> TripSource:
    publisher.files = (
        lewagon_files({month.strftime("%b").lower(): trips for month, trips in months.items()}, rides_of(JANUARY))
        if name == "lewagon"
        else tlc_files(months)
    )
    urls = {"lewagon_url": publisher.url, "tlc_url": publisher.url}
    return make_source(Settings(trip_source=name, tlc_color="green", taxifare_home=home, **urls))


def by_portal(months: Trips, portal: Portal, home: Path) -> TripSource:
    rows = pd.concat([from_trip_table(trips, str(month)) for month, trips in months.items()])
    portal.data_sets = {"wrvz-psew": rows, "ajtu-isnz": published_rows(pd.DataFrame({"trip_id": []}))}
    return make_source(Settings(trip_source="chicago", city="chicago", chicago_url=portal.url, taxifare_home=home))


def in_bigquery(months: Trips, server: BigQueryServer, home: Path) -> TripSource:
    rows = pd.concat(list(months.values()), ignore_index=True).drop(columns=["key", "dropoff_datetime"])
    rows["pickup_datetime"] = rows["pickup_datetime"].dt.tz_localize("UTC")
    return make_source(Settings(trip_source="bigquery", bigquery_table=server.fill("whole", rows), taxifare_home=home))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(taxifare_home=tmp_path / "state")


@pytest.fixture
def lake(tmp_path: Path) -> UPath:
    return UPath(tmp_path / "lake")


def test_whole_months_are_used(publish: Publish, settings: Settings, lake: UPath) -> None:
    source = publish(whole())
    for month, revision in source.months().items():
        assert why_waiting(source, month, revision, source.rides(), settings, lake) is None
        assert whole_month(source, month, settings, lake).revision == revision
        assert why_waiting(source, month, revision, source.rides(), settings, lake) is None


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (partial, "its last ride begins 2015-03-17"),
        (spilled_over, "its last ride begins 2015-03-01 00:0"),
        (thin, "expected at least 25 % of the"),
    ],
    ids=["partial", "spilled over", "thin"],
)
def test_a_month_that_is_not_whole_waits_until_it_is(
    publish: Publish, settings: Settings, lake: UPath, cut: Callable[[pd.DataFrame], pd.DataFrame], told: str
) -> None:
    months = whole()
    source = publish(months | {MARCH: cut(months[MARCH])})
    for month in (JANUARY, FEBRUARY):
        whole_month(source, month, settings, lake)
    with pytest.raises(NotWholeError) as refusal:
        whole_month(source, MARCH, settings, lake)
    assert "month 2015-03 is not whole yet: " in str(refusal.value)
    assert told in str(refusal.value)
    assert 'taxifare take 2015-03 --by YOU --reason "WHY"' in str(refusal.value)
    revision = source.months()[MARCH]
    waits = why_waiting(source, MARCH, revision, source.rides(), settings, lake)
    assert waits is not None
    assert told in waits, "what was seen is not forgotten, and not read again"

    later = publish(months)
    revision = later.months()[MARCH]
    assert why_waiting(later, MARCH, revision, later.rides(), settings, lake) is None
    assert whole_month(later, MARCH, settings, lake).revision == revision


def test_a_source_that_counts_rides_is_not_read_to_see_a_fraction(
    publish: Publish, settings: Settings, lake: UPath
) -> None:
    months = whole()
    source = publish(months | {MARCH: thin(months[MARCH])})
    revision = source.months()[MARCH]
    waits = why_waiting(source, MARCH, revision, source.rides(), settings, lake)
    counts = type(source).__name__ in {"Chicago", "BigQuery"} or len(source.rides()) > 0
    assert (waits is not None) is counts
    assert not lake.exists()


@pytest.mark.parametrize("publish", ["parquet", "csv", "csv.gz"], indirect=True)
def test_how_far_the_rides_of_a_file_reach_is_known_before_it_is_read(
    publish: Publish, settings: Settings, lake: UPath
) -> None:
    months = whole()
    source = publish(months | {MARCH: partial(months[MARCH])})
    for month, revision in source.months().items():
        read = source.read_month(month)
        assert source.extent(month) == extent_of(read)
        waits = why_waiting(source, month, revision, source.rides(), settings, lake)
        assert (waits is not None) is (month == MARCH)
        assert waits is None or "its last ride begins 2015-03-17" in waits
    assert not lake.exists()
    assert take(source, MARCH, settings, lake, by="Ada", reason="a strike").startswith("its last ride begins")
    strays = pd.concat([months[MARCH], months[JANUARY].head(1)])
    assert publish({MARCH: strays}).extent(MARCH) is None, "what is wrong with it is said where it is read"


def test_a_month_is_taken_anyway_as_it_is_and_on_the_record(publish: Publish, settings: Settings, lake: UPath) -> None:
    months = whole()
    source = publish(months | {MARCH: partial(months[MARCH])})
    revision = source.months()[MARCH]
    with pytest.raises(NotWholeError):
        whole_month(source, MARCH, settings, lake)
    lacks = take(source, MARCH, settings, lake, by="Ada", reason="a strike since the 18th")
    assert lacks.startswith("its last ride begins 2015-03-17")
    on_record = taken(MARCH, revision, lake)
    assert on_record is not None
    assert (on_record.by, on_record.reason) == ("Ada", "a strike since the 18th")
    assert why_waiting(source, MARCH, revision, source.rides(), settings, lake) is None
    assert len(whole_month(source, MARCH, settings, lake).trips) > 0
    with pytest.raises(NothingToTakeError, match="was taken by Ada"):
        take(source, MARCH, settings, lake, by="Ben", reason="again")

    restated = publish(months | {MARCH: months[MARCH][months[MARCH]["pickup_datetime"].dt.day <= 19]})
    with pytest.raises(NotWholeError, match="its last ride begins 2015-03-19"):
        whole_month(restated, MARCH, settings, lake)


@pytest.mark.parametrize(
    ("month", "by", "reason", "told"),
    [
        (JANUARY, "Ada", "why not", "month 2015-01 does not wait"),
        (parse_month("2015-06"), "Ada", "why not", "month 2015-06 is not published"),
        (JANUARY, "Ada", " ", "expected why, received nothing"),
        (JANUARY, "YOU", "a strike", "expected who takes the month, received YOU"),
    ],
)
def test_only_what_waits_is_taken(
    settings: Settings, lake: UPath, month: Month, by: str, reason: str, told: str
) -> None:
    with pytest.raises(NothingToTakeError, match=told):
        take(CITY, month, settings, lake, by=by, reason=reason)


def test_few_rides_may_end_early(settings: Settings, lake: UPath) -> None:
    """Of a month of 40 rides the last one is not seldom two days before the end."""
    few = replace(CITY, trips_per_month=40)
    for month in few.months():
        whole_month(few, month, settings, lake)


# Files that are being written


def folder_of(folder: Path, **changes: float) -> TripSource:
    return make_source(Settings(trip_source="folder", trip_folder=folder, taxifare_home=folder / "state", **changes))


def test_a_growing_file_waits_and_holds_later_months_back(tmp_path: Path) -> None:
    months = whole()
    for month, trips in months.items():
        file = tmp_path / f"taxi_{month.start_time:%Y_%m}.parquet"
        trips.to_parquet(file)
    (tmp_path / "taxi_2015_02.parquet").touch()
    time.sleep(0.3)
    source = folder_of(tmp_path, trip_folder_quiet_s=0.3)
    assert list(source.months()) == [JANUARY, FEBRUARY, MARCH]
    (tmp_path / "taxi_2015_02.parquet").touch()
    with pytest.raises(CannotTellError, match=r"changed 0 s ago and may still be written.*TRIP_FOLDER_QUIET_S") as told:
        source.months()
    assert list(told.value.before) == [JANUARY]


def test_a_copy_that_keeps_its_time_is_still_new(tmp_path: Path) -> None:
    file = tmp_path / "taxi_2015_01.parquet"
    whole()[JANUARY].to_parquet(file)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    with pytest.raises(CannotTellError, match="may still be written"):
        folder_of(tmp_path, trip_folder_quiet_s=60).months()


def test_base_years_that_grow_are_not_no_base_years(tmp_path: Path) -> None:
    rides_of(JANUARY).to_parquet(tmp_path / "taxi_base_2009_2014.parquet")
    with pytest.raises(SourceError, match="may still be written"):
        folder_of(tmp_path, trip_folder_quiet_s=60).base_revision()


def test_a_text_that_is_cut_anywhere_is_never_taken_for_a_month(
    tmp_path: Path, settings: Settings, lake: UPath
) -> None:
    """Four to nine cuts in a hundred were; with the fare last, 12.50 could be read as 1."""
    trips = whole()[JANUARY]
    order = [*trips.columns.drop("fare_amount"), "fare_amount"]
    text = trips[order].to_csv(index=False).encode()
    file = tmp_path / "taxi_2015_01.csv"
    source = folder_of(tmp_path, trip_folder_quiet_s=0)
    for cut in range(len(text) // 25, int(0.95 * len(text)), len(text) // 40):
        for at in (cut, text.index(b"\n", cut) + 1):
            file.write_bytes(text[:at])
            with pytest.raises(SourceError) as refusal:
                whole_month(source, JANUARY, settings, lake)
            assert isinstance(refusal.value, NotWholeError) is (text[at - 1 : at] == b"\n")
        file.write_bytes(text[: cut - (text[cut - 1 : cut] == b"\n")])
        with pytest.raises(CannotTellError, match="its last line does not end"):
            source.months()
    file.write_bytes(text)
    assert len(whole_month(source, JANUARY, settings, lake).trips) == len(trips)
