"""Which months have to be joined (again): derived each time from what is in the lake, never remembered.

The files of a month record what they were made from: the segments and files that quotes were gathered from, and the
outcome segments and the edition of the trips that they were joined with. Anything further makes the month due.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from taxifare.monitoring.gathering import months_of_lines, sources_of
from taxifare.monitoring.joining import joined_with, told_ids
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.batches import priced_files
from taxifare.serving.files import Form, RideFileError, months_of_answers
from taxifare.serving.segments import segments_in
from taxifare.settings import Settings
from taxifare.trips.months import Month, parse_month


def months_due(
    edition_of: Callable[[Month], str | None], places: Mapping[Month, tuple[UPath, UPath]], settings: Settings
) -> dict[Month, str]:
    """Returns the months with something new about their rides, oldest first, with a digest of what is new.

    Args:
        edition_of: Returns the revision of a month that the lake has whole, both clean and raw, None for others;
            called only for months that have quotes.
        places: The files of each month's predictions and outcomes.
        settings: Say where lake and inbox are.

    Raises:
        OSError: The lake cannot be read.
    """
    by_month: dict[Month, set[str]] = {}
    for name, months in _quoted(settings):
        for month in months:
            by_month.setdefault(month, set()).add(name)
    told = segments_in(outcome_log.collected_in(settings.lake))
    due = {}
    for month, (predictions, outcomes) in sorted(places.items()):
        gathered = sources_of(predictions)
        new = by_month.get(month, set()) - set(gathered or ())
        if gathered is not None and not new:
            new |= set(_new_truths(edition_of(month), str(gathered), told, predictions, outcomes))
        if new:
            due[month] = hashlib.sha256("\n".join(sorted(new)).encode()).hexdigest()[:12]
    return due


def _new_truths(
    revision: str | None, gathered: str, told: list[UPath], predictions: UPath, outcomes: UPath
) -> Iterator[str]:
    """Yields what a month was not yet joined with: its quotes, the trips' edition, segments that mention its rides."""
    joined = joined_with(outcomes)
    if joined is None:
        yield "never joined"
        return
    if joined.gathered != gathered:
        yield gathered
    if revision is not None and revision != joined.revision:
        yield revision
    new = tuple(segment for segment in told if segment.name not in joined.told)
    if new and _mention(new, predictions, gathered):
        yield from (segment.name for segment in new)


def _quoted(settings: Settings) -> Iterator[tuple[str, frozenset[Month]]]:
    """Yields the segments and files of answers, with the months in which their rides begin."""
    for segment in segments_in(prediction_log.collected_in(settings.lake)):
        yield segment.name, _months_in(segment)
    if settings.inbox is not None:
        with suppress(FileNotFoundError):  # `inbox_sensor` reports a missing inbox
            for answers, receipt in priced_files(settings.inbox):
                yield f"{answers.name}:{receipt.edition}", _months_of(answers, receipt.edition, Form.of(settings))


@lru_cache(maxsize=10_000)
def _months_in(segment: UPath) -> frozenset[Month]:
    """Returns the months of a segment, which never changes once it is collected."""
    try:
        content = segment.read_bytes()
    except FileNotFoundError:  # removed because of its age
        return frozenset()
    return months_of_lines(content)


@lru_cache(maxsize=1_000)
def _months_of(answers: UPath, edition: str, form: Form) -> frozenset[Month]:
    del edition  # part of the cache key: another edition at the same place has other rides
    try:
        return frozenset(map(parse_month, months_of_answers(answers, form)))
    except RideFileError:
        return frozenset()


@lru_cache(maxsize=1_000)
def _mention(segments: tuple[UPath, ...], predictions: UPath, gathered: str) -> bool:
    """Whether segments tell the outcome of any ride of a month, as it was gathered from these sources."""
    del gathered  # part of the cache key: gathered from other sources, it has other rides
    with predictions.open("rb") as file:
        ids = pq.read_table(file, columns=["ride_id"])["ride_id"]
    return bool(pc.any(pc.is_in(ids, pa.concat_arrays(list(map(_ids, segments))))).as_py())


_ids = lru_cache(maxsize=1_000)(told_ids)
