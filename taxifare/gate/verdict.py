"""The verdict: from both models' predictions on the same trips to what follows, with its reasons.

Why objections are part of the evidence: docs/decisions.md, under gate.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal, Contender, Evidence, Objection, Verdict
from taxifare.gate.scores import (
    EvaluationError,
    FloatArray,
    Interval,
    Scores,
    describe_gain,
    difficulty_of,
    mean_interval,
    paired_gains,
    score,
)
from taxifare.gate.slices import SliceComparison, compare_slices
from taxifare.model.exposure import leaked
from taxifare.settings import GateSettings
from taxifare.trips.editions import Trips


def judge(
    *,
    trips: Trips,
    production: Appraisal,
    production_predicted: pd.Series | None,
    staging: Appraisal,
    staging_predicted: pd.Series,
    settings: GateSettings,
) -> Evidence:
    """Returns the evidence and its verdict on replacing production by staging.

    PROMOTE when the gain's lower bound exceeds the least useful gain and neither a slice nor the bias gets worse beyond
    its tolerance; REJECT when the gain's upper bound is below zero; HOLD otherwise. UNCHANGED when both predict the
    same on every trip. LEAK when either model has been trained on trips of the validation's time; COLD_START when
    nothing is in production; UNSCORABLE when something is but cannot be scored.

    Args:
        trips: Preprocessed trips of a month, or of the base years.
        production: What came of scoring production.
        production_predicted: Its predictions by trip key, None where it was not scored.
        staging: What came of scoring staging.
        staging_predicted: Its predictions by trip key.
        settings: Give the target, the city's slices and the tolerances.

    Raises:
        EvaluationError: Staging was not scored, or predictions are not of exactly the validation trips as they are now.
    """
    if staging.contender is None:
        raise EvaluationError(f"staging version {staging.version} was not scored: {staging.fault}")
    validation = trips.validation
    staging_predictions = _predictions(staging_predicted, validation, staging.contender, "staging")

    gain: Interval | None = None
    slices: tuple[SliceComparison, ...] = ()
    objections: tuple[Objection, ...] = ()
    is_unchanged = False
    if production.contender is not None:
        if production_predicted is None:
            raise EvaluationError(f"production version {production.version} was scored, its predictions are missing")
        production_predictions = _predictions(production_predicted, validation, production.contender, "production")
        actual = validation["target"].to_numpy(np.float64)
        gain = mean_interval(paired_gains(production_predictions, staging_predictions, actual))
        slices = compare_slices(production_predictions, staging_predictions, validation, settings.city_facts)
        objections = _objections(production.contender.scores, staging.contender.scores, slices, settings)
        is_unchanged = (
            np.array_equal(production_predictions, staging_predictions)
            and production.contender.corrected == staging.contender.corrected
        )

    verdict, reasons = _verdict(
        validation=validation,
        production=production,
        staging=staging,
        gain=gain,
        objections=objections,
        is_unchanged=is_unchanged,
        settings=settings,
    )
    return Evidence(
        subject=trips.edition.subject,
        revision=trips.edition.revision,
        unit=settings.target_facts.unit,
        staging=staging.contender,
        production_version=production.version,
        production=production.contender,
        difficulty_mae=difficulty_of(trips),
        gain=gain,
        slices=slices,
        objections=objections,
        verdict=verdict,
        reasons=reasons,
    )


def _verdict(
    *,
    validation: pd.DataFrame,
    production: Appraisal,
    staging: Appraisal,
    gain: Interval | None,
    objections: Sequence[Objection],
    is_unchanged: bool,
    settings: GateSettings,
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
    if is_unchanged:
        return Verdict.UNCHANGED, (
            f"versions {production.version} and {staging.version} predict the same on each of the "
            f"{staging.contender.scores.trips} trips, so there is nothing to decide",
        )
    unit = settings.target_facts.unit
    if gain.high < 0:
        return Verdict.REJECT, (f"staging is worse: {describe_gain(gain, unit)}",)
    if gain.low <= settings.minimum_gain:
        return Verdict.HOLD, (
            f"a gain of at least {settings.minimum_gain:.2f} {unit} a trip is not shown: {describe_gain(gain, unit)}",
        )
    if objections:
        return Verdict.HOLD, tuple(objection.reason for objection in objections)
    return Verdict.PROMOTE, (f"staging is better: {describe_gain(gain, unit)}",)


def _objections(
    production: Scores, staging: Scores, slices: Sequence[SliceComparison], settings: GateSettings
) -> tuple[Objection, ...]:
    """Returns what speaks against staging beyond its tolerance: slices that surely get worse, a bias that grows."""
    unit = settings.target_facts.unit
    objections = tuple(
        Objection(
            about="slice",
            name=part.name,
            reason=(
                f"{part.name} trips get worse: {describe_gain(part.gain, unit)} on {part.staging.trips} trips, "
                f"tolerated are {settings.slice_tolerance:.2f} {unit}"
            ),
        )
        for part in slices
        if part.gain.high < -settings.slice_tolerance
    )
    if abs(staging.bias) - abs(production.bias) <= settings.bias_tolerance:
        return objections
    reason = (
        f"the bias grows from {production.bias:+.2f} to {staging.bias:+.2f} {unit} a trip, "
        f"tolerated are {settings.bias_tolerance:.2f} {unit}"
    )
    return (*objections, Objection(about="bias", name="bias", reason=reason))


def _predictions(predictions: pd.Series, validation: pd.DataFrame, contender: Contender, whose: str) -> FloatArray:
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
