"""The learning curve: how much error more trips remove. The course's experiment, with repeats and intervals.

Each point is a fit from random weights to a random sample of the training trips, judged on the latest trips, and is one
MLflow run. A point that has its run is not fitted again, so a curve that was interrupted goes on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxifare.gate.scores import Interval, reference_mae, score, student_interval
from taxifare.model.quiet import load_tensorflow
from taxifare.model.registry import SUBJECT_TAG, ModelRegistry
from taxifare.settings import Settings, TrainingSettings, of_training
from taxifare.training.from_random_weights import architecture_of, fit_from_scratch, predict_trips
from taxifare.training.recipe import fingerprint
from taxifare.trips.editions import Trips
from taxifare.workers import TRIP_S, workers_if_worth

LEAST_STEPS_PER_EPOCH = 100
"""A small sample is given in smaller batches: at 512 trips a step, 1,000 trips are two steps and a network that has
hardly moved, which says nothing of the trips. From 51,200 trips on the batch size is the shape's."""

_FIXED_COST_TRIPS = 20_000
"""What building, compiling and judging a network costs, in trips of training; for the time left."""


class LearningCurveError(ValueError):
    """A learning curve that cannot be drawn; says what was asked and what there is."""


@dataclass(frozen=True)
class Level:
    """All repeats of one size.

    Attributes:
        trips: Training trips of each fit, those that decide when to stop included.
        maes: Error of each repeat on the test trips.
        interval: Mean of the repeats with its 95 % interval by Student's t; infinite bounds from a single one.
        reference_mae: Mean error of a flat per-km rate fitted to the same samples.
    """

    trips: int
    maes: tuple[float, ...]
    interval: Interval
    reference_mae: float


@dataclass(frozen=True)
class LearningCurve:
    """The curve.

    Attributes:
        levels: One a size, smallest first.
        run_id: The MLflow run that holds it; whoever draws the curve keeps the picture there.
    """

    levels: tuple[Level, ...]
    run_id: str


@dataclass(frozen=True)
class _Point:
    trips: int
    repeat: int


@dataclass(frozen=True)
class _Fitted:
    """What a fit came to, as MLflow has it: its settings, its errors, and the loss of each epoch."""

    params: Mapping[str, int | float]
    metrics: Mapping[str, float]
    losses: Sequence[float]


def learning_curve(
    trips: Trips,
    registry: ModelRegistry,
    settings: Settings,
    *,
    sizes: Sequence[int | None],
    repeats: int,
    on_progress: Callable[[float], None] | None = None,
) -> LearningCurve:
    """Returns the error at each size, smallest first, and the MLflow run that it stays with.

    A repeat draws its trips anew, a larger size on top of a smaller one, and starts from other weights. At all trips
    repeats differ by their weights and their order only, and the interval is narrower for that reason alone.

    Args:
        trips: Preprocessed trips; those of `is_validation`, the latest, are the test trips of every fit.
        registry: Where the curve and its points are logged, as one MLflow run with a nested run for each point.
        settings: Hyperparameters and seed, and who shares the fits.
        sizes: Numbers of training trips; None is all. Those beyond all are left out.
        repeats: Fits of each size.
        on_progress: Told the share of the work that is done, from 0 to 1: after each epoch, or each fit where they are
            shared.

    Raises:
        LearningCurveError: No size or no repeat is left.
        TrainingError: A fit gave no usable network.
        WorkersError: The cluster of CLUSTER_URL cannot do the fits, or a worker died again and again.
        RegistryError: MLflow does not answer.
    """
    training, test = trips.training, trips.validation
    asked = {len(training) if size is None else size for size in sizes}
    fitting = sorted(size for size in asked if 0 < size <= len(training))
    if not fitting or repeats < 1:
        raise LearningCurveError(
            f"expected sizes up to {len(training):,} training trips and at least 1 repeat, "
            f"received sizes {list(sizes)} and {repeats} repeats"
        )
    points = [_Point(size, repeat) for repeat in range(repeats) for size in fitting]
    # Everything that the points of a curve have in common.
    curve = fingerprint(settings, revision=trips.edition.revision, trips=len(trips.frame), test_trips=len(test))
    tags = {"asset": "learning_curve", SUBJECT_TAG: trips.edition.subject, "curve": curve}
    with registry.runs.open(f"learning curve {trips.edition.subject}", tags, grows=True) as run_id:
        known = {point: registry.runs.finished(_tags(point, curve)) for point in points}
        measured = {point: metrics for point, metrics in known.items() if metrics is not None}
        missing = [point for point in points if point not in measured]
        work = sum(point.trips + _FIXED_COST_TRIPS for point in missing)
        done = 0
        own = of_training(settings)
        with workers_if_worth(settings, len(missing), work * TRIP_S) as workers:
            begun = {} if workers is None else {one: workers.submit(_fit, one, training, test, own) for one in missing}
            for point in missing:
                cost = point.trips + _FIXED_COST_TRIPS

                def report(share: float, done: int = done, cost: int = cost) -> None:
                    if on_progress is not None:
                        on_progress((done + cost * share) / work)

                with registry.runs.open(f"{point.trips} trips, repeat {point.repeat}", _tags(point, curve)) as its_run:
                    fitted = begun[point].result() if point in begun else _fit(point, training, test, own, report)
                    registry.runs.log_curve(its_run, "epoch_loss", fitted.losses)
                    registry.runs.log(its_run, params=fitted.params, metrics=fitted.metrics)
                measured[point] = fitted.metrics
                done += cost
                report(1.0)
        levels = tuple(_level(size, [measured[_Point(size, repeat)] for repeat in range(repeats)]) for size in fitting)
    return LearningCurve(levels, run_id)


def _fit(
    point: _Point,
    training: pd.DataFrame,
    test: pd.DataFrame,
    settings: TrainingSettings,
    on_progress: Callable[[float], None] = lambda _share: None,
) -> _Fitted:
    """Returns what one fit came to; the share of it that is done is told after each epoch."""
    load_tensorflow()
    import keras

    order = np.random.default_rng([settings.seed, point.repeat]).permutation(len(training))
    sample = training.iloc[np.sort(order[: point.trips])]
    own = settings.model_copy(update={"seed": settings.seed + point.repeat})
    batch_size = math.ceil(point.trips / LEAST_STEPS_PER_EPOCH)
    if batch_size < architecture_of(settings, 0).batch_size:
        own = own.model_copy(update={"batch_size": batch_size})
    network, history = fit_from_scratch(sample, own, on_epoch=lambda epoch: on_progress(epoch.number / epoch.last))
    scores = score(predict_trips(network, test, settings), test["target"].to_numpy(np.float64))
    # Keras keeps something of every network it has built.
    keras.utils.clear_session()
    return _Fitted(
        params={
            "training_set_size": point.trips,
            "val_set_size": len(test),
            "learning_rate": history.learning_rate,
            "batch_size": history.batch_size,
            "patience": settings.patience,
            "max_epochs": history.epochs[0].last,
            "seed": own.seed,
        },
        metrics={
            "mae": scores.mae,
            "rmse": scores.rmse,
            "bias": scores.bias,
            "reference_mae": reference_mae(sample, test),
            "training_seconds": history.seconds,
        },
        losses=[epoch.loss for epoch in history.epochs if epoch.number],
    )


def _level(trips: int, measured: Sequence[Mapping[str, float]]) -> Level:
    """Returns the repeats of one size, summed up."""
    maes = np.array([metrics["mae"] for metrics in measured])
    return Level(
        trips=trips,
        maes=tuple(maes.tolist()),
        interval=student_interval(maes),
        reference_mae=float(np.mean([metrics["reference_mae"] for metrics in measured])),
    )


def _tags(point: _Point, curve: str) -> dict[str, str]:
    """Returns what identifies the MLflow run of a point."""
    return {
        "asset": "learning_curve_point",
        "curve": curve,
        "trips": str(point.trips),
        "repeat": str(point.repeat),
    }
