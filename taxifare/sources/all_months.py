"""All months of a source: its trips, divided anew into the years before a month and the months from it on.

For replays, which begin where they are told to; the monthly work takes months as the source publishes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from taxifare.digests import digest
from taxifare.sources.base import MonthNotPublishedError, NoBaseError, TripSource
from taxifare.trips.months import Month, bounds, months_between
from taxifare.trips.publication import BasePublication, Publication


@dataclass(frozen=True)
class AllMonths(TripSource):
    """A source as it would be if its base years ended before `first`: later trips of the base are months of their own.

    Up to the last month of the base a month's trips are those of the base, from then on those the source publishes for
    it. Where nothing has to be cut, revisions are the source's own.

    Attributes:
        source: Whose trips.
        first: The first month that is one.
    """

    source: TripSource
    first: Month

    def months(self) -> dict[Month, str]:
        """Returns the months from the first on, and their revisions."""
        cut = {
            month: digest([self._base.revision, str(month)])
            for month in self._months_of_base
            if self._base is not None and month >= self.first
        }
        later = {month: revision for month, revision in self._later.items() if month >= self.first}
        return cut | later

    def read_month(self, month: Month) -> Publication:
        """Returns a month, cut from the base or as published.

        Raises:
            MonthNotPublishedError: It is before the first month, or nobody has trips of it.
        """
        revisions = self.months()
        if month not in revisions:
            raise MonthNotPublishedError(f"expected one of {_span(revisions)}, received {month}")
        if self._base is None or month in self._later:
            return self.source.read_month(month)
        return Publication(self._cut(*bounds(month)), revisions[month], f"{self._base.origin}, {month}")

    def read_base(self) -> BasePublication:
        """Returns the trips before the first month.

        Raises:
            NoBaseError: There are none.
        """
        parts = [self.source.read_month(month) for month in self._later if month < self.first]
        if self._base is not None:
            trips = self._cut(pd.Timestamp.min, self.first.start_time)
            parts = [replace(self._base, trips=trips), *parts] if len(trips) else parts
        if not parts:
            raise NoBaseError(f"nobody has trips before {self.first}, from which the first model could learn")
        return BasePublication(parts, self.base_revision(), f"{parts[0].origin}, before {self.first}")

    def base_revision(self) -> str:
        """Returns what identifies the trips before the first month."""
        earlier = {str(month): revision for month, revision in self._later.items() if month < self.first}
        if self._base is not None and not earlier and self._months_of_base[-1] < self.first:
            return self._base.revision
        return digest([None if self._base is None else self._base.revision, earlier, str(self.first)])

    @cached_property
    def _base(self) -> Publication | None:
        """The source's base years, None where it has none."""
        try:
            return self.source.read_base().whole()
        except NoBaseError:
            return None

    @cached_property
    def _months_of_base(self) -> tuple[Month, ...]:
        """The months that the base has trips of, oldest first."""
        return () if self._base is None else tuple(_months_of(self._base.trips))

    @cached_property
    def _later(self) -> dict[Month, str]:
        """The months that are published beyond the base, and their revisions."""
        published = self.source.months()
        if not self._months_of_base:
            return published
        return {month: revision for month, revision in published.items() if month > self._months_of_base[-1]}

    def _cut(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Returns the base's trips in `[start, end)`; a trip table is sorted by pickup time."""
        if self._base is None:
            raise NoBaseError("the source has no base years to cut from")
        times = self._base.trips["pickup_datetime"].to_numpy()
        low, high = np.searchsorted(times, [start.to_datetime64(), end.to_datetime64()])
        return self._base.trips.iloc[low:high].reset_index(drop=True)


def _months_of(trips: pd.DataFrame) -> Iterator[Month]:
    """Yields the months that a trip table has trips of, oldest first."""
    times = trips["pickup_datetime"].to_numpy()
    first, last = (pd.Period(pd.Timestamp(time), freq="M") for time in (times[0], times[-1]))
    for month in months_between(first, last):
        low, high = np.searchsorted(times, [bound.to_datetime64() for bound in bounds(month)])
        if high > low:
            yield month


def _span(months: dict[Month, str]) -> str:
    """Returns the months in words."""
    return f"the {len(months)} months from {min(months)} to {max(months)}" if months else "the months, which are none"
