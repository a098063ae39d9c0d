"""Files of rides, CSV or parquet, of any length: read in parts, priced, and written with the answers beside each ride.

Their columns are called and their times are read as those of files of trips are, so a month's file can be priced as it
is. A row that is not a ride that can be priced keeps its place, with its fault in `fault`; all others are priced.
"""

import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from upath import UPath

from taxifare.environment import ServiceSettings
from taxifare.errors import ToldError
from taxifare.serving.bundle import Bundle
from taxifare.serving.rides import FIELDS, PLACES, Fault, Limits, Numbers, Rides, remarks, shown, unfit
from taxifare.trips.clock import ClockError, Offsets, all_offsets, wall_clock_if_any
from taxifare.trips.columns import TIME_COLUMNS
from taxifare.trips.csv_blocks import open_csv
from taxifare.trips.features import MISSING_PASSENGERS
from taxifare.trips.targets import column_of
from taxifare.trips.text_files import (
    BEGINNING_BYTES,
    NUMBERS_AS_IN,
    as_named,
    instead_of,
    own_names,
    undecoded,
    way_out,
)

Kind = Literal["csv", "parquet"]

KINDS: dict[str, Kind] = {".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet"}
"""Kinds by the ending of a file's name."""

_PACKED = ".gz"

VERSION, FAULT = "model_version", "fault"

RIDE_ID = "ride_id"
"""The column in which a file may give its rides ids, by which their outcomes are found."""

ROWS = 65_536
"""Rides in memory at once, for each thread."""

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"

_EXAMPLES = 10

_DECIMAL_COMMA = re.compile(r"'\s*[+-]?\d+,\d+\s*'")

Batch: TypeAlias = pa.RecordBatch

_Timed: TypeAlias = tuple[Batch, npt.NDArray[np.datetime64]]
"""Rows, and when their rides begin."""


class RideFileError(ToldError, ValueError):
    """A file is not a file of rides; says which column or line, what was expected and what was found."""


@dataclass(frozen=True)
class Form:
    """How files of rides are written.

    Attributes:
        columns: What columns are called in them, by pairs of our names and theirs, as TRIP_COLUMNS says.
        time_zone: Of the city; None where times have no offsets.
    """

    columns: tuple[tuple[str, str], ...]
    time_zone: str | None

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Returns the form of somebody's own files."""
        return cls(settings.trip_columns, settings.city.time_zone)

    @property
    def names(self) -> Mapping[str, str]:
        """What columns are called that have a name of their own, by our names."""
        return dict(self.columns)

    def column(self, field: str) -> str:
        """Returns what the column of a ride's field is called."""
        return self.names.get(field, field)


OURS = Form((), None)
"""The form of files that the project has written."""


@dataclass(frozen=True)
class Scored:
    """The result of pricing a file.

    Attributes:
        rides: How many rows it has.
        refused: How many of them are not rides that can be priced.
        examples: The first of those: the row, counted from 1 without the header, and what is wrong with it.
        offsets: Which offsets its times say.
    """

    rides: int
    refused: int
    examples: tuple[tuple[int, str], ...]
    offsets: Offsets = field(default_factory=Offsets)


def kind_of(name: str) -> Kind:
    """Returns the kind of a file with this name.

    Raises:
        RideFileError: It is of neither kind.
    """
    return KINDS[ending_of(name)]


def ending_of(name: str) -> str:
    """Returns the ending of a file's name, in small letters.

    >>> ending_of("rides.CSV"), ending_of("rides.csv.gz")
    ('.csv', '.csv.gz')

    Raises:
        RideFileError: It is none of a file of rides.
    """
    for ending in KINDS:
        if name.lower().endswith(ending):
            return ending
    raise RideFileError(f"{name}: expected a file that ends in {', '.join(KINDS)}")


@contextmanager
def unpacking(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Yields what is in a file, which is packed where its name says so.

    Raises:
        RideFileError: It is not, though its name says so.
    """
    if not name.lower().endswith(_PACKED):
        yield file
        return
    if (instead := instead_of("gzip", _beginning(file))) is not None:
        raise RideFileError(instead)
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield cast("IO[bytes]", unpacked)


@contextmanager
def packing(file: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Yields where to write what a file is to hold, which is packed where its name says so."""
    if not name.lower().endswith(_PACKED):
        yield file
        return
    # Without a name and a time: the same rides, the same bytes.
    with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        yield cast("IO[bytes]", packed)


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
    form: Form = OURS,
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
        form: How the rides are written.
        threads: How many price rides in parallel.
        on_rows: Called now and then with the number of rows done.

    Raises:
        RideFileError: It lacks a column, has one that answers add, or is not a file of that kind.
    """
    unit = bundle.manifest.unit
    schema, batches = _opened(rides, kind)
    _ensure_columns(schema, form, columns_of(unit))
    clock = _Clock(rides, kind, schema, form)
    whole = pa.schema([*schema, *_answer_fields(unit)])
    total, refused = 0, 0
    examples: list[tuple[int, str]] = []
    with _writer(answers, whole, kind) as writer:
        timed = ((batch, clock.moments(batch)) for batch in batches)
        for batch, faults in _side_by_side(lambda one: _scored(*one, whole, bundle, form), timed, threads):
            writer.write_batch(batch)
            examples += [(total + 1 + row, what) for row, what in faults.items()][: _EXAMPLES - len(examples)]
            total, refused = total + len(batch), refused + len(faults)
            on_rows(total)
    return Scored(total, refused, tuple(examples), clock.seen)


@dataclass(frozen=True)
class Answered:
    """Rides of a file that were priced, with their ids from its column `ride_id`; each of shape (n,)."""

    ride_ids: pa.Array
    rides: Rides
    versions: pa.Array
    fare: Numbers
    quoted: Numbers


def answered(answers: IO[bytes], kind: Kind, unit: str, form: Form = OURS) -> Iterator[Answered]:
    """Yields what a file of answers says about rides that have an id and were priced; nothing if there are none.

    Raises:
        RideFileError: It is not a file of answers in that unit.
    """
    schema, batches = _opened(answers, kind)
    names = (RIDE_ID, *map(form.column, FIELDS), *columns_of(unit))
    if RIDE_ID not in schema.names:
        return
    if missing := [name for name in names if name not in schema.names]:
        raise RideFileError(f"expected a file of answers in {unit}, received one without {missing[0]}")
    fare, _, _, quoted, *_ = columns_of(unit)
    clock = _Clock(answers, kind, schema, form)
    for batch in map(_named, batches):
        ids, versions = (_plain(batch.column(name)).cast(pa.string()) for name in (RIDE_ID, VERSION))
        rides = _rides(batch, clock.moments(batch), form)
        yield Answered(ids, rides, versions, _numbers(batch.column(fare)), _numbers(batch.column(quoted)))


def months_of_answers(answers: UPath, form: Form = OURS) -> set[str]:
    """Returns the months (`YYYY-MM`) in which a file's rides begin that have an id and were priced.

    Raises:
        RideFileError: It is not a file of rides.
    """
    found: set[str] = set()
    with answers.open("rb") as stored, unpacking(stored, answers.name) as file:
        schema, batches = _opened(file, kind := kind_of(answers.name))
        if {RIDE_ID, FAULT, form.column("pickup_datetime")} <= set(schema.names):
            clock = _Clock(file, kind, schema, form)
            for batch in map(_named, batches):
                months = np.unique(clock.moments(batch).astype("datetime64[M]"))
                found |= {str(month) for month in months if not np.isnat(month)}
    return found


def _named(answers: Batch) -> Batch:
    """Returns the rows of a file of answers whose rides have an id and were priced."""
    return answers.filter(pc.and_(pc.is_null(answers.column(FAULT)), pc.is_valid(answers.column(RIDE_ID))))


class _Clock:
    """Reads the pickup times of a file, a part after the other, as those of a file of trips are read as a whole.

    Attributes:
        seen: Which offsets its times say, drop-offs as well: all of them or, of a pipe, as far as it has been read.
    """

    def __init__(self, rides: IO[bytes], kind: Kind, schema: pa.Schema, form: Form) -> None:
        """Begins a file, which stays where it is; all of its times are looked at, unless it is a pipe.

        Args:
            rides: The file.
            kind: Of it.
            schema: Its columns.
            form: How it is written.
        """
        self._form, self._is_pipe = form, not rides.seekable()
        self._columns = [name for name in map(form.column, TIME_COLUMNS) if name in schema.names]
        self._is_all_seen = not self._is_pipe and form.time_zone is not None
        self.seen = Offsets()
        if self._is_all_seen:
            place = rides.tell()
            rides.seek(0)
            for batch in _opened(rides, kind, self._columns)[1]:
                self.seen = self.seen.plus(self._offsets(batch))
            rides.seek(place)

    def _offsets(self, rides: Batch) -> Offsets:
        return all_offsets((_plain(rides.column(name)) for name in self._columns), self._form.time_zone)

    def moments(self, rides: Batch) -> npt.NDArray[np.datetime64]:
        """Returns times to the second on the city's clock, NaT for anything that is not a time.

        Raises:
            RideFileError: What the times mean cannot be told; those of a pipe that called themselves UTC were taken for
                the city's clock, and now one has another offset; or the city's clock is not known.
        """
        column = _plain(rides.column(name := self._form.column("pickup_datetime")))
        names = " and ".join(self._columns)
        if not self._is_all_seen:
            here = self._offsets(rides)
            if self._is_pipe and here.other and self.seen.utc and not self.seen.other:
                raise RideFileError(
                    f"{names}: expected times of one kind, received UTC and then another offset: whether UTC is the "
                    "city's clock depends on the whole file, so price it as a file"
                )
            self.seen = self.seen.plus(here)
        try:
            moments = wall_clock_if_any(column, self._form.time_zone, self.seen)
        except ClockError as error:
            raise RideFileError(f"{name}: {error}") from None
        try:
            self.seen.ensure_one_clock()
        except ClockError as error:
            also = "; or price it as a file, if times with another offset follow" if self._is_pipe else ""
            raise RideFileError(f"{names}: {error}{also}") from None
        return moments.astype("datetime64[s]")


def _opened(rides: IO[bytes], kind: Kind, columns: list[str] | None = None) -> tuple[pa.Schema, Iterator[Batch]]:
    """Returns the columns of a file and its rows; those of a CSV file all as text, so that no value is changed.

    Args:
        rides: The file.
        kind: Of it.
        columns: Which are read, None: all.
    """
    try:
        beginning = _beginning(rides)
        if rides.seekable() and not beginning:
            raise RideFileError("expected rides, received an empty file")
        if (instead := instead_of("CSV" if kind == "csv" else "parquet", beginning)) is not None:
            raise RideFileError(instead)
        if kind == "parquet":
            file = pq.ParquetFile(rides)
            return file.schema_arrow, _read(file.iter_batches(ROWS, columns=columns), kind)
        schema, batches = open_csv(
            rides,
            pyarrow.csv.ConvertOptions(
                default_column_type=pa.string(), strings_can_be_null=True, null_values=[""], include_columns=columns
            ),
        )
        _ = schema.names  # Arrow reads a header that is not UTF-8, and fails when it is used.
        return schema, _read(batches, kind)
    except _FAULTS as error:
        raise _no_file(kind, error) from None


_FAULTS = (pa.ArrowInvalid, UnicodeDecodeError, OSError, EOFError, zlib.error)
"""What the readers raise when a file is not what it should be, or is cut off."""


def _beginning(rides: IO[bytes]) -> bytes:
    """Returns how a file begins, without moving on in it; nothing of a pipe that cannot be looked into."""
    if not rides.seekable():
        return rides.peek(BEGINNING_BYTES) if isinstance(rides, io.BufferedReader) else b""
    place = rides.tell()
    beginning = rides.read(BEGINNING_BYTES)
    rides.seek(place)
    return beginning


def _read(batches: Iterable[Batch], kind: Kind) -> Iterator[Batch]:
    """Yields the rows; raises at a line of another length, or text that is not UTF-8."""
    try:
        for batch in batches:
            batch.validate(full=True)
            yield batch
    except _FAULTS as error:
        raise _no_file(kind, error) from None


def _no_file(kind: Kind, error: Exception) -> RideFileError:
    if isinstance(error, UnicodeDecodeError):
        return RideFileError(f"expected CSV in UTF-8, {undecoded(error)}: write it in UTF-8")
    said = re.sub(r"\s+", " ", f"{error}{way_out(str(error))}")
    return RideFileError(f"expected a {kind} file of rides with the columns {', '.join(FIELDS)}, received: {said}")


def _ensure_columns(schema: pa.Schema, form: Form, answers: tuple[str, ...]) -> None:
    missing = [name for name in FIELDS if form.column(name) not in schema.names]
    if missing:
        raise RideFileError(_missing(missing, schema.names, form))
    for name in schema.names:
        if name in answers or schema.names.count(name) > 1:
            raise RideFileError(f"expected each column once, and none called {', '.join(answers)}; received {name}")


def _missing(missing: list[str], present: list[str], form: Form) -> str:
    """Returns which columns of a ride are missing, and where their names are to be said."""
    received = ", ".join(as_named(shown(name).strip("'")) for name in present[:20])
    lacking = [f"{form.column(name)} (in TRIP_COLUMNS for {name})" for name in missing if name in form.names]
    lacking += [name for name in missing if name not in form.names]
    hint = own_names(missing, present, form.names)
    return (
        f"expected the columns {', '.join(map(form.column, FIELDS))}, received {received}: {', '.join(lacking)} "
        f"{'is' if len(missing) == 1 else 'are'} missing{'' if hint is None else f': {hint}'}"
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
    work: Callable[[_Timed], tuple[Batch, dict[int, str]]], batches: Iterator[_Timed], threads: int
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


def _scored(
    batch: Batch, moments: npt.NDArray[np.datetime64], schema: pa.Schema, bundle: Bundle, form: Form
) -> tuple[Batch, dict[int, str]]:
    """Returns the rows with their answers, and what is wrong with those that have none."""
    manifest = bundle.manifest
    faults = _faults(batch, rides := _rides(batch, moments, form), manifest.limits, form)
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


def _rides(batch: Batch, moments: npt.NDArray[np.datetime64], form: Form) -> Rides:
    """Returns the rows as rides; whatever is not a number or time becomes one that no limit lets through."""
    west, south, east, north = (_numbers(batch.column(form.column(name))) for name in PLACES)
    passengers = _numbers(batch.column(form.column("passenger_count")), default=MISSING_PASSENGERS)
    is_whole = passengers == np.floor(passengers)
    whole = np.where(is_whole & (np.abs(passengers) < 2**31), passengers, -1).astype(np.int64)
    return Rides(moments, west, south, east, north, whole)


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


def _faults(batch: Batch, rides: Rides, limits: Limits, form: Form) -> dict[int, str]:
    """Returns what is wrong with which rows, and the value there; what is to be done of each kind of fault once."""

    def told(fault: Fault, row: int) -> tuple[str, bool]:
        value = batch.column(name := form.column(fault.field))[row]
        try:
            received = shown(value.as_py())
        except OverflowError:
            received = f"a {value.type} out of range"  # Python has no times after the year 9999.
        is_moment = fault.field == "pickup_datetime"
        expected = limits.expected(fault.field, may_have_offset=True) if is_moment else fault.expected
        return str(Fault(name, expected, received)), not is_moment and _DECIMAL_COMMA.match(received) is not None

    def in_all(row: int, faults: Iterable[Fault]) -> Iterator[str]:
        said = [(fault, *told(fault, row)) for fault in faults]
        yield from (words for _, words, _ in said)
        if commas := [form.column(fault.field) for fault, _, has_comma in said if has_comma]:
            yield f"{', '.join(commas)}: {NUMBERS_AS_IN}"
        yield from remarks([ends[row] for ends in places], limits)

    places = [getattr(rides, name) for name in PLACES]
    return {row: "; ".join(in_all(row, faults)) for row, faults in unfit(rides, limits).items()}
