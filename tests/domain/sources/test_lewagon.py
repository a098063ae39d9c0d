"""The Le Wagon course's files: which are read, whose split it is, and what is said of those that are not right."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from taxifare.sources.base import CannotTellError, MonthNotPublishedError, NoBaseError, SourceError
from taxifare.sources.lewagon import LeWagon
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.web import Web, WebError
from taxifare.trips.months import parse_month
from tests.support.publisher import Publisher, lewagon_files, publisher_server

JANUARY = parse_month("2015-01")
CITY = Simulator(
    seed=3,
    trips_per_month=300,
    base_trips=400,
    first_month=JANUARY,
    last_month=parse_month("2015-02"),
    scenario="as-it-was",
    scenario_from=JANUARY,
)


@cache
def months() -> dict[str, pd.DataFrame]:
    """The city's trips by the course's name of the month; made when they are needed, not when tests are collected."""
    return {"jan": CITY.read_month(JANUARY).trips, "feb": CITY.read_month(JANUARY + 1).trips}


@cache
def base_trips() -> pd.DataFrame:
    """The trips of the years before."""
    return CITY.read_base().whole().trips


@cache
def files() -> dict[str, bytes]:
    """All of them as the course publishes them."""
    return lewagon_files(months(), base_trips())


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server(dict(files())) as running:
        yield running


@pytest.fixture
def course(publisher: Publisher, tmp_path: Path) -> LeWagon:
    web = Web(tmp_path, first_pause_s=0.001, believed_s=0)
    return LeWagon(web=web, url=publisher.url, dataset_size=1_000, first_month=JANUARY)


def test_the_published_split_is_kept(course: LeWagon) -> None:
    january = course.read_month(JANUARY)
    trips, count = months()["jan"], len(months()["jan"])
    pd.testing.assert_frame_equal(january.trips, trips.assign(dropoff_datetime=None).astype(trips.dtypes))
    assert january.is_validation is not None
    assert january.is_validation.tolist() == [row >= count * 4 // 5 for row in range(count)]


def test_a_split_that_is_not_by_time_stays_with_its_trips(course: LeWagon, publisher: Publisher) -> None:
    trips = months()["jan"].sample(frac=1, random_state=1)
    publisher.files |= lewagon_files({"jan": trips}, trips)
    january = course.read_month(JANUARY)
    assert january.trips["pickup_datetime"].is_monotonic_increasing
    for_validation = january.trips.loc[january.is_validation, "key"]
    assert sorted(for_validation) == sorted(trips["key"][len(trips) * 4 // 5 :])


@pytest.mark.parametrize(
    ("wanted", "file"),
    [(1, "1k"), (1_000, "1k"), (1_001, "10k"), (200_000, "500k"), (500_000, "500k"), (600_000, "500k"), (None, "500k")],
)
def test_the_smallest_file_that_is_large_enough_is_read(
    course: LeWagon, publisher: Publisher, wanted: int | None, file: str
) -> None:
    publisher.files = lewagon_files({}, base_trips(), file)
    base = replace(course, dataset_size=wanted).read_base().whole()
    assert len(base.trips) == 400, "both files"
    assert base.origin == f"{publisher.url}/train_{file}.csv and {publisher.url}/val_{file}.csv"


def test_base_trips_from_the_first_month_on_are_left_out_and_counted(course: LeWagon, publisher: Publisher) -> None:
    """Otherwise the base model would know the months it is judged on."""
    publisher.files |= lewagon_files({}, pd.concat([base_trips(), months()["jan"][:7]]))
    base = course.read_base().whole()
    assert (len(base.trips), base.dropped) == (400, {"not_before_first_month": 7})
    assert base.revision == course.base_revision()
    earlier = replace(course, first_month=parse_month("2014-01"))
    assert earlier.read_base().whole().trips["pickup_datetime"].max() < pd.Timestamp("2014-01-01")
    assert earlier.base_revision() != base.revision, "other trips are another revision"


def test_a_split_moved_is_a_month_restated(course: LeWagon, publisher: Publisher) -> None:
    before = course.months()
    head, *rows = files()["val_jan.csv"].splitlines(keepends=True)
    publisher.files |= {"train_jan.csv": files()["train_jan.csv"] + rows[0], "val_jan.csv": head + b"".join(rows[1:])}
    after = course.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2015-01"]


def test_only_months_that_are_there_are_listed(course: LeWagon) -> None:
    assert [str(month) for month in course.months()] == ["2015-01", "2015-02"]
    for month in (parse_month("2015-03"), parse_month("2016-01")):
        with pytest.raises(MonthNotPublishedError, match=f"no month {month}: the course has 2015-01 to 2015-06"):
            course.read_month(month)


def test_half_a_month_is_none(course: LeWagon, publisher: Publisher) -> None:
    del publisher.files["val_feb.csv"]
    for read in (course.months, lambda: course.read_month(JANUARY + 1)):
        with pytest.raises(SourceError, match=r"expected both files, one is there: .*val_feb\.csv.*404"):
            read()


def test_without_base_files_there_is_no_base(course: LeWagon, publisher: Publisher) -> None:
    publisher.files.clear()
    for read in (course.read_base, course.base_revision):
        with pytest.raises(NoBaseError, match=r"train_1k\.csv .* check LEWAGON_URL"):
            read()


def test_a_page_a_row_cut_off_and_other_columns_are_told_with_their_address(
    course: LeWagon, publisher: Publisher
) -> None:
    address = f"{publisher.url}/val_jan.csv"
    spoiled = {
        b"<html>Sign in</html>": "expected trips, received a web page",
        files()["val_jan.csv"][:-30]: "expected CSV",
        files()["val_jan.csv"].replace(b"fare_amount", b"fare"): "month 2015-01: missing columns fare_amount",
        files()["val_feb.csv"]: "expected times from 2015-01-01 00:00:00 until before 2015-02-01",
        files()["val_jan.csv"].splitlines(keepends=True)[0]: "month 2015-01: expected trips, received no rows",
        b"": "received an empty file",
    }
    for content, told in spoiled.items():
        publisher.files["val_jan.csv"] = content
        with pytest.raises(SourceError) as refused:
            course.read_month(JANUARY)
        assert str(refused.value).startswith(address)
        assert told in str(refused.value)


def test_what_is_wrong_does_not_replace_what_was_right(course: LeWagon, publisher: Publisher, tmp_path: Path) -> None:
    course.read_month(JANUARY)
    before = {file.read_bytes() for file in tmp_path.rglob("*.csv")}
    publisher.files["val_jan.csv"] = b"<html>Sign in</html>"
    with pytest.raises(SourceError):
        course.read_month(JANUARY)
    assert (
        {file.read_bytes() for file in tmp_path.rglob("*.csv")}
        == before
        == {files()["train_jan.csv"], files()["val_jan.csv"]}
    )
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("fault", ["503", "429:0", "cut", "drop"])
def test_passing_faults_pass(course: LeWagon, publisher: Publisher, fault: str) -> None:
    publisher.faults = [fault, "", fault, "", "", fault]
    assert len(course.read_month(JANUARY).trips) == len(months()["jan"])


def test_a_server_in_trouble_is_not_a_month_that_is_missing(course: LeWagon, publisher: Publisher) -> None:
    publisher.faults = ["500"] * 999
    with pytest.raises(CannotTellError, match=r"2015-01 .*500 Internal Server Error; given up after 5 attempts"):
        course.months()
    with pytest.raises(WebError, match="500 Internal Server Error; given up after 5 attempts"):
        course.read_month(JANUARY)


@pytest.mark.real_trips
def test_a_real_month_in_kaggles_text(course: LeWagon, publisher: Publisher, real_trips: Path) -> None:
    text = gzip.decompress((real_trips / "taxi_2015_01.csv.gz").read_bytes())
    head, *rows = text.splitlines(keepends=True)
    cut = len(rows) * 4 // 5
    publisher.files |= {"train_jan.csv": head + b"".join(rows[:cut]), "val_jan.csv": head + b"".join(rows[cut:])}
    january = course.read_month(JANUARY)
    assert len(january.trips) == len(rows)
    assert january.is_validation is not None
    assert january.is_validation.sum() == len(rows) - cut
