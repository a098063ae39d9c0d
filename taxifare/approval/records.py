"""What the ledger records, as plain values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from taxifare.gate.evidence import Evidence, Verdict


class State(StrEnum):
    """Where a request stands; every state but the first is final."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


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
        """The evidence; read only where it is needed, so that history outlives changes of its shape."""
        return Evidence.model_validate(json.loads(self.evidence_json))


@dataclass(frozen=True)
class Outcome:
    """How a request ended: decided by somebody, expired, or void because what it asked is no longer the question."""

    request_id: str
    state: State
    by: str | None
    reason: str
    override: bool
    at: datetime


@dataclass(frozen=True)
class Promotion:
    """From `promoted_at` on, `version` is production; `sequence` orders them, whatever the clock said."""

    sequence: int
    version: str
    replaced_version: str | None
    kind: Literal["promotion", "rollback"]
    request_id: str | None
    by: str
    reason: str
    evidence_digest: str | None
    promoted_at: datetime


@dataclass(frozen=True)
class Refusal:
    """An attempt to decide that was turned away."""

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


def _request(row: Mapping[str, Any]) -> Request:
    values = {name: value for name, value in row.items() if name != "number"}
    return Request(**values | {"verdict": Verdict(values["verdict"]), "evidence_json": values.pop("evidence")})


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**row, "state": State(row["state"])})


def _promotion(row: Mapping[str, Any]) -> Promotion:
    return Promotion(**{name: value for name, value in row.items() if name not in {"previous", "decision"}})
