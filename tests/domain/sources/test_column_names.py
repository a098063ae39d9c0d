"""TRIP_COLUMNS: files whose columns have names of their own give the same trips, or say which column is not there."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from taxifare.environment import ServiceSettingsInForce, SettingsError, read_settings
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.base import SourceError
from taxifare.trips.months import parse_month
from tests.support.saint_denis import trips_between

FEBRUARY = parse_month("2024-02")

TRIPS = trips_between("2024-02-01", "2024-03-01", 300).assign(key=[f"{number:06d}" for number in range(300)])

OWN = {"pickup_datetime": "Début de course", "fare_amount": "prix", "key": "no"}

SET = ", ".join(f"{ours} = {theirs}" for ours, theirs in OWN.items())


def to_parquet(trips: pd.DataFrame, folder: Path) -> Path:
    trips.to_parquet(folder / "taxi_2024_02.parquet")
    return folder / "taxi_2024_02.parquet"


def to_csv(trips: pd.DataFrame, folder: Path) -> Path:
    trips.to_csv(folder / "taxi_2024_02.csv", index=False)
    return folder / "taxi_2024_02.csv"


def to_csv_gz(trips: pd.DataFrame, folder: Path) -> Path:
    (folder / "taxi_2024_02.csv.gz").write_bytes(gzip.compress(trips.to_csv(index=False).encode()))
    return folder / "taxi_2024_02.csv.gz"


Writer = Callable[[pd.DataFrame, Path], Path]

WRITERS: list[Writer] = [to_parquet, to_csv, to_csv_gz]


def settings_of(folder: Path, columns: str = "") -> Settings:
    return Settings(
        _env_file=None,
        taxifare_home=folder / "state",
        trip_source="folder",
        trip_folder=folder,
        trip_folder_quiet_s=0,
        trip_columns=columns,
        first_month="2024-02",
        last_month="2024-02",
    )


@pytest.mark.parametrize("write", WRITERS)
def test_a_month_of_other_names_is_the_same_month(write: Writer, tmp_path: Path) -> None:
    """A key of digits stays a text, and what is no column of a trip is left out."""
    write(TRIPS, tmp_path)
    plain = make_source(settings_of(tmp_path))
    then, revision = plain.read_month(FEBRUARY).trips, plain.months()[FEBRUARY]
    write(TRIPS.rename(columns=OWN).assign(tip=1.0), tmp_path)
    source = make_source(settings_of(tmp_path, SET))
    published = source.read_month(FEBRUARY)
    pd.testing.assert_frame_equal(published.trips, then)
    assert source.months() == {FEBRUARY: published.revision}
    assert published.revision != revision
    assert then["key"].iloc[0] == "000000"


@pytest.mark.parametrize("write", WRITERS)
def test_the_base_years_are_read_by_the_same_names(write: Writer, tmp_path: Path) -> None:
    earlier = trips_between("2023-01-01", "2024-01-01", 200)
    write(earlier, tmp_path).rename(tmp_path / f"taxi_base_x{''.join(write(earlier, tmp_path).suffixes)}")
    for file in tmp_path.glob("taxi_base_*"):
        file.unlink()
    file = write(earlier.rename(columns=OWN), tmp_path)
    file.rename(tmp_path / f"taxi_base_2023{''.join(file.suffixes)}")
    base = make_source(settings_of(tmp_path, "pickup_datetime=Début de course,fare_amount=prix")).read_base()
    assert sum(len(part.trips) for part in base.parts) == 200


def test_other_names_are_another_revision_of_the_same_file(tmp_path: Path) -> None:
    """What was a fare is another column now: the month is another one, though its file is not."""
    to_csv(TRIPS.assign(total=TRIPS["fare_amount"] + 1), tmp_path)
    by_total = make_source(settings_of(tmp_path, "fare_amount=total"))
    by_fare = make_source(settings_of(tmp_path, "fare_amount=fare_amount"))
    assert by_total.months() != by_fare.months()
    ahead = by_total.read_month(FEBRUARY).trips["fare_amount"] - by_fare.read_month(FEBRUARY).trips["fare_amount"]
    assert ahead.round(6).eq(1).all()


def test_exchanged_columns_can_be_exchanged_back(tmp_path: Path) -> None:
    names = {"pickup_longitude": "pickup_latitude", "pickup_latitude": "pickup_longitude"}
    to_csv(TRIPS.rename(columns=names), tmp_path)
    columns = ",".join(f"{ours}={theirs}" for ours, theirs in names.items())
    trips = make_source(settings_of(tmp_path, columns)).read_month(FEBRUARY).trips
    assert trips["pickup_longitude"].between(55, 56).all()


@pytest.mark.parametrize("write", WRITERS)
def test_a_named_column_that_is_not_there_is_said_with_those_that_are(write: Writer, tmp_path: Path) -> None:
    file = write(TRIPS, tmp_path)
    with pytest.raises(SourceError, match="expected a column prix, which TRIP_COLUMNS names for fare_amount") as raised:
        make_source(settings_of(tmp_path, "fare_amount=prix")).read_month(FEBRUARY)
    assert str(file) in str(raised.value)
    assert "received the columns pickup_datetime, pickup_longitude" in str(raised.value)


def test_a_named_column_that_is_there_twice_is_said(tmp_path: Path) -> None:
    text = TRIPS.rename(columns={"fare_amount": "prix", "passenger_count": "prix"}).to_csv(index=False)
    (tmp_path / "taxi_2024_02.csv").write_text(text)
    with pytest.raises(SourceError, match=r"expected a column prix, .* received it twice"):
        make_source(settings_of(tmp_path, "fare_amount=prix")).read_month(FEBRUARY)


@pytest.mark.parametrize("write", [to_csv, to_csv_gz])
def test_a_column_of_ours_that_is_there_twice_is_said(write: Writer, tmp_path: Path) -> None:
    """No setting names it, and only one of the two can be it."""
    write(TRIPS.rename(columns={"fare_amount": "prix", "passenger_count": "key"}), tmp_path)
    with pytest.raises(SourceError, match="expected a column key, received it twice"):
        make_source(settings_of(tmp_path, "fare_amount=prix")).read_month(FEBRUARY)


def test_names_are_of_files_and_not_of_bigquery_s_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other sources they are those of files of rides."""
    monkeypatch.setenv("TRIP_COLUMNS", "fare_amount=price")
    monkeypatch.setenv("TRIP_SOURCE", "bigquery")
    with pytest.raises(SettingsError, match=r"TRIP_COLUMNS is for files of your own, .* a view names columns"):
        read_settings(Settings)
    monkeypatch.setenv("TRIP_SOURCE", "tlc")
    assert read_settings(Settings).trip_columns == read_settings(ServiceSettingsInForce).trip_columns


def test_a_column_that_holds_something_else_is_said_with_the_setting(tmp_path: Path) -> None:
    to_csv(TRIPS.assign(prix="free"), tmp_path)
    with pytest.raises(SourceError, match=r"\(columns named by TRIP_COLUMNS\).*column fare_amount: expected number"):
        make_source(settings_of(tmp_path, "fare_amount=prix")).read_month(FEBRUARY)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("fare_amount", "expected pairs as in pickup_datetime=tpep_pickup,fare_amount=price, received 'fare_amount'"),
        ("fare_amount=", "expected pairs as in"),
        ("=price", "expected pairs as in"),
        ("fare=price", "expected a column of the trip table before each = .* received 'fare'"),
        ("fare_amont=price", r"received 'fare_amont' \(did you mean fare_amount\?\)"),
        ("fare_amount=a,fare_amount=b", "expected each name once before =, received 'fare_amount' twice"),
        ("fare_amount=a,key=a", "expected each name once after =, received 'a' twice"),
    ],
)
def test_what_is_no_mapping_is_said_as_a_setting(written: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_COLUMNS", written)
    with pytest.raises(SettingsError, match=rf"^TRIP_COLUMNS: .*{said}|^TRIP_COLUMNS: {said}"):
        read_settings(Settings)


@pytest.mark.parametrize("written", ["", " ", ",", "fare_amount=a=b", " fare_amount = the price , "])
def test_what_is_a_mapping_is_read_and_written_back(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_SOURCE", "folder")
    monkeypatch.setenv("TRIP_FOLDER", "trips")
    monkeypatch.setenv("TRIP_COLUMNS", written)
    pairs = dict(read_settings(Settings).trip_columns)
    assert set(pairs.values()) <= {"a=b", "the price"}
    assert read_settings(Settings).model_dump()["trip_columns"] == ",".join(f"{a}={b}" for a, b in pairs.items())
