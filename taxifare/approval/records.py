"""What the ledger records, as plain values."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Literal, Protocol, TypeVar

from pydantic import ValidationError

from taxifare.gate.evidence import Evidence, Verdict
from taxifare.gate.scores import Interval
from taxifare.gate.verdict import StandingAnswer
from taxifare.trips.editions import BASE, is_so_far
from taxifare.trips.targets import Unit
from taxifare.values import Frozen

Decision = Literal["approve", "reject"]
"""An answer to a question."""


class RequestState(StrEnum):
    """Where a request stands; every state but the first is final."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


class EvidenceUnreadableError(RuntimeError):
    """Evidence that another release has written and that this one cannot read; says what it is about."""


Kept = TypeVar("Kept", bound=Frozen)
Kept_co = TypeVar("Kept_co", bound=Frozen, covariant=True)


def read_evidence(kind: type[Kept], evidence_json: str, about: str, way_out: str = "run the month again") -> Kept:
    """Returns evidence as it was kept.

    Args:
        kind: The kind of evidence.
        evidence_json: As it was kept.
        about: What it is about, for people.
        way_out: What to do where it cannot be read, besides using the release that has written it.

    Raises:
        EvidenceUnreadableError: It lacks what this release needs, or is no JSON.
    """
    try:
        return kind.model_validate(json.loads(evidence_json))
    except ValueError as error:
        fields = (
            {".".join(map(str, fault["loc"])) for fault in error.errors()} if isinstance(error, ValidationError) else ()
        )
        why = f"expected other values in {', '.join(sorted(fields))}" if fields else "expected JSON"
        raise EvidenceUnreadableError(
            f"the evidence of {about} was written by another release of taxifare and cannot be read by this one: "
            f"{why}. Use that release, or {way_out}"
        ) from error


class Evidenced(Protocol[Kept_co]):
    """What rests on evidence."""

    @property
    def evidence(self) -> Kept_co:
        """The evidence; raises EvidenceUnreadableError where another release has written it in another shape."""


def readable(about: Evidenced[Kept]) -> Kept | None:
    """Returns the evidence, None where another release has written it in a shape that this one cannot read."""
    try:
        return about.evidence
    except EvidenceUnreadableError:
        return None


def as_kept(evidence: Frozen) -> str:
    """Returns evidence as it is kept."""
    return json.dumps(evidence.model_dump(mode="json"))


def digest_of(evidence_json: str) -> str:
    """Returns the digest of a standing approval's or an alarm's evidence as it is kept, by whatever release.

    Raises:
        ValueError: It is no JSON.
    """
    return hashlib.sha256(json.dumps(json.loads(evidence_json), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Comparison:
    """Both models compared on one edition: what a request is made from.

    Attributes:
        subject: The month `YYYY-MM`, or `base`.
        revision: Revision of the trips both models were scored on.
        staging_version: The version asked about.
        staging_run: The MLflow run that scored it.
        production_version: What was in production, None where nothing was.
        evidence_digest: SHA-256 of the evidence.
        schema: Of the evidence's JSON, see `comparisons.SCHEMA`.
        evidence_json: The evidence.
        compared_at: When.
    """

    subject: str
    revision: str
    staging_version: str
    staging_run: str
    production_version: str | None
    evidence_digest: str
    schema: int
    evidence_json: str = field(repr=False)
    compared_at: datetime

    @property
    def is_of_month(self) -> bool:
        """Whether it is of a month as it was published: neither of the base years nor of a month's days so far."""
        return self.subject != BASE and not is_so_far(self.revision)

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence; raises EvidenceUnreadableError where another release has written it in another shape."""
        return read_evidence(Evidence, self.evidence_json, self.subject)


@dataclass(frozen=True)
class Request:
    """A durable question to a person: promote this version, given this evidence?

    Attributes:
        id: Readable and derived from the evidence: the same evidence is the same request.
        subject: The month `YYYY-MM`, or `base`.
        revision: Revision of the trips the evidence was gathered on.
        staging_version: The version asked about.
        production_version: What has to be in production for the question to make sense.
        verdict: What the evidence says.
        evidence_digest: SHA-256 of the evidence.
        round: 1, and more where somebody had the same question asked again after nobody answered it.
        requested_at: When it was asked.
        valid_until: When it expires.
        evidence_json: The evidence as it was shown.
    """

    id: str
    subject: str
    revision: str
    staging_version: str
    production_version: str | None
    verdict: Verdict
    evidence_digest: str
    round: int
    requested_at: datetime
    valid_until: datetime
    evidence_json: str = field(repr=False)

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence; raises EvidenceUnreadableError where another release has written it in another shape."""
        return read_evidence(Evidence, self.evidence_json, self.id)


class Terms(Frozen):
    """What a person agrees to: the city, the least useful gain and the tolerances, in the unit a ride.

    Earlier terms do not name the city, so they match no city.
    """

    city: str | None = None
    unit: Unit
    minimum_gain: float
    slice_tolerance: float
    bias_tolerance: float


class ReviewedMonth(Frozen):
    """What a standing approval would have done in a month, and what the verdict was."""

    month: str
    verdict: Verdict
    answer: StandingAnswer


class StandingEvidence(Frozen):
    """What speaks for a standing approval, and its terms.

    Attributes:
        terms: What the person agrees to.
        months: The last months on record, in order.
        so_far: What the candidate has saved a ride since production came in; None where it has no track record.
        rides: On how many rides.
        comparison_digest: Of the last month's evidence.
    """

    terms: Terms
    months: tuple[ReviewedMonth, ...]
    so_far: Interval | None
    rides: int
    comparison_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest_of(as_kept(self))


@dataclass(frozen=True)
class StandingRequest:
    """A durable question to a person: may the candidate's lessons become production by themselves for some months?

    Attributes:
        id: Readable and derived from the evidence.
        subject: The last month in its evidence, `YYYY-MM`.
        first_month: The first month whose lesson it covers.
        last_month: The last one.
        production_version: What was in production when it was asked.
        evidence_digest: SHA-256 of the evidence.
        round: 1, and more where the same question was asked again.
        requested_at: When it was asked.
        valid_until: Until when it can be answered.
        evidence_json: What the person agrees to and what speaks for it, see `StandingEvidence`.
    """

    id: str
    subject: str
    first_month: str
    last_month: str
    production_version: str
    evidence_digest: str
    round: int
    requested_at: datetime
    valid_until: datetime
    evidence_json: str = field(repr=False)

    @cached_property
    def evidence(self) -> StandingEvidence:
        """The evidence as it was shown; raises EvidenceUnreadableError where another release has written it."""
        way_out = "ask anew: taxifare standing ask"
        return read_evidence(StandingEvidence, self.evidence_json, self.id, way_out)

    def covers(self, subject: str) -> bool:
        """Whether a subject is one of its months; `base` never is, though it sorts after them."""
        return subject != BASE and self.first_month <= subject <= self.last_month


@dataclass(frozen=True)
class StandingEnd:
    """How a standing approval ended before its last month.

    Attributes:
        standing_id: Which one.
        cause: A rollback, a promotion that was regretted, a person who withdrew it, or an approval that replaced it.
        by: Who, None for a rule of the approval itself.
        reason: Why.
        at: When.
    """

    standing_id: str
    cause: Literal["rollback", "regret", "withdrawal", "successor"]
    by: str | None
    reason: str
    at: datetime


class WatchedDay(Frozen):
    """A day of the watch.

    Attributes:
        day: Of the pickups.
        rides: How many outcomes it has.
        mae: How far production was off.
        difficulty: How far a flat per-km rate was off on the same rides.
        score: The watch's score up to that day, see `taxifare.monitoring.watch`.
    """

    day: date
    rides: int
    mae: float
    difficulty: float
    score: float


class AlarmEvidence(Frozen):
    """What speaks for retraining now.

    Attributes:
        unit: Unit of the errors.
        month: The open month, whose days so far would be learned.
        usual_skill: Production's skill on the days before.
        recent_skill: Its skill on the days since the score began to rise.
        days: Those since the score began to rise, in order; the last one raised the alarm.
        threshold: Of the score.
        false_alarms_a_year: How often such an alarm is raised though nothing has changed, at most.
        rules: Dated rules that production has not learned, in words.
    """

    unit: Unit
    month: str
    usual_skill: float
    recent_skill: float
    days: tuple[WatchedDay, ...]
    threshold: float
    false_alarms_a_year: float
    rules: tuple[str, ...] = ()

    @property
    def rides(self) -> int:
        """How many rides it rests on."""
        return sum(day.rides for day in self.days)

    @property
    def mae(self) -> float:
        """How far production was off on them."""
        return sum(day.rides * day.mae for day in self.days) / self.rides

    @property
    def usual_mae(self) -> float:
        """How far it would have been off on them at its usual skill."""
        return (1 - self.usual_skill) * sum(day.rides * day.difficulty for day in self.days) / self.rides


@dataclass(frozen=True)
class Alarm:
    """A durable question to a person: production errs more than it did; retrain before the month is over?

    Attributes:
        id: Readable and derived from the evidence.
        sequence: The promotion that made the version production; it has one alarm at most.
        version: The version that errs.
        month: The month that is not over, `YYYY-MM`.
        evidence_digest: SHA-256 of the evidence.
        requested_at: When it was raised.
        valid_until: Until when it can be answered.
        evidence_json: What speaks for it, see `AlarmEvidence`.
    """

    id: str
    sequence: int
    version: str
    month: str
    evidence_digest: str
    requested_at: datetime
    valid_until: datetime
    evidence_json: str = field(repr=False)

    @cached_property
    def evidence(self) -> AlarmEvidence:
        """The evidence as it was shown; raises EvidenceUnreadableError where another release has written it."""
        way_out = "wait until its month is published: it is compared then"
        return read_evidence(AlarmEvidence, self.evidence_json, self.id, way_out)


Question = Request | StandingRequest | Alarm
"""What a person can be asked."""


@dataclass(frozen=True)
class Outcome:
    """How a request ended: decided by somebody, expired, or void because it is no longer the question."""

    request_id: str
    state: RequestState
    by: str | None
    reason: str
    override: bool
    at: datetime


@dataclass(frozen=True)
class Promotion:
    """From `promoted_at` on, `version` is production; `sequence` orders them, whatever the clock said.

    Attributes:
        version: None where a person took the model out of production.
        replaced_version: None where nothing was in production.
    """

    sequence: int
    version: str | None
    replaced_version: str | None
    kind: Literal["promotion", "rollback"]
    request_id: str | None
    by: str
    reason: str
    evidence_digest: str | None
    promoted_at: datetime


@dataclass(frozen=True)
class Refusal:
    """An attempt to decide that was not accepted."""

    request_id: str
    decision: str
    by: str
    why: str
    at: datetime


@dataclass(frozen=True)
class Delivery:
    """A message that reached a channel: the question itself (`reminder` 0) or its n-th reminder."""

    request_id: str
    channel: str
    reminder: int
    delivered_at: datetime


@dataclass(frozen=True)
class SpentToken:
    """A token of an answer that was not accepted: it, and those about the same thing, no longer work.

    Attributes:
        about: What it was about, see `tokens.Permission`.
        messages: How many messages about it had been sent; the next one has fresh tokens.
        why: Why the answer was not accepted.
        at: When.
    """

    about: str
    messages: int
    why: str
    at: datetime


@dataclass(frozen=True)
class Notice:
    """A message that needs no answer and reached a channel, or its n-th repetition with fresh links."""

    about: str
    channel: str
    message: int
    delivered_at: datetime
