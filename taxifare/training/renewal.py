"""Renewing the model with a month: challengers compete, and the best of them becomes the month's candidate.

How each challenger is made and which one is chosen is said in `challengers`; from which version a month starts, in
`staging`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from taxifare.gate.gains import SlicedGains
from taxifare.gate.slices import sliced_gains
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.model.exposure import Exposure
from taxifare.model.packaging import LoadedModel
from taxifare.model.registry import ModelRegistry
from taxifare.settings import TrainingSettings
from taxifare.training.appraisal import facts_of
from taxifare.training.candidates import Candidate, Rival, candidate_of, training_inputs
from taxifare.training.challengers import (
    Challenger,
    OnEpoch,
    Standing,
    challenge,
    choose,
    lesson_of,
    may_win_anew,
)
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names

_log = logging.getLogger(__name__)


def renew(
    trips: Trips,
    rehearsed: pd.DataFrame | None,
    parent_version: str | None,
    registry: ModelRegistry,
    settings: TrainingSettings,
    *,
    run_tags: Mapping[str, str],
    record: TrackRecord | None = None,
    on_epoch: OnEpoch | None = None,
) -> Candidate:
    """Returns the best of the month's challengers, registered and scored from its saved weights.

    With a track record, the parent is the candidate that goes on: it keeps the month's lesson only if that makes it
    better on the validation trips, and what comes back has the record with the month's other trips.

    The same inputs – editions of the trips, parent, settings – give the version that was registered for them, not a
    second one.

    Args:
        trips: Preprocessed trips of the month.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        parent_version: What training starts from; None for random weights.
        registry: Where versions are.
        settings: Hyperparameters, challengers and seed.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        record: Of the candidate before the month, whose version the parent is; None where there is no production.
        on_epoch: Told of each epoch of each challenger.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The parent cannot be loaded, or the new version does not predict.
        TrainingError: Training gave no usable network.
        EvaluationError: The month has too few trips to be judged by.
    """
    whole_version = None if parent_version is None else registry.newest_whole_month_of(parent_version)
    before = None if record is None else _before(trips, record, registry, settings)

    def learn(run_id: str) -> tuple[Challenger, Sequence[Standing]]:
        parent = None if parent_version is None else _to_start_from(registry.load(parent_version), settings)
        whole_month = None if whole_version is None else _to_start_from(registry.load_once(whole_version), settings)
        started_from = ((parent_version, parent), (whole_version, whole_month))
        unfit = [version for version, model in started_from if version is not None and model is None]
        lesson = lesson_of(trips, rehearsed, settings)
        anew = before is None or may_win_anew(lesson, before.production_exposure, before.record, settings)
        chosen, standings = choose(challenge(lesson, parent, whole_month, settings, on_epoch, may_begin_anew=anew))
        registry.runs.log(
            run_id,
            params={"context": "renewal", "challenger": chosen.name, "learned_trips": chosen.learned_trips}
            | ({"parents_of_other_features": ", ".join(unfit)} if unfit else {}),
            metrics={f"challenger_seconds/{standing.name}": standing.seconds for standing in standings}
            | {f"challenger_mae/{standing.name}": standing.mae for standing in standings},
        )
        return chosen, standings

    inputs = training_inputs(trips, rehearsed=rehearsed, parents=(parent_version, whole_version))
    rival = None if before is None else before.rival
    candidate = candidate_of(trips, facts_of(trips), inputs, learn, registry, settings, run_tags, rival=rival)
    if before is None:
        return candidate
    month = MonthOnRecord(
        month=trips.edition.subject,
        revision=trips.edition.revision,
        candidate=candidate.version,
        gains=before.gains,
    )
    return candidate.with_record(before.record.followed_by(month))


@dataclass(frozen=True)
class _Before:
    """All that is asked of production and the candidate before the month is learned.

    Attributes:
        record: Of the candidate, until now.
        gains: What it saved over production on the month's training trips.
        rival: What its lesson has to beat: itself on the validation trips.
        production_exposure: What production has been trained on.
    """

    record: TrackRecord
    gains: SlicedGains
    rival: Rival
    production_exposure: tuple[Exposure, ...]


def _before(trips: Trips, record: TrackRecord, registry: ModelRegistry, settings: TrainingSettings) -> _Before:
    """Returns what production and the candidate say of the month's trips, which neither has learned from."""
    production, training = registry.load_once(record.production), trips.training
    candidate = registry.load_once(record.candidate)
    gains = sliced_gains(production.predict(training), candidate.predict(training), training, settings.city_facts)
    rival = Rival(candidate.version, candidate.predict(trips.validation))
    return _Before(record, gains, rival, production.exposure)


def _to_start_from(model: LoadedModel, settings: TrainingSettings) -> LoadedModel | None:
    """Returns the model to start from; None, with a warning, where it takes other features.

    Weights mean nothing to other features: after a change of the features, training starts anew.
    """
    features = feature_names(settings.city_facts)
    if model.features == features:
        return model
    _log.warning(
        "version %s takes other features than today's (%s): no challenger starts from its weights",
        model.version,
        ", ".join(sorted(set(model.features) ^ set(features))) or "the same in another order",
    )
    return None
