"""Files that were damaged or altered at random: what is still read has exactly the values that stand there.

Text is read a second time by the csv module and Python's own numbers and times. Parquet whose pages have checksums is
compared with the rows that were written: a value that was altered is an error. Where pages have none, nobody can know
that a value is another than the one that was written; there what counts is what the bytes say now, as pyarrow reads it.
"""

import csv
import io
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxifare.sources.base import SourceError
from taxifare.sources.folder import Folder
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.columns import TRIP_COLUMNS
from taxifare.trips.months import parse_month

JANUARY = parse_month("2015-01")
TRIPS = (
    Simulator(
        seed=11,
        trips_per_month=40,
        base_trips=40,
        first_month=JANUARY,
        last_month=JANUARY,
        scenario="as-it-was",
        scenario_from=JANUARY,
    )
    .read_month(JANUARY)
    .trips
)
TEXT = TRIPS.to_csv(index=False, date_format="%Y-%m-%d %H:%M:%S UTC").encode()
NULLS = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL"}
NULLS |= {"NaN", "n/a", "nan", "null"}
TYPICAL = b'0123456789,.-+:"\r\n TZUCeE;\t\x00\xe9'


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to three changes of a byte or, of text, of a line."""
    for _ in range(rng.integers(1, 4)):
        at, byte = int(rng.integers(len(content))), TYPICAL[rng.integers(len(TYPICAL))]
        match rng.integers(6):
            case 0:
                content = content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
            case 1:
                content = content[:at] + bytes([byte]) + content[at + 1 :]
            case 2:
                content = content[:at] + content[at + 1 :]
            case 3:
                content = content[:at] + bytes([byte]) + content[at:]
            case 4:
                lines = content.splitlines(keepends=True)
                content = b"".join(lines[:1] + [lines[i] for i in rng.permutation(range(1, len(lines)))])
            case 5:
                lines = content.splitlines(keepends=True)
                content = b"".join(line for i, line in enumerate(lines) if i != rng.integers(1, len(lines)))
    return content


def as_it_stands(content: bytes) -> pd.DataFrame:
    """The rows of a text, read slowly and by other means."""
    header, *rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    cells = pd.DataFrame(rows, columns=header, dtype=object)

    def number(text: str) -> float:
        return math.nan if text in NULLS else float(text)

    def time(text: str) -> datetime | None:
        if text in NULLS:
            return None
        try:
            return datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=None)
        except ValueError:  # a digit where there could be two
            return datetime.strptime(text.removesuffix("UTC").strip(" ."), "%Y-%m-%d %H:%M:%S")

    read: dict[str, Callable[[str], object]] = {"number": number, "integer": number, "timestamp": time, "text": str}
    values = {column.name: cells[column.name].map(read[column.kind]) for column in TRIP_COLUMNS}
    return pd.DataFrame(values).sort_values("pickup_datetime", kind="stable", ignore_index=True)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Ensures that all values are the same, to the last bit."""
    for column in TRIP_COLUMNS:
        one, other = found[column.name], expected[column.name]
        if column.kind in {"number", "integer"}:
            np.testing.assert_array_equal(one.to_numpy(np.float64, na_value=np.nan), other.to_numpy(np.float64))
        elif column.kind == "timestamp":
            np.testing.assert_array_equal(one.to_numpy("datetime64[us]"), other.to_numpy("datetime64[us]"))
        else:
            assert one.tolist() == other.tolist()


def read(folder: Path, name: str, content: bytes) -> pd.DataFrame | None:
    """The trips of a file of this content, None where it is refused in words that name the file."""
    (folder / name).write_bytes(content)
    try:
        return Folder(folder).read_month(JANUARY).trips
    except SourceError as error:
        told = str(error)
    assert told.startswith(f"{folder / name}: "), told
    return None


MUTANTS = [150, pytest.param(2_500, marks=pytest.mark.slow)]


@pytest.mark.parametrize("mutants", MUTANTS)
def test_a_text_that_still_reads_has_the_values_that_stand_there(tmp_path: Path, mutants: int) -> None:
    rng, reads = np.random.default_rng(mutants), 0
    for number in range(mutants):
        content = mutated(TEXT, rng)
        found = read(tmp_path, "taxi_2015_01.csv", content)
        if found is not None:
            reads += 1
            try:
                assert_same(found, as_it_stands(content))
            except (AssertionError, ValueError) as error:
                raise AssertionError(f"mutant {number}: {content!r}") from error
    assert mutants / 10 < reads < mutants, "some are read, and some are not"


@pytest.mark.parametrize("mutants", MUTANTS)
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_a_parquet_file_that_still_reads_has_the_values_that_were_written(
    tmp_path: Path, mutants: int, compression: str
) -> None:
    written = io.BytesIO()
    table = pa.Table.from_pandas(TRIPS, preserve_index=False)
    pq.write_table(table, written, compression=compression, write_page_checksum=True)
    rng, content, reads = np.random.default_rng(mutants), written.getvalue(), 0
    for number in range(mutants):
        changed = bytearray(content)
        for at in rng.integers(len(changed), size=rng.integers(1, 3)):
            changed[at] ^= 1 << int(rng.integers(8))
        found = read(tmp_path, "taxi_2015_01.parquet", bytes(changed))
        if found is not None:
            reads += 1
            try:
                assert_same(found, TRIPS)
            except AssertionError as error:
                flipped = [at for at, pair in enumerate(zip(content, changed, strict=True)) if pair[0] != pair[1]]
                raise AssertionError(f"mutant {number}: bytes {flipped} of {len(content)}") from error
    assert 0 < reads < mutants


def as_pyarrow_reads(content: bytes) -> pd.DataFrame:
    """The rows of a parquet file, as its own library has them, one value at a time."""
    table = pq.read_table(pa.BufferReader(content))
    values: dict[str, pd.Series] = {}
    for column in TRIP_COLUMNS:
        if column.kind == "timestamp":  # which may be of a year that Python does not have
            micros = table[column.name].cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
            moments = [np.datetime64("NaT" if micro is None else micro, "us") for micro in micros]
            values[column.name] = pd.Series(np.array(moments, "datetime64[us]"))
            continue
        cells = table[column.name].to_pylist()
        if column.kind in {"number", "integer"}:
            values[column.name] = pd.Series([math.nan if cell is None else float(cell) for cell in cells])
        else:
            values[column.name] = pd.Series(cells)
    return pd.DataFrame(values).sort_values("pickup_datetime", kind="stable", ignore_index=True)


@pytest.mark.parametrize("mutants", MUTANTS)
def test_a_parquet_file_without_checksums_that_still_reads_has_the_values_of_its_bytes(
    tmp_path: Path, mutants: int
) -> None:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(TRIPS, preserve_index=False), written, compression="none", use_dictionary=False)
    rng, content, reads, other = np.random.default_rng(mutants), written.getvalue(), 0, 0
    for number in range(mutants):
        changed, how = bytearray(content), int(rng.integers(8))
        at = int(rng.integers(4, len(changed) - 8))
        if how < 6:
            changed[at] ^= 1 << int(rng.integers(8))
        elif how == 6:
            del changed[at]
        else:
            changed.insert(at, int(rng.integers(256)))
        found = read(tmp_path, "taxi_2015_01.parquet", bytes(changed))
        if found is not None:
            reads += 1
            other += not found.equals(TRIPS)
            try:
                assert_same(found, as_pyarrow_reads(bytes(changed)))
            except AssertionError as error:
                raise AssertionError(f"mutant {number}: byte {at} of {len(content)}") from error
    print(f"{mutants} mutants, {reads} still read, {other} of them with other values, as their bytes have them")
    assert 0 < other < reads < mutants
