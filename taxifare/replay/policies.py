"""Policies: who promotes what; each is a rule from the evidence on a month to a decision and its reason."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from taxifare.gate.evidence import Evidence, Verdict

PolicyName = Literal["gate", "always", "never", "naive", "threshold"]

COURSE_THRESHOLD_USD = 2.5
"""Le Wagon's flow announces a new model `if new_mae < old_mae and new_mae < 2.5`."""


class ReplayError(ValueError):
    """A replay that cannot be: months without trips, or another one at work; says what was expected."""


Rule: TypeAlias = Callable[[Evidence], tuple[bool, str]]


def _gate(evidence: Evidence) -> tuple[bool, str]:
    return evidence.verdict is Verdict.PROMOTE, "; ".join(evidence.reasons)


def _always(evidence: Evidence) -> tuple[bool, str]:
    del evidence
    return True, "whatever the evidence says"


def _naive(evidence: Evidence) -> tuple[bool, str]:
    staging_mae, production_mae = evidence.staging.scores.mae, _production_mae(evidence)
    is_lower = staging_mae < production_mae
    return is_lower, f"{staging_mae:.3f} {evidence.unit} is {'' if is_lower else 'not '}less than {production_mae:.3f}"


def _threshold(evidence: Evidence) -> tuple[bool, str]:
    is_lower, why = _naive(evidence)
    is_good = evidence.staging.scores.mae < COURSE_THRESHOLD_USD
    return is_lower and is_good, f"{why}, and {'' if is_good else 'not '}less than {COURSE_THRESHOLD_USD}"


def _production_mae(evidence: Evidence) -> float:
    if evidence.production is None:
        raise ReplayError(f"{evidence.subject}: expected a production model that was scored, received none")
    return evidence.production.scores.mae


_RULES: Mapping[PolicyName, Rule] = {"gate": _gate, "always": _always, "naive": _naive, "threshold": _threshold}
