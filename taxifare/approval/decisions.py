"""Decisions: who may answer a request, and what an answer does to it.

Rules over the ledger's entries within one transaction; `approvals` opens it, and tells the registry afterwards.
"""

from datetime import datetime

from taxifare.approval import promotions, requests
from taxifare.approval.errors import AgainstVerdictError, SettledError
from taxifare.approval.ledger import Entries
from taxifare.approval.records import Decision, Outcome, Question, Request, RequestState
from taxifare.gate.evidence import Verdict

APPROVABLE = frozenset({Verdict.PROMOTE, Verdict.COLD_START})

BY_VERDICT = "approve the base model and every PROMOTE, reject the rest"
"""What `by_verdict` does, in words."""


def by_verdict(verdict: Verdict) -> Decision:
    """Returns what the evidence alone says: approve what it supports, reject the rest.

    >>> by_verdict(Verdict.PROMOTE), by_verdict(Verdict.HOLD)
    ('approve', 'reject')
    """
    return "approve" if verdict in APPROVABLE else "reject"


def command(asked: Question, decision: Decision) -> str:
    """Returns the command that gives this answer; approving against the verdict takes an override."""
    is_against = decision == "approve" and isinstance(asked, Request) and asked.verdict not in APPROVABLE
    override = " --override" if is_against else ""
    return f'taxifare decide {asked.id} --{decision}{override} --by YOU --reason "WHY"'


def decide(
    entries: Entries, request: Request, decision: Decision, by: str, reason: str, now: datetime, *, override: bool
) -> Outcome:
    """Returns the outcome, recorded; with an approval, the promotion is recorded, too.

    The same decision by the same person again is the same decision. None is dated before its question: where the clock
    was set back, it gets the question's time.

    Raises:
        SettledError: Decided already, expired, or void because production, staging or the month changed.
        AgainstVerdictError: The evidence does not support it, and there is no override.
    """
    state = RequestState.APPROVED if decision == "approve" else RequestState.REJECTED
    settled = entries.outcome(request.id)
    if settled is not None:
        if (settled.state, settled.by) == (state, by):
            return settled
        raise SettledError(settled)
    closed = requests.overtaken(request, promotions.production(entries), now)
    if closed is not None:
        entries.settle(closed)
        raise SettledError(closed)
    if decision == "approve" and request.verdict not in APPROVABLE and not override:
        raise AgainstVerdictError(
            f"the verdict on {request.id} is {request.verdict}; approving it takes an override, and a reason that says "
            "why: --override of taxifare decide, or override: true on the page"
        )
    now = max(now, request.requested_at)
    outcome = Outcome(request.id, state, by, reason, override, now)
    entries.settle(outcome)
    if decision == "approve":
        promotions.promote(entries, request.staging_version, now, by=by, reason=reason, request=request)
    return outcome
