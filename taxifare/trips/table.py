"""The trip table: the types of its columns, and the one function that lets rows into it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from taxifare.trips.clock import Clocked, ClockError, Offsets, offsets_in, on_pickups_clock, wall_clock
from taxifare.trips.columns import COLUMN_NAMES, TRIP_COLUMNS, Column, Kind
from taxifare.trips.text_files import NUMBERS_AS_IN, as_named, own_names

DTYPES: dict[Kind, Any] = {
    "text": "string[pyarrow]",
    "timestamp": "datetime64[us]",
    "number": "float64",
    "integer": "Int32",
}


class TripTableError(ValueError):
    """Rows that are not a trip table; the message names the origin, the column, what was expected and what came."""


_FAULTS = (ValueError, TypeError, ArithmeticError, pa.ArrowException)
"""What pandas and Arrow raise of values that are of quite another type."""

_NONE: Mapping[str, str] = {}

_EXAMPLES = 20
"""Of columns that are named where there are more."""

_FEWEST_TIMES = 10
"""So many pickups that are all at midnight are dates."""

_MICROSECONDS_PER_DAY = 86_400_000_000


def as_trip_table(
    frame: pd.DataFrame,
    origin: str,
    *,
    first_number: int = 0,
    time_zone: str | None = None,
    offsets: Offsets | None = None,
) -> pd.DataFrame:
    """Returns the rows as a trip table: the columns of `TRIP_COLUMNS` in order and type, sorted by pickup time.

    Nothing is repaired: a value that does not fit its column's type is an error. Times become the clock's on the wall,
    see `clock`; where all of them are called UTC they are not shifted, because public files write New York wall-clock
    time and call it so. `key` is numbered from the sorted rows where the source has none;
    `dropoff_datetime` is null where the source has none, and where the clock leaves open how long a ride took.

    Args:
        frame: Rows as read from a source, with exactly the required columns and any of the optional ones.
        origin: Where the rows come from (a file, a table), for error messages.
        first_number: Where the numbering starts: of a part of a file, with the rows before it.
        time_zone: Of the city; None where the times are as a trip table has them.
        offsets: Of all times of what is read, where the rows are a part of it; None: they are all.

    Returns:
        A new frame with a fresh index; ties in pickup time keep the source's order.

    Raises:
        TripTableError: A column is missing or unknown, a value has the wrong type, or a null stands where none may.

    >>> rows = pd.DataFrame({
    ...     "pickup_datetime": ["2015-01-02 10:00:00 UTC", "2015-01-01 09:00:00 UTC"],
    ...     "pickup_longitude": [-73.98, -73.97], "pickup_latitude": [40.75, 40.76],
    ...     "dropoff_longitude": [-73.95, -73.96], "dropoff_latitude": [40.77, 40.78],
    ...     "passenger_count": [1, 2], "fare_amount": [7.5, 9.0]})
    >>> as_trip_table(rows, "an example")[["key", "pickup_datetime", "fare_amount"]]
              key     pickup_datetime  fare_amount
    0  0000000000 2015-01-01 09:00:00          9.0
    1  0000000001 2015-01-02 10:00:00          7.5
    """
    check_column_names(frame.columns, origin)
    table = pd.DataFrame(_other_than_times(frame, origin) | _times(frame, origin, time_zone, offsets))
    if not table["pickup_datetime"].is_monotonic_increasing:
        table = table.sort_values("pickup_datetime", kind="stable", ignore_index=True)
    table = table.reset_index(drop=True)
    if "key" not in table:
        numbers = range(first_number, first_number + len(table))
        table["key"] = pd.Series([f"{number:010d}" for number in numbers], dtype=DTYPES["text"])
    if "dropoff_datetime" not in table:
        table["dropoff_datetime"] = pd.Series(pd.NaT, index=table.index, dtype=DTYPES["timestamp"])
    return table[list(COLUMN_NAMES)]


def check_column_names(
    names: Iterable[str], origin: str, others: Iterable[str] = (), in_force: Mapping[str, str] = _NONE
) -> None:
    """Ensures that the names are those of a trip table: all required ones, none unknown, none twice.

    Args:
        names: Of the columns that are read.
        origin: Where they are.
        others: Names of columns that are there and left out.
        in_force: What TRIP_COLUMNS calls them.

    Raises:
        TripTableError: Names what is missing, unknown or repeated, and what was expected.

    >>> check_column_names(["pickup_datetime", "tip"], "trips.csv")
    Traceback (most recent call last):
    ...
    taxifare.trips.table.TripTableError: trips.csv: missing columns ...; unknown columns tip; if your
    columns have other names, map them in TRIP_COLUMNS, ...; expected ...
    >>> check_column_names([name for name in COLUMN_NAMES if name != "pickup_longitude"] + ["longitud_pickup"], "a.csv")
    Traceback (most recent call last):
    ...
    taxifare.trips.table.TripTableError: a.csv: missing columns pickup_longitude; unknown columns longitud_pickup; did
    you mean TRIP_COLUMNS=pickup_longitude=longitud_pickup? (TRIP_SOURCE=bigquery: a view); expected ...
    """
    present = list(names)
    missing = [column.name for column in TRIP_COLUMNS if column.required and column.name not in present]
    unknown = [as_named(name) for name in present if name not in COLUMN_NAMES]
    repeated = [column.name for column in TRIP_COLUMNS if present.count(column.name) > 1]
    faults = [
        f"{fault} columns {', '.join(columns)}"
        for fault, columns in (("missing", missing), ("unknown", unknown), ("repeated", repeated))
        if columns
    ]
    if faults:
        required = ", ".join(column.name for column in TRIP_COLUMNS if column.required)
        optional = ", ".join(column.name for column in TRIP_COLUMNS if not column.required)
        left_out = [as_named(name) for name in others if name not in present]
        if missing and left_out:
            faults.append(f"columns left out are {', '.join(left_out[:_EXAMPLES])}")
        there = [*(in_force.get(name, name) for name in present), *others]
        if (hint := own_names(missing, there, in_force)) is not None:
            faults.append(f"{hint} (TRIP_SOURCE=bigquery: a view)")
        raise TripTableError(f"{origin}: {'; '.join(faults)}; expected {required} and optionally {optional}")


def _other_than_times(frame: pd.DataFrame, origin: str) -> dict[str, pd.Series]:
    """Returns the columns that are no times; raises with the first that does not fit, and the names of others."""
    found, faults = dict[str, pd.Series](), dict[str, TripTableError]()
    for column in TRIP_COLUMNS:
        if column.name in frame.columns and column.kind != "timestamp":
            try:
                found[column.name] = _as_column(frame[column.name], column, origin)
            except TripTableError as error:
                faults[column.name] = error
    if faults:
        first, *others = faults
        also = f"; nor are values as expected in {', '.join(others)}" if others else ""
        raise TripTableError(f"{faults[first]}{also}") from faults[first].__cause__
    return found


def _times(frame: pd.DataFrame, origin: str, time_zone: str | None, offsets: Offsets | None) -> dict[str, pd.Series]:
    """Returns the columns of times, by the clock on the wall."""
    columns = [column for column in TRIP_COLUMNS if column.kind == "timestamp" and column.name in frame.columns]
    if offsets is None:
        offsets = reduce(Offsets.plus, (_offsets(frame[column.name], column, origin, time_zone) for column in columns))
    clocked = {column.name: _clocked(frame[column.name], column, origin, time_zone, offsets) for column in columns}
    try:
        offsets.ensure_one_clock()
    except ClockError as error:
        raise TripTableError(f"{origin}: {' and '.join(clocked)}: {error}") from None
    walls = {name: times.wall for name, times in clocked.items()}
    pickups = walls["pickup_datetime"]
    # Most are told from dates by the first few; those that are not cost a pass over all.
    if len(pickups) >= _FEWEST_TIMES and all(
        not np.any(some.astype(np.int64) % _MICROSECONDS_PER_DAY) for some in (pickups[:_FEWEST_TIMES], pickups)
    ):
        raise TripTableError(
            f"{origin}: column pickup_datetime: expected times of day, received midnights only ({len(pickups):,} of "
            "them): dates do not tell when rides began"
        )
    if time_zone is not None and "dropoff_datetime" in clocked:
        walls["dropoff_datetime"] = on_pickups_clock(clocked["pickup_datetime"], clocked["dropoff_datetime"], time_zone)
    return {name: pd.Series(wall, index=frame.index, dtype=DTYPES["timestamp"]) for name, wall in walls.items()}


def _clocked(values: pd.Series, column: Column, origin: str, time_zone: str | None, offsets: Offsets) -> Clocked:
    """Returns a column of times, or raises with the first that is none."""
    with _reading(values, column, origin):
        clocked = wall_clock(values, time_zone, offsets)
    _ensure_no_nulls(int(np.isnat(clocked.wall).sum()), column, origin)
    return clocked


def _offsets(values: pd.Series, column: Column, origin: str, time_zone: str | None) -> Offsets:
    with _reading(values, column, origin):
        return offsets_in(values, time_zone)


@contextmanager
def _reading(values: pd.Series, column: Column, origin: str) -> Iterator[None]:
    """Raises with the first value that does not fit the column, where something fails because of one."""
    try:
        yield
    except ClockError as error:
        raise TripTableError(f"{origin}: column {column.name}: {error}") from None
    except _FAULTS as error:
        raise _not_converted(values, column, origin, error) from error


def _as_column(values: pd.Series, column: Column, origin: str) -> pd.Series:
    """Returns the values in the column's type, or raises with the first value that does not fit."""
    with _reading(values, column, origin):
        converted = _converted(values, column.kind)
    is_null = converted.isna()
    nulls = int(is_null.sum())
    if not nulls:
        return converted
    unfit = values[is_null & values.notna()]
    if len(unfit):
        raise TripTableError(
            f"{origin}: column {column.name}: expected {column.kind}, received {unfit.head(1).tolist()[0]!r} "
            f"(the first of {len(unfit):,} such values){_as_in(column.kind)}"
        )
    _ensure_no_nulls(nulls, column, origin)
    return converted


def _as_in(kind: Kind) -> str:
    """Returns how values of a kind are written."""
    if kind == "number":
        return f": {NUMBERS_AS_IN}, and without a unit"
    return ": whole numbers are written as in 12" if kind == "integer" else ""


def _ensure_no_nulls(nulls: int, column: Column, origin: str) -> None:
    if nulls and not column.nullable:
        raise TripTableError(f"{origin}: column {column.name}: {nulls:,} null values, expected none")


def _not_converted(values: pd.Series, column: Column, origin: str, error: Exception) -> TripTableError:
    told = f"expected {column.kind}, received {values.dtype}: {error}"
    return TripTableError(f"{origin}: column {column.name}: {told}")


def _converted(values: pd.Series, kind: Kind) -> pd.Series:
    """Returns the values in the type of the kind; what does not fit is null, or raises what pandas and Arrow raise."""
    if kind == "text":
        if values.dtype == object and values.map(lambda value: isinstance(value, list | dict | np.ndarray)).any():
            raise TypeError("lists or records")
        return values.astype(DTYPES["text"])
    if values.dtype.kind in "bmM":
        raise TypeError("they would become numbers, and are none")
    if pd.api.types.is_string_dtype(values):
        values = values.mask(values.str.contains("\0", regex=False))  # where C ends a text, and pandas a number
    numbers = pd.to_numeric(values, errors="coerce")
    return _as_integers(numbers) if kind == "integer" else numbers.astype(DTYPES["number"])


def _as_integers(values: pd.Series) -> pd.Series:
    """Returns whole numbers of 32 bits; what is none is null."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    limits = np.iinfo(np.int32)
    whole = (np.floor(numbers) == numbers) & (numbers >= limits.min) & (numbers <= limits.max)
    return pd.Series(pd.arrays.IntegerArray(np.where(whole, numbers, 0).astype(np.int32), ~whole), index=values.index)
