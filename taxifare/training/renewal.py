"""The two pieces of work a month asks of models: score production, and train the staging model that may replace it.

Both run inside an MLflow run of their own and leave their per-trip predictions there, so that `evaluation.judge` can
pair the two models trip by trip.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal, Contender, contend
from taxifare.gate.scores import EvaluationError, reference_mae, skill
from taxifare.gate.staleness import Baseline, Change, explain_change
from taxifare.model.exposure import Exposure, exposure_of
from taxifare.model.fitting import TrainingHistory, peak_memory_mib
from taxifare.model.packaging import LoadedModel, VersionUnusableError
from taxifare.model.registry import SUBJECT_TAG, WHOLE_MONTH_TAG, ModelRegistry
from taxifare.settings import Settings
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Challenger, OnEpoch, Standing, challenge, choose, lesson_of, warm
from taxifare.training.from_random_weights import architectures_of, fit_streamed
from taxifare.trips.editions import BASE, Edition, Trips
from taxifare.trips.features import feature_names

if TYPE_CHECKING:
    import keras

_log = logging.getLogger(__name__)

BASELINE_TAG = "footing"
"""On a version: its error and the difficulty of the trips when it was appraised last, see `evaluation.Baseline`."""

_HYPERPARAMETERS = ("learning_rate", "batch_size", "patience", "max_epochs", "dense_width_factor", "seed")


@dataclass(frozen=True)
class Candidate:
    """A trained and scored version.

    Attributes:
        appraisal: Its scores on the validation trips, from its saved weights.
        parent_version: The version whose weights it started from, None where it started from none.
        history: How training went, None where there was none, or where a version of the same inputs was taken.
        standings: The challengers it was chosen from; none for the base, or where a version of the same inputs was
            taken.
    """

    appraisal: Appraisal
    parent_version: str | None
    history: TrainingHistory | None
    standings: tuple[Standing, ...] = ()


@dataclass(frozen=True)
class _Trained:
    """A network to register, or a version that is registered already."""

    network: "keras.Model"
    exposure: tuple[Exposure, ...]
    correction_share: float
    parent_version: str | None
    history: TrainingHistory | None
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    version: str | None = None
    standings: tuple[Standing, ...] = ()


def appraise_production(
    trips: Trips, version: str | None, registry: ModelRegistry, *, run_tags: Mapping[str, str]
) -> Appraisal:
    """Returns what came of scoring the production version on the validation trips, and logs it as an MLflow run.

    A version that cannot be loaded or does not predict is reported as such; a registry that does not answer is an
    error, because then nothing is known about production.

    Args:
        trips: Preprocessed trips.
        version: The version in production, None where there is none.
        registry: Where it is.
        run_tags: Identify the MLflow run: asset, month and Dagster run.

    Raises:
        RegistryError: MLflow does not answer.
    """
    if version is None:
        return Appraisal(version=None)
    with registry.runs.open(f"{run_tags['asset']} {trips.edition.subject}", run_tags) as run_id:
        registry.runs.log(run_id, params=_facts(trips) | {"context": "evaluation", "model_version": version})
        return _appraise(trips, version, registry, run_id)


def train_base(
    trips: BaseTrips,
    registry: ModelRegistry,
    settings: Settings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Candidate:
    """Returns the first model: trained from random weights on the training trips of the base years.

    The same trips under the same settings give the version that was registered for them, not a second one.

    Args:
        trips: The base years.
        registry: Where versions are.
        settings: Hyperparameters and seed.
        run_tags: Identify the MLflow run: asset, subject and Dagster run.
        on_epoch: Told of each epoch.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The new version does not predict.
        TrainingError: Training gave no usable network.
        EvaluationError: There are too few trips to judge by.
    """

    def learn() -> _Trained:
        learned = fit_base(trips, settings, on_epoch)
        return _Trained(
            network=learned.network,
            exposure=learned.exposure,
            correction_share=learned.correction_share,
            parent_version=None,
            history=learned.history,
            params={"context": "training"},
            metrics={"training_seconds": learned.seconds},
        )

    sample = trips.preprocessed(settings.city_facts)
    facts = _facts(sample) | {
        "row_count": trips.training_trips + trips.validation_trips,
        "training_set_size": trips.training_trips,
    }
    return _candidate(sample, facts, _fingerprint(sample, settings), learn, registry, settings, run_tags)


def fit_base(trips: BaseTrips, settings: Settings, on_epoch: OnEpoch | None = None) -> Challenger:
    """Returns a network trained from random weights on the training trips of the base years.

    Args:
        trips: The base years.
        settings: Hyperparameters and seed.
        on_epoch: Told of each epoch.

    Raises:
        TrainingError: Training gave no usable network.
    """
    told = None if on_epoch is None else lambda epoch: on_epoch(BASE, epoch)
    network, history, (errors, share) = fit_streamed(trips, settings, on_epoch=told)
    return Challenger(
        name=BASE,
        network=network,
        exposure=trips.exposure,
        errors=errors,
        correction_share=share,
        learned_trips=trips.training_trips - len(errors),
        seconds=history.seconds,
        parent_version=None,
        history=history,
    )


def renew(
    trips: Trips,
    rehearsed: pd.DataFrame | None,
    parent_version: str | None,
    registry: ModelRegistry,
    settings: Settings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Candidate:
    """Returns the best of the month's challengers, registered and scored from its saved weights.

    The same inputs – editions of the trips, parent, settings – give the version that was registered for them, not a
    second one.

    Args:
        trips: Preprocessed trips of the month.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        parent_version: What is in production; None where nothing is.
        registry: Where versions are.
        settings: Hyperparameters, challengers and seed.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        on_epoch: Told of each epoch of each challenger.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The parent cannot be loaded, or the new version does not predict.
        TrainingError: Training gave no usable network.
        EvaluationError: The month has too few trips to be judged by.
    """
    whole_version = None if parent_version is None else registry.newest_whole_month_of(parent_version)

    def learn() -> _Trained:
        parents = {
            version: None if version is None else _to_start_from(version, registry, settings)
            for version in (parent_version, whole_version)
        }
        unfit = [version for version, model in parents.items() if version is not None and model is None]
        lesson = lesson_of(trips, rehearsed, settings)
        chosen, standings = choose(
            challenge(lesson, parents[parent_version], parents[whole_version], settings, on_epoch)
        )
        seconds = {f"challenger_seconds/{standing.name}": standing.seconds for standing in standings}
        errors = {f"challenger_mae/{standing.name}": standing.mae for standing in standings}
        return _Trained(
            network=chosen.network,
            exposure=chosen.exposure,
            correction_share=chosen.correction_share,
            parent_version=chosen.parent_version,
            history=chosen.history,
            params={
                "context": "renewal",
                "challenger": chosen.name,
                "learned_trips": chosen.learned_trips,
            }
            | ({"parents_of_other_features": ", ".join(unfit)} if unfit else {}),
            metrics=seconds | errors,
            version=chosen.version,
            standings=tuple(standings),
        )

    fingerprint = _fingerprint(trips, settings, rehearsed=rehearsed, parents=(parent_version, whole_version))
    candidate = _candidate(trips, _facts(trips), fingerprint, learn, registry, settings, run_tags)
    registry.set_staging(str(candidate.appraisal.version))
    return candidate


def retrain_whole_month(
    trips: Trips,
    rehearsed: pd.DataFrame | None,
    version: str,
    registry: ModelRegistry,
    settings: Settings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> str:
    """Returns a second version of an approved one, trained on with the whole of its month, validation trips included.

    Nobody has judged it: there is no trip of the month left to judge it by. Its exposure says so, and it is one of the
    challengers of the next month. Run again, it is the same version.

    Args:
        trips: Preprocessed trips of the month that the version was trained and judged on.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        version: The approved version.
        registry: Where versions are.
        settings: Hyperparameters and seed.
        run_tags: Identify the MLflow run: job, month and Dagster run.
        on_epoch: Told of each epoch.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The version cannot be loaded.
        TrainingError: Training gave no usable network.
    """
    edition = trips.edition
    whole = trips.without_validation()
    fingerprint = _fingerprint(whole, settings, rehearsed=rehearsed, parents=(version,))
    with registry.runs.open(f"whole month {edition.subject}", run_tags) as run_id:
        if (known := registry.find(fingerprint)) is not None:
            return known.version
        renewed = warm(lesson_of(whole, rehearsed, settings), registry.load(version), settings, on_epoch)
        registry.runs.log(
            run_id,
            params=_facts(whole) | {"context": "whole month", "parent_version": version},
            metrics={"training_seconds": renewed.seconds},
        )
        return registry.register(
            renewed.network,
            settings.city_facts,
            renewed.exposure,
            run_id=run_id,
            fingerprint=fingerprint,
            tags={"revision": edition.revision, "parent_version": version, WHOLE_MONTH_TAG: version},
            correction_share=renewed.correction_share,
        )


def change_since_approval(trips: Trips, appraisal: Appraisal, registry: ModelRegistry, settings: Settings) -> Change:
    """Returns why a version that was scored on a month errs more or less than when it was approved.

    Raises:
        RegistryError: MLflow does not answer.
        EvaluationError: The version was not scored, or is older than what it would be compared with.
    """
    if appraisal.contender is None:
        raise EvaluationError(f"version {appraisal.version} was not scored: {appraisal.fault}")
    tags = registry.describe(appraisal.contender.version).tags
    if BASELINE_TAG not in tags:
        raise EvaluationError(f"version {appraisal.version} has no tag {BASELINE_TAG}: materialize its month again")
    then = Baseline.model_validate_json(tags[BASELINE_TAG])
    now = Baseline(mae=appraisal.contender.scores.mae, difficulty_mae=difficulty_of(trips))
    return explain_change(
        then,
        now,
        appraisal.exposure,
        trips.validation,
        settings.city_facts,
        settings.target_facts.unit,
        settings.staleness_tolerance,
    )


def difficulty_of(trips: Trips) -> float:
    """Returns how hard the validation trips are, see `evaluation.reference_mae`."""
    return reference_mae(trips.training, trips.validation)


def skill_of(trips: Trips, contender: Contender) -> float:
    """Returns the contender's skill on the validation trips, see `evaluation.skill`."""
    return skill(contender.scores.mae, difficulty_of(trips))


def _candidate(
    trips: Trips,
    facts: Mapping[str, object],
    fingerprint: str,
    learn: Callable[[], _Trained],
    registry: ModelRegistry,
    settings: Settings,
    run_tags: Mapping[str, str],
) -> Candidate:
    """Returns what was learned, registered and scored; or the version that was registered for the same inputs."""
    edition = trips.edition
    with registry.runs.open(f"{run_tags['asset']} {edition.subject}", run_tags) as run_id:
        # A month that cannot be judged is an error before it is learned from: no version is left behind.
        difficulty = difficulty_of(trips)
        known, trained = registry.find(fingerprint), None
        if known is None:
            trained = learn()
            version, parent_version = _registered(trained, edition, facts, fingerprint, registry, settings, run_id)
        else:
            version, parent_version = known.version, known.tags.get("parent_version")
            registry.runs.log(run_id, params={**facts, "context": "reuse"})
        registry.runs.log(run_id, params={"model_version": version})
        appraisal = _appraise(trips, version, registry, run_id)
        if appraisal.contender is None:
            raise VersionUnusableError(appraisal.fault)
        baseline = Baseline(mae=appraisal.contender.scores.mae, difficulty_mae=difficulty)
        registry.tag(version, {"skill": f"{baseline.skill:.6f}", BASELINE_TAG: baseline.model_dump_json()})
    if trained is None:
        return Candidate(appraisal, parent_version, None)
    return Candidate(appraisal, parent_version, trained.history, trained.standings)


def _registered(
    trained: _Trained,
    edition: Edition,
    facts: Mapping[str, object],
    fingerprint: str,
    registry: ModelRegistry,
    settings: Settings,
    run_id: str,
) -> tuple[str, str | None]:
    """Returns the version of what was trained, and its parent; logs how it was trained."""
    registry.runs.log(
        run_id,
        params={**facts, **trained.params, "parent_version": trained.parent_version},
        metrics=trained.metrics,
    )
    if (history := trained.history) is not None:
        epochs = history.epochs
        registry.runs.log(
            run_id,
            # What the fit was given: larger networks and renewals do not take the settings as they are.
            params=settings.model_dump(include={"patience", "dense_width_factor", "seed"})
            | {"learning_rate": history.learning_rate, "batch_size": history.batch_size}
            | {"max_epochs": epochs[0].last, "best_epoch": history.best_epoch},
            metrics={
                "epochs_per_second": history.epochs_per_s,
                "trips_per_second": history.trips_per_s,
                "peak_memory_mib": peak_memory_mib(),
            },
        )
        registry.runs.log_curve(run_id, "epoch_loss", [epoch.loss for epoch in epochs if epoch.number])
        registry.runs.log_curve(
            run_id, "epoch_early_stopping_mae", [epoch.validation_mae for epoch in epochs], first_epoch=0
        )
    if trained.version is not None:
        return trained.version, registry.describe(trained.version).tags.get("parent_version")
    version = registry.register(
        trained.network,
        settings.city_facts,
        trained.exposure,
        run_id=run_id,
        fingerprint=fingerprint,
        tags={SUBJECT_TAG: edition.subject, "revision": edition.revision}
        | ({} if trained.parent_version is None else {"parent_version": trained.parent_version}),
        correction_share=trained.correction_share,
    )
    return version, trained.parent_version


def _to_start_from(version: str, registry: ModelRegistry, settings: Settings) -> LoadedModel | None:
    """Returns the version to start from; None, with a warning, where it takes other features.

    Weights mean nothing to other features: after a change of the features, training starts anew.
    """
    model, features = registry.load(version), feature_names(settings.city_facts)
    if model.features == features:
        return model
    _log.warning(
        "version %s takes other features than today's (%s): no challenger starts from its weights",
        version,
        ", ".join(sorted(set(model.features) ^ set(features))) or "the same in another order",
    )
    return None


def _appraise(trips: Trips, version: str, registry: ModelRegistry, run_id: str) -> Appraisal:
    """Returns the scores of the registered version on the validation trips; its predictions stay with the run."""
    validation = trips.validation
    try:
        model = registry.load(version)
        predicted, raised = model.predict(validation), model.predict(validation, corrected=True)
    except VersionUnusableError as error:
        return Appraisal(version=version, fault=str(error))
    contender = contend(version, run_id, predicted, raised, validation["target"].to_numpy(np.float64))
    scores, corrected = contender.scores, contender.corrected
    registry.runs.log_predictions(run_id, pd.Series(predicted, index=validation["key"]))
    registry.runs.log(
        run_id,
        metrics={"mae": scores.mae, "rmse": scores.rmse, "bias": scores.bias}
        | {
            "corrected_mae": corrected.mae,
            "corrected_rmse": corrected.rmse,
            "corrected_bias": corrected.bias,
        },
    )
    return Appraisal(version=version, contender=contender, exposure=model.exposure)


def _fingerprint(
    trips: Trips,
    settings: Settings,
    *,
    rehearsed: pd.DataFrame | None = None,
    parents: Sequence[str | None] = (),
) -> str:
    """Returns a hash of everything a training's result depends on."""
    edition = trips.edition
    inputs = {
        "subject": edition.subject,
        "revision": edition.revision,
        "trips": len(trips.frame),
        "validation_trips": len(trips.validation),
        "rehearsed_trips": 0 if rehearsed is None else len(rehearsed),
        "rehearsed": [] if rehearsed is None else [entry.model_dump(mode="json") for entry in exposure_of(rehearsed)],
        "parents": parents,
        "features": feature_names(settings.city_facts),
        "architectures": str(architectures_of(settings)),
        "settings": settings.model_dump(
            mode="json",
            include={*_HYPERPARAMETERS, "target", "validation_share", "dataset_size", "rehearsal_trips", "challengers"},
        ),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _facts(trips: Trips) -> dict[str, object]:
    """Returns the params of the trips that every run of a month logs, by the course's names."""
    return {
        "row_count": len(trips.frame),
        "training_set_size": len(trips.training),
        "val_set_size": len(trips.validation),
        "dataset_timestamp": str(trips.frame["pickup_datetime"].max()),
        "dataset_revision": trips.edition.revision,
    }
