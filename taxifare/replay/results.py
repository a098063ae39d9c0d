"""What a replay found, as plain values that go into the lake and onto pages."""

from datetime import date

import numpy as np

from taxifare.gate.evidence import Verdict
from taxifare.gate.scores import Interval
from taxifare.model.exposure import Exposure
from taxifare.settings import ChallengerName
from taxifare.trips.city_files import Currency
from taxifare.trips.targets import Target, TargetName, in_currency
from taxifare.values import Frozen


class Model(Frozen):
    """A network that was trained in a replay.

    Attributes:
        key: Of the training it came of.
        name: What people read: the month it learned last and the way it was renewed.
        subject: That month, or `base`.
        lineage: Key of the training from random weights that it descends from.
        parent: Name of the model that it continues, None where it began from random weights.
        exposure: What it has been trained on.
        correction_share: How far towards its upper predictions it offers to go against its bias.
        seconds: What its training took.
    """

    key: str
    name: str
    subject: str
    lineage: str
    parent: str | None
    exposure: tuple[Exposure, ...]
    correction_share: float
    seconds: float


class MonthFacts(Frozen):
    """A month: its clean trips, those that models are judged by, and the error of a flat per-km rate on them."""

    month: str
    trips: int
    validation_trips: int
    difficulty_mae: float


class DatedRule(Frozen):
    """A dated rule that came into force in the months."""

    since: date
    description: str


class MonthUnderPolicy(Frozen):
    """What became of a month under a policy.

    Attributes:
        policy: Who decided.
        month: When; what was decided holds from the next month on.
        production: Name of the model that priced the month's rides.
        production_mae: Its error on the validation trips.
        all_rides_mae: Its error on all rides of the month.
        staging: Name of the candidate after the month, None where nothing was trained.
        staging_mae: Its error.
        gain: Staging against production, per trip.
        verdict: What the evidence said, whoever decided.
        is_asked: Whether a person was asked.
        is_promoted: Whether staging became production.
        reason: Why, in words.
        is_regretted: Whether the next month showed that the replaced model would surely have been better; None where
            nothing was promoted, or where there is no next month. No policy goes back by itself: a person might have.
        best: Name of the model with the least error among those that existed when the month began.
        regret: How much less that one's error was than production's.
        training_seconds: What the policy's trainings took that month.
    """

    policy: str
    month: str
    production: str
    production_mae: float
    all_rides_mae: float
    staging: str | None
    staging_mae: float | None
    gain: Interval | None
    verdict: Verdict | None
    is_asked: bool
    is_promoted: bool
    reason: str
    is_regretted: bool | None
    best: str
    regret: float
    training_seconds: float


class Summary(Frozen):
    """A policy over all months.

    Attributes:
        policy: Which one.
        mean_mae: Mean of the months' errors on their validation trips.
        mae_per_trip: Error a ride of all months, on all rides.
        total: The errors of all rides together, in the target's unit, see `Target.total`.
        questions: How often a person was asked.
        promotions: How often production was replaced.
        regretted: How many of these the next month regretted, see `MonthUnderPolicy`.
        mean_regret: Mean of the months' regrets.
        training_seconds: What its trainings took, shared ones included.
    """

    policy: str
    mean_mae: float
    mae_per_trip: float
    total: float
    questions: int
    promotions: int
    regretted: int
    mean_regret: float
    training_seconds: float


class Replay(Frozen):
    """What would have happened.

    Attributes:
        city: Its name.
        target: What was predicted; gives the unit of all errors, which for fares is the city's currency.
        currency: Its code.
        hundredth: What a hundredth of it is called, None where nobody counts in those.
        challengers: The ways to renew that competed.
        base_seconds: What the first model's training took, which every policy starts from.
        months: In order.
        rules: Dated rules that came into force in these months, in order.
        models: Every model that was staged or in production under a policy, by the month it learned last.
        mae: Its error on every month's validation trips, a row a model and a column a month.
        decisions: By policy, then by month.
    """

    city: str
    target: TargetName
    # Replays of before were of cities of dollars.
    currency: str = "USD"
    hundredth: str | None = "cents"
    challengers: tuple[ChallengerName, ...]
    base_seconds: float
    months: tuple[MonthFacts, ...]
    rules: tuple[DatedRule, ...]
    models: tuple[Model, ...]
    mae: tuple[tuple[float, ...], ...]
    decisions: tuple[MonthUnderPolicy, ...]

    @property
    def target_facts(self) -> Target:
        """The target's unit and words."""
        return in_currency(self.target, Currency(self.currency, self.hundredth))

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies, in the order they were asked for."""
        return tuple(dict.fromkeys(decision.policy for decision in self.decisions))

    def decisions_of(self, policy: str) -> tuple[MonthUnderPolicy, ...]:
        """Returns what a policy decided, a decision a month."""
        return tuple(decision for decision in self.decisions if decision.policy == policy)

    def summary(self, policy: str) -> Summary:
        """Returns a policy over all months."""
        decisions = self.decisions_of(policy)
        maes = np.array([decision.production_mae for decision in decisions])
        trips = np.array([facts.trips for facts in self.months])
        total = float(np.array([decision.all_rides_mae for decision in decisions]) @ trips)
        return Summary(
            policy=policy,
            mean_mae=float(maes.mean()),
            mae_per_trip=total / int(trips.sum()),
            total=total,
            questions=sum(decision.is_asked for decision in decisions),
            promotions=sum(decision.is_promoted for decision in decisions),
            regretted=sum(bool(decision.is_regretted) for decision in decisions),
            mean_regret=float(np.mean([decision.regret for decision in decisions])),
            training_seconds=sum(decision.training_seconds for decision in decisions),
        )
