"""Staleness: whether production misses what a model that has learned the month does not.

Both are judged on the same trips, so neither a hard month nor a season makes a model stale: the month's candidate is
subject to them as well. How a rise of the error is divided, and why that does not decide: docs/decisions.md, under
gate.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import pandas as pd

from taxifare.gate.evidence import Contender, Evidence
from taxifare.gate.scores import Interval, describe_saving, difficulty_of, skill
from taxifare.model.exposure import Exposure
from taxifare.texts import difference, parts_of
from taxifare.trips.cities import City, Rule
from taxifare.trips.editions import Trips
from taxifare.trips.targets import Unit
from taxifare.values import Frozen


class Baseline(Frozen):
    """How well a model did on a month: its MAE on the validation trips, and their difficulty."""

    mae: float
    difficulty_mae: float

    @property
    def skill(self) -> float:
        """Share of the reference's error that it avoided."""
        return skill(self.mae, self.difficulty_mae)

    @property
    def tags(self) -> dict[str, str]:
        """What a version's page in MLflow shows of it, for readers there and for a release gone back to.

        What a version was approved on is the ledger's; these move along with every month that keeps the version.
        """
        return {"skill": f"{self.skill:.6f}", "footing": self.model_dump_json()}


def baseline_of(trips: Trips, contender: Contender) -> Baseline:
    """Returns how well a contender did on the validation trips."""
    return Baseline(mae=contender.scores.mae, difficulty_mae=difficulty_of(trips))


def baseline_shown(evidence: Evidence | None) -> Baseline | None:
    """Returns how well a version did by the evidence that it was approved on; None where that is not on record."""
    if evidence is None:
        return None
    return Baseline(mae=evidence.staging.scores.mae, difficulty_mae=evidence.difficulty_mae)


class Rise(Frozen):
    """By how much more a model errs than when it was approved; less, where a number is negative.

    Attributes:
        then: How it did when it was approved.
        now: How it does on this month.
    """

    then: Baseline
    now: Baseline

    @property
    def whole(self) -> float:
        """How much more it errs."""
        return self.now.mae - self.then.mae

    @property
    def harder(self) -> float:
        """How much more it would err by the month's difficulty alone, had it kept its skill."""
        return (1 - self.then.skill) * (self.now.difficulty_mae - self.then.difficulty_mae)

    @property
    def staler(self) -> float:
        """How much more it errs because it has less skill: the rest."""
        return self.whole - self.harder

    @property
    def shown(self) -> tuple[float, float, float]:
        """`whole`, `harder` and `staler` as they stand beside the two errors, with two digits."""
        whole = difference(self.then.mae, self.now.mae)
        return whole, *parts_of(whole, self.harder, self.staler)

    def told(self, unit: Unit) -> str:
        """Returns it in words."""
        hardness = "harder" if self.harder >= 0 else "easier"
        fit = "less well" if self.staler >= 0 else "better"
        whole, harder, staler = self.shown
        return (
            f"The error went from {self.then.mae:.2f} to {self.now.mae:.2f} {unit} a ride ({whole:+.2f}): "
            f"{harder:+.2f} because the month is {hardness} for any model (a flat per-km rate is off by "
            f"{self.now.difficulty_mae:.2f} {unit}, was {self.then.difficulty_mae:.2f}), "
            f"{staler:+.2f} because the model fits it {fit} "
            f"(skill {self.now.skill:.1%}, was {self.then.skill:.1%})."
        )


class Change(Frozen):
    """Why the error of a model differs from what it was when it was approved, and whether the model is stale.

    Attributes:
        then: How it did when it was approved; None where that is not on record.
        now: How it does on this month.
        unit: Unit of the numbers.
        tolerance: The most skill that it may surely lack.
        attainable: What the month's candidate saves a trip on the same trips; None where that is not known.
        rules: Dated rules that have come into force since it was trained, in words.
    """

    then: Baseline | None
    now: Baseline
    unit: Unit
    tolerance: float
    attainable: Interval | None
    rules: tuple[str, ...] = ()

    def with_rules(self, rules: Sequence[str]) -> "Change":
        """Returns the same, with the dated rules that have come into force since the model was trained."""
        return self.model_copy(update={"rules": tuple(rules)})

    @property
    def rise(self) -> Rise | None:
        """How much more it errs, and why; None where it is not on record how it did when it was approved."""
        return None if self.then is None else Rise(then=self.then, now=self.now)

    @property
    def tolerated(self) -> float:
        """What the candidate may surely save a trip before the model is stale."""
        return self.tolerance * self.now.difficulty_mae

    @property
    def is_stale(self) -> bool:
        """Whether a model that has learned the month surely saves more than is tolerated; not while that is unknown."""
        return self.attainable is not None and self.attainable.low > self.tolerated

    @property
    def finding(self) -> str:
        """Whether it is stale, in words."""
        if self.attainable is None:
            return (
                "It is unknown whether the model is stale: the month's candidate was not scored on these rides. "
                "Materialize staging_model, then run this check again."
            )
        if self.attainable == Interval(mean=0.0, low=0.0, high=0.0):
            return (
                "The model is not stale: the month's candidate is the model itself, for nothing trained on the month "
                "was closer on the same rides."
            )
        return (
            f"The model is {'' if self.is_stale else 'not '}stale: on the same rides the month's candidate "
            f"{describe_saving(self.attainable, self.unit)}; tolerance: {self.tolerated:.3f} {self.unit}."
        )

    @property
    def sentence(self) -> str:
        """The change in words."""
        unknown = f"The error is {self.now.mae:.2f} {self.unit} a ride; what it was at its approval is not on record."
        parts = (
            unknown if self.rise is None else self.rise.told(self.unit),
            self.finding,
            f"Fare rules that changed since training: {'; '.join(self.rules)}." if self.rules else "",
        )
        return " ".join(part for part in parts if part)


def change_shown(evidence: Evidence, approved: Evidence | None, tolerance: float) -> Change | None:
    """Returns why production errs more or less on a month than when it was approved; None where it was not scored.

    Args:
        evidence: Of the month.
        approved: On which production was approved; None where that is not on record.
        tolerance: The most skill that it may surely lack before it is stale.
    """
    if evidence.production is None:
        return None
    return Change(
        then=baseline_shown(approved),
        now=Baseline(mae=evidence.production.scores.mae, difficulty_mae=evidence.difficulty_mae),
        unit=evidence.unit,
        tolerance=tolerance,
        attainable=evidence.gain,
    )


def explain_change(
    then: Baseline | None,
    now: Baseline,
    exposure: Sequence[Exposure],
    validation: pd.DataFrame,
    city: City,
    unit: Unit,
    tolerance: float,
    attainable: Interval | None,
) -> Change:
    """Returns why a model errs more or less than when it was approved, and whether it is stale.

    Args:
        then: How it did when it was approved; None where that is not on record.
        now: How it does on the validation trips.
        exposure: What it has been trained on.
        validation: The validation trips.
        city: Gives the dated rules.
        unit: Unit of the errors.
        tolerance: The most skill that it may surely lack before it is stale.
        attainable: What the month's candidate saves a trip on the validation trips; None where that is not known.
    """
    return Change(
        then=then,
        now=now,
        unit=unit,
        tolerance=tolerance,
        attainable=attainable,
        rules=rules_in_words(
            rules_between(max(entry.last_pickup for entry in exposure), validation["pickup_datetime"].max(), city)
        ),
    )


def rules_between(learned: datetime, until: datetime, city: City) -> tuple[Rule, ...]:
    """Returns the dated rules that came into force after what a model learned last, up to a moment.

    Args:
        learned: The last pickup that it learned, on the city's clock.
        until: The moment, on the same clock.
        city: Gives the rules.
    """
    return tuple(rule for rule in city.rules if learned < pd.Timestamp(rule.since) <= until)


def rules_in_words(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Returns each rule with its date."""
    return tuple(f"{rule.since} {rule.description}" for rule in rules)
