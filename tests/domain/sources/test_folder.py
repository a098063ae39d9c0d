"""A folder of trip files: which file is read, what identifies it, what is said of one that is not as it should be."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxifare.sources import files
from taxifare.sources.base import (
    CannotTellError,
    MonthNotPublishedError,
    NoBaseError,
    SourceError,
    published_before,
)
from taxifare.sources.folder import Folder
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.months import parse_month
from taxifare.trips.publication import BasePublication

JANUARY = parse_month("2015-01")
CITY = Simulator(
    seed=1,
    trips_per_month=200,
    base_trips=500,
    first_month=JANUARY,
    last_month=parse_month("2015-03"),
    scenario="as-it-was",
    scenario_from=JANUARY,
)
TRIPS = CITY.read_month(JANUARY).trips


def text_of(trips: pd.DataFrame) -> str:
    """The trips as Kaggle writes them."""
    return trips.drop(columns="dropoff_datetime").to_csv(index=False, date_format="%Y-%m-%d %H:%M:%S UTC")


def damage(tmp_path: Path, name: str, content: bytes) -> SourceError:
    """What reading January says when this is its file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as refusal:
        Folder(tmp_path).read_month(JANUARY)
    assert str(tmp_path / name) in str(refusal.value), "the message names the file"
    return refusal.value


def parquet_bytes(tmp_path: Path) -> bytes:
    TRIPS.to_parquet(tmp_path / "scratch")
    return (tmp_path / "scratch").read_bytes()


# Which file


@pytest.mark.parametrize("name", ["taxi_2015_01.parquet", "taxi_2015_01.csv", "taxi_2015_01.csv.gz"])
def test_every_format_gives_the_same_trips(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        TRIPS.drop(columns="dropoff_datetime").to_parquet(tmp_path / name)
    else:
        content = text_of(TRIPS).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    publication = Folder(tmp_path).read_month(JANUARY)
    pd.testing.assert_frame_equal(publication.trips, TRIPS.assign(dropoff_datetime=None).astype(TRIPS.dtypes))
    assert publication.origin == str(tmp_path / name)


def test_parquet_goes_before_text_and_plain_text_before_packed(tmp_path: Path) -> None:
    (tmp_path / "taxi_2015_01.csv.gz").write_bytes(gzip.compress(text_of(TRIPS.head(3)).encode()))
    assert len(Folder(tmp_path).read_month(JANUARY).trips) == 3
    (tmp_path / "taxi_2015_01.csv").write_text(text_of(TRIPS.head(2)))
    assert len(Folder(tmp_path).read_month(JANUARY).trips) == 2
    TRIPS.head(1).to_parquet(tmp_path / "taxi_2015_01.parquet")
    assert len(Folder(tmp_path).read_month(JANUARY).trips) == 1


@pytest.mark.parametrize("endings", [("csv", "csv"), ("parquet", "csv"), ("csv.gz", "csv")])
def test_two_files_of_two_names_may_be_half_a_month_each(tmp_path: Path, endings: tuple[str, str]) -> None:
    """Whatever their formats: a conversion of a file has the file's name."""
    for half, ending in zip(("train", "val"), endings, strict=True):
        (tmp_path / f"taxi_2015_01.{half}.{ending}").write_text(text_of(TRIPS))
    for read in (Folder(tmp_path).months, lambda: Folder(tmp_path).read_month(JANUARY)):
        with pytest.raises(
            SourceError,
            match=r"one file for month 2015-01, received taxi_2015_01\.train\.\S+, .*val\.csv, each of which",
        ):
            read()


@pytest.mark.parametrize("other", ["taxi_base_2010.parquet", "taxi_base_2010.csv", "taxi_base_2009 (1).csv.gz"])
def test_base_years_in_two_files_are_not_read_by_half(tmp_path: Path, other: str) -> None:
    for name in ("taxi_base_2009.csv", other):
        (tmp_path / name).write_text(text_of(TRIPS))
    for ask in (Folder(tmp_path).base_revision, Folder(tmp_path).read_base, lambda: Folder(tmp_path).sample(None)):
        with pytest.raises(SourceError, match=r"one file for the base years, received .*: keep one, or narrow") as told:
            ask()
        assert "taxi_base_2009.csv" in str(told.value)
        assert other in str(told.value)


def test_what_is_there_and_not_read_is_named_with_what_is_read_in_its_place(tmp_path: Path) -> None:
    for name in ("taxi_2015_01.parquet", "taxi_base_2009.csv", "taxi_2015_01.csv.md5", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert Folder(tmp_path).not_read() == []
    for name in ("taxi_2015_01.csv", "taxi_2015_01.csv.gz", "taxi_base_2009.csv.gz", "taxi_2015_01 (1).csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "a folder.csv").mkdir()
    assert Folder(tmp_path).not_read() == [
        "taxi_2015_01.csv, taxi_2015_01.csv.gz: taxi_2015_01.parquet is read in their place; taxi_base_2009.csv.gz: "
        "taxi_base_2009.csv is read in its place (.parquet, .csv, .csv.gz: the first that is there)",
        "taxi_2015_01 (1).csv named as neither TRIP_FOLDER_MONTHS=taxi_{month:%Y_%m}.* nor "
        "TRIP_FOLDER_BASE=taxi_base_* says: rename it if it has trips, or move it away",
    ]
    (tmp_path / "taxi_2015_01.more.csv").write_text("x")
    assert "taxi_2015_01.csv," not in Folder(tmp_path).not_read()[0], "none of them is, as is said where it is read"


def test_only_trip_files_count_as_months(tmp_path: Path) -> None:
    """What lies beside a month's file is no hindrance, nor what is of no month that there is."""
    for name in ("taxi_2015_01.parquet.part", "taxi_2015_01.csv.md5", "taxi_base_2009.csv", "notes"):
        (tmp_path / name).write_text("x")
    for name in ("taxi_2015_13.csv", "taxi_0000_01.csv", "taxi_9999_12.csv", "taxi_2014_12.xlsx"):
        (tmp_path / name).write_text("x")
    (tmp_path / "taxi_2014_12.csv").mkdir()
    (tmp_path / "taxi_2015_01.csv").write_text(text_of(TRIPS))
    assert list(Folder(tmp_path, first_month=JANUARY).months()) == [JANUARY]


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda place: place.with_suffix(".parquet").mkdir(), "received a folder"),
    "a folder without an ending": (lambda place: place.mkdir(), "received a folder"),
    "a link to nothing": (lambda place: place.with_suffix(".csv").symlink_to("/nowhere"), "received a link to nothing"),
    "a link to itself": (
        lambda place: place.with_suffix(".csv").symlink_to(place.with_suffix(".csv")),
        "received what cannot be looked at: Too many levels of symbolic links",
    ),
    "a queue": (lambda place: os.mkfifo(place.with_suffix(".csv")), "received what is no file"),
    "other letters": (
        lambda place: place.with_name(place.name.upper() + ".CSV").write_text(text_of(TRIPS)),
        "received a name in other letters",
    ),
    "another ending": (lambda place: place.with_suffix(".xlsx").write_bytes(b"PK"), "received another ending"),
    "a download": (lambda place: place.with_suffix(".csv.part").write_text("key"), "received another ending"),
    "bytes that are no text": (
        lambda place: Path(os.fsdecode(os.fsencode(place) + b".\xff.csv")).write_text("x"),
        "received a name that cannot be read",
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_under_a_months_name_is_not_a_month_that_is_missing(tmp_path: Path, odd: str) -> None:
    make, received = ODD[odd]
    for month in (JANUARY, parse_month("2015-03")):
        (tmp_path / f"taxi_{month.start_time:%Y_%m}.csv").write_text(text_of(CITY.read_month(month).trips))
    make(tmp_path / "taxi_2015_02")
    folder = Folder(tmp_path)
    with pytest.raises(CannotTellError, match=received) as doubt:
        folder.months()
    assert str(doubt.value).startswith(f"cannot tell whether month 2015-02 is published: {tmp_path}/")
    assert (str(doubt.value.month), list(doubt.value.before)) == ("2015-02", [JANUARY])
    assert list(published_before(folder, JANUARY + 1)) == [JANUARY]
    with pytest.raises(SourceError, match=received) as refused:
        folder.read_month(JANUARY + 1)
    assert not isinstance(refused.value, MonthNotPublishedError)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_under_the_base_years_name_is_not_no_base(tmp_path: Path, odd: str) -> None:
    make, received = ODD[odd]
    make(tmp_path / "taxi_base_2009_2014")
    for ask in (Folder(tmp_path).base_revision, Folder(tmp_path).read_base):
        with pytest.raises(SourceError, match=received) as refused:
            ask()
        assert not isinstance(refused.value, NoBaseError)


def test_a_month_that_is_missing_before_one_that_is_there_may_be_late(tmp_path: Path) -> None:
    (tmp_path / "taxi_2015_03.csv").write_text(text_of(CITY.read_month(parse_month("2015-03")).trips))
    late = Folder(tmp_path, first_month=JANUARY)
    for ask in (late.months, lambda: late.read_month(JANUARY), lambda: late.read_month(JANUARY + 1)):
        with pytest.raises(CannotTellError, match=r"2015-01 .*: 2015-03 is.*set FIRST_MONTH to a month after it"):
            ask()
    assert list(Folder(tmp_path, first_month=parse_month("2015-03")).months()) == [parse_month("2015-03")]
    assert list(Folder(tmp_path, first_month=JANUARY, last_month=JANUARY).months()) == [parse_month("2015-03")]


def test_hidden_files_are_nobodys_trips(tmp_path: Path) -> None:
    """A writer that was killed leaves half a file, some systems their own notes on each file."""
    (tmp_path / ".4f1c.taxi_2015_01.parquet").write_bytes(b"PAR1")
    (tmp_path / "._taxi_base_1k.csv").write_bytes(b"of another system")
    folder = Folder(tmp_path, "*{month:%Y_%m}.*", "*base*")
    assert folder.months() == {}
    with pytest.raises(NoBaseError):
        folder.base_revision()


def test_months_come_oldest_first_whatever_their_names(tmp_path: Path) -> None:
    for name in ("12-2014.csv", "01-2015.csv", "02-2015.csv"):
        (tmp_path / name).write_text(text_of(TRIPS))
    folder = Folder(tmp_path, months_pattern="{month:%m}-{month:%Y}.*")
    assert [str(month) for month in folder.months()] == ["2014-12", "2015-01", "2015-02"]
    assert len(folder.read_month(JANUARY).trips) == len(TRIPS)


def test_text_in_a_pattern_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "trips+[2015-01].csv").write_text(text_of(TRIPS))
    assert list(Folder(tmp_path, months_pattern="trips+[{month:%Y-%m}].csv").months()) == [JANUARY]
    assert list(Folder(tmp_path, months_pattern="trips?[{month:%Y-%m}].c*").months()) == [JANUARY]
    assert list(Folder(tmp_path, months_pattern="trips.[{month:%Y-%m}].csv").months()) == []


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("taxi_{month:%b_%Y}.*", "received the code %b"),
        ("taxi_{day:%Y_%m}.*", "received the field 'day'"),
        ("taxi_{month:%Y}.*", "received neither or only one"),
        ("taxi_*.csv", "received neither or only one"),
        ("taxi_{month}.csv", "received neither or only one"),
        ("taxi_{month:%Y%Y%m}.*", "redefinition of group name 'year'"),
        ("taxi_{month:%Y_%m.*", "unmatched '{' in format spec"),
    ],
)
def test_a_pattern_that_cannot_tell_the_month_is_refused_at_once(tmp_path: Path, pattern: str, told: str) -> None:
    with pytest.raises(SourceError) as refusal:
        Folder(tmp_path, months_pattern=pattern)
    assert f"month pattern {pattern!r}: expected %Y and %m once each" in str(refusal.value)
    assert told in str(refusal.value)


# What identifies a month


def test_a_revision_is_that_of_the_content(tmp_path: Path) -> None:
    file, folder = tmp_path / "taxi_2015_01.csv", Folder(tmp_path)
    file.write_text(text_of(TRIPS))
    first = folder.months()[JANUARY]
    os.utime(file, (0, 0))
    file.rename(tmp_path / "taxi_2015_01.again.csv")
    assert folder.months()[JANUARY] == first == folder.read_month(JANUARY).revision


def test_a_restated_month_is_seen_even_if_size_and_time_are_kept(tmp_path: Path) -> None:
    """As `cp -p` or `rsync --times --inplace` leave it: only the change time tells."""
    file, folder = tmp_path / "taxi_2015_01.csv", Folder(tmp_path)
    file.write_text(text_of(TRIPS))
    status = file.stat()
    seen = []
    for number in range(20):
        file.write_text(text_of(TRIPS.assign(passenger_count=number % 10)))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_size == status.st_size
        seen.append(folder.months()[JANUARY])
        assert seen[-1] == folder.read_month(JANUARY).revision
    assert len(set(seen)) == 10
    assert seen[:10] == seen[10:], "the same content is the same revision again"


# What is not there


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "nowhere")
    for read in (folder.months, folder.read_base, folder.base_revision, lambda: folder.read_month(JANUARY)):
        with pytest.raises(SourceError, match=r"nowhere: expected a folder of trip files, received No such file"):
            read()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "trips").touch()
    with pytest.raises(SourceError, match="trips: expected a folder of trip files, received Not a directory"):
        Folder(tmp_path / "trips").months()


def test_a_missing_month_says_which_file_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MonthNotPublishedError) as refusal:
        Folder(tmp_path).read_month(JANUARY)
    assert str(refusal.value) == (
        f"{tmp_path}: no file for month 2015-01: "
        "expected a file named taxi_2015_01.* that ends in .parquet, .csv or .csv.gz "
        "(TRIP_FOLDER_MONTHS=taxi_{month:%Y_%m}.*); nothing is there"
    )
    (tmp_path / "rides-jan.csv").write_text(text_of(TRIPS))
    with pytest.raises(MonthNotPublishedError, match=r"TRIP_FOLDER_MONTHS=taxi_.*; named otherwise: rides-jan\.csv$"):
        Folder(tmp_path).read_month(JANUARY)


def test_a_missing_base_says_which_file_was_looked_for(tmp_path: Path) -> None:
    for read in (Folder(tmp_path).read_base, Folder(tmp_path).base_revision):
        with pytest.raises(SourceError, match=r"no file of the base years: expected a file named taxi_base_\*"):
            read()


# What is not trips


def test_an_empty_file(tmp_path: Path) -> None:
    for name in ("taxi_2015_01.csv.gz", "taxi_2015_01.csv", "taxi_2015_01.parquet"):
        assert "expected trips, received an empty file" in str(damage(tmp_path, name, b""))


def test_an_empty_file_packed(tmp_path: Path) -> None:
    assert "expected trips, received an empty file" in str(damage(tmp_path, "taxi_2015_01.csv.gz", gzip.compress(b"")))


def test_a_header_without_rows(tmp_path: Path) -> None:
    header = text_of(TRIPS.head(0)).encode()
    told = str(damage(tmp_path, "taxi_2015_01.csv", header))
    assert told.endswith("month 2015-01: expected trips, received no rows")


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    told = str(damage(tmp_path, "taxi_2015_01.parquet", parquet_bytes(tmp_path)[:-100]))
    assert "expected parquet, received" in told


def test_a_parquet_file_with_bytes_flipped(tmp_path: Path) -> None:
    content = bytearray(parquet_bytes(tmp_path))
    content[200:260] = bytes(60)
    assert "expected parquet, received" in str(damage(tmp_path, "taxi_2015_01.parquet", bytes(content)))


def test_something_else_called_parquet(tmp_path: Path) -> None:
    told = str(damage(tmp_path, "taxi_2015_01.parquet", text_of(TRIPS).encode()))
    assert "expected parquet, received" in told
    assert "a text that begins 'key,pickup_datetime" in told


@pytest.mark.parametrize(
    "spoil",
    [lambda packed: packed[: len(packed) // 2], lambda packed: packed[:60] + b"\x00\xff" * 9 + packed[78:]],
    ids=["truncated", "corrupt"],
)
def test_damaged_gzip(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    told = str(damage(tmp_path, "taxi_2015_01.csv.gz", spoil(gzip.compress(text_of(TRIPS).encode()))))
    assert "expected gzip, received" in told


def test_plain_text_called_gzip(tmp_path: Path) -> None:
    told = str(damage(tmp_path, "taxi_2015_01.csv.gz", text_of(TRIPS).encode()))
    assert "expected gzip, received" in told
    assert "expected gzip, received a text that begins" in told


@pytest.mark.parametrize("name", ["taxi_2015_01.csv", "taxi_2015_01.parquet", "taxi_2015_01.csv.gz"])
def test_a_login_page_instead_of_trips(tmp_path: Path, name: str) -> None:
    page = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
    told = str(damage(tmp_path, name, gzip.compress(page) if name.endswith("gz") else page))
    assert "received a web page that begins" in told


def test_text_cut_off_in_the_middle_of_a_row(tmp_path: Path) -> None:
    told = str(damage(tmp_path, "taxi_2015_01.csv", text_of(TRIPS).encode()[:-40]))
    assert "expected CSV, received" in told
    assert "Expected 8 columns, got 3" in told


def parquet_of(trips: pd.DataFrame, **columns: object) -> bytes:
    """The trips as parquet, some columns as they are given."""
    table, content = pa.Table.from_pandas(trips, preserve_index=False), io.BytesIO()
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array([values] * len(trips)))
    pq.write_table(table, content)
    return content.getvalue()


def damaged(content: bytes, old: bytes, new: bytes) -> bytes:
    """The content with its last `old` overwritten."""
    at = content.rindex(old)
    return content[:at] + new + content[at + len(new) :]


CSV = text_of(TRIPS).encode()
FIRST_KEY = CSV.split(b"\n")[1].split(b",")[0]
ODD_FILES: dict[str, tuple[str, bytes, str]] = {
    "the index of pandas, as text": (
        "csv",
        TRIPS.drop(columns="dropoff_datetime").to_csv().encode(),
        "unknown columns '' (an index? write without it); expected pickup_datetime",
    ),
    "the index of pandas, in parquet": (
        "parquet",
        parquet_of(TRIPS.assign(__index_level_0__=range(len(TRIPS)))),
        "unknown columns '__index_level_0__' (an index? write without it)",
    ),
    "a header in Latin-1": (
        "csv",
        CSV.replace(b"key", b"cl\xe9", 1),
        "expected CSV in UTF-8, received the byte 0xe9 after 'cl'",
    ),
    "a value in Latin-1": (
        "csv",
        CSV.replace(FIRST_KEY, b"\xe9", 1),
        "expected CSV in UTF-8, received the byte 0xe9 after",
    ),
    "UTF-16": ("csv", text_of(TRIPS).encode("utf-16"), "expected CSV in UTF-8, received UTF-16"),
    "metadata that are no JSON": (
        "parquet",
        damaged(parquet_of(TRIPS), b'{"index_columns"', b"xx"),
        "expected parquet, received one whose metadata are damaged",
    ),
    "metadata that are no text": (
        "parquet",
        damaged(parquet_of(TRIPS), b'{"index_columns"', b"\xff"),
        "expected parquet in UTF-8, received the byte 0xff",
    ),
    "a number that ends in the middle": (
        "csv",
        CSV.replace(b"-73.9", b"-73.\x009", 1),
        "expected number, received '-73.\\x009",
    ),
    "times for fares": (
        "parquet",
        parquet_of(TRIPS, fare_amount=pd.Timestamp("2015-01-01")),
        "column fare_amount: expected number, received datetime64",
    ),
    "spans for passengers": (
        "parquet",
        parquet_of(TRIPS, passenger_count=pd.Timedelta("1s")),
        "column passenger_count: expected integer, received timedelta64",
    ),
    "truths for fares": (
        "parquet",
        parquet_of(TRIPS, fare_amount=True),
        "column fare_amount: expected number, received bool",
    ),
    "lists for keys": ("parquet", parquet_of(TRIPS, key=["a"]), "column key: expected text, received object"),
    "records for times": ("parquet", parquet_of(TRIPS, pickup_datetime={"a": 1}), "column pickup_datetime: expected t"),
}


@pytest.mark.parametrize("odd", ODD_FILES)
def test_an_odd_file_is_told_in_words(tmp_path: Path, odd: str) -> None:
    ending, content, told = ODD_FILES[odd]
    assert told in str(damage(tmp_path, f"taxi_2015_01.{ending}", content))
    (tmp_path / f"taxi_base_odd.{ending}").write_bytes(content)
    with pytest.raises(SourceError) as refused:
        Folder(tmp_path).read_base().whole()
    assert str(tmp_path / f"taxi_base_odd.{ending}") in str(refused.value)
    assert told in str(refused.value)


def test_a_base_text_may_end_in_blank_lines_but_its_lines_in_no_cr_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(files, "_BYTES_OF_A_ROW", len(CSV) - 100)
    (tmp_path / "taxi_base_1.csv").write_bytes(CSV + b"\n" * 3 * len(CSV))
    assert len(Folder(tmp_path).read_base().whole().trips) == len(TRIPS)
    (tmp_path / "taxi_base_1.csv").write_bytes(CSV.replace(b"\n", b"\r"))
    with pytest.raises(SourceError, match="expected lines that end with LF or CRLF, received lines that end with CR"):
        Folder(tmp_path).read_base().whole()


# What is not a trip table


def test_missing_and_unknown_columns_are_named(tmp_path: Path) -> None:
    renamed = TRIPS.rename(columns={"fare_amount": "fare", "passenger_count": "riders"})
    told = str(damage(tmp_path, "taxi_2015_01.csv", text_of(renamed).encode()))
    assert "month 2015-01: missing columns passenger_count, fare_amount; unknown columns riders, fare" in told


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        (
            "fare_amount",
            "eleven",
            "column fare_amount: expected number, received 'eleven' (the first of 1 such values)",
        ),
        ("passenger_count", "1.5", "column passenger_count: expected integer, received 1.5"),
        ("passenger_count", "two", "column passenger_count: expected integer, received 'two'"),
        ("pickup_datetime", "01/02/2015", "column pickup_datetime: expected timestamp, received '01/02/2015'"),
        ("pickup_datetime", "", "column pickup_datetime: 1 null values, expected none"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_column(tmp_path: Path, column: str, value: str, told: str) -> None:
    rows = text_of(TRIPS).splitlines()
    cells = rows[7].split(",")
    cells[rows[0].split(",").index(column)] = value
    rows[7] = ",".join(cells)
    assert f"month 2015-01: {told}" in str(damage(tmp_path, "taxi_2015_01.csv", ("\n".join(rows) + "\n").encode()))


def test_a_null_place_is_a_trip_and_a_null_fare_too(tmp_path: Path) -> None:
    """Natural defects are published: what to do about them is cleaning's business."""
    gone = ["dropoff_longitude", "fare_amount", "passenger_count"]
    spoiled = TRIPS.copy()
    spoiled.loc[spoiled.index == 3, gone] = None
    (tmp_path / "taxi_2015_01.csv").write_text(text_of(spoiled))
    read = Folder(tmp_path).read_month(JANUARY).trips
    assert read[gone].isna().all(axis="columns").tolist() == [row == 3 for row in range(len(TRIPS))]


def test_half_a_second_into_february_is_not_january(tmp_path: Path) -> None:
    late = TRIPS.copy()
    late.loc[late.index[-2:], "pickup_datetime"] = pd.to_datetime(["2015-01-31 23:59:59", "2015-02-01 00:00:00"])
    told = str(damage(tmp_path, "taxi_2015_01.csv", text_of(late).encode()))
    assert (
        "month 2015-01: column pickup_datetime: expected times from 2015-01-01 00:00:00 until before "
        f"2015-02-01 00:00:00, received 2015-02-01 00:00:00 (the first of 1 such rows of {len(TRIPS)})"
    ) in told


def test_another_months_file_under_this_months_name(tmp_path: Path) -> None:
    february = CITY.read_month(parse_month("2015-02")).trips
    told = str(damage(tmp_path, "taxi_2015_01.csv", text_of(february).encode()))
    assert f"the first of {len(february)} such rows of {len(february)}" in told


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz"])
def test_the_base_ends_before_the_first_month_and_what_was_cut_is_said(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kaggle's train.csv goes to the middle of 2015: its later trips are those of the months to come."""
    monkeypatch.setattr(files, "_ROWS_AT_ONCE", 100)
    before, file = CITY.read_base().whole().trips, tmp_path / f"taxi_base_kaggle.{ending}"

    def write(trips: pd.DataFrame) -> None:
        if ending == "parquet":
            trips.to_parquet(file, index=False)
        else:
            content = text_of(trips).encode()
            file.write_bytes(gzip.compress(content) if ending == "csv.gz" else content)

    write(before)
    folder = Folder(tmp_path, first_month=JANUARY)
    assert folder.base_revision() == Folder(tmp_path).base_revision(), "of a file with nothing to cut, as ever"
    assert folder.read_base().whole().dropped == {}

    write(pd.concat([before, TRIPS]).sample(frac=1, random_state=1))
    base = folder.read_base()
    parts = list(base.parts)
    assert len(parts) > 2
    assert {part.revision for part in parts} == {base.revision} == {folder.base_revision()}
    whole = BasePublication(parts, base.revision, base.origin).whole()
    assert (len(whole.trips), whole.dropped) == (len(before), {"not_before_first_month": len(TRIPS)})
    assert whole.trips["pickup_datetime"].max() < pd.Timestamp("2015-01-01")
    earlier = Folder(tmp_path, first_month=parse_month("2014-06"))
    assert len({base.revision, earlier.base_revision(), Folder(tmp_path).base_revision()}) == 3
    assert len(Folder(tmp_path).read_base().whole().trips) == len(before) + len(TRIPS)

    write(TRIPS)
    with pytest.raises(SourceError, match=r"expected trips of before FIRST_MONTH=2015-01, received \d+ later ones"):
        folder.read_base().whole()


def test_the_base_file_may_be_of_any_time_but_not_of_any_shape(tmp_path: Path) -> None:
    CITY.read_base().whole().trips.to_parquet(tmp_path / "taxi_base_2009_2014.parquet")
    base = Folder(tmp_path).read_base().whole()
    assert len(base.trips) == 500
    assert list(base.trips.columns) == list(COLUMN_NAMES)
    assert base.revision == Folder(tmp_path).base_revision()
    (tmp_path / "taxi_base_2009_2014.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"taxi_base_2009_2014\.parquet: expected parquet"):
        Folder(tmp_path).read_base().whole()
