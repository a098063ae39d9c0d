"""Policies: what is decided in a person's place, by APPROVAL_POLICY and by what a person has agreed to.

It is derived each time from the evidence, the standing approval in force and the settings; `approvals` carries it out.
What a person has taken out of production, only a person puts back.
"""

from collections.abc import Collection
from dataclasses import dataclass

from taxifare.approval.decisions import by_verdict
from taxifare.approval.records import Comparison, Decision, Request, readable
from taxifare.approval.standing import StandingRecord, terms_of
from taxifare.gate.verdict import under_standing_approval
from taxifare.settings import Settings

GATE = "policy gate"
"""Who decides, according to the ledger, where APPROVAL_POLICY=gate."""


@dataclass(frozen=True)
class PolicyDecision:
    """What a policy decides.

    Attributes:
        decision: Approve or reject.
        by: Who decides, according to the ledger.
        reason: Why.
        standing_id: The standing approval that it rests on, if any.
    """

    decision: Decision
    by: str
    reason: str
    standing_id: str | None = None


def decision_on(
    about: Comparison | Request, standing: StandingRecord, rolled_back: Collection[str], settings: Settings
) -> PolicyDecision | None:
    """Returns what the policy decides on evidence, None where a person has to.

    A person also has to where the policy would approve a version that was rolled back, or a first one after all were,
    and where another release has written the evidence in a form that this one cannot read.

    Args:
        about: What is asked.
        standing: The standing approvals on record.
        rolled_back: The versions that a rollback took out of production, see `promotions.rolled_back`.
        settings: Give the policy and its terms.
    """
    ruled = _by_evidence(about, standing, settings)
    is_back = about.staging_version in rolled_back or (about.production_version is None and len(rolled_back) > 0)
    return None if ruled is not None and ruled.decision == "approve" and is_back else ruled


def _by_evidence(about: Comparison | Request, standing: StandingRecord, settings: Settings) -> PolicyDecision | None:
    """Returns what the policy decides on evidence, whatever became of the version; None where a person has to."""
    given = standing.covering(about.subject, terms_of(settings)) if settings.approval_policy == "standing" else None
    if settings.approval_policy != "gate" and given is None:
        return None
    if (evidence := readable(about)) is None:
        return None
    if given is None:
        return PolicyDecision(by_verdict(evidence.verdict), GATE, f"the verdict is {evidence.verdict}")
    answer, reasons = under_standing_approval(evidence, settings)
    if answer == "ask":
        return None
    decision: Decision = "approve" if answer == "promote" else "reject"
    return PolicyDecision(decision, f"standing approval {given.id}", "; ".join(reasons), given.id)


def decides_on(
    subject: str,
    comparison: Comparison | None,
    standing: StandingRecord,
    rolled_back: Collection[str],
    settings: Settings,
) -> bool:
    """Whether a policy decides on a subject, or will once it has been compared.

    Args:
        subject: The month, or `base`.
        comparison: Its last comparison, None where it has not been compared.
        standing: The standing approvals on record.
        rolled_back: The versions that a rollback took out of production.
        settings: Give the policy and its terms.
    """
    if comparison is not None:
        return decision_on(comparison, standing, rolled_back, settings) is not None
    is_covered = standing.covering(subject, terms_of(settings)) is not None
    return settings.approval_policy == "gate" or (settings.approval_policy == "standing" and is_covered)
