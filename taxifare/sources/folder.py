"""Trips from a folder of files, here or in a bucket: one of the base years and one a month, in Kaggle's columns.

A file is chosen by its name. How a place is listed, and what is known of a file without reading it, is in `places`.
Where the same name stands there in several formats the first of `FORMATS` is read; files of one month, or of the base
years, under several names may have a part of the trips each, and are refused. What has such a name and is no file
of trips – a folder, a link to nothing, another ending or other letters – is nothing that is not there: whether there is
such a month, or base years, cannot be told then.
"""

import fnmatch
import hashlib
import os
import re
import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from taxifare.digests import digest
from taxifare.settings import FolderSettings
from taxifare.sources.base import (
    Answer,
    NoBaseError,
    Sample,
    SourceError,
    TripSource,
    checked_month,
    checked_trips,
    not_there,
    told_apart,
    untold_dropoffs,
)
from taxifare.sources.files import FORMATS, Times, ensure_last_line, read_parts, read_rows, read_spread, times_of
from taxifare.sources.places import Found, listed, looked_at, noted, opening
from taxifare.trips.clock import Offsets
from taxifare.trips.months import Month, bounds, parse_month
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.text_files import BEGINNING_BYTES, instead_of
from taxifare.trips.wholeness import Extent

_EXAMPLES = 3
"""Of files that are named where there are more."""

_MONTH_CODES = {"%Y": r"(?P<year>[0-9]{4})", "%m": r"(?P<month>0[1-9]|1[0-2])"}


@dataclass(frozen=True)
class Folder(TripSource):
    """Publishes the trip files of a folder; a month's revision is the SHA-256 of its file.

    Attributes:
        path: The folder, or a bucket with what the names in it begin with; files in folders below it are not read.
        months_pattern: Name of a month's file: `*` and `?` stand for any text and any character, `{month:%Y_%m}` for
            the month with the strftime codes `%Y` and `%m`.
        base_pattern: Name of the base years' file, with `*` and `?`.
        first_month: The first month that is worked on; None: the first that is there.
        last_month: The last one, None: the present one.
        time_zone: Of the city.
        quiet_s: A file that was changed less than so many seconds ago may still be written, and waits.
        columns: What columns of the trip table are called in the files, by pairs of both names; they are part of the
            revisions, because with other columns there are other trips.
        notes: Folder in which it is noted what was found in files of a bucket, which are not fetched again for it.

    Raises:
        SourceError: A pattern has other fields or codes, or lacks the year or the month.
    """

    path: UPath
    months_pattern: str = "taxi_{month:%Y_%m}.*"
    base_pattern: str = "taxi_base_*"
    first_month: Month | None = None
    last_month: Month | None = None
    time_zone: str = "America/New_York"
    quiet_s: float = 0.0
    columns: tuple[tuple[str, str], ...] = ()
    notes: Path | None = None

    def __post_init__(self) -> None:
        _ = self._month_name

    @classmethod
    def from_settings(cls, settings: FolderSettings) -> Self:
        """Returns the folder that TRIP_FOLDER names.

        Raises:
            SourceError: It names none, or a pattern is not as it should be.
            SettingsError: What it takes to open it is not installed.
        """
        if (trips := settings.trips) is None:
            raise SourceError("expected a folder of trip files, received none: set TRIP_FOLDER")
        return cls(
            trips,
            settings.trip_folder_months,
            settings.trip_folder_base,
            settings.first_month,
            settings.last_month,
            settings.time_zone,
            settings.trip_folder_quiet_s,
            settings.trip_columns,
            settings.downloads / "notes",
        )

    def months(self) -> dict[Month, str]:
        """Returns the months that have a file, and the hash of each.

        Raises:
            CannotTellError: A month has no file though a later one has, or two, or what is no file of trips.
            SourceError: The folder is missing.
        """
        answers = {month: self._answer(entries, month) for month, entries in self._entries_of_months().items()}
        first = self.first_month or min(answers, default=None)
        return {} if first is None else told_apart(answers, first, self.last_month, str(self.path))

    def has(self, month: Month) -> bool:
        """Returns whether something in the folder has the name of the month's file.

        Raises:
            SourceError: The folder is missing.
        """
        return month in self._entries_of_months()

    def rides(self) -> dict[Month, int]:
        """Returns how many rides the months have whose files say so, which parquet does."""
        rides = {}
        for month, entries in self._entries_of_months().items():
            with suppress(SourceError):  # what is wrong with it is said where it is read
                file = _file(entries, f"month {month}")
                rides[month] = noted(_rows_of, file, self.notes)
        return {month: rows for month, rows in rides.items() if rows is not None}

    def extent(self, month: Month) -> Extent | None:
        """Returns how far the pickups in a month's file go; None where they are not all of that month, or no times."""
        found = None
        with suppress(SourceError):  # what is wrong with it is said where it is read
            if (entries := self._entries_of_months().get(month)) is not None:
                found = self._span(_file(entries, f"month {month}"))
        first, until = bounds(month)
        return found if found is not None and first <= found.first and found.last < until else None

    def sample(self, month: Month | None) -> Sample:
        """Returns trips from all over a month's file, or the base file, as `read_month` and `read_base` read them.

        Raises:
            NoBaseError: Nothing has the name of a base file.
            SourceError: They are no trips of that month, or all later than base years are.
        """
        file = self._base_file() if month is None else self._month_file(month)
        origin = f"{file}{self._by_names}"
        with opening(file) as opened:
            rows, share = read_spread(opened, str(file), dict(self.columns))
        offsets = self._offsets(file)
        if month is not None:
            trips = checked_month(rows, month, origin, self.time_zone, offsets=offsets)
            self._ensure_all_within(file, month)
            published = Publication(trips, self._as_read(self._revision(file)), str(file))
            return Sample(published, share, offsets or Offsets())
        trips = checked_trips(rows, origin, self.time_zone, offsets=offsets)
        span = self._span_to_end(file)
        if self.first_month is not None and span is not None and span.first >= bounds(self.first_month)[0]:
            raise self._no_earlier(file, span.rides)
        return Sample(Publication(trips, self.base_revision(), str(file)), share, offsets or Offsets())

    def read_month(self, month: Month) -> Publication:
        """Returns the trips of the month's file.

        Raises:
            MonthNotPublishedError: The month has no file.
            SourceError: The folder is missing, the file cannot be read as trips of that month, or is no file.
        """
        file = self._month_file(month)
        content = _content(file)
        rows = read_rows(content, str(file), dict(self.columns))
        trips = checked_month(rows, month, f"{file}{self._by_names}", self.time_zone)
        revision = self._as_read(hashlib.sha256(content).hexdigest())
        return Publication(trips, revision, str(file), dropped=untold_dropoffs(rows, trips))

    def read_base(self) -> BasePublication:
        """Returns the trips of the base file before the first month, which is read a part at a time.

        Raises:
            NoBaseError: Nothing has the name of a base file.
            SourceError: It cannot be read as trips, or is no file.
        """
        file = self._base_file()
        return BasePublication(self._parts(file, self._revision(file)), self.base_revision(), str(file))

    def base_revision(self) -> str:
        """Returns the hash of the base file, and of the first month where that leaves some of its trips out.

        Raises:
            NoBaseError: Nothing has the name of a base file.
            SourceError: What has cannot be read.
        """
        file = self._base_file()
        _ensure_written(file, self.quiet_s)
        revision, span = self._as_read(self._revision(file)), self._span(file)
        if self.first_month is None or span is None or span.last < bounds(self.first_month)[0]:
            return revision
        return digest([revision, str(self.first_month)])

    def _parts(self, file: Found, content: str) -> Iterator[Publication]:
        """Yields the trips of the base file in parts; the last one says how many are not from before the first month.

        Raises:
            SourceError: It cannot be read as trips, has none of before the first month, or is another at the end.
        """
        origin, revision, read, kept, latest = str(file), self.base_revision(), 0, 0, None
        untold, offsets = Counter[str](), self._offsets(file)
        with opening(file) as opened:
            for rows in read_parts(opened, origin, dict(self.columns)):
                if rows.empty:  # blank lines at the end of a text
                    continue
                trips = checked_trips(
                    rows, f"{origin}{self._by_names}", self.time_zone, first_number=read, offsets=offsets
                )
                untold.update(untold_dropoffs(rows, trips))
                read += len(trips)
                if self.first_month is not None:
                    is_before = trips["pickup_datetime"] < bounds(self.first_month)[0]
                    trips = trips if is_before.all() else trips[is_before].reset_index(drop=True)
                kept += len(trips)
                if len(trips) and latest is not None:
                    yield latest
                latest = Publication(trips, revision, origin) if len(trips) else latest
        if latest is None:
            raise self._no_earlier(file, read) if read else SourceError(f"{origin}: expected trips, received no rows")
        after = {"not_before_first_month": read - kept} if read > kept else {}
        yield replace(latest, dropped=after | untold)
        if (now := self._revision(looked_at(file.path))) != content:
            raise SourceError(f"{origin}: expected revision {content}, received {now}: it changed while it was read")

    def _ensure_all_within(self, file: Found, month: Month) -> None:
        """Ensures that all pickups of a file are times of its month, as far as that can be seen by the first and last.

        Raises:
            SourceError: They are not.
        """
        span, (first, until) = self._span_to_end(file), bounds(month)
        for pickup in () if span is None else (span.first, span.last):
            if not first <= pickup < until:
                raise SourceError(
                    f"{file}: month {month}: column pickup_datetime: expected times from {first} until before {until}, "
                    f"received {pickup}"
                )

    def _span_to_end(self, file: Found) -> Extent | None:
        """Returns what `_span` does.

        Raises:
            SourceError: The pickup times cannot be read to the end of the file.
        """
        if (found := self._span(file)) is None:
            _times(file, self.columns, self.time_zone)
        return found

    def _no_earlier(self, file: Found, rides: int) -> SourceError:
        span = self._span(file)
        since = "" if span is None else f", the first of {span.first:%Y-%m-%d %H:%M}"
        return SourceError(
            f"{file}: expected trips of before FIRST_MONTH={self.first_month}, received {rides:,} later ones{since}"
        )

    def _span(self, file: Found) -> Extent | None:
        """Returns how far the pickups in a file go, None where that cannot be told; a changed one is read again."""
        found = self._times(file)
        if found is None or found["span"] is None:
            return None
        first, last = map(pd.Timestamp, found["span"])
        return Extent(found["rows"], first, last)

    def _offsets(self, file: Found) -> Offsets | None:
        """Returns which offsets the times of a file say; None where they cannot be read to its end."""
        found = self._times(file)
        return None if found is None else Offsets(*found["offsets"])

    def _times(self, file: Found) -> Times | None:
        """Returns what the times of a file are like; None where they cannot be read to its end."""
        return noted(_known_times, file, self.notes, self.columns, self.time_zone)

    def _revision(self, file: Found) -> str:
        """Returns the SHA-256 of the file, which is read again only when it has changed.

        Raises:
            SourceError: The file cannot be read.
        """
        return noted(_sha256, file, self.notes)

    def _answer(self, entries: "list[_Entry]", month: Month) -> Answer:
        """Returns what there is of a month: the revision of its file, or why that cannot be told (yet)."""
        try:
            file = _file(entries, f"month {month}")
            _ensure_written(file, self.quiet_s)
            return self._as_read(self._revision(file))
        except SourceError as error:
            return error

    def _as_read(self, revision: str) -> str:
        """Returns the revision of a file's trips, given that of the file."""
        return digest([revision, *self.columns]) if self.columns else revision

    @property
    def _by_names(self) -> str:
        """What is added to a file's name where one of its columns is not as it should be."""
        return " (columns named by TRIP_COLUMNS)" if self.columns else ""

    def _month_file(self, month: Month) -> Found:
        entries = self._entries_of_months().get(month)
        if entries is None:
            name = self.months_pattern.format(month=month.start_time)
            told = (
                f"{self.path}: no file for month {month}: {_expected(name)} (TRIP_FOLDER_MONTHS={self.months_pattern})"
            )
            raise not_there(self, month, f"{told}{self._others()}")
        return _file(entries, f"month {month}")

    def not_read(self) -> list[str]:
        """Returns which files somebody may take for trips that are read, each with what is read instead and a way out.

        Raises:
            SourceError: The folder is missing.
        """
        beside = list[str]()
        of_months, of_base = self._entries_of_months(), self._entries_of_base()
        for entries in [*of_months.values(), *([of_base] if of_base else [])]:
            with suppress(SourceError):  # which says that none of them is read, and is said where one would be
                read = _file(entries, "trips").name
                others = [entry.found.name for entry in entries if entry.oddity is None and entry.found.name != read]
                if others:
                    beside.append(
                        f"{', '.join(others)}: {read} is read in {'its' if len(others) == 1 else 'their'} place"
                    )
        by_format = f" ({', '.join(FORMATS)}: the first that is there)"
        are_trips = {found.name for found in self._visible() if found.oddity is None and _format(found.name.lower())}
        named = [name for name in self._named_otherwise() if name in are_trips]
        by_name = (
            f" named as neither TRIP_FOLDER_MONTHS={self.months_pattern} nor TRIP_FOLDER_BASE={self.base_pattern} "
            "says: rename it if it has trips, or move it away"
        )
        return [
            *([_some(beside, "; ") + by_format] if beside else []),
            *([_some(named, ", ") + by_name] if named else []),
        ]

    def _entries_of_base(self) -> "list[_Entry]":
        """Returns what has the name of a file of the base years, but for its letters."""
        return [
            _Entry.of(found, is_named=fnmatch.fnmatchcase(found.name, self.base_pattern))
            for found in self._visible()
            if self._is_base(found.name)
        ]

    def _base_file(self) -> Found:
        entries = self._entries_of_base()
        if not entries:
            raise NoBaseError(
                f"{self.path}: no file of the base years: {_expected(self.base_pattern)} "
                f"(TRIP_FOLDER_BASE={self.base_pattern}){self._others()}"
            )
        return _file(entries, "the base years")

    def _others(self) -> str:
        """Returns what else is there, with names of neither months nor base years, for messages."""
        if not (others := self._named_otherwise()):
            return "" if self._visible() else "; nothing is there"
        return f"; named otherwise: {_some(sorted(others, key=lambda name: _format(name.lower()) is None), ', ')}"

    def _named_otherwise(self) -> list[str]:
        """Returns what is there with names of neither months nor base years, by name."""
        months = {entry.found.name for entries in self._entries_of_months().values() for entry in entries}
        return [found.name for found in self._visible() if found.name not in months and not self._is_base(found.name)]

    def _is_base(self, name: str) -> bool:
        return re.fullmatch(fnmatch.translate(self.base_pattern), name, re.IGNORECASE) is not None

    def _visible(self) -> list[Found]:
        """Returns what is in the folder, by name; hidden files are being written, or some system's own."""
        return [found for found in listed(self.path) if not found.name.startswith(".")]

    def _entries_of_months(self) -> dict[Month, "list[_Entry]"]:
        """Returns what has the name of a month's file, but for its letters, oldest month first."""
        any_case, entries = re.compile(self._month_name.pattern, re.DOTALL | re.IGNORECASE), dict[Month, list[_Entry]]()
        for found in self._visible():
            # Of a folder that a cluster has written, only the files in it have an ending.
            named = next(filter(None, (any_case.fullmatch(found.name + ending) for ending in ("", *FORMATS))), None)
            if named and pd.Timestamp.min.year < int(named["year"]) < pd.Timestamp.max.year:
                month = parse_month(f"{named['year']}-{named['month']}")
                entry = _Entry.of(found, is_named=self._month_name.fullmatch(found.name) is not None)
                entries.setdefault(month, []).append(entry)
        return dict(sorted(entries.items()))

    @cached_property
    def _month_name(self) -> re.Pattern[str]:
        return month_name(self.months_pattern)


def month_name(pattern: str) -> re.Pattern[str]:
    """Returns what the file names of a month pattern look like; the groups are `year` and `month`.

    Raises:
        SourceError: The pattern has other fields or codes than `%Y` and `%m` of `month`, or not each of them once.

    >>> month_name("taxi_{month:%Y_%m}.*").fullmatch("taxi_2015_01.parquet").groupdict()
    {'year': '2015', 'month': '01'}
    >>> month_name("taxi_{month:%b}.*")
    Traceback (most recent call last):
    ...
    taxifare.sources.base.SourceError: month pattern 'taxi_{month:%b}.*': expected ..., received the code %b
    """
    expected = f"month pattern {pattern!r}: expected %Y and %m once each, as in taxi_{{month:%Y_%m}}.*"
    regex = ""
    try:
        for literal, field, codes, _ in string.Formatter().parse(pattern):
            regex += re.escape(literal).replace(r"\*", ".*").replace(r"\?", ".")
            if field not in {None, "month"}:
                raise SourceError(f"{expected}, received the field {field!r}")
            for code in re.findall("%.?|[^%]+", codes or ""):
                if code.startswith("%") and code not in _MONTH_CODES:
                    raise SourceError(f"{expected}, received the code {code}")
                regex += _MONTH_CODES.get(code) or re.escape(code)
        name = re.compile(regex, re.DOTALL)
    except (ValueError, re.error) as error:
        raise SourceError(f"{expected}: {error}") from error
    if set(name.groupindex) != {"year", "month"}:
        raise SourceError(f"{expected}, received neither or only one in braces")
    return name


def _expected(name: str) -> str:
    return f"expected a file named {name} that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _some(names: Sequence[str], between: str) -> str:
    """Returns some names, and how many more there are.

    >>> _some(["a", "b", "c", "d"], ", ")
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return f"{between.join(names[:_EXAMPLES])}{more}"


def _format(name: str) -> str | None:
    """Returns which of `FORMATS` a file's name ends in, if any."""
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


@dataclass(frozen=True)
class _Entry:
    """What is in the folder under a month's name, or that of the base years.

    Attributes:
        found: What is there.
        oddity: Why it is no file of trips; None if it is one.
        is_beside: Whether such a thing may well lie beside a file of trips: notes on it, its checksum.
    """

    found: Found
    oddity: str | None
    is_beside: bool = False

    @classmethod
    def of(cls, found: Found, *, is_named: bool) -> Self:
        """Returns what is there; its name is as the pattern has it, or is so in other letters only."""
        if found.oddity is not None:
            return cls(found, found.oddity)
        if not found.name.isprintable():
            return cls(found, "a name that cannot be read")
        if _format(found.name.lower()) is None:
            return cls(found, "another ending", is_beside=True)
        is_named = is_named and _format(found.name) is not None
        return cls(found, None if is_named else "a name in other letters than TRIP_FOLDER_MONTHS or TRIP_FOLDER_BASE")


def _file(entries: "list[_Entry]", what: str) -> Found:
    """Returns the file in the most preferred format.

    Raises:
        SourceError: Several differ in more than their format: to read one of them might be to read half the trips. Or
            something else has that name.
    """
    files = [entry.found for entry in entries if entry.oddity is None]
    odd = [entry for entry in entries if entry.oddity is not None and not (entry.is_beside and files)]
    if odd:
        raise SourceError(
            f"{odd[0].found}: expected a file with {what} that ends in {', '.join(FORMATS)}, received {odd[0].oddity}: "
            "rename it, move it away, or put the file in its place"
        )
    stems = {file.name.removesuffix(_format(file.name) or "") for file in files}
    if len(stems) > 1:
        received = _some([file.name for file in files], ", ")
        raise SourceError(
            f"{files[0].path.parent}: expected one file for {what}, received {received}, each of which may have a part "
            "of the trips: keep one, or narrow the pattern (TRIP_FOLDER_MONTHS, TRIP_FOLDER_BASE)"
        )
    return min(files, key=lambda file: FORMATS.index(_format(file.name) or ""))


def _ensure_written(file: Found, quiet_s: float) -> None:
    """Ensures that nobody seems to be writing a file: it has not just changed, and a text ends its last line.

    Raises:
        SourceError: Somebody may be; or the file cannot be read.
    """
    age_s = time.time() - file.changed_s
    if abs(age_s) < quiet_s:  # of a file from the future, by another machine's clock, the clock is wrong
        raise SourceError(
            f"{file}: changed {max(age_s, 0.0):.0f} s ago and may still be written: it waits until it has been "
            f"unchanged for {quiet_s:g} s (TRIP_FOLDER_QUIET_S)"
        )
    if file.size and file.name.endswith(".csv"):
        with opening(file) as opened:
            opened.seek(-min(file.size, 2), os.SEEK_END)
            try:
                ensure_last_line(opened.read(), str(file))
            except SourceError:
                opened.seek(0)
                if (instead := instead_of("CSV", opened.read(BEGINNING_BYTES))) is None:
                    raise
                raise SourceError(f"{file}: {instead}") from None  # which has no lines, and is not being written


def _sha256(file: Found) -> str:
    found = hashlib.sha256()
    with opening(file) as opened:
        while part := opened.read(2**20):
            found.update(part)
    return found.hexdigest()


def _rows_of(file: Found) -> int | None:
    """Returns how many rows a parquet file says that it has, None where it does not say so."""
    if not file.name.endswith(".parquet"):
        return None
    try:
        with opening(file) as opened, pq.ParquetFile(opened) as parquet:
            return int(parquet.metadata.num_rows)
    except (pa.ArrowException, OSError):
        return None


def _times(file: Found, columns: tuple[tuple[str, str], ...], time_zone: str) -> Times:
    with opening(file) as opened:
        return times_of(opened, str(file), dict(columns), time_zone)


# Notes bear its name: another form of what is noted takes another.
def _known_times(file: Found, columns: tuple[tuple[str, str], ...], time_zone: str) -> Times | None:
    """Returns what `_times` does; None for what is no file of trips, which is said where it is read."""
    try:
        return _times(file, columns, time_zone)
    except SourceError:
        return None


def _content(file: Found) -> bytes:
    """Returns the file's bytes: rows and revision come from the same ones, even while somebody replaces the file."""
    with opening(file) as opened:
        return opened.read()
