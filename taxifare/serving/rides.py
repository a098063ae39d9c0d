"""Rides for which a price is asked: what they are, and which can be priced. They are checked here, whoever asks.

A ride is what is known before it begins. A model prices whatever it is given, even a longitude of a billion degrees, so
nothing reaches it that is not a ride of its city.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from taxifare.errors import ToldError
from taxifare.texts import one_line
from taxifare.trips.features import MISSING_PASSENGERS

PLACES = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")

FIELDS = ("pickup_datetime", *PLACES, "passenger_count")

_KNOWN_AFTERWARDS = frozenset({"fare_amount", "dropoff_datetime", "trip_distance", "trip_seconds", "total_amount"})

WALL_CLOCK = r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
"""A time on the city's clock, to the minute or finer."""

EXAMPLE_TIME = "2015-03-14 18:05"

_WALL_CLOCK = re.compile(WALL_CLOCK, re.ASCII)

_HALF_TURN_DEG = 180.0

_SHOWN = 100
"""Most characters of a received value that are repeated."""

Moments: TypeAlias = "npt.NDArray[np.datetime64]"

Numbers: TypeAlias = npt.NDArray[np.float64]


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one field of a ride."""

    field: str
    expected: str
    received: str

    def __str__(self) -> str:
        """The fault in one line."""
        return f"{self.field}: expected {self.expected}, received {self.received}"


class RideError(ToldError, ValueError):
    """A ride that cannot be priced.

    Attributes:
        faults: What is wrong with it.
        remarks: What explains them, in words.
    """

    def __init__(self, faults: Sequence[Fault], remarks: Sequence[str] = ()) -> None:
        super().__init__("; ".join([*map(str, faults), *remarks]))
        self.faults, self.remarks = tuple(faults), tuple(remarks)


class Ride(NamedTuple):
    """A ride that can be priced: when it begins on the city's clock, from where to where, and how many passengers."""

    pickup_datetime: datetime
    pickup_longitude: float
    pickup_latitude: float
    dropoff_longitude: float
    dropoff_latitude: float
    passenger_count: int


@dataclass(frozen=True)
class Rides:
    """Several rides, each field an array of shape (n,): degrees, and times on the city's clock without a zone."""

    pickup_datetime: Moments
    pickup_longitude: Numbers
    pickup_latitude: Numbers
    dropoff_longitude: Numbers
    dropoff_latitude: Numbers
    passenger_count: npt.NDArray[np.integer]

    def __len__(self) -> int:
        """How many."""
        return len(self.pickup_datetime)

    def __getitem__(self, rows: "slice | npt.NDArray[Any]") -> "Rides":
        """Returns some of them."""
        return Rides(*(getattr(self, field.name)[rows] for field in fields(self)))


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits within which a model prices rides, both ends included.

    Attributes:
        longitude_range_deg: Of pickup and drop-off.
        latitude_range_deg: Of pickup and drop-off.
        most_passengers: The fewest is 1.
        earliest: Earliest pickup.
        latest: Latest pickup.
    """

    longitude_range_deg: tuple[float, float]
    latitude_range_deg: tuple[float, float]
    most_passengers: int
    earliest: datetime
    latest: datetime

    def of(self, field: str) -> tuple[Any, Any]:
        """Returns the smallest and the largest value of a field."""
        if field == "pickup_datetime":
            return self.earliest, self.latest
        if field == "passenger_count":
            return 1, self.most_passengers
        return self.longitude_range_deg if field.endswith("longitude") else self.latitude_range_deg

    def expected(self, field: str, *, may_have_offset: bool = False) -> str:
        """Returns in words what is expected of a field; in a file, times may have an offset."""
        low, high = self.of(field)
        if field == "pickup_datetime":
            when = f"from {low:%Y-%m-%d} to {high:%Y-%m-%d}, years after the last trip that the version has learned"
            how = "or with its offset" if may_have_offset else "without a zone"
            return f"a time on the city's clock {how}, as in {EXAMPLE_TIME}, {when}"
        if field == "passenger_count":
            return f"a whole number from {low} to {high}, or null"
        return f"degrees from {low} to {high}"

    def holds(self, longitude: float, latitude: float) -> bool:
        """Returns whether a place is within the limits."""
        (west, east), (south, north) = self.longitude_range_deg, self.latitude_range_deg
        return west <= longitude <= east and south <= latitude <= north

    def schema(self) -> dict[str, Any]:
        """Returns the JSON schema of a ride within these limits."""
        properties: dict[str, Any] = {
            "pickup_datetime": {"type": "string", "pattern": f"^{_WALL_CLOCK.pattern}$"},
            **{name: {"type": "number", "minimum": self.of(name)[0], "maximum": self.of(name)[1]} for name in PLACES},
            "passenger_count": {"type": ["integer", "null"], "minimum": 1, "maximum": self.most_passengers},
        }
        for name, schema in properties.items():
            schema["description"] = self.expected(name)
        return {
            "type": "object",
            "properties": properties,
            "required": list(FIELDS),
            "additionalProperties": False,
        }


def checked(told: Mapping[str, object], limits: Limits) -> Ride:
    """Returns the ride that was described.

    >>> limits = Limits(
    ...     longitude_range_deg=(-74.3, -73.7), latitude_range_deg=(40.5, 40.9), most_passengers=7,
    ...     earliest=datetime(2009, 1, 1), latest=datetime(2020, 1, 1),
    ... )
    >>> told = {
    ...     "pickup_datetime": "2015-03-14 18:05", "pickup_longitude": -73.98, "pickup_latitude": 40.75,
    ...     "dropoff_longitude": -73.78, "dropoff_latitude": 40.64, "passenger_count": None,
    ... }
    >>> checked(told, limits).passenger_count
    1
    >>> checked({**told, "passenger_count": 9}, limits)
    Traceback (most recent call last):
    taxifare.serving.rides.RideError: passenger_count: expected a whole number from 1 to 7, or null, received 9

    Raises:
        RideError: A field is missing, unknown, of another type or outside the limits; all faults are named.
    """
    faults: list[Fault] = [_surplus(name, told[name]) for name in told if name not in _READ]
    values: list[Any] = []
    for name, low, high, read in _rules(limits):
        value = told.get(name, _NOTHING)
        found = read(value)
        if found is None or not low <= found <= high:
            faults.append(Fault(name, limits.expected(name), shown(value)))
        values.append(found)
    if faults:
        raise RideError(faults, remarks(values[1:5], limits))
    moment, west, south, east, north, passengers = values
    return Ride(moment, float(west), float(south), float(east), float(north), passengers)


def remarks(places: Sequence[float | None], limits: Limits) -> tuple[str, ...]:
    """Returns what is wrong with a ride's places as a whole, in words: swapped coordinates, or an end outside the city.

    >>> limits = Limits(
    ...     longitude_range_deg=(-74.3, -73.7), latitude_range_deg=(40.5, 40.9), most_passengers=7,
    ...     earliest=datetime(2009, 1, 1), latest=datetime(2020, 1, 1),
    ... )
    >>> remarks((40.75, -73.98, 2.35, 48.86), limits)
    ('pickup: longitude and latitude are swapped', 'the ride ends outside the city whose rides the model prices')

    Args:
        places: Longitude and latitude of pickup, then of drop-off, degrees; None or NaN for what is no number; such
            an end, or one of no place on earth, has no remark.
        limits: Of the model.
    """
    found = []
    for end, what, place in (("pickup", "begins", places[:2]), ("dropoff", "ends", places[2:])):
        known = [degrees for degrees in place if degrees is not None and abs(degrees) <= _HALF_TURN_DEG]
        if len(known) < len(place) or limits.holds(*known):
            continue
        if limits.holds(*reversed(known)):
            found.append(f"{end}: longitude and latitude are swapped")
        else:
            found.append(f"the ride {what} outside the city whose rides the model prices")
    return tuple(found)


@cache
def _rules(limits: Limits) -> tuple[tuple[str, Any, Any, Callable[[object], Any]], ...]:
    """Returns for each field its name, its smallest and largest value, and how it is read."""
    return tuple((name, *limits.of(name), read) for name, read in _READ.items())


def unfit(rides: Rides, limits: Limits) -> Mapping[int, tuple[Fault, ...]]:
    """Returns the faults of many rides, by their position; rides that can be priced are left out."""
    faults: dict[int, list[Fault]] = {}
    for name in FIELDS:
        values = getattr(rides, name)
        low, high = limits.of(name)
        if name == "pickup_datetime":
            low, high = np.datetime64(low), np.datetime64(high)
        for row in np.flatnonzero(~((values >= low) & (values <= high))).tolist():
            faults.setdefault(row, []).append(Fault(name, limits.expected(name), shown(values[row])))
    return {row: tuple(found) for row, found in sorted(faults.items())}


def packed(rides: Iterable[Ride]) -> Rides:
    """Returns single rides as arrays."""
    columns = list(zip(*rides, strict=True)) or [()] * len(FIELDS)
    west, south, east, north = (np.array(column, np.float64) for column in columns[1:5])
    return Rides(np.array(columns[0], "datetime64[s]"), west, south, east, north, np.array(columns[5], np.int64))


def shown(value: object) -> str:
    """Returns a received value in a form fit to repeat: short, and on one line.

    >>> shown(float("1e300")), shown("a" * 200)[-3:]
    ('1e+300', 'aa…')
    """
    text = one_line(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class _Nothing:
    """Stands where a field is missing."""

    def __str__(self) -> str:
        return "nothing"


_NOTHING = _Nothing()


def _surplus(name: object, value: object) -> Fault:
    expected = (
        "it left out, for it is known only after the ride"
        if name in _KNOWN_AFTERWARDS
        else f"it left out, for a ride has {', '.join(FIELDS)}"
    )
    return Fault(shown(name).strip("'"), expected, shown(value))


def _moment(value: object) -> datetime | None:
    """Returns a time on the city's clock, None if it is not one, or has a zone."""
    if not isinstance(value, str) or not _WALL_CLOCK.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _degrees(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _passengers(value: object) -> int | None:
    """Returns a count, None if it is not one; a null counts as the models take it."""
    if value is None:
        return MISSING_PASSENGERS
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_READ = {"pickup_datetime": _moment, **dict.fromkeys(PLACES, _degrees), "passenger_count": _passengers}
"""How each field is read; None for what cannot be read."""
