"""What every source of trips promises."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

from taxifare.months import Month, bounds
from taxifare.trips import TripTableError, as_trip_table


class SourceError(RuntimeError):
    """A source cannot give what was asked; the message names the file or address, the month and what was expected."""


class MonthNotPublishedError(SourceError):
    """The source has no such month (yet)."""


class NoBaseError(SourceError):
    """The source has no years before the first month, and says so; one that does not answer is another error."""


@dataclass(frozen=True)
class Publication:
    """Trips as a source published them.

    Attributes:
        trips: A trip table (see `taxifare.trips`), unclean as published.
        revision: Identifies the content: equal exactly when the content is equal.
        origin: Where it was read, for people.
        is_validation: Which trips are for validation, by their index, where the source publishes that; else None.
        dropped: Published rows that are no trips of the table or were not drawn, by reason; empty where all are here.
    """

    trips: pd.DataFrame
    revision: str
    origin: str
    is_validation: pd.Series | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)


class TripSource(Protocol):
    """A publisher of monthly trips and of the base years before them.

    Reading is deterministic: the same revision has the same rows. Months are half-open. A source raises `SourceError`
    (or a subclass) with a message a person can act on, and never returns part of a month.
    """

    def months(self) -> dict[Month, str]:
        """Returns the published months and their revisions, oldest first, without reading trips."""
        ...

    def read_month(self, month: Month) -> Publication:
        """Returns one month of trips, at least one row.

        Raises:
            MonthNotPublishedError: The source does not have this month.
            SourceError: The month is there but cannot be read as trips of that month.
        """
        ...

    def read_base(self) -> Publication:
        """Returns the trips of the years before the first month.

        Raises:
            NoBaseError: There are none.
            SourceError: They cannot be read.
        """
        ...

    def base_revision(self) -> str:
        """Returns the revision of the base years without reading trips.

        Raises:
            NoBaseError: There are none.
            SourceError: It cannot be known now.
        """
        ...


def digest(facts: object) -> str:
    """Returns a short text that changes when one of the facts does, which are what JSON can hold.

    >>> digest([1, "2015-01"])
    'ba8ac91e56ce3c97'
    """
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def new_york_now() -> pd.Timestamp:
    """Returns what the clocks in New York show."""
    return pd.Timestamp.now(tz="America/New_York").tz_localize(None)


def checked_trips(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Returns rows as read from a source as a trip table with at least one row.

    Raises:
        SourceError: There are no rows, or they are not trips; names the origin, the column and the first misfit.
    """
    try:
        trips = as_trip_table(frame, origin)
    except TripTableError as error:
        raise SourceError(str(error)) from error
    if trips.empty:
        raise SourceError(f"{origin}: expected trips, received no rows")
    return trips


def checked_month(frame: pd.DataFrame, month: Month, origin: str) -> pd.DataFrame:
    """Returns rows as read from a source as a trip table of that month: at least one row, all of them in the month.

    Raises:
        SourceError: As `checked_trips`, or a pickup is before the month or at or after the first instant of the next.
    """
    trips = checked_trips(frame, f"{origin}: month {month}")
    first, until = bounds(month)
    pickups = trips["pickup_datetime"]
    strays = pickups[(pickups < first) | (pickups >= until)]
    if len(strays):
        raise SourceError(
            f"{origin}: month {month}: column pickup_datetime: expected times from {first} until before {until}, "
            f"received {strays.iloc[0]} (the first of {len(strays):,} such rows of {len(trips):,})"
        )
    return trips
