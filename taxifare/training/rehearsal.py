"""Rehearsal: a bounded sample of the trips before a month, so that learning the month does not forget the years.

How it is drawn is said in `reservoir`. Each month is read once: the sample of its own that is kept then is what later
months rehearse of it.

Why it depends on what is published, not on what has been run: docs/decisions.md, under training.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from taxifare.settings import Settings
from taxifare.sources.base import TripSource, published_before
from taxifare.sources.whole_months import NotWholeError, ensure_whole, known_to_wait
from taxifare.training.base_trips import BaseTrips
from taxifare.training.kept_samples import KeptSamples, Sample
from taxifare.training.reservoir import Reservoir
from taxifare.trips.cleaning import clean
from taxifare.trips.columns import COORDINATES
from taxifare.trips.editions import BASE, Edition, Trips
from taxifare.trips.months import Month, parse_month
from taxifare.trips.preparation import faults_of, preprocess_large, split_opened_month
from taxifare.trips.splitting import SplitError
from taxifare.trips.stored import StoredTrips

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Past:
    """The trips before a month: the base years, and each month from `FIRST_MONTH` on that is published.

    What is rehearsed depends on what is published, not on which months have been run: months run in any order, or at
    the same time, rehearse the same trips, whatever of them is kept already.

    Attributes:
        source: Where months are that have not been run, or have been restated since.
        base: Opens the base years; None where there are none.
        stored: Opens a month's raw trips where it has been run; None otherwise.
        settings: Lake, city, target, first month, seed and size of the sample, what a sound month is.
    """

    source: TripSource
    base: Callable[[], BaseTrips | None]
    stored: Callable[[Month], Trips | StoredTrips | None]
    settings: Settings

    def published_before(self, month: Month) -> dict[Month, str]:
        """Returns the months before one, and their revisions, oldest first.

        Raises:
            SourceError: The source cannot tell which are published.
        """
        published = published_before(self.source, month)
        return {earlier: published[earlier] for earlier in sorted(published) if self.settings.first_month <= earlier}

    def rehearsed(self, published: Mapping[Month, str]) -> pd.DataFrame:
        """Returns the sample of the base years and of months, each at its revision, see `Reservoir.drawn`.

        A month that is not sound plays no part, see `preparation.faults_of`, nor one that waits until it is whole, see
        `whole_months`. Samples that are not kept yet are drawn, and kept.

        Args:
            published: Some of `published_before`, oldest first.

        Raises:
            SourceError: A published month that has to be read cannot be.
        """
        kept, base = KeptSamples(self.settings), self.base()
        months = self._not_waiting(published, kept)
        editions = [*([] if base is None else [_edition_of(base)]), *months]
        nearest = _nearest(months, frozenset(editions), kept)
        covered = frozenset[Edition]() if nearest is None else nearest.drawn_from
        parts = [] if nearest is None else [nearest]
        parts += [self._own(edition, base, kept) for edition in editions if edition not in covered]
        sample = self._empty()
        for part in parts:
            if len(part.trips):
                sample.add(part.trips)
        if months and len(parts) > 1:
            drawn_from = frozenset[Edition]().union(*(part.drawn_from for part in parts))
            kept.keep(f"until-{months[-1].subject}", Sample(sample.with_waits, drawn_from))
        return sample.drawn

    def clean(self, month: Month, revision: str) -> Trips | StoredTrips | None:
        """Returns the clean trips of a published month; None of one that is not sound, or waits until it is whole.

        Raises:
            SourceError: It cannot be read.
        """
        try:
            return self._clean(self._raw(month, revision), month)
        except (NotWholeError, SplitError) as error:
            _log.info("%s teaches nothing: %s", month, error)
            return None

    def _not_waiting(self, published: Mapping[Month, str], kept: KeptSamples) -> list[Edition]:
        """Returns the months that do not wait until they are whole. Those of which that is not known are read."""
        waits, found = known_to_wait(published, self.settings, self.settings.lake), list[Edition]()
        for month, revision in published.items():
            # One that has been run was whole then, or taken.
            if waits[month] is not False and self._stored(month, revision) is None:
                if waits[month]:
                    continue
                try:
                    self._drawn(month, revision, kept)
                except NotWholeError as error:
                    _log.info("%s is not rehearsed: %s", month, error)
                    continue
                finally:
                    # The months beside it are held against what was seen of it.
                    waits = known_to_wait(published, self.settings, self.settings.lake)
            found.append(Edition(str(month), revision))
        return found

    def _own(self, edition: Edition, base: BaseTrips | None, kept: KeptSamples) -> Sample:
        """Returns the sample of an edition, which is drawn where it is not kept."""
        found = kept.find(edition.subject, frozenset([edition]))
        if found is not None:
            return found
        if base is None or edition.subject != BASE:
            return self._drawn(parse_month(edition.subject), edition.revision, kept, is_whole=True)
        sample = self._empty()
        sample.draw_from(base)
        kept.keep(BASE, Sample(sample.with_waits, frozenset([edition])))
        return Sample(sample.with_waits, frozenset([edition]))

    def _drawn(self, month: Month, revision: str, kept: KeptSamples, *, is_whole: bool = False) -> Sample:
        """Returns the sample of a month, without a trip where that is not sound, and keeps it.

        Raises:
            NotWholeError: It waits until it is whole.
        """
        sample, edition = self._empty(), Edition(str(month), revision)
        try:
            raw = self._raw(month, revision, is_whole=is_whole)
        except SplitError as error:
            _log.info("%s is not rehearsed: %s", month, error)
        else:
            edition, trips = raw.edition, self._clean(raw, month)
            if trips is not None:
                sample.draw_from(trips)
        drawn = Sample(sample.with_waits, frozenset([edition]))
        kept.keep(edition.subject, drawn)
        return drawn

    def _empty(self) -> Reservoir:
        return Reservoir(self.settings.rehearsal_trips, self.settings.seed)

    def _stored(self, month: Month, revision: str) -> Trips | StoredTrips | None:
        raw = self.stored(month)
        return raw if raw is not None and raw.edition.revision == revision else None

    def _raw(self, month: Month, revision: str, *, is_whole: bool = False) -> Trips | StoredTrips:
        """Returns a month's raw trips, from the lake where they are there at this revision.

        Raises:
            NotWholeError: It is read from the source, and waits until it is whole.
            SplitError: It cannot be split.
        """
        raw = self._stored(month, revision)
        if raw is not None:
            return raw
        published = self.source.open_month(month)
        if not is_whole or published.revision != revision:
            ensure_whole(published, month, self.settings, self.settings.lake)
        return split_opened_month(published, month, self.settings.validation_share, self.settings.home)

    def _clean(self, raw: Trips | StoredTrips, month: Month) -> Trips | StoredTrips | None:
        """Returns a month's clean trips, None where it is not sound."""
        city, target = self.settings.city_facts, self.settings.target_facts
        # Features are computed of the few trips that are drawn; they have no nulls where these columns have none.
        needed = (*COORDINATES, "pickup_datetime", target.column)
        if isinstance(raw, StoredTrips) and raw.fits_in_memory:
            raw = raw.in_memory()
        if isinstance(raw, Trips):
            cleaned = clean(raw.frame, city, target).trips
            faults = faults_of(raw, cleaned, month, self.settings.minimum_trips, needed)
            return None if faults else Trips(raw.edition, cleaned, self.settings.target)
        large = preprocess_large(raw, city, target, self.settings.home).trips
        return None if faults_of(raw, large, month, self.settings.minimum_trips, needed) else large


def _edition_of(base: BaseTrips) -> Edition:
    """Returns the base years as they were gathered: the same revision may have been, by other settings."""
    return Edition(BASE, f"{base.edition.revision} {base.content}")


def _nearest(months: Sequence[Edition], editions: frozenset[Edition], kept: KeptSamples) -> Sample | None:
    """Returns the newest sample of everything up to a month that these editions are all of; None where none is kept."""
    found = (kept.find(f"until-{month.subject}", editions) for month in reversed(months))
    return next((sample for sample in found if sample is not None), None)
