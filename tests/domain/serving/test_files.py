"""Files of rides: every row keeps its place, what can be priced is, and what cannot says why."""

import gzip
import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from taxifare.serving import files as serving_files
from taxifare.serving.batches import answers_of, score_file
from taxifare.serving.bundle import Bundle
from taxifare.serving.files import Form, Kind, RideFileError, Scored, kind_of, score
from taxifare.serving.rides import FIELDS
from taxifare.sources.base import SourceError
from taxifare.sources.folder import Folder
from taxifare.trips import csv_blocks
from taxifare.trips.clock import Offsets
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.months import parse_month
from tests.support.bundles import Made

GOOD = "2015-01-03 18:05:00,-73.98,40.75,-73.95,40.78,1"
HEADING = ",".join(FIELDS)


@pytest.fixture(scope="module")
def bundle(made: Made) -> Bundle:
    return made.bundle


def of_csv(bundle: Bundle, *lines: str, heading: str = HEADING) -> tuple[Scored, pd.DataFrame]:
    answers = io.BytesIO()
    found = score(io.BytesIO("\n".join([heading, *lines, ""]).encode()), answers, "csv", bundle)
    return found, pd.read_csv(io.BytesIO(answers.getvalue()), dtype={"key": str})


def parquet_of(frame: pd.DataFrame, rows_a_group: int | None = None) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), file, row_group_size=rows_a_group)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("threads", [1, 3])
def test_real_columns_stay_and_every_answer_is_the_registered_model_s(made: Made, kind: Kind, threads: int) -> None:
    trips = made.trips[["key", *FIELDS, "fare_amount"]]
    told, rows = io.BytesIO(), []
    if kind == "csv":
        trips.to_csv(told, index=False)
    else:
        told = parquet_of(trips, rows_a_group=700)
    told.seek(0)
    answers = io.BytesIO()
    found = score(told, answers, kind, made.bundle, threads=threads, on_rows=rows.append)
    answers.seek(0)
    scored = pd.read_csv(answers) if kind == "csv" else pd.read_parquet(answers)
    assert found == Scored(len(trips), 0, (), Offsets(without=len(trips)))
    assert rows[-1] == len(trips)
    assert scored["key"].astype(str).tolist() == trips["key"].astype(str).tolist()
    np.testing.assert_allclose(scored["fare_usd"], made.model.predict(trips), atol=0.005)
    np.testing.assert_allclose(scored["corrected_fare_usd"], made.model.predict(trips, corrected=True), atol=0.005)
    assert (scored["upper_fare_usd"] >= scored["fare_usd"]).all()
    assert set(scored["model_version"].astype(str)) == {"1"}
    assert scored["fault"].isna().all()


@pytest.mark.parametrize(
    ("ride", "field", "received"),
    [
        ("2015-01-03 18:05:00,0,40.75,-73.95,40.78,1", "pickup_longitude", "'0'"),
        ("2015-01-03 18:05:00,-73.98,nonsense,-73.95,40.78,1", "pickup_latitude", "'nonsense'"),
        ("2015-01-03 18:05:00,-73.98,,-73.95,40.78,1", "pickup_latitude", "None"),
        ("2015-01-03 18:05:00,-73.98,0x28,-73.95,40.78,1", "pickup_latitude", "'0x28'"),
        ("2015-01-03 18:05:00,-73.98,inf,-73.95,40.78,1", "pickup_latitude", "'inf'"),
        ("2015-01-03 18:05:00,-73.98,40.75,-73.95,40.78,208", "passenger_count", "'208'"),
        ("2015-01-03 18:05:00,-73.98,40.75,-73.95,40.78,1.5", "passenger_count", "'1.5'"),
        ("2015-01-03 18:05:00,-73.98,40.75,-73.95,40.78,1e300", "passenger_count", "'1e300'"),
        ("2015-01-03 18:05:00,-73.98,40.75,-73.95,40.78,two", "passenger_count", "'two'"),
        ("1420308300,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "'1420308300'"),
        ("2015-01-03,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "'2015-01-03'"),
        ("2015-01-03 18:05:00 EST,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "EST'"),
        ("2015-02-30 18:05,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "'2015-02-30 18:05'"),
        ("03/01/2015,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "'03/01/2015'"),
        (",-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "None"),
        ("1815-01-03 18:05:00,-73.98,40.75,-73.95,40.78,1", "pickup_datetime", "'1815-01-03 18:05:00'"),
    ],
)
def test_a_row_that_is_no_ride_says_why_and_the_others_are_priced(
    bundle: Bundle, ride: str, field: str, received: str
) -> None:
    found, scored = of_csv(bundle, GOOD, ride, GOOD)
    assert (found.rides, found.refused) == (3, 1)
    ((row, what),) = found.examples
    assert (row, scored["fault"][1]) == (2, what)
    assert what.startswith(f"{field}: expected ")
    assert what.removesuffix("; the ride begins outside the city whose rides the model prices").endswith(received)
    assert scored["fare_usd"].isna().tolist() == [False, True, False]
    assert pd.isna(scored["model_version"][1])


@pytest.mark.parametrize("moment", ["2015-01-03 18:05", "2015-01-03T18:05:00", "2015-01-03 18:05:00.123456"])
def test_a_time_may_be_written_shorter_or_longer(bundle: Bundle, moment: str) -> None:
    _, scored = of_csv(bundle, GOOD, GOOD.replace("2015-01-03 18:05:00", moment))
    assert scored["fare_usd"][0] == scored["fare_usd"][1]


def test_no_passenger_count_is_one(bundle: Bundle) -> None:
    _, scored = of_csv(bundle, GOOD, GOOD.removesuffix("1"), GOOD + ".0")
    assert (scored["fare_usd"] == scored["fare_usd"][0]).all()


def test_values_that_are_not_ours_are_left_as_they_are(bundle: Bundle) -> None:
    _, scored = of_csv(bundle, f"007,{GOOD},a b", heading=f"key,{HEADING},note")
    assert (scored["key"][0], scored["note"][0]) == ("007", "a b")


def test_a_pipe_is_read_once(bundle: Bundle) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write("\n".join([HEADING, *[GOOD] * 200_000, ""]).encode())

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe:
        found = score(pipe, answers := io.BytesIO(), "csv", bundle, threads=2)
    writer.join()
    assert (found.rides, found.refused) == (200_000, 0)
    assert answers.getvalue().count(b"\n") == 200_001


def test_a_decimal_comma_in_quotes_is_told(bundle: Bundle) -> None:
    found, _ = of_csv(bundle, GOOD, GOOD.replace("-73.98", '"-73,98"'))
    ((_, what),) = found.examples
    assert "received '-73,98'; pickup_longitude: numbers are written as in 12.5, with a point before decimals" in what


def test_what_is_to_be_done_of_one_kind_of_fault_is_told_once_with_its_columns(bundle: Bundle) -> None:
    """However many columns have it."""
    ride = GOOD.replace("-73.98,40.75,-73.95,40.78", '"-73,98","40,75","-73,95","40,78"')
    ((_, what),) = of_csv(bundle, GOOD, ride)[0].examples
    assert what.count("numbers are written as in") == 1
    assert "pickup_longitude, pickup_latitude, dropoff_longitude, dropoff_latitude: numbers are written" in what


def test_a_pipe_of_other_separators_is_told(bundle: Bundle) -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{HEADING}\n{GOOD}\n".replace(",", ";").encode())
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, pytest.raises(RideFileError, match="separated by ';'"):
        score(pipe, io.BytesIO(), "csv", bundle)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", "csv", "expected rides, received an empty file"),
        (b"\xff\xfe\x00", "csv", "received"),
        (b"a,b\n1,2\n", "csv", "passenger_count are missing"),
        (HEADING.replace("passenger_count", "riders").encode() + b"\n", "csv", "passenger_count is missing"),
        (f"{HEADING},fare_usd\n{GOOD},1\n".encode(), "csv", "none called fare_usd"),
        (f"{HEADING},fault\n{GOOD},1\n".encode(), "csv", "received fault"),
        (f"{HEADING},{FIELDS[0]}\n{GOOD},1\n".encode(), "csv", "each column once"),
        (f"{HEADING}\n{GOOD},1,2,3\n".encode(), "csv", "expected a csv file of rides"),
        (
            f"{HEADING}\n{GOOD}\n".replace(",", ";").encode(),
            "csv",
            r"separated by ';': write it with commas between fields, and points before decimals",
        ),
        (
            f"{HEADING}\n{GOOD}\n".replace(".", ",").encode(),
            "csv",
            "got 10.*: decimals have points, and a field with a",
        ),
        (f"{HEADING}\n{GOOD}\n".encode("utf-16"), "csv", "expected CSV in UTF-8, received UTF-16"),
        (
            HEADING.replace("pickup_longitude", "longitud_pickup").replace("passenger_count", "p").encode() + b"\n",
            "csv",
            r"pickup_longitude, passenger_count are missing: did you mean "
            r"TRIP_COLUMNS=pickup_longitude=longitud_pickup\?",
        ),
        (
            f"{HEADING}\n".upper().encode(),
            "csv",
            "did you mean TRIP_COLUMNS=pickup_datetime=PICKUP_DATETIME,pickup_lon",
        ),
        (b"when,from,to\n", "csv", "if your columns have other names, map them in TRIP_COLUMNS"),
        (f"{HEADING}\n{GOOD}\n".encode("utf-16-le"), "csv", "received UTF-16, or no text at all"),
        (
            gzip.compress(HEADING.encode(), mtime=0),
            "csv",
            "received a gzip file: unpack it, or end its name",
        ),
        (b"PK\x03\x04" + bytes(40), "csv", "received a zip archive"),
        (b"PAR1" + bytes(40), "csv", "received a parquet file"),
        (b"PAR1 and nothing more", "parquet", "expected a parquet file of rides"),
        (
            f"{HEADING}\n{GOOD}\n".encode(),
            "parquet",
            r"received a text that begins .*: if it is CSV, end its name in \.csv",
        ),
        (HEADING.replace(",", ", ").encode() + b"\n", "csv", r"' pickup_longitude' \(write without blanks around it\)"),
        (f"{HEADING},note\n{GOOD},café\n".encode("latin-1"), "csv", "the byte 0xe9 after .*: write it in UTF-8"),
        (
            "\n".join([f"{HEADING},note", *[f"{GOOD},no"] * 1_000, f"{GOOD},café", ""]).encode("latin-1"),
            "csv",
            "column #6: .* invalid UTF8 data: write it in UTF-8",
        ),
        (b"<!DOCTYPE html><html>", "csv", "received a web page that begins '<!DOCTYPE html><html>'"),
        (b'[{"ride": 1}]', "csv", "expected CSV in UTF-8, received JSON"),
    ],
)
def test_what_is_no_file_of_rides_is_told(bundle: Bundle, content: bytes, kind: Kind, said: str) -> None:
    with pytest.raises(RideFileError, match=said):
        score(io.BytesIO(content), io.BytesIO(), kind, bundle)


def in_utc_but_for_the_last(wall: pd.Series) -> pd.Series:
    """Times of New York written in UTC, and one with its own offset, which says that UTC is meant."""
    zoned = wall.dt.tz_localize("America/New_York")
    written = zoned.dt.tz_convert("UTC").map(pd.Timestamp.isoformat)
    return written.where(wall.index != wall.index[-1], zoned.map(pd.Timestamp.isoformat))


OWN = Form((("pickup_datetime", "start"), ("fare_amount", "price")), "America/New_York")


@pytest.mark.parametrize(
    ("write", "is_utc"),
    [
        (lambda wall: wall.dt.strftime("%Y-%m-%d %H:%M:%S UTC"), True),
        (lambda wall: wall.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), True),
        (lambda wall: wall.dt.tz_localize("UTC"), True),
        (lambda wall: wall.dt.tz_localize("America/New_York").dt.tz_convert("Europe/Berlin"), False),
        (lambda wall: wall.dt.tz_localize("America/New_York").map(pd.Timestamp.isoformat), False),
        (in_utc_but_for_the_last, False),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_month_s_file_that_a_source_reads_is_priced_as_it_is(
    made: Made,
    kind: Kind,
    write: Callable[[pd.Series], pd.Series],
    is_utc: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One rule for names and times: those of the trips that the source makes of the file are the rides priced.

    A file of more rides than are in memory at once is one of which only the end says that UTC is meant.
    """
    monkeypatch.setattr(serving_files, "ROWS", 1_000)
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 2**16)
    month = pd.concat([made.trips] * (3_000 // len(made.trips) + 1), ignore_index=True)
    month["pickup_datetime"] = month["pickup_datetime"].dt.floor("s")
    times = {name: write(month[name]) for name in ("pickup_datetime", "dropoff_datetime")}
    theirs = month.assign(**times).rename(columns=dict(OWN.columns))
    place = tmp_path / f"taxi_2015_01.{kind}"
    theirs.to_csv(place, index=False) if kind == "csv" else theirs.to_parquet(place, index=False)
    source = Folder(UPath(tmp_path), columns=OWN.columns, time_zone="America/New_York")
    trips = source.read_month(parse_month("2015-01")).trips
    answers = io.BytesIO()
    with place.open("rb") as rides:
        found = score(rides, answers, kind, made.bundle, OWN)
    assert (found.rides, found.refused, found.offsets.utc == 2 * len(month)) == (len(month), 0, is_utc)
    answers.seek(0)
    scored = pd.read_csv(answers) if kind == "csv" else pd.read_parquet(answers)
    assert list(scored.columns[: len(theirs.columns)]) == list(theirs.columns)
    by_ride = trips.assign(fare=made.model.predict(trips)).groupby("key")["fare"].mean()
    np.testing.assert_allclose(scored["fare_usd"], by_ride[scored["key"].astype(str)], atol=0.005)


@pytest.mark.parametrize("as_pipe", [False, True])
def test_times_without_an_offset_beside_utc_are_no_file_of_rides(bundle: Bundle, as_pipe: bool) -> None:
    """In whichever part of it they are; a pipe's are found when they come."""
    lines = [HEADING, *[GOOD] * 100_000, GOOD.replace("18:05:00", "18:05:00Z"), GOOD.replace("18:05:00", "soon Z")]
    content = "\n".join([*lines, ""]).encode()
    rides = io.BufferedReader(Unseekable(content)) if as_pipe else io.BytesIO(content)
    said = "pickup_datetime: expected times that are all in UTC or all without an offset, received 1 in UTC and [0-9,]+"
    with pytest.raises(RideFileError, match=said) as refusal:
        score(rides, io.BytesIO(), "csv", bundle, OURS_IN_NEW_YORK)
    assert ("price it as a file, if times with another offset follow" in str(refusal.value)) is as_pipe


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_the_pickups_mean_is_told_by_the_dropoffs_too_as_in_a_source(
    made: Made, kind: Kind, tmp_path: Path
) -> None:
    rides = made.trips[list(COLUMN_NAMES)].assign(pickup_datetime=made.trips["pickup_datetime"].dt.floor("s"))
    zoned = rides["pickup_datetime"].dt.tz_localize("America/New_York")
    in_utc, with_offset = zoned.dt.tz_convert("UTC"), zoned + pd.Timedelta(minutes=20)
    place = tmp_path / f"taxi_2015_01.{kind}"
    source = Folder(UPath(tmp_path), time_zone="America/New_York")

    def write(pickups: pd.Series, dropoffs: pd.Series) -> None:
        theirs = rides.assign(pickup_datetime=pickups, dropoff_datetime=dropoffs)
        theirs.to_csv(place, index=False) if kind == "csv" else theirs.to_parquet(place, index=False)

    write(in_utc, with_offset)
    answers = io.BytesIO()
    with place.open("rb") as opened:
        score(opened, answers, kind, made.bundle, OURS_IN_NEW_YORK)
    answers.seek(0)
    scored = pd.read_csv(answers) if kind == "csv" else pd.read_parquet(answers)
    np.testing.assert_allclose(scored["fare_usd"], made.model.predict(rides), atol=0.005)
    read = source.read_month(parse_month("2015-01")).trips["pickup_datetime"]
    assert read.tolist() == sorted(rides["pickup_datetime"])

    write(rides["pickup_datetime"], in_utc)
    told = "pickup_datetime and dropoff_datetime: expected times that are all in UTC or all without an offset"
    with pytest.raises(SourceError, match=told):
        source.read_month(parse_month("2015-01"))
    with place.open("rb") as opened, pytest.raises(RideFileError, match=told):
        score(opened, io.BytesIO(), kind, made.bundle, OURS_IN_NEW_YORK)


class Unseekable(io.RawIOBase):
    """A file that can be read once, from its beginning."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def test_a_pipe_whose_end_says_that_utc_is_meant_is_no_file_of_rides(bundle: Bundle) -> None:
    """What was priced of it by then was priced at another hour."""
    reading, writing = os.pipe()
    lines = [HEADING, *[GOOD.replace("18:05:00", "23:05:00Z")] * 300_000, GOOD.replace("18:05:00", "18:05:00-05:00")]

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
            pipe.write("\n".join([*lines, ""]).encode())

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as pipe, pytest.raises(RideFileError, match="received UTC and then another offset"):
        score(pipe, io.BytesIO(), "csv", bundle, OURS_IN_NEW_YORK)
    writer.join()


OURS_IN_NEW_YORK = Form((), "America/New_York")


def test_a_name_in_trip_columns_that_the_file_has_not_is_told_with_the_whole_line(bundle: Bundle) -> None:
    content = f"{HEADING.replace('pickup_datetime', 'begin').upper()}\n".encode()
    said = (
        r"start \(in TRIP_COLUMNS for pickup_datetime\), .* are missing: did you mean TRIP_COLUMNS=fare_amount=price,p"
    )
    with pytest.raises(RideFileError, match=said):
        score(io.BytesIO(content), io.BytesIO(), "csv", bundle, OWN)


def test_a_packed_file_has_packed_answers_and_a_text_called_packed_is_told(bundle: Bundle, tmp_path: Path) -> None:
    plain, packed = UPath(tmp_path / "rides.csv"), UPath(tmp_path / "rides.csv.gz")
    plain.write_text(f"{HEADING}\n{GOOD}\n")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    results = [score_file(rides, answers_of(rides), bundle) for rides in (plain, packed)]
    assert results[0] == results[1]
    assert answers_of(packed).name == "rides.quotes.csv.gz"
    assert gzip.decompress(answers_of(packed).read_bytes()) == answers_of(plain).read_bytes()
    packed.write_bytes(plain.read_bytes())
    with pytest.raises(
        RideFileError, match=r"expected gzip, received a text that begins .*: if it is CSV, end its name"
    ):
        score_file(packed, answers_of(packed), bundle)


def test_a_file_that_is_cut_off_in_its_packing_is_told(bundle: Bundle) -> None:
    packed = gzip.compress("\n".join([HEADING, *[f"2015-01-03 18:05:{n % 60:02},{-73.98 + n / 1e6},40.75,-73.95,40.78,1"
                                                  for n in range(5_000)], ""]).encode())  # fmt: skip
    for content in (packed[:-100], b"no gzip at all"):
        with pytest.raises(RideFileError, match="expected a csv file of rides"):
            score(gzip.GzipFile(fileobj=io.BytesIO(content)), io.BytesIO(), "csv", bundle)


@pytest.mark.parametrize("name", ["rides.json", "rides.gz", "rides", ".csv.tmp"])
def test_other_kinds_of_files_are_told(name: str) -> None:
    with pytest.raises(RideFileError, match=r"expected a file that ends in \.csv, \.csv\.gz, \.parq"):
        kind_of(name)


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("pickup_datetime", pa.array(["2015-01-03 18:05"], pa.large_string())),
        ("pickup_datetime", pa.array(["2015-01-03 18:05:00"]).dictionary_encode()),
        ("pickup_longitude", pa.array(["-73.98"]).dictionary_encode()),
        ("pickup_longitude", pa.array([Decimal("-73.98")])),
        ("pickup_longitude", pa.array(["-73.98"], pa.string_view())),
    ],
)
def test_columns_count_however_a_parquet_file_has_them_packed(bundle: Bundle, field: str, column: pa.Array) -> None:
    assert score(_ride_with(field, column), io.BytesIO(), "parquet", bundle) == Scored(1, 0, (), Offsets(without=1))


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("passenger_count", pa.array([2**53 + 1])),
        ("pickup_datetime", pa.array([2**62]).cast(pa.timestamp("us"))),
    ],
)
def test_values_out_of_all_range_are_faults_of_their_row(bundle: Bundle, field: str, column: pa.Array) -> None:
    found = score(_ride_with(field, column), io.BytesIO(), "parquet", bundle)
    assert (found.rides, found.refused) == (1, 1)
    assert field in found.examples[0][1]


def test_texts_that_are_no_utf_8_are_told(bundle: Bundle) -> None:
    offsets, text = pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")
    column = pa.Array.from_buffers(pa.string(), 1, [None, offsets, text])
    with pytest.raises(RideFileError, match="expected a parquet file"):
        score(_ride_with("pickup_datetime", column), io.BytesIO(), "parquet", bundle)
    with pytest.raises(
        RideFileError, match=r"expected CSV in UTF-8, received the byte 0xe9 after .*: write it in UTF-8"
    ):
        score(io.BytesIO(b"\xe9," + HEADING.encode() + b"\n"), io.BytesIO(), "csv", bundle)


def _ride_with(field: str, column: pa.Array) -> io.BytesIO:
    """Returns a parquet file of one ride with a column of another type."""
    values = dict(zip(FIELDS, (pa.array([value]) for value in GOOD.split(",")), strict=True)) | {field: column}
    file = io.BytesIO()
    pq.write_table(pa.table(values), file)
    file.seek(0)
    return file
