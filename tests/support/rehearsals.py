"""Rehearsals as they were before samples were kept: every earlier month read, cleaned and drawn from, each time."""

from collections.abc import Callable, Iterable, Iterator

import pandas as pd

from taxifare.settings import Settings
from taxifare.sources.base import TripSource, published_before
from taxifare.sources.whole_months import NotWholeError, ensure_whole
from taxifare.training.reservoir import Reservoir
from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COORDINATES
from taxifare.trips.editions import TripBatches, Trips
from taxifare.trips.months import Month
from taxifare.trips.preparation import faults_of, split_opened_month
from taxifare.trips.splitting import SplitError


def reservoir(editions: Iterable[TripBatches], size: int, seed: int) -> pd.DataFrame:
    """What is drawn from editions."""
    sample = Reservoir(size, seed)
    for trips in editions:
        sample.draw_from(trips)
    return sample.drawn


def sound_months_before(
    month: Month, source: TripSource, stored: Callable[[Month], Trips | None], settings: Settings
) -> Iterator[Trips]:
    """Each published month before one that is whole and sound, clean."""
    for earlier, revision in published_before(source, month).items():
        if settings.first_month <= earlier:
            raw = stored(earlier)
            if raw is None or raw.edition.revision != revision:
                raw = _as_published(earlier, source, settings)
            if raw is not None and (trips := _clean(raw, earlier, settings)) is not None:
                yield trips


def _as_published(month: Month, source: TripSource, settings: Settings) -> Trips | None:
    published = source.open_month(month)
    try:
        ensure_whole(published, month, settings, settings.lake)
        raw = split_opened_month(published, month, settings.validation_share, settings.home)
    except (SplitError, NotWholeError):
        return None
    assert isinstance(raw, Trips)
    return raw


def _clean(raw: Trips, month: Month, settings: Settings) -> Trips | None:
    city, target = settings.city_facts, settings.target_facts
    cleaned = clean(raw.frame, city, target).trips
    faults = faults_of(raw, cleaned, month, settings.minimum_trips, (*COORDINATES, "pickup_datetime", target.column))
    return None if faults else Trips(raw.edition, cleaned, settings.target)
