"""Alarms: production errs more than it did, and a person is asked whether to retrain before the month is over.

`taxifare.monitoring.watch` says when an alarm is raised; this module ensures that it is raised once for a promotion,
and says who answers it and what overtakes it. The database keeps the latch: it accepts one alarm for each promotion, so
production that goes on erring is reported once, and the next promotion opens the latch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from taxifare.approval.errors import ApprovalError, SettledError
from taxifare.approval.ledger import Entries
from taxifare.approval.records import (
    Alarm,
    AlarmEvidence,
    Decision,
    Outcome,
    Promotion,
    RequestState,
    as_kept,
    digest_of,
)
from taxifare.approval.requests import ensure_signed
from taxifare.approval.tokens import spend, to_answer
from taxifare.texts import named_version


@dataclass(frozen=True)
class AlarmRecord:
    """What is on record about alarms.

    Attributes:
        alarms: Each, oldest first.
        outcomes: How those that are no longer open ended, by name.
    """

    alarms: Sequence[Alarm] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def open(self) -> Alarm | None:
        """The one that waits for an answer, None where none does."""
        return next((alarm for alarm in reversed(self.alarms) if alarm.id not in self.outcomes), None)

    def of(self, sequence: int) -> Alarm | None:
        """Returns the alarm about a promotion, None where none was raised and the latch is open."""
        return next((alarm for alarm in self.alarms if alarm.sequence == sequence), None)

    def ended_as(self, state: RequestState, promotion: Promotion | None) -> Alarm | None:
        """Returns the alarm about a promotion if it ended in this state, None if it did not or none was raised."""
        alarm = None if promotion is None else self.of(promotion.sequence)
        ended = None if alarm is None else self.outcomes.get(alarm.id)
        return alarm if ended is not None and ended.state is state else None

    def state(self, alarm: Alarm) -> str:
        """Returns where an alarm stands, in words."""
        outcome = self.outcomes.get(alarm.id)
        if outcome is None:
            return "waits for an answer"
        return f"{outcome.state} by {outcome.by}" if outcome.by else f"{outcome.state}: {outcome.reason}"


def read(entries: Entries) -> AlarmRecord:
    """Returns what is on record."""
    return AlarmRecord(entries.alarms(), entries.alarm_outcomes())


def raise_alarm(entries: Entries, evidence: AlarmEvidence, version: str, valid_for: timedelta, now: datetime) -> Alarm:
    """Returns the alarm about what is in production, recorded; the earlier one if one was raised already.

    Args:
        entries: The ledger's.
        evidence: What speaks for it.
        version: The version that was watched.
        valid_for: How long it can be answered.
        now: When it is raised.

    Raises:
        ApprovalError: The version is no longer in production.
    """
    last = entries.last_promotion()
    if last is None or last.version != version:
        raise ApprovalError(
            f"version {version} was watched, and {named_version(None if last is None else last.version)} is in "
            "production: nobody is asked"
        )
    known = read(entries).of(last.sequence)
    if known is not None:
        return known
    kept = as_kept(evidence)
    digest = digest_of(kept)
    alarm = Alarm(
        id=f"alarm-{evidence.month}-v{version}-{digest[:12]}",
        sequence=last.sequence,
        version=version,
        month=evidence.month,
        evidence_digest=digest,
        requested_at=now,
        valid_until=now + valid_for,
        evidence_json=kept,
    )
    entries.add_alarm(alarm)
    return alarm


def answer(entries: Entries, alarm: Alarm, decision: Decision, by: str, reason: str, now: datetime) -> Outcome:
    """Returns the outcome, recorded. The same answer by the same person again is the same answer.

    Args:
        entries: The ledger's.
        alarm: The alarm.
        decision: The answer.
        by: Who decides.
        reason: Why.
        now: When.

    Raises:
        UnsignedError: Who or why is missing.
        SettledError: It was answered already, has expired or is void.
    """
    ensure_signed(f"a decision on {alarm.id}", by, reason)
    state = RequestState.APPROVED if decision == "approve" else RequestState.REJECTED
    settled = read(entries).outcomes.get(alarm.id)
    if settled is not None:
        if (settled.state, settled.by) == (state, by):
            return settled
        raise SettledError(settled)
    if now > alarm.valid_until:
        raise SettledError(_settled(entries, alarm, RequestState.EXPIRED, None, _EXPIRY.format(alarm), now))
    return _settled(entries, alarm, state, by, reason, now)


def expire(entries: Entries, now: datetime) -> None:
    """Ensures that an alarm which nobody answered in time is no longer open."""
    waiting = read(entries).open
    if waiting is not None and now > waiting.valid_until:
        _settled(entries, waiting, RequestState.EXPIRED, None, _EXPIRY.format(waiting), now)


def void_overtaken(entries: Entries, now: datetime) -> None:
    """Ensures that an alarm is void once another promotion is in force."""
    waiting, last = read(entries).open, entries.last_promotion()
    if waiting is not None and last is not None and last.sequence != waiting.sequence:
        why = f"promotion {last.sequence} has changed production since"
        _settled(entries, waiting, RequestState.VOID, None, why, now)


def send_again(entries: Entries, alarm: Alarm, now: datetime) -> Alarm:
    """Returns the alarm, whose message is sent again with fresh links; the earlier ones are dead.

    Raises:
        ApprovalError: It does not wait for an answer.
    """
    expire(entries, now)
    record = read(entries)
    if record.open != alarm:
        raise ApprovalError(f"{alarm.id} does not wait for an answer, it is {record.state(alarm)}: see taxifare status")
    spend(to_answer(alarm, "approve"), "asked again", entries, now)
    return alarm


_EXPIRY = "nobody answered until {0.valid_until:%Y-%m-%d %H:%M} UTC"


def _settled(
    entries: Entries, alarm: Alarm, state: RequestState, by: str | None, reason: str, now: datetime
) -> Outcome:
    outcome = Outcome(alarm.id, state, by, reason, override=False, at=max(now, alarm.requested_at))
    entries.settle_alarm(outcome)
    return outcome
