"""The columns of the trip table: what they hold, in which unit, and which of them a trip may lack.

Everything that needs to know what a trip is – sources, checks, the column schema in Dagster's UI, the documentation –
reads `TRIP_COLUMNS`; nothing repeats it. `table` has the one function that lets rows into a trip table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "timestamp", "number", "integer"]


@dataclass(frozen=True)
class Column:
    """One column of the trip table.

    Attributes:
        name: Column name.
        kind: What it holds; `table.DTYPES` gives its pandas type.
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

    def described(self, currency: str) -> str:
        """Returns what it means, with its unit, in a city of that currency."""
        unit = currency if self.unit == MONEY else self.unit
        return f"{self.description} ({unit})" if unit else self.description


MONEY = "money"
"""The unit of what is in the city's currency."""

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
    Column("passenger_count", "integer", "", "Number of passengers", nullable=True),
    Column("fare_amount", "number", MONEY, "Meter fare plus tolls", nullable=True, known_at_pickup=False),
    Column(
        "dropoff_datetime",
        "timestamp",
        "city wall-clock time",
        "When the meter was stopped, by the clock that was right at the pickup: a target, never a feature",
        nullable=True,
        required=False,
        known_at_pickup=False,
    ),
)

COLUMN_NAMES: tuple[str, ...] = tuple(column.name for column in TRIP_COLUMNS)

TIME_COLUMNS: tuple[str, ...] = tuple(column.name for column in TRIP_COLUMNS if column.kind == "timestamp")

KNOWN_AT_PICKUP: tuple[str, ...] = tuple(c.name for c in TRIP_COLUMNS if c.known_at_pickup and c.name != "key")

COORDINATES: tuple[str, ...] = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")


def in_file(column: str, names: Mapping[str, str]) -> str:
    """Returns what a column is called where somebody has to look for it, and by which setting if that is another name.

    >>> in_file("key", {}), in_file("key", {"key": "ride_id"})
    ('key', 'ride_id (TRIP_COLUMNS: key=ride_id)')

    Args:
        column: Of the trip table.
        names: What columns are called in the files, as TRIP_COLUMNS says.
    """
    name = names.get(column, column)
    return name if name == column else f"{name} (TRIP_COLUMNS: {column}={name})"
