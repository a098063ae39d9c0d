"""From a comparison to production: asking a person, taking the answer, promoting exactly what was shown, going back.

The ledger is the truth; the model registry is a projection of it. Every command first brings the registry up to date
with what the ledger says, then adds its own entries in one transaction, then projects those. A command that dies in
between has either done nothing, or is finished by the next command, whichever that is. The rules in `requests`,
`decisions` and `promotions` say what entries may be; `record` reads them.

Why one transaction, and why repeating is safe: docs/decisions.md, under approval.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from taxifare.approval import alarms, decisions, policies, promotions, requests, standing
from taxifare.approval.comparisons import ensure_of_recorded_files
from taxifare.approval.errors import (
    AlteredError,
    ApprovalError,
    DecisionRefusedError,
    LedgerBehindError,
    RollbackError,
    SettledError,
    TokenError,
    UnknownRequestError,
)
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import Entries, Ledger, city_in_words
from taxifare.approval.projection import Projection, Publisher, Registry
from taxifare.approval.record import Record
from taxifare.approval.records import (
    Alarm,
    AlarmEvidence,
    Comparison,
    Decision,
    Outcome,
    Promotion,
    Question,
    Refusal,
    Request,
    RequestState,
    StandingEnd,
    StandingRequest,
)
from taxifare.approval.texts import one_line
from taxifare.approval.tokens import (
    Tokens,
    about_promotion,
    kept_secret,
    spend,
    to_answer,
    to_ask_again,
    to_go_back,
)
from taxifare.approval.versions import ledger_of
from taxifare.gate.evidence import Verdict
from taxifare.model.contents import Content, NotOnRecordError
from taxifare.model.packaging import VersionUnusableError
from taxifare.settings import Settings
from taxifare.texts import named_version


def utc_now() -> datetime:
    """Returns the moment, in UTC."""
    return datetime.now(UTC)


class Approvals:
    """The commands, over a ledger and a model registry. Making one connects to nothing.

    Args:
        ledger: Where everything is recorded.
        registry: Where the production alias and the tags are.
        secret: Gives the key of the tokens, see `tokens.kept_secret`.
        publisher: Publishes what is in force; None where nobody prices rides.
        told: What people were told of the ledger; None where that is not remembered.
        valid_days: How long a request stays open.
        clock: Gives the present moment.

    Attributes:
        ledger: Where everything is recorded.
        record: Reads it.
        tokens: What answers have to carry.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        secret: Callable[[], bytes],
        *,
        publisher: Publisher | None = None,
        told: ToldHeads | None = None,
        valid_days: int = 30,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.ledger = ledger
        self.record = Record(ledger)
        self.tokens = Tokens(secret)
        self.now = clock
        self._registry = registry
        self._told = told
        # Moving the clock moves it for both.
        self._projection = Projection(ledger, registry, publisher, lambda: self.now())  # noqa: PLW0108
        self._valid_for = timedelta(days=valid_days)

    @classmethod
    def from_settings(cls, settings: Settings, registry: Registry, publisher: Publisher | None = None) -> "Approvals":
        """Returns approvals as the settings say; connects to nothing yet, and makes no state."""
        ledger = ledger_of(settings)
        return cls(
            ledger,
            registry,
            kept_secret(settings),
            publisher=publisher,
            told=ToldHeads(settings.home, ledger.place),
            valid_days=settings.request_valid_days,
        )

    def production(self) -> str | None:
        """Returns the version in production, None where nothing is; the registry agrees afterwards.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger does not know.
            LedgerBehindError: The ledger lacks what people were told.
        """
        self.repair()
        with self.ledger.reading() as entries:
            return promotions.production(entries)

    def repair(self) -> tuple[str, ...]:
        """Returns what was wrong in the registry and is repaired now, see `Projection.repair`.

        Raises:
            LedgerBehindError: The ledger lacks what people were told: nobody knows what is right.
        """
        self.ensure_told()
        return self._projection.repair()

    def retell(self) -> tuple[str, ...]:
        """Returns which versions' tags in the registry were edited and say what the ledger says now.

        Raises:
            LedgerBehindError: The ledger lacks what people were told: nobody knows what is right.
        """
        self.ensure_told()
        return self._projection.retell()

    def prepare(self, version: str) -> None:
        """Ensures, if possible, that the version can be in force as soon as it is promoted."""
        self._projection.prepare(version)

    def ensure_told(self) -> None:
        """Ensures that the ledger has what people were told last.

        Raises:
            LedgerBehindError: It does not.
        """
        if self._told is None:
            return
        with self.ledger.reading() as entries:
            missing = self._told.missing(entries)
        if missing is not None:
            raise LedgerBehindError(
                f"{self.ledger!r} lacks what was told on {missing.told_at:%Y-%m-%d %H:%M} UTC ({missing.message}): it "
                "was restored from an older backup, cut off or computed anew; nothing is decided until it is the newer "
                'one again. Where that is lost: taxifare adopt --by YOU --reason "WHY" goes on from this one, with '
                "what MLflow's alias says is in production"
            )

    def request(self, comparison: Comparison) -> Request:
        """Returns the request about a comparison; the same comparison gives the same request and is asked about once.

        Open requests on the same subject become void. So does this one, at once, if production changed since; once the
        evidence stands again, the same question is asked in another round.

        Raises:
            ApprovalError: The comparison is about another target than the ledger, or there is nothing to decide on.
            EvidenceUnreadableError: Another release has written its evidence.
            AlteredError: What would become production is not what was scored.
            NotAdoptedError: The registry's production version is unknown to the ledger.
            RegistryBehindError: The request is stored, but the registry could not be told.
        """
        evidence = comparison.evidence
        if evidence.city != self.ledger.city:
            raise ApprovalError(
                f"{comparison.subject}: expected evidence about {city_in_words(self.ledger.city)}, received it about "
                f"{city_in_words(evidence.city)}. Set CITY back, or use another TAXIFARE_HOME"
            )
        if evidence.unit != self.ledger.unit:
            raise ApprovalError(
                f"{comparison.subject}: expected evidence in {self.ledger.unit}, received it in {evidence.unit}: it "
                "was gathered for another target. Set TARGET back, or use another TAXIFARE_HOME"
            )
        if comparison.evidence.verdict is Verdict.UNCHANGED:
            raise ApprovalError(f"{comparison.subject}: nobody is asked, for {'; '.join(comparison.evidence.reasons)}")
        if comparison.staging_version == comparison.production_version:
            raise ApprovalError(
                f"{comparison.subject}: expected two versions to decide between, received version "
                f"{comparison.staging_version} as both staging and production: run the month again"
            )
        self.repair()
        with self.ledger.writing() as entries:
            production, last = promotions.production(entries), requests.last_round(entries, comparison)
            if last is None:
                request = requests.request_on(comparison, self.now(), self._valid_for)
            elif requests.stands(comparison, production, entries) and requests.is_void(entries.outcome(last.id)):
                request = requests.next_round(last, self.now(), self._valid_for)
            else:
                return last
            ensure_of_recorded_files(entries, comparison)
            self._ensure_as_shown(request, entries)
            requests.ask(entries, request, production)
        self._projection.show(f"request {request.id}")
        return request

    def ask_again(self, request_id: str, token: str | None = None) -> Question:
        """Returns a new request on the evidence of one that ended without an answer, which still stands.

        On this machine an open request is returned as it is, and its message is sent again with fresh links; the
        earlier ones are dead, whoever has them and whichever key made them. The same goes for a question about a
        standing approval, and for an alarm.

        Args:
            request_id: The request.
            token: From the message; None on this machine, where whoever can run this can read the secret.

        Raises:
            UnknownRequestError: No such request.
            TokenError: The token does not permit it.
            ApprovalError: It is open, was decided, or there is newer evidence; the attempt is on record.
            RegistryBehindError: The request is stored, but the registry could not be told.
        """
        request_id = one_line(request_id)
        self.repair()
        again: Question | None = None
        with self.ledger.writing() as entries:
            try:
                again = self._asked_again(entries, self._asked(entries, request_id), token)
            except ApprovalError as error:
                refused = error
                entries.add_refusal(Refusal(request_id, "ask again", "", str(error), self.now()))
        if again is None:
            raise refused
        self._projection.show(f"request {again.id}")
        return again

    def _asked_again(self, entries: Entries, request: Question, token: str | None) -> Question:
        """Returns the question that is open from now on; if it raises ApprovalError, nothing is recorded."""
        if not isinstance(request, Request) and token is not None:
            raise TokenError(f"no message about {request.id} has a link that asks it again")
        if isinstance(request, Alarm):
            return alarms.send_again(entries, request, self.now())
        if isinstance(request, StandingRequest):
            return standing.send_again(entries, request, self.now())
        production = promotions.production(entries)
        if token is not None:
            self.tokens.ensure(to_ask_again(request), entries, token)
            requests.ensure_last_round(entries, request)
        elif requests.is_open(entries, request, production, self.now()):
            spend(to_answer(request, "approve"), "asked again", entries, self.now())
            return request
        requests.expire(entries, self.now())
        again = requests.next_round(requests.repeatable(entries, request, production), self.now(), self._valid_for)
        self._ensure_as_shown(again, entries)
        requests.ask(entries, again, production)
        return again

    @staticmethod
    def _asked(entries: Entries, request_id: str) -> Question:
        """Returns what was asked under that name; raises UnknownRequestError if nothing was."""
        others: list[StandingRequest | Alarm] = [*entries.standing_requests(), *entries.alarms()]
        return next((asked for asked in others if asked.id == request_id), None) or requests.found(entries, request_id)

    def decide_by_policy(self, request_id: str, settings: Settings) -> Outcome | None:
        """Returns the outcome of what a policy has decided just now, stored; None where a person has to, or has.

        Args:
            request_id: The request.
            settings: Give the policy, and the terms on which it decides.

        Raises:
            UnknownRequestError: No such request.
            DecisionRefusedError: What the policy decides does not stand: as `decide`.
            RegistryBehindError: The decision is stored, the registry could not be told.
        """
        self.repair()
        with self.ledger.writing() as entries:
            request = requests.found(entries, request_id)
            gone_back = promotions.rolled_back(entries.promotions())
            ruled = policies.decision_on(request, standing.read(entries), gone_back, settings)
            if ruled is None or entries.outcome(request.id) is not None:
                return None
            # Under a standing approval less than a PROMOTE may be enough: that is what the person has agreed to.
            is_against = ruled.decision == "approve" and request.verdict not in decisions.APPROVABLE
            override = is_against and ruled.standing_id is not None
            outcome = self._decided(entries, request, ruled.decision, ruled.by, ruled.reason, override=override)
            if ruled.standing_id is not None and outcome.state is RequestState.APPROVED:
                entries.add_standing_use(request.id, ruled.standing_id)
        self._projection.show(f"decision on {request_id}")
        return outcome

    def raise_alarm(self, evidence: AlarmEvidence, version: str) -> Alarm:
        """Returns the alarm about the promotion in force: whether to retrain before the month is over; raised once.

        Args:
            evidence: What speaks for it.
            version: The version that was watched.

        Raises:
            ApprovalError: The version is no longer in production.
        """
        self.repair()
        with self.ledger.writing() as entries:
            return alarms.raise_alarm(entries, evidence, version, self._valid_for, self.now())

    def ask_standing(self, settings: Settings) -> StandingRequest:
        """Returns the question about a standing approval for the next months, which is open from now on.

        Raises:
            ApprovalError: No month has been compared with what is in production, or APPROVAL_POLICY is not `standing`.
            EvidenceUnreadableError: Another release has written the evidence of the last month.
        """
        if settings.approval_policy != "standing":
            raise ApprovalError(
                f"APPROVAL_POLICY: expected standing, received {settings.approval_policy}: no approval would be used"
            )
        self.repair()
        with self.ledger.writing() as entries:
            production = promotions.production(entries)
            comparisons = entries.comparisons().values()
            months = [one for one in comparisons if one.is_of_month and one.production_version == production]
            if production is None or not months:
                raise ApprovalError(
                    "expected a month that was compared with what is in production, received none: there is nothing "
                    "yet that would speak for a standing approval. Run a month first"
                )
            latest = max(months, key=lambda one: one.subject)
            evidence, now = standing.review(latest, comparisons, settings), self.now()
            until = now + self._valid_for
            return standing.ask(entries, evidence, latest.subject, production, settings.standing_months, until, now)

    def withdraw_standing(self, *, by: str, reason: str) -> StandingEnd:
        """Returns the end of the standing approval in force: from now on a person is asked about each month.

        Args:
            by: Who decides.
            reason: Why.

        Raises:
            UnsignedError: Who or why is missing.
            ApprovalError: None is in force.
        """
        self.ensure_told()
        with self.ledger.writing() as entries:
            return standing.withdraw(entries, one_line(by), one_line(reason), self.now())

    def decide(
        self,
        request_id: str,
        decision: Decision,
        decided_by: str,
        reason: str,
        token: str | None = None,
        *,
        override: bool = False,
    ) -> Outcome:
        """Returns the outcome, stored; if the request is approved, its staging version is production.

        If it asks for a standing approval, that is in force; if it is an alarm, the model is retrained on the open
        month. The same decision by the same person again is the same decision: a command that was killed can be
        repeated. A refused attempt is recorded too, and its token is spent: the question is sent again with fresh
        links.

        Args:
            request_id: The request.
            decision: `approve` or `reject`.
            decided_by: Who decides.
            reason: Why.
            token: From the message; None on this machine, where whoever can run this can read the secret.
            override: Approve although the verdict is neither PROMOTE nor COLD_START.

        Raises:
            UnknownRequestError: No such request.
            TokenError: The token does not permit it.
            UnsignedError: Who or why is missing.
            SettledError: Decided already, expired, or void because production, staging or the month changed.
            AgainstVerdictError: The evidence does not support it, and there is no override.
            AlteredError: What would become production is not what the message showed.
            RegistryBehindError: The decision is stored, but the registry could not be told.
        """
        if decision not in {"approve", "reject"}:
            raise ValueError(f"a decision is approve or reject, not {decision!r}")
        request_id, decided_by, reason = one_line(request_id), one_line(decided_by), one_line(reason)
        self.repair()
        outcome: Outcome | None = None
        with self.ledger.writing() as entries:
            try:
                request = self._asked(entries, request_id)
                if token is not None:
                    self.tokens.ensure(to_answer(request, decision), entries, token)
                outcome = self._answered(entries, request, decision, decided_by, reason, override=override)
            except DecisionRefusedError as error:
                refused = error
                entries.add_refusal(Refusal(request_id, decision, decided_by, str(error), self.now()))
                if token is not None and not isinstance(error, UnknownRequestError | TokenError | SettledError):
                    spend(to_answer(request, decision), str(error), entries, self.now())
        self._projection.show(f"decision on {request_id}")
        if outcome is None:
            raise refused
        return outcome

    def _answered(
        self, entries: Entries, asked: Question, decision: Decision, by: str, reason: str, *, override: bool
    ) -> Outcome:
        """Returns the outcome of whatever was asked, recorded; raises DecisionRefusedError."""
        if isinstance(asked, StandingRequest):
            return standing.answer(entries, asked, decision, by, reason, self.now())
        if isinstance(asked, Alarm):
            return alarms.answer(entries, asked, decision, by, reason, self.now())
        return self._decided(entries, asked, decision, by, reason, override=override)

    def _decided(
        self, entries: Entries, request: Request, decision: Decision, by: str, reason: str, *, override: bool
    ) -> Outcome:
        """Returns the outcome, recorded; if it raises DecisionRefusedError, only an end that was due is recorded."""
        requests.ensure_signed(f"a decision on {request.id}", by, reason)
        still_stands = requests.overtaken(request, promotions.production(entries), self.now()) is None
        if decision == "approve" and still_stands and entries.outcome(request.id) is None:
            self._ensure_as_shown(request, entries)
        return decisions.decide(entries, request, decision, by, reason, self.now(), override=override)

    def rollback(self, to: str | None = None, *, by: str, reason: str, token: str | None = None) -> Promotion:
        """Returns the entry that made an earlier version production again; open requests about the other are void.

        The same rollback by the same person for the same reason is the same rollback: a command that was killed can be
        repeated without going back a second step. A refused attempt is recorded too.

        Args:
            to: The version; by default the one that the present version replaced when it was promoted. `none` takes the
                model out of production.
            by: Who decides.
            reason: Why.
            token: From the message; None on this machine, where whoever can run this can read the secret.

        Raises:
            RollbackError: Nothing to go back to, never in production, or production already.
            UnsignedError: Who or why is missing.
            TokenError: The token does not permit it.
            AlteredError: What would become production is not what was in production then.
            RegistryBehindError: The rollback is stored, but the registry could not be told.
        """
        self.ensure_told()
        by, reason, to = one_line(by), one_line(reason), None if to is None else one_line(to)
        promotion: Promotion | None = None
        with self.ledger.writing() as entries:
            history = entries.promotions()
            try:
                promotion = self._gone_back(entries, history, to, by, reason, token)
            except ApprovalError as error:
                refused = error
                about = about_promotion(history[-1].sequence if history else 0)
                entries.add_refusal(Refusal(about, "go back", by, str(error), self.now()))
        if promotion is None:
            raise refused
        self._projection.show(f"rollback to {named_version(promotion.version)}")
        return promotion

    def _gone_back(
        self, entries: Entries, history: list[Promotion], to: str | None, by: str, reason: str, token: str | None
    ) -> Promotion:
        """Returns the entry, recorded; if it raises ApprovalError, a token that permitted the attempt is spent."""
        if not history:
            raise RollbackError("nothing was ever in production")
        repeated = promotions.is_repeated(history[-1], to, by, reason)
        # The token of a rollback that is repeated was about what it replaced.
        replaced = history[-2:][0] if repeated else history[-1]
        version = history[-1].version if repeated else promotions.earlier_version(history, to)
        permission = to_go_back(replaced, version)
        if token is not None:
            self.tokens.ensure(permission, entries, token)
        if repeated:
            return history[-1]
        try:
            requests.ensure_signed("a rollback", by, reason)
            if version is not None:
                self._ensure_unaltered(version)
        except ApprovalError as error:
            if token is not None:
                spend(permission, str(error), entries, self.now())
            raise
        return self._changed_back(entries, version, by, reason)

    def _changed_back(self, entries: Entries, version: str | None, by: str, reason: str) -> Promotion:
        """Returns the entry that makes a version production without a request; it ends a standing approval."""
        standing.stop(entries, "rollback", by, reason, self.now())
        return promotions.promote(entries, version, self.now(), by=by, reason=reason)

    def adopt(self, *, by: str, reason: str) -> tuple[Content, ...]:
        """Returns the versions that are on record from now on, as MLflow has them.

        An earlier release registered them, or their entries were lost with a newer ledger. Whoever adopts them vouches
        that they are what they were. Where the ledger has no promotion yet, or lacks what people were told, the version
        that the registry's alias points at is production from now on. In the second case what was told is given up, and
        a standing approval ends, because what is lost may have ended it.

        Args:
            by: Who says so.
            reason: Why.

        Raises:
            UnsignedError: Who or why is missing.
            ApprovalError: The version in production has no files.
            RegistryError: MLflow does not answer.
        """
        by, reason = one_line(by), one_line(reason)
        requests.ensure_signed("an adoption", by, reason)
        with self.ledger.reading() as entries:
            known = {content.version for content in entries.contents()}
        found = tuple(content for content in self._registry.as_they_are() if content.version not in known)
        alias = self._registry.production_version()
        with self.ledger.writing() as entries:
            for content in found:
                if entries.content(content.version) is None:
                    entries.add_content(content, self.now(), adopted_by=by, reason=reason)
            is_behind = self._told is not None and self._told.missing(entries) is not None
            if is_behind:
                # What is lost may have ended a standing approval: nothing goes on by itself.
                standing.stop(entries, "withdrawal", by, f"the newer ledger is lost: {reason}", self.now())
            is_news = alias != promotions.production(entries)
            if alias is not None and is_news and (is_behind or entries.last_promotion() is None):
                if entries.content(alias) is None:
                    raise ApprovalError(f"version {alias}, the registry's production, has no files: nothing is adopted")
                self._changed_back(entries, alias, by, reason)
        if self._told is not None and is_behind:
            with self.ledger.reading() as entries:
                self._told.give_up(entries, f"{by}: {reason}")
        self._projection.show("adoption")
        return found

    def void_restated(self, subject: str, revision: str) -> tuple[Request, ...]:
        """Returns the open requests on other revisions of a subject, which is restated; they are void from now on."""
        self.ensure_told()
        with self.ledger.writing() as entries:
            voided = requests.void_restated(entries, subject, revision, self.now())
        self._projection.show(f"restatement of {subject}")
        return voided

    def expire(self) -> tuple[Request, ...]:
        """Returns the requests that nobody answered in time; they are expired from now on."""
        self.ensure_told()
        with self.ledger.writing() as entries:
            late = requests.expire(entries, self.now())
            standing.expire(entries, self.now())
            alarms.expire(entries, self.now())
        self._projection.show(f"expiry of {len(late)} requests")
        return late

    def answer_tokens(self, request: Question) -> dict[Decision, str]:
        """Returns the tokens of approving and rejecting that the next message about the request shows."""
        with self.ledger.reading() as entries:
            return self.tokens.answers(request, entries)

    def damage(self) -> tuple[str, str] | None:
        """Returns the version in production and what is wrong with it, None where it is what was registered.

        Raises:
            RegistryError: MLflow does not answer.
        """
        with self.ledger.reading() as entries:
            last = entries.last_promotion()
        if last is None or last.version is None:
            return None
        try:
            self._registry.verify(last.version)
        except NotOnRecordError:
            return None  # Nobody knows what it was; `doctor` says how to adopt it.
        except VersionUnusableError as error:
            return last.version, str(error)
        return None

    def _ensure_as_shown(self, request: Request, entries: Entries) -> None:
        """Ensures that what would become production is what the evidence is about, by content.

        Raises:
            AlteredError: It is not, or MLflow does not have it any more.
        """
        self._ensure_unaltered(request.staging_version)
        content, shown = entries.content(request.staging_version), request.evidence.staging.files_digest
        if content is not None and shown not in {None, content.files_digest}:
            raise AlteredError(
                f"{request.id} was scored on files of version {request.staging_version} with digest {shown}, on record "
                f"is {content.files_digest}: run its month again"
            )

    def _ensure_unaltered(self, version: str) -> None:
        """Ensures that MLflow has the version as it was registered; raises AlteredError if it does not."""
        try:
            self._registry.verify(version)
        except VersionUnusableError as error:
            raise AlteredError(str(error)) from error
