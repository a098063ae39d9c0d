"""Joining: each quote of a month with the outcome of its ride, by the ride's id.

What became of a ride is a function of three things: its quotes, the trips that the source has published for the month,
and the outcomes reported to the service. So it does not matter in which order or how often these arrived: joining again
gives the same table, and a restated month is joined anew. docs/monitoring.md lists the possible fates of a ride.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from taxifare.monitoring.gathering import ROWS, lines_in, mark_in, sources_of, stored
from taxifare.monitoring.outcomes import OUTCOMES, PREDICTIONS, expected
from taxifare.serving import outcome_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.segments import lines_of
from taxifare.settings import Settings
from taxifare.trips.columns import COORDINATES
from taxifare.whole_files import whole_file

PUBLISHED, TOLD, UNSOUND, ANOTHER, CONTRADICTED, WAITING = (
    *("published", "told", "unsound", "another ride", "contradicted", "waiting"),
)
"""Fates of a ride, see docs/monitoring.md."""

KNOWN = (PUBLISHED, TOLD)
"""Fates with a known truth."""

SAME = 0.005
"""Outcomes of one ride closer than this are the same, to the cent or the hundredth of a minute."""

_APART = pa.scalar(12 * 3_600_000_000, pa.duration("us"))
"""A trip that begins this long before or after the priced ride is a different one, whatever its id."""

_MARKS = b"taxifare_joined_with"


@dataclass(frozen=True)
class Published:
    """The trips that the source has published for a month.

    Attributes:
        revision: Of the month.
        keys: The source's keys of all trips.
        pickups: When all trips began.
        sound_keys: Keys of those that cleaning kept.
        truths: Outcomes of those.
    """

    revision: str
    keys: pa.Array
    pickups: pa.Array
    sound_keys: pa.Array
    truths: pa.Array


@dataclass(frozen=True)
class Joined:
    """The result of joining a month.

    Attributes:
        quotes: Rows of the table.
        rides: How many rides they are for.
        fates: Number of rides by fate; fates without rides are left out.
        differing: Rides whose published truth differs from the one that was told.
        revision: Revision of the trips that they were joined with, None where none were published.
    """

    quotes: int
    rides: int
    fates: Mapping[str, int]
    differing: int
    revision: str | None

    @property
    def share_matched(self) -> float | None:
        """The share of rides whose truth is known, None if there are no rides."""
        return sum(self.fates.get(fate, 0) for fate in KNOWN) / self.rides if self.rides else None


def join(predictions: UPath, outcomes: UPath, published: Published | None, settings: Settings) -> Joined:
    """Ensures that a month's outcomes are in a parquet file.

    Args:
        predictions: The file of its quotes.
        outcomes: Of the file; what was told of the rides that are in it is kept.
        published: The month's trips, None where none are published.
        settings: Say where the lake is, and what is predicted.

    Raises:
        MonitoringError: One of the files is no such table.
        OSError: The lake cannot be read or written.
    """
    # Before its rows are read: if it is gathered anew in the meantime, the month is joined again.
    gathered = str(sources_of(predictions))
    quotes = pa.concat_tables([PREDICTIONS.empty_table(), *stored(predictions, PREDICTIONS)])
    segments: set[str] = set()
    told = [_told_before(outcomes), *_told_since(settings, quotes["ride_id"], segments)]
    table = joined(quotes, published, pa.concat_tables(told))
    revision = None if published is None else published.revision
    marks = JoinedWith(revision or "", tuple(sorted(segments)), gathered)
    marked = table.replace_schema_metadata({_MARKS: msgspec.json.encode(marks)})
    with whole_file(outcomes) as unfinished, unfinished.open("wb") as file:
        pq.write_table(marked, file, compression="zstd")
    each = table.filter(_is_first(table["ride_id"]))
    fates = {each_fate["values"]: each_fate["counts"] for each_fate in pc.value_counts(each["fate"]).to_pylist()}
    apart = pc.greater(pc.max_element_wise(_away(each, "told_least"), _away(each, "told_most")), SAME)
    differing = pc.sum(pc.and_(pc.equal(each["fate"], PUBLISHED), apart)).as_py() or 0
    return Joined(len(table), len(each), fates, differing, revision)


class JoinedWith(msgspec.Struct, frozen=True):
    """What a month was last joined with.

    Attributes:
        revision: Revision of the trips, empty without trips.
        told: The outcome segments that existed.
        gathered: What its quotes were gathered from, as one text.
    """

    revision: str = ""
    told: tuple[str, ...] = ()
    gathered: str = ""


def joined_with(outcomes: UPath) -> JoinedWith | None:
    """Returns what a month was last joined with.

    None before the first time, or where the file is not parquet: joining it says so, and other months do not wait.

    Raises:
        OSError: The lake cannot be read.
    """
    return mark_in(outcomes, _MARKS, JoinedWith)


def told_ids(segment: UPath) -> pa.Array:
    """Returns the rides whose outcomes were reported in a segment; none if it is gone by now."""
    try:
        content = segment.read_bytes()
    except FileNotFoundError:
        content = b""
    return pa.array([str(line.ride_id) for line in lines_of(content, ToldOutcome) if line is not None], pa.string())


def joined(quotes: pa.Table, published: Published | None, told: pa.Table) -> pa.Table:
    """Returns the quotes with what their rides came to: the columns of `OUTCOMES`.

    Args:
        quotes: Each once, sorted by ride: the columns of `PREDICTIONS`.
        published: The month's trips, None where none are published.
        told: Reported outcomes: `ride_id`, `told_least`, `told_most`, a row for each report.
    """
    quotes = quotes.combine_chunks()
    ids = quotes["ride_id"]
    grouped = told.group_by("ride_id").aggregate([("told_least", "min"), ("told_most", "max")])
    place = pc.index_in(ids, grouped["ride_id"].combine_chunks())
    least, most = (pc.take(grouped[name], place) for name in ("told_least_min", "told_most_max"))
    is_published, is_other, truth, began_at = _found(quotes, published)
    is_told = pc.and_(pc.is_valid(least), pc.less(pc.subtract(most, least), SAME))
    fates = pc.case_when(
        pc.make_struct(
            pc.and_(is_published, pc.is_valid(truth)),
            is_published,
            pc.fill_null(is_told, fill_value=False),
            pc.is_valid(least),
            is_other,
        ),
        *(PUBLISHED, UNSOUND, TOLD, CONTRADICTED, ANOTHER, WAITING),
    )
    truth = pc.if_else(pc.equal(fates, TOLD), least, truth)
    columns = {"truth": truth, "fate": fates, "told_least": least, "told_most": most, "began_at": began_at}
    columns["reference"] = _references(quotes, truth)
    added = [columns[kind.name] for kind in list(OUTCOMES)[len(PREDICTIONS) :]]
    return pa.table([*quotes.columns, *added], schema=OUTCOMES)


def _found(quotes: pa.Table, published: Published | None) -> tuple[Any, Any, Any, Any]:
    """Returns for each quote whether its ride is published, whether another with its id is; its truth and pickup."""
    n = len(quotes)
    if published is None:
        no = pa.array(np.zeros(n, bool))
        return no, no, pa.nulls(n, pa.float64()), pa.nulls(n, pa.timestamp("us"))
    ids = quotes["ride_id"]
    pickups = pc.take(published.pickups, pc.index_in(ids, published.keys)).cast(pa.timestamp("us"))
    apart = pc.subtract(pickups, quotes["pickup_datetime"])
    is_near = pc.and_(pc.less(apart, _APART), pc.greater(apart, pa.scalar(-_APART.value, pa.duration("us"))))
    is_published = pc.fill_null(is_near, fill_value=False)
    truths = pc.take(published.truths, pc.index_in(ids, published.sound_keys))
    is_other = pc.and_not(pc.is_valid(pickups), is_published)
    truth, began_at = (
        pc.if_else(is_published, values, pa.scalar(None, kind))
        for values, kind in ((truths, pa.float64()), (pickups, pa.timestamp("us")))
    )
    return is_published, is_other, truth, began_at


def _references(quotes: pa.Table, truth: Any) -> pa.Array:
    """Returns what a rate per km expects of each ride, from all rides whose truth is known, each once."""
    known = pa.table({name: quotes[name] for name in ("ride_id", "pickup_datetime", *COORDINATES)} | {"truth": truth})
    known = known.filter(pc.is_valid(known["truth"]))
    known = known.filter(_is_first(known["ride_id"]))
    rates: pd.Series = expected(known.drop_columns("ride_id").to_pandas())
    place = pc.index_in(quotes["ride_id"], known["ride_id"].combine_chunks())
    return pc.take(pa.array(rates, pa.float64(), from_pandas=True), place)


def _is_first(ids: pa.ChunkedArray) -> pa.Array:
    """Returns which of the sorted ids differ from the one before."""
    flat = ids.combine_chunks()
    if not len(flat):
        return pa.array([], pa.bool_())
    return pa.concat_arrays([pa.array([True]), pc.not_equal(flat[1:], flat[:-1])])


def _away(table: pa.Table, name: str) -> Any:
    return pc.abs(pc.subtract(table[name], table["truth"]))


_TOLD = pa.schema([pa.field("ride_id", pa.string()), *(OUTCOMES.field(name) for name in ("told_least", "told_most"))])


def _told_before(outcomes: UPath) -> pa.Table:
    """Returns what a table joined earlier says was reported about its rides."""
    table = pa.concat_tables([_TOLD.empty_table(), *stored(outcomes, _TOLD)])
    return table.filter(pc.is_valid(table["told_least"]))


def _told_since(settings: Settings, ids: pa.ChunkedArray, segments: set[str]) -> list[pa.Table]:
    """Returns what the collected segments say about these rides, without torn lines; notes the segments."""
    asked, unit = pc.unique(ids), settings.target_facts.unit
    decoder, kinds = msgspec.json.Decoder(ToldOutcome), (pa.string(), pa.float64())
    tables: list[pa.Table] = []
    rows: list[tuple[str, float]] = []

    def keep() -> None:
        names, truths = (pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True))
        part = pa.table([names, truths, truths], schema=_TOLD)
        tables.append(part.filter(pc.is_in(part["ride_id"], asked)))
        rows.clear()

    for name, line in lines_in(outcome_log.collected_in(settings.lake)):
        segments.add(name)
        try:
            told = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if told.unit == unit:
            rows.append((str(told.ride_id), told.truth))
        if len(rows) == ROWS:
            keep()
    if rows:
        keep()
    return tables
