"""The city's clock: what times with an offset or a zone are on it, and how long rides took over which it changed.

The trip table has wall-clock times, because people and prices go by the clock on the wall. Twice a year that clock is
changed: an hour does not exist, another comes twice. Rules and reasons: docs/decisions.md, under trips.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taxifare.texts import counted

if TYPE_CHECKING:
    import pandas as pd

Moments = npt.NDArray[np.datetime64]

_UTC_LABEL = " UTC"

_OFFSET = r"([T ]\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d+)?)?)?)\s*([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)$"

_UTC_OFFSET = r"([Zz]|[+-]00(:?00)?)$"

_ISO = re.compile(r"\d{4}-?\d\d-?\d\d[ T]\d\d")

_PROBED = 100

_LONGEST_DATE = len("2015-01-31")

_NEAR = np.timedelta64(1, "D")

_YEARS = (1900, 2200)
"""Within which the clocks of trips may have been changed; a time beyond is none of a trip."""

_UNKNOWN = np.datetime64("NaT", "us")


class ClockError(ValueError):
    """Values that are no times; says what was expected and what came."""


class Clocked(NamedTuple):
    """Times as the clock in the city showed them.

    Attributes:
        wall: Wall-clock times, `datetime64[us]`; null where there was none.
        instants: The same in UTC, null where the source does not say; None where it says so of no time.
    """

    wall: Moments
    instants: Moments | None


def wall_clock(
    times: "pd.Series | pa.Array | pa.ChunkedArray", zone: str | None, offsets: "Offsets | None" = None
) -> Clocked:
    """Returns times of a source as the clock in the city showed them.

    Times without offset or zone are the city's clock, and so are those of a file that calls all of its times UTC, in
    whatever spelling: public files do. Any other offset or zone is converted, and UTC beside another offset as well.

    Args:
        times: Timestamps with or without a zone, or text in ISO 8601.
        zone: Of the city; None where times are the city's clock already.
        offsets: Of all times of the file, where these are a part of them, and the caller ensures that they are of one
            clock; None: these are all.

    Raises:
        ClockError: Values are dates, or no times; or they have offsets and no zone was given; or what they mean cannot
            be told, where these are all.

    >>> rows = pa.array(["2015-03-07T12:00:00-05:00", "2015-03-09T12:00:00-04:00", "2015-03-09T12:00:00Z"])
    >>> [str(time) for time in wall_clock(rows, "America/New_York").wall]
    ['2015-03-07T12:00:00.000000', '2015-03-09T12:00:00.000000', '2015-03-09T08:00:00.000000']
    >>> str(wall_clock(pa.array(["2009-06-15 17:26:21 UTC"]), "America/New_York").wall[0])
    '2009-06-15T17:26:21.000000'
    >>> wall_clock(pa.array(["2015-03-07"]), "America/New_York")
    Traceback (most recent call last):
    ...
    taxifare.trips.clock.ClockError: expected times of day, received the date '2015-03-07' (the first of 1 such values)
    """
    if not isinstance(times, pa.Array | pa.ChunkedArray):
        if _is_plain(times):
            return Clocked(times.astype("datetime64[us]").to_numpy(), None)
        times = _as_arrow(times)
    whole = offsets_in(times, zone) if offsets is None else offsets
    if pa.types.is_timestamp(times.type):
        return _of_timestamps(times, zone, whole, is_safe=times.type.unit != "ns")
    text = times.cast(pa.string())
    _ensure_none_is_date(text)
    clocked = _of_text(text, zone, whole)
    _ensure_all_read(clocked.wall, text)
    if offsets is None:
        whole.ensure_one_clock()
    return clocked


def wall_clock_if_any(times: "pa.Array | pa.ChunkedArray", zone: str | None, offsets: "Offsets") -> Moments:
    """Returns times as `wall_clock` does, null for whatever is none: of rows each of which is a matter of its own.

    Args:
        times: Timestamps with or without a zone, or text in ISO 8601; numbers and dates are no times.
        zone: Of the city; None where times are the city's clock already.
        offsets: Of all times of the file.

    Raises:
        ClockError: Times have offsets and no zone was given.

    >>> rows = pa.array(["2015-03-09T12:00:00Z", "noon", "2015-03-09", None])
    >>> [str(time) for time in wall_clock_if_any(rows, "America/New_York", Offsets(utc=1, other=1))]
    ['2015-03-09T08:00:00.000000', 'NaT', 'NaT', 'NaT']
    """
    if pa.types.is_timestamp(times.type):
        return _of_timestamps(times, zone, offsets, is_safe=False).wall
    if not pa.types.is_string(times.type):
        return np.full(len(times), _UNKNOWN)
    return _of_text(times, zone, offsets).wall


class Offsets(NamedTuple):
    """How many times of a file say which offset from UTC.

    Attributes:
        without: Say none.
        utc: Call themselves UTC, in whatever spelling, and the city's clock showed another time then.
        other: Have another offset or zone.
    """

    without: int = 0
    utc: int = 0
    other: int = 0

    def plus(self, more: "Offsets") -> "Offsets":
        """Returns the offsets of two columns, or of two parts of one."""
        return Offsets(self.without + more.without, self.utc + more.utc, self.other + more.other)

    @property
    def is_utc_meant(self) -> bool:
        """Whether times that call themselves UTC are: others beside them have an offset, so offsets mean something."""
        return self.utc > 0 and self.other > 0

    def ensure_one_clock(self) -> None:
        """Ensures that what the times mean can be told.

        Raises:
            ClockError: Some say nothing and all others UTC: those may be the city's clock, or hours from it.

        >>> Offsets(without=3, utc=2, other=1).ensure_one_clock()
        >>> Offsets(without=3, utc=2).ensure_one_clock()
        Traceback (most recent call last):
        ...
        taxifare.trips.clock.ClockError: expected times that are all in UTC or all without an offset, received 2 in UTC
        and 3 without one: ...
        """
        if self.without and self.utc and not self.other:
            raise ClockError(
                f"expected times that are all in UTC or all without an offset, received {self.utc:,} in UTC and "
                f"{self.without:,} without one: whether both are the city's clock cannot be told. Write all of them as "
                "it showed them, or all with its offset, as in 12:00-05:00"
            )

    def remark(self, city: str) -> str | None:
        """Returns how times were taken that can be taken in another way too; None where there are none.

        >>> print(Offsets(utc=399_998, other=2).remark("New York"))
        399,998 times in UTC were converted from it, because 2 have another offset: if all said UTC, they would be taken
        for the clock of New York
        >>> Offsets(without=5).remark("New York"), Offsets(other=5).remark("New York")
        (None, None)
        """
        if self.is_utc_meant:
            return (
                f"{counted(self.utc, 'times')} in UTC {_were(self.utc)} converted from it, because {self.other:,} "
                f"{'has' if self.other == 1 else 'have'} another offset: if all said UTC, they would be taken for the "
                f"clock of {city}"
            )
        if self.utc:
            return (
                f"its times say UTC and were taken for the clock of {city}, as public files mean it: if they are UTC, "
                "write them with the city's offset"
            )
        if self.without and self.other:
            return (
                f"{counted(self.without, 'times')} without an offset {_were(self.without)} taken for the clock of "
                f"{city}, and {self.other:,} with one {_were(self.other)} converted"
            )
        return None


def _were(times: int) -> str:
    return "was" if times == 1 else "were"


def offsets_in(times: "pd.Series | pa.Array | pa.ChunkedArray", zone: str | None) -> Offsets:
    """Returns which offsets the times of a column say, or those of a part of it.

    What is no time does not count, nor does one in UTC of when the city's clock is UTC: it means the same either way.

    Args:
        times: As for `wall_clock`.
        zone: Of the city; None where that is not known.

    >>> offsets_in(pa.array(["2015-03-09T12:00:00Z", "2015-03-09 12:00", "noon", None]), "America/New_York")
    Offsets(without=1, utc=1, other=0)
    >>> offsets_in(pa.array(["2015-01-09T12:00:00Z", "2015-07-09T12:00:00+01:00"]), "Europe/London")
    Offsets(without=0, utc=0, other=1)
    """
    if not isinstance(times, pa.Array | pa.ChunkedArray):
        if _is_plain(times):
            return Offsets(without=int(times.count()))
        times = _as_arrow(times)
    if pa.types.is_timestamp(times.type):
        count, told_in = len(times) - times.null_count, times.type.tz
        if told_in is None:
            return Offsets(without=count)
        if not _is_utc(told_in):
            return Offsets(other=count)
        in_utc = times.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
        return Offsets(utc=count - _alike(in_utc, zone))
    if pa.types.is_nested(times.type):
        return Offsets()
    text = times.cast(pa.string())
    bare, labelled = _bare(text), _is_labelled(text)
    offset = _matching(bare, _OFFSET)
    alone = pc.replace_substring_regex(bare, _OFFSET, r"\1") if pc.any(offset).as_py() else bare
    wall = _parsed(alone, is_utc=False)
    is_time = pa.array(~np.isnat(wall))
    utc = pc.and_(is_time, pc.or_(labelled, pc.and_(offset, _matching(bare, _UTC_OFFSET))))
    told, in_utc = _total(pc.and_(is_time, pc.or_(labelled, offset))), _total(utc)
    alike = _alike(wall[utc.to_numpy(zero_copy_only=False)], zone) if in_utc else 0
    return Offsets(_total(is_time) - told, in_utc - alike, told - in_utc)


def all_offsets(columns: "Iterable[pd.Series | pa.Array | pa.ChunkedArray]", zone: str | None) -> Offsets:
    """Returns which offsets the times of some columns say together, see `offsets_in`."""
    return reduce(Offsets.plus, (offsets_in(column, zone) for column in columns), Offsets())


def _alike(instants: Moments, zone: str | None) -> int:
    """Returns at how many instants in UTC the city's clock showed just that; none where its zone is not known."""
    return 0 if zone is None else int(np.count_nonzero(from_utc(instants, zone) == instants))


def on_pickups_clock(pickups: Clocked, dropoffs: Clocked, zone: str) -> Moments:
    """Returns drop-off times by the clock that was right at the pickup: their difference is what the ride took.

    That differs from the clock on the wall where it was changed during the ride. Where it cannot be told how long a
    ride took – in the hour that comes twice, where the source has no offsets and more than one reading of its times
    makes sense, or in the one that does not exist – the time is null. Rides of more than a day are left as they are.

    >>> def clock(*times: str) -> Clocked:
    ...     return Clocked(np.array(times, "datetime64[us]"), None)
    >>> over = on_pickups_clock(clock("2024-03-10T01:50"), clock("2024-03-10T03:10"), "America/New_York")
    >>> str(over[0])
    '2024-03-10T02:10:00.000000'
    >>> pickups, dropoffs = clock("2024-11-03T01:50", "2024-11-03T01:10"), clock("2024-11-03T01:10", "2024-11-03T01:30")
    >>> [str(time) for time in on_pickups_clock(pickups, dropoffs, "America/New_York")]
    ['2024-11-03T02:10:00.000000', 'NaT']
    """
    told, wall = dropoffs.wall, pickups.wall
    for change in _changes(wall, zone):
        near = np.flatnonzero((wall > change.since - _NEAR) & (wall < change.until + _NEAR))
        if not len(near):
            continue
        told = told.copy() if told is dropoffs.wall else told
        took = _took(_readings(pickups, near, change), _readings(dropoffs, near, change))
        told[near] = wall[near] + took
    return told


def from_utc(instants: Moments, zone: str) -> Moments:
    """Returns what the clock in the city showed at instants in UTC.

    >>> str(from_utc(np.array(["2015-03-09T16:00"], "datetime64[us]"), "America/New_York")[0])
    '2015-03-09T12:00:00.000000'
    """
    in_zone = pa.array(instants.astype("datetime64[us]")).cast(pa.timestamp("us", zone))
    wall: Moments = pc.local_timestamp(in_zone).to_numpy(zero_copy_only=False)
    return wall


@dataclass(frozen=True)
class _Change:
    """A change of the clock, by the wall: in `[since, until)` a time does not exist, or comes twice.

    Attributes:
        since: The earlier of what the clock showed just before and after.
        until: The later.
        before: What the clock was ahead of UTC.
        after: What it is ahead since.
    """

    since: np.datetime64
    until: np.datetime64
    before: np.timedelta64
    after: np.timedelta64


def _changes(wall: Moments, zone: str) -> Iterator[_Change]:
    """Yields the changes of the years that the times are of."""
    if len(wall) and not np.isnat(first := np.fmin.reduce(wall)):
        years = np.array([first, np.fmax.reduce(wall)]).astype("datetime64[Y]").astype(np.int64) + 1970
        earliest, latest = np.clip(years, *_YEARS).tolist()
        for year in range(earliest, latest + 1):
            yield from _changes_in(year, zone)


@lru_cache(maxsize=1024)
def _changes_in(year: int, zone: str) -> tuple[_Change, ...]:
    """Returns the changes of a year, oldest first; those that are undone within a day are none."""
    city, start = ZoneInfo(zone), datetime(year, 1, 1, tzinfo=UTC)
    changes = []
    for day in range(366):
        low, high = start + timedelta(days=day), start + timedelta(days=day + 1)
        before, after = _ahead(low, city), _ahead(high, city)
        if before == after:
            continue
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            low, high = (middle, high) if _ahead(middle, city) == before else (low, middle)
        at = np.datetime64(high.replace(tzinfo=None, microsecond=0), "us")
        shown = sorted((at + np.timedelta64(before), at + np.timedelta64(after)))
        changes.append(_Change(shown[0], shown[1], np.timedelta64(before), np.timedelta64(after)))
    return tuple(changes)


def _ahead(moment: datetime, city: ZoneInfo) -> timedelta:
    """Returns what the city's clock is ahead of UTC."""
    return moment.astimezone(city).utcoffset() or timedelta()


def _readings(times: Clocked, rows: npt.NDArray[np.intp], change: _Change) -> Moments:
    """Returns the instants that times near a change can mean, shape (2, n): before it and after it, null if neither.

    A time that the clock skipped is none; where the source says which it is there is no other.
    """
    wall = times.wall[rows]
    is_skipped = (wall >= change.since) & (wall < change.until) & (change.after > change.before)
    before = np.where((wall < change.until) & ~is_skipped, wall - change.before, _UNKNOWN)
    after = np.where((wall >= change.since) & ~is_skipped, wall - change.after, _UNKNOWN)
    readings = np.stack([before, after])
    if times.instants is not None:
        said = times.instants[rows]
        readings = np.where(np.isnat(said), readings, said)
    return readings


def _took(pickups: Moments, dropoffs: Moments) -> npt.NDArray[np.timedelta64]:
    """Returns how long rides took, null where the readings of their ends leave more than one possibility, or none.

    A ride that under every reading ends before it begins is given the least absurd one: cleaning drops it.
    """
    took = (dropoffs[:, np.newaxis] - pickups[np.newaxis]).reshape(4, -1)
    possible = np.where(took >= np.timedelta64(0), took, np.timedelta64("NaT", "us"))
    shortest, longest = np.fmin.reduce(possible), np.fmax.reduce(possible)
    single = np.where(shortest == longest, shortest, np.timedelta64("NaT", "us"))
    return np.where(np.isnat(shortest), np.fmax.reduce(took), single)


def _is_plain(values: "pd.Series") -> bool:
    """Whether a column is of times without a zone, and not of text."""
    return values.dtype.kind == "M" and getattr(values.dtype, "tz", None) is None


def _as_arrow(values: "pd.Series") -> pa.ChunkedArray:
    """Returns the values as timestamps with their zone, or as text."""
    if getattr(values.dtype, "tz", None) is None:
        values = values.astype("string[pyarrow]")
    return pa.chunked_array(pa.array(values))


def _is_utc(zone: str) -> bool:
    return zone.upper().removeprefix("ETC/") in {"UTC", "UCT", "GMT", "ZULU", "UNIVERSAL", "Z", "+00:00", "-00:00"}


def _on_the_wall(instants: Moments, zone: str | None) -> Moments:
    """Returns what the clock in the city showed.

    Raises:
        ClockError: The city's zone is not given.
    """
    if zone is None:
        raise ClockError("expected times without an offset from UTC, received some with one")
    return from_utc(instants, zone)


def _of_timestamps(times: Any, zone: str | None, offsets: Offsets, *, is_safe: bool) -> Clocked:
    """Returns the times of a column of timestamps; see `wall_clock`."""
    in_utc = times.cast(pa.timestamp("us"), safe=is_safe)
    instants: Moments = np.asarray(in_utc.to_numpy(zero_copy_only=False))
    if times.type.tz is None or (_is_utc(times.type.tz) and not offsets.other):
        return Clocked(instants, None)
    return Clocked(_on_the_wall(instants, zone), instants)


def _of_text(text: Any, zone: str | None, offsets: Offsets) -> Clocked:
    """Returns the times of a text column, null for what is none; see `wall_clock_if_any`."""
    bare = _bare(text)
    if not offsets.other:
        try:
            bare.slice(0, _PROBED).cast(pa.timestamp("us"))  # to fail takes long, with words for each row
            return Clocked(bare.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), None)
        except pa.ArrowInvalid:  # UTC as an offset, digits beyond microseconds, or no time at all
            return Clocked(_parsed(pc.replace_substring_regex(bare, _OFFSET, r"\1"), is_utc=False), None)
    # Beside other offsets UTC is one of them.
    is_labelled, has_offset = _is_labelled(text), _matching(bare, _OFFSET)
    known = pc.or_(has_offset, is_labelled)
    told = pc.if_else(has_offset, bare, pc.binary_join_element_wise(bare, "Z", ""))
    instants = _parsed(pc.if_else(known, told, None), is_utc=True)
    without = _parsed(pc.if_else(known, None, bare), is_utc=False)
    wall = np.where(known.to_numpy(zero_copy_only=False), _on_the_wall(instants, zone), without)
    return Clocked(wall, instants)


def _is_labelled(text: Any) -> Any:
    return pc.fill_null(pc.ends_with(text, _UTC_LABEL), False)


def _bare(text: Any) -> Any:
    """Returns texts without the label that they are UTC; null for dates, which are no times."""
    bare = pc.if_else(pc.ends_with(text, _UTC_LABEL), pc.utf8_slice_codeunits(text, 0, -len(_UTC_LABEL)), text)
    return pc.if_else(pc.less_equal(pc.utf8_length(bare), _LONGEST_DATE), None, bare)


def _matching(text: Any, pattern: str) -> Any:
    return pc.fill_null(pc.match_substring_regex(text, pattern), False)


def _total(flags: Any) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _parsed(text: Any, *, is_utc: bool) -> Moments:
    """Returns the times that texts say, in UTC where they have offsets; null what cannot be read."""
    kind = pa.timestamp("us", "UTC" if is_utc else None)
    try:
        text.slice(0, _PROBED).cast(kind)
        return np.asarray(text.cast(kind).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        joined = pc.replace_substring_regex(text, _OFFSET, r"\1\2")  # there may be spaces before the offset
        return np.array([_told(one, has_offset=is_utc) for one in joined.to_pylist()], "datetime64[us]")


def _told(time: str | None, *, has_offset: bool) -> datetime | None:
    """Returns the time that a text says, in UTC where it has an offset; None if it says none.

    Neither does one with an offset where none is expected: `_OFFSET` did not know it for one, and the instant in UTC
    was taken for the city's clock.
    """
    try:
        found = None if time is None or not _ISO.match(time) else datetime.fromisoformat(time)
        if found is None or (found.tzinfo is not None) != has_offset:
            return None
        return found.astimezone(UTC).replace(tzinfo=None) if has_offset else found
    except (ValueError, OverflowError):
        return None


def _ensure_none_is_date(text: Any) -> None:
    """Ensures that no text ends with the day.

    Raises:
        ClockError: One does.
    """
    is_short = pc.less_equal(pc.binary_length(text), _LONGEST_DATE + len(_UTC_LABEL))
    if pc.any(is_short).as_py():
        dates = text.filter(pc.and_(is_short, _matching(text, rf"^\d{{4}}-?\d{{2}}-?\d{{2}}({_UTC_LABEL})?$")))
        if len(dates):
            raise ClockError(
                f"expected times of day, received the date {dates[0].as_py()!r} (the first of {len(dates):,} such "
                "values)"
            )


def _ensure_all_read(times: Moments, text: Any) -> None:
    """Ensures that no text was left that is no time.

    Raises:
        ClockError: One was.
    """
    unread = text.filter(pa.array(np.isnat(times))).drop_null()
    if len(unread):
        raise ClockError(
            f"expected timestamp, received {unread[0].as_py()!r} (the first of {len(unread):,} such values): times are "
            "written as in 2015-01-31 23:59:58"
        )
