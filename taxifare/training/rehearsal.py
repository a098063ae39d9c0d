"""Rehearsal: a bounded sample of the trips before a month, so that learning the month does not forget the years.

Why it reads what is published, not what has been run: docs/decisions.md, under training.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from taxifare.settings import Settings
from taxifare.sources.base import TripSource, published_before
from taxifare.sources.whole_months import NotWholeError, ensure_whole
from taxifare.trips.cleaning import clean, row_hashes
from taxifare.trips.editions import Edition, TripBatches, Trips
from taxifare.trips.months import Month
from taxifare.trips.preparation import faults_of, preprocess_large, split_opened_month
from taxifare.trips.splitting import SplitError
from taxifare.trips.stored import StoredTrips
from taxifare.trips.table import COLUMN_NAMES, COORDINATES, DTYPES, TRIP_COLUMNS

_log = logging.getLogger(__name__)

HALF_LIFE_YEARS = 1.0
"""A trip a year older is half as likely to be kept: traffic drifts, and rare routes still have to be remembered."""

_ORIGIN = pd.Timestamp("2000-01-01")

_YEAR = pd.Timedelta(days=365.2425)

_DTYPES = {column.name: DTYPES[column.kind] for column in TRIP_COLUMNS} | {
    "subject": "object",
    "revision": "object",
    "wait": "float64",
}


def reservoir(editions: Iterable[TripBatches], size: int, seed: int) -> pd.DataFrame:
    """Returns at most `size` trips drawn from the editions, newer ones likelier, sorted by pickup time.

    Each trip waits for an exponential time, half as long for each year that it is newer; the shortest waits stay. That
    is weighted sampling without replacement (Efraimidis and Spirakis 2006) with forward decay (Cormode et al.
    2009): a trip's rank never changes, so the sample is the same whichever edition comes first, and a sample of samples
    is the sample of the whole. A restated month is drawn anew, the others are not.

    Args:
        editions: Clean trips, each batch in memory only while it is drawn from.
        size: Most trips to keep.
        seed: Of the draws.

    Returns:
        The columns of the trip table, with `subject` and `revision` of the edition each trip is from.
    """
    sample = Reservoir(size, seed)
    for trips in editions:
        sample.draw_from(trips)
    return sample.drawn


class Reservoir:
    """The sample of `reservoir`, edition by edition.

    Args:
        size: Most trips to keep.
        seed: Of the draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._kept = _nothing()

    def draw_from(self, trips: TripBatches) -> None:
        """Draws from one more edition."""
        self._kept = _drawn_from(self._kept, trips, self._size, self._seed)

    @property
    def drawn(self) -> pd.DataFrame:
        """What has been drawn so far, by pickup time."""
        return self._kept.sort_values(["pickup_datetime", "wait"], ignore_index=True).drop(columns="wait")


def _nothing() -> pd.DataFrame:
    """Returns the sample of no edition."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _DTYPES.items()})


def _drawn_from(kept: pd.DataFrame, trips: TripBatches, size: int, seed: int) -> pd.DataFrame:
    """Returns the sample, with an edition drawn from as well; `wait` is what each trip waits for."""
    edition = trips.edition
    name = f"{seed}:{edition.subject}:{edition.revision}"
    salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    for batch in trips.batches():
        years = ((batch["pickup_datetime"] - _ORIGIN) / _YEAR).to_numpy(np.float64)
        # A hash of the trip is as good a draw as any, and the same however an edition is divided into batches.
        wait = -np.log((row_hashes(batch, salt) + 0.5) / 2**64) * 2 ** (-years / HALF_LIFE_YEARS)
        drawn = np.sort(np.argsort(wait, kind="stable")[:size])
        sample = batch[list(COLUMN_NAMES)].iloc[drawn]
        sample = sample.assign(subject=edition.subject, revision=edition.revision, wait=wait[drawn])
        kept = sample if kept.empty else pd.concat([kept, sample]).nsmallest(size, "wait")
    return kept


def editions_before(
    month: Month, source: TripSource, stored: Callable[[Month], Trips | StoredTrips | None], settings: Settings
) -> Iterator[Trips | StoredTrips]:
    """Yields the trips of `clean_months_before` of the months that are sound, oldest first."""
    months = clean_months_before(month, source, stored, settings)
    yield from (trips for _, trips in months if trips is not None)


def clean_months_before(
    month: Month, source: TripSource, stored: Callable[[Month], Trips | StoredTrips | None], settings: Settings
) -> Iterator[tuple[Edition, Trips | StoredTrips | None]]:
    """Yields each published month from `FIRST_MONTH` until before this one, oldest first, with its clean trips.

    What is yielded depends on what is published, not on which months have been run: months run in any order, or at
    the same time, rehearse the same trips. A month that is not sound has None, see `preparation.faults_of`, and so
    has one that waits until it is whole, see `whole_months`.

    Args:
        month: The month to be learned.
        source: Where months are that have not been run, or have been restated since.
        stored: Gives a month's raw trips where it has been run, None otherwise.
        settings: City, target, first month, the share for validation, and the fewest trips of a month.

    Raises:
        SourceError: A published month cannot be read, or the source cannot tell which are published.
    """
    for earlier, revision in published_before(source, month).items():
        if settings.first_month <= earlier:
            raw = stored(earlier)
            if raw is None or raw.edition.revision != revision:
                raw = _as_published(earlier, source, settings)
            yield Edition(str(earlier), revision), None if raw is None else _clean(raw, earlier, settings)


def _as_published(month: Month, source: TripSource, settings: Settings) -> Trips | StoredTrips | None:
    """Returns a month's raw trips from the source; None where they cannot be split, or the month is not whole yet."""
    published = source.open_month(month)
    try:
        ensure_whole(published, month, settings, settings.lake)
        return split_opened_month(published, month, settings.validation_share, settings.home)
    except (SplitError, NotWholeError) as error:
        _log.info("%s is not rehearsed: %s", month, error)
        return None


def _clean(raw: Trips | StoredTrips, month: Month, settings: Settings) -> Trips | StoredTrips | None:
    """Returns a month's clean trips, None where it is not sound."""
    city, target = settings.city_facts, settings.target_facts
    # Features are computed of the few trips that are drawn; they have no nulls where these columns have none.
    needed = (*COORDINATES, "pickup_datetime", target.column)
    if isinstance(raw, Trips):
        cleaned = clean(raw.frame, city, target).trips
        faults = faults_of(raw, cleaned, month, settings.minimum_trips, needed)
        return None if faults else Trips(raw.edition, cleaned, settings.target)
    stored = preprocess_large(raw, city, target, settings.home).trips
    return None if faults_of(raw, stored, month, settings.minimum_trips, needed) else stored
