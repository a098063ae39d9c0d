"""From a comparison to production: asking a person, hearing the answer, promoting exactly what was shown, going back.

The ledger is the truth; the model registry is a projection of it. Every command first brings the registry up to date
with what the ledger says, then adds its own entries in one transaction, then projects those. A command that dies in
between has either done nothing, or is finished by the next command, whichever that is. What the entries may be is said
by the rules in `requests`, `decisions` and `promotions`; what they were is told by `record`.

Why one transaction, and why repeating is safe: docs/decisions.md, under approval.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from taxifare.approval import decisions, promotions, requests
from taxifare.approval.decisions import Decision
from taxifare.approval.errors import ApprovalError, DecisionRefusedError, RollbackError
from taxifare.approval.ledger import Ledger
from taxifare.approval.projection import Projection, Registry
from taxifare.approval.record import Record
from taxifare.approval.records import Comparison, Outcome, Promotion, Refusal, Request
from taxifare.approval.texts import one_line
from taxifare.approval.tokens import Tokens, approval_secret
from taxifare.settings import Settings


def utc_now() -> datetime:
    """Returns the moment, in UTC."""
    return datetime.now(UTC)


class Approvals:
    """The commands, over a ledger and a model registry. Making one connects to nothing.

    Args:
        ledger: Where everything is recorded.
        registry: Where the production alias and the tags are.
        secret: Key of the tokens, see `tokens.approval_secret`.
        valid_days: How long a request stays open.
        clock: Tells the moment.

    Attributes:
        ledger: Where everything is recorded.
        record: What it tells.
        tokens: What an answer has to carry.
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
        self.record = Record(ledger)
        self.tokens = Tokens(secret)
        self.now = clock
        self._registry = registry
        self._projection = Projection(ledger, registry, lambda: self.now())  # noqa: PLW0108 - moving the clock moves it for both
        self._valid_for = timedelta(days=valid_days)

    @classmethod
    def from_settings(cls, settings: Settings, registry: Registry) -> "Approvals":
        """Returns approvals as the settings say; connects to nothing yet, but makes the secret if there is none."""
        return cls(
            Ledger(settings.ledger_url, settings.target_facts.unit),
            registry,
            approval_secret(settings),
            valid_days=settings.request_valid_days,
        )

    def production(self) -> str | None:
        """Returns the version in production, None where nothing was ever promoted; the registry agrees afterwards.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger never heard of.
        """
        self.repair()
        with self.ledger.reading() as entries:
            return promotions.production(entries)

    def repair(self) -> tuple[str, ...]:
        """Returns what the registry had wrong, put right, see `Projection.repair`."""
        return self._projection.repair()

    def request(self, comparison: Comparison) -> Request:
        """Returns the request that a comparison makes; the same one makes the same request, and is asked about once.

        Open requests on the same subject become void. So does this one, at once, if production changed since.

        Raises:
            ApprovalError: The comparison is about another target than the ledger.
            EvidenceUnreadableError: Another release has written its evidence.
            NotAdoptedError: The registry's production version is unknown to the ledger.
            RegistryBehindError: The request is stored, the registry could not be told.
        """
        unit = comparison.evidence.unit
        if unit != self.ledger.unit:
            raise ApprovalError(
                f"{comparison.subject}: expected evidence in {self.ledger.unit}, received it in {unit}: it was "
                "gathered for another target. Set TARGET back, or use another TAXIFARE_HOME"
            )
        self.repair()
        request = requests.request_on(comparison, self.now(), self._valid_for)
        with self.ledger.writing() as entries:
            asked = entries.request(request.id)
            if asked is not None:
                return asked
            self._ensure_registered(request)
            requests.ask(entries, request, promotions.production(entries))
        self._projection.show(f"request {request.id}")
        return request

    def ask_again(self, request_id: str) -> Request:
        """Returns a new request on the evidence of one that ended without a decision: expired, or void and sensible.

        Nothing asks again by itself; somebody who missed the first request does.

        Raises:
            UnknownRequestError: No such request.
            ApprovalError: It is open, or was decided.
            RegistryBehindError: The request is stored, the registry could not be told.
        """
        self.repair()
        with self.ledger.writing() as entries:
            request = requests.another_round(entries, request_id, self.now(), self._valid_for)
            self._ensure_registered(request)
            requests.ask(entries, request, promotions.production(entries))
        self._projection.show(f"request {request.id}")
        return request

    def decide(
        self, request_id: str, decision: Decision, decided_by: str, reason: str, token: str, *, override: bool = False
    ) -> Outcome:
        """Returns the outcome, stored; if the request is approved, its staging version is production.

        The same decision by the same person again is the same decision: a command that was killed can be repeated.
        An attempt that is refused is recorded too.

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
        request_id, decided_by, reason = one_line(request_id), one_line(decided_by), one_line(reason)
        self.repair()
        outcome: Outcome | None = None
        with self.ledger.writing() as entries:
            try:
                request = requests.found(entries, request_id)
                self.tokens.ensure(request, token)
                decisions.ensure_signed(request_id, decided_by, reason)
                is_new = entries.outcome(request_id) is None
                outcome = decisions.decide(
                    entries, request, decision, decided_by, reason, self.now(), override=override
                )
                if is_new and decision == "approve":
                    self._ensure_registered(request)
            except DecisionRefusedError as error:
                refused = error
                entries.add_refusal(Refusal(request_id, decision, decided_by, str(error), self.now()))
        self._projection.show(f"decision on {request_id}")
        if outcome is None:
            raise refused
        return outcome

    def rollback(self, to: str | None = None, *, by: str, reason: str) -> Promotion:
        """Returns the entry that made an earlier version production again; open requests on the other are void.

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
        by, reason = one_line(by), one_line(reason)
        if not by or not reason:
            raise RollbackError("a rollback needs who decides (by) and why (reason)")
        with self.ledger.writing() as entries:
            history = entries.promotions()
            if history and promotions.is_repeated(history[-1], to, by, reason):
                promotion = history[-1]
            else:
                version = promotions.earlier_version(history, to) if history else self._adopted(to)
                # As for a promotion: a version that is gone from the registry has to fail before it is recorded.
                self._registry.tag(version, {"promoted_by": by})
                promotion = promotions.promote(entries, version, self.now(), by=by, reason=reason)
        self._projection.show(f"rollback to version {promotion.version}")
        return promotion

    def void_restated(self, subject: str, revision: str) -> tuple[Request, ...]:
        """Returns the open requests on other revisions of a subject, which is restated; they are void from now on."""
        with self.ledger.writing() as entries:
            voided = requests.void_restated(entries, subject, revision, self.now())
        self._projection.show(f"restatement of {subject}")
        return voided

    def expire(self) -> tuple[Request, ...]:
        """Returns the requests that nobody answered in time; they are expired from now on."""
        with self.ledger.writing() as entries:
            late = requests.expire(entries, self.now())
        self._projection.show(f"expiry of {len(late)} requests")
        return late

    def _ensure_registered(self, request: Request) -> None:
        """Ensures that the version is registered, before anybody is asked about it or it is production on paper."""
        self._registry.tag(request.staging_version, {"request": request.id})

    def _adopted(self, to: str | None) -> str:
        """Returns the version the registry's alias points at, if it is the one asked for."""
        alias = self._registry.production_version()
        if alias is None or to != alias:
            raise RollbackError(
                "nothing was ever promoted"
                + (f"; the registry's production is version {alias}: adopt it with --to" if alias else "")
            )
        return alias
