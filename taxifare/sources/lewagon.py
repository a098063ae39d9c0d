"""Trips from the files of the Le Wagon course: base years of four sizes and six months of 2015, each in two files.

`train_jan.csv` and `val_jan.csv` are January: its split into trips to learn from and trips to judge by is published.
The base years' two files are read as one, because every base is split by the same rule, by time; docs/decisions.md says
under sources what that is good for.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pandas as pd

from taxifare.digests import digest
from taxifare.secrets import below, shown
from taxifare.settings import LeWagonSettings
from taxifare.sources.base import (
    MonthNotPublishedError,
    NoBaseError,
    SourceError,
    TripSource,
    checked_month,
    checked_trips,
    not_there,
    told_apart,
)
from taxifare.sources.files import read_rows
from taxifare.sources.web import Web, WebError, answers_of
from taxifare.trips.months import Month, bounds, parse_month
from taxifare.trips.publication import BasePublication, Publication

PARTS = ("train", "val")
MONTHS = {
    parse_month(f"2015-{number:02d}"): name
    for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun"), start=1)
}
_TIME_ZONE = "America/New_York"

SIZES = {1_000: "1k", 10_000: "10k", 100_000: "100k", 500_000: "500k"}
"""Published sizes of the base years' training file."""


@dataclass(frozen=True, kw_only=True)
class LeWagon(TripSource):
    """Publishes the course's files; a revision stands for those of both files.

    Attributes:
        web: Gets them.
        url: Address of the folder they are in.
        dataset_size: Base trips wanted, None for all: decides which of the base files is read.
        first_month: Where the base years end; later trips in the base files are left out.
        last_month: The last month that is worked on, None: the present one.
    """

    web: Web
    url: str = field(repr=False)
    dataset_size: int | None
    first_month: Month
    last_month: Month | None = None

    @classmethod
    def from_settings(cls, settings: LeWagonSettings, web: Web) -> Self:
        """Returns the course at LEWAGON_URL."""
        return cls(
            web=web,
            url=settings.lewagon_url.get_secret_value(),
            dataset_size=settings.dataset_size,
            first_month=settings.first_month,
            last_month=settings.last_month,
        )

    def months(self) -> dict[Month, str]:
        """Returns the months of 2015 that are there.

        Raises:
            CannotTellError: Only one of a month's files is there, neither though a later month is, or the server
                does not answer.
        """
        answers = answers_of(lambda month, insist: digest(self._revisions(MONTHS[month], month, insist)), MONTHS)
        return told_apart(answers, max(self.first_month, min(MONTHS)), self.last_month, shown(self.url))

    def read_month(self, month: Month) -> Publication:
        """Returns the trips of the month's two files, with the split they publish.

        Raises:
            MonthNotPublishedError: It is none of the course's months, or not there.
            SourceError: Whether it is there cannot be told, a file cannot be had, or is not trips of that month.
        """
        told = f"{shown(self.url)}: no month {month}: the course has {min(MONTHS)} to {max(MONTHS)}"
        if month not in MONTHS:
            raise MonthNotPublishedError(told)
        try:
            self._revisions(MONTHS[month], month)
        except WebError as error:
            if error.is_absence or error.is_refusal:
                raise not_there(self, month, f"{told}: {error}") from error
            raise
        trips, is_validation, revision = self._read(MONTHS[month], month)
        return Publication(trips, revision, self._origin(MONTHS[month]), is_validation)

    def read_base(self) -> BasePublication:
        """Returns the trips of the two files of the base years' size.

        Raises:
            NoBaseError: They are not there.
            SourceError: A file cannot be had, or holds no trips from before the first month.
        """
        self.base_revision()  # says so where there are none
        origin = self._origin(self._size)
        rows, _, files = self._read(self._size, None)
        is_before = rows["pickup_datetime"] < bounds(self.first_month)[0]
        after = {"not_before_first_month": int((~is_before).sum())}
        trips = checked_trips(rows[is_before], f"{origin}: before {self.first_month}", None, left_out=after)
        revision = digest([files, str(self.first_month)])
        return BasePublication([Publication(trips, revision, origin, dropped=after)], revision, origin)

    def base_revision(self) -> str:
        """Returns the revision of the base years.

        Raises:
            NoBaseError: Neither is there.
            SourceError: Only one of the files is there, or the server does not answer, or refuses.
        """
        try:
            revisions = self._revisions(self._size, None)
        except WebError as error:
            if error.is_absence:
                told = f"{self._origin(self._size)}: no files of the base years: check LEWAGON_URL: {error}"
                raise NoBaseError(told) from error
            raise
        return digest([digest(revisions), str(self.first_month)])

    @property
    def _size(self) -> str:
        """The smallest published size that is not below the size that is wanted; the largest, if none is."""
        wanted = max(SIZES) if self.dataset_size is None else min(self.dataset_size, max(SIZES))
        return SIZES[min(size for size in SIZES if size >= wanted)]

    def _address(self, part: str, name: str) -> str:
        return below(self.url, f"{part}_{name}.csv")

    def _origin(self, name: str) -> str:
        return " and ".join(shown(self._address(part, name)) for part in PARTS)

    def _revisions(self, name: str, month: Month | None, insist: bool = True) -> list[str]:
        """Returns the revisions of the two files.

        Raises:
            WebError: Neither is there, the server refuses both, or does not answer.
            SourceError: One is there and the other is not.
        """
        revisions, faults = list[str](), list[WebError]()
        for part in PARTS:
            address = self._address(part, name)
            try:
                revisions.append(self.web.revision(address, _checks(address, month), insist=insist))
            except WebError as error:
                if not (error.is_absence or error.is_refusal):
                    raise
                faults.append(error)
        if revisions and faults:
            if faults[0].is_refusal and not insist:
                return self._revisions(name, month)
            raise SourceError(f"{self._origin(name)}: expected both files, one is there: {faults[0]}") from faults[0]
        if faults:
            raise max(faults, key=lambda fault: fault.is_refusal)
        return revisions

    def _read(self, name: str, month: Month | None) -> tuple[pd.DataFrame, pd.Series, str]:
        """Returns the trips of the two files by pickup time, which of them are in the second, and their revision."""
        tables, revisions = [], []
        for part in PARTS:
            address = self._address(part, name)
            received = self.web.download(address, _checks(address, month))
            tables.append(_trips(received.path, shown(address), month).assign(is_validation=part == PARTS[1]))
            revisions.append(received.revision)
        rows = pd.concat(tables).sort_values("pickup_datetime", kind="stable", ignore_index=True)
        return rows.drop(columns="is_validation"), rows["is_validation"], digest(revisions)


def _trips(file: Path, origin: str, month: Month | None) -> pd.DataFrame:
    """Returns the trips of a downloaded file: of that month, or of any time."""
    rows = read_rows(file.read_bytes(), origin)
    if month is None:
        return checked_trips(rows, origin, _TIME_ZONE)
    return checked_month(rows, month, origin, _TIME_ZONE)


def _checks(address: str, month: Month | None) -> Callable[[Path], None]:
    """Returns what raises where a downloaded file is not such trips."""

    def check(file: Path) -> None:
        _trips(file, shown(address), month)

    return check
