"""Reading a file of trips: from its bytes to its rows, in any of the formats in which trips are published.

Where files come from is the sources' business, whether rows are trips that of the trip table. Whatever a reader raises
becomes words in `reading`, for every source.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from taxifare.sources.base import SourceError
from taxifare.texts import nearest
from taxifare.trips.clock import Offsets, all_offsets, wall_clock
from taxifare.trips.columns import COLUMN_NAMES, TIME_COLUMNS, TRIP_COLUMNS
from taxifare.trips.csv_blocks import open_csv
from taxifare.trips.table import TripTableError, check_column_names
from taxifare.trips.text_files import BEGINNING_BYTES, Wanted, instead_of, undecoded, way_out

Names = Mapping[str, str]
"""What columns of the trip table are called in a file that has names of its own."""

_ITS_OWN: Names = {}

FORMATS = (".parquet", ".csv", ".csv.gz")
"""Endings of trip files, in order of preference: parquet is typed, and text is quicker to read plain than packed."""

SAMPLE_ROWS = 1_000
"""Rows of a table that are looked at to tell whether all of it is trips; of files, see `read_spread`."""

_ROWS_AT_ONCE = 2**18
_BYTES_OF_A_ROW = 2**7

_MOST_RATIO = 100
_UNPACKED_AT_LEAST = 2**26
_LONGEST_LINE = 2**20

_FAULTS = (pa.ArrowException, OSError, EOFError, zlib.error, ValueError, TypeError, LookupError, ArithmeticError)
"""What the readers raise when bytes are not what they should be; texts and metadata that are damaged among them."""


@contextmanager
def reading(origin: str, expected: str, received: str = "") -> Iterator[None]:
    r"""Turns what a reader of files raises into a SourceError.

    Args:
        origin: What is read: the file, and the month or column where that is known.
        expected: What it should be.
        received: What it seems to be, where that is known.

    >>> with reading("trips.csv", "CSV"):
    ...     b"caf\xe9".decode()
    Traceback (most recent call last):
    ...
    taxifare.sources.base.SourceError: trips.csv: expected CSV in UTF-8, received the byte 0xe9 after 'caf'
    """
    try:
        yield
    except _FAULTS as error:
        raise SourceError(f"{origin}: {_told(error, expected, received)}") from error


def _told(error: Exception, expected: str, received: str) -> str:
    """Returns a reader's error in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"expected {expected} in UTF-8, {undecoded(error)}"
    if isinstance(error, json.JSONDecodeError):
        return f"expected {expected}, received one whose metadata are damaged: {error}"
    return f"expected {expected}{received and ', received '}{received}: {str(error) or type(error).__name__}"


def read_rows(content: bytes, origin: str, names: Names = _ITS_OWN) -> pd.DataFrame:
    """Returns the rows of a trip file as they stand there.

    Args:
        content: The whole file.
        origin: Its name or address, for messages; its ending says which of `FORMATS` it has.
        names: Its columns' own names, see `_named`.

    Raises:
        SourceError: The file is empty, damaged or of another format than its name says, or lacks a column named so.
    """
    if not origin.endswith(".gz"):
        return _rows(content, origin, names)
    most = _most_unpacked(len(content))
    _ensure_is("gzip", content, origin)
    with (
        reading(origin, "gzip", _glimpse(content)),
        gzip.GzipFile(fileobj=io.BytesIO(content)) as packed,
    ):
        plain = packed.read(most + 1)
    _ensure_bearable(len(plain), most, origin)
    return _rows(plain, origin, names)


def read_parts(file: IO[bytes], origin: str, names: Names = _ITS_OWN) -> Iterator[pd.DataFrame]:
    """Yields the rows of a trip file as they stand there, a few hundred thousand at a time.

    Args:
        file: Open at its beginning.
        origin: Its name, as for `read_rows`. A row of text is a line.
        names: As for `read_rows`.

    Raises:
        SourceError: As `read_rows`, when the part that is at fault is reached.
    """
    for block in _blocks(file, origin, _ROWS_AT_ONCE):
        yield _rows_in(block, origin, names)


def read_spread(file: IO[bytes], origin: str, names: Names = _ITS_OWN) -> tuple[pd.DataFrame, float]:
    """Returns rows from all over a trip file, its first and last among them, and which share of the file was looked at.

    All of a file of a few hundred thousand rows; of a larger one as many, in blocks spread evenly over it.

    Args:
        file: Open at its beginning.
        origin: Its name, as for `read_rows`.
        names: As for `read_rows`.

    Raises:
        SourceError: As `read_rows`, of the blocks that are looked at.
    """
    kept, step, number, last = list[_Block](), 1, 0, None
    for number, last in enumerate(_blocks(file, origin, _ROWS_OF_A_BLOCK), 1):
        if (number - 1) % step == 0:
            kept.append(last)
        if len(kept) > _MOST_BLOCKS:
            kept, step = kept[::2], step * 2
    if last is None:
        raise SourceError(f"{origin}: expected trips, received no rows")
    if (number - 1) % step:
        kept.append(last)
    parts = [rows for block in kept if not (rows := _rows_in(block, origin, names)).empty]
    if not parts:
        raise SourceError(f"{origin}: expected trips, received no rows")
    return pd.concat(parts, ignore_index=True), len(kept) / number


_Block: TypeAlias = bytes | pa.RecordBatch
"""Rows of a file as they stand there: lines of text below the header, or what parquet has."""

_ROWS_OF_A_BLOCK = 2**14

_MOST_BLOCKS = 24


def _rows_in(block: _Block, origin: str, names: Names) -> pd.DataFrame:
    if isinstance(block, bytes):
        return _rows(block, origin, names)
    with reading(origin, "parquet"):
        table = pa.Table.from_batches([block])
    named = _named(table, origin, names)
    with reading(origin, "parquet"):
        return _frame(named)


def _blocks(file: IO[bytes], origin: str, rows_at_once: int) -> Iterator[_Block]:
    """Yields a trip file in blocks of about so many rows, see `read_parts`."""
    bytes_at_once = rows_at_once * _BYTES_OF_A_ROW
    if not origin.endswith(".csv"):
        _ensure_is("parquet" if origin.endswith(".parquet") else "gzip", file.read(BEGINNING_BYTES), origin)
        file.seek(0)
    if origin.endswith(".parquet"):
        with reading(origin, "parquet"):
            parquet = open_parquet(file, 2**20)
            ensure_no_bomb(parquet, file.seek(0, io.SEEK_END), origin)
            batches = parquet.iter_batches(rows_at_once)
        while True:
            with reading(origin, "parquet"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
    text = gzip.GzipFile(fileobj=file) if origin.endswith(".gz") else file
    most, unpacked = _most_unpacked(file.seek(0, io.SEEK_END)), 0
    file.seek(0)
    with reading(origin, "gzip" if origin.endswith(".gz") else "CSV"):
        header = _line(text, origin)
        lines = text.read(bytes_at_once) + _line(text, origin)
    if not header:
        raise SourceError(f"{origin}: expected trips, received an empty file")
    _ensure_is("CSV", header, origin)
    while lines:
        unpacked += len(lines)
        _ensure_bearable(unpacked, most, origin)
        yield header + lines
        with reading(origin, "gzip" if origin.endswith(".gz") else "CSV"):
            lines = text.read(bytes_at_once) + _line(text, origin)


class Times(TypedDict):
    """What the times of a trip file are like, all of it; as it can be noted.

    Attributes:
        rows: How many rows it has.
        span: Its first and last pickup; None where it has no pickup time.
        offsets: Which offsets its times say, those of its columns together, as `Offsets` counts them.
    """

    rows: int
    span: list[str] | None
    offsets: list[int]


def times_of(file: IO[bytes], origin: str, names: Names, time_zone: str, offsets: Offsets | None = None) -> Times:
    """Returns what the times of a trip file are like; only they are read.

    Args:
        file: Open at its beginning.
        origin: Its name, as for `read_rows`.
        names: As for `read_rows`.
        time_zone: Of the city, see `clock.wall_clock`.
        offsets: Those of the whole file, where they are known.

    Raises:
        SourceError: The file cannot be read to its end, or a pickup is no time.
    """
    wanted = {name: names.get(name, name) for name in TIME_COLUMNS}
    rows, times, found = 0, list[Any](), Offsets()
    with reading(f"{origin}: {' and '.join(wanted.values())}", "times to the end"):
        for batch in _batches_of(file, origin, list(wanted.values())):
            rows += len(batch)
            there = {
                name: _decoded(batch.column(theirs)) for name, theirs in wanted.items() if theirs in batch.schema.names
            }
            here = all_offsets(there.values(), time_zone)
            found = found.plus(here)
            if len(pickups := there.get("pickup_datetime", ())):
                wall = wall_clock(pickups, time_zone, offsets or here).wall
                times += [np.fmin.reduce(wall), np.fmax.reduce(wall)]
    if offsets is None and found.is_utc_meant:  # of which the parts before the first such may not know
        file.seek(0)
        return times_of(file, origin, names, time_zone, found)
    known = [time for time in times if not np.isnat(time)]
    span = [pd.Timestamp(time).isoformat() for time in (min(known), max(known))] if known else None
    return {"rows": rows, "span": span, "offsets": list(found)}


def _batches_of(file: IO[bytes], origin: str, columns: list[str]) -> Iterable[pa.RecordBatch]:
    """Returns the rows of a trip file with these columns, as far as they are there; the first has to be."""
    if origin.endswith(".parquet"):
        parquet = pa.parquet.ParquetFile(file)
        there = [name for name in columns[1:] if name in parquet.schema_arrow.names]
        found: Iterable[pa.RecordBatch] = parquet.iter_batches(_ROWS_AT_ONCE, columns=[columns[0], *there])
        return found
    text = gzip.GzipFile(fileobj=file) if origin.endswith(".gz") else file
    types = dict.fromkeys(columns, pa.string())
    options = pa.csv.ConvertOptions(include_columns=columns, column_types=types, include_missing_columns=True)
    return open_csv(text, options)[1]


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _line(text: IO[bytes] | gzip.GzipFile, origin: str) -> bytes:
    """Returns the rest of a line.

    Raises:
        SourceError: It is longer than any line of trips.
    """
    line = text.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
        raise SourceError(
            f"{origin}: expected lines of trips, received one of more than {_LONGEST_LINE:,} bytes: lines end with "
            "LF or CRLF"
        )
    return line


def _ensure_is(wanted: Wanted, beginning: bytes, origin: str) -> None:
    if not beginning:
        raise SourceError(f"{origin}: expected trips, received an empty file")
    if (instead := instead_of(wanted, beginning)) is not None:
        raise SourceError(f"{origin}: {instead}")


def _most_unpacked(packed_bytes: int) -> int:
    """Returns how many bytes so many packed ones may come to: trips are packed to a tenth, hardly to a hundredth."""
    return max(_UNPACKED_AT_LEAST, _MOST_RATIO * packed_bytes)


def _ensure_bearable(unpacked_bytes: int, most: int, origin: str) -> None:
    if unpacked_bytes > most:
        raise SourceError(
            f"{origin}: expected trips, received a file that unpacks to more than {most:,} bytes, {_MOST_RATIO} times "
            "its size: no trips are packed so small"
        )


def ensure_no_bomb(parquet: pa.parquet.ParquetFile, size_bytes: int, origin: str) -> None:
    """Ensures that a parquet file does not claim to hold what no file of its size does."""
    meta = parquet.metadata
    claimed = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    _ensure_bearable(max(claimed, meta.num_rows * meta.num_columns), _most_unpacked(size_bytes), origin)


def _rows(plain: bytes, origin: str, names: Names) -> pd.DataFrame:
    """Returns the rows of a file that is not packed, or no longer."""
    kind: Wanted = "parquet" if origin.endswith(".parquet") else "CSV"
    _ensure_is(kind, plain, origin)
    with reading(origin, kind, _glimpse(plain)):
        table = _read_parquet(plain, origin) if kind == "parquet" else _read_csv(plain, names)
    named = _named(table, origin, names)
    with reading(origin, kind, _glimpse(plain)):
        rows = _frame(named)
    if kind == "CSV" and len(rows):
        ensure_last_line(plain[-2:], origin)
    return rows


def open_parquet(file: IO[bytes] | pa.NativeFile | Path, buffer_bytes: int = 0) -> pa.parquet.ParquetFile:
    """Returns a parquet file, open; where its pages have checksums, they are held to them.

    Args:
        file: Which.
        buffer_bytes: How much of a column is read at once; 0: all of it that is in a row group.
    """
    return pa.parquet.ParquetFile(file, buffer_size=buffer_bytes, page_checksum_verification=True)


def ensure_last_line(end: bytes, origin: str) -> None:
    """Ensures that a text of rows ends its last line: of one that does not, the last value may be cut off.

    Args:
        end: Its last two bytes.
        origin: Its name, for messages.

    Raises:
        SourceError: It does not.

    >>> ensure_last_line(b"12.50", "trips.csv")
    Traceback (most recent call last):
    ...
    taxifare.sources.base.SourceError: trips.csv: its last line does not end, ...
    """
    if not end.rstrip(b"\0").endswith((b"\n", b"\r")):  # a text of two bytes a character is refused in other words
        raise SourceError(
            f"{origin}: its last line does not end, so the file may still be written, or be cut off: if it is whole, "
            "put a line break at its end"
        )


def _named(table: pa.Table, origin: str, names: Names) -> pa.Table:
    """Returns the table with the columns of a trip table; as it is where it has no names of its own.

    Of a table with names of its own whatever is no column of a trip table is left out.

    Raises:
        SourceError: A column that is wanted is not there, or is there twice.

    >>> whole = pa.table({name: [0] for name in COLUMN_NAMES if name != "fare_amount"} | {"price": [7.5], "tip": [1.0]})
    >>> _named(whole, "trips.csv", {"fare_amount": "price"}).column_names == list(COLUMN_NAMES)
    True
    >>> table = pa.table({"price": [7.5], "key": ["a"], "tip": [1.0]})
    >>> _named(table, "trips.csv", {"fare_amount": "fare"})
    Traceback (most recent call last):
    ...
    taxifare.sources.base.SourceError: trips.csv: expected a column fare, which TRIP_COLUMNS names for fare_amount,
    received the columns price, key, tip
    >>> _named(table, "trips.csv", {"fare_amount": "prize"})
    Traceback (most recent call last):
    ...
    taxifare.sources.base.SourceError: trips.csv: expected a column prize, which TRIP_COLUMNS names for fare_amount,
    received the columns price, key, tip (did you mean fare_amount=price?)
    """
    if not names:
        return table
    taken = set(names.values())
    found = {
        ours: names.get(ours, ours)
        for ours in COLUMN_NAMES
        if ours in names or (ours in table.column_names and ours not in taken)
    }
    for ours, theirs in found.items():
        if (times := table.column_names.count(theirs)) != 1:
            why = f", which TRIP_COLUMNS names for {ours}" if ours in names else ""
            near = nearest(theirs, [name for name in table.column_names if name not in taken])
            meant = "" if near is None else f" (did you mean {ours}={near}?)"
            received = "it twice" if times else f"the columns {', '.join(table.column_names)}{meant}"
            raise SourceError(f"{origin}: expected a column {theirs}{why}, received {received}")
    others = [name for name in table.column_names if name not in found.values()]
    try:
        check_column_names(found, origin, others, names)
    except TripTableError as error:
        raise SourceError(str(error)) from None
    return table.select(list(found.values())).rename_columns(list(found))


def _frame(table: pa.Table) -> pd.DataFrame:
    """Returns the rows as a frame.

    Raises:
        pa.ArrowInvalid: A text is none; parquet files without checksums are read without a look at that.
    """
    table.validate(full=True)
    text = pd.StringDtype("pyarrow")
    rows: pd.DataFrame = table.to_pandas(
        types_mapper={pa.string(): text, pa.large_string(): text}.get, ignore_metadata=True
    )
    return rows


def _read_parquet(content: bytes, origin: str) -> pa.Table:
    with open_parquet(pa.BufferReader(content)) as parquet:
        ensure_no_bomb(parquet, len(content), origin)
        return parquet.read()


def _read_csv(content: bytes, names: Names) -> pa.Table:
    """Returns the rows of a CSV file, numbers as numbers; a column with anything else in it comes as text.

    The trip table then names the column and the value, which Arrow's own message does not.
    """
    columns = {names.get(column.name, column.name): column.kind for column in TRIP_COLUMNS}
    numbers = {name: pa.float64() for name, kind in columns.items() if kind in {"number", "integer"}}
    texts = dict.fromkeys(columns, pa.string())
    try:
        return _parse_csv(content, texts | numbers)
    except pa.ArrowInvalid:
        return _parse_csv(content, texts)


def _parse_csv(content: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    """Returns the rows of a CSV file with columns of these types.

    Raises:
        pa.ArrowInvalid: It has no such rows; the message names the column where that is known.
    """
    options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    try:
        return pa.csv.read_csv(pa.BufferReader(content), convert_options=options)
    except pa.ArrowInvalid as error:
        found = re.match(r"In CSV column #([0-9]+): (.*)", str(error), re.DOTALL)
        if hint := way_out(str(error)):
            raise pa.ArrowInvalid(f"{error}{hint}") from error
        if found is None:
            raise
        names = content[:_LONGEST_LINE].split(b"\n", 1)[0].decode("utf-8", "backslashreplace").strip().split(",")
        raise pa.ArrowInvalid(f"column {names[int(found[1])]}: {found[2]}") from error


def _glimpse(content: bytes) -> str:
    """Returns how the content begins and how long it is, for a message.

    >>> _glimpse(b"<html><body>Not found</body></html>")
    "35 bytes that begin '<html><body>Not found</b'"
    """
    return f"{len(content):,} bytes that begin {content[:24].decode('ascii', 'backslashreplace')!r}"
