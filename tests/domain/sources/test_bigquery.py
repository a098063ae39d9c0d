"""Trips from BigQuery: what is asked, what it may cost, and what is said when the answer is no; and scored months."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pandas as pd
import pytest
from upath import UPath

from taxifare.operations.doctor import examine
from taxifare.serving.scored_table import ScoredTable, ScoredTableError
from taxifare.settings import Settings
from taxifare.sources import MonthNotPublishedError, SourceError, make_source
from taxifare.sources.base import NoBaseError
from taxifare.sources.bigquery import BigQuery
from taxifare.sources.bigquery_client import connect
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.months import parse_month
from tests.support.google_cloud import PROJECT, TOKEN, BigQueryServer

pytestmark = pytest.mark.end_to_end

JANUARY, FEBRUARY = parse_month("2015-01"), parse_month("2015-02")
COURSE_COLUMNS = [name for name in COLUMN_NAMES if name not in {"key", "dropoff_datetime"}]
MOMENTS = [
    "2014-12-31 23:59:59",
    "2015-01-01 00:00:00",
    "2015-01-31 23:59:59.999999",
    "2015-02-01 00:00:00",
    "2015-02-28 12:00:00",
]


def trips(moments: list[str] = MOMENTS) -> pd.DataFrame:
    """Rows as in the course's table: no key, UTC by name only."""
    rows = pd.DataFrame({"pickup_datetime": pd.to_datetime(moments, format="ISO8601", utc=True)})
    numbers = dict.fromkeys(COURSE_COLUMNS[1:5], -73.9) | {"passenger_count": 1, "fare_amount": 7.5}
    return rows.assign(**numbers).astype({"pickup_datetime": "datetime64[us, UTC]"})


def source(table: str, **changes: object) -> BigQuery:
    """The source of a table, with a short patience."""
    asked = BigQuery(table, JANUARY, None, 10**9, partial(connect, None, "EU"), patience_s=2.0)
    return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table(_bigquery: tuple[BigQueryServer, dict[str, str]]) -> str:
    """A table with the edges of two months; not to be changed."""
    return _bigquery[0].fill("edges", trips())


@pytest.mark.usefixtures("bigquery")
class TestMonths:
    def test_a_midnight_is_in_one_month(self, table: str) -> None:
        january, february = (source(table).read_month(month).trips for month in (JANUARY, FEBRUARY))
        assert [str(time) for time in january["pickup_datetime"]] == [
            "2015-01-01 00:00:00",
            "2015-01-31 23:59:59.999999",
        ]
        assert [str(time) for time in february["pickup_datetime"]] == ["2015-02-01 00:00:00", "2015-02-28 12:00:00"]
        assert [str(time) for time in source(table).read_base().whole().trips["pickup_datetime"]] == [
            "2014-12-31 23:59:59"
        ]

    def test_what_is_asked_is_a_half_open_window_of_the_needed_columns(
        self, bigquery: BigQueryServer, table: str
    ) -> None:
        source(table).read_month(JANUARY)
        (asked,) = bigquery.queries
        assert "pickup_datetime >= @first AND pickup_datetime < @until" in asked["query"]
        assert "BETWEEN" not in asked["query"].upper()
        assert "*" not in asked["query"].replace("COUNT(*)", "")
        assert [parameter["parameterValue"]["value"][:10] for parameter in asked["queryParameters"]] == [
            "2015-01-01",
            "2015-02-01",
        ]

    def test_a_table_of_datetimes_is_asked_with_datetimes(self, bigquery: BigQueryServer) -> None:
        rows = trips()
        wall_clock = rows.assign(pickup_datetime=rows["pickup_datetime"].dt.tz_localize(None))
        table = bigquery.fill("datetimes", wall_clock, pickup_type="DATETIME")
        assert len(source(table).read_month(JANUARY).trips) == 2
        assert list(source(table).months()) == [JANUARY, FEBRUARY]

    def test_equal_trips_are_told_apart_by_their_number(self, bigquery: BigQueryServer) -> None:
        table = bigquery.fill("twice", trips(["2015-01-05 10:00:00"] * 3))
        january = source(table).read_month(JANUARY).trips
        assert january["key"].tolist() == ["0000000000", "0000000001", "0000000002"]

    def test_a_table_with_keys_keeps_them(self, bigquery: BigQueryServer) -> None:
        table = bigquery.fill("keys", trips().assign(key=list("abcde"), note="no column of a trip"))
        assert source(table).read_month(JANUARY).trips["key"].tolist() == ["b", "c"]

    def test_a_month_that_is_not_over_is_not_published(self, bigquery: BigQueryServer) -> None:
        now = f"{pd.Timestamp.now():%Y-%m-%d 00:00:00}"
        table = bigquery.fill("today", trips([*MOMENTS, now]))
        assert list(source(table).months()) == [JANUARY, FEBRUARY]
        with pytest.raises(MonthNotPublishedError, match="months are over"):
            source(table).read_month(parse_month(now[:7]))

    def test_base_trips_are_drawn_the_same_each_time(self, bigquery: BigQueryServer) -> None:
        days = [str(day) for day in pd.date_range("2014-01-01 09:30", periods=60)]
        table = bigquery.fill("base", trips([*days, *MOMENTS]))
        drawn = source(table, base_rows=20).read_base().whole()
        assert len(drawn.trips) == 20
        pd.testing.assert_frame_equal(source(table, base_rows=20).read_base().whole().trips, drawn.trips)
        assert drawn.revision == source(table, base_rows=20).base_revision()
        assert drawn.revision != source(table, base_rows=30).base_revision()
        assert set(drawn.trips["pickup_datetime"].dt.month) >= {1, 2}

    def test_a_table_without_earlier_years_says_so(self, bigquery: BigQueryServer) -> None:
        table = bigquery.fill("young", trips(MOMENTS[1:]))
        for ask in (source(table).read_base, source(table).base_revision):
            with pytest.raises(NoBaseError, match="no trip starts before 2015-01"):
                ask()


CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "a fare": lambda rows: rows.assign(fare_amount=rows["fare_amount"].where(rows.index != 4, 8.0)),
    "one trip more": lambda rows: pd.concat([rows, rows[4:]]),
    "two fares": lambda rows: rows.assign(fare_amount=rows["fare_amount"].where(rows.index < 3, 9.0)),
    "a null for a number": lambda rows: rows.assign(dropoff_latitude=rows["dropoff_latitude"].where(rows.index != 4)),
}


@pytest.mark.usefixtures("bigquery")
class TestRevisions:
    @pytest.mark.parametrize("change", CHANGES)
    def test_they_change_with_any_row_of_the_month(self, bigquery: BigQueryServer, change: str) -> None:
        before = source(bigquery.fill("restated", trips())).months()
        after = source(bigquery.fill("restated", CHANGES[change](trips()))).months()
        assert after[JANUARY] == before[JANUARY]
        assert after[FEBRUARY] != before[FEBRUARY]

    def test_a_pair_of_equal_trips_is_not_another_pair(self, bigquery: BigQueryServer) -> None:
        """The XOR of fingerprints, which is customary, is the same for both."""
        before, after = (
            source(bigquery.fill("pairs", trips(MOMENTS + 2 * [f"2015-02-{day} 10:00:00"]))).months()
            for day in (10, 11)
        )
        assert after[FEBRUARY] != before[FEBRUARY]

    def test_they_do_not_change_with_the_order_of_rows(self, bigquery: BigQueryServer) -> None:
        before = source(bigquery.fill("shuffled", trips())).months()
        after = source(bigquery.fill("shuffled", trips().iloc[::-1])).months()
        assert after == before

    def test_a_table_that_has_not_changed_is_not_read_again(self, bigquery: BigQueryServer) -> None:
        """A sensor asks every few seconds, and each query for revisions reads the whole table."""
        asked = source(bigquery.fill("watched", trips()))
        first = asked.months()
        assert asked.months() == first
        assert len(bigquery.queries) == 1
        bigquery.fill("watched", trips()[:4])
        assert asked.months() != first
        assert len(bigquery.queries) == 2


@pytest.mark.usefixtures("bigquery")
class TestCost:
    def test_every_query_is_bounded_and_estimated_first(
        self, bigquery: BigQueryServer, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bigquery.dry_runs = 0
        with caplog.at_level(logging.INFO, "taxifare.sources.bigquery"):
            source(table, maximum_bytes=2_000_000).read_month(JANUARY)
        assert bigquery.dry_runs == len(bigquery.queries) == 1
        assert bigquery.queries[0]["maximumBytesBilled"] == "2000000"
        assert "a query that reads 1.0 MB" in caplog.text

    def test_one_that_would_read_too_much_is_not_run(self, bigquery: BigQueryServer, table: str) -> None:
        bigquery.bytes_read = 3_000_000_000
        with pytest.raises(SourceError, match="would read 3,000,000,000 bytes, expected at most 1,000,000,000"):
            source(table).months()
        assert bigquery.queries == []


@pytest.mark.usefixtures("bigquery")
class TestFaults:
    def test_passing_ones_are_tried_again(self, bigquery: BigQueryServer, table: str) -> None:
        bigquery.faults += [(503, "backendError"), (429, "rateLimitExceeded")]
        assert len(source(table, patience_s=30.0).read_month(JANUARY).trips) == 2

    def test_an_outage_is_given_up(self, bigquery: BigQueryServer, table: str) -> None:
        bigquery.faults += [(503, "backendError")] * 20
        with pytest.raises(SourceError, match="given up: try again later"):
            source(table).months()

    @pytest.mark.parametrize(
        ("fault", "advice"),
        [
            ((403, "accessDenied"), "BigQuery Job User"),
            ((401, "authError"), "check GOOGLE_APPLICATION_CREDENTIALS"),
            ((400, "invalid"), "check the settings that begin with BIGQUERY_"),
        ],
    )
    def test_others_fail_at_once_and_say_what_to_do(
        self, bigquery: BigQueryServer, table: str, fault: tuple[int, str], advice: str
    ) -> None:
        # Google's client renews its token and asks once more where the server says 401.
        bigquery.faults += [fault] * 3
        with pytest.raises(SourceError, match=advice) as caught:
            source(table).months()
        assert TOKEN not in str(caught.value)

    def test_a_table_that_is_not_there(self) -> None:
        with pytest.raises(SourceError, match=r"taxifare\.nowhere.*check BIGQUERY_TABLE"):
            source(f"{PROJECT}.taxifare.nowhere").months()

    def test_a_table_of_something_else(self, bigquery: BigQueryServer) -> None:
        table = bigquery.fill("else", trips().drop(columns="fare_amount"))
        with pytest.raises(SourceError, match="missing columns fare_amount"):
            source(table).months()
        table = bigquery.fill("near", trips().rename(columns={"fare_amount": "amount_fare"}).assign(note="no column"))
        with pytest.raises(SourceError, match=r"did you mean TRIP_COLUMNS=fare_amount=amount_fare\?"):
            source(table).months()
        table = bigquery.fill("text", trips().assign(pickup_datetime="2015-01-01"), pickup_type="STRING")
        with pytest.raises(SourceError, match="pickup_datetime: expected TIMESTAMP or DATETIME, received STRING"):
            source(table).months()

    def test_no_credentials(self, table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
        with pytest.raises(SourceError, match="set GOOGLE_APPLICATION_CREDENTIALS to the key file"):
            source(table).months()


def test_the_doctor_looks_at_some_trips_of_a_table(bigquery: BigQueryServer, tmp_path: Path) -> None:
    """At most a thousand of a window, within the bounds of every other query."""
    days = [str(day) for day in pd.date_range("2014-12-01 09:30", "2015-02-28 23:30", periods=3_600)]
    rides = trips(days).assign(**{f"{end}_latitude": 40.7 for end in ("pickup", "dropoff")})
    exchanged = {"pickup_longitude": "pickup_latitude", "pickup_latitude": "pickup_longitude"}
    sound, turned = bigquery.fill("sound", rides), bigquery.fill("turned", rides.rename(columns=exchanged))
    says = {}
    for table in (sound, turned):
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            trip_source="bigquery",
            bigquery_table=table,
            taxifare_home=tmp_path / "state",
        )
        found = {finding.part: finding for finding in examine(settings, lambda _: None)}
        says[table] = [found[part] for part in ("trips", "newest month", "base years")]
    assert all(finding.is_well for finding in says[sound]), says[sound]
    assert "1,000 of the 1,000 trips looked at" in says[sound][1].says
    assert [finding.is_well for finding in says[turned]] == [True, False, False]
    assert all("pickup longitudes lie in the city's latitudes" in finding.says for finding in says[turned][1:])
    assert sum("LIMIT 1000" in asked["query"] for asked in bigquery.queries) == 4
    with pytest.raises(SourceError, match="a query would read"):
        source(sound, maximum_bytes=1).sample(JANUARY)


def test_the_settings_name_the_table_and_its_limits(bigquery: BigQueryServer) -> None:
    table = bigquery.fill("settings", trips())
    made = make_source(
        Settings(_env_file=None, trip_source="bigquery", bigquery_table=table, dataset_size="1k")  # type: ignore[call-arg]
    )
    assert isinstance(made, BigQuery)
    assert (made.table, made.base_rows, made.maximum_bytes) == (table, 1_000, 10_000_000_000)
    assert list(made.months()) == [JANUARY, FEBRUARY]


def scored(folder: Path, fares: list[float], *, with_dropoffs: bool = False) -> UPath:
    """A scored month in the lake: rides without a drop-off time, unless there are any; the last cannot be priced."""
    rides = trips(["2015-01-05 10:00:00"] * len(fares)).astype({"pickup_datetime": "datetime64[us, UTC]"})
    rides["pickup_datetime"] = rides["pickup_datetime"].dt.tz_localize(None)
    if with_dropoffs:
        rides["dropoff_datetime"] = rides["pickup_datetime"]
    names = ("fare_usd", "upper_fare_usd", "corrected_fare_usd", "quoted_fare_usd")
    rides = rides.assign(key="a", is_validation=True, **dict.fromkeys(names, fares), model_version="2", fault=None)
    rides.loc[len(rides) - 1, [*names, "model_version", "fault"]] = [None] * 5 + ["no ride"]
    rides.astype({"passenger_count": "Int32", "fault": "string"}).to_parquet(folder / "month.parquet", index=False)
    return UPath(folder / "month.parquet")


@dataclass
class Warehouse:
    """A table of scored months, and how it looks."""

    server: BigQueryServer
    table: ScoredTable

    def months(self) -> dict[str, tuple[int, int, float]]:
        """Rides, promotion and highest fare of each month."""
        asked = f"SELECT month, COUNT(*), MIN(promotion), MAX(fare_usd) FROM `{self.table.name}` GROUP BY month"
        with connect(None, "EU") as client:
            return {str(month)[:7]: (*rest,) for month, *rest in client.query(asked).result()}

    def tables(self) -> set[str]:
        with connect(None, "EU") as client:
            return {table.table_id for table in client.list_tables(f"{PROJECT}.taxifare")}


@pytest.fixture
def warehouse(bigquery: BigQueryServer) -> Warehouse:
    """A table with a January of three rides and a February of two, by promotion 7."""
    table = ScoredTable(
        f"{PROJECT}.taxifare.scored_{uuid4().hex}", "USD", 10**9, partial(connect, None, "EU"), patience_s=2.0
    )
    bigquery.fill("exists", trips())
    return Warehouse(bigquery, table)


class TestScoredMonths:
    BEFORE: ClassVar = {"2015-01": (3, 7, 8.0), "2015-02": (2, 7, 4.0)}

    def fill(self, warehouse: Warehouse, folder: Path) -> None:
        assert warehouse.table.replace(scored(folder, [7.0, 8.0, 9.0]), JANUARY, 7, "USD") == 3
        warehouse.table.replace(scored(folder, [4.0, 5.0], with_dropoffs=True), FEBRUARY, 7, "USD")
        assert warehouse.months() == self.BEFORE

    def test_a_month_that_is_scored_again_replaces_its_rows_and_no_others(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        self.fill(warehouse, tmp_path)
        warehouse.table.replace(scored(tmp_path, [1.0, 2.0, 3.0, 4.0]), JANUARY, 8, "USD")
        assert warehouse.months() == {**self.BEFORE, "2015-01": (4, 8, 3.0)}
        assert not [name for name in warehouse.tables() if "unfinished" in name]

    def test_columns_say_what_they_are_and_in_which_unit(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.table.replace(scored(tmp_path, [7.0, 8.0]), JANUARY, 7, "USD")
        with connect(None, "EU") as client:
            table = client.get_table(warehouse.table.name)
            first, second = client.query(f"SELECT * FROM `{warehouse.table.name}` ORDER BY fault NULLS FIRST").result()
        told = {column.name: (column.field_type, column.description) for column in table.schema}
        assert told["fare_usd"] == ("FLOAT", "The prediction (USD)")
        assert told["pickup_datetime"] == ("DATETIME", "When the meter was started (city wall-clock time)")
        assert table.time_partitioning.field == "month"
        assert (first["model_version"], first["promotion"], first["fault"]) == ("2", 7, None)
        assert (second["model_version"], second["fare_usd"], second["fault"]) == (None, None, "no ride")
        assert first["pickup_datetime"] == datetime(2015, 1, 5, 10)

    def test_a_fault_at_any_call_leaves_the_month_as_it_was(self, warehouse: Warehouse, tmp_path: Path) -> None:
        self.fill(warehouse, tmp_path)
        january, calls = scored(tmp_path, [1.0, 2.0, 3.0, 4.0]), 0
        while True:
            warehouse.server.faults[:] = [None] * calls + [(403, "accessDenied")]
            with suppress(ScoredTableError):
                warehouse.table.replace(january, JANUARY, 8, "USD")
            warehouse.server.faults.clear()
            if warehouse.months() != self.BEFORE:
                break
            calls += 1
        assert calls >= 5, "data set, tables, the file and its parts, the statement"
        assert warehouse.months() == {**self.BEFORE, "2015-01": (4, 8, 3.0)}

    def test_passing_faults_are_tried_again(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.server.faults += [(503, "backendError"), None] * 20
        replace(warehouse.table, patience_s=30.0).replace(scored(tmp_path, [1.0, 2.0]), JANUARY, 8, "USD")
        warehouse.server.faults.clear()
        assert warehouse.months() == {"2015-01": (2, 8, 1.0)}

    def test_what_refuses_says_which_role_it_takes(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.server.faults += [(403, "accessDenied")]
        with pytest.raises(ScoredTableError, match="BigQuery Data Editor on the data set of SCORED_TRIPS_TABLE"):
            warehouse.table.replace(scored(tmp_path, [1.0]), JANUARY, 8, "USD")

    def test_an_outage_is_given_up(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.server.faults += [(503, "backendError")] * 20
        with pytest.raises(ScoredTableError, match="given up: try again later"):
            warehouse.table.replace(scored(tmp_path, [1.0]), JANUARY, 8, "USD")

    def test_a_data_set_that_is_not_there_and_a_table_of_something_else(
        self, warehouse: Warehouse, tmp_path: Path
    ) -> None:
        nowhere = replace(warehouse.table, name=f"{PROJECT}.nowhere.scored")
        with pytest.raises(ScoredTableError, match=r"nowhere.*: make the data set, or check SCORED_TRIPS_TABLE"):
            nowhere.replace(scored(tmp_path, [1.0]), JANUARY, 8, "USD")
        exists = replace(warehouse.table, name=f"{PROJECT}.taxifare.exists")
        with pytest.raises(ScoredTableError, match="expected a column month of DATE, received none: name another"):
            exists.replace(scored(tmp_path, [1.0]), JANUARY, 8, "USD")
