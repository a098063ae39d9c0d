"""What every source of trips promises."""

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from taxifare.months import Month, bounds
from taxifare.trips import TripTableError, as_trip_table


class SourceError(RuntimeError):
    """A source cannot give what was asked; the message names the file or address, the month and what was expected."""


class MonthNotPublishedError(SourceError):
    """The source has no such month (yet)."""


@dataclass(frozen=True)
class Publication:
    """Trips as a source published them.

    Attributes:
        trips: A trip table (see `taxifare.trips`), unclean as published.
        revision: Identifies the content: equal exactly when the content is equal.
        origin: Where it was read, for people.
    """

    trips: pd.DataFrame
    revision: str
    origin: str


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
            SourceError: There are none, or they cannot be read.
        """
        ...

    def base_revision(self) -> str:
        """Returns the revision of the base years without reading trips.

        Raises:
            SourceError: There are none.
        """
        ...


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
