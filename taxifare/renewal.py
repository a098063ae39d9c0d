"""The two pieces of work a month asks of models: score production, and train the staging model that may replace it.

Both run inside an MLflow run of their own and leave their per-trip predictions there, so that `evaluation.judge` can
pair the two models trip by trip.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxifare.cities import City
from taxifare.cleaning import Cleaned, clean
from taxifare.evaluation import Appraisal, Contender, Exposure, reference_mae_usd, score, skill
from taxifare.features import compute_features, feature_names
from taxifare.network import build_network
from taxifare.registry import SUBJECT_TAG, LoadedModel, ModelRegistry, VersionUnusableError
from taxifare.settings import Settings
from taxifare.splitting import split_by_time
from taxifare.training import Epoch, TrainingHistory, fit
from taxifare.trips import edition_of

if TYPE_CHECKING:
    import keras

BASE = "base"
"""Subject of the years before the first month."""

BASE_VALIDATION_SHARE = 0.05
"""Of six years, the last months are enough to validate on; the rest is better used for training."""

EARLY_STOPPING_SHARE = 0.1
"""Share of the training trips, drawn at random, that decides when to stop: validation trips must not be asked twice."""

RENEWAL_LEARNING_RATE_FACTOR = 0.1
"""A month is a fraction of what production has learned from: small steps refine it, full ones forget."""

_HYPERPARAMETERS = ("learning_rate", "batch_size", "patience", "max_epochs", "seed")


@dataclass(frozen=True)
class Preprocessed:
    """Trips ready to learn from: clean, with their features and `is_validation`, and what cleaning dropped by rule."""

    trips: pd.DataFrame
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Candidate:
    """A trained and scored version.

    Attributes:
        appraisal: Its scores on the validation trips, from its saved weights.
        parent_version: The version whose weights it started from, None where it started from none.
        history: How training went, None where a version of the same inputs existed and was taken.
    """

    appraisal: Appraisal
    parent_version: str | None
    history: TrainingHistory | None


def preprocess(trips: pd.DataFrame, city: City) -> Preprocessed:
    """Returns the clean trips with features, one row a trip, and the number of trips dropped by each rule.

    Args:
        trips: A stamped trip table with `is_validation`.
        city: Gives the rules and the geometry.
    """
    cleaned: Cleaned = clean(trips, city)
    kept = cleaned.trips.reset_index(drop=True)
    processed = pd.concat([kept, compute_features(kept, city)], axis=1)
    return Preprocessed(edition_of(trips).stamp(processed), cleaned.dropped)


def sample_base(trips: pd.DataFrame, dataset_size: int | None, seed: int) -> pd.DataFrame:
    """Returns at most `dataset_size` trips drawn at random, in their order, with `is_validation`; None takes all.

    >>> from taxifare.trips import Edition
    >>> days = pd.DataFrame({"pickup_datetime": pd.date_range("2009-01-01", periods=100)})
    >>> sample_base(Edition("base", "x").stamp(days), 20, seed=1)["is_validation"].sum()
    np.int64(1)
    """
    edition = edition_of(trips)
    if dataset_size is not None and dataset_size < len(trips):
        chosen = np.random.default_rng(seed).choice(len(trips), dataset_size, replace=False, shuffle=False)
        trips = trips.iloc[np.sort(chosen)].reset_index(drop=True)
    return edition.stamp(trips.assign(is_validation=split_by_time(trips, BASE_VALIDATION_SHARE)))


def appraise_production(
    trips: pd.DataFrame, version: str | None, registry: ModelRegistry, *, run_tags: Mapping[str, str]
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
    with registry.run(f"{run_tags['asset']} {edition_of(trips).subject}", run_tags) as run_id:
        registry.log(run_id, params=_context_params(trips, "evaluation") | {"model_version": version})
        return _appraise(trips, version, registry, run_id)


def train_candidate(
    trips: pd.DataFrame,
    parent_version: str | None,
    registry: ModelRegistry,
    settings: Settings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Candidate:
    """Returns a version trained on the training trips and scored on the validation trips, from its saved weights.

    Training starts from the parent's weights and optimizer, or from nothing. When stopping is decided on a tenth of the
    training trips, so that the validation trips are seen once, by the finished model. The same inputs – edition of the
    trips, parent, settings – give the version that was registered for them, not a second one.

    Args:
        trips: Preprocessed trips.
        parent_version: Where to start from; None starts from random weights.
        registry: Where versions are.
        settings: Hyperparameters and seed.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        on_epoch: Told of each epoch.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The parent cannot be loaded, or the new version does not predict.
        TrainingError: Training gave no usable network.
    """
    edition, city = edition_of(trips), settings.city_facts
    fingerprint = _fingerprint(trips, parent_version, settings)
    with registry.run(f"{run_tags['asset']} {edition.subject}", run_tags) as run_id:
        known = registry.find(fingerprint)
        history: TrainingHistory | None = None
        if known is None:
            parent = None if parent_version is None else registry.load(parent_version)
            if parent is not None and parent.features != feature_names(city):
                # Weights mean nothing to other features: after a change of the features, training starts anew.
                parent, parent_version = None, None
            learning_rate = settings.learning_rate * (1.0 if parent is None else RENEWAL_LEARNING_RATE_FACTOR)
            network, history = _train(trips, parent, settings, learning_rate, on_epoch)
            exposure = (() if parent is None else parent.exposure) + (_exposure(trips),)
            registry.log(
                run_id,
                params=_context_params(trips, "training" if parent is None else "renewal")
                | settings.model_dump(include=set(_HYPERPARAMETERS))
                | {"learning_rate": learning_rate, "parent_version": parent_version, "best_epoch": history.best_epoch},
                metrics={"training_seconds": history.seconds},
            )
            registry.log_curve(run_id, "epoch_loss", [epoch.loss for epoch in history.epochs if epoch.number])
            errors_usd = [epoch.validation_mae for epoch in history.epochs]
            registry.log_curve(run_id, "epoch_early_stopping_mae", errors_usd, first_epoch=0)
            version = registry.register(
                network,
                city,
                exposure,
                run_id=run_id,
                fingerprint=fingerprint,
                tags={SUBJECT_TAG: edition.subject, "revision": edition.revision}
                | ({} if parent_version is None else {"parent_version": parent_version}),
            )
        else:
            version, parent_version = known.version, known.tags.get("parent_version")
            registry.log(run_id, params=_context_params(trips, "reuse"))
        registry.log(run_id, params={"model_version": version})
        registry.set_staging(version)
        appraisal = _appraise(trips, version, registry, run_id)
        if appraisal.contender is None:
            raise VersionUnusableError(appraisal.fault)
        registry.tag(version, {"skill": f"{skill_of(trips, appraisal.contender):.6f}"})
    return Candidate(appraisal, parent_version, history)


def difficulty_of(trips: pd.DataFrame) -> float:
    """Returns how hard the validation trips are, USD, see `evaluation.reference_mae_usd`."""
    return reference_mae_usd(trips[~trips["is_validation"]], trips[trips["is_validation"]])


def skill_of(trips: pd.DataFrame, contender: Contender) -> float:
    """Returns the contender's skill on the validation trips, see `evaluation.skill`."""
    return skill(contender.scores.mae_usd, difficulty_of(trips))


def _train(
    trips: pd.DataFrame,
    parent: LoadedModel | None,
    settings: Settings,
    learning_rate: float,
    on_epoch: Callable[[Epoch], None] | None,
) -> tuple["keras.Model", TrainingHistory]:
    """Returns a network fitted to the training trips, and how it went."""
    names = feature_names(settings.city_facts)
    training = trips[~trips["is_validation"]]
    features = training[list(names)].to_numpy(np.float32)
    fares_usd = training["fare_amount"].to_numpy(np.float32)
    stops = np.random.default_rng(settings.seed).random(len(training)) < EARLY_STOPPING_SHARE
    if parent is None:
        network = build_network(
            features[~stops], fares_usd[~stops], names, learning_rate=learning_rate, seed=settings.seed
        )
    else:
        network = parent.network
    history = fit(
        network,
        features[~stops],
        fares_usd[~stops],
        features[stops],
        fares_usd[stops],
        learning_rate=learning_rate,
        batch_size=settings.batch_size,
        patience=settings.patience,
        max_epochs=settings.max_epochs,
        seed=settings.seed,
        on_epoch=on_epoch,
    )
    return network, history


def _appraise(trips: pd.DataFrame, version: str, registry: ModelRegistry, run_id: str) -> Appraisal:
    """Returns the scores of the registered version on the validation trips; its predictions stay with the run."""
    validation = trips[trips["is_validation"]]
    try:
        model = registry.load(version)
        predicted_usd = model.predict(validation)
    except VersionUnusableError as error:
        return Appraisal(version=version, fault=str(error))
    scores = score(predicted_usd, validation["fare_amount"].to_numpy(np.float64))
    registry.log_predictions(run_id, pd.Series(predicted_usd, index=validation["key"]))
    registry.log(run_id, metrics={"mae": scores.mae_usd, "rmse": scores.rmse_usd, "bias": scores.bias_usd})
    contender = Contender(version=version, run_id=run_id, scores=scores)
    return Appraisal(version=version, contender=contender, exposure=model.exposure)


def _exposure(trips: pd.DataFrame) -> Exposure:
    """Returns what a model has seen that was trained on these trips; deciding when to stop is seeing, too."""
    edition = edition_of(trips)
    pickups = trips.loc[~trips["is_validation"], "pickup_datetime"]
    return Exposure(
        subject=edition.subject, revision=edition.revision, first_pickup=pickups.min(), last_pickup=pickups.max()
    )


def _fingerprint(trips: pd.DataFrame, parent_version: str | None, settings: Settings) -> str:
    """Returns a hash of everything a training's result depends on."""
    edition = edition_of(trips)
    inputs = {
        "subject": edition.subject,
        "revision": edition.revision,
        "trips": len(trips),
        "parent_version": parent_version,
        "features": feature_names(settings.city_facts),
        "settings": settings.model_dump(
            mode="json",
            include={
                "validation_share",
                "learning_rate",
                "batch_size",
                "patience",
                "max_epochs",
                "seed",
                "dataset_size",
            },
        ),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _context_params(trips: pd.DataFrame, context: str) -> dict[str, object]:
    """Returns the params that every run of a month logs, by the course's names."""
    return {
        "context": context,
        "row_count": len(trips),
        "training_set_size": int((~trips["is_validation"]).sum()),
        "val_set_size": int(trips["is_validation"].sum()),
        "dataset_timestamp": str(trips["pickup_datetime"].max()),
        "dataset_revision": edition_of(trips).revision,
    }
