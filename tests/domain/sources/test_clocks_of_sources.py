"""What every source promises of times, held against each: offsets and zones, changes of the clock, dates."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taxifare.environment import opened
from taxifare.settings import Settings
from taxifare.sources import SourceError, TripSource, files, make_source
from taxifare.trips import csv_blocks
from taxifare.trips.city_files import shipped
from taxifare.trips.months import Month, parse_month
from taxifare.trips.preparation import preprocess, split_month
from taxifare.trips.targets import DURATION, FARE
from tests.support.google_cloud import BigQueryServer
from tests.support.publisher import Publisher, lewagon_files, publisher_server, tlc_files
from tests.support.socrata import Portal, portal_server
from tests.support.socrata import published as published_rows

MARCH, NOVEMBER = parse_month("2015-03"), parse_month("2015-11")

RIDES = {
    MARCH: (
        ("2015-03-01 00:30:00", "2015-03-01 00:50:00"),
        ("2015-03-08 01:50:00", "2015-03-08 03:10:00"),
        ("2015-03-08 03:00:00", "2015-03-08 03:30:00"),
        ("2015-03-31 23:30:00", "2015-03-31 23:50:00"),
    ),
    NOVEMBER: (
        ("2015-11-01 00:50:00", "2015-11-01 02:10:00"),
        ("2015-11-01 01:10:00", "2015-11-01 01:30:00"),
        ("2015-11-01 01:50:00", "2015-11-01 01:10:00"),
        ("2015-11-30 23:30:00", "2015-11-30 23:50:00"),
    ),
}
"""Rides by the clock on the wall, at nights on which it was changed."""

SUMMER_TIME = {MARCH: ((0, 0), (0, 1), (1, 1), (1, 1)), NOVEMBER: ((1, 0), (0, 0), (1, 0), (0, 0))}
"""Whether it was summer time when each ride began and ended."""

TOOK_MIN = {MARCH: [20, 20, 30, 20], NOVEMBER: [140, 20, 20, 20]}
"""How long they took."""


def naive(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
    return texts


def called_utc(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
    return texts + " UTC"


def with_offsets(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
    """In March and November a month has two."""
    return texts + pd.Series([f"-{hours - is_summer:02d}:00" for is_summer in summer])


def with_one_offset(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
    """Winter's, of a clock that nobody put forward."""
    winter = pd.to_datetime(texts) - pd.to_timedelta(summer, unit="h")
    return winter.dt.strftime("%Y-%m-%d %H:%M:%S") + f"-{hours:02d}:00"


def mixed_with_z(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
    """The first in UTC, the others not."""
    utc = pd.to_datetime(texts) + pd.to_timedelta([hours - is_summer for is_summer in summer], unit="h")
    return with_offsets(texts, summer, hours).where(texts.index > 0, utc.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


def of_type_with_zone(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
    zone = {5: "America/New_York", 6: "America/Chicago"}[hours]
    return pd.to_datetime(with_offsets(texts, summer, hours), utc=True).dt.tz_convert(zone)


def of_type_with_another_zone(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
    return pd.to_datetime(with_offsets(texts, summer, hours), utc=True).dt.tz_convert("Asia/Tokyo")


def of_type_called_utc(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
    return pd.to_datetime(texts).dt.tz_localize("UTC")


def of_type(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
    return pd.to_datetime(texts)


Spelled = Callable[[pd.Series, Sequence[int], int], pd.Series]

WITHOUT_OFFSETS: tuple[Spelled, ...] = (naive, called_utc)
WITH_OFFSETS: tuple[Spelled, ...] = (with_offsets, with_one_offset, mixed_with_z)
TYPED_WITHOUT: tuple[Spelled, ...] = (of_type, of_type_called_utc)
TYPED_WITH: tuple[Spelled, ...] = (of_type_with_zone, of_type_with_another_zone)


@dataclass(frozen=True)
class Published:
    """A way to publish rides, and what it can say.

    Attributes:
        by: Makes a source that has the rides as its only ones.
        spellings: Ways to write times that it knows.
        city: Where it is.
        tells_ends: Whether it tells when rides ended, by the clock on the wall: not so the course, and the data portal
            says how long they took.
    """

    by: Callable[[pd.DataFrame, Month, Path, pytest.FixtureRequest], TripSource]
    spellings: tuple[Spelled, ...]
    city: str = "new-york"
    tells_ends: bool = True


def in_folder(ending: str) -> Callable[[pd.DataFrame, Month, Path, pytest.FixtureRequest], TripSource]:
    def publish(rides: pd.DataFrame, month: Month, folder: Path, _request: pytest.FixtureRequest) -> TripSource:
        file = folder / f"taxi_{month.start_time:%Y_%m}{ending}"
        rides.to_parquet(file) if ending == ".parquet" else rides.to_csv(file, index=False)
        return make_source(Settings(trip_source="folder", trip_folder=folder, taxifare_home=folder))

    return publish


def in_bucket(fixture: str) -> Callable[[pd.DataFrame, Month, Path, pytest.FixtureRequest], TripSource]:
    def publish(rides: pd.DataFrame, month: Month, folder: Path, request: pytest.FixtureRequest) -> TripSource:
        place = f"{request.getfixturevalue(fixture)}/trips"
        file = opened("TRIP_FOLDER", place) / f"taxi_{month.start_time:%Y_%m}.csv"
        file.write_bytes(rides.to_csv(index=False).encode())
        return make_source(Settings(trip_source="folder", trip_folder=place, taxifare_home=folder))

    return publish


def by_the_course(rides: pd.DataFrame, month: Month, folder: Path, request: pytest.FixtureRequest) -> TripSource:
    assert month == MARCH
    publisher: Publisher = request.getfixturevalue("publisher")
    publisher.files = lewagon_files({"mar": rides}, rides)
    return make_source(Settings(trip_source="lewagon", lewagon_url=publisher.url, taxifare_home=folder))


def by_the_commission(rides: pd.DataFrame, month: Month, folder: Path, request: pytest.FixtureRequest) -> TripSource:
    publisher: Publisher = request.getfixturevalue("publisher")
    publisher.files = tlc_files({month: rides})
    return make_source(
        Settings(trip_source="tlc", tlc_url=publisher.url, tlc_color="green", last_month=None, taxifare_home=folder)
    )


def by_the_portal(rides: pd.DataFrame, month: Month, folder: Path, request: pytest.FixtureRequest) -> TripSource:
    portal: Portal = request.getfixturevalue("portal")
    rows = pd.DataFrame(
        {
            "trip_id": rides["key"],
            "trip_start_timestamp": rides["pickup_datetime"].str.replace(" ", "T"),
            "trip_seconds": np.array(TOOK_MIN[month]) * 60,
            "fare": rides["fare_amount"],
            **{f"{end}_centroid_latitude": rides[f"{end}_latitude"] for end in ("pickup", "dropoff")},
            **{f"{end}_centroid_longitude": rides[f"{end}_longitude"] for end in ("pickup", "dropoff")},
        }
    )
    portal.data_sets = {"wrvz-psew": published_rows(rows), "ajtu-isnz": published_rows(rows[:0])}
    return make_source(
        Settings(trip_source="chicago", city="chicago", chicago_url=portal.url, last_month=None, taxifare_home=folder)
    )


def in_bigquery(rides: pd.DataFrame, _month: Month, folder: Path, request: pytest.FixtureRequest) -> TripSource:
    server: BigQueryServer = request.getfixturevalue("bigquery")
    is_zoned = isinstance(rides["pickup_datetime"].dtype, pd.DatetimeTZDtype)
    rows = rides.drop(columns="dropoff_datetime")
    table = server.fill("clocks", rows, pickup_type="TIMESTAMP" if is_zoned else "DATETIME")
    return make_source(Settings(trip_source="bigquery", bigquery_table=table, taxifare_home=folder))


SOURCES = {
    "parquet": Published(in_folder(".parquet"), WITHOUT_OFFSETS + WITH_OFFSETS + TYPED_WITHOUT + TYPED_WITH),
    "csv": Published(in_folder(".csv"), WITHOUT_OFFSETS + WITH_OFFSETS + TYPED_WITHOUT + TYPED_WITH),
    "csv.gz": Published(in_folder(".csv.gz"), WITHOUT_OFFSETS + WITH_OFFSETS),
    "csv in gs": Published(in_bucket("bucket"), (naive, mixed_with_z)),
    "csv in s3": Published(in_bucket("s3_bucket"), (naive, mixed_with_z)),
    "lewagon": Published(by_the_course, WITHOUT_OFFSETS + WITH_OFFSETS, tells_ends=False),
    "tlc": Published(by_the_commission, WITHOUT_OFFSETS + WITH_OFFSETS + TYPED_WITHOUT + TYPED_WITH),
    "chicago": Published(by_the_portal, (naive, with_offsets), "chicago", tells_ends=False),
    "bigquery": Published(in_bigquery, TYPED_WITHOUT, tells_ends=False),
}


def rides_of(month: Month, spelled: Spelled, city: str) -> pd.DataFrame:
    """The rides of a month as a file has them, their times spelled so."""
    hours = {"new-york": 5, "chicago": 6}[city]
    columns = {
        f"{end}_datetime": spelled(
            pd.Series([ride[at] for ride in RIDES[month]]), [summer[at] for summer in SUMMER_TIME[month]], hours
        )
        for at, end in enumerate(("pickup", "dropoff"))
    }
    facts = shipped(city).facts
    (low, high), (south, north) = facts.longitude_range_deg, facts.latitude_range_deg
    longitude, latitude = (low + high) / 2, (south + north) / 2
    return pd.DataFrame(columns).assign(
        key=[f"ride {number}" for number in range(len(RIDES[month]))],
        pickup_longitude=longitude,
        pickup_latitude=latitude,
        dropoff_longitude=longitude + 0.02,
        dropoff_latitude=latitude + 0.02,
        passenger_count=1,
        fare_amount=[7.5, 8.5, 9.5, 10.5],
    )


def marks_of(name: str) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.end_to_end,) if name == "bigquery" else ()


def each(months: Sequence[Month], spellings: Sequence[Spelled]) -> list[Any]:
    """Each source with each month and each of the spellings that it knows."""
    return [
        pytest.param(name, month, spelled, id=f"{name}, {month}, {spelled.__name__}", marks=marks_of(name))
        for name, source in SOURCES.items()
        for month in months
        for spelled in spellings
        if spelled in source.spellings and not (name == "lewagon" and month != MARCH)
    ]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server() as running:
        yield running


@pytest.fixture
def portal() -> Iterator[Portal]:
    with portal_server() as running:
        yield running


@pytest.mark.parametrize(
    ("name", "month", "spelled"),
    each([MARCH, NOVEMBER], WITHOUT_OFFSETS + WITH_OFFSETS + TYPED_WITHOUT + TYPED_WITH),
)
def test_a_month_is_by_the_clock_on_the_wall(
    name: str, month: Month, spelled: Spelled, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All spellings of the same times are the same trips; what no spelling without offsets can tell is left out."""
    source = SOURCES[name]
    published = source.by(rides_of(month, spelled, source.city), month, tmp_path, request).read_month(month)
    trips = published.trips.sort_values(["pickup_datetime", "fare_amount"])
    assert trips["pickup_datetime"].astype(str).tolist() == [begin for begin, _ in RIDES[month]]
    minutes = (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() / 60
    is_told = source.tells_ends and spelled in WITH_OFFSETS + TYPED_WITH
    if name in {"lewagon", "bigquery"}:
        assert minutes.isna().all()
    elif name == "chicago" or is_told or month == MARCH:
        assert minutes.tolist() == TOOK_MIN[month]
        assert "dropoff_at_clock_change" not in published.dropped
    else:
        assert minutes.fillna(-1).tolist() == [140, -1, 20, 20], "from 01:10 to 01:30 it was 20 minutes, or 80"
        assert published.dropped["dropoff_at_clock_change"] == 1


@pytest.mark.parametrize("name", ["parquet", "csv", "tlc"])
def test_a_ride_of_unknown_length_has_a_fare(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Who learns durations learns without it, who learns fares does not miss it."""
    source = SOURCES[name]
    published = source.by(rides_of(NOVEMBER, naive, source.city), NOVEMBER, tmp_path, request).read_month(NOVEMBER)
    raw = split_month(published, NOVEMBER, 0.25)
    assert len(preprocess(raw, shipped("new-york").facts, FARE).trips.frame) == 4
    durations = preprocess(raw, shipped("new-york").facts, DURATION)
    assert durations.trips.frame["target"].tolist() == [140.0, 20.0, 20.0]
    assert durations.dropped["missing_value"] == 1


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "bigquery"])
def test_pickups_that_are_dates_are_refused(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def dates(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
        return texts.str[:10]

    source = SOURCES[name]
    with pytest.raises(SourceError) as refusal:
        source.by(rides_of(MARCH, dates, source.city), MARCH, tmp_path, request).read_month(MARCH)
    assert "expected times of day, received the date '2015-03-" in str(refusal.value)
    assert "2015-03" in str(refusal.value).replace("'2015-03-", ""), "the month is named"
    assert "pickup_datetime" in str(refusal.value)


@pytest.mark.parametrize("name", ["parquet", "csv", "csv.gz", "lewagon"])
def test_a_month_that_is_truly_in_utc_is_refused_with_a_way_out(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It looks like one that begins and ends five hours late, for what is called UTC is the city's clock."""

    def in_utc(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
        late = pd.to_datetime(texts) + pd.to_timedelta([hours - is_summer for is_summer in summer], unit="h")
        return late.dt.strftime("%Y-%m-%dT%H:%M:%SZ")

    source = SOURCES[name]
    with pytest.raises(SourceError, match=r"received 2015-04-01 03:30:00 .* if they were UTC they would all be of the"):
        source.by(rides_of(MARCH, in_utc, source.city), MARCH, tmp_path, request).read_month(MARCH)


@pytest.mark.parametrize(
    ("name", "label"),
    [(name, label) for name in ("parquet", "csv", "csv.gz", "lewagon", "tlc") for label in ("Z", " UTC", "+00:00")]
    + [("chicago", "Z")],
)
def test_times_without_an_offset_beside_utc_are_refused(
    name: str, label: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Half of them were four hours off, if the others were truly in UTC, and all were taken for one clock."""

    def partly(texts: pd.Series, _summer: Sequence[int], _hours: int) -> pd.Series:
        return texts.where(texts.index != 1, texts + label)

    source = SOURCES[name]
    with pytest.raises(SourceError) as refusal:
        source.by(rides_of(MARCH, partly, source.city), MARCH, tmp_path, request).read_month(MARCH)
    counts = "2 in UTC and 6" if source.tells_ends and name != "tlc" else "1 in UTC and [23]"
    told = rf"pickup_datetime.*: expected times that are all in UTC or all without an offset, received {counts} without"
    assert re.search(told, str(refusal.value))
    assert "Write all of them as it showed them, or all with its offset, as in 12:00-05:00" in str(refusal.value)


def test_a_month_that_one_time_puts_into_utc_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """They are the city's clock, called UTC as public files do; a single row with an offset shifts all others."""

    def but_for_one(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
        return called_utc(texts, summer, hours).where(texts.index != 1, with_offsets(texts, summer, hours))

    source = SOURCES["csv"]
    with pytest.raises(SourceError, match=r"received 2015-02-28 19:30:00 .*; 6 times in UTC were converted from"):
        source.by(rides_of(MARCH, but_for_one, source.city), MARCH, tmp_path, request).read_month(MARCH)


def test_a_month_that_its_dropoffs_put_into_utc_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rides = rides_of(MARCH, called_utc, "new-york")
    rides["dropoff_datetime"] = rides_of(MARCH, with_offsets, "new-york")["dropoff_datetime"]
    source = SOURCES["csv"].by(rides, MARCH, tmp_path, request)
    for read in (source.read_month, source.sample):
        with pytest.raises(SourceError, match=r"received 2015-02-28 19:30:00 .*; 4 times in UTC were converted from"):
            read(MARCH)


def base_of(rides: pd.DataFrame, folder: Path, ending: str) -> TripSource:
    """A folder whose base years are such rides."""
    place = folder / f"taxi_base_2015{ending}"
    rides.to_parquet(place, row_group_size=2) if ending == ".parquet" else rides.to_csv(place, index=False)
    facts = {"trip_source": "folder", "trip_folder": folder, "trip_folder_quiet_s": 0, "taxifare_home": folder}
    return make_source(Settings(**facts, first_month=parse_month("2016-01"), last_month=None))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz"])
def test_what_the_base_years_times_mean_is_told_by_all_of_them(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in parts, and only the last row has an offset, or none: those before it are read by it, too."""
    monkeypatch.setattr(files, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 2**8)

    def in_utc_but_for_the_last(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
        utc = pd.to_datetime(with_offsets(texts, summer, hours), utc=True).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        return utc.where(texts.index < 3, with_offsets(texts, summer, hours))

    source = base_of(rides_of(NOVEMBER, in_utc_but_for_the_last, "new-york"), tmp_path, ending)
    parts = list(source.read_base().parts)
    assert len(parts) > 1
    trips = source.read_base().whole().trips
    assert trips["pickup_datetime"].astype(str).tolist() == [begin for begin, _ in RIDES[NOVEMBER]]
    minutes = (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() / 60
    assert minutes.tolist() == TOOK_MIN[NOVEMBER]

    def bare_but_for_the_last(texts: pd.Series, summer: Sequence[int], hours: int) -> pd.Series:
        return texts.where(texts.index < 3, called_utc(texts, summer, hours))

    source = base_of(rides_of(NOVEMBER, bare_but_for_the_last, "new-york"), tmp_path, ending)
    with pytest.raises(SourceError, match=r"and dropoff_datetime: .* received 2 in UTC and 6 without one"):
        next(iter(source.read_base().parts))


def test_times_that_cannot_be_read_are_told_by_both_columns_names() -> None:
    text = b"start,end\n2015-01-01 00:00:00,\xe9\n"
    names = {"pickup_datetime": "start", "dropoff_datetime": "end"}
    with pytest.raises(SourceError, match=r"2015-01\.csv: start and end: expected times to the end: .*invalid UTF8"):
        files.times_of(io.BytesIO(text), "2015-01.csv", names, "America/New_York")


def test_the_base_years_are_by_the_clock_too(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rides_of(NOVEMBER, with_offsets, "new-york").to_csv(tmp_path / "taxi_base_2015.csv", index=False)
    rides_of(NOVEMBER, naive, "new-york").to_parquet(tmp_path / "taxi_base_2015.parquet")
    for ending, untold in ((".parquet", 1), (".csv", 0)):
        folder = make_source(
            Settings(
                trip_source="folder",
                trip_folder=tmp_path,
                trip_folder_quiet_s=0,
                taxifare_home=tmp_path,
                first_month=parse_month("2016-01"),
                last_month=None,
            )
        )
        base = folder.read_base().whole()
        assert base.trips["pickup_datetime"].astype(str).tolist() == [begin for begin, _ in RIDES[NOVEMBER]]
        assert base.dropped.get("dropoff_at_clock_change", 0) == untold
        (tmp_path / f"taxi_base_2015{ending}").unlink()
