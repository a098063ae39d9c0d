"""Whatever happens, in whatever order, crashes included: one production version, and a record of how it came to be."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from taxifare.approval import standing
from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Message
from taxifare.approval.delivery import send_request
from taxifare.approval.due import Known, to_ask
from taxifare.approval.errors import AlteredError, ApprovalError, LedgerBehindError
from taxifare.approval.ledger import Ledger
from taxifare.approval.records import Decision, Outcome, Promotion, Request, RequestState
from taxifare.gate.evidence import Verdict
from taxifare.settings import Settings
from tests.support.approvals import LINKS, PERSON, Office
from tests.support.standing import STANDING, month

SUBJECTS = st.sampled_from(["2015-01", "2015-02", "2015-03"])
PEOPLE = st.sampled_from(["Ada", "Bob"])
TOLERANT = STANDING.model_copy(update={"slice_tolerance": 1.0})
POLICIES = st.sampled_from([PERSON, STANDING, STANDING, TOLERANT])


class Killed(BaseException):
    """Stands for the end of a process: no handler in the code sees it, and open transactions are lost."""


FOLDERS = tempfile.TemporaryDirectory(prefix="taxifare-machine-")


@cache
def empty_ledger() -> Path:
    """A ledger without entries, to copy: migrating one for each example would take longer than the example."""
    path = Path(FOLDERS.name) / "empty.db"
    with Ledger(f"sqlite:///{path}", "USD").writing():
        pass
    return path


def copy(source: Path, target: Path) -> None:
    """Puts one database in place of another, whole."""
    older, newer = sqlite3.connect(source), sqlite3.connect(target)
    older.backup(newer)
    older.close()
    newer.close()


class Chat:
    """A chat that keeps the keys of what it was told."""

    channel = "chat"

    def __init__(self) -> None:
        self.keys: list[str] = []

    def deliver(self, message: Message) -> None:
        self.keys.append(message.key)


class Machine(RuleBasedStateMachine):
    """What every story has in common: people go back, time passes, processes die, backups are restored."""

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FOLDERS.name))
        shutil.copy(empty_ledger(), self.folder / "ledger.db")
        self.office = Office.open(f"sqlite:///{self.folder / 'ledger.db'}", home=self.folder)
        self.versions = 0
        self.chat = Chat()
        self.seen_history: tuple[Promotion, ...] = ()
        self.seen_outcomes: dict[str, Outcome] = {}
        self.registry_backup: tuple[str | None, dict[str, dict[str, str]], int] = (None, {}, 0)
        self.tags_are_whole = True

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def attempt(self, command: Callable[[], object], dies_at: int) -> None:
        """Runs a command; its process dies at the `dies_at`-th call of the registry, where there are so many."""
        calls = 0

        def hook(_call: str) -> None:
            nonlocal calls
            calls += 1
            if calls == dies_at:
                raise Killed

        self.office.registry.before = self.office.registry.after = hook
        try:
            command()
        except (ApprovalError, Killed):
            pass
        finally:
            self.office.registry.before = self.office.registry.after = lambda _call: None

    @rule(policy=POLICIES, dies_at=st.integers(0, 8))
    def the_sensor_ticks(self, policy: Settings, dies_at: int) -> None:
        """Whatever is due is asked within one tick, and nothing is due twice."""

        def tick() -> None:
            settings = policy.model_copy(update={"taxifare_home": self.folder})
            for comparison in to_ask(Known.of(self.office.approvals), [self.chat.channel], settings):
                try:
                    request = self.office.approvals.request(comparison)
                    send_request(self.office.approvals, self.chat, request.id, LINKS, settings)
                    self.is_within_terms(request, self.office.approvals.decide_by_policy(request.id, settings), policy)
                except AlteredError:
                    assert comparison.staging_version in self.office.registry.altered

        self.attempt(tick, dies_at)
        tick()
        left = to_ask(Known.of(self.office.approvals), [self.chat.channel], policy)
        assert {comparison.staging_version for comparison in left} <= self.office.registry.altered
        assert len(set(self.chat.keys)) == len(self.chat.keys), "no message comes twice"

    def is_within_terms(self, request: Request, decided: Outcome | None, policy: Settings) -> None:
        """What a policy has approved just now, somebody has agreed to on exactly these terms."""
        if decided is None or decided.state is not RequestState.APPROVED:
            return
        given, record = self.standing.in_force, request.evidence.track_record
        assert given is not None
        assert record is not None
        assert decided.by == f"standing approval {given.id}"
        assert given.evidence.terms == standing.terms_of(policy)
        worst = min((part.mean for part in record.gains.slices.values()), default=0.0)
        assert worst >= -policy.slice_tolerance

    @property
    def standing(self) -> standing.StandingRecord:
        with self.office.approvals.ledger.reading() as entries:
            return standing.read(entries)

    @property
    def production(self) -> str | None:
        history = self.office.approvals.record.history()
        return history[-1].version if history else None

    @rule(
        by=PEOPLE, back=st.integers(0, 5), reason=st.sampled_from(["complaints", "airport"]), dies_at=st.integers(0, 8)
    )
    def somebody_goes_back(self, by: str, back: int, reason: str, dies_at: int) -> None:
        history = self.office.approvals.record.history()
        to = history[-back].version if 0 < back <= len(history) else None
        self.attempt(lambda: self.office.approvals.rollback(to, by=by, reason=reason), dies_at)

    @rule(days=st.integers(-10, 40), dies_at=st.integers(0, 4))
    def time_passes(self, days: int, dies_at: int) -> None:
        self.office.clock.move(days=days)
        self.attempt(self.office.approvals.expire, dies_at)

    @rule()
    def the_ledger_is_backed_up(self) -> None:
        copy(self.folder / "ledger.db", self.folder / "backup.db")

    @rule()
    def the_backup_of_the_ledger_is_restored(self) -> None:
        """Nothing is decided, and the alias stays, where people were told of more than the backup holds."""
        if not (self.folder / "backup.db").exists():
            return
        copy(self.folder / "backup.db", self.folder / "ledger.db")
        approvals, alias = self.office.approvals, self.office.registry.alias
        self.seen_history = approvals.record.history()
        with approvals.ledger.reading() as entries:
            self.seen_outcomes = {outcome.request_id: outcome for outcome in entries.outcomes()}
        self.tags_are_whole = False
        self.chat.keys.clear()
        try:
            approvals.ensure_told()
        except LedgerBehindError:
            self.nothing_is_decided()
            assert self.office.registry.alias == alias
            self.somebody_adopts()
        self.what_the_ledger_never_heard_of_is_adopted()

    def nothing_is_decided(self) -> None:
        approvals = self.office.approvals
        for attempt in (approvals.production, approvals.expire, lambda: Known.of(approvals), self.roll_back):
            with pytest.raises(LedgerBehindError):
                attempt()
        assert approvals.record.history() == self.seen_history

    def roll_back(self) -> None:
        self.office.approvals.rollback("none", by="Eve", reason="nobody knows what is right")

    def somebody_adopts(self) -> None:
        """What the alias says is production from now on; an alias at what is not there says nothing."""
        registry = self.office.registry
        if registry.alias not in registry.tags:
            registry.alias = None
        wanted, before = registry.alias, self.seen_history[-1:]
        self.office.approvals.adopt(by="Ada", reason="the newer ledger is lost")
        (production,) = [entry.version for entry in self.office.approvals.record.history()[-1:]] or [None]
        assert production == (wanted or (before[0].version if before else None))

    def what_the_ledger_never_heard_of_is_adopted(self) -> None:
        if not self.office.approvals.record.history() and self.office.registry.alias is not None:
            self.somebody_adopts()

    @invariant()
    def production_is_the_last_entry_and_the_alias(self) -> None:
        before = self.office.registry.alias
        production = self.office.approvals.production()
        history = self.office.approvals.record.history()
        assert production == (history[-1].version if history else None)
        # The alias is never moved to files that are not those that were approved.
        assert self.office.registry.alias == (before if production in self.office.registry.altered else production)

    @invariant()
    def history_only_grows_and_has_no_gaps(self) -> None:
        history = self.office.approvals.record.history()
        assert history[: len(self.seen_history)] == self.seen_history
        assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
        replaced = [None, *(entry.version for entry in history)][: len(history)]
        assert [entry.replaced_version for entry in history] == replaced
        self.seen_history = history

    @invariant()
    def every_promotion_has_its_decision_and_every_approval_its_promotion(self) -> None:
        approvals = self.office.approvals
        promoted = {entry.request_id: entry for entry in approvals.record.history() if entry.kind == "promotion"}
        approved = {
            request.id: request
            for request in approvals.record.requests()
            if approvals.record.state(request) == RequestState.APPROVED
        }
        assert promoted.keys() == approved.keys()
        for name, request in approved.items():
            assert promoted[name].version == request.staging_version
            assert promoted[name].evidence_digest == request.evidence_digest
            assert promoted[name].replaced_version == request.production_version

    @invariant()
    def what_became_production_by_itself_was_agreed_to_and_not_over(self) -> None:
        with self.office.approvals.ledger.reading() as entries:
            record, uses, history = standing.read(entries), entries.standing_uses(), entries.promotions()
            asked = {request.id: request for request in entries.requests()}
            places = {(link.entry_table, link.entry_key): link.number for link in entries.links()}
        waiting = [request for request in record.requests if request.id not in record.outcomes]
        agreed = {name for name, outcome in record.outcomes.items() if outcome.state is RequestState.APPROVED}
        assert (len(waiting) <= 1, len(agreed - record.ends.keys()) <= 1) == (True, True)
        of_request = {entry.request_id: entry for entry in history if entry.by.startswith("standing approval ")}
        assert of_request.keys() == uses.keys()
        back = [places["promotions", f"[{entry.sequence}]"] for entry in history if entry.kind == "rollback"]
        for request_id, name in uses.items():
            given = next(request for request in record.requests if request.id == name)
            assert given.covers(asked[request_id].subject)
            begun = places["standing_outcomes", f'["{name}"]']
            at = places["promotions", f"[{of_request[request_id].sequence}]"]
            over = places.get(("standing_ends", f'["{name}"]'), len(places) + 1)
            assert begun < at < over
            assert not [place for place in back if begun < place < at], "nothing goes forward by itself after that"

    @invariant()
    def no_decision_is_lost_or_changed(self) -> None:
        with self.office.approvals.ledger.reading() as entries:
            outcomes = {outcome.request_id: outcome for outcome in entries.outcomes()}
        assert outcomes | self.seen_outcomes == outcomes
        self.seen_outcomes = outcomes

    @invariant()
    def open_requests_are_about_what_is_in_production_and_one_a_month(self) -> None:
        waiting = self.office.approvals.record.open_requests()
        history = self.office.approvals.record.history()
        assert {request.production_version for request in waiting} <= {history[-1].version if history else None}
        assert len({request.subject for request in waiting}) == len(waiting)

    @invariant()
    def what_was_answered_is_not_asked_again(self) -> None:
        approvals = self.office.approvals
        rounds: dict[str, list[Request]] = {}
        for request in approvals.record.requests():
            rounds.setdefault(request.evidence_digest, []).append(request)
        for same in rounds.values():
            assert [request.round for request in same] == list(range(1, len(same) + 1))
            unanswered = {RequestState.VOID, RequestState.EXPIRED}
            assert {approvals.record.state(request) for request in same[:-1]} <= unanswered

    @invariant()
    def tags_tell_how_each_version_fared(self) -> None:
        if not self.tags_are_whole:
            return
        approvals = self.office.approvals
        last = {request.staging_version: request for request in approvals.record.requests()}
        for request in last.values():
            tags = self.office.registry.tags[request.staging_version]
            assert (tags["request"], tags["decision"]) == (request.id, approvals.record.state(request))


class ApprovalMachine(Machine):
    """Months run, people decide, sources restate, models are altered, wiped and restored."""

    requests: Bundle[Request] = Bundle("requests")

    @rule(
        target=requests,
        subject=SUBJECTS,
        revision=st.sampled_from(["r1", "r2"]),
        verdict=st.sampled_from([Verdict.PROMOTE, Verdict.PROMOTE, Verdict.HOLD, Verdict.LEAK]),
        stale=st.booleans(),
        dies_at=st.integers(0, 8),
    )
    def a_month_runs(self, subject: str, revision: str, verdict: Verdict, stale: bool, dies_at: int) -> Request:
        history = self.office.approvals.record.history()
        production = (history[0 if stale else -1]).version if history else None
        self.versions += 1

        def run() -> Request:
            return self.office.ask(subject, str(self.versions), production, revision=revision, verdict=verdict)

        self.attempt(run, dies_at)
        return run()

    @rule(request=requests, by=PEOPLE, approve=st.booleans(), override=st.booleans(), dies_at=st.integers(0, 8))
    def somebody_decides(self, request: Request, by: str, approve: bool, override: bool, dies_at: int) -> None:
        decision = "approve" if approve else "reject"
        self.attempt(lambda: self.office.decide(request, decision, by, override=override), dies_at)

    @rule(request=requests)
    def somebody_forges(self, request: Request) -> None:
        approvals = self.office.approvals
        before = approvals.record.outcome(request.id)
        self.attempt(lambda: approvals.decide(request.id, "approve", "Eve", "forged", "0" * 32, override=True), 0)
        assert approvals.record.outcome(request.id) == before

    @rule(request=requests)
    def the_evidence_comes_again(self, request: Request) -> None:
        """It is the same question; another round of it only where that ended as void and makes sense again."""
        before = [other for other in self.office.approvals.record.requests() if other.evidence == request.evidence]
        if not before:
            return  # lost with the ledger that it was in
        history = self.office.approvals.record.history()
        made_sense = request.production_version == (history[-1].version if history else None)
        was_void = self.office.approvals.record.state(before[-1]) is RequestState.VOID
        if self.is_altered(request):
            return
        again = self.office.request(request.evidence)
        assert (again not in before) == (was_void and made_sense and again.staging_version != again.production_version)

    def is_altered(self, request: Request) -> bool:
        return request.staging_version in self.office.registry.altered

    @rule(request=requests, dies_at=st.integers(0, 8))
    def somebody_asks_again(self, request: Request, dies_at: int) -> None:
        self.attempt(lambda: self.office.approvals.ask_again(request.id), dies_at)

    @rule(request=requests, altered=st.booleans())
    def somebody_alters_files(self, request: Request, altered: bool) -> None:
        if altered:
            self.office.registry.altered.add(request.staging_version)
        else:
            self.office.registry.altered.discard(request.staging_version)

    @rule(by=PEOPLE, dies_at=st.integers(0, 8))
    def somebody_takes_the_model_out(self, by: str, dies_at: int) -> None:
        self.attempt(lambda: self.office.approvals.rollback("none", by=by, reason="it is wrong"), dies_at)

    @rule(subject=SUBJECTS, revision=st.sampled_from(["r1", "r2", "r3"]), dies_at=st.integers(0, 4))
    def a_month_is_restated(self, subject: str, revision: str, dies_at: int) -> None:
        self.attempt(lambda: self.office.approvals.void_restated(subject, revision), dies_at)

    @rule(alias=st.sampled_from([None, "1", "2"]))
    def somebody_moves_the_alias_by_hand(self, alias: str | None) -> None:
        if self.office.approvals.record.history():
            self.office.registry.alias = alias

    @rule()
    def the_registry_is_backed_up(self) -> None:
        registry = self.office.registry
        self.registry_backup = (registry.alias, deepcopy(registry.tags), self.versions)

    @rule()
    def the_backup_of_the_registry_is_restored(self) -> None:
        """Its versions of since are gone, or others are made under their numbers; the alias is where it was."""
        registry = self.office.registry
        registry.alias, tags, versions = self.registry_backup
        registry.tags = deepcopy(tags)
        registry.altered |= {str(number) for number in range(versions + 1, self.versions + 1)}
        self.tags_are_whole = False
        self.what_the_ledger_never_heard_of_is_adopted()

    @rule()
    def the_projection_is_wiped(self) -> None:
        registry = self.office.registry
        registry.alias, registry.tags = None, {version: {} for version in registry.tags}
        self.tags_are_whole = False

    @rule()
    def the_home_moves(self) -> None:
        moved = Path(tempfile.mkdtemp(dir=FOLDERS.name)) / "home"
        self.folder = self.folder.rename(moved)
        before = self.office
        self.office = Office.open(f"sqlite:///{moved / 'ledger.db'}", before.registry, moved)
        self.office.clock.moment = before.clock.moment


class StandingMachine(Machine):
    """A person agrees once, to some terms; months come and become production by themselves, until it is over."""

    @initialize()
    def open(self) -> None:
        super().open()
        self.office.with_first_model()
        self.versions = 2
        self.office.request(month("2014-12", "2", "1", so_far=0))
        self.somebody_agrees("Ada", STANDING, approve=True, right=True, dies_at=0)

    @rule(
        subject=SUBJECTS,
        so_far=st.sampled_from([0.02, 0.02, 0.0]),
        at_airports=st.sampled_from([None, None, -0.5]),
        policy=POLICIES,
        dies_at=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    )
    def a_lesson_is_learned(
        self, subject: str, so_far: float, at_airports: float | None, policy: Settings, dies_at: int
    ) -> None:
        """A month with a track record against what is in production; compared while airports are held to little."""
        production = self.production
        if production is None:
            return
        self.versions += 1
        found = month(subject, str(self.versions), production, so_far=so_far, at_airports=at_airports)
        self.attempt(lambda: self.office.request(found), dies_at)
        self.the_sensor_ticks(policy, dies_at)

    @rule(
        policy=POLICIES,
        by=PEOPLE,
        approve=st.sampled_from([True, True, False]),
        right=st.sampled_from([True, True, False]),
        dies_at=st.sampled_from([0, 0, 0, 1, 2, 4, 8]),
    )
    def somebody_agrees(self, by: str, policy: Settings, approve: bool, right: bool, dies_at: int) -> None:
        """To a standing approval; by the token of the answer, or of the contrary one, which opens nothing."""
        approvals: Approvals = self.office.approvals
        self.attempt(lambda: approvals.ask_standing(policy), dies_at)
        waiting = self.standing.open
        if waiting is None:
            return
        decision: Decision = "approve" if approve else "reject"
        token = approvals.answer_tokens(waiting)["approve" if approve is right else "reject"]
        self.attempt(lambda: approvals.decide(waiting.id, decision, by, "I read the terms", token), dies_at)
        assert right or waiting.id not in self.standing.outcomes

    @rule(by=PEOPLE)
    def somebody_ends_it(self, by: str) -> None:
        self.attempt(lambda: self.office.approvals.withdraw_standing(by=by, reason="tolls change"), 0)


TestApprovals = ApprovalMachine.TestCase
TestApprovals.settings = settings(max_examples=12, stateful_step_count=30)
TestStandingApprovals = StandingMachine.TestCase
TestStandingApprovals.settings = settings(max_examples=4, stateful_step_count=20)
