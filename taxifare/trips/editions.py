"""Which trips are meant: a month, or the base years, as the source had them at one revision."""

from dataclasses import dataclass

import pandas as pd

from taxifare.trips.table import TripTableError

BASE = "base"
"""Subject of the years before the first month."""


@dataclass(frozen=True)
class Edition:
    """Which trips these are: a month (or `base`) as the source had it at one revision."""

    subject: str
    revision: str

    def stamp(self, trips: pd.DataFrame) -> pd.DataFrame:
        """Returns the trips marked with this edition; the mark travels in `attrs`, into parquet files and back.

        >>> edition_of(Edition("2015-01", "a1b2").stamp(pd.DataFrame()))
        Edition(subject='2015-01', revision='a1b2')
        """
        trips.attrs = {"subject": self.subject, "revision": self.revision}
        return trips


def edition_of(trips: pd.DataFrame) -> Edition:
    """Returns which trips these are, as `Edition.stamp` marked them.

    Raises:
        TripTableError: They carry no mark.
    """
    try:
        return Edition(trips.attrs["subject"], trips.attrs["revision"])
    except KeyError as error:
        raise TripTableError(f"the trips do not say which edition they are: {error} is missing") from error
