"""Trips from the City of Chicago's data portal, by its Socrata API: one data set to 2023, another since.

Published times are rounded to a quarter of an hour and places to the centroid of a census tract or community area, for
privacy (https://data.cityofchicago.org/Transportation/Taxi-Trips/wrvz-psew); trips without a centroid are left out and
counted. A trip ends here as many seconds after its rounded start as the portal says it took: rounded ends would make
all durations quarters of an hour. `fare` is the meter; tolls are added to it, tips and extras are not. Why a month is
identified by sums: docs/decisions.md, under sources.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from taxifare.digests import digest
from taxifare.secrets import below, redacted, shown
from taxifare.settings import ChicagoSettings
from taxifare.sources.base import (
    NoBaseError,
    SourceError,
    TripSource,
    checked_month,
    not_there,
    told_apart,
    unchanged,
)
from taxifare.sources.web import Web
from taxifare.trips.clock import ClockError, wall_clock
from taxifare.trips.columns import COORDINATES
from taxifare.trips.months import Month, bounds, parse_month
from taxifare.trips.publication import BasePublication, Publication

DATA_SETS = {"wrvz-psew": (None, parse_month("2023-12")), "ajtu-isnz": (parse_month("2024-01"), None)}
"""The portal's data sets, with the first and last month that is read from each."""

READER_VERSION = 2
"""Part of each revision: to be raised when the same rows would give other trips."""

PAGE_ROWS = 50_000
"""The most that the API gives at once."""

TIMEOUT_S = 120.0
"""Counting years of trips may take the portal a minute."""

BELIEVED_S = 600.0
"""How long the list of months is believed: to count millions of trips is work for the portal."""

_COLUMNS = {
    "trip_id": "key",
    "trip_start_timestamp": "pickup_datetime",
    "trip_seconds": "seconds",
    "pickup_centroid_longitude": "pickup_longitude",
    "pickup_centroid_latitude": "pickup_latitude",
    "dropoff_centroid_longitude": "dropoff_longitude",
    "dropoff_centroid_latitude": "dropoff_latitude",
    "fare": "fare_amount",
    "tolls": "tolls",
}
_TIME_ZONE = "America/Chicago"

_SUMMED = ("fare", "tolls", "trip_seconds", *(name for name in _COLUMNS if "centroid" in name))


@dataclass(frozen=True)
class Chicago(TripSource):
    """Publishes the trips that the city's data portal has.

    The portal says when rows were last written, but writes all of them anew when it adds some. A month's revision is
    therefore made of what is in it: the number of trips and the sums of fares, tolls, seconds and coordinates. Of a
    month that has more than `trips_per_month`, those with the smallest ids are drawn; ids are hashes, so that is a
    random sample, and the same each time.

    Attributes:
        web: Asks the portal.
        url: Address of its data sets.
        first_month: The first month; the months before it are the base years.
        trips_per_month: Most trips of a month; None: all.
        base_rows: Most trips of the base years, of each month in proportion; None: all.
        last_month: The last month that is worked on, None: the present one.
    """

    web: Web
    url: str = field(repr=False)
    first_month: Month
    trips_per_month: int | None
    base_rows: int | None
    last_month: Month | None = None
    _known: dict[str, tuple[float, "dict[Month, _Contents]"]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_settings(cls, settings: ChicagoSettings, web: Web) -> Self:
        """Returns the portal at CHICAGO_URL, asked with the app token where there is one."""
        token = settings.chicago_app_token
        return cls(
            web=replace(web, secret_headers={} if token is None else {"X-App-Token": token}, timeout_s=TIMEOUT_S),
            url=settings.chicago_url.get_secret_value(),
            first_month=settings.first_month,
            trips_per_month=settings.chicago_trips_per_month,
            base_rows=settings.dataset_size,
            last_month=settings.last_month,
        )

    def months(self) -> dict[Month, str]:
        """Returns the months from the first on that are over, and their revisions.

        Raises:
            CannotTellError: A month has no trip though a later one has.
            SourceError: The portal does not answer, or not as a portal of trips.
        """
        listed = {
            month: self._revision(contents) for month, contents in self._listed().items() if month >= self.first_month
        }
        return told_apart(listed, self.first_month, self.last_month, shown(self.url))

    def rides(self) -> dict[Month, int]:
        """Returns how many trips start in each month that is over.

        Raises:
            SourceError: As `months`.
        """
        return {month: contents.trips for month, contents in self._listed().items()}

    def read_month(self, month: Month) -> Publication:
        """Returns the month's trips.

        Raises:
            MonthNotPublishedError: The portal has no trip of the month, or the month is not over.
            SourceError: As `months`, or rows are not trips, or changed while they were read.
        """
        return self._read(month, self.trips_per_month)

    def read_base(self) -> BasePublication:
        """Returns trips of the months before the first, at most about `base_rows`, month by month.

        Raises:
            NoBaseError: The portal has none.
            SourceError: As `read_month`.
        """
        self._known.clear()
        base, listed = self._base(), self._listed()
        parts = (unchanged(self._read(month, rows), self._revision(listed[month])) for month, rows in base.items())
        return BasePublication(parts, self.base_revision(), shown(self.url))

    def base_revision(self) -> str:
        """Returns the revision of the trips before the first month.

        Raises:
            NoBaseError: The portal has none.
            SourceError: As `months`.
        """
        listed = self._listed()
        return digest([[str(month), rows, listed[month].facts] for month, rows in self._base().items()])

    def _base(self) -> dict[Month, int | None]:
        """Returns the months before the first, and how many trips of each are drawn: None is all.

        Raises:
            NoBaseError: There are none.
        """
        trips = {month: contents.trips for month, contents in self._listed().items() if month < self.first_month}
        if not trips:
            raise NoBaseError(f"{shown(self.url)}: no base years: no trip starts before {self.first_month}")
        if self.base_rows is None:
            return dict.fromkeys(trips)
        share = min(1.0, self.base_rows / sum(trips.values()))
        return {month: max(1, round(share * count)) for month, count in trips.items()}

    def _read(self, month: Month, most_rows: int | None) -> Publication:
        """Returns the month's trips, or those of them with the smallest ids."""
        data_set = _data_set(month)
        address = self._address(data_set)
        origin = shown(address)
        contents = self._contents(data_set, month, month + 1).get(month)
        if contents is None or not _is_over(month):
            raise not_there(self, month, f"{origin}: no month {month}: no trip starts in it, or it is not over")
        wanted = min(contents.trips, contents.trips if most_rows is None else most_rows)
        frame = pd.concat(self._pages(address, month, wanted), ignore_index=True)
        if len(frame) != wanted or self._contents(data_set, month, month + 1).get(month) != contents:
            raise SourceError(
                f"{origin}: month {month}: expected {wanted:,} trips, received {len(frame):,} or others: they changed "
                "while they were read: try again later"
            )
        is_placed = frame[list(COORDINATES)].notna().all(axis=1)
        dropped = {"not_drawn": contents.trips - wanted, "no_centroid": int((~is_placed).sum())}
        trips = checked_month(frame[is_placed], month, origin, None, left_out=dropped)
        return Publication(trips, self._revision(contents), origin, dropped=dropped)

    def _pages(self, address: str, month: Month, rows: int) -> Iterator[pd.DataFrame]:
        """Yields the first rows of a month by id; each page goes on behind the last id, whatever comes before it."""
        last = ""
        while rows > 0:
            page = self.web.json(
                address,
                {
                    "$select": ", ".join(_COLUMNS),
                    "$where": f"{_window(month, month + 1)} AND trip_id > '{last}'",
                    "$order": "trip_id",
                    "$limit": min(rows, PAGE_ROWS),
                },
            )
            frame = _frame(page, f"{shown(address)}: month {month}")
            yield frame
            if frame.empty:
                return
            rows -= len(frame)
            last = str(frame["key"].iloc[-1])

    def _listed(self) -> "dict[Month, _Contents]":
        """Returns what is in each month that is over, oldest first."""
        listed: dict[Month, _Contents] = {}
        for data_set, (first, last) in DATA_SETS.items():
            until, known = self._known.get(data_set, (0.0, {}))
            if time.monotonic() >= until:
                known = self._contents(data_set, first, None if last is None else last + 1)
                self._known[data_set] = (time.monotonic() + BELIEVED_S, known)
            listed |= known
        return {month: listed[month] for month in sorted(listed) if _is_over(month)}

    def _contents(self, data_set: str, first: Month | None, after: Month | None) -> "dict[Month, _Contents]":
        """Returns what is in each month from the first to before the other."""
        address = self._address(data_set)
        month = "date_trunc_ym(trip_start_timestamp)"
        sums = ", ".join(f"sum({name}) AS sum_{name}" for name in _SUMMED)
        rows = self.web.json(
            address,
            {
                "$select": f"{month} AS month, count(*) AS trips, {sums}",
                "$where": _window(first, after),
                "$group": month,
                "$limit": PAGE_ROWS,
            },
        )
        try:
            return {
                parse_month(row["month"][:7]): _Contents(
                    int(row["trips"]), tuple(row.get(f"sum_{name}") for name in _SUMMED)
                )
                for row in rows
            }
        except (KeyError, TypeError, ValueError):
            raise SourceError(f"{shown(address)}: expected months with counts, received {_glimpse(rows)}") from None

    def _address(self, data_set: str) -> str:
        return below(self.url, f"{data_set}.json")

    def _revision(self, contents: "_Contents") -> str:
        return digest([READER_VERSION, self.trips_per_month, contents.facts])


@dataclass(frozen=True)
class _Contents:
    """What the portal says is in a month: how many trips, and sums as it writes them."""

    trips: int
    sums: tuple[str | None, ...]

    @property
    def facts(self) -> list[Any]:
        return [self.trips, *self.sums]


def _data_set(month: Month) -> str:
    """Returns the data set that has the month."""
    return next(name for name, (_, last) in DATA_SETS.items() if last is None or month <= last)


def _is_over(month: Month) -> bool:
    return bool(bounds(month)[1] <= pd.Timestamp.now(tz=_TIME_ZONE).tz_localize(None))


def _glimpse(answer: object) -> str:
    """Returns how an answer begins, for a message; a portal in trouble may repeat the query that it was sent."""
    return repr(redacted(str(answer))[:80])


def _window(first: Month | None, after: Month | None) -> str:
    """Returns the condition that a trip starts from the first month on and before the other: half-open.

    >>> _window(parse_month("2023-12"), parse_month("2024-01"))
    "trip_start_timestamp >= '2023-12-01T00:00:00.000' AND trip_start_timestamp < '2024-01-01T00:00:00.000'"
    """
    return " AND ".join(
        f"trip_start_timestamp {sign} '{month}-01T00:00:00.000'"
        for sign, month in ((">=", first), ("<", after))
        if month is not None
    )


def _frame(page: Sequence[Mapping[str, str]], origin: str) -> pd.DataFrame:
    """Returns rows of the API, where a null is a field that is not there, with the columns of the trip table.

    Raises:
        SourceError: They are no rows, an amount or a time span is no number, or a time is none.
    """
    if not isinstance(page, list):
        raise SourceError(f"{origin}: expected a list of trips, received {_glimpse(page)}")
    frame = pd.DataFrame.from_records(page, columns=list(_COLUMNS)).rename(columns=_COLUMNS)
    try:
        numbers = frame[[*COORDINATES, "fare_amount", "tolls", "seconds"]].apply(pd.to_numeric)
        took = pd.to_timedelta(numbers["seconds"], unit="s")
    except ValueError as error:
        raise SourceError(f"{origin}: expected numbers, received {error}") from None
    frame[[*COORDINATES]] = numbers[[*COORDINATES]]
    # A trip without a field of tolls had none.
    frame["fare_amount"] = numbers["fare_amount"] + numbers["tolls"].fillna(0.0)
    try:
        frame["pickup_datetime"] = wall_clock(frame["pickup_datetime"], _TIME_ZONE).wall
    except ClockError as error:
        raise SourceError(f"{origin}: column pickup_datetime: {error}") from None
    frame["dropoff_datetime"] = frame["pickup_datetime"] + took
    return frame.drop(columns=["tolls", "seconds"]).assign(passenger_count=np.nan)
