"""Standing approvals: a person agrees once that for some months the candidate's lessons become production unasked.

`gate.verdict.under_standing_approval` says what may become production; this module says who agreed to it, for which
months and on which terms, and what ends it: a rollback, a promotion that was regretted, a person, its last month, or
terms that differ from those which the person saw. Rules over the ledger's entries within one transaction, which
`approvals` opens.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from taxifare.approval.errors import ApprovalError, SettledError
from taxifare.approval.ledger import Entries
from taxifare.approval.records import (
    Comparison,
    Decision,
    Outcome,
    RequestState,
    ReviewedMonth,
    StandingEnd,
    StandingEvidence,
    StandingRequest,
    Terms,
    as_kept,
    readable,
)
from taxifare.approval.requests import ensure_signed
from taxifare.approval.tokens import spend, to_answer
from taxifare.gate.evidence import Verdict
from taxifare.gate.verdict import under_standing_approval
from taxifare.settings import GateSettings, Settings
from taxifare.trips.months import parse_month

REVIEWED_MONTHS = 12
"""The number of past months for which a person is shown what a standing approval would have done."""


def terms_of(settings: GateSettings) -> Terms:
    """Returns the terms that follow from the settings."""
    return Terms(
        city=settings.city.slug,
        unit=settings.target_facts.unit,
        minimum_gain=settings.minimum_gain,
        slice_tolerance=settings.slice_tolerance,
        bias_tolerance=settings.bias_tolerance,
    )


@dataclass(frozen=True)
class StandingRecord:
    """What is on record about standing approvals.

    Attributes:
        requests: Every question, oldest first.
        outcomes: How those that are no longer open ended, by name.
        ends: How approvals ended before their last month, by name.
    """

    requests: Sequence[StandingRequest] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    ends: Mapping[str, StandingEnd] = field(default_factory=dict)

    @property
    def open(self) -> StandingRequest | None:
        """The question that waits for an answer, None where none does."""
        return next((request for request in reversed(self.requests) if request.id not in self.outcomes), None)

    @property
    def in_force(self) -> StandingRequest | None:
        """The approval that was given and has not been ended, None where there is none; its months may be over."""
        return next(
            (
                request
                for request in reversed(self.requests)
                if self._ended_as(request) is RequestState.APPROVED and request.id not in self.ends
            ),
            None,
        )

    def covering(self, subject: str, terms: Terms) -> StandingRequest | None:
        """Returns the approval in force that covers a month on these terms, None where none does."""
        given = self.in_force
        if given is None or not given.covers(subject):
            return None
        evidence = readable(given)
        return given if evidence is not None and evidence.terms == terms else None

    def is_asked_for(self, month: str, terms: Terms) -> bool:
        """Whether nobody need be asked about the month: the question is open, or was rejected or approved for it."""
        if self.open is not None or self.covering(month, terms) is not None:
            return True
        refused = (request for request in self.requests if self._ended_as(request) is RequestState.REJECTED)
        return any(request.last_month >= month for request in refused)

    def state(self, request: StandingRequest) -> str:
        """Returns the state of a question, or of the approval that came of it, in words."""
        outcome = self.outcomes.get(request.id)
        if outcome is None:
            return RequestState.REQUESTED
        by = f" by {outcome.by}" if outcome.by else f": {outcome.reason}"
        return f"{outcome.state}{by}{self.over(request)}"

    def said_of(self, month: str | None, terms: Terms) -> str:
        """Returns who decides on a month where APPROVAL_POLICY=standing, and if no approval does, why not.

        Args:
            month: The next month, None where none was compared yet.
            terms: Those in force.
        """
        if month is not None and (covers := self.covering(month, terms)) is not None:
            return f"under {covers.id}, until {covers.last_month}"
        if self.open is not None:
            why = f"{self.open.id} waits for an answer"
        elif self.in_force is None:
            last = self.requests[-1] if self.requests else None
            why = "nobody has agreed to one" if last is None else f"{last.id} is {self.state(last)}"
        elif month is not None and not self.in_force.covers(month):
            why = f"{self.in_force.id} is of {self.in_force.first_month} to {self.in_force.last_month}"
        else:
            changed = "MINIMUM_GAIN, SLICE_TOLERANCE, BIAS_TOLERANCE, CITY or TARGET"
            why = f"{self.in_force.id} was agreed to on other terms than .env has now ({changed})"
        return f"a person is asked about each month: no standing approval covers what comes next, {why}"

    def over(self, request: StandingRequest) -> str:
        """Returns what ended the approval that came of a question, in words; nothing where nothing did."""
        end = self.ends.get(request.id)
        return "" if end is None else f", over by {end.cause}: {end.reason}"

    def _ended_as(self, request: StandingRequest) -> RequestState | None:
        """Returns how a question ended, None while it is open."""
        outcome = self.outcomes.get(request.id)
        return None if outcome is None else outcome.state


def read(entries: Entries) -> StandingRecord:
    """Returns what is on record."""
    return StandingRecord(entries.standing_requests(), entries.standing_outcomes(), entries.standing_ends())


def who_decides(entries: Entries, settings: Settings) -> str:
    """Returns who decides on the next month, in words: an approval in force covers it or does not."""
    record = read(entries)
    if settings.approval_policy != "standing":
        idle = "" if record.in_force is None else f", under which {record.in_force.id} decides nothing"
        return f"APPROVAL_POLICY={settings.approval_policy}{idle}"
    latest = max((one.subject for one in entries.comparisons().values() if one.is_of_month), default=None)
    return record.said_of(None if latest is None else str(parse_month(latest) + 1), terms_of(settings))


def review(latest: Comparison, comparisons: Collection[Comparison], settings: GateSettings) -> StandingEvidence:
    """Returns what speaks for a standing approval, as of the last month that was compared with what is in production.

    Args:
        latest: The comparison of that month.
        comparisons: The last one of each subject; those of other releases may be unreadable, later months do not count.
        settings: Give the terms.

    Raises:
        EvidenceUnreadableError: That month's evidence cannot be read.
    """
    before = (one for one in comparisons if one.is_of_month and one.subject <= latest.subject)
    months = sorted(before, key=lambda one: one.subject)
    record = latest.evidence.track_record
    return StandingEvidence(
        terms=terms_of(settings),
        months=tuple(_reviewed(months[-REVIEWED_MONTHS:], settings)),
        so_far=None if record is None else record.gains.all.interval,
        rides=0 if record is None else record.gains.all.rides,
        comparison_digest=latest.evidence_digest,
    )


def _reviewed(months: Collection[Comparison], settings: GateSettings) -> list[ReviewedMonth]:
    found = []
    for one in months:
        if (evidence := readable(one)) is not None:
            answer, _ = under_standing_approval(evidence, settings)
            found.append(ReviewedMonth(month=one.subject, verdict=evidence.verdict, answer=answer))
    return found


def ask(
    entries: Entries,
    evidence: StandingEvidence,
    subject: str,
    production: str,
    months: int,
    until: datetime,
    now: datetime,
) -> StandingRequest:
    """Returns the question about the months after a subject, recorded; if one is open, that one.

    A question that can no longer be answered – it has expired, or another release wrote it – is no longer open.

    Args:
        entries: The ledger's.
        evidence: What speaks for it.
        subject: The last month in the evidence.
        production: The version in production.
        months: How many it covers.
        until: When it expires.
        now: When it is asked.
    """
    expire(entries, now)
    record = read(entries)
    if record.open is not None and readable(record.open) is not None:
        return record.open
    if record.open is not None:
        why = "its evidence was written by another release of taxifare"
        _settled(entries, record.open, RequestState.VOID, None, why, now)
    after = parse_month(subject)
    earlier = sum(request.evidence_digest == evidence.digest for request in record.requests)
    first = str(after + 1)
    name = f"standing-{first}-{evidence.digest[:12]}" + (f"-r{earlier + 1}" if earlier else "")
    request = StandingRequest(
        id=name,
        subject=subject,
        first_month=first,
        last_month=str(after + months),
        production_version=production,
        evidence_digest=evidence.digest,
        round=earlier + 1,
        requested_at=now,
        valid_until=until,
        evidence_json=as_kept(evidence),
    )
    entries.add_standing_request(request)
    return request


def answer(
    entries: Entries, request: StandingRequest, decision: Decision, by: str, reason: str, now: datetime
) -> Outcome:
    """Returns the outcome, recorded; an approval replaces one that is in force.

    The same answer by the same person again is the same answer.

    Raises:
        UnsignedError: Who or why is missing.
        SettledError: It was answered already, has expired or is void.
    """
    ensure_signed(f"a decision on {request.id}", by, reason)
    state = RequestState.APPROVED if decision == "approve" else RequestState.REJECTED
    record = read(entries)
    settled = record.outcomes.get(request.id)
    if settled is not None:
        if (settled.state, settled.by) == (state, by) and request.id not in record.ends:
            return settled
        raise SettledError(replace(settled, reason=f"{settled.reason}{record.over(request)}"))
    if now > request.valid_until:
        raise SettledError(_settled(entries, request, RequestState.EXPIRED, None, _EXPIRY.format(request), now))
    before = record.in_force
    if decision == "approve" and before is not None:
        _end(entries, before, StandingEnd(before.id, "successor", by, f"{request.id} takes its place", now))
    return _settled(entries, request, state, by, reason, max(now, request.requested_at))


def expire(entries: Entries, now: datetime) -> None:
    """Ensures that a question which nobody answered in time is no longer open."""
    waiting = read(entries).open
    if waiting is not None and now > waiting.valid_until:
        _settled(entries, waiting, RequestState.EXPIRED, None, _EXPIRY.format(waiting), now)


def stop(entries: Entries, cause: Literal["rollback", "withdrawal"], by: str, reason: str, now: datetime) -> None:
    """Ensures that nothing becomes production by itself from now on, and that an open question about that is void."""
    record = read(entries)
    if record.open is not None:
        why = f"{cause} by {by}: {reason}"
        _settled(entries, record.open, RequestState.VOID, None, why, max(now, record.open.requested_at))
    if record.in_force is not None:
        _end(entries, record.in_force, StandingEnd(record.in_force.id, cause, by, reason, now))


def send_again(entries: Entries, request: StandingRequest, now: datetime) -> StandingRequest:
    """Returns the question, whose message is sent again with fresh links; the earlier ones are dead.

    Raises:
        ApprovalError: It does not wait for an answer.
    """
    expire(entries, now)
    record = read(entries)
    if record.open != request:
        raise ApprovalError(
            f"{request.id} does not wait for an answer, it is {record.state(request)}; taxifare standing ask asks anew"
        )
    spend(to_answer(request, "approve"), "asked again", entries, now)
    return request


def end_if_regretted(entries: Entries, comparison: Comparison, now: datetime) -> None:
    """Ensures that an approval ends once a month shows that a version it promoted should not have been promoted."""
    given, last, evidence = read(entries).in_force, entries.last_promotion(), comparison.evidence
    if given is None or last is None or evidence.hindsight is None or evidence.verdict is Verdict.LEAK:
        return
    is_its_own = last.request_id is not None and entries.standing_uses().get(last.request_id) == given.id
    if is_its_own and evidence.production_version == last.version and evidence.hindsight.is_regret:
        gain = evidence.hindsight.gain
        reason = (
            f"on the rides of {comparison.subject} version {last.version} is surely worse than version "
            f"{evidence.hindsight.replaced_version}, which it replaced: {gain.mean:+.3f} {evidence.unit} a ride"
        )
        _end(entries, given, StandingEnd(given.id, "regret", None, reason, now))


def withdraw(entries: Entries, by: str, reason: str, now: datetime) -> StandingEnd:
    """Returns the end of the approval in force, which a person has withdrawn, recorded.

    Raises:
        UnsignedError: Who or why is missing.
        ApprovalError: None is in force.
    """
    given = read(entries).in_force
    if given is None:
        raise ApprovalError(
            "no standing approval is in force: there is nothing to end. taxifare standing shows what became of each"
        )
    ensure_signed(f"a decision on {given.id}", by, reason)
    end = StandingEnd(given.id, "withdrawal", by, reason, now)
    _end(entries, given, end)
    return end


_EXPIRY = "nobody answered until {0.valid_until:%Y-%m-%d %H:%M} UTC"


def _settled(
    entries: Entries, request: StandingRequest, state: RequestState, by: str | None, reason: str, now: datetime
) -> Outcome:
    outcome = Outcome(request.id, state, by, reason, override=False, at=now)
    entries.settle_standing(outcome)
    return outcome


def _end(entries: Entries, given: StandingRequest, end: StandingEnd) -> None:
    """Ensures that the approval is over, and that what it would have decided reaches a person with links."""
    entries.end_standing(end)
    for request in entries.open_requests():
        if given.covers(request.subject):
            # Its message may have said that nobody needs to answer.
            spend(to_answer(request, "approve"), f"the standing approval {given.id} is over", entries, end.at)
