"""Months as people look back on them: what was compared, what came of the question, how far off both models were."""

from dataclasses import dataclass

from taxifare.approval import requests
from taxifare.approval.due import Known
from taxifare.approval.promotions import taken_out_since
from taxifare.approval.records import Comparison, Outcome, Promotion, Request, readable
from taxifare.gate.evidence import Evidence, Verdict
from taxifare.texts import one_line

TO_BE_ASKED = "to be asked"
"""What came of a comparison that a question is due about."""


@dataclass(frozen=True)
class ComparedMonth:
    """A subject that was compared.

    Attributes:
        comparison: The last one.
        evidence: What it found; None where another release has written it in a shape that this one cannot read.
        asked: The last question about it, None where nobody was asked.
        outcome: How that ended, None while it is open.
        taken_out: The rollback that has since taken out what was approved; None without one.
        decision: What came of it, in words.
    """

    comparison: Comparison
    evidence: Evidence | None
    asked: Request | None
    outcome: Outcome | None
    taken_out: Promotion | None
    decision: str

    @property
    def subject(self) -> str:
        """The month `YYYY-MM`, or `base`."""
        return self.comparison.subject

    @property
    def verdict(self) -> str:
        """What the evidence says."""
        return "unreadable" if self.evidence is None else self.evidence.verdict.value

    @property
    def production_mae(self) -> float | None:
        """Production's error a ride; None where nothing was in production, or it could not be scored."""
        scored = None if self.evidence is None else self.evidence.production
        return None if scored is None else scored.scores.mae

    @property
    def staging_mae(self) -> float | None:
        """Staging's error a ride on the same rides."""
        return None if self.evidence is None else self.evidence.staging.scores.mae


def months_on_record(known: Known) -> list[ComparedMonth]:
    """Returns every subject that was compared, the base model first, then month by month."""
    found = []
    for comparison in sorted(known.comparisons.values(), key=requests.by_subject):
        evidence, asked = readable(comparison), known.round_on(comparison)
        outcome = None if asked is None else known.ends.get(asked.id)
        out = None if asked is None else taken_out_since(asked, outcome, known.rolled_back)
        decision = _decision(comparison, evidence, asked, outcome, out, known.production)
        found.append(ComparedMonth(comparison, evidence, asked, outcome, out, decision))
    return found


def ending(outcome: Outcome, taken_out: Promotion | None) -> str:
    """Returns how a question ended, in words as few as a line has room for, and by whom.

    Args:
        outcome: How it ended.
        taken_out: The rollback that has since taken out what was approved; None without one.
    """
    if taken_out is not None:
        return f"approved, taken out by {one_line(taken_out.by)}"
    return f"{outcome.state} by {one_line(outcome.by)}" if outcome.by else str(outcome.state)


def _decision(
    comparison: Comparison,
    evidence: Evidence | None,
    asked: Request | None,
    outcome: Outcome | None,
    taken_out: Promotion | None,
    production: str | None,
) -> str:
    """Returns what came of the question, in words."""
    if outcome is not None:
        return ending(outcome, taken_out)
    if asked is not None:
        return "waits for an answer"
    if evidence is not None and evidence.verdict is Verdict.UNCHANGED:
        return "nothing to decide"
    return TO_BE_ASKED if requests.makes_sense(comparison, production) else "overtaken"
