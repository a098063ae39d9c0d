"""Months that are used, or wait until they are whole; what was seen of them, and who took one anyway, is in the lake.

Whether a month is whole may be known without reading it, where the source counts its rides, and is known at the latest
when it has been read. What that came to is kept, so that a month that waits is not read again to say why. The rules
are in `trips.wholeness`; why months wait: docs/decisions.md, under sources.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from upath import UPath

from taxifare.settings import SourceSettings
from taxifare.sources.base import SourceError, TripSource, month_with, published_before
from taxifare.texts import one_line, unsaid
from taxifare.trips.months import Month
from taxifare.trips.publication import LargePublication, Publication
from taxifare.trips.wholeness import NEIGHBOURS, Extent, extent_of, lacks_end, lacks_rides
from taxifare.whole_files import whole_file

LOOKS_AT_ONCE = 8
"""Files that are looked at at the same time: in a bucket each is a request."""


class NotWholeError(SourceError):
    """A month is not whole yet; the message says in what, and how it is taken anyway."""


class NothingToTakeError(SourceError):
    """A month that is to be taken anyway does not wait for that."""


@dataclass(frozen=True)
class Taken:
    """Who took a month that was not whole, and why."""

    by: str
    reason: str
    at: datetime


def whole_month(
    source: TripSource, month: Month, settings: SourceSettings, lake: UPath
) -> Publication | LargePublication:
    """Returns a month as published that is whole, or was taken anyway, some of whose trips tell the target.

    Raises:
        MonthNotPublishedError: The source does not have this month.
        NotWholeError: It is not whole yet.
        SourceError: It cannot be read as trips of that month, or none of them tells the target.
    """
    published = month_with(settings.target_facts, source, month)
    ensure_whole(published, month, settings, lake)
    return published


def ensure_whole(
    published: Publication | LargePublication, month: Month, settings: SourceSettings, lake: UPath
) -> None:
    """Ensures that a month that was read is whole, or was taken anyway; what was seen of it is on record.

    Raises:
        NotWholeError: It is not.
    """
    seen = extent_of(published)
    span = {"first": seen.first.isoformat(), "last": seen.last.isoformat()}
    _write(_seen(lake, month), {"revision": published.revision, "rides": seen.rides, **span})
    why = _lacks(month, seen, settings, lambda other: _read(_seen(lake, other)))
    if why is not None and taken(month, published.revision, lake) is None:
        raise NotWholeError(f"{published.origin}: month {month} is not whole yet: {why}. {_way_out(month)}")


def why_waiting(
    source: TripSource, month: Month, revision: str, rides: Mapping[Month, int], settings: SourceSettings, lake: UPath
) -> str | None:
    """Returns why a published month waits and how it is taken anyway, as far as is known without reading its trips.

    None where it was taken anyway, where nothing speaks against it, and before it was read where the source neither
    counts rides nor knows how far they reach.

    Args:
        source: Publishes it.
        month: Which.
        revision: As it is published.
        rides: What the source counts, see `TripSource.rides`: asked once for all months, for it may be a query.
        settings: Say when a month is whole.
        lake: Where it is on record what was seen and taken.
    """
    if taken(month, revision, lake) is not None:
        return None
    why = _known_to_lack(source, month, revision, rides, settings, lake)
    return None if why is None else f"month {month} is not whole yet: {why}. {_way_out(month)}"


def known_to_wait(published: Mapping[Month, str], settings: SourceSettings, lake: UPath) -> dict[Month, bool | None]:
    """Returns of each month whether it waits, as was seen when it was read; None where it was not at its revision."""
    beside = {month + distance for month in published for distance in range(-NEIGHBOURS, NEIGHBOURS + 1)}
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        seen = dict(zip(beside, pool.map(lambda month: _read(_seen(lake, month)), beside), strict=True))
    return {month: _waits(month, revision, seen, settings, lake) for month, revision in published.items()}


def _waits(
    month: Month, revision: str, seen: Mapping[Month, dict[str, Any] | None], settings: SourceSettings, lake: UPath
) -> bool | None:
    found = seen[month]
    if found is None or found["revision"] != revision:
        return None
    return _lacks(month, _extent(found), settings, seen.get) is not None and taken(month, revision, lake) is None


def take(source: TripSource, month: Month, settings: SourceSettings, lake: UPath, *, by: str, reason: str) -> str:
    """Returns what a published month lacks that is taken anyway from now on, at the revision that it has.

    Raises:
        NothingToTakeError: It is not published, lacks nothing that is known, or was taken before; or nobody says why.
        SourceError: The source does not answer.
    """
    for what, given in (("who takes the month", by), ("why", reason)):
        if (received := unsaid(given)) is not None:
            raise NothingToTakeError(f"expected {what}, received {received}: --by and --reason of taxifare take")
    revision = published_before(source, month + 1).get(month)
    if revision is None:
        raise NothingToTakeError(f"month {month} is not published: taxifare months lists those that are")
    if (earlier := taken(month, revision, lake)) is not None:
        raise NothingToTakeError(
            f"month {month} was taken by {earlier.by} at {earlier.at:%Y-%m-%d %H:%M} UTC: it is run as it is. See "
            "taxifare months"
        )
    why = _known_to_lack(source, month, revision, source.rides(), settings, lake)
    if why is None:
        raise NothingToTakeError(
            f"month {month} does not wait: nothing speaks against it, or it has not been read yet. See taxifare months"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"revision": revision, "lacks": why, "by": one_line(by), "reason": one_line(reason), "at": now}
    _write(_taken(lake, month, revision), said)
    return why


def taken(month: Month, revision: str, lake: UPath) -> Taken | None:
    """Returns who took a month at a revision though it was not whole; None where nobody did."""
    found = _read(_taken(lake, month, revision))
    return None if found is None else Taken(found["by"], found["reason"], datetime.fromisoformat(found["at"]))


def _known_to_lack(
    source: TripSource, month: Month, revision: str, rides: Mapping[Month, int], settings: SourceSettings, lake: UPath
) -> str | None:
    """Returns in what a month is not whole: as seen when it was read, or else by what the source knows of it."""
    found = _read(_seen(lake, month))
    is_seen = found is not None and found["revision"] == revision
    extent = _extent(found) if found is not None and is_seen else source.extent(month)
    if extent is not None:
        why = _lacks(month, extent, settings, lambda other: _read(_seen(lake, other)))
        if why is not None or is_seen:
            return why
    return None if month not in rides else lacks_rides(month, rides[month], rides, settings.month_least_share)


def _extent(found: Mapping[str, Any]) -> Extent:
    return Extent(int(found["rides"]), pd.Timestamp(found["first"]), pd.Timestamp(found["last"]))


def _lacks(
    month: Month, seen: Extent, settings: SourceSettings, look: Callable[[Month], dict[str, Any] | None]
) -> str | None:
    """Returns in what a month that was read is not whole; its number is held against those of months that were read."""
    if (why := lacks_end(month, seen, settings.month_ends_within_hours)) is not None:
        return why
    beside = (month + distance for distance in range(-NEIGHBOURS, NEIGHBOURS + 1) if distance)
    found = {other: look(other) for other in beside}
    rides = {other: int(facts["rides"]) for other, facts in found.items() if facts is not None}
    return lacks_rides(month, seen.rides, rides, settings.month_least_share)


def _way_out(month: Month) -> str:
    return f'To take it anyway: taxifare take {month} --by YOU --reason "WHY"'


def _seen(lake: UPath, month: Month) -> UPath:
    return lake / "whole_months" / f"{month}.seen.json"


def _taken(lake: UPath, month: Month, revision: str) -> UPath:
    return lake / "whole_months" / f"{month}.{revision}.taken.json"


def _read(file: UPath) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return found


def _write(file: UPath, facts: Mapping[str, object]) -> None:
    if file.protocol in {"", "file"}:
        file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished:
        unfinished.write_text(json.dumps(facts, indent=1, ensure_ascii=False))
