"""Files of rides, CSV or parquet, of any length: read in parts, priced, and written with the answers beside each ride.

A row that is not a ride that can be priced keeps its place, with its fault in `fault`; all others are priced.
"""

import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from upath import UPath

from taxifare.errors import ToldError
from taxifare.serving.bundle import Bundle
from taxifare.serving.rides import FIELDS, PLACES, WALL_CLOCK, Fault, Limits, Numbers, Rides, remarks, shown, unfit
from taxifare.trips.csv_blocks import open_csv
from taxifare.trips.features import MISSING_PASSENGERS
from taxifare.trips.targets import column_of
from taxifare.trips.text_files import NUMBERS_AS_IN, instead_of_csv, meant, too_many_fields

Kind = Literal["csv", "parquet"]

KINDS: dict[str, Kind] = {".csv": "csv", ".parquet": "parquet"}
"""Kinds by the ending of a file's name."""

VERSION, FAULT = "model_version", "fault"

RIDE_ID = "ride_id"
"""The column in which a file may give its rides ids, by which their outcomes are found."""

ROWS = 65_536
"""Rides in memory at once, for each thread."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"

_EXAMPLES = 10

_HEADER_BYTES = 2**13

_DECIMAL_COMMA = re.compile(r"'\s*[+-]?\d+,\d+\s*'")

Batch: TypeAlias = pa.RecordBatch


class RideFileError(ToldError, ValueError):
    """A file is not a file of rides; says which column or line, what was expected and what was found."""


@dataclass(frozen=True)
class Scored:
    """The result of pricing a file.

    Attributes:
        rides: How many rows it has.
        refused: How many of them are not rides that can be priced.
        examples: The first of those: the row, counted from 1 without the header, and what is wrong with it.
    """

    rides: int
    refused: int
    examples: tuple[tuple[int, str], ...]


def kind_of(name: str) -> Kind:
    """Returns the kind of a file with this name; compressed files have none.

    >>> kind_of("rides.CSV")
    'csv'

    Raises:
        RideFileError: It is of neither kind.
    """
    for ending, kind in KINDS.items():
        if name.lower().endswith(ending):
            return kind
    raise RideFileError(f"{name}: expected a file that ends in {' or '.join(KINDS)}")


def columns_of(unit: str) -> tuple[str, ...]:
    """Returns the columns that answers add.

    >>> columns_of("USD")
    ('fare_usd', 'upper_fare_usd', 'corrected_fare_usd', 'quoted_fare_usd', 'model_version', 'fault')
    """
    value = column_of(unit)
    return value, f"upper_{value}", f"corrected_{value}", f"quoted_{value}", VERSION, FAULT


def score(
    rides: IO[bytes],
    answers: IO[bytes],
    kind: Kind,
    bundle: Bundle,
    *,
    threads: int = 1,
    on_rows: Callable[[int], None] = lambda _rows: None,
) -> Scored:
    """Returns the result of pricing a file of rides; writes a file of the same kind: its columns, and the answers.

    Memory does not grow with the file.

    Args:
        rides: The file; a CSV file may be a pipe.
        answers: Where the answers go.
        kind: Kind of both.
        bundle: Prices rides.
        threads: How many price rides in parallel.
        on_rows: Called now and then with the number of rows done.

    Raises:
        RideFileError: It lacks a column, has one that answers add, or is not a file of that kind.
    """
    unit = bundle.manifest.unit
    schema, batches = _opened(rides, kind)
    _ensure_columns(schema, columns_of(unit))
    whole = pa.schema([*schema, *_answer_fields(unit)])
    total, refused = 0, 0
    examples: list[tuple[int, str]] = []
    with _writer(answers, whole, kind) as writer:
        for batch, faults in _side_by_side(lambda one: _scored(one, whole, bundle), batches, threads):
            writer.write_batch(batch)
            examples += [(total + 1 + row, what) for row, what in faults.items()][: _EXAMPLES - len(examples)]
            total, refused = total + len(batch), refused + len(faults)
            on_rows(total)
    return Scored(total, refused, tuple(examples))


@dataclass(frozen=True)
class Answered:
    """Rides of a file that were priced, with their ids from its column `ride_id`; each of shape (n,)."""

    ride_ids: pa.Array
    rides: Rides
    versions: pa.Array
    fare: Numbers
    quoted: Numbers


def answered(answers: IO[bytes], kind: Kind, unit: str) -> Iterator[Answered]:
    """Yields what a file of answers says about rides that have an id and were priced; nothing if there are none.

    Raises:
        RideFileError: It is not a file of answers in that unit.
    """
    schema, batches = _opened(answers, kind)
    names = (RIDE_ID, *FIELDS, *columns_of(unit))
    if RIDE_ID not in schema.names:
        return
    if missing := [name for name in names if name not in schema.names]:
        raise RideFileError(f"expected a file of answers in {unit}, received one without {missing[0]}")
    fare, _, _, quoted, *_ = columns_of(unit)
    for batch in map(_named, batches):
        ids, versions = (_plain(batch.column(name)).cast(pa.string()) for name in (RIDE_ID, VERSION))
        yield Answered(ids, _rides(batch), versions, _numbers(batch.column(fare)), _numbers(batch.column(quoted)))


def months_of_answers(answers: UPath) -> set[str]:
    """Returns the months (`YYYY-MM`) in which a file's rides begin that have an id and were priced.

    Raises:
        RideFileError: It is not a file of rides.
    """
    found: set[str] = set()
    with answers.open("rb") as file:
        schema, batches = _opened(file, kind_of(answers.name))
        if {RIDE_ID, FAULT, "pickup_datetime"} <= set(schema.names):
            for batch in map(_named, batches):
                months = np.unique(_moments(batch.column("pickup_datetime")).astype("datetime64[M]"))
                found |= {str(month) for month in months if not np.isnat(month)}
    return found


def _named(answers: Batch) -> Batch:
    """Returns the rows of a file of answers whose rides have an id and were priced."""
    return answers.filter(pc.and_(pc.is_null(answers.column(FAULT)), pc.is_valid(answers.column(RIDE_ID))))


def _opened(rides: IO[bytes], kind: Kind) -> tuple[pa.Schema, Iterator[Batch]]:
    """Returns the columns of a file and its rows; those of a CSV file all as text, so that no value is changed."""
    if kind == "csv" and (instead := instead_of_csv(_beginning(rides))) is not None:
        raise RideFileError(instead)
    try:
        if kind == "parquet":
            file = pq.ParquetFile(rides)
            return file.schema_arrow, _read(file.iter_batches(ROWS), kind)
        schema, batches = open_csv(
            rides,
            pyarrow.csv.ConvertOptions(default_column_type=pa.string(), strings_can_be_null=True, null_values=[""]),
        )
        _ = schema.names  # Arrow reads a header that is not UTF-8, and fails when it is used.
        return schema, _read(batches, kind)
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise _no_file(kind, error) from None


def _beginning(rides: IO[bytes]) -> bytes:
    """Returns how a file begins, without moving on in it; nothing of a pipe that cannot be looked into."""
    if not rides.seekable():
        return rides.peek(_HEADER_BYTES) if isinstance(rides, io.BufferedReader) else b""
    place = rides.tell()
    beginning = rides.read(_HEADER_BYTES)
    rides.seek(place)
    return beginning


def _read(batches: Iterable[Batch], kind: Kind) -> Iterator[Batch]:
    """Yields the rows; raises at a line of another length, or text that is not UTF-8."""
    try:
        for batch in batches:
            batch.validate(full=True)
            yield batch
    except pa.ArrowInvalid as error:
        raise _no_file(kind, error) from None


def _no_file(kind: Kind, error: Exception) -> RideFileError:
    said = re.sub(r"\s+", " ", f"{error}{too_many_fields(str(error))}")
    return RideFileError(f"expected a {kind} file of rides with the columns {', '.join(FIELDS)}, received: {said}")


def _ensure_columns(schema: pa.Schema, answers: tuple[str, ...]) -> None:
    missing = [name for name in FIELDS if name not in schema.names]
    if missing:
        received = ", ".join(shown(name).strip("'") for name in schema.names[:20])
        found = meant(missing, schema.names, FIELDS)
        names = [f"{ours} ({found[ours]} may be it: name it so)" if ours in found else ours for ours in missing]
        raise RideFileError(
            f"expected the columns {', '.join(FIELDS)}, received {received}: {', '.join(names)} "
            f"{'is' if len(missing) == 1 else 'are'} missing"
        )
    for name in schema.names:
        if name in answers or schema.names.count(name) > 1:
            raise RideFileError(f"expected each column once, and none called {', '.join(answers)}; received {name}")
    zoned = schema.field("pickup_datetime").type
    if pa.types.is_timestamp(zoned) and zoned.tz is not None:
        raise RideFileError(
            f"pickup_datetime: expected times on the city's clock without a zone, received {zoned}: convert them"
        )


def _answer_fields(unit: str) -> list[pa.Field]:
    *values, version, fault = columns_of(unit)
    return [
        *(pa.field(name, pa.float64()) for name in values),
        pa.field(version, pa.string()),
        pa.field(fault, pa.string()),
    ]


def _writer(answers: IO[bytes], schema: pa.Schema, kind: Kind) -> AbstractContextManager[Any]:
    writer: AbstractContextManager[Any] = (
        pq.ParquetWriter(answers, schema, compression="zstd")
        if kind == "parquet"
        else pyarrow.csv.CSVWriter(answers, schema, write_options=pyarrow.csv.WriteOptions(quoting_style="needed"))
    )
    return writer


def _side_by_side(
    work: Callable[[Batch], tuple[Batch, dict[int, str]]], batches: Iterator[Batch], threads: int
) -> Iterator[tuple[Batch, dict[int, str]]]:
    """Yields the result of the work on each batch, in order; no more are read than are being worked on."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[tuple[Batch, dict[int, str]]]] = deque()
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _scored(batch: Batch, schema: pa.Schema, bundle: Bundle) -> tuple[Batch, dict[int, str]]:
    """Returns the rows with their answers, and what is wrong with those that have none."""
    manifest = bundle.manifest
    faults = _faults(batch, rides := _rides(batch), manifest.limits)
    is_fit = np.ones(len(batch), bool)
    is_fit[list(faults)] = False
    quotes = bundle.quote(rides[is_fit])
    answers = [_column(values, is_fit) for values in (quotes.fare, quotes.upper, quotes.corrected, quotes.quoted)]
    version = pc.if_else(pa.array(is_fit), manifest.version, pa.scalar(None, pa.string()))
    fault = pa.array([faults.get(row) for row in range(len(batch))] if faults else [None] * len(batch), pa.string())
    return pa.record_batch([*batch.columns, *answers, version, fault], schema=schema), faults


def _column(values: npt.NDArray[np.floating], is_fit: npt.NDArray[np.bool_]) -> pa.Array:
    """Returns the values in the rows that are fit, to a hundredth of a cent; nulls in the others."""
    column = np.full(len(is_fit), np.nan)
    column[is_fit] = np.round(values.astype(np.float64), 4)
    return pa.array(column, mask=~is_fit)


def _rides(batch: Batch) -> Rides:
    """Returns the rows as rides; whatever is not a number or time becomes one that no limit lets through."""
    west, south, east, north = (_numbers(batch.column(name)) for name in PLACES)
    passengers = _numbers(batch.column("passenger_count"), default=MISSING_PASSENGERS)
    is_whole = passengers == np.floor(passengers)
    whole = np.where(is_whole & (np.abs(passengers) < 2**31), passengers, -1).astype(np.int64)
    return Rides(_moments(batch.column("pickup_datetime")), west, south, east, north, whole)


def _numbers(column: pa.Array, default: float = np.nan) -> Numbers:
    """Returns numbers, the default for nulls, NaN for anything that is not a number."""
    column = _plain(column)
    is_null = np.asarray(column.is_null())
    if pa.types.is_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, pa.scalar(None, text.type))
    elif not any(holds(column.type) for holds in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)):
        column = pa.nulls(len(column))
    numbers: Numbers = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    numbers[is_null] = default
    return numbers


def _plain(column: pa.Array) -> pa.Array:
    """Returns the column with plain values, and text of one type, however the file encodes them."""
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column


def _moments(column: pa.Array) -> npt.NDArray[np.datetime64]:
    """Returns times to the second, NaT for anything that is not a time."""
    column = _plain(column)
    if pa.types.is_string(column.type):
        text = pc.replace_substring(pc.utf8_slice_codeunits(column, 0, 19), "T", " ", max_replacements=1)
        text = pc.if_else(pc.equal(pc.utf8_length(text), 16), pc.binary_join_element_wise(text, ":00", ""), text)
        found = pc.strptime(text, format="%Y-%m-%d %H:%M:%S", unit="s", error_is_null=True)
        # strptime reads 30 February as 2 March.
        is_right = pc.and_(
            pc.match_substring_regex(column, f"^{WALL_CLOCK}$"), pc.equal(pc.strftime(found, "%Y-%m-%d %H:%M:%S"), text)
        )
        column = pc.if_else(is_right, found, pa.scalar(None, found.type))
    elif not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        column = pa.nulls(len(column))
    moments: npt.NDArray[np.datetime64] = column.cast(pa.timestamp("s"), safe=False).to_numpy(zero_copy_only=False)
    return moments.astype("datetime64[s]")


def _faults(batch: Batch, rides: Rides, limits: Limits) -> dict[int, str]:
    """Returns what is wrong with which rows, and the value there."""

    def told(fault: Fault, row: int) -> str:
        value = batch.column(fault.field)[row]
        try:
            received = shown(value.as_py())
        except OverflowError:
            received = f"a {value.type} out of range"  # Python has no times after the year 9999.
        comma = f": {NUMBERS_AS_IN}" if fault.field != "pickup_datetime" and _DECIMAL_COMMA.match(received) else ""
        return f"{Fault(fault.field, fault.expected, received)}{comma}"

    places = [getattr(rides, name) for name in PLACES]
    return {
        row: "; ".join([*(told(fault, row) for fault in faults), *remarks([ends[row] for ends in places], limits)])
        for row, faults in unfit(rides, limits).items()
    }
