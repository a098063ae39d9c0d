"""Judging a month under a policy, on what was known then: contest, evidence, and what the policy makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from taxifare.gate.evidence import Appraisal, Evidence, contend
from taxifare.gate.slices import sliced_gains
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.replay.months import ReplayedMonth
from taxifare.replay.policies import Policy
from taxifare.replay.results import Model
from taxifare.replay.store import TrainingResult
from taxifare.replay.trainings import Trainings
from taxifare.settings import GateSettings
from taxifare.training.challengers import choose


@dataclass(frozen=True)
class Situation:
    """How things stand under a policy when a month begins.

    Attributes:
        production: What it has in production.
        candidate: What goes on learning; production itself before it has learned anything.
        record: The candidate's track record against production.
    """

    production: Model
    candidate: Model
    record: TrackRecord


@dataclass(frozen=True)
class JudgedMonth:
    """A month under a policy, as it was seen then.

    Attributes:
        policy: Who decided.
        month: The month.
        production: What was in production.
        all_rides_mae: Its error on all rides of the month.
        staging: The candidate after the month, None where nothing was trained.
        evidence: How the two compare, None where nothing was trained.
        is_asked: Whether a person was asked.
        is_promoted: Whether staging became production.
        reason: Why, in words.
        training_seconds: What the policy's trainings took.
    """

    policy: str
    month: ReplayedMonth
    production: Model
    all_rides_mae: float
    staging: Model | None
    evidence: Evidence | None
    is_asked: bool
    is_promoted: bool
    reason: str
    training_seconds: float

    @property
    def next(self) -> Situation | None:
        """How things stand after the month, None where they stand as before."""
        if self.staging is None or self.evidence is None:
            return None
        if self.is_promoted:
            return Situation(self.staging, self.staging, TrackRecord(production=self.staging.name))
        record = self.evidence.track_record
        if record is None:
            return Situation(self.production, self.production, TrackRecord(production=self.production.name))
        goes_on = record.candidate == self.staging.name
        return Situation(self.production, self.staging if goes_on else self.production, record)


def judge_month(
    name: str,
    policy: Policy,
    month: ReplayedMonth,
    situation: Situation,
    contest: Sequence[TrainingResult],
    trainings: Trainings,
    settings: GateSettings,
) -> JudgedMonth:
    """Returns what becomes of a month under a policy.

    Args:
        name: The policy's.
        policy: Who decides.
        month: The month.
        situation: How things stand when it begins.
        contest: The month's challengers, the one that stays in doubt first; none under a policy that trains nothing.
        trainings: Give predictions.
        settings: The verdict's tolerances, city and target.
    """
    production = situation.production
    mae = _all_rides_mae(production, month, trainings)
    if policy.rule is None:
        return JudgedMonth(name, month, production, mae, None, None, False, False, "nothing is trained", 0.0)
    staging = choose(contest)[0].model
    if not policy.takes_every_lesson and _error(staging, month, trainings) >= _error(
        situation.candidate, month, trainings
    ):
        staging = situation.candidate
    (production_appraisal, production_predicted), (staging_appraisal, staging_predicted) = (
        _appraisal(model, month, trainings) for model in (production, staging)
    )
    record = _record(situation, staging, month, trainings, settings) if policy.goes_on else None
    evidence = policy.judge(
        trips=month.trips,
        production=production_appraisal,
        production_predicted=production_predicted,
        staging=staging_appraisal.model_copy(update={"track_record": record}),
        staging_predicted=staging_predicted,
        settings=settings,
    )
    is_promoted, reason = policy.rule(evidence, settings)
    is_asked = policy.asks is not None and policy.asks(evidence, settings)
    seconds = _training_seconds(contest, month)
    return JudgedMonth(name, month, production, mae, staging, evidence, is_asked, is_promoted, reason, seconds)


def _error(model: Model, month: ReplayedMonth, trainings: Trainings) -> float:
    """Returns the model's mean absolute error on the month's validation trips."""
    return float(np.abs(trainings.predictions(model)[month.rows, 0] - month.targets).mean())


def _all_rides_mae(model: Model, month: ReplayedMonth, trainings: Trainings) -> float:
    """Returns the model's mean absolute error on all trips of the month."""
    before = np.abs(trainings.prices(model, month) - month.trips.training["target"].to_numpy(np.float64))
    after = np.abs(trainings.predictions(model)[month.rows, 0] - month.targets)
    return float(np.concatenate([before, after]).mean())


def _record(
    situation: Situation, staging: Model, month: ReplayedMonth, trainings: Trainings, settings: GateSettings
) -> TrackRecord:
    """Returns the candidate's record with the month's training trips, which it priced before it learned from them."""
    production, candidate = (trainings.prices(model, month) for model in (situation.production, situation.candidate))
    gains = sliced_gains(production, candidate, month.trips.training, settings.city_facts)
    edition = month.trips.edition
    return situation.record.followed_by(
        MonthOnRecord(month=edition.subject, revision=edition.revision, candidate=staging.name, gains=gains)
    )


def _training_seconds(contest: Sequence[TrainingResult], month: ReplayedMonth) -> float:
    """Returns what the challengers took; a retraining is paid for in the month that it is first a challenger."""
    before = str(month.month - 1)
    retrained = [result.model for result in contest if result.name == "whole month" and result.model.subject == before]
    return sum(result.seconds for result in contest) + sum(model.seconds for model in retrained)


def _appraisal(model: Model, month: ReplayedMonth, trainings: Trainings) -> tuple[Appraisal, pd.Series]:
    """Returns what came of scoring a model on a month, and its predictions by trip key."""
    predicted, corrected = trainings.predictions(model)[month.rows].T
    contender = contend(model.name, "replay", predicted, corrected, month.targets)
    appraisal = Appraisal(version=model.name, contender=contender, exposure=model.exposure)
    return appraisal, pd.Series(predicted, index=month.trips.validation["key"])
