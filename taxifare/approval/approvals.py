"""From evidence to production: asking a person, hearing the answer, promoting exactly what was shown, going back.

The ledger is the truth. The model registry – its alias and its tags – is a projection of it: every command first brings
the registry up to date with what the ledger says, then adds its own entries in one transaction, then projects those.
A command that dies in between has either done nothing, or is finished by the next command, whichever that is.
"""

import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol

from taxifare.approval.errors import (
    AgainstVerdictError,
    ApprovalError,
    DecisionRefusedError,
    NotAdoptedError,
    RegistryBehindError,
    RollbackError,
    SettledError,
    TokenError,
    UnknownRequestError,
    UnsignedError,
)
from taxifare.approval.ledger import Book, Ledger
from taxifare.approval.records import Outcome, Promotion, Refusal, Request, State
from taxifare.approval.tokens import approval_secret
from taxifare.gate.evidence import Evidence, Verdict
from taxifare.model.store import RegistryError
from taxifare.settings import Settings

_log = logging.getLogger(__name__)

Decision = Literal["approve", "reject"]

APPROVABLE = frozenset({Verdict.PROMOTE, Verdict.COLD_START})


class Registry(Protocol):
    """What approval needs of `taxifare.model.registry.ModelRegistry`; a call raises RegistryError if MLflow fails."""

    def production_version(self) -> str | None:
        """The version the alias `production` points at, None where it is not set; raises if the registry is down."""

    def set_production(self, version: str) -> None:
        """Points the alias at a version."""

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Sets tags of a version; raises if there is no such version."""


def by_verdict(verdict: Verdict) -> Decision:
    """Returns what the evidence alone says: approve what it supports, reject the rest."""
    return "approve" if verdict in APPROVABLE else "reject"


def utc_now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


class Approvals:
    """Requests, decisions, promotions and rollbacks, over a ledger and a model registry.

    Args:
        ledger: Where everything is recorded.
        registry: Where the production alias and the tags are.
        secret: Key of the tokens, see `approval_secret`.
        valid_days: How long a request stays open.
        clock: Tells the moment.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        secret: bytes,
        *,
        valid_days: int = 30,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.ledger = ledger
        self._registry = registry
        self._secret = secret
        self._valid = timedelta(days=valid_days)
        self.now = clock

    @classmethod
    def from_settings(cls, settings: Settings, registry: Registry) -> "Approvals":
        """Approvals as the settings say; connects to nothing yet, but makes the secret if there is none."""
        return cls(
            Ledger(settings.ledger_url, settings.target_facts.unit),
            registry,
            approval_secret(settings),
            valid_days=settings.request_valid_days,
        )

    # Asking

    def request(self, evidence: Evidence) -> Request:
        """The request that the evidence makes; the same evidence makes the same request, and is asked about once.

        Open requests on the same subject become void. So does this one, at once, if production changed since.

        Raises:
            ApprovalError: The evidence is about another target than the ledger.
            NotAdoptedError: The registry's production version is unknown to the ledger.
            RegistryBehindError: The request is stored, the registry could not be told.
        """
        if evidence.unit != self.ledger.unit:
            raise ApprovalError(
                f"{evidence.subject}: expected evidence in {self.ledger.unit}, received it in {evidence.unit}: it was "
                "gathered for another target. Set TARGET back, or use another TAXIFARE_HOME"
            )
        self.repair()
        now = self.now()
        request = Request(
            id=f"{evidence.subject}-v{evidence.staging.version}-{evidence.digest[:12]}",
            subject=evidence.subject,
            revision=evidence.revision,
            staging_version=evidence.staging.version,
            production_version=evidence.production_version,
            verdict=evidence.verdict,
            evidence_digest=evidence.digest,
            round=1,
            requested_at=now,
            valid_until=now + self._valid,
            evidence_json=json.dumps(evidence.model_dump(mode="json")),
        )
        with self.ledger.writing() as book:
            asked = book.request(request.id)
            if asked is not None:
                return asked
            self._ask(book, request)
        self._project_entry(f"request {request.id}")
        return request

    def ask_again(self, request_id: str) -> Request:
        """A new request on the evidence of one that ended without a decision: expired, or void and sensible again.

        Nothing asks again by itself; somebody who missed the first request does.

        Raises:
            UnknownRequestError: No such request.
            ApprovalError: It is open, or was decided.
            RegistryBehindError: The request is stored, the registry could not be told.
        """
        self.repair()
        now = self.now()
        with self.ledger.writing() as book:
            rounds = _rounds(book, request_id)
            outcome = book.outcome(rounds[-1].id)
            if outcome is None or outcome.by is not None:
                state = outcome.state if outcome else "open"
                raise ApprovalError(f"{rounds[-1].id} is {state}; only an expired or void request is asked again")
            request = replace(
                rounds[-1],
                id=f"{rounds[0].id}-r{len(rounds) + 1}",
                round=len(rounds) + 1,
                requested_at=now,
                valid_until=now + self._valid,
            )
            self._ask(book, request)
        self._project_entry(f"request {request.id}")
        return request

    def _ask(self, book: Book, request: Request) -> None:
        """Records the request; older ones on its subject become void, and so does this one if production has moved."""
        # A version that is not in the registry has to fail here, before anybody is asked about it.
        self._registry.tag(request.staging_version, {"request": request.id})
        for older in book.open_requests():
            if older.subject == request.subject:
                book.settle(_void(older, _superseded(older, request), request.requested_at))
        book.add_request(request)
        stale = _stale(request, _production(book))
        if stale:
            book.settle(_void(request, stale, request.requested_at))

    def token(self, request: Request) -> str:
        """What a decision on the request has to carry: proof of having read the message that shows it."""
        shown = [request.id, request.staging_version, request.production_version, request.evidence_digest]
        return hmac.new(self._secret, json.dumps(shown).encode(), hashlib.sha256).hexdigest()[:32]

    def verify(self, request: Request, token: str) -> bool:
        """Whether the token is the request's; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.token(request).encode(), token.encode())

    # Answering

    def decide(
        self, request_id: str, decision: Decision, decided_by: str, reason: str, token: str, *, override: bool = False
    ) -> Outcome:
        """The outcome, stored; if the request is approved, its staging version is production.

        The same decision by the same person again is the same decision: a command that was killed can be repeated.

        Args:
            request_id: The request.
            decision: `approve` or `reject`.
            decided_by: Who decides.
            reason: Why.
            token: From the message.
            override: Approve although the verdict is neither PROMOTE nor COLD_START.

        Raises:
            UnknownRequestError: No such request.
            TokenError: The token is not the request's.
            UnsignedError: Who or why is missing.
            SettledError: Decided already, expired, or void because production, staging or the month changed.
            AgainstVerdictError: The evidence does not support it, and there is no override.
            RegistryBehindError: The decision is stored, the registry could not be told.
        """
        if decision not in {"approve", "reject"}:
            raise ValueError(f"a decision is approve or reject, not {decision!r}")
        request_id, decided_by, reason = _text(request_id), _text(decided_by), _text(reason)
        self.repair()
        outcome: Outcome | None = None
        with self.ledger.writing() as book:
            try:
                request = self._addressed(book, request_id, decided_by, reason, token)
                outcome = self._settle(book, request, decision, decided_by, reason, override=override)
            except DecisionRefusedError as error:
                refused = error
                book.add_refusal(Refusal(request_id, decision, decided_by, str(error), self.now()))
        self._project_entry(f"decision on {request_id}")
        if outcome is None:
            raise refused
        return outcome

    def _addressed(self, book: Book, request_id: str, decided_by: str, reason: str, token: str) -> Request:
        """The request, if whoever decides may do so and says who and why."""
        request = book.request(request_id)
        if request is None:
            raise UnknownRequestError(f"there is no request {request_id!r}")
        if not self.verify(request, token):
            raise TokenError(f"the token is not that of {request_id}; copy it from the message that asks")
        if not decided_by or not reason:
            raise UnsignedError(f"a decision on {request_id} needs who decides (decided_by) and why (reason)")
        return request

    def _settle(
        self, book: Book, request: Request, decision: Decision, decided_by: str, reason: str, *, override: bool
    ) -> Outcome:
        """The outcome, recorded together with everything that follows from it."""
        now = self.now()
        state = State.APPROVED if decision == "approve" else State.REJECTED
        settled = book.outcome(request.id)
        if settled is not None:
            if (settled.state, settled.by) == (state, decided_by):
                return settled
            raise SettledError(settled)
        closed = self._overtaken(request, _production(book), now)
        if closed is not None:
            book.settle(closed)
            raise SettledError(closed)
        if decision == "approve" and request.verdict not in APPROVABLE and not override:
            raise AgainstVerdictError(
                f"the verdict on {request.id} is {request.verdict}; approving it takes an override"
            )
        outcome = Outcome(request.id, state, decided_by, reason, override, now)
        book.settle(outcome)
        if decision == "approve":
            # A version that is gone from the registry has to fail here, before it is production on paper.
            self._registry.tag(request.staging_version, {"request": request.id})
            _promote(book, request.staging_version, now, by=decided_by, reason=reason, request=request)
        return outcome

    def _overtaken(self, request: Request, production: str | None, now: datetime) -> Outcome | None:
        """The end of an open request that time or a promotion has overtaken, None if it still stands."""
        if now > request.valid_until:
            return _expired(request, now)
        stale = _stale(request, production)
        return _void(request, stale, now) if stale else None

    # Going back, and things that happen meanwhile

    def rollback(self, to: str | None = None, *, by: str, reason: str) -> Promotion:
        """The entry that made an earlier production version production again; open requests on the other are void.

        The same rollback by the same person for the same reason again is the same rollback: a command that was killed
        can be repeated without going back a second step. With an empty ledger it adopts what the registry's alias says.

        Args:
            to: The version; by default the one that the present version replaced when it was promoted.
            by: Who decides.
            reason: Why.

        Raises:
            RollbackError: Nothing to go back to, never in production, or production already; who or why is missing.
            RegistryBehindError: The rollback is stored, the registry could not be told.
        """
        by, reason = _text(by), _text(reason)
        if not by or not reason:
            raise RollbackError("a rollback needs who decides (by) and why (reason)")
        with self.ledger.writing() as book:
            promotions = book.promotions()
            if promotions and _repeats(promotions[-1], to, by, reason):
                promotion = promotions[-1]
            else:
                version = _earlier(promotions, to) if promotions else self._adopted(to)
                # As for a promotion: a version that is gone from the registry has to fail before it is recorded.
                self._registry.tag(version, {"promoted_by": by})
                promotion = _promote(book, version, self.now(), by=by, reason=reason)
        self._project_entry(f"rollback to version {promotion.version}")
        return promotion

    def _adopted(self, to: str | None) -> str:
        """The version the registry's alias points at, if it is the one asked for."""
        alias = self._registry.production_version()
        if alias is None or to != alias:
            raise RollbackError(
                "nothing was ever promoted"
                + (f"; the registry's production is version {alias}: adopt it with --to" if alias else "")
            )
        return alias

    def void_restated(self, subject: str, revision: str) -> tuple[Request, ...]:
        """The open requests on other revisions of a subject, which is restated; they are void from now on."""
        now = self.now()
        with self.ledger.writing() as book:
            voided = tuple(
                request
                for request in book.open_requests()
                if request.subject == subject and request.revision != revision
            )
            for request in voided:
                book.settle(_void(request, f"{subject} restated as {revision}", now))
        self._project_entry(f"restatement of {subject}")
        return voided

    def decided_on_other_editions(self, request: Request) -> tuple[Outcome, ...]:
        """The decisions on the same subject that rest on trips which the source has since corrected."""
        with self.ledger.reading() as book:
            other = {r.id for r in book.requests() if r.subject == request.subject and r.revision != request.revision}
            return tuple(o for o in book.outcomes() if o.request_id in other and o.by is not None)

    def expire(self, now: datetime | None = None) -> tuple[Request, ...]:
        """The requests that nobody answered in time; they are expired from now on."""
        now = now or self.now()
        with self.ledger.writing() as book:
            late = tuple(request for request in book.open_requests() if now > request.valid_until)
            for request in late:
                book.settle(_expired(request, now))
        self._project_entry(f"expiry of {len(late)} requests")
        return late

    # What is and was

    def production(self) -> str | None:
        """The version in production, None where nothing was ever promoted; the registry agrees when this returns.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger never heard of.
        """
        self.repair()
        with self.ledger.reading() as book:
            return _production(book)

    def repair(self) -> tuple[str, ...]:
        """What the registry had wrong, put right; empty unless a command was killed or somebody moved the alias.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger never heard of.
        """
        repaired = self._project()
        for what in repaired:
            _log.warning("the model registry was behind the ledger; repaired: %s", what)
        return repaired

    def find(self, request_id: str) -> Request:
        """The request; raises UnknownRequestError if there is none of that name."""
        with self.ledger.reading() as book:
            request = book.request(_text(request_id))
        if request is None:
            raise UnknownRequestError(f"there is no request {request_id!r}")
        return request

    def requests(self) -> tuple[Request, ...]:
        """Every request ever made, oldest first."""
        with self.ledger.reading() as book:
            return tuple(book.requests())

    def open_requests(self) -> tuple[Request, ...]:
        """The requests that wait for somebody, oldest first."""
        with self.ledger.reading() as book:
            return tuple(book.open_requests())

    def outcome(self, request_id: str) -> Outcome | None:
        """How the request ended, None while it is open."""
        with self.ledger.reading() as book:
            return book.outcome(request_id)

    def state(self, request: Request) -> State:
        """Where the request stands."""
        outcome = self.outcome(request.id)
        return outcome.state if outcome else State.REQUESTED

    def due_reminders(self, after: timedelta, now: datetime | None = None) -> tuple[Request, ...]:
        """Open requests whose last message, the question or a reminder, is at least so long ago."""
        now = now or self.now()
        with self.ledger.reading() as book:
            last = {delivery.request_id: delivery.delivered_at for delivery in book.deliveries()}
            return tuple(
                request
                for request in book.open_requests()
                if request.id in last and last[request.id] + after <= now <= request.valid_until
            )

    def history(self) -> tuple[Promotion, ...]:
        """Every promotion and rollback, in their order; the last is in force."""
        with self.ledger.reading() as book:
            return tuple(book.promotions())

    def production_on(self, when: date) -> Promotion | None:
        """The entry in force at a moment, or at the end of a day (UTC); None before the first.

        Where a clock went backwards, the order of the entries rules, not their times.
        """
        moment = when if isinstance(when, datetime) else datetime.combine(when, time.max, tzinfo=UTC)
        return max(
            (entry for entry in self.history() if entry.promoted_at <= moment),
            key=lambda entry: entry.sequence,
            default=None,
        )

    # Projecting the ledger onto the registry

    def _project_entry(self, entry: str) -> None:
        """Ensures that the registry shows an entry that the ledger already has."""
        try:
            self._project()
        except RegistryError as error:
            raise RegistryBehindError(
                f"{entry}: recorded, but the model registry could not be told ({error}); the next command catches up"
            ) from error

    def _project(self) -> tuple[str, ...]:
        """What was changed in the registry to make it say what the ledger says."""
        with self.ledger.reading() as book:
            last, pending = book.last_promotion(), book.pending()
        if not pending and (last.version if last else None) == self._alias(last):
            return ()
        changed = []
        # One at a time, under the ledger's lock: a slow process must not put an older version back on the alias.
        with self.ledger.writing() as book:
            last, pending = book.last_promotion(), book.pending()
            alias = self._alias(last)
            if last is not None and last.version != alias:
                self._registry.set_production(last.version)
                changed.append(f"production is version {last.version}, was {alias}")
            untold = set()
            for version in sorted({version for versions in pending.values() for version in versions}):
                try:
                    self._registry.tag(version, _tags(book, version))
                    changed.append(f"tags of version {version}")
                except RegistryError as error:
                    # Somebody may have deleted an old version: no reason to stop what is about the others.
                    _log.warning("version %s does not tell its story, the next command tries again: %s", version, error)
                    untold.add(version)
            for event, versions in pending.items():
                if untold.isdisjoint(versions):
                    book.add_projection(event, self.now())
        return tuple(changed)

    def _alias(self, last: Promotion | None) -> str | None:
        """The version that the registry's alias points at; raises NotAdoptedError if the ledger never heard of any."""
        alias = self._registry.production_version()
        if last is None and alias is not None:
            raise NotAdoptedError(
                f"the registry's production is version {alias}, but the ledger records no promotion; "
                f"adopt it: taxifare rollback --to {alias} --by YOU --reason 'adopted'"
            )
        return alias


def _text(value: str) -> str:
    """One line without surrounding space, of a bearable length; NUL is no text to PostgreSQL."""
    return " ".join(value.replace("\0", " ").split())[:1000]


def _rounds(book: Book, request_id: str) -> list[Request]:
    """The request and every other one on the same evidence, in the order they were asked."""
    request = book.request(request_id)
    if request is None:
        raise UnknownRequestError(f"there is no request {request_id!r}")
    same = (other for other in book.requests() if other.evidence_digest == request.evidence_digest)
    return sorted(same, key=lambda other: other.round)


def _production(book: Book) -> str | None:
    last = book.last_promotion()
    return last.version if last else None


def _promote(
    book: Book,
    version: str,
    now: datetime,
    *,
    by: str,
    reason: str,
    request: Request | None = None,
) -> Promotion:
    """The entry that makes a version production, recorded; requests that expected another one become void with it."""
    last = book.last_promotion()
    promotion = Promotion(
        sequence=last.sequence + 1 if last else 1,
        version=version,
        replaced_version=last.version if last else None,
        kind="promotion" if request else "rollback",
        request_id=request.id if request else None,
        by=by,
        reason=reason,
        evidence_digest=request.evidence_digest if request else None,
        promoted_at=now,
    )
    book.promote(promotion)
    for other in book.open_requests():
        stale = _stale(other, version)
        if stale:
            book.settle(_void(other, stale, now))
    return promotion


def _repeats(last: Promotion, to: str | None, by: str, reason: str) -> bool:
    return (last.kind, last.by, last.reason) == ("rollback", by, reason) and to in {None, last.version}


def _earlier(promotions: list[Promotion], to: str | None) -> str:
    """The version to go back to."""
    present = promotions[-1].version
    if to is None:
        # What it replaced when it was promoted, not what a rollback took away: going back twice must not go forward.
        to = next(
            (p.replaced_version for p in reversed(promotions) if p.version == present and p.kind == "promotion"), None
        )
        if to is None:
            raise RollbackError(f"version {present} replaced nothing; name the version to go back to")
    if to == present:
        raise RollbackError(f"version {to} is production already")
    if to not in {promotion.version for promotion in promotions}:
        raise RollbackError(f"version {to} was never production; a new version takes a request and a decision")
    return to


def _stale(request: Request, production: str | None) -> str | None:
    """Why the request no longer asks a sensible question, None if it does."""
    if production != request.production_version:
        before, after = (
            f"version {version}" if version else "nothing" for version in (request.production_version, production)
        )
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
    return Outcome(request.id, State.VOID, None, reason, override=False, at=now)


def _expired(request: Request, now: datetime) -> Outcome:
    reason = f"nobody decided until {request.valid_until:%Y-%m-%d %H:%M} UTC"
    return Outcome(request.id, State.EXPIRED, None, reason, override=False, at=now)


def _tags(book: Book, version: str) -> dict[str, str]:
    """The version's story, as its page in the registry tells it."""
    tags: dict[str, str] = {}
    request = next((r for r in reversed(book.requests()) if r.staging_version == version), None)
    if request is not None:
        outcome = book.outcome(request.id)
        tags |= {
            "month": request.subject,
            "verdict": request.verdict,
            "request": request.id,
            "decision": outcome.state if outcome else State.REQUESTED,
            "decided_by": (outcome.by if outcome else None) or "-",
            "decision_reason": outcome.reason if outcome else "-",
        }
    promotions = book.promotions()
    index = max((i for i, entry in enumerate(promotions) if entry.version == version), default=None)
    if index is not None:
        entry, following = promotions[index], promotions[index + 1 : index + 2]
        tags |= {
            "promoted_by": entry.by,
            "promoted_at": entry.promoted_at.isoformat(),
            "replaced": entry.replaced_version or "-",
            "replaced_by": following[0].version if following else "-",
        }
    return {name: str(value) for name, value in tags.items()}
