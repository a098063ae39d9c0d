"""The candidate: the model that learns every month on top of what it knows, whoever is in production.

What it is before a month follows from the months since production's: each lesson is found by its fingerprint, or given
now, so neither the order in which months are run nor a restart plays a part. It keeps a lesson only if that makes it
better on the month's validation trips, and begins anew from production where its track record is surely worse. A month
that is not sound teaches it nothing; one that is restated, or published late, is learned in its place, and the lessons
after it anew.

Why the candidate goes on: docs/decisions.md, under training.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from taxifare.gate.slices import judged_features, sliced_gains
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.settings import TrainingSettings
from taxifare.training.challengers import OnEpoch
from taxifare.training.large_months import drawn
from taxifare.training.rehearsal import Past
from taxifare.training.renewal import renew
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.months import Month, parse_month
from taxifare.trips.preparation import with_target_and_features
from taxifare.trips.stored import StoredTrips

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlierMonth:
    """A month before the one to be learned.

    Attributes:
        edition: Which trips.
        trips: Preprocessed; None for a month that is not sound.
        rehearsed: What is rehearsed with them.
    """

    edition: Edition
    trips: Trips | None
    rehearsed: pd.DataFrame


@dataclass(frozen=True)
class Candidacy:
    """How the candidate stands before a month, as far as it is on record, and where the rest is to be had.

    Attributes:
        record: Its track record, as far as it is known.
        learned: The month that production learned last, None for the base model.
        after: Yields the published months before the one to be learned that are later than a month – all, for None –
            oldest first.
    """

    record: TrackRecord
    learned: Month | None
    after: Callable[[Month | None], Iterator[EarlierMonth]]

    def brought_up_to_date(
        self,
        registry: ModelRegistry,
        settings: TrainingSettings,
        *,
        run_tags: Mapping[str, str],
        on_epoch: OnEpoch | None = None,
    ) -> TrackRecord:
        """Returns the candidate's track record once it has learned every month before.

        Args:
            registry: Where versions are.
            settings: Hyperparameters, challengers and seed.
            run_tags: Identify the MLflow runs: asset and Dagster run; each gets its own month.
            on_epoch: Told of each epoch of each challenger.

        Raises:
            RegistryError: MLflow does not answer.
            VersionUnusableError: A version of the way cannot be loaded, or does not predict.
            TrainingError: Training gave no usable network.
            EvaluationError: A month has too few trips to be judged by.
        """
        record = self.record
        if record.candidate != record.production:
            try:
                registry.verify(record.candidate)
            except VersionUnusableError as error:
                _log.warning("%s: the candidate begins anew from production", error)
                record = TrackRecord(production=record.production)
        last = parse_month(record.months[-1].month) if record.months else self.learned
        for month in self.after(last):
            record = _with_month(record, month, registry, settings, run_tags, on_epoch)
        return record


def _with_month(
    record: TrackRecord,
    month: EarlierMonth,
    registry: ModelRegistry,
    settings: TrainingSettings,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None,
) -> TrackRecord:
    """Returns the record with a month that the candidate has learned; one that is not sound teaches it nothing."""
    subject, revision = month.edition.subject, month.edition.revision
    if month.trips is None:
        return record.followed_by(MonthOnRecord(month=subject, revision=revision, candidate=record.candidate))
    tags = {**run_tags, "month": subject}
    renewed = renew(
        month.trips,
        month.rehearsed,
        record.candidate,
        registry,
        settings,
        run_tags=tags,
        record=record,
        on_epoch=on_epoch,
    )
    validation = month.trips.validation
    production, candidate = (
        registry.load_once(version).predict(validation) for version in (record.production, renewed.version)
    )
    return renewed.record.with_gains(sliced_gains(production, candidate, validation, settings.city_facts))


def months_before(month: Month, past: Past, after: Month | None) -> Iterator[EarlierMonth]:
    """Yields the published months before a month that are later than another, oldest first, as they are learned from.

    Args:
        month: The month before which.
        past: Where trips are.
        after: The month after which, None for all.

    Raises:
        SourceError: A published month cannot be read, or the source cannot tell which are published.
    """
    published = past.published_before(month)
    for earlier, revision in published.items():
        if after is None or earlier > after:
            before = {other: published[other] for other in published if other < earlier}
            rehearsed, trips = past.rehearsed(before), past.clean(earlier, revision)
            ready = None if trips is None else _ready(trips, past.settings)
            yield EarlierMonth(Edition(str(earlier), revision), ready, rehearsed)


def _ready(trips: Trips | StoredTrips, settings: TrainingSettings) -> Trips:
    """Returns clean trips, preprocessed."""
    if isinstance(trips, StoredTrips):
        return drawn(trips, settings.city_facts, judged_features(settings.city_facts))
    return replace(trips, frame=with_target_and_features(trips.frame, settings.city_facts, settings.target_facts))
