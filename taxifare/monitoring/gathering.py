"""Gathering: a month's quotes from collected segments and priced files, each once.

Quotes already stored for the month are kept: segments are removed after PREDICTION_LOG_DAYS, quotes are not. Of several
quotes by one version for one ride the one that was asked for first counts, in whatever order they are found, so
gathering again, or from duplicate segments, gives the same table.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from taxifare.monitoring.errors import MonitoringError
from taxifare.monitoring.outcomes import PREDICTIONS
from taxifare.serving import prediction_log
from taxifare.serving.batches import Receipt, priced_files
from taxifare.serving.files import Answered, Form, RideFileError, answered, kind_of, unpacking
from taxifare.serving.rides import FIELDS
from taxifare.serving.segments import segments_in
from taxifare.serving.zones import ENDS, Zones, zones_of
from taxifare.settings import Settings
from taxifare.trips.columns import COORDINATES
from taxifare.trips.features import MISSING_PASSENGERS
from taxifare.trips.months import Month, parse_month
from taxifare.whole_files import whole_file

Mark = TypeVar("Mark")

ROWS = 65_536
"""Lines that are Python objects at a time."""

_SOURCES = b"taxifare_sources"

_PICKUP = b'"pickup_datetime":"'
"""What precedes the pickup in a line of the log; it occurs nowhere else in what a client sent."""

_PICKUP_MONTH = re.compile(_PICKUP + rb"(\d{4}-(?:0[1-9]|1[0-2]))-")

KEY = ("ride_id", "version", "served_as")
"""What two rows of the same quote have in common."""

_ORDER = (*KEY, "asked_at", "predicted", "quoted", "pickup_datetime", *COORDINATES, "passenger_count")


@dataclass(frozen=True)
class GatheredQuotes:
    """The result of gathering a month.

    Attributes:
        quotes: Rows of the table.
        rides: How many rides they are for.
        repeated: Further quotes for a ride that the version had quoted before, with the same answer.
        contradicting: The same, with a different answer: another ride had the same id, or the first was changed.
        torn: Lines of the month that a dying process could not finish.
    """

    quotes: int
    rides: int
    repeated: int
    contradicting: int
    torn: int


class _Told(msgspec.Struct):
    """A ride as described: coordinates, or the zones that stand for them."""

    pickup_datetime: str
    pickup_longitude: float | None = None
    pickup_latitude: float | None = None
    dropoff_longitude: float | None = None
    dropoff_latitude: float | None = None
    passenger_count: float | None = None
    PULocationID: int | None = None
    DOLocationID: int | None = None

    def place(self, zones: Zones) -> tuple[float, ...]:
        """Returns the coordinates; raises LookupError or TypeError where there are none."""
        found: list[float] = []
        for name, end in ENDS.items():
            zone = getattr(self, name)
            pair = (
                (getattr(self, f"{end}_longitude"), getattr(self, f"{end}_latitude")) if zone is None else zones[zone]
            )
            found += (float(pair[0]), float(pair[1]))
        return tuple(found)


class _Quote(msgspec.Struct):
    """What a table takes from a line of the prediction log."""

    ride_id: str | int
    ride: _Told
    role: prediction_log.Role
    version: str
    bundle: str
    sequence: int | None
    fare: float
    quoted: float
    unit: str
    received_at: datetime


def gather(place: UPath, month: Month, settings: Settings) -> GatheredQuotes:
    """Ensures that the month's quotes are in a parquet file: those it has, those of the lake and those of the inbox.

    Args:
        place: The file; nothing that it contains is lost.
        month: Of the pickup.
        settings: Say where lake and inbox are, and give target and city.

    Raises:
        MonitoringError: The file is there but is not such a table.
        OSError: The lake cannot be read or written.
    """
    torn: list[bytes] = []
    sources: set[str] = set()
    found = [
        *stored(place, PREDICTIONS),
        *_logged(prediction_log.collected_in(settings.lake), month, settings, torn, sources),
        *_priced(settings.inbox, month, settings, sources),
    ]
    table, repeated, contradicting = firsts(found)
    marked = table.replace_schema_metadata({_SOURCES: msgspec.json.encode(sorted(sources))})
    with whole_file(place) as unfinished, unfinished.open("wb") as file:
        pq.write_table(marked, file, compression="zstd")
    return GatheredQuotes(len(table), pc.count_distinct(table["ride_id"]).as_py(), repeated, contradicting, len(torn))


def sources_of(place: UPath) -> tuple[str, ...] | None:
    """Returns the segments and files that a month was last gathered from.

    None where it never was, or the file is not parquet: gathering it says so, and other months do not wait.

    Raises:
        OSError: The lake cannot be read.
    """
    return mark_in(place, _SOURCES, tuple[str, ...])


def mark_in(place: UPath, name: bytes, kind: type[Mark]) -> Mark | None:
    """Returns what a month's file says about how it was made, the empty value of its type where it says nothing.

    None where there is no file, or it is not parquet.

    Args:
        place: The file.
        name: Name of the metadata.
        kind: Its type, which can be created without arguments.

    Raises:
        OSError: The lake cannot be read.
    """
    try:
        with place.open("rb") as file:
            marks = pq.read_schema(file).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    return msgspec.json.decode(marks[name], type=kind) if name in marks else kind()


def months_of_lines(content: bytes) -> frozenset[Month]:
    """Returns the months in which rides of the log begin."""
    return frozenset(parse_month(month.decode()) for month in set(_PICKUP_MONTH.findall(content)))


def firsts(found: Sequence[pa.Table]) -> tuple[pa.Table, int, int]:
    """Returns for each ride, version and role the quote that was asked for first, and how many others there were.

    Returns:
        The quotes, by ride; the number of others with the same answer; of others with a different one. A line that is
        found twice counts as neither.
    """
    table = pa.concat_tables([PREDICTIONS.empty_table(), *found]).sort_by([(name, "ascending") for name in _ORDER])
    if len(table) < 2:
        return table, 0, 0
    same_quote = _as_before(table, KEY)
    same_line = _as_before(table, _ORDER)
    same_answer = _as_before(table, [name for name in _ORDER if name != "asked_at"])
    others = pc.and_not(same_quote, same_line)
    repeated = pc.sum(pc.and_(others, same_answer)).as_py()
    return table.filter(pc.invert(same_quote)), repeated, pc.sum(others).as_py() - repeated


def _as_before(table: pa.Table, names: Iterable[str]) -> pa.ChunkedArray:
    """Returns which rows equal the row before in all of these columns."""
    same = None
    for name in names:
        column = table[name].combine_chunks()
        equal = pc.fill_null(pc.equal(column[1:], column[:-1]), fill_value=False)
        same = equal if same is None else pc.and_(same, equal)
    return pa.concat_arrays([pa.array([False]), same])


def stored(place: UPath, schema: pa.Schema) -> list[pa.Table]:
    """Returns what a file contains, nothing if there is none.

    Raises:
        MonitoringError: It is not such a table.
    """
    try:
        with place.open("rb") as file:
            return [pq.read_table(file, columns=schema.names).cast(schema)]
    except FileNotFoundError:
        return []
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise MonitoringError(
            f"{place}: expected the quotes of a month, received a file that cannot be read as that: {error}. Put back "
            "what was there, or move it away: the month is gathered from what PREDICTION_LOG_DAYS has kept"
        ) from None


def _logged(
    collected: UPath, month: Month, settings: Settings, torn: list[bytes], sources: set[str]
) -> Iterator[pa.Table]:
    """Yields the month's quotes from the prediction log, in parts; notes torn lines, and segments that have quotes."""
    decoder, zones, unit = msgspec.json.Decoder(_Quote), zones_of(settings.city.slug), settings.target_facts.unit
    # Other months' lines are not worth decoding.
    mark = _PICKUP + f"{month}-".encode()
    rows: list[tuple[Any, ...]] = []
    for name, line in lines_in(collected):
        if mark not in line:
            continue
        sources.add(name)
        try:
            row = _row(decoder.decode(line), zones, unit)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError, ValueError):
            torn.append(line)
            continue
        if row is not None:
            rows.append(row)
        if len(rows) == ROWS:
            yield _table(rows)
            rows = []
    yield _table(rows)


def lines_in(collected: UPath) -> Iterator[tuple[str, bytes]]:
    """Yields all collected lines, each with the name of its segment.

    Segments that vanish in the meantime were removed because of their age.
    """
    for path in segments_in(collected):
        with suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines():
                yield path.name, line


def _row(quote: _Quote, zones: Zones, unit: str) -> tuple[Any, ...] | None:
    """Returns a quote in the order of the table's columns, None for one in a different unit."""
    if quote.unit != unit:
        return None
    told = quote.ride
    return (
        str(quote.ride_id),
        quote.role,
        quote.version,
        quote.sequence,
        quote.bundle,
        quote.received_at,
        datetime.fromisoformat(told.pickup_datetime),
        *told.place(zones),
        MISSING_PASSENGERS if told.passenger_count is None else int(told.passenger_count),
        quote.fare,
        quote.quoted,
    )


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(PREDICTIONS)
    return pa.table(
        [pa.array(column, kind.type) for column, kind in zip(columns, PREDICTIONS, strict=True)], PREDICTIONS
    )


def _priced(inbox: UPath | None, month: Month, settings: Settings, sources: set[str]) -> Iterator[pa.Table]:
    """Yields the month's quotes from files whose rides have a `ride_id`, in parts; notes the files that have any.

    Raises:
        MonitoringError: There is no such inbox, or a file is not a file of answers.
    """
    if inbox is None:
        return
    try:
        files = list(priced_files(inbox))
    except FileNotFoundError:
        raise MonitoringError(
            f"SCORING_INBOX: expected a folder, received {settings.scoring_inbox}, which is not there"
        ) from None
    for answers, receipt in files:
        try:
            # It may have been removed in the meantime.
            with suppress(FileNotFoundError), answers.open("rb") as stored, unpacking(stored, answers.name) as file:
                for part in answered(file, kind_of(answers.name), settings.target_facts.unit, Form.of(settings)):
                    quotes = _of_file(part, receipt, month)
                    sources |= {f"{answers.name}:{receipt.edition}"} if len(quotes) else set()
                    yield quotes
        except RideFileError as error:
            raise MonitoringError(
                f"SCORING_INBOX: {answers.name}: {error}. Remove it, or have it priced anew"
            ) from None


def _of_file(part: Answered, receipt: Receipt, month: Month) -> pa.Table:
    """Returns the month's quotes from a part of a file."""
    rides, n = part.rides, len(part.rides)
    columns = {
        "ride_id": part.ride_ids,
        "served_as": ["production"] * n,
        "version": part.versions,
        "sequence": [receipt.sequence] * n,
        "bundle": [None] * n,
        "asked_at": [receipt.scored_at] * n,
        **{name: getattr(rides, name) for name in FIELDS},
        "predicted": part.fare,
        "quoted": part.quoted,
    }
    table = pa.table([pa.array(columns[kind.name]).cast(kind.type) for kind in PREDICTIONS], PREDICTIONS)
    return table.filter(pa.array(rides.pickup_datetime.astype("datetime64[M]") == np.datetime64(str(month), "M")))
