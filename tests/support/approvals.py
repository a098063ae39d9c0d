"""What tests of approval share: evidence to ask about, and model registries that can die."""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from taxifare.approval.approvals import Approvals
from taxifare.approval.comparisons import record
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import Ledger
from taxifare.approval.projection import Registry
from taxifare.approval.records import AlarmEvidence, Decision, Outcome, Question, Refusal, Request, WatchedDay
from taxifare.gate.evidence import Contender, Evidence, Verdict
from taxifare.gate.scores import Interval, Scores
from taxifare.gate.slices import SliceComparison
from taxifare.model.contents import Content
from taxifare.model.packaging import VersionUnusableError
from taxifare.settings import Settings

T = TypeVar("T")

SECRET = b"a secret that only messages show"

PERSON, GATE = (Settings(_env_file=None, approval_policy=policy) for policy in ("person", "gate"))


ALARM_DAYS = tuple(
    WatchedDay(day=date(2012, 9, 4) + timedelta(days=n), rides=450, mae=2.6, difficulty=3.2, score=3.0 * (n + 1))
    for n in range(4)
)
ALARM = AlarmEvidence(
    unit="USD",
    month="2012-09",
    usual_skill=0.5,
    recent_skill=0.1875,
    days=ALARM_DAYS,
    threshold=10,
    false_alarms_a_year=0.1,
    rules=("fares_2012_09",),
)


def scores(mae: float, bias: float = -0.3) -> Scores:
    return Scores(trips=4000, mae=mae, rmse=2 * mae, bias=bias)


def evidence(
    subject: str,
    staging: str,
    production: str | None,
    *,
    verdict: Verdict = Verdict.PROMOTE,
    revision: str = "r1",
    mae: float = 2.10,
) -> Evidence:
    """Evidence on a month, as the comparison makes it; a cold start where nothing is in production."""
    gain = Interval(mean=2.31 - mae, low=2.31 - mae - 0.04, high=2.31 - mae + 0.04)
    few = Interval(mean=-0.02, low=float("-inf"), high=float("inf"))
    slices = (
        SliceComparison(name="airport", production=scores(4.2), staging=scores(4.22), gain=few),
        SliceComparison(name="night", production=scores(1.9), staging=scores(1.7), gain=gain),
    )
    return Evidence(
        subject=subject,
        revision=revision,
        unit="USD",
        staging=contender(staging, scores(mae, -0.25), run_id="run-s", correction=0.2),
        production_version=production,
        production=contender(production, scores(2.31, -0.45), run_id="run-p", correction=0.4) if production else None,
        difficulty_mae=2.48,
        gain=gain if production else None,
        slices=slices if production else (),
        verdict=verdict if production else Verdict.COLD_START,
        reasons=("the gain exceeds 0.01 USD",),
    )


def contender(version: str, of_fares: Scores, *, run_id: str = "r", correction: float = 0.0) -> Contender:
    """A version with these scores, and with those of its corrected fares: as far off, and less to one side."""
    corrected = of_fares.model_copy(update={"bias": of_fares.bias + correction})
    return Contender(version=version, run_id=run_id, scores=of_fares, correction=correction, corrected=corrected)


def content_of(version: str) -> Content:
    """What a version is in tests that have no files."""
    return Content(version, f"run-of-{version}", f"{int(version):064x}")


def by_recorded_files(found: Evidence, ledger: Ledger) -> Evidence:
    """The same evidence, gathered by the files that the ledger has on record."""

    def of_files(scored: Contender | None) -> Contender | None:
        if scored is None or (content := entries.content(scored.version)) is None:
            return scored
        return scored.model_copy(update={"files_digest": content.files_digest})

    with ledger.reading() as entries:
        return found.model_copy(update={"staging": of_files(found.staging), "production": of_files(found.production)})


class MemoryContents:
    """The record of versions in memory, for registries without a ledger."""

    def __init__(self) -> None:
        self._known: dict[str, Content] = {}

    def of(self, version: str) -> Content | None:
        return self._known.get(version)

    def record(self, content: Content) -> None:
        assert content.version not in self._known, "a number is recorded once"
        self._known[content.version] = content


class Clock:
    """A clock that stands still until it is moved, also backwards."""

    def __init__(self) -> None:
        self.moment = datetime(2015, 2, 1, 9, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def move(self, **by: float) -> None:
        self.moment += timedelta(**by)


@dataclass
class MemoryRegistry:
    """A model registry in memory; `before` and `after` see the name of each call and may raise or kill."""

    alias: str | None = None
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    before: Callable[[str], None] = lambda _call: None
    after: Callable[[str], None] = lambda _call: None

    def load(self) -> None:
        """Nothing to read here."""

    def save(self) -> None:
        """Nothing to write here."""

    def production_version(self) -> str | None:
        self.before("production_version")
        self.load()
        return self.alias

    def set_production(self, version: str | None) -> None:
        self.before("set_production")
        self.load()
        self.alias = version
        self.save()
        self.after("set_production")

    def verify(self, version: str) -> Content:
        self.before("verify")
        if version in self.altered:
            raise VersionUnusableError(f"version {version} cannot be loaded: its files are not those")
        return content_of(version)

    def as_they_are(self) -> list[Content]:
        return [content_of(version) for version in self.tags]

    def tag(self, version: str, tags: Mapping[str, str]) -> bool:
        self.before("tag")
        self.load()
        known = self.tags.setdefault(version, {})
        is_new = not tags.items() <= known.items()
        known.update(tags)
        self.save()
        self.after("tag")
        return is_new


@dataclass
class FileRegistry(MemoryRegistry):
    """The same in a file, which several processes share and which outlives those that are killed."""

    path: Path = Path("registry.json")

    def load(self) -> None:
        if self.path.exists():
            found = json.loads(self.path.read_text())
            self.alias, self.tags = found["alias"], found["tags"]

    def save(self) -> None:
        draft = self.path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"alias": self.alias, "tags": self.tags}))
        draft.replace(self.path)


@dataclass
class Office:
    """Approvals with everything around them within reach."""

    approvals: Approvals
    registry: Any
    clock: Clock

    @classmethod
    def open(cls, url: str, registry: Registry | None = None, home: Path | None = None) -> "Office":
        """An office; with a home, it remembers there what people were told."""
        registry, clock, ledger = registry or MemoryRegistry(), Clock(), Ledger(url, "USD")
        told = None if home is None else ToldHeads(home, ledger.place)
        return cls(Approvals(ledger, registry, lambda: SECRET, told=told, valid_days=30, clock=clock), registry, clock)

    def ask(self, subject: str, staging: str, production: str | None, **found: Any) -> Request:
        return self.request(evidence(subject, staging, production, **found))

    def gathered(self, found: Evidence) -> Evidence:
        """The same evidence, by the files on record."""
        return by_recorded_files(found, self.approvals.ledger)

    def request(self, found: Evidence) -> Request:
        """The request on evidence that has just been found."""
        return self.approvals.request(record(self.approvals.ledger, self.gathered(found), self.clock()))

    def approve(self, request: Request, by: str = "Ada", *, override: bool = False) -> Outcome:
        return self.decide(request, "approve", by, override=override)

    def reject(self, request: Request, by: str = "Ada") -> Outcome:
        return self.decide(request, "reject", by)

    def decide(self, request: Question, decision: Decision, by: str = "Ada", *, override: bool = False) -> Outcome:
        token = self.approvals.answer_tokens(request)[decision]
        return self.approvals.decide(request.id, decision, by, "I looked at the slices", token, override=override)

    def versions(self) -> list[str | None]:
        """The versions that were production, in their order."""
        return [entry.version for entry in self.approvals.record.history()]

    def refusals(self) -> list[Refusal]:
        """The attempts that were turned away."""
        with self.approvals.ledger.reading() as entries:
            return entries.refusals()

    def with_first_model(self) -> "Office":
        """The same, with version 1 in production."""
        self.approve(self.ask("base", "1", None))
        return self


class Pages:
    """Where messages lead in tests that know of no UI."""

    def subject(self, subject: str) -> str:
        return f"https://pages/{subject}"

    def report(self, subject: str) -> str:
        return f"https://pages/reports/{subject}.html"

    def run(self, run_id: str) -> str:
        return f"https://pages/runs/{run_id}"

    def production(self) -> str:
        return "https://pages/production"

    def decision(self, request: Request, token: str, decision: Decision) -> str:
        return f"https://pages/{decision}/{request.id}?{token}"

    def way_back(self, to: str, token: str) -> str:
        return f"https://pages/back/{to}?{token}"

    def asking_again(self, request: Request, token: str) -> str:
        return f"https://pages/again/{request.id}?{token}"


LINKS = Pages()


def in_processes(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What each task returns, or the exception it raised; each in a process of its own, all let go at once."""
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(len(tasks))

    def work(task: Callable[[], T], answers: Connection) -> None:
        gate.wait(30)
        try:
            answers.send(task())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            answers.send(error)

    pipes = [fork.Pipe(duplex=False) for _ in tasks]
    processes = [
        fork.Process(target=work, args=(task, answers)) for task, (_, answers) in zip(tasks, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    answers = [receiving.recv() for receiving, _ in pipes if receiving.poll(300)]
    for process in processes:
        process.join(60)
    return answers
