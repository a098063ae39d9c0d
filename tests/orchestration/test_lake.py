"""The lake: what is written comes back as it was, and a writer that dies leaves what was there."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from taxifare.buckets import UnreachableError
from taxifare.gate.evidence import Appraisal
from taxifare.gate.scores import Scores
from taxifare.model.exposure import Exposure
from taxifare.monitoring.errors import MonitoringError
from taxifare.monitoring.realised import RealisedMonth
from taxifare.training.base_trips import BaseTrips
from taxifare.trips import stored
from taxifare.trips.cities import Rule
from taxifare.trips.columns import TRIP_COLUMNS
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess
from taxifare.trips.stored import marks_of
from taxifare.trips.table import DTYPES
from taxifare_dagster.io_managers import BaseTripsIOManager, JsonIOManager, ParquetIOManager
from taxifare_dagster.lake import realised
from tests.support.approvals import contender
from tests.support.small import base_file, raw_month, small_settings

APPRAISAL = Appraisal(
    version="7",
    contender=contender("7", Scores(trips=3, mae=1 / 3, rmse=0.1 + 0.2, bias=-1e-9), correction=1 / 7),
    exposure=(
        Exposure(
            subject="2015-01",
            revision="a",
            first_pickup=dt.datetime(2015, 1, 1, 0, 0, 1),
            last_pickup=dt.datetime(2015, 1, 24, 23, 59, 59, 999999),
        ),
    ),
)


@pytest.fixture(params=["folder", "bucket", pytest.param("s3_bucket", marks=pytest.mark.slow)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    """A folder, and buckets of Google and Amazon: no folders, no rename."""
    if request.param == "folder":
        return small_settings(tmp_path).lake
    return small_settings(tmp_path, storage_uri=f"{request.getfixturevalue(request.param)}/taxifare").lake


@pytest.fixture
def trips(tmp_path: Path) -> Trips:
    """A month as published."""
    return raw_month(small_settings(tmp_path, simulator_trips_per_month=300), "2015-01")


def write(manager: dg.UPathIOManager, value: Any, month: str = "2015-01-01") -> None:
    context = dg.build_output_context(asset_key=dg.AssetKey("trips"), partition_key=month)
    manager.handle_output(context, value)


def read(manager: dg.UPathIOManager, kind: type) -> Any:
    return manager.load_from_path(
        dg.build_input_context(asset_key=dg.AssetKey("trips"), dagster_type=dg.PythonObjectDagsterType(kind)),
        manager._base_path / "trips" / f"2015-01-01{manager.extension}",
    )


def files_in(lake: UPath) -> list[str]:
    return sorted(path.name for path in lake.rglob("*") if path.is_file())


def test_a_month_keeps_its_types_and_its_edition(lake: UPath, trips: Trips) -> None:
    manager = ParquetIOManager(lake, "fare")
    write(manager, trips)
    found = read(manager, Trips)
    pd.testing.assert_frame_equal(found.frame, trips.frame)
    assert (found.edition, found.target) == (trips.edition, None)
    assert all(
        found.frame[column.name].dtype == pd.api.types.pandas_dtype(DTYPES[column.kind]) for column in TRIP_COLUMNS
    )
    assert files_in(lake) == ["2015-01-01.parquet"]


def test_a_later_edition_replaces_an_earlier_one(lake: UPath, trips: Trips) -> None:
    manager = ParquetIOManager(lake, "fare")
    write(manager, trips)
    write(manager, Trips(Edition("2015-01", "r2"), trips.frame[:10]))
    assert read(manager, Trips).edition.revision == "r2"
    assert files_in(lake) == ["2015-01-01.parquet"]


def test_trips_say_in_their_file_which_edition_they_are_and_what_they_were_made_ready_for(
    lake: UPath, trips: Trips
) -> None:
    """As they always did: files of before are read, and those of today by whoever reads parquet."""
    manager = ParquetIOManager(lake, "fare")
    for written in (trips, replace(trips, target="fare")):
        write(manager, written)
        with (lake / "trips" / "2015-01-01.parquet").open("rb") as file:
            marks = json.loads(pq.read_schema(file).metadata[b"PANDAS_ATTRS"])
        assert marks == {"subject": "2015-01", "revision": trips.edition.revision} | (
            {} if written.target is None else {"target": "fare"}
        )
        found = read(manager, Trips)
        assert (found.edition, found.target, found.frame.attrs) == (trips.edition, written.target, {})
    assert trips.frame.attrs == {}


@pytest.mark.parametrize("most_in_memory", [1_000, 50])
def test_features_that_an_earlier_release_stored_are_not_read(
    tmp_path: Path, trips: Trips, most_in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of the city as it was: since then a rule came in, and an airport was moved."""
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", most_in_memory)
    settings = small_settings(tmp_path)
    before = settings.city_facts
    moved = replace(before.airports[0], latitude_deg=40.75)
    rules = (*before.rules, Rule("fares_2022_12", dt.date(2022, 12, 19), "A fare rise"))
    for city in (before, replace(before, airports=(moved, *before.airports[1:]), rules=rules)):
        old = preprocess(trips, before, settings.target_facts).trips.frame
        old.attrs.update(marks_of(trips.edition, "fare"))
        folder = settings.lake / "trips"
        folder.mkdir(parents=True, exist_ok=True)
        old.to_parquet(folder / "2015-01-01.parquet", index=False)
        found = read(ParquetIOManager(settings.lake, "fare", city), Trips)
        made_now = preprocess(trips, city, settings.target_facts).trips
        pd.testing.assert_frame_equal(found.training.reset_index(drop=True), made_now.training, check_like=True)


# What a checksum finds in bytes does not depend on where they were read from.
@pytest.mark.parametrize("lake", ["folder", pytest.param("bucket", marks=pytest.mark.slow)], indirect=True)
def test_a_file_that_was_damaged_is_never_read_as_other_values(lake: UPath, trips: Trips) -> None:
    manager, path = ParquetIOManager(lake, "fare"), lake / "trips" / "2015-01-01.parquet"
    write(manager, trips)
    content, refused = path.read_bytes(), 0
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # names of columns stand behind them
    for at in range(100, pages, pages // 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            pd.testing.assert_frame_equal(read(manager, Trips).frame, trips.frame)
        except (pa.ArrowException, OSError):  # a checksum, a page's header, or what was packed
            refused += 1
    assert refused > 20


def test_a_frame_is_not_taken_for_trips(lake: UPath, trips: Trips) -> None:
    """A rehearsal is of many editions, and has no marks: it comes back as the frame that it is."""
    manager = ParquetIOManager(lake, "fare")
    write(manager, trips.frame)
    pd.testing.assert_frame_equal(read(manager, pd.DataFrame), trips.frame)
    with pytest.raises(dg.Failure, match=r"expected trips marked .*, received no marks: materialize them again"):
        read(manager, Trips)


def test_trips_that_were_made_ready_for_another_target_are_refused(lake: UPath, trips: Trips) -> None:
    write(ParquetIOManager(lake, "fare"), replace(trips, target="fare"))
    with pytest.raises(dg.Failure, match="expected trips for TARGET=duration, received trips for TARGET=fare"):
        read(ParquetIOManager(lake, "duration"), Trips)


def test_what_the_lake_holds_is_asked_for_by_asset_and_partition(lake: UPath, trips: Trips) -> None:
    manager = ParquetIOManager(lake, "fare")
    assert manager.stored("trips", "2015-01-01") is None
    assert manager.stored_frame("trips", "2015-01-01") is None
    write(manager, trips)
    found = manager.stored("trips", "2015-01-01")
    assert found is not None
    assert found.edition == trips.edition
    pd.testing.assert_frame_equal(found.frame, trips.frame)


def test_models_come_back_to_the_last_digit(lake: UPath) -> None:
    manager = JsonIOManager(lake, "fare")
    write(manager, APPRAISAL)
    assert read(manager, Appraisal) == APPRAISAL
    assert files_in(lake) == ["2015-01-01.json"]


class DyingParquetIOManager(ParquetIOManager):
    """Dies when half of the file is written."""

    def write(self, value: Trips | pd.DataFrame, path: UPath) -> None:
        super().write(value, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        raise KeyboardInterrupt


def test_a_writer_that_dies_leaves_the_earlier_month_whole(lake: UPath, trips: Trips) -> None:
    write(ParquetIOManager(lake, "fare"), trips)
    with pytest.raises(KeyboardInterrupt):
        write(DyingParquetIOManager(lake, "fare"), replace(trips, frame=trips.frame[:10]))
    pd.testing.assert_frame_equal(read(ParquetIOManager(lake, "fare"), Trips).frame, trips.frame)
    assert files_in(lake) == ["2015-01-01.parquet"]


def test_a_writer_that_dies_leaves_no_first_half_of_a_month(lake: UPath, trips: Trips) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(DyingParquetIOManager(lake, "fare"), trips)
    assert files_in(lake) == []


def write_base(manager: BaseTripsIOManager, trips: BaseTrips) -> None:
    manager.handle_output(dg.build_output_context(asset_key=dg.AssetKey("base_trips")), trips)


def stored_base(lake: UPath) -> pd.DataFrame:
    found = BaseTripsIOManager(lake, "fare").stored()
    assert found is not None
    return pd.concat(found.batches(), ignore_index=True)


class DyingBaseTripsIOManager(BaseTripsIOManager):
    """Dies when half of the file is written."""

    def write(self, value: BaseTrips, path: UPath) -> None:
        super().write(value, path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def base_years(tmp_path_factory: pytest.TempPathFactory) -> tuple[BaseTrips, BaseTrips]:
    """The base years of two cities; not to be changed."""
    home = tmp_path_factory.mktemp("base")
    return base_file(small_settings(home)), base_file(small_settings(home, seed=2))


def test_the_base_years_come_back_a_part_at_a_time_and_survive_a_writer_that_dies(
    lake: UPath, base_years: tuple[BaseTrips, BaseTrips]
) -> None:
    trips, others = base_years
    assert BaseTripsIOManager(lake, "fare").stored() is None
    write_base(BaseTripsIOManager(lake, "fare"), trips)
    pd.testing.assert_frame_equal(stored_base(lake), pd.concat(trips.batches(), ignore_index=True))
    with pytest.raises(KeyboardInterrupt):
        write_base(DyingBaseTripsIOManager(lake, "fare"), others)
    pd.testing.assert_frame_equal(stored_base(lake), pd.concat(trips.batches(), ignore_index=True))
    assert files_in(lake) == ["base_trips.parquet"]


def test_what_another_process_has_put_into_a_bucket_is_seen_at_once_and_whole(bucket: str, tmp_path: Path) -> None:
    """gcsfs remembers what a folder holds, and reads a file up to the size that it remembers."""
    from google.cloud import storage

    lake = small_settings(tmp_path, storage_uri=f"{bucket}/lake").lake
    folder = storage.Client("wagoncab").bucket(bucket.removeprefix("gs://"))
    folder.blob("lake/first.json").upload_from_string("1")
    assert [file.name for file in lake.iterdir()] == ["first.json"]
    assert not (lake / "second.json").exists()
    folder.blob("lake/second.json").upload_from_string("2")
    folder.blob("lake/first.json").upload_from_string("one, corrected")
    assert (lake / "second.json").exists()
    assert (lake / "first.json").read_text() == "one, corrected"


def test_a_bucket_that_is_missing_is_not_made(bucket: str, trips: Trips, tmp_path: Path) -> None:
    """A misspelt STORAGE_URI is to be heard of, not to be paid for."""
    from google.cloud import storage

    lake = small_settings(tmp_path, storage_uri=f"{bucket}-misspelt/lake").lake
    with pytest.raises(UnreachableError, match=r"-misspelt: there is no such bucket \(404\)"):
        write(ParquetIOManager(lake, "fare"), trips)
    assert f"{bucket}-misspelt" not in {f"gs://{found.name}" for found in storage.Client("wagoncab").list_buckets()}


def test_what_quotes_came_to_is_read_by_month_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    lake = UPath(tmp_path)
    assert realised(lake) == {}
    (lake / "served_mae").mkdir()
    found = RealisedMonth(month="2015-01", unit="USD", rides=0, share_matched=None, errors=(), beside=())
    (lake / "served_mae" / "2015-01-01.json").write_text(found.model_dump_json())
    assert realised(lake) == {parse_month("2015-01"): found}
    (lake / "served_mae" / "2015-02-01.json").write_text("{")
    with pytest.raises(MonitoringError, match="Materialize served_mae of 2015-02 again"):
        realised(lake)
