"""From two models' predictions on the same trips to a verdict a person can check.

Numbers are in the target's unit: USD for fares, minutes for durations (`targets.py`). An error is predicted minus
actual, so a negative bias means that predictions are too low. A gain is how much closer a trip is predicted: |error of
production| minus |error of staging|; positive means staging is better.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from statistics import NormalDist
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, PlainSerializer, model_validator

from taxifare.cities import City
from taxifare.settings import Settings
from taxifare.targets import Unit

Vector = npt.NDArray[np.floating]

Z_95 = NormalDist().inv_cdf(0.975)
MINIMUM_SLICE_TRIPS = 30
"""Slices with fewer trips are not judged: their interval would say nothing."""
LONG_TRIP_KM = 10.0


class EvaluationError(ValueError):
    """Predictions that cannot be compared: not the same trips, or not finite numbers."""


class Verdict(StrEnum):
    """What the evidence says about replacing production by staging."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    REJECT = "REJECT"
    COLD_START = "COLD_START"
    UNSCORABLE = "UNSCORABLE"
    LEAK = "LEAK"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _finite_or_text(bound: float) -> float | str:
    """Returns the bound as JSON has it, which knows no infinity: `-inf` and `inf` are read back as numbers."""
    return bound if math.isfinite(bound) else str(bound)


Bound = Annotated[float, PlainSerializer(_finite_or_text, when_used="json")]


class Interval(_Frozen):
    """A mean per trip with its confidence interval; infinite bounds where the trips are too few to say."""

    mean: float
    low: Bound
    high: Bound


class Scores(_Frozen):
    """How far predictions are off, per trip: mean absolute error, root mean squared error, mean error (bias)."""

    trips: int
    mae: float
    rmse: float
    bias: float


class SliceComparison(_Frozen):
    """Both models on one kind of trips."""

    name: str
    production: Scores
    staging: Scores
    gain: Interval


class Exposure(_Frozen):
    """Trips a model has been trained on: those of one revision picked up in `[first_pickup, last_pickup]`."""

    subject: str
    revision: str
    first_pickup: datetime
    last_pickup: datetime


class Contender(_Frozen):
    """A registered version as it was scored: which one, in which MLflow run, how well.

    Attributes:
        version: Its number.
        run_id: The MLflow run that scored it.
        scores: Of its predictions.
        correction: What it offers to raise them by against its bias, on average, see `correction_share`.
        corrected: Scores of the raised predictions.
    """

    version: str
    run_id: str
    scores: Scores
    correction: float
    corrected: Scores


class Appraisal(_Frozen):
    """What came of scoring a version on the validation trips of a month.

    Exactly one of three: scored (`contender`), nothing to score (`version` is None), or a version that exists but
    cannot be loaded or scored (`fault` says why). The three are never confused.

    Attributes:
        version: The version, None where nothing is in production.
        contender: Its scores, None unless it was scored.
        exposure: What it has been trained on.
        fault: Why it could not be scored.
    """

    version: str | None
    contender: Contender | None = None
    exposure: tuple[Exposure, ...] = ()
    fault: str | None = None

    @model_validator(mode="after")
    def _is_one_of_three(self) -> "Appraisal":
        """Ensures that scored, nothing and unscorable exclude each other."""
        if (self.version is None) != (self.contender is None and self.fault is None):
            raise ValueError("a version is either scored or has a fault; without a version there is neither")
        if self.contender is not None and (self.fault is not None or self.contender.version != self.version):
            raise ValueError("a scored version has no fault and is the version named")
        return self


class Evidence(_Frozen):
    """Everything a decision rests on; what was shown is what is promoted, so it has a digest.

    Attributes:
        subject: The month `YYYY-MM`, or `base` for the first model.
        revision: Revision of the trips both models were scored on.
        unit: What all its numbers are in.
        staging: The version asked about.
        production_version: What was in production, None where nothing was.
        production: Its scores, None where there is no production or it cannot be scored.
        difficulty_mae: Error of a plain rate per km on the same trips: how hard they are for anybody.
        gain: Paired difference, None where there is nothing to compare with.
        slices: The same on kinds of trips.
        verdict: What follows.
        reasons: Why, in words.
    """

    subject: str
    revision: str
    unit: Unit
    staging: Contender
    production_version: str | None
    production: Contender | None
    difficulty_mae: float
    gain: Interval | None
    slices: tuple[SliceComparison, ...]
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence's JSON, without the MLflow runs that happened to produce it."""
        content = self.model_dump_json(exclude={"staging": {"run_id"}, "production": {"run_id"}})
        return hashlib.sha256(content.encode()).hexdigest()


def score(predicted: Vector, actual: Vector) -> Scores:
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


def contend(version: str, run_id: str, predicted: Vector, corrected: Vector, actual: Vector) -> Contender:
    """Returns a version as it was scored.

    Args:
        version: Its number.
        run_id: The MLflow run that scored it.
        predicted: Its predictions of the validation trips, shape (n,).
        corrected: The predictions that it offers against its bias, shape (n,).
        actual: What they should have been, shape (n,).

    Raises:
        EvaluationError: As `score`.
    """
    return Contender(
        version=version,
        run_id=run_id,
        scores=score(predicted, actual),
        correction=float(np.subtract(corrected, predicted, dtype=np.float64).mean()),
        corrected=score(corrected, actual),
    )


CORRECTION_COST = 0.0125
"""Share of the mean absolute error that a correction of the bias may cost on held trips, which are of the time of the
training trips. Fares mostly rise, so later trips pay for less of it: those of 2014 nothing (`docs/model.md`)."""


def correction_share(errors: Vector, raises: Vector) -> float:
    """Returns how much of the way to the upper prediction to go against the bias: until the mean error is zero at most.

    A model that makes the mean absolute error least predicts the median of what a ride may cost or take, and rides have
    more ways to be dear or long than cheap or short: the predictions come to less than the truth. The median is the
    best single answer; who adds up many of them wants the sum right. Going towards a higher quantile raises each by as
    much as its ride is uncertain, which costs less than raising all by the same; it goes as far as costs
    `CORRECTION_COST` of the MAE.

    Args:
        errors: Predicted minus actual on trips the model was not trained on, shape (n,), n > 0.
        raises: How far the upper prediction of each is above the predicted one, shape (n,), none below zero.

    >>> correction_share(np.array([0.0, 0.0, 0.0, -4.0]), np.array([0.0, 0.0, 0.0, 2.0]))
    1.0
    >>> round(correction_share(np.array([0.0, 0.0, 0.0, -4.0]), np.array([1.0, 1.0, 1.0, 1.0])), 6)
    0.025
    """
    bearable = (1 + CORRECTION_COST) * float(np.abs(errors).mean())
    mean_raise = float(raises.mean())
    least, most = 0.0, 0.0
    if mean_raise > 0:
        most = min(1.0, max(0.0, -float(errors.mean()) / mean_raise))
    if np.abs(errors + most * raises).mean() <= bearable:
        return most
    # The error is convex in the share, so what is affordable is an interval from 0 on.
    for _ in range(40):
        middle = (least + most) / 2
        if np.abs(errors + middle * raises).mean() <= bearable:
            least = middle
        else:
            most = middle
    return least


def mean_interval(values: Vector, confidence: float = 0.95) -> Interval:
    """Returns the mean with its interval, for 95 % mean ± 1.96 · s / √n.

    The normal interval is used because on the paired differences of real trips it covers as often as the bootstrap
    from 100 trips on (`tests/domain/test_evaluation.py`) and takes no time. Under two values nothing is known of the
    spread and the bounds are infinite.

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
    distances_km = training["haversine_km"].to_numpy(np.float64)
    design = np.column_stack([np.ones(len(distances_km)), distances_km])
    (constant, per_km), *_ = np.linalg.lstsq(design, training["target"].to_numpy(np.float64), rcond=None)
    predicted = constant + per_km * validation["haversine_km"].to_numpy(np.float64)
    return score(predicted, validation["target"].to_numpy(np.float64)).mae


def skill(mae: float, difficulty_mae: float) -> float:
    """Returns the share of the reference's error that a model avoids: 1 - MAE / difficulty; 0 is a mere rate per km.

    >>> skill(2.0, 4.0)
    0.5
    """
    return 1 - mae / difficulty_mae


class Footing(_Frozen):
    """How well a model did where: its MAE on a month's validation trips, and their difficulty."""

    mae: float
    difficulty_mae: float

    @property
    def skill(self) -> float:
        """Share of the reference's error that it avoided."""
        return skill(self.mae, self.difficulty_mae)


class Change(_Frozen):
    """Why the error of a model is another one than when it was approved.

    Attributes:
        then: How it did when it was approved.
        now: How it does on this month.
        unit: What its numbers are in.
        tolerance: Most skill that it may have lost.
        rules: Dated rules that have come into force since it was trained, in words.
    """

    then: Footing
    now: Footing
    unit: Unit
    tolerance: float
    rules: tuple[str, ...] = ()

    @property
    def rise(self) -> float:
        """How much more it errs."""
        return self.now.mae - self.then.mae

    @property
    def harder(self) -> float:
        """How much more it would err by the month's difficulty alone, had it kept its skill."""
        return (1 - self.then.skill) * (self.now.difficulty_mae - self.then.difficulty_mae)

    @property
    def staler(self) -> float:
        """How much more it errs for want of skill: the rest."""
        return self.rise - self.harder

    @property
    def is_stale(self) -> bool:
        """Whether it has lost more skill than is tolerated; a hard month alone makes no model stale."""
        return self.now.skill < self.then.skill - self.tolerance

    @property
    def said(self) -> str:
        """The change in words."""
        hardness = "harder" if self.harder >= 0 else "easier"
        fit = "less well" if self.staler >= 0 else "better"
        parts = (
            f"The error went from {self.then.mae:.2f} to {self.now.mae:.2f} {self.unit} a ride ({self.rise:+.2f}): "
            f"{self.harder:+.2f} because the month is {hardness} for anybody (a rate per km errs by "
            f"{self.now.difficulty_mae:.2f} {self.unit} instead of {self.then.difficulty_mae:.2f}), "
            f"{self.staler:+.2f} because the model fits it {fit} "
            f"(skill {self.now.skill:.1%} instead of {self.then.skill:.1%}).",
            "The model is stale." if self.is_stale else "The model is not stale.",
            f"In force since it was trained: {'; '.join(self.rules)}." if self.rules else "",
        )
        return " ".join(part for part in parts if part)


def explain_change(
    then: Footing,
    now: Footing,
    exposure: Sequence[Exposure],
    validation: pd.DataFrame,
    city: City,
    unit: Unit,
    tolerance: float,
) -> Change:
    """Returns why a model errs more or less than when it was approved: a harder month, lost skill, dated rules.

    Args:
        then: How it did when it was approved.
        now: How it does on the validation trips.
        exposure: What it has been trained on.
        validation: The validation trips.
        city: Gives the dated rules.
        unit: What the errors are in.
        tolerance: Most skill that it may lose before it is stale.
    """
    learned = max(entry.last_pickup for entry in exposure)
    last = validation["pickup_datetime"].max()
    return Change(
        then=then,
        now=now,
        unit=unit,
        tolerance=tolerance,
        rules=tuple(
            f"{rule.since} {rule.description}" for rule in city.rules if learned < pd.Timestamp(rule.since) <= last
        ),
    )


def slice_masks(trips: pd.DataFrame, city: City) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns, for each kind of trips that carries much of the error, which trips belong to it.

    Kinds: an end at an airport, over 10 km, night, weekday evening rush. On real trips the first two are 7 % of the
    trips and 19 % of the absolute error.

    Args:
        trips: Trips with features, n rows.
        city: Gives the airports.
    """
    masks = {
        airport.code: (
            trips[[f"pickup_{airport.code.lower()}_km", f"dropoff_{airport.code.lower()}_km"]].min(axis=1)
            < airport.radius_km
        ).to_numpy()
        for airport in city.airports
    }
    return masks | {
        f"over {LONG_TRIP_KM:.0f} km": (trips["haversine_km"] > LONG_TRIP_KM).to_numpy(),
        "night": (trips["is_night"] > 0).to_numpy(),
        "rush hour": (trips["is_rush"] > 0).to_numpy(),
    }


def compare_slices(
    production_predicted: Vector, staging_predicted: Vector, trips: pd.DataFrame, city: City
) -> tuple[SliceComparison, ...]:
    """Returns both models' scores on each slice that has at least `MINIMUM_SLICE_TRIPS` trips.

    Args:
        production_predicted: Production's predictions, shape (n,).
        staging_predicted: Staging's predictions of the same trips, shape (n,).
        trips: The trips with features and `target`, n rows.
        city: Gives the airports.
    """
    actual = trips["target"].to_numpy(np.float64)
    gains = paired_gains(production_predicted, staging_predicted, actual)
    return tuple(
        SliceComparison(
            name=name,
            production=score(production_predicted[mask], actual[mask]),
            staging=score(staging_predicted[mask], actual[mask]),
            gain=mean_interval(gains[mask]),
        )
        for name, mask in slice_masks(trips, city).items()
        if mask.sum() >= MINIMUM_SLICE_TRIPS
    )


def paired_gains(production_predicted: Vector, staging_predicted: Vector, actual: Vector) -> Vector:
    """Returns per trip how much closer staging was than production: positive means staging is better.

    >>> paired_gains(np.array([12.0]), np.array([9.5]), np.array([10.0]))
    array([1.5])
    """
    return np.abs(_errors(production_predicted, actual)) - np.abs(_errors(staging_predicted, actual))


def union_of(*exposures: Iterable[Exposure]) -> tuple[Exposure, ...]:
    """Returns what has been seen in all: one entry an edition, from its earliest to its latest pickup, oldest first."""
    spans: dict[tuple[str, str], Exposure] = {}
    for entry in (entry for exposure in exposures for entry in exposure):
        known = spans.setdefault((entry.subject, entry.revision), entry)
        spans[entry.subject, entry.revision] = known.model_copy(
            update={
                "first_pickup": min(known.first_pickup, entry.first_pickup),
                "last_pickup": max(known.last_pickup, entry.last_pickup),
            }
        )
    return tuple(sorted(spans.values(), key=lambda entry: (entry.first_pickup, entry.subject, entry.revision)))


def leaked(exposure: Iterable[Exposure], validation: pd.DataFrame) -> Exposure | None:
    """Returns the first exposure whose time span touches that of the validation trips, None where none does.

    Spans are compared, not rows: a month that was restated has other rows at the same times, and a model trained on the
    first edition must not be judged on the second as if it were new.
    """
    first, last = validation["pickup_datetime"].min(), validation["pickup_datetime"].max()
    return next((entry for entry in exposure if entry.first_pickup <= last and entry.last_pickup >= first), None)


def judge(
    *,
    subject: str,
    revision: str,
    trips: pd.DataFrame,
    production: Appraisal,
    production_predicted: pd.Series | None,
    staging: Appraisal,
    staging_predicted: pd.Series,
    city: City,
    settings: Settings,
) -> Evidence:
    """Returns the evidence and its verdict on replacing production by staging.

    PROMOTE when the gain's lower bound exceeds the least useful gain and neither a slice nor the bias gets worse beyond
    its tolerance; REJECT when the gain's upper bound is below zero; HOLD otherwise. LEAK when either model has been
    trained on trips of the validation's time; COLD_START when nothing is in production; UNSCORABLE when something is
    but cannot be scored.

    Args:
        subject: The month, or `base`.
        revision: Revision of the trips.
        trips: All clean trips of the subject with features, `target`, `key` and `is_validation`.
        production: What came of scoring production.
        production_predicted: Its predictions by trip key, None where it was not scored.
        staging: What came of scoring staging.
        staging_predicted: Its predictions by trip key.
        city: Gives the slices.
        settings: Gives the target and the tolerances.

    Raises:
        EvaluationError: Staging was not scored, or predictions are not of exactly the validation trips as they are now.
    """
    if staging.contender is None:
        raise EvaluationError(f"staging version {staging.version} was not scored: {staging.fault}")
    training, validation = trips[~trips["is_validation"]], trips[trips["is_validation"]]
    staging_predictions = _predictions(staging_predicted, validation, staging.contender, "staging")

    gain: Interval | None = None
    slices: tuple[SliceComparison, ...] = ()
    if production.contender is not None:
        if production_predicted is None:
            raise EvaluationError(f"production version {production.version} was scored, its predictions are missing")
        production_predictions = _predictions(production_predicted, validation, production.contender, "production")
        actual = validation["target"].to_numpy(np.float64)
        gain = mean_interval(paired_gains(production_predictions, staging_predictions, actual))
        slices = compare_slices(production_predictions, staging_predictions, validation, city)

    verdict, reasons = _verdict(
        validation=validation,
        production=production,
        staging=staging,
        gain=gain,
        slices=slices,
        settings=settings,
    )
    return Evidence(
        subject=subject,
        revision=revision,
        unit=settings.target_facts.unit,
        staging=staging.contender,
        production_version=production.version,
        production=production.contender,
        difficulty_mae=reference_mae(training, validation),
        gain=gain,
        slices=slices,
        verdict=verdict,
        reasons=reasons,
    )


def _verdict(
    *,
    validation: pd.DataFrame,
    production: Appraisal,
    staging: Appraisal,
    gain: Interval | None,
    slices: Sequence[SliceComparison],
    settings: Settings,
) -> tuple[Verdict, tuple[str, ...]]:
    """Returns the verdict and its reasons; conditions that make a comparison meaningless come first."""
    leaks = tuple(
        f"{name} version {appraisal.version} was trained on trips of {entry.subject} "
        f"up to {entry.last_pickup:%Y-%m-%d %H:%M}, which reach into the validation trips"
        for name, appraisal in (("production", production), ("staging", staging))
        if (entry := leaked(appraisal.exposure, validation)) is not None
    )
    if leaks:
        return Verdict.LEAK, leaks
    if production.version is None:
        return Verdict.COLD_START, ("nothing is in production, so there is nothing to compare with",)
    if production.contender is None or staging.contender is None or gain is None:
        return Verdict.UNSCORABLE, (f"production version {production.version} cannot be scored: {production.fault}",)
    unit = settings.target_facts.unit
    if gain.high < 0:
        return Verdict.REJECT, (f"staging is worse: {describe_gain(gain, unit)}",)
    if gain.low <= settings.minimum_gain:
        return Verdict.HOLD, (
            f"a gain of at least {settings.minimum_gain:.2f} {unit} a trip is not shown: {describe_gain(gain, unit)}",
        )
    objections = _objections(production.contender.scores, staging.contender.scores, slices, settings)
    if objections:
        return Verdict.HOLD, objections
    return Verdict.PROMOTE, (f"staging is better: {describe_gain(gain, unit)}",)


def _objections(
    production: Scores, staging: Scores, slices: Sequence[SliceComparison], settings: Settings
) -> tuple[str, ...]:
    """Returns what speaks against a model that is better on the whole: slices and bias beyond their tolerance."""
    unit = settings.target_facts.unit
    objections = tuple(
        f"{part.name} trips get worse: {describe_gain(part.gain, unit)} on {part.staging.trips} trips, "
        f"tolerated are {settings.slice_tolerance:.2f} {unit}"
        for part in slices
        if part.gain.high < -settings.slice_tolerance
    )
    growth = abs(staging.bias) - abs(production.bias)
    if growth > settings.bias_tolerance:
        objections += (
            f"the bias grows from {production.bias:+.2f} to {staging.bias:+.2f} {unit} a trip, "
            f"tolerated are {settings.bias_tolerance:.2f} {unit}",
        )
    return objections


def describe_gain(gain: Interval, unit: Unit) -> str:
    """Returns the gain in words, with its 95 % interval.

    >>> describe_gain(Interval(mean=-0.05, low=-0.08, high=-0.02), "USD")
    '-0.050 USD a trip (95 % interval -0.080 to -0.020)'
    """
    return f"{gain.mean:+.3f} {unit} a trip (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"


def _predictions(predictions: pd.Series, validation: pd.DataFrame, contender: Contender, whose: str) -> Vector:
    """Returns the predictions in the order of the validation trips; a comparison on other trips is an error.

    Keys alone do not tell: where a source has none they are numbers, and a restated month has the same ones. So the
    scores on record must be those of the predictions on the trips as they are now.
    """
    keys = pd.Index(validation["key"])
    predicted = pd.Index(predictions.index)
    if len(keys) != len(predicted) or not keys.sort_values().equals(predicted.sort_values().astype(keys.dtype)):
        raise EvaluationError(
            f"{whose} was scored on other trips: expected the {len(keys)} validation trips, received predictions "
            f"for {len(predicted)}, {len(keys.intersection(predicted))} of them the same"
        )
    predicted = predictions.reindex(keys).to_numpy(np.float64)
    mae = score(predicted, validation["target"].to_numpy(np.float64)).mae
    if not math.isclose(mae, contender.scores.mae, rel_tol=1e-6, abs_tol=1e-6):
        raise EvaluationError(
            f"{whose} was scored on other trips: version {contender.version} has an MAE of "
            f"{contender.scores.mae:.6f} on record and {mae:.6f} on these; score it again"
        )
    return predicted


def _errors(predicted: Vector, actual: Vector) -> Vector:
    """Returns predicted minus actual; both finite and of one shape (n,), n > 0."""
    if predicted.shape != actual.shape or predicted.ndim != 1 or not len(predicted):
        raise EvaluationError(
            f"expected one prediction a trip and at least one, received {predicted.shape} and {actual.shape}"
        )
    errors = np.asarray(predicted, np.float64) - np.asarray(actual, np.float64)
    if not np.isfinite(errors).all():
        raise EvaluationError(f"{int((~np.isfinite(errors)).sum())} of {len(errors)} errors are not finite numbers")
    return errors
