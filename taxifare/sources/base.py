"""What every source of trips promises, and what each uses to keep it.

How trips are published in one place only belongs into the module of that source. Why "no base years" is an answer and
a source that fails is none: docs/decisions.md, under sources.
"""

from typing import Protocol

import pandas as pd

from taxifare.errors import ToldError
from taxifare.trips.months import Month, bounds
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.table import TripTableError, as_trip_table
from taxifare.trips.targets import Target


class SourceError(ToldError, RuntimeError):
    """A source cannot give what was asked; the message names the file or address, the month and what was expected."""


class MonthNotPublishedError(SourceError):
    """The source has no such month (yet)."""


class NoBaseError(SourceError):
    """The source has no years before the first month, and says so; one that does not answer is another error."""


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

    def read_base(self) -> BasePublication:
        """Returns the trips of the years before the first month, which are read when their parts are asked for.

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


def unchanged(publication: Publication, revision: str) -> Publication:
    """Returns a part of the base years, which has to be of the revision that was announced.

    Raises:
        SourceError: It has another one.
    """
    if publication.revision != revision:
        raise SourceError(
            f"{publication.origin}: expected revision {revision}, received {publication.revision}: the base years "
            "changed while they were read: try again"
        )
    return publication


def base_revision_of(source: TripSource) -> str | None:
    """Returns the revision of the base years, None where the source has none.

    Raises:
        SourceError: It cannot be known now.
    """
    try:
        return source.base_revision()
    except NoBaseError:
        return None


def month_with(target: Target, source: TripSource, month: Month) -> Publication:
    """Returns a month as published, some of whose trips tell the target.

    Raises:
        MonthNotPublishedError: The source does not have this month.
        SourceError: It cannot be read as trips of that month, or none of them tells the target.
    """
    published = source.read_month(month)
    known = int(published.trips[target.column].count())
    ensure_target(target, known, len(published.trips), f"{published.origin}: month {month}")
    return published


def ensure_target(target: Target, known: int, trips: int, origin: str) -> None:
    """Ensures that trips as published tell the target; single ones that do not are cleaning's business.

    Args:
        target: What is to be learned of them.
        known: How many of them have a value in the target's column.
        trips: How many there are.
        origin: Where they are from.

    Raises:
        SourceError: None of them does; names the origin and the column.
    """
    if trips and not known:
        raise SourceError(
            f"{origin}: column {target.column}: expected values, which TARGET={target.name} needs, received none in "
            f"{trips:,} trips"
        )


def new_york_now() -> pd.Timestamp:
    """Returns what the clocks in New York show."""
    return pd.Timestamp.now(tz="America/New_York").tz_localize(None)


def checked_trips(frame: pd.DataFrame, origin: str, *, first_number: int = 0) -> pd.DataFrame:
    """Returns rows as read from a source as a trip table with at least one row, see `as_trip_table`.

    Raises:
        SourceError: There are no rows, or they are not trips; names the origin, the column and the first misfit.
    """
    try:
        trips = as_trip_table(frame, origin, first_number=first_number)
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
