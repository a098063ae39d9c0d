"""A fit from random weights under given settings: the base model, a trial of tuning, a point of the learning curve.

Why training trips decide when to stop: docs/decisions.md, under training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.model.correction import correction_share
from taxifare.model.fitting import (
    Epoch,
    InMemory,
    Matrix,
    Part,
    TrainingHistory,
    TrainingRows,
    Vector,
    fit,
    predict,
    quote,
)
from taxifare.model.network import ARCHITECTURES, Architecture, build_network
from taxifare.settings import TrainingSettings
from taxifare.training.base_trips import SAMPLE_TRIPS, BaseTrips
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.preparation import with_features

if TYPE_CHECKING:
    import keras

EARLY_STOPPING_SHARE = 0.1
"""Share of the training trips, drawn at random, that decides when to stop: validation trips must not be asked twice."""

EARLY_STOPPING_TRIPS = 50_000
"""Most base trips that decide when to stop: they tell errors of two cents apart."""


def architectures_of(settings: TrainingSettings) -> dict[int, Architecture]:
    """Returns the shapes of new networks by the least number of training trips, with the settings that override them.

    >>> [shape.batch_size for shape in architectures_of(TrainingSettings()).values()]
    [512, 2048, 2048]
    >>> [shape.batch_size for shape in architectures_of(TrainingSettings(batch_size=256)).values()]
    [256, 256, 256]
    """
    return {
        least: replace(
            usual,
            dense_widths=tuple(max(1, round(width * settings.dense_width_factor)) for width in usual.dense_widths),
            learning_rate=settings.learning_rate or usual.learning_rate,
            batch_size=settings.batch_size or usual.batch_size,
            epochs=settings.max_epochs or usual.epochs,
        )
        for least, usual in ARCHITECTURES.items()
    }


def architecture_of(settings: TrainingSettings, trips: int) -> Architecture:
    """Returns the shape of a new network for so many training trips.

    >>> architecture_of(TrainingSettings(dense_width_factor=0.5), 1_000_000).dense_widths
    (128, 64)
    """
    shapes = architectures_of(settings)
    return shapes[max(least for least in shapes if least <= trips)]


def fit_from_scratch(
    trips: pd.DataFrame,
    settings: TrainingSettings,
    *,
    stops: npt.NDArray[np.bool_] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> tuple["keras.Model", TrainingHistory]:
    """Returns a network fitted to the trips from random weights, and how it went.

    Args:
        trips: Clean trips with features, n of them.
        settings: Hyperparameters and seed.
        stops: Which trips decide when to stop and are not trained on, shape (n,); None draws a tenth at random.
        on_epoch: Told of each epoch; what it raises ends the fit.

    Raises:
        TrainingError: Training gave no usable network.
    """
    features, targets = arrays_of(trips, settings)
    draws = np.random.default_rng(settings.seed)
    if stops is None:
        stops = _drawn_stops(len(trips), draws)
    learned = np.flatnonzero(~stops)
    sample = learned if len(learned) <= SAMPLE_TRIPS else draws.choice(learned, SAMPLE_TRIPS, replace=False)
    return fit_rows(
        InMemory(features, targets, ~stops),
        (features[sample], targets[sample]),
        (features[stops], targets[stops]),
        settings,
        on_epoch,
    )


def architecture_of_fit(settings: TrainingSettings, trips: int) -> Architecture:
    """Returns the shape that `fit_from_scratch` gives a network for so many trips: some of them decide when to stop."""
    stops = _drawn_stops(trips, np.random.default_rng(settings.seed))
    return architecture_of(settings, int((~stops).sum()))


def _drawn_stops(trips: int, draws: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Returns which trips decide when to stop, drawn at random."""
    return draws.random(trips) < EARLY_STOPPING_SHARE


def fit_streamed(
    trips: BaseTrips, settings: TrainingSettings, on_epoch: Callable[[Epoch], None] | None = None
) -> tuple["keras.Model", TrainingHistory, tuple[Vector, float]]:
    """Returns a network fitted to the training trips from random weights, how it went, and its `held_errors`.

    The trips stream from their file; in memory are a sample, for the scales and the map, and the held-out trips, which
    decide when to stop: a tenth, at most 50,000.

    Args:
        trips: The base years.
        settings: Hyperparameters and seed.
        on_epoch: Told of each epoch.

    Raises:
        TrainingError: Training gave no usable network.
    """
    held = min(math.ceil(trips.training_trips * EARLY_STOPPING_SHARE), EARLY_STOPPING_TRIPS)
    first = trips.first_training(held + SAMPLE_TRIPS)
    features, targets = arrays_of(with_features(first, settings.city_facts), settings)
    network, history = fit_rows(
        _Streamed(trips, held, settings),
        (features[held:], targets[held:]),
        (features[:held], targets[:held]),
        settings,
        on_epoch,
    )
    return network, history, held_errors(network, features[:held], targets[:held])


def held_errors(network: "keras.Model", features: Matrix, targets: Vector) -> tuple[Vector, float]:
    """Returns predicted minus actual (n,) on trips that were not trained on, and the correction that they allow."""
    predicted, upper = quote(network, features).T
    errors = predicted - targets
    return errors, correction_share(errors, upper - predicted)


class _Streamed(TrainingRows):
    """Training trips of the base years but the first ones, with features when they are asked for."""

    def __init__(self, trips: BaseTrips, held: int, settings: TrainingSettings) -> None:
        before = np.cumsum([0, *trips.training_counts[:-1]])
        self._trips, self._settings = trips, settings
        self._held = np.clip(held - before, 0, trips.training_counts)

    @property
    def counts(self) -> Sequence[int]:
        """How many trips of each part are trained on."""
        return [int(count) for count in self._trips.training_counts - self._held]

    def part(self, number: int) -> Part:
        """Returns a part."""
        trips = self._trips.training_part(number)
        features = compute_features(trips, self._settings.city_facts)
        rows = np.arange(self._held[number], len(trips))
        return features.to_numpy(np.float32), trips["target"].to_numpy(np.float32), rows


def fit_rows(
    training: TrainingRows,
    sample: tuple[Matrix, Vector],
    stops: tuple[Matrix, Vector],
    settings: TrainingSettings,
    on_epoch: Callable[[Epoch], None] | None = None,
    *,
    architecture: Architecture | None = None,
) -> tuple["keras.Model", TrainingHistory]:
    """Returns a network fitted to the rows from random weights, and how it went.

    Args:
        training: The rows to learn from.
        sample: Features (m, k) and targets (m,) that scales and map are taken from.
        stops: Features and targets of the rows that decide when to stop.
        settings: Hyperparameters and seed.
        on_epoch: Told of each epoch.
        architecture: Shape of the network; None is that for the number of rows.

    Raises:
        TrainingError: Training gave no usable network.
    """
    architecture = architecture or architecture_of(settings, sum(training.counts))
    network = build_network(
        *sample,
        settings.city_facts,
        learning_rate=architecture.learning_rate,
        seed=settings.seed,
        architecture=architecture,
    )
    history = fit(
        network,
        training,
        *stops,
        learning_rate=architecture.learning_rate,
        batch_size=architecture.batch_size,
        patience=settings.patience,
        max_epochs=architecture.epochs,
        seed=settings.seed,
        on_epoch=on_epoch,
    )
    return network, history


def predict_trips(network: "keras.Model", trips: pd.DataFrame, settings: TrainingSettings) -> npt.NDArray[np.float64]:
    """Returns what the network predicts for trips with features, shape (n,)."""
    return predict(network, arrays_of(trips, settings)[0]).astype(np.float64)


def arrays_of(trips: pd.DataFrame, settings: TrainingSettings) -> tuple[Matrix, Vector]:
    """Returns features (n, k) and targets (n,)."""
    names = feature_names(settings.city_facts)
    features = np.empty((len(trips), len(names)), dtype=np.float32)
    # Column by column, row by row in memory: whoever fits needs them so, and there is one copy of them.
    for column, name in enumerate(names):
        features[:, column] = trips[name].to_numpy(np.float32)
    return features, trips["target"].to_numpy(np.float32)
