"""A trial: settings that a search tries, fitted to the earlier training trips and scored on those held back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.scores import EvaluationError, score
from taxifare.model.fitting import Epoch, TrainingError, TrainingHistory
from taxifare.model.quiet import load_tensorflow
from taxifare.model.registry import ModelRegistry
from taxifare.settings import MonthSettings, TrainingSettings
from taxifare.studies.results import SettingValues, TuningError
from taxifare.studies.storage import AT_RANDOM, FAULT, QUARTERS, RUN, number_of
from taxifare.training.from_random_weights import architecture_of_fit, fit_from_scratch, predict_trips
from taxifare.trips.editions import Trips
from taxifare.trips.splitting import split_by_time

if TYPE_CHECKING:
    import optuna

HELD_SHARE = 0.1
"""Share of the training trips, the latest, that trials are judged by."""


@dataclass(frozen=True)
class TrialTrips:
    """Trips to learn from, the later ones held back, and which of those choose the winner, shape (n,)."""

    learned: pd.DataFrame
    held: pd.DataFrame
    is_choosing: npt.NDArray[np.bool_]

    @property
    def targets(self) -> npt.NDArray[np.float64]:
        """What the predictions of the held-out trips should be, shape (n,)."""
        return self.held["target"].to_numpy(np.float64)


@dataclass(frozen=True)
class FittedTrial:
    """What the fit of a trial came to: how it went, and what it predicts of the held-out trips, shape (n,)."""

    history: TrainingHistory
    predicted: npt.NDArray[np.float64]


OnEpoch: TypeAlias = Callable[[Epoch], None]
"""Told of each epoch of a fit, which it may end by raising."""

Fit: TypeAlias = Callable[[SettingValues, OnEpoch], FittedTrial]
"""Returns what the fit with such settings comes to."""


def hold_back(trips: Trips, settings: MonthSettings) -> TrialTrips:
    """Returns the training trips, divided into those to learn from and those held back.

    Raises:
        TuningError: There are too few.
    """
    training = trips.training
    if len(training) < settings.minimum_trips:
        raise TuningError(f"expected at least {settings.minimum_trips} training trips, received {len(training)}")
    is_held = split_by_time(training, HELD_SHARE)
    held = training[is_held]
    return TrialTrips(training[~is_held], held, np.arange(len(held)) % 2 == 0)


def searched_settings(settings: TrainingSettings) -> Mapping[str, int | float | None]:
    """Returns the settings that a search varies, None where the network's shape decides.

    >>> searched_settings(TrainingSettings(batch_size=256))
    {'learning_rate': None, 'batch_size': 256, 'patience': 2, 'max_epochs': None, 'dense_width_factor': 1.0}
    """
    names = ("learning_rate", "batch_size", "patience", "max_epochs", "dense_width_factor")
    return {name: getattr(settings, name) for name in names}


def values_for(settings: TrainingSettings, trips: int) -> SettingValues:
    """Returns what the searched settings come to in a fit to so many trips: where the shape decides, its own.

    >>> values_for(TrainingSettings(patience=3), 1_000)
    {'learning_rate': 0.01, 'batch_size': 512, 'patience': 3, 'max_epochs': 4, 'dense_width_factor': 1.0}
    """
    shape = architecture_of_fit(settings, trips)
    of_shape = {"learning_rate": shape.learning_rate, "batch_size": shape.batch_size, "max_epochs": shape.epochs}
    return {name: value or of_shape[name] for name, value in searched_settings(settings).items()}


def first_settings(settings: TrainingSettings, trips: int) -> list[SettingValues]:
    """Returns what the first trials of a search try, which are fits to so many trips: the present settings first.

    The others are drawn at random. So none of them follows from how another ends, and their fits may be shared.
    """
    import optuna

    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=settings.seed))
    at_random = [_suggest(drawn.ask(), settings, trips) for _ in range(AT_RANDOM - 1)]
    return [values_for(settings, trips), *at_random]


def fit_trial(trips: TrialTrips, settings: TrainingSettings, values: SettingValues, on_epoch: OnEpoch) -> FittedTrial:
    """Returns what the fit of a trial comes to, which tries these values of the settings.

    Raises:
        TrainingError: It gave no usable network.
    """
    load_tensorflow()
    import keras

    own = settings.model_copy(update=dict(values))
    try:
        network, history = fit_from_scratch(trips.learned, own, on_epoch=on_epoch)
        return FittedTrial(history, predict_trips(network, trips.held, own))
    finally:
        # Keras keeps something of every network it has built.
        keras.utils.clear_session()


def fit_ahead(
    trips: TrialTrips, settings: TrainingSettings, values: SettingValues
) -> tuple[list[Epoch], FittedTrial | TrainingError]:
    """Returns the epochs of such a fit and what it comes to, for a trial that is begun later."""
    epochs: list[Epoch] = []
    try:
        return epochs, fit_trial(trips, settings, values, epochs.append)
    except TrainingError as error:
        return epochs, error


def run_trial(
    study: "optuna.Study", trips: TrialTrips, registry: ModelRegistry, settings: TrainingSettings, fit: Fit
) -> None:
    """Runs the next trial in an MLflow run of its own, and tells the study how it ended.

    One that gives no usable network is a failed trial.

    Args:
        study: Whose trial.
        trips: What it is a fit to.
        registry: Where it is logged.
        settings: Give what is not searched.
        fit: Does it.
    """
    import optuna

    def objective(trial: optuna.Trial) -> float:
        values, number = _suggest(trial, settings, len(trips.learned)), number_of(trial)
        tags = {"asset": "tuning_trial", "study": study.study_name, "trial": str(number)}
        try:
            with registry.runs.open(f"trial {number}", tags) as run_id:
                trial.set_user_attr(RUN, run_id)
                fixed = {"seed": settings.seed, "training_set_size": len(trips.learned)}
                registry.runs.log(run_id, params={**values, **fixed})
                mae = _fit_and_score(trial, run_id, trips, registry, partial(fit, values))
        except (TrainingError, EvaluationError) as error:
            trial.set_user_attr(FAULT, str(error))
            raise
        if mae is None:
            raise optuna.TrialPruned
        return mae

    study.optimize(objective, n_trials=1, catch=(TrainingError, EvaluationError))


def _suggest(trial: "optuna.Trial", settings: TrainingSettings, trips: int) -> SettingValues:
    """Returns the settings of a trial, which is a fit to so many trips.

    The ranges are around what the network's shape has of its own, widened to take in the present settings.
    """
    no_overrides = {"learning_rate": None, "batch_size": None, "max_epochs": None}
    of_shape = values_for(settings.model_copy(update=no_overrides), trips)
    present = values_for(settings, trips)

    def values(name: str, *usual: float) -> list[float]:
        return sorted({*usual, present[name]})

    def edges(name: str, *usual: float) -> tuple[float, float]:
        return values(name, *usual)[0], values(name, *usual)[-1]

    rate, batch_size, epochs = of_shape["learning_rate"], int(of_shape["batch_size"]), int(of_shape["max_epochs"])
    lowest_epochs, most_epochs = map(int, edges("max_epochs", epochs // 2, 3 * epochs))
    least_patience, most_patience = map(int, edges("patience", 1, 4))
    batch_sizes = (batch_size // 4, batch_size // 2, batch_size, 2 * batch_size, 4 * batch_size)
    return {
        "learning_rate": trial.suggest_float("learning_rate", *edges("learning_rate", rate / 20, 2 * rate), log=True),
        "batch_size": int(trial.suggest_categorical("batch_size", values("batch_size", *batch_sizes))),
        "patience": trial.suggest_int("patience", least_patience, most_patience),
        "max_epochs": trial.suggest_int("max_epochs", lowest_epochs, most_epochs),
        "dense_width_factor": float(
            trial.suggest_categorical("dense_width_factor", values("dense_width_factor", 0.5, 1.0, 2.0))
        ),
    }


def _fit_and_score(
    trial: "optuna.Trial",
    run_id: str,
    trips: TrialTrips,
    registry: ModelRegistry,
    fit: Callable[[OnEpoch], FittedTrial],
) -> float | None:
    """Returns the trial's error on the held-out trips that choose, None where it was given up; logs how it went."""
    import optuna

    epochs: list[Epoch] = []

    def watch(epoch: Epoch) -> None:
        before = QUARTERS * (epoch.number - 1) // epoch.last
        quarter = QUARTERS * epoch.number // epoch.last
        epochs.append(epoch)
        if epoch.number and quarter > before:
            trial.report(epoch.validation_mae, quarter)
            # The evidence needs the present settings' error, and at the end nothing is saved by giving up.
            if quarter < QUARTERS and number_of(trial) != 0 and trial.should_prune():
                raise optuna.TrialPruned

    try:
        fitted = fit(watch)
    except optuna.TrialPruned:
        return None
    finally:
        registry.runs.log_curve(run_id, "epoch_loss", [epoch.loss for epoch in epochs if epoch.number])
        registry.runs.log_curve(
            run_id, "epoch_early_stopping_mae", [epoch.validation_mae for epoch in epochs], first_epoch=0
        )
        registry.runs.tag(run_id, {"epochs": str(max(len(epochs) - 1, 0))})
    predicted, targets = fitted.predicted, trips.targets
    scores = score(predicted[trips.is_choosing], targets[trips.is_choosing])
    registry.runs.log_predictions(run_id, pd.Series(predicted, index=trips.held["key"]))
    registry.runs.log(
        run_id,
        metrics={
            "mae": scores.mae,
            "rmse": scores.rmse,
            "bias": scores.bias,
            "best_epoch": fitted.history.best_epoch,
            "training_seconds": fitted.history.seconds,
        },
    )
    return scores.mae
