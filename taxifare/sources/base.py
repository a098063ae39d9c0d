"""What every source of trips promises."""

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from taxifare.months import Month


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
