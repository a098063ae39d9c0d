"""Policies: who promotes what; a rule goes from the evidence on a month to whether staging is promoted, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from taxifare.gate.evidence import Evidence, Verdict
from taxifare.replay.errors import ReplayError

PolicyName = Literal["gate", "always", "never", "naive", "threshold"]

PolicyRule: TypeAlias = Callable[[Evidence], tuple[bool, str]]

COURSE_THRESHOLD_USD = 2.5
"""Le Wagon's flow announces a new model `if new_mae < old_mae and new_mae < 2.5`."""


@dataclass(frozen=True)
class Policy:
    """A way to decide.

    Attributes:
        meaning: What it does, for people.
        rule: How it decides; None where nothing is trained, so that there is nothing to decide.
    """

    meaning: str
    rule: PolicyRule | None


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


POLICIES: Mapping[PolicyName, Policy] = {
    # What a person does who follows the evidence.
    "gate": Policy(
        "promotes when the verdict is PROMOTE: surely better, by enough to matter, and no kind of trip worse", _gate
    ),
    "always": Policy("promotes every month's model", _always),
    "never": Policy("keeps the first model and trains nothing", None),
    "naive": Policy("promotes whatever has the lower error, by however little", _naive),
    "threshold": Policy(
        f"the course's rule: promotes what has the lower error, if that is below {COURSE_THRESHOLD_USD:.2f} USD",
        _threshold,
    ),
}
