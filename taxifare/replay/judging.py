"""Judging a month under a policy, on what was known then: contest, evidence, and what the policy makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from taxifare.gate.evidence import Appraisal, Evidence, contend
from taxifare.gate.verdict import judge
from taxifare.replay.months import ReplayedMonth
from taxifare.replay.policies import POLICIES, PolicyName
from taxifare.replay.results import Model
from taxifare.replay.store import TrainingResult
from taxifare.replay.trainings import Trainings
from taxifare.settings import GateSettings
from taxifare.training.challengers import choose


@dataclass(frozen=True)
class JudgedMonth:
    """A month under a policy, as it was seen then.

    Attributes:
        policy: Who decided.
        month: The month.
        production: What was in production.
        staging: The challenger that was staged, None where none was trained.
        evidence: How the two compare, None where none was trained.
        is_promoted: Whether staging became production.
        reason: Why, in words.
        training_seconds: What the policy's trainings took.
    """

    policy: PolicyName
    month: ReplayedMonth
    production: Model
    staging: Model | None
    evidence: Evidence | None
    is_promoted: bool
    reason: str
    training_seconds: float


def judge_month(
    policy: PolicyName,
    month: ReplayedMonth,
    production: Model,
    contest: Sequence[TrainingResult],
    trainings: Trainings,
    settings: GateSettings,
) -> JudgedMonth:
    """Returns what becomes of a month under a policy.

    Args:
        policy: Who decides.
        month: The month.
        production: What the policy has in production.
        contest: The month's challengers, the one that stays in doubt first; none under a policy that trains nothing.
        trainings: Give predictions.
        settings: The verdict's tolerances, city and target.
    """
    rule = POLICIES[policy].rule
    if rule is None:
        return JudgedMonth(policy, month, production, None, None, False, "nothing is trained", 0.0)
    staging = choose(contest)[0].model
    (production_appraisal, production_predicted), (staging_appraisal, staging_predicted) = (
        _appraisal(model, month, trainings) for model in (production, staging)
    )
    evidence = judge(
        trips=month.trips,
        production=production_appraisal,
        production_predicted=production_predicted,
        staging=staging_appraisal,
        staging_predicted=staging_predicted,
        settings=settings,
    )
    is_promoted, reason = rule(evidence)
    seconds = _training_seconds(contest, month)
    return JudgedMonth(policy, month, production, staging, evidence, is_promoted, reason, seconds)


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
