"""Policies: who promotes what; a rule goes from the evidence on a month to whether staging is promoted, and why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from taxifare.gate.evidence import Evidence, Verdict
from taxifare.gate.verdict import judge, under_standing_approval
from taxifare.replay.errors import ReplayError
from taxifare.settings import GateSettings

PolicyName = Literal["gate", "standing", "always", "never", "naive", "threshold"]

PolicyRule: TypeAlias = Callable[[Evidence, GateSettings], tuple[bool, str]]

COURSE_THRESHOLD_USD = 2.5
"""Le Wagon's flow announces a new model `if new_mae < old_mae and new_mae < 2.5`."""


@dataclass(frozen=True)
class Policy:
    """A way to decide.

    Attributes:
        meaning: What it does, for people.
        rule: How it decides; None where nothing is trained, so that there is nothing to decide.
        asks: Whether a person is asked about a comparison; None where nobody is.
        takes_every_lesson: Whether the candidate is the month's lesson even where that makes it worse.
        judge: From predictions to the evidence; another one than the project's for comparison only.
        goes_on: Whether a candidate that was not promoted learns the next month, or begins anew from production.
    """

    meaning: str
    rule: PolicyRule | None
    asks: Callable[[Evidence, GateSettings], bool] | None = None
    takes_every_lesson: bool = False
    judge: Callable[..., Evidence] = judge
    goes_on: bool = True


def _gate(evidence: Evidence, settings: GateSettings) -> tuple[bool, str]:
    del settings
    return evidence.verdict is Verdict.PROMOTE, "; ".join(evidence.reasons)


def _standing(evidence: Evidence, settings: GateSettings) -> tuple[bool, str]:
    answer, reasons = under_standing_approval(evidence, settings)
    return answer == "promote", "; ".join(reasons)


def _always(evidence: Evidence, settings: GateSettings) -> tuple[bool, str]:
    del evidence, settings
    return True, "whatever the evidence says"


def _naive(evidence: Evidence, settings: GateSettings) -> tuple[bool, str]:
    del settings
    staging_mae, production_mae = evidence.staging.scores.mae, _production_mae(evidence)
    is_lower = staging_mae < production_mae
    return is_lower, f"{staging_mae:.3f} {evidence.unit} is {'' if is_lower else 'not '}less than {production_mae:.3f}"


def _threshold(evidence: Evidence, settings: GateSettings) -> tuple[bool, str]:
    is_lower, why = _naive(evidence, settings)
    is_good = evidence.staging.scores.mae < COURSE_THRESHOLD_USD
    return is_lower and is_good, f"{why}, and {'' if is_good else 'not '}less than {COURSE_THRESHOLD_USD}"


def _is_question(evidence: Evidence, settings: GateSettings) -> bool:
    del settings
    return evidence.verdict is not Verdict.UNCHANGED


def _is_left_to_a_person(evidence: Evidence, settings: GateSettings) -> bool:
    return under_standing_approval(evidence, settings)[0] == "ask"


def _production_mae(evidence: Evidence) -> float:
    if evidence.production is None:
        raise ReplayError(f"{evidence.subject}: expected a production model that was scored, received none")
    return evidence.production.scores.mae


POLICIES: Mapping[str, Policy] = {
    # What a person does who follows the evidence.
    "gate": Policy(
        "promotes when the verdict is PROMOTE: surely better, by enough to matter, and no kind of trip worse",
        _gate,
        asks=_is_question,
    ),
    "standing": Policy(
        "promotes under a standing approval: surely better by however little, and nothing that is checked worse; a "
        "person is asked where something is, and for the approval itself once a term",
        _standing,
        asks=_is_left_to_a_person,
    ),
    "always": Policy("promotes every month's model", _always, takes_every_lesson=True),
    "never": Policy("keeps the first model and trains nothing", None),
    "naive": Policy("promotes whatever has the lower error, by however little", _naive),
    "threshold": Policy(
        f"the course's rule: promotes what has the lower error, if that is below {COURSE_THRESHOLD_USD:.2f} USD",
        _threshold,
    ),
}


def policies_of(names: Iterable[PolicyName]) -> dict[str, Policy]:
    """Returns the policies of these names, each once, in their order."""
    return {name: POLICIES[name] for name in names}
