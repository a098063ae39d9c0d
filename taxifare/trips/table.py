"""The trip table: its columns, types, units and valid ranges, and the one function that lets rows into it.

Everything that needs to know what a trip is – sources, checks, the column schema in Dagster's UI, the documentation –
reads `TRIP_COLUMNS`; nothing repeats it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["text", "timestamp", "number", "integer"]

DTYPES: dict[Kind, Any] = {
    "text": "string[pyarrow]",
    "timestamp": "datetime64[us]",
    "number": "float64",
    "integer": "Int32",
}


@dataclass(frozen=True)
class Column:
    """One column of the trip table.

    Attributes:
        name: Column name.
        kind: What it holds; `DTYPES` gives its pandas type.
        unit: Unit of its values, empty where there is none.
        description: What it means, in one line.
        nullable: Whether a published trip may lack it. What cleaning does about it is cleaning's business.
        required: Whether a source must publish it.
        known_at_pickup: Whether a prediction may use it. What is known only afterwards is never a feature.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    nullable: bool = False
    required: bool = True
    known_at_pickup: bool = True


TRIP_COLUMNS: tuple[Column, ...] = (
    Column(
        "key",
        "text",
        "",
        "Identifier, unique within a month; numbered where the source has none",
        required=False,
    ),
    Column("pickup_datetime", "timestamp", "city wall-clock time", "When the meter was started"),
    Column("pickup_longitude", "number", "degrees", "Where the ride started", nullable=True),
    Column("pickup_latitude", "number", "degrees", "Where the ride started", nullable=True),
    Column("dropoff_longitude", "number", "degrees", "Where the ride ended", nullable=True),
    Column("dropoff_latitude", "number", "degrees", "Where the ride ended", nullable=True),
    Column("passenger_count", "integer", "passengers", "How many rode", nullable=True),
    Column("fare_amount", "number", "USD", "Meter fare plus tolls", nullable=True, known_at_pickup=False),
    Column(
        "dropoff_datetime",
        "timestamp",
        "city wall-clock time",
        "When the meter was stopped: a target, never a feature",
        nullable=True,
        required=False,
        known_at_pickup=False,
    ),
)

COLUMN_NAMES: tuple[str, ...] = tuple(column.name for column in TRIP_COLUMNS)

KNOWN_AT_PICKUP: tuple[str, ...] = tuple(c.name for c in TRIP_COLUMNS if c.known_at_pickup and c.name != "key")

COORDINATES: tuple[str, ...] = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")


class TripTableError(ValueError):
    """Rows that are not a trip table; the message names the origin, the column, what was expected and what came."""


def as_trip_table(frame: pd.DataFrame, origin: str, *, first_number: int = 0) -> pd.DataFrame:
    """Returns the rows as a trip table: the columns of `TRIP_COLUMNS` in order and type, sorted by pickup time.

    Nothing is repaired: a value that does not fit its column's type is an error. Zone-aware pickup times lose their
    zone without being shifted, because public files write New York wall-clock time and call it UTC. `key` is numbered
    from the sorted rows where the source has none; `dropoff_datetime` is null where the source has none.

    Args:
        frame: Rows as read from a source, with exactly the required columns and any of the optional ones.
        origin: Where the rows come from (a file, a table), for error messages.
        first_number: Where the numbering starts: of a part of a file, with the rows before it.

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
    columns = {
        column.name: _as_column(frame[column.name], column, origin)
        for column in TRIP_COLUMNS
        if column.name in frame.columns
    }
    table = pd.DataFrame(columns)
    if not table["pickup_datetime"].is_monotonic_increasing:
        table = table.sort_values("pickup_datetime", kind="stable", ignore_index=True)
    table = table.reset_index(drop=True)
    if "key" not in table:
        numbers = range(first_number, first_number + len(table))
        table["key"] = pd.Series([f"{number:010d}" for number in numbers], dtype=DTYPES["text"])
    if "dropoff_datetime" not in table:
        table["dropoff_datetime"] = pd.Series(pd.NaT, index=table.index, dtype=DTYPES["timestamp"])
    return table[list(COLUMN_NAMES)]


def check_column_names(names: Iterable[str], origin: str) -> None:
    """Ensures that the names are those of a trip table: all required ones, none unknown, none twice.

    Raises:
        TripTableError: Names what is missing, unknown or repeated, and what was expected.

    >>> check_column_names(["pickup_datetime", "tip"], "trips.csv")
    Traceback (most recent call last):
    ...
    taxifare.trips.table.TripTableError: trips.csv: missing columns ...; unknown columns tip; expected ...
    """
    present = list(names)
    missing = [column.name for column in TRIP_COLUMNS if column.required and column.name not in present]
    unknown = [str(name) for name in present if name not in COLUMN_NAMES]
    repeated = [column.name for column in TRIP_COLUMNS if present.count(column.name) > 1]
    faults = [
        f"{fault} columns {', '.join(columns)}"
        for fault, columns in (("missing", missing), ("unknown", unknown), ("repeated", repeated))
        if columns
    ]
    if faults:
        required = ", ".join(column.name for column in TRIP_COLUMNS if column.required)
        optional = ", ".join(column.name for column in TRIP_COLUMNS if not column.required)
        raise TripTableError(f"{origin}: {'; '.join(faults)}; expected {required} and optionally {optional}")


def _as_column(values: pd.Series, column: Column, origin: str) -> pd.Series:
    """Returns the values in the column's type, or raises with the first value that does not fit."""
    if column.kind == "timestamp":
        converted = _as_timestamps(values)
    elif column.kind == "text":
        converted = values.astype(DTYPES["text"])
    else:
        converted = pd.to_numeric(values, errors="coerce")
        converted = _as_integers(converted) if column.kind == "integer" else converted.astype(DTYPES["number"])
    unfit = values[converted.isna() & values.notna()]
    if len(unfit):
        raise TripTableError(
            f"{origin}: column {column.name}: expected {column.kind}, received {unfit.head(1).tolist()[0]!r} "
            f"(the first of {len(unfit):,} such values)"
        )
    if not column.nullable and converted.isna().any():
        raise TripTableError(
            f"{origin}: column {column.name}: {int(converted.isna().sum()):,} null values, expected none"
        )
    return converted


def _as_integers(values: pd.Series) -> pd.Series:
    """Returns whole numbers of 32 bits; what is none is null."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    limits = np.iinfo(np.int32)
    whole = (np.floor(numbers) == numbers) & (numbers >= limits.min) & (numbers <= limits.max)
    return pd.Series(pd.arrays.IntegerArray(np.where(whole, numbers, 0).astype(np.int32), ~whole), index=values.index)


def _as_timestamps(values: pd.Series) -> pd.Series:
    """Returns wall-clock times without a zone; what cannot be read is null."""
    if not pd.api.types.is_datetime64_any_dtype(values):
        text = pa.chunked_array(pa.array(values.astype(DTYPES["text"])))
        text = pc.if_else(pc.ends_with(text, " UTC"), pc.utf8_slice_codeunits(text, 0, -4), text)
        try:
            times = text.cast(pa.timestamp("us")).to_numpy()
        except pa.ArrowInvalid:  # a zone, digits beyond microseconds, or no time at all: pandas reads it, or says which
            times = pd.to_datetime(text.to_pandas(), errors="coerce", format="ISO8601").array
        values = pd.Series(times, index=values.index)
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.tz_localize(None)
    return values.astype(DTYPES["timestamp"])
