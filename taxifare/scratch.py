"""A fit from random weights under given settings: what a trial of tuning and a point of the learning curve is."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.features import feature_names
from taxifare.network import Architecture, build_network
from taxifare.settings import Settings
from taxifare.training import Epoch, TrainingHistory, fit, predict

if TYPE_CHECKING:
    import keras


EARLY_STOPPING_SHARE = 0.1
"""Share of the training trips, drawn at random, that decides when to stop: validation trips must not be asked twice."""


def architecture_of(settings: Settings) -> Architecture:
    """Returns the shape of a new network: the usual one with its dense layers `dense_width_factor` times as wide.

    >>> architecture_of(Settings(_env_file=None, dense_width_factor=0.5)).dense_widths
    (64, 32)
    """
    usual = Architecture()
    widths = tuple(max(1, round(width * settings.dense_width_factor)) for width in usual.dense_widths)
    return replace(usual, dense_widths=widths)


def fit_from_scratch(
    trips: pd.DataFrame,
    settings: Settings,
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
    names = feature_names(settings.city_facts)
    features, fares_usd = trips[list(names)].to_numpy(np.float32), trips["fare_amount"].to_numpy(np.float32)
    if stops is None:
        stops = np.random.default_rng(settings.seed).random(len(trips)) < EARLY_STOPPING_SHARE
    network = build_network(
        features[~stops],
        fares_usd[~stops],
        settings.city_facts,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        architecture=architecture_of(settings),
    )
    history = fit(
        network,
        features[~stops],
        fares_usd[~stops],
        features[stops],
        fares_usd[stops],
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        patience=settings.patience,
        max_epochs=settings.max_epochs,
        seed=settings.seed,
        on_epoch=on_epoch,
    )
    return network, history


def predict_trips(network: "keras.Model", trips: pd.DataFrame, settings: Settings) -> npt.NDArray[np.float64]:
    """Returns the fares in USD that the network predicts for trips with features, shape (n,)."""
    return predict(network, trips[list(feature_names(settings.city_facts))].to_numpy(np.float32)).astype(np.float64)
