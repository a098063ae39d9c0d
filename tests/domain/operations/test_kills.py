"""A command killed at any moment: nothing is half done or lost, and doing it again comes to what it would have."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taxifare.approval import asking, projection
from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Message
from taxifare.approval.comparisons import record
from taxifare.approval.delivery import send_notice
from taxifare.approval.due import Known, to_ask, to_tell
from taxifare.approval.records import Request
from taxifare.approval.versions import registry_of
from taxifare.errors import ToldError
from taxifare.model.contents import Content
from taxifare.model.registry import FINGERPRINT_TAG, ModelRegistry
from taxifare.model.store import _readdress
from taxifare.operations.doctor import examine
from taxifare.secrets import private_folder
from taxifare.settings import Settings
from tests.support.approvals import LINKS, by_recorded_files, evidence, in_processes
from tests.support.kills import moments_of
from tests.support.small import small_settings
from tests.support.standing import month

Act = Callable[[Settings], object]

WAYS_OUT = ("taxifare mend", "taxifare adopt", "the next command")


@pytest.fixture(scope="module", autouse=True)
def _everything_told() -> Iterator[None]:
    """An act has as many moments each time: on a busy machine, tags would be left to the command after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "TELLING_S", 60)
        yield


class Chat:
    """A chat in a file, which shows the messages that were posted; one that is there already is not posted again."""

    channel = "chat"

    def __init__(self, settings: Settings) -> None:
        self._path = settings.home / "chat.txt"

    def keys(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def deliver(self, message: Message) -> None:
        if message.key not in self.keys():
            with self._path.open("a") as file:
                file.write(f"{message.key}\n")


def opened(settings: Settings, days_later: int = 0) -> tuple[Approvals, ModelRegistry]:
    registry = registry_of(settings)
    approvals = Approvals.from_settings(settings, registry)
    now = approvals.now
    approvals.now = lambda: now() + timedelta(days=days_later)
    return approvals, registry


def make_ledger(settings: Settings) -> None:
    """The ledger, and the key of the tokens."""
    assert opened(settings)[0].record.head() is None


def make_store(settings: Settings) -> None:
    opened(settings)[1].prepare()


def registered(registry: ModelRegistry, name: str) -> str:
    """The version of that name, registered where it is not on record; its files are no model, and nobody loads them."""
    known = registry.find(name)
    if known is not None:
        return known.version
    with registry.runs.open(name, {"name": name}) as run_id:
        registry.store.client.log_text(run_id, f"of {name}", "model/weights")
        source = f"{registry.store.client.get_run(run_id).info.artifact_uri}/model"
        version = registry._new_version(
            SimpleNamespace(model_uri=source, model_id=None), run_id, {FINGERPRINT_TAG: name}
        )
        registry.contents.record(Content(version, run_id, registry._digest_of(version)))
    return version


def run_month(subject: str) -> Act:
    """Registers a version, compares it and asks, as the runs of a month do."""

    def act(settings: Settings) -> None:
        approvals, registry = opened(settings)
        found = evidence(subject, registered(registry, subject), approvals.production())
        comparison = record(approvals.ledger, by_recorded_files(found, approvals.ledger), approvals.now())
        asking.ask(approvals, comparison, [Chat(settings)], LINKS, settings)

    return act


def answer(subject: str, decision: Any) -> Act:
    def act(settings: Settings) -> None:
        approvals, _ = opened(settings)
        approvals.decide(last_about(approvals, subject).id, decision, "Ada", "I looked at the slices")

    return act


def last_about(approvals: Approvals, subject: str) -> Request:
    return [request for request in approvals.record.requests() if request.subject == subject][-1]


def go_back(to: str | None) -> Act:
    def act(settings: Settings) -> None:
        opened(settings)[0].rollback(to, by="Bob", reason=f"complaints, to {to}")

    return act


def tick(days_later: int = 0) -> Act:
    """What the sensors do: expire, ask what is due, tell what is to be told."""

    def act(settings: Settings) -> None:
        approvals, _ = opened(settings, days_later)
        chat = Chat(settings)
        approvals.expire()
        for comparison in to_ask(Known.of(approvals), [chat.channel], settings):
            asking.ask(approvals, comparison, [chat], LINKS, settings)
        for about in to_tell(Known.of(approvals), [chat.channel]):
            send_notice(approvals, chat, about, LINKS, settings)

    return act


def ask_again(settings: Settings) -> None:
    approvals, _ = opened(settings, days_later=40)
    approvals.ask_again(last_about(approvals, "2015-03").id)


def restate(settings: Settings) -> None:
    opened(settings)[0].void_restated("2015-02", "r2")


def standing(settings: Settings) -> Settings:
    """The same settings, with which a person agrees once."""
    return settings.model_copy(update={"approval_policy": "standing"})


def ask_standing(settings: Settings) -> None:
    opened(settings)[0].ask_standing(standing(settings))


def agree(settings: Settings) -> None:
    approvals, _ = opened(settings)
    with approvals.ledger.reading() as entries:
        asked = entries.standing_requests()[-1]
    approvals.decide(asked.id, "approve", "Ada", "fair terms")


def run_under_it(subject: str, *, looking_back: float | None = None) -> Act:
    """A month that is surely better; what is in production may turn out to have been a mistake."""

    def act(settings: Settings) -> None:
        approvals, registry = opened(settings)
        # Done again it is the month it was: what its own promotion replaced.
        known = approvals.record.comparisons().get(subject)
        production = known.production_version if known else approvals.production()
        found = month(subject, registered(registry, subject), str(production), looking_back=looking_back)
        comparison = record(approvals.ledger, by_recorded_files(found, approvals.ledger), approvals.now())
        asking.ask(approvals, comparison, [Chat(settings)], LINKS, standing(settings))

    return act


def withdraw(settings: Settings) -> None:
    approvals, _ = opened(settings)
    with approvals.ledger.reading() as entries:
        is_done = any(end.cause == "withdrawal" for end in entries.standing_ends().values())
    if not is_done:
        approvals.withdraw_standing(by="Bob", reason="tolls change")


def lose_ledger(settings: Settings) -> None:
    """The ledger is gone: of what MLflow has, nobody knows any more what it is."""
    for path in settings.home.glob("ledger*"):
        path.unlink()


def adopt(settings: Settings) -> None:
    opened(settings)[0].adopt(by="Ada", reason="they are ours")


def move(settings: Settings) -> None:
    """The state was made elsewhere."""
    folder = settings.home / "mlflow"
    _readdress(folder / "mlflow.db", (folder / "artifacts").as_uri(), "file:///elsewhere/mlflow/artifacts")


def mend(settings: Settings) -> None:
    approvals, registry = opened(settings)
    registry.store.mend()
    approvals.repair()


STORY: Mapping[str, Act] = {
    "making MLflow's store": make_store,
    "making the ledger": make_ledger,
    "the base model": run_month("base"),
    "a first promotion": answer("base", "approve"),
    "January": run_month("2015-01"),
    "February": run_month("2015-02"),
    "March": run_month("2015-03"),
    "a promotion that ends other questions": answer("2015-01", "approve"),
    "telling of it": tick(),
    "a rollback": go_back("1"),
    "asking what makes sense again": tick(),
    "a restatement": restate,
    "expiry": tick(days_later=35),
    "asking again": ask_again,
    "a rejection": answer("2015-03", "reject"),
    "asking for a standing approval": ask_standing,
    "agreeing to it": agree,
    "a promotion under it": run_under_it("2015-04"),
    "telling of that": tick(),
    "a month that regrets it": run_under_it("2015-05", looking_back=-0.01),
    "asking for another": ask_standing,
    "agreeing to that": agree,
    "withdrawing it": withdraw,
    "taking the model out": go_back("none"),
    "moving": move,
    "mending": mend,
    "losing the ledger": lose_ledger,
    "adopting": adopt,
}
"""What is done one after the other."""

SET_UP = {"moving", "losing the ledger"}
"""No commands of ours."""


def told(settings: Settings) -> dict[str, Any]:
    """What is on record and shown, whichever numbers the versions have."""
    approvals, registry = opened(settings)
    names = {version: registry.describe(version).tags[FINGERPRINT_TAG] for version in versions(registry)}
    named = names | {None: None}
    with approvals.ledger.reading() as entries:
        outcomes, over = entries.standing_outcomes(), entries.standing_ends()
        ends = {outcome.request_id: (outcome.state, outcome.by) for outcome in entries.outcomes()}
        return {
            "history": [(entry.kind, named[entry.version], entry.by, entry.reason) for entry in entries.promotions()],
            "questions": [
                (request.subject, request.round, named[request.staging_version], ends.get(request.id))
                for request in entries.requests()
            ],
            "compared": sorted(entries.comparisons()),
            "standing": [
                (asked.first_month, outcomes[asked.id].state if asked.id in outcomes else None, asked.id in over)
                for asked in entries.standing_requests()
            ],
            "under it": len(entries.standing_uses()),
            "delivered": [request.subject for request in entries.requests() if entries.deliveries(request.id)],
            "noticed": len(entries.notices()),
            "production": named[registry.production_version()],
            "shown": len(Chat(settings).keys()),
        }


def versions(registry: ModelRegistry) -> list[str]:
    return [content.version for content in registry.as_they_are()]


def look(settings: Settings) -> None:
    """Ensures that the doctor tells the way out of whatever is ill, and that a mere look is one, or tells another."""
    for finding in examine(settings, lambda _: None):
        assert finding.is_well or any(way in finding.says for way in WAYS_OUT), finding
    approvals, registry = opened(settings)
    try:
        while approvals.repair():
            pass  # a command tells MLflow for half a second, the next one tells the rest
    except ToldError as error:
        assert "taxifare" in str(error), "nothing is decided meanwhile"  # noqa: PT017 - either is right
        return
    with approvals.ledger.reading() as entries:
        last = entries.last_promotion()
    alias, ills = (
        registry.production_version(),
        [finding for finding in examine(settings, lambda _: None) if not finding.is_well],
    )
    # The versions here are no models, so none of them can be in force: tests/domain/serving/test_publishing.py.
    ills = [finding for finding in ills if finding.part != "in force"]
    assert alias == (last.version if last else None), (alias, last)
    assert not ills, ills


def in_a_process(work: Callable[[], Any]) -> Any:
    """What the work returns in a process of its own: MLflow keeps connections to files that are not there any more."""
    (result,) = in_processes([work])
    if isinstance(result, BaseException):
        raise result
    return result


@dataclass
class Stage:
    """The state before each act of a story, and what is told after it.

    Attributes:
        settings: Of the state: at one place always, for MLflow's store knows it.
        before: The state before each act.
        after: What is told after each act.
        moments: How many moments each act has.
    """

    settings: Settings
    before: dict[str, Path] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)

    def play(self, story: Mapping[str, Act]) -> None:
        """Goes through the acts once, without a kill."""
        home = self.settings.home
        for number, (name, act) in enumerate(story.items()):
            self.before[name] = home.with_name(f"before-{number}")
            shutil.copytree(home, self.before[name])
            self.moments[name] = len(moments_of(home, partial(act, self.settings)))
            if name not in SET_UP:
                self.after[name] = self.told()

    def told(self) -> dict[str, Any]:
        """What is told now; asking makes stores that are not there, so that it is asked of the state and not left."""
        home = self.settings.home
        shutil.rmtree(home.with_name("aside"), ignore_errors=True)  # of an act that took too long, and was cut off
        aside = shutil.copytree(home, home.with_name("aside"))
        found: dict[str, Any] = in_a_process(partial(told, self.settings))
        shutil.rmtree(home)
        aside.rename(home)
        return found

    def kill(self, name: str, moments: Iterable[int]) -> None:
        """Ensures that an act killed at any of the moments and done again comes to what it would have."""
        act = partial(STORY[name], self.settings)
        for moment in moments:
            shutil.rmtree(self.settings.home)
            shutil.copytree(self.before[name], self.settings.home)
            passed = moments_of(self.settings.home, act, last=moment)
            where = f"{name}, killed at moment {moment} of {self.moments[name]}, before {passed[-1]}"
            try:
                in_a_process(partial(look, self.settings))
                in_a_process(act)
                in_a_process(partial(look, self.settings))
                found = self.told()
                assert found == self.after[name], found
            except Exception as error:
                raise AssertionError(where) from error


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Stage:
    """A state that is not there yet; MLflow is at hand in this process, for those that it forks."""
    assert migrated_store.exists()
    home = tmp_path_factory.mktemp("kills") / "state"
    home.mkdir(mode=0o700)
    return Stage(small_settings(home, mlflow_tracking_uri=None))


@pytest.fixture(scope="module")
def story(stage: Stage) -> Stage:
    """The whole story, played once."""
    stage.play(STORY)
    return stage


@pytest.mark.timeout(1_800)
@pytest.mark.slow
@pytest.mark.parametrize("act", [name for name in STORY if name not in SET_UP])
def test_whatever_moment_a_command_is_killed_at_doing_it_again_finishes_it(story: Stage, act: str) -> None:
    story.kill(act, range(1, story.moments[act] + 1, 100 if act == "making MLflow's store" else 1))


def test_a_promotion_that_is_killed_is_finished_by_doing_it_again(
    tmp_path: Path, migrated_store: Path, migrated_ledger: Path
) -> None:
    """Some moments of one act; every moment of all acts takes minutes."""
    settings = small_settings(tmp_path / "state", mlflow_tracking_uri=None)
    for made in (migrated_ledger, migrated_store):
        folder = private_folder(settings.home / ("mlflow" if made.name == "mlflow.db" else "."))
        shutil.copy(made, folder / made.name)
    begin = ("the base model", "a first promotion")
    stage = Stage(settings)
    stage.play({name: STORY[name] for name in begin})
    number = stage.moments["a first promotion"]
    stage.kill("a first promotion", (number // 3, 2 * number // 3, number))
