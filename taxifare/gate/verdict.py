"""The verdict: what follows from both models' predictions on the same trips, with its reasons.

Why objections are part of the evidence: docs/decisions.md, under gate.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal, Contender, Evidence, Objection, Verdict
from taxifare.gate.gains import Gains, SlicedGains
from taxifare.gate.scores import (
    EvaluationError,
    FloatArray,
    Interval,
    describe_gain,
    difficulty_of,
    predictions_of,
    score,
)
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS, SliceComparison, compare_slices, sliced_gains, tolerance_of
from taxifare.gate.track_record import TrackRecord
from taxifare.model.exposure import leaked
from taxifare.settings import GateSettings
from taxifare.trips.editions import Trips

StandingAnswer = Literal["promote", "keep", "ask"]

RECORD_SHARE = 0.5
"""The share of the least useful gain that a track record has to show: it has more rides and days than a month's end."""


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

    PROMOTE when the gain is surely more than the least useful one, or the track record's than half of it while the
    validation trips agree, and neither a slice nor the bias gets worse beyond its tolerance; REJECT when the track
    record – the gain, where there is none – is surely below zero; HOLD otherwise. UNCHANGED when both predict the same
    on every trip. LEAK when either model has been trained on trips from the validation period; COLD_START when nothing
    is in production; UNSCORABLE when something is but cannot be scored.

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
    record: TrackRecord | None = None
    objections: tuple[Objection, ...] = ()
    is_unchanged = False
    if production.contender is not None:
        if production_predicted is None:
            raise EvaluationError(f"production version {production.version} was scored, its predictions are missing")
        production_predictions = _predictions(production_predicted, validation, production.contender, "production")
        slices = compare_slices(production_predictions, staging_predictions, validation, settings.city_facts)
        gains = sliced_gains(production_predictions, staging_predictions, validation, settings.city_facts)
        gain, record = gains.all.interval, _record(staging, production, gains)
        objections = _objections(
            production.contender, staging.contender, gains if record is None else record.gains, settings
        )
        is_unchanged = (
            np.array_equal(production_predictions, staging_predictions)
            and production.contender.corrected == staging.contender.corrected
        )

    verdict, reasons = _verdict(
        validation=validation,
        production=production,
        staging=staging,
        gain=gain,
        record=record,
        objections=objections,
        is_unchanged=is_unchanged,
        settings=settings,
    )
    return Evidence(
        subject=trips.edition.subject,
        revision=trips.edition.revision,
        unit=settings.target_facts.unit,
        city=settings.city.on_record,
        staging=staging.contender,
        production_version=production.version,
        production=production.contender,
        difficulty_mae=difficulty_of(trips),
        gain=gain,
        slices=slices,
        track_record=record,
        hindsight=production.hindsight,
        objections=objections,
        verdict=verdict,
        reasons=reasons,
    )


def _record(staging: Appraisal, production: Appraisal, gains: SlicedGains) -> TrackRecord | None:
    """Returns the candidate's track record with the validation trips, None where it is against another production."""
    record = staging.track_record
    return None if record is None or record.production != production.version else record.with_gains(gains)


def _verdict(
    *,
    validation: pd.DataFrame,
    production: Appraisal,
    staging: Appraisal,
    gain: Interval | None,
    record: TrackRecord | None,
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
    if staging.version == production.version:
        return Verdict.UNCHANGED, (
            f"the candidate is the version in production, {production.version}: no lesson since has made it better on "
            "a month's last days",
        )
    if is_unchanged:
        return Verdict.UNCHANGED, (
            f"versions {production.version} and {staging.version} predict the same on each of the "
            f"{staging.contender.scores.trips} trips, so there is nothing to decide",
        )
    return weighed(gain, None if record is None else record.gains.all, objections, settings)


def weighed(
    gain: Interval, record: Gains | None, objections: Sequence[Objection], settings: GateSettings
) -> tuple[Verdict, tuple[str, ...]]:
    """Returns the verdict on two models that were compared, and why.

    Args:
        gain: On the validation trips.
        record: The candidate's since it last started from production, validation trips included; None where there is
            none.
        objections: What speaks against staging.
        settings: Give the least useful gain.
    """
    unit, least = settings.target_facts.unit, settings.minimum_gain
    lately = f"on the month's last days: {describe_gain(gain, unit)}"
    so_far = None if record is None else record.interval
    at_all = "" if record is None else f"on the {record.rides:,} rides since production came in: "
    at_all += "" if so_far is None else describe_gain(so_far, unit)
    if (gain if so_far is None else so_far).high < 0:
        return Verdict.REJECT, (f"staging is worse {at_all or lately}",)
    is_better_lately = gain.low > least
    is_better_so_far = so_far is not None and so_far.low > least * RECORD_SHARE
    if not is_better_lately and not (is_better_so_far and gain.mean > 0):
        reasons = [f"a gain of at least {least:.2f} {unit} a trip is not shown {lately}"]
        if is_better_so_far:
            reasons.append(f"staging is better {at_all}; but the last days do not agree")
        elif so_far is not None:
            reasons.append(f"nor is one of at least {least * RECORD_SHARE:.3f} {unit} {at_all}")
        return Verdict.HOLD, tuple(reasons)
    if objections:
        return Verdict.HOLD, tuple(objection.reason for objection in objections)
    shown = [(is_better_lately, lately), (is_better_so_far, at_all)]
    return Verdict.PROMOTE, tuple(f"staging is better {where}" for is_shown, where in shown if is_shown)


def under_standing_approval(evidence: Evidence, settings: GateSettings) -> tuple[StandingAnswer, tuple[str, ...]]:
    """Returns what follows from the evidence on a month under a standing approval, and why.

    `promote` where the candidate is surely better, however little – on the last days by more than the least useful
    gain, or on the track record at all and by half of that gain on average – and nothing that is checked is surely
    worse. `keep` where it is not surely better: there is nothing to decide. `ask` a person where it is better overall
    but something speaks against it, or where the comparison cannot tell. Objections are found by the tolerances in
    force, which may not be those of the comparison. Why not whatever is not worse: docs/decisions.md, under gate.

    Args:
        evidence: Of the month.
        settings: Give the least useful gain and the tolerances.
    """
    if evidence.verdict in {Verdict.UNCHANGED, Verdict.REJECT}:
        return "keep", evidence.reasons
    production, record = evidence.production, evidence.track_record
    if evidence.gain is None or production is None or record is None or evidence.verdict is Verdict.LEAK:
        return "ask", evidence.reasons
    so_far, least = record.gains.all.interval, settings.minimum_gain
    is_better_so_far = so_far.low > 0 and so_far.mean > least * RECORD_SHARE and evidence.gain.mean > 0
    if not (evidence.gain.low > least or is_better_so_far):
        return "keep", (f"the candidate is not surely better: {'; '.join(evidence.reasons)}",)
    objections = evidence.objections or _objections(production, evidence.staging, record.gains, settings)
    if objections:
        return "ask", tuple(objection.reason for objection in objections)
    unit = evidence.unit
    return "promote", (
        f"nothing that is checked is worse, and staging is better since production came in: "
        f"{describe_gain(so_far, unit)}; on the month's last days: {describe_gain(evidence.gain, unit)}",
    )


def _objections(
    production: Contender, staging: Contender, gains: SlicedGains, settings: GateSettings
) -> tuple[Objection, ...]:
    """Returns what speaks against staging beyond its tolerance: slices that surely get worse, a bias that grows.

    The biases are those of corrected predictions: an overpriced production hides the bias that every model of the
    median has, and a renewal that corrects the prices would be put on HOLD for it.
    """
    unit, setting = settings.target_facts.unit, settings.slice_tolerance
    objections = tuple(
        Objection(
            about="slice",
            name=name,
            reason=(
                f"{name} trips get worse: {describe_gain(part.interval, unit)} on {part.rides:,} trips, "
                f"tolerated are {tolerance_of(name, setting):.2f} {unit}"
            ),
        )
        for name, part in gains.slices.items()
        if part.rides >= MINIMUM_SLICE_TRIPS and part.interval.high < -tolerance_of(name, setting)
    )
    before, after = production.corrected.bias, staging.corrected.bias
    if abs(after) - abs(before) <= settings.bias_tolerance:
        return objections
    reason = (
        f"the bias of corrected predictions grows from {before:+.2f} to {after:+.2f} {unit} a trip, "
        f"tolerated are {settings.bias_tolerance:.2f} {unit}"
    )
    return (*objections, Objection(about="bias", name="bias", reason=reason))


def _predictions(predictions: pd.Series, validation: pd.DataFrame, contender: Contender, whose: str) -> FloatArray:
    """Returns the predictions in the order of the validation trips; a comparison on other trips is an error.

    Keys alone are not enough: where a source has none they are numbers, and a restated month has the same ones. So the
    scores on record must be those of the predictions on the trips as they are now.
    """
    keys = pd.Index(validation["key"])
    predicted = pd.Index(predictions.index)
    is_same = keys.equals(predicted)
    if not is_same and (
        len(keys) != len(predicted) or not keys.sort_values().equals(predicted.sort_values().astype(keys.dtype))
    ):
        raise EvaluationError(
            f"{whose} was scored on other trips: expected the {len(keys)} validation trips, received predictions "
            f"for {len(predicted)}, {len(keys.intersection(predicted))} of them the same"
        )
    predicted = predictions_of(validation, predictions).astype(np.float64)
    mae = score(predicted, validation["target"].to_numpy(np.float64)).mae
    if not math.isclose(mae, contender.scores.mae, rel_tol=1e-6, abs_tol=1e-6):
        raise EvaluationError(
            f"{whose} was scored on other trips: version {contender.version} has an MAE of "
            f"{contender.scores.mae:.6f} on record and {mae:.6f} on these; score it again"
        )
    return predicted
