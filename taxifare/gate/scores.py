"""Scores and intervals: how far predictions are off, and how certain it is that one model is closer than another.

Why the interval is the normal one: docs/decisions.md, under gate.
"""

import math
from statistics import NormalDist
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import PlainSerializer

from taxifare.trips.editions import Trips
from taxifare.trips.targets import Unit
from taxifare.values import Frozen

FloatArray = npt.NDArray[np.floating]


class EvaluationError(ValueError):
    """Predictions that cannot be compared: not the same trips, or not finite numbers."""


def _finite_or_text(bound: float) -> float | str:
    """Returns the bound as JSON has it, which knows no infinity: `-inf` and `inf` are read back as numbers."""
    return bound if math.isfinite(bound) else str(bound)


Bound = Annotated[float, PlainSerializer(_finite_or_text, when_used="json")]


class Interval(Frozen):
    """A mean per trip with its confidence interval; infinite bounds where the trips are too few to say."""

    mean: float
    low: Bound
    high: Bound


class Scores(Frozen):
    """How far predictions are off, per trip: mean absolute error, root mean squared error, mean error (bias)."""

    trips: int
    mae: float
    rmse: float
    bias: float


def score(predicted: FloatArray, actual: FloatArray) -> Scores:
    """Returns how far predictions are off.

    Args:
        predicted: Predictions, shape (n,).
        actual: What they should have been, shape (n,).

    Raises:
        EvaluationError: No trips, unequal lengths, or a value that is not a finite number.

    >>> score(np.array([10.0, 7.0]), np.array([9.0, 10.0]))
    Scores(trips=2, mae=2.0, rmse=2.23606797749979, bias=-1.0)
    """
    errors = _errors(predicted, actual)
    return Scores(
        trips=len(errors),
        mae=float(np.abs(errors).mean()),
        rmse=float(np.sqrt(np.square(errors).mean())),
        bias=float(errors.mean()),
    )


def mean_interval(values: FloatArray, confidence: float = 0.95) -> Interval:
    """Returns the mean with its interval, for 95 % mean ± 1.96 · s / √n.

    The normal interval is used because on the paired differences of real trips it covers as often as the bootstrap
    from 100 trips on (`tests/domain/gate/test_scores.py`) and takes no time. Under two values the spread is unknown and
    the bounds are infinite.

    >>> mean_interval(np.array([0.0, 2.0, 0.0, 2.0])).model_dump()
    {'mean': 1.0, 'low': -0.13158..., 'high': 2.13158...}
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half_width = z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half_width, high=mean + half_width)


def reference_mae(training: pd.DataFrame, validation: pd.DataFrame) -> float:
    """Returns the difficulty of the validation trips: the MAE of a rate per km fitted on the training trips.

    The reference – a constant and a rate per km, like a meter's flag drop and price – knows this month's trips and
    nothing else, so it follows every change: a month that is hard for it is a hard month, not a sign of a stale model.
    Fitted by least squares on `haversine_km`.

    Args:
        training: Clean trips with features, of the same month.
        validation: The trips to score, likewise.

    Raises:
        EvaluationError: Under two training trips, or no validation trip.
    """
    if len(training) < 2 or validation.empty:
        raise EvaluationError(
            f"expected 2 training trips and 1 validation trip at least, received {len(training)} and {len(validation)}"
        )
    predicted = at_rate_per_km(training, validation)
    return score(predicted, validation["target"].to_numpy(np.float64)).mae


def at_rate_per_km(training: pd.DataFrame, trips: pd.DataFrame) -> FloatArray:
    """Returns what trips come to at a constant and a rate per km, fitted by least squares on the training trips."""
    distances_km = training["haversine_km"].to_numpy(np.float64)
    design = np.column_stack([np.ones(len(distances_km)), distances_km])
    (constant, per_km), *_ = np.linalg.lstsq(design, training["target"].to_numpy(np.float64), rcond=None)
    return np.asarray(constant + per_km * trips["haversine_km"].to_numpy(np.float64))


def difficulty_of(trips: Trips) -> float:
    """Returns how hard a month's validation trips are: `reference_mae` from its own training trips."""
    return reference_mae(trips.training, trips.validation)


def skill(mae: float, difficulty_mae: float) -> float:
    """Returns the share of the reference's error that a model avoids: 1 - MAE / difficulty; 0 is a mere rate per km.

    >>> skill(2.0, 4.0)
    0.5
    """
    return 1 - mae / difficulty_mae


def predictions_of(trips: pd.DataFrame, predictions: pd.Series) -> npt.NDArray[np.floating]:
    """Returns predictions in the order of the trips, NaN where there is none of a trip.

    Args:
        trips: With `key`.
        predictions: By trip key; mostly in that order already, which saves looking up millions of keys.
    """
    keys = pd.Index(trips["key"])
    found = predictions if keys.equals(predictions.index) else predictions.reindex(keys)
    values: npt.NDArray[np.floating] = found.to_numpy()
    return values


def paired_gains(production_predicted: FloatArray, staging_predicted: FloatArray, actual: FloatArray) -> FloatArray:
    """Returns per trip how much closer staging was than production: positive means staging is better.

    >>> paired_gains(np.array([12.0]), np.array([9.5]), np.array([10.0]))
    array([1.5])
    """
    return np.abs(_errors(production_predicted, actual)) - np.abs(_errors(staging_predicted, actual))


def describe_gain(gain: Interval, unit: Unit) -> str:
    """Returns the gain in words, with its 95 % interval.

    >>> describe_gain(Interval(mean=-0.05, low=-0.08, high=-0.02), "USD")
    '-0.050 USD a trip (95 % interval -0.080 to -0.020)'
    """
    return f"{gain.mean:+.3f} {unit} a trip (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"


def describe_saving(gain: Interval, unit: Unit) -> str:
    """Returns what a model saves, or costs, in words, with its 95 % interval.

    >>> describe_saving(Interval(mean=0.05, low=0.02, high=0.08), "USD")
    'saves 0.050 USD a ride (95 % interval +0.020 to +0.080)'
    >>> describe_saving(Interval(mean=-0.003, low=-0.008, high=0.002), "USD")
    'costs 0.003 USD a ride (95 % interval of what it saves -0.008 to +0.002)'
    """
    saves, of = ("saves", "") if gain.mean >= 0 else ("costs", " of what it saves")
    return f"{saves} {abs(gain.mean):.3f} {unit} a ride (95 % interval{of} {gain.low:+.3f} to {gain.high:+.3f})"


def _errors(predicted: FloatArray, actual: FloatArray) -> FloatArray:
    """Returns predicted minus actual; both finite and of one shape (n,), n > 0."""
    if predicted.shape != actual.shape or predicted.ndim != 1 or not len(predicted):
        raise EvaluationError(
            f"expected one prediction a trip and at least one, received {predicted.shape} and {actual.shape}"
        )
    errors = np.asarray(predicted, np.float64) - np.asarray(actual, np.float64)
    if not np.isfinite(errors).all():
        raise EvaluationError(f"{int((~np.isfinite(errors)).sum())} of {len(errors)} errors are not finite numbers")
    return errors


def student_interval(values: npt.NDArray[np.floating]) -> Interval:
    """Returns the mean with its 95 % interval by Student's t: few repeats are far from the normal distribution.

    >>> student_interval(np.array([1.0, 2.0, 3.0])).model_dump()
    {'mean': 2.0, 'low': -0.48413..., 'high': 4.48413...}
    >>> student_interval(np.array([1.0, 3.0])).model_dump()
    {'mean': 2.0, 'low': -10.70620..., 'high': 14.70620...}
    >>> student_interval(np.array([2.0])).model_dump(mode="python")["low"]
    -inf
    """
    from scipy import stats

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    half_width = float(stats.t.ppf(0.975, count - 1)) * float(values.std(ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half_width, high=mean + half_width)
