"""Requests: how a comparison becomes a question to a person, and what ends the question without an answer.

Rules over the ledger's entries within one transaction; `approvals` opens it, and tells the registry afterwards.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from taxifare.approval.errors import ApprovalError, UnknownRequestError, UnsignedError
from taxifare.approval.ledger import Entries
from taxifare.approval.records import Comparison, Outcome, Promotion, Request, RequestState
from taxifare.texts import did_you_mean, named_version, unsaid
from taxifare.trips.editions import BASE


def request_on(comparison: Comparison, now: datetime, valid_for: timedelta) -> Request:
    """Returns the first question about a comparison; the same comparison always makes a request of the same name.

    Raises:
        EvidenceUnreadableError: Another release has written the evidence.
    """
    return Request(
        id=f"{comparison.subject}-v{comparison.staging_version}-{comparison.evidence_digest[:12]}",
        subject=comparison.subject,
        revision=comparison.revision,
        staging_version=comparison.staging_version,
        production_version=comparison.production_version,
        verdict=comparison.evidence.verdict,
        evidence_digest=comparison.evidence_digest,
        round=1,
        requested_at=now,
        valid_until=now + valid_for,
        evidence_json=comparison.evidence_json,
    )


def last_round(entries: Entries, about: Comparison | Request) -> Request | None:
    """Returns the last question about the same evidence, None where nobody was asked about it."""
    same = (request for request in entries.requests() if request.evidence_digest == about.evidence_digest)
    return max(same, key=lambda request: request.round, default=None)


def approved_on(history: Iterable[Promotion], asked: Iterable[Request]) -> dict[str, Request]:
    """Returns the question on which each version last became production, by version, where that is on record.

    A version that production was rolled back to had been approved before.

    Args:
        history: The promotions and rollbacks on record, in order.
        asked: The requests on record.
    """
    by_id = {request.id: request for request in asked}
    return {
        change.version: by_id[change.request_id]
        for change in history
        if change.version is not None and change.request_id in by_id
    }


def is_void(end: Outcome | None) -> bool:
    """Returns whether a question ended as void; where it makes sense again, it is asked again by itself.

    What a person has answered stays answered, and what nobody answered in time is asked again only by a person.
    """
    return end is not None and end.state is RequestState.VOID


def by_subject(found: Comparison | Request) -> tuple[bool, str]:
    """Returns the key that sorts subjects: "base" comes before every month, though the text sorts after them."""
    return found.subject != BASE, found.subject


def makes_sense(about: Comparison | Request, production: str | None) -> bool:
    """Returns whether replacing production is a sensible question on this evidence."""
    return _stale(about, production) is None


def stands(comparison: Comparison, production: str | None, entries: Entries) -> bool:
    """Returns whether a comparison is the last of its subject, and a question on it makes sense."""
    latest = entries.comparison(comparison.subject)
    is_latest = latest is None or latest.evidence_digest == comparison.evidence_digest
    return is_latest and makes_sense(comparison, production)


def next_round(last: Request, now: datetime, valid_for: timedelta) -> Request:
    """Returns the next question about the evidence of a request."""
    number = last.round + 1
    first_id = last.id.removesuffix(f"-r{last.round}")
    return replace(last, id=f"{first_id}-r{number}", round=number, requested_at=now, valid_until=now + valid_for)


def ensure_last_round(entries: Entries, request: Request) -> None:
    """Ensures that a request has not been asked again yet; raises ApprovalError if it has."""
    if last_round(entries, request) != request:
        raise ApprovalError(
            f"{request.id} was asked again since; the link of its last message is the one that counts: taxifare "
            f"ask-again {request.id} sends that message again"
        )


def repeatable(entries: Entries, request: Request, production: str | None) -> Request:
    """Returns the last round of a request, which can be asked again: it ended without an answer, its evidence stands.

    Raises:
        ApprovalError: Somebody decided on its evidence, it is open, or there is newer evidence.
    """
    comparison = entries.comparison(request.subject)
    if comparison is not None and comparison.evidence_digest != request.evidence_digest:
        raise ApprovalError(
            f"{request.id} rests on earlier evidence: {request.subject} has been compared anew since, and that is what "
            "is asked about: taxifare requests"
        )
    last = last_round(entries, request) or request
    outcome = entries.outcome(last.id)
    if outcome is None or outcome.by is not None:
        raise ApprovalError(
            f"{last.id} is {outcome.state if outcome else 'open'}; only what ended without an answer is asked again: "
            "taxifare requests --all says what has become of each"
        )
    if (reason := _stale(last, production)) is not None:
        raise ApprovalError(
            f"{request.id} makes no sense now: {reason}. Materialize its month, or let the sensor: it is compared anew"
        )
    return last


def ask(entries: Entries, request: Request, production: str | None) -> None:
    """Records a request; older ones on its subject become void, and so does this one if production has moved."""
    for older in entries.open_requests():
        if older.subject == request.subject:
            entries.settle(_void(older, _superseded(older, request), request.requested_at))
    entries.add_request(request)
    if (reason := _stale(request, production)) is not None:
        entries.settle(_void(request, reason, request.requested_at))


def void_stale(entries: Entries, production: str | None, now: datetime) -> None:
    """Ends the open requests that no longer ask a sensible question, now that a version is production."""
    for request in entries.open_requests():
        if (reason := _stale(request, production)) is not None:
            entries.settle(_void(request, reason, now))


def void_restated(entries: Entries, subject: str, revision: str, now: datetime) -> tuple[Request, ...]:
    """Returns the open requests on other revisions of a subject, which are void from now on."""
    restated = tuple(
        request for request in entries.open_requests() if request.subject == subject and request.revision != revision
    )
    for request in restated:
        entries.settle(_void(request, f"{subject} restated as {revision}", now))
    return restated


def expire(entries: Entries, now: datetime) -> tuple[Request, ...]:
    """Returns the open requests that nobody answered in time, which are expired from now on."""
    late = tuple(request for request in entries.open_requests() if now > request.valid_until)
    for request in late:
        entries.settle(_expired(request, now))
    return late


def overtaken(request: Request, production: str | None, now: datetime) -> Outcome | None:
    """Returns the end of an open request that time or a promotion has overtaken, None if it still stands."""
    if now > request.valid_until:
        return _expired(request, now)
    reason = _stale(request, production)
    return None if reason is None else _void(request, reason, now)


def is_open(entries: Entries, request: Request, production: str | None, now: datetime) -> bool:
    """Returns whether a request waits for its answer, and still stands."""
    return entries.outcome(request.id) is None and overtaken(request, production, now) is None


def last_open(entries: Entries, production: str | None, now: datetime) -> Request | None:
    """Returns the last question about replacing production that waits for its answer, None where none does."""
    waiting = [request for request in entries.open_requests() if overtaken(request, production, now) is None]
    return waiting[-1] if waiting and production is not None else None


def found(entries: Entries, request_id: str) -> Request:
    """Returns the request; raises UnknownRequestError if there is none of that name."""
    request = entries.request(request_id)
    if request is None:
        waiting = {asked.subject: asked.id for asked in entries.open_requests()}
        of_month = next((asked for subject, asked in waiting.items() if request_id.startswith(subject)), None)
        meant = did_you_mean(request_id, waiting.values()) if of_month is None else f" (did you mean {of_month}?)"
        raise UnknownRequestError(f"there is no request {request_id!r}{meant}: taxifare requests --all lists them")
    return request


def _stale(request: Comparison | Request, production: str | None) -> str | None:
    """Returns why replacing production is no longer a sensible question on this evidence, None if it still is."""
    if production != request.production_version:
        before, after = named_version(request.production_version), named_version(production)
        return f"production moved from {before} to {after} since the evidence was gathered"
    if production == request.staging_version:
        return f"version {production} is production already"
    return None


def _superseded(older: Request, newer: Request) -> str:
    if older.revision != newer.revision:
        return f"{older.subject} restated as {newer.revision}"
    if older.staging_version != newer.staging_version:
        return f"superseded by staging {newer.staging_version}"
    return f"superseded by newer evidence, {newer.id}"


def _void(request: Request, reason: str, now: datetime) -> Outcome:
    return Outcome(request.id, RequestState.VOID, None, reason, override=False, at=max(now, request.requested_at))


def _expired(request: Request, now: datetime) -> Outcome:
    reason = f"nobody decided until {request.valid_until:%Y-%m-%d %H:%M} UTC"
    return Outcome(request.id, RequestState.EXPIRED, None, reason, override=False, at=now)


def ensure_signed(what: str, decided_by: str, reason: str) -> None:
    """Ensures that something which a person does names who decides and why.

    Args:
        what: What is done: a decision on a request, a rollback.
        decided_by: Who decides.
        reason: Why.

    Raises:
        UnsignedError: It does not.
    """
    received = [
        f"{instead} for {name}"
        for name, said in (("who decides", decided_by), ("why", reason))
        if (instead := unsaid(said)) is not None
    ]
    if received:
        raise UnsignedError(
            f"{what}: expected who decides and why, received {' and '.join(received)}: fill in decided_by and reason "
            "on the page, or --by and --reason of the command"
        )
