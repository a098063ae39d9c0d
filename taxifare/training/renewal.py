"""Training the models that are registered: the first one, the staging model of a month, and an approved one's second.

Each has an MLflow run of its own. How a registered version is scored is said in `appraisal`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from taxifare.gate.evidence import Appraisal
from taxifare.gate.scores import difficulty_of
from taxifare.gate.staleness import Baseline
from taxifare.model.exposure import exposure_of
from taxifare.model.fitting import TrainingHistory, peak_memory_mib
from taxifare.model.packaging import LoadedModel, VersionUnusableError
from taxifare.model.registry import SUBJECT_TAG, WHOLE_MONTH_TAG, ModelRegistry, RegisteredVersion
from taxifare.settings import Settings, TrainingSettings
from taxifare.training.appraisal import BASELINE_TAG, appraise, facts_of
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Challenger, OnEpoch, Standing, challenge, choose, lesson_of, warm
from taxifare.training.earlier_fingerprints import fingerprint_at_431839f
from taxifare.training.from_random_weights import fit_streamed
from taxifare.training.recipe import fingerprint
from taxifare.trips.editions import BASE, Edition, Trips
from taxifare.trips.features import feature_names

_log = logging.getLogger(__name__)


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
    """What came of a training, and what its MLflow run says of it."""

    challenger: Challenger
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    standings: tuple[Standing, ...] = ()


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
        return _Trained(learned, params={"context": "training"}, metrics={"training_seconds": learned.seconds})

    sample = trips.preprocessed(settings.city_facts)
    facts = facts_of(sample) | {
        "row_count": trips.training_trips + trips.validation_trips,
        "training_set_size": trips.training_trips,
    }
    return _candidate(sample, facts, training_inputs(sample), learn, registry, settings, run_tags)


def fit_base(trips: BaseTrips, settings: TrainingSettings, on_epoch: OnEpoch | None = None) -> Challenger:
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
            chosen,
            params={
                "context": "renewal",
                "challenger": chosen.name,
                "learned_trips": chosen.learned_trips,
            }
            | ({"parents_of_other_features": ", ".join(unfit)} if unfit else {}),
            metrics=seconds | errors,
            standings=tuple(standings),
        )

    inputs = training_inputs(trips, rehearsed=rehearsed, parents=(parent_version, whole_version))
    candidate = _candidate(trips, facts_of(trips), inputs, learn, registry, settings, run_tags)
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
    inputs = training_inputs(whole, rehearsed=rehearsed, parents=(version,))
    with registry.runs.open(f"whole month {edition.subject}", run_tags) as run_id:
        if (known := known_version(inputs, registry, settings)) is not None:
            return known.version
        renewed = warm(lesson_of(whole, rehearsed, settings), registry.load(version), settings, on_epoch)
        registry.runs.log(
            run_id,
            params=facts_of(whole) | {"context": "whole month", "parent_version": version},
            metrics={"training_seconds": renewed.seconds},
        )
        return registry.register(
            renewed.network,
            settings.city_facts,
            renewed.exposure,
            run_id=run_id,
            fingerprint=fingerprint(settings, **inputs),
            tags={"revision": edition.revision, "parent_version": version, WHOLE_MONTH_TAG: version},
            correction_share=renewed.correction_share,
        )


def _candidate(
    trips: Trips,
    facts: Mapping[str, object],
    inputs: Mapping[str, object],
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
        known, trained = known_version(inputs, registry, settings), None
        if known is None:
            trained = learn()
            version, parent_version = _registered(trained, edition, facts, inputs, registry, settings, run_id)
        else:
            version, parent_version = known.version, known.tags.get("parent_version")
            registry.runs.log(run_id, params={**facts, "context": "reuse"})
        registry.runs.log(run_id, params={"model_version": version})
        appraisal = appraise(trips, version, registry, run_id)
        if appraisal.contender is None:
            raise VersionUnusableError(appraisal.fault)
        baseline = Baseline(mae=appraisal.contender.scores.mae, difficulty_mae=difficulty)
        registry.tag(version, {"skill": f"{baseline.skill:.6f}", BASELINE_TAG: baseline.model_dump_json()})
    if trained is None:
        return Candidate(appraisal, parent_version, None)
    return Candidate(appraisal, parent_version, trained.challenger.history, trained.standings)


def _registered(
    trained: _Trained,
    edition: Edition,
    facts: Mapping[str, object],
    inputs: Mapping[str, object],
    registry: ModelRegistry,
    settings: Settings,
    run_id: str,
) -> tuple[str, str | None]:
    """Returns the version of what was trained, and its parent; logs how it was trained."""
    challenger = trained.challenger
    registry.runs.log(
        run_id,
        params={**facts, **trained.params, "parent_version": challenger.parent_version},
        metrics=trained.metrics,
    )
    if (history := challenger.history) is not None:
        epochs = history.epochs
        registry.runs.log(
            run_id,
            # What the fit was given: by the settings, the shape or the renewal.
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
    if challenger.version is not None:
        return challenger.version, registry.describe(challenger.version).tags.get("parent_version")
    version = registry.register(
        challenger.network,
        settings.city_facts,
        challenger.exposure,
        run_id=run_id,
        fingerprint=fingerprint(settings, **inputs),
        tags={SUBJECT_TAG: edition.subject, "revision": edition.revision}
        | ({} if challenger.parent_version is None else {"parent_version": challenger.parent_version}),
        correction_share=challenger.correction_share,
    )
    return version, challenger.parent_version


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


def known_version(
    inputs: Mapping[str, object], registry: ModelRegistry, settings: TrainingSettings
) -> RegisteredVersion | None:
    """Returns the version that a training of the inputs has given before, None where there is none."""
    earlier = fingerprint_at_431839f(settings, inputs)
    found = registry.find(fingerprint(settings, **inputs))
    return found if found is not None or earlier is None else registry.find(earlier)


def training_inputs(
    trips: Trips, *, rehearsed: pd.DataFrame | None = None, parents: Sequence[str | None] = ()
) -> dict[str, object]:
    """Returns what a training learns from and starts from, as plain values; what else it depends on is its recipe."""
    return {
        "subject": trips.edition.subject,
        "revision": trips.edition.revision,
        "trips": len(trips.frame),
        "validation_trips": len(trips.validation),
        "rehearsed_trips": 0 if rehearsed is None else len(rehearsed),
        "rehearsed": [] if rehearsed is None else [entry.model_dump(mode="json") for entry in exposure_of(rehearsed)],
        "parents": parents,
    }
