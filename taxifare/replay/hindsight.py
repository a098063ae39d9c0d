"""Hindsight: once all months are judged, every model is scored on every month, and decisions are held against that."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.scores import difficulty_of, mean_interval
from taxifare.replay.judging import JudgedMonth
from taxifare.replay.months import ReplayedMonth
from taxifare.replay.results import DatedRule, Model, MonthFacts, MonthUnderPolicy, Replay
from taxifare.replay.trainings import Trainings
from taxifare.settings import TrainingSettings
from taxifare.trips.cities import City
from taxifare.trips.editions import BASE


def in_hindsight(
    first_model: Model,
    months: Sequence[ReplayedMonth],
    judged: Sequence[JudgedMonth],
    trainings: Trainings,
    settings: TrainingSettings,
) -> Replay:
    """Returns the replay from the months as they were judged.

    Args:
        first_model: What every policy starts from.
        months: In order.
        judged: Each month under each policy, month by month.
        trainings: Give predictions.
        settings: City, target and challengers.
    """
    hindsight = _Hindsight(months, judged, trainings)
    policies = dict.fromkeys(one.policy for one in judged)
    return Replay(
        city=settings.city_facts.name,
        target=settings.target,
        currency=settings.city.currency.name,
        hundredth=settings.city.currency.hundredth,
        challengers=settings.challengers,
        base_seconds=first_model.seconds,
        months=tuple(map(_facts, months)),
        rules=_rules_in(months, settings.city_facts),
        models=tuple(hindsight.models),
        mae=tuple(tuple(row) for row in hindsight.mae.tolist()),
        decisions=tuple(hindsight.of(one) for policy in policies for one in judged if one.policy == policy),
    )


class _Hindsight:
    """Every model that was staged or in production, on every month.

    Attributes:
        models: By the month that they learned last.
        errors: By a model's key the absolute errors of all validation trips, shape (n,).
    """

    def __init__(self, months: Sequence[ReplayedMonth], judged: Sequence[JudgedMonth], trainings: Trainings) -> None:
        self._months = months
        self._order = {BASE: -1} | {str(month.month): number for number, month in enumerate(months)}
        found = {model.key: model for one in judged for model in (one.production, one.staging) if model is not None}
        targets = np.concatenate([month.targets for month in months])
        self.models = sorted(found.values(), key=lambda model: self._order[model.subject])
        self.errors: Mapping[str, npt.NDArray[np.float64]] = {
            model.key: np.abs(trainings.predictions(model)[:, 0] - targets) for model in self.models
        }

    @cached_property
    def mae(self) -> npt.NDArray[np.float64]:
        """Each model's error in each month, a row a model and a column a month."""
        rows = [month.rows for month in self._months]
        return np.array([[self.errors[model.key][of].mean() for of in rows] for model in self.models])

    def of(self, judged: JudgedMonth) -> MonthUnderPolicy:
        """Returns a month under a policy, held against the other models and the month that followed."""
        number = self._order[str(judged.month.month)]
        best = self._best_before(number)
        production_mae = self._mae_of(judged.production, number)
        evidence = judged.evidence
        return MonthUnderPolicy(
            policy=judged.policy,
            month=str(judged.month.month),
            production=judged.production.name,
            production_mae=production_mae,
            all_rides_mae=judged.all_rides_mae,
            staging=None if judged.staging is None else judged.staging.name,
            staging_mae=None if evidence is None else evidence.staging.scores.mae,
            gain=None if evidence is None else evidence.gain,
            verdict=None if evidence is None else evidence.verdict,
            is_asked=judged.is_asked,
            is_promoted=judged.is_promoted,
            reason=judged.reason,
            is_regretted=self._is_regretted(judged, number),
            best=best.name,
            regret=production_mae - self._mae_of(best, number),
            training_seconds=judged.training_seconds,
        )

    def _mae_of(self, model: Model, number: int) -> float:
        """Returns a model's error in the month of that number."""
        return float(self.mae[self.models.index(model), number])

    def _best_before(self, number: int) -> Model:
        """Returns the model with the least error in a month, of those that existed when it began."""
        existed = [model for model in self.models if self._order[model.subject] < number]
        return min(existed, key=lambda model: self._mae_of(model, number))

    def _is_regretted(self, judged: JudgedMonth, number: int) -> bool | None:
        """Returns whether the next month shows that the replaced model would surely have been better."""
        if not judged.is_promoted or judged.staging is None or number + 1 == len(self._months):
            return None
        rows = self._months[number + 1].rows
        gains = self.errors[judged.production.key][rows] - self.errors[judged.staging.key][rows]
        return mean_interval(gains).high < 0


def _facts(month: ReplayedMonth) -> MonthFacts:
    """Returns how large and how hard a month is."""
    return MonthFacts(
        month=str(month.month),
        trips=len(month.trips.frame),
        validation_trips=len(month.targets),
        difficulty_mae=difficulty_of(month.trips),
    )


def _rules_in(months: Sequence[ReplayedMonth], city: City) -> tuple[DatedRule, ...]:
    """Returns the city's rules that came into force in these months."""
    first, end = months[0].month.start_time, (months[-1].month + 1).start_time
    return tuple(
        DatedRule(since=rule.since, description=rule.description)
        for rule in city.rules
        if first <= pd.Timestamp(rule.since) < end
    )
