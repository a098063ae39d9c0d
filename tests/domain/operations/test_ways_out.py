"""A way out of every corner: the doctor names part and command, the command works, nothing is decided before."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Message
from taxifare.approval.delivery import send_notice, send_request
from taxifare.approval.due import Known, to_ask
from taxifare.approval.errors import AlteredError, ApprovalError, LedgerBehindError, TokenError
from taxifare.approval.records import Delivery
from taxifare.approval.versions import registry_of
from taxifare.cli.main import app
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import MlflowStore, RegistryError
from taxifare.operations.doctor import examine
from taxifare.settings import Settings
from taxifare_dagster.command import surroundings
from tests.support.approvals import LINKS, PERSON, by_recorded_files, evidence, record
from tests.support.places import REPOSITORY
from tests.support.registry import add_version, promote
from tests.support.small import small_settings
from tests.support.standing import STANDING

Open = Callable[[Settings], ModelRegistry]


class Chat:
    """A chat that takes everything."""

    channel = "chat"

    def deliver(self, message: Message) -> None:
        """Nobody has to read it."""


def ills(settings: Settings) -> dict[str, str]:
    """What the doctor finds that is not well; the versions here are no models, so none of them can be in force."""
    found = {finding.part: finding.says for finding in examine(settings, lambda _: None) if not finding.is_well}
    found.pop("in force", None)
    return found


def command(settings: Settings, line: str) -> str:
    """What a command prints that ends well."""
    # MLflow writes the store it used last into the environment.
    environment = {
        "TAXIFARE_HOME": str(settings.home),
        "MODEL_NAME": settings.model_name or "",
        "MLFLOW_TRACKING_URI": "",
    }
    result = CliRunner().invoke(app, line.split(), obj=surroundings(), env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def start(settings: Settings, open_registry: Open, promotions: int = 1) -> Approvals:
    """Approvals in which so many versions became production, one after the other."""
    registry = open_registry(settings)
    approvals = Approvals.from_settings(settings, registry)
    for _ in range(promotions):
        promote(approvals, add_version(registry))
    return approvals


def recorded(approvals: Approvals) -> list[str | None]:
    """What was production, in its order, by the ledger alone."""
    return [entry.version for entry in approvals.record.history()]


def goes_on(settings: Settings) -> None:
    """Ensures that a new version can be registered, asked about and promoted, and that the doctor finds all well."""
    registry = registry_of(settings)
    promote(Approvals.from_settings(settings, registry), add_version(registry))
    assert ills(settings) == {}


# MLflow's experiment and the state folder


def test_a_deleted_experiment_is_restored_by_a_command(settings: Settings, open_registry: Open) -> None:
    approvals = start(settings, open_registry)
    store = registry_of(settings).store
    store.client.delete_experiment(store.experiment_id)
    found = ills(settings)
    assert "the experiment taxifare was deleted in MLflow" in found["MLflow"]
    assert found["MLflow"].endswith("taxifare mend")
    with pytest.raises(RegistryError, match="taxifare mend"):
        Approvals.from_settings(settings, registry_of(settings)).production()
    assert "the experiment taxifare was deleted" in command(settings, "mend")
    assert recorded(approvals) == ["1"]
    assert ills(settings) == {}
    assert "nothing to put right" in command(settings, "mend")
    goes_on(settings)


@pytest.mark.parametrize("kept", [False, True], ids=["moved", "copied"])
def test_a_state_folder_that_was_moved_finds_its_models(tmp_path: Path, open_registry: Open, kept: bool) -> None:
    before = small_settings(tmp_path / "state of before")
    start(before, open_registry)
    after = small_settings(tmp_path / "elsewhere" / "state", mlflow_tracking_uri=None)
    shutil.copytree(before.home, after.home)
    if not kept:
        shutil.rmtree(before.home)
    found = ills(after)
    assert "was moved or copied" in found["MLflow"]
    assert found["MLflow"].endswith("taxifare mend")
    with pytest.raises(RegistryError, match="taxifare mend"):
        Approvals.from_settings(after, registry_of(after)).production()
    command(after, "mend")
    assert ills(after) == {}
    shutil.rmtree(before.home, ignore_errors=True)
    goes_on(after)
    assert not before.home.exists(), "nothing is written to the old place"
    database = sqlite3.connect(after.home / "mlflow" / "mlflow.db")
    assert "state%20of%20before" not in "\n".join(database.iterdump())
    database.close()


def test_a_state_folder_that_was_moved_finds_the_models_of_every_experiment(
    tmp_path: Path, open_registry: Open
) -> None:
    before = small_settings(tmp_path / "before")
    start(before, open_registry)
    after = small_settings(tmp_path / "after", mlflow_tracking_uri=None, mlflow_experiment="another")
    before.home.rename(after.home)
    assert ills(after)["MLflow"].endswith("taxifare mend")
    registry_of(after).store.mend()
    assert ills(after) == {}
    goes_on(after)


def test_a_state_folder_under_another_name_of_the_same_is_not_moved(tmp_path: Path, open_registry: Open) -> None:
    start(small_settings(tmp_path / "state"), open_registry)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    assert ills(small_settings(tmp_path / "link", mlflow_tracking_uri=None)) == {}


# Versions and the registered model


def test_a_deleted_production_leads_back_to_the_last_version_that_is_there(
    settings: Settings, open_registry: Open
) -> None:
    approvals = start(settings, open_registry, promotions=3)
    registry = registry_of(settings)
    for version in ("2", "3"):
        registry.store.client.delete_model_version(registry.model_name, version)
    found = ills(settings)
    assert 'taxifare rollback --to 1 --by YOU --reason "WHY"' in found["versions"]
    assert found["ledger and MLflow"].endswith("see versions")
    assert approvals.production() == "3", "the record is as it was, and the alias is not moved to anything else"
    assert registry.production_version() is None
    command(settings, "rollback --to 1 --by Ada --reason deleted")
    assert recorded(approvals) == ["1", "2", "3", "1"]
    assert ills(settings) == {}
    goes_on(settings)


def test_a_deleted_first_model_is_taken_out_and_a_new_start_made(settings: Settings, open_registry: Open) -> None:
    approvals = start(settings, open_registry)
    registry = registry_of(settings)
    registry.store.client.delete_registered_model(registry.model_name)
    found = ills(settings)
    assert 'taxifare rollback --to none --by YOU --reason "WHY"; then base_job' in found["versions"]
    assert recorded(approvals) == ["1"]
    command(settings, "rollback --to none --by Ada --reason deleted")
    assert recorded(approvals) == ["1", None]
    assert ills(settings) == {}
    goes_on(settings)


@pytest.mark.parametrize("promotions", [1, 2])
def test_a_renamed_model_is_found_under_its_name(settings: Settings, open_registry: Open, promotions: int) -> None:
    approvals = start(settings, open_registry, promotions)
    registry = registry_of(settings)
    registry.store.client.rename_registered_model(registry.model_name, "chicago-fares")
    assert "set MODEL_NAME=chicago-fares" in ills(settings)["versions"]
    assert recorded(approvals) == ["1", "2"][:promotions]
    goes_on(settings.model_copy(update={"model_name": "chicago-fares"}))


# Older backups


def restore_mlflow(settings: Settings, backup: Path) -> None:
    """Puts the older store in place of the newer one; into its file, which this process has open."""
    older, newer = (sqlite3.connect(folder / "mlflow.db") for folder in (backup, settings.home / "mlflow"))
    older.backup(newer)
    older.close()
    newer.close()
    shutil.rmtree(settings.home / "mlflow" / "artifacts")
    shutil.copytree(backup / "artifacts", settings.home / "mlflow" / "artifacts")


def test_an_older_mlflow_leads_back_to_the_last_version_that_is_there(
    settings: Settings, open_registry: Open, tmp_path: Path
) -> None:
    approvals = start(settings, open_registry)
    shutil.copytree(settings.home / "mlflow", tmp_path / "backup")
    promote(approvals, add_version(registry_of(settings)))
    found = evidence("2015-03", add_version(registry_of(settings)), "2")
    found = by_recorded_files(found, approvals.ledger)
    asked = approvals.request(record(approvals.ledger, found, approvals.now()))
    restore_mlflow(settings, tmp_path / "backup")

    ill = ills(settings)
    assert 'taxifare rollback --to 1 --by YOU --reason "WHY"' in ill["versions"]
    assert "or run 2015-03 again, which is asked about anew" in ill["versions"]
    with pytest.raises(AlteredError, match="MLflow has no such version"):
        approvals.decide(asked.id, "approve", "Ada", "I looked at the slices")
    assert approvals.production() == "2", "the record is as it was"
    command(settings, "rollback --to 1 --by Ada --reason restored")
    assert recorded(approvals) == ["1", "2", "1"]
    assert ills(settings) == {}
    goes_on(settings)
    assert recorded(approvals)[-1] == "4", "what MLflow counts anew is not what was asked about"


@pytest.mark.parametrize("is_lost", [False, True], ids=["older", "lost"])
def test_an_older_ledger_decides_nothing_until_somebody_says_what_holds(
    settings: Settings, open_registry: Open, tmp_path: Path, is_lost: bool
) -> None:
    approvals = start(settings, open_registry)
    shutil.copy(settings.home / "ledger.db", tmp_path / "ledger.db")
    promote(approvals, add_version(registry_of(settings)))
    found = evidence("2015-03", add_version(registry_of(settings)), "2")
    found = by_recorded_files(found, approvals.ledger)
    asked = approvals.request(record(approvals.ledger, found, approvals.now()))
    assert send_request(approvals, Chat(), asked.id, LINKS, settings)
    for path in settings.home.glob("ledger.db*"):
        path.unlink()
    if not is_lost:
        shutil.copy(tmp_path / "ledger.db", settings.home / "ledger.db")

    restored = Approvals.from_settings(settings, registry_of(settings))
    for attempt in (
        restored.production,
        restored.expire,
        lambda: restored.request(record(restored.ledger, found, restored.now())),
        lambda: restored.decide("2015-03", "approve", "Ada", "why not"),
        lambda: restored.rollback("none", by="Ada", reason="why not"),
        lambda: Known.of(restored),
    ):
        with pytest.raises(LedgerBehindError, match='taxifare adopt --by YOU --reason "WHY"'):
            attempt()
    assert registry_of(settings).production_version() == "2", "the alias stays until somebody says what holds"
    assert recorded(restored) == ([] if is_lost else ["1"])
    found_ill = ills(settings)
    assert "restored from an older backup" in found_ill["ledger's chain"]
    assert 'taxifare adopt --by YOU --reason "WHY"' in found_ill["ledger's chain"]
    assert "In production: version 2" in command(settings, "adopt --by Ada --reason restored")
    assert recorded(restored) == (["2"] if is_lost else ["1", "2"])
    assert ills(settings) == {}
    assert "restored" in (settings.home / "ledger-heads.jsonl").read_text(), "what was given up is kept"
    goes_on(settings)


# The key of the tokens


def test_a_changed_key_lets_links_be_sent_again(settings: Settings, open_registry: Open) -> None:
    approvals = start(settings, open_registry)
    found = evidence("2015-02", add_version(registry_of(settings)), "1")
    found = by_recorded_files(found, approvals.ledger)
    asked = approvals.request(record(approvals.ledger, found, approvals.now()))
    with approvals.ledger.writing() as entries:
        entries.add_delivery(Delivery(asked.id, "chat", 0, approvals.now()))
    assert to_ask(Known.of(approvals), ["chat"], PERSON) == []
    before = approvals.answer_tokens(asked)["approve"]
    (settings.home / "approval-secret").write_text("")
    with pytest.raises(ApprovalError, match="taxifare ask-again REQUEST"):
        Approvals.from_settings(settings, registry_of(settings))
    (settings.home / "approval-secret").unlink()
    assert asked.id in command(settings, f"ask-again {asked.id}")
    changed = Approvals.from_settings(settings, registry_of(settings))
    with pytest.raises(TokenError, match="made with another key"):
        changed.decide(asked.id, "approve", "Eve", "an old link", before)
    with approvals.ledger.reading() as entries:
        assert [spent.about for spent in entries.spent_tokens()] == [f"request {asked.id}"]
    assert recorded(changed) == ["1"]
    assert [comparison.subject for comparison in to_ask(Known.of(changed), ["chat"], PERSON)] == ["2015-02"]
    changed.decide(asked.id, "approve", "Ada", "the new link", changed.answer_tokens(asked)["approve"])
    assert recorded(changed) == ["1", "2"]


@pytest.mark.parametrize("is_lost", [False, True], ids=["changed", "lost"])
def test_the_doctor_names_the_questions_whose_links_another_key_has_killed(
    settings: Settings, open_registry: Open, is_lost: bool
) -> None:
    approvals = start(settings, open_registry)
    asked = []
    for subject in ("2015-02", "2015-03"):
        found = by_recorded_files(evidence(subject, add_version(registry_of(settings)), "1"), approvals.ledger)
        asked.append(approvals.request(record(approvals.ledger, found, approvals.now())))
        assert send_request(approvals, Chat(), asked[-1].id, LINKS, settings)
    agreement = approvals.ask_standing(STANDING)
    assert send_notice(approvals, Chat(), f"standing {agreement.id}", LINKS, settings)
    assert ills(settings) == {}
    key = settings.home / "approval-secret"
    key.unlink() if is_lost else key.write_text("another key of sixteen characters")
    says = ills(settings)["approval tokens"]
    assert all(f"taxifare ask-again {question.id}" in says for question in [*asked, agreement])
    assert key.exists() is not is_lost, "looking makes no key"
    for request in asked:
        command(settings, f"ask-again {request.id}")
        assert send_request(
            Approvals.from_settings(settings, registry_of(settings)), Chat(), request.id, LINKS, settings
        )
    command(settings, f"ask-again {agreement.id}")
    again = Approvals.from_settings(settings, registry_of(settings))
    assert send_notice(again, Chat(), f"standing {agreement.id}", LINKS, settings)
    assert ills(settings) == {}


# A first start that is killed

MAKE = "import sys\nfrom taxifare.model.store import MlflowStore\nMlflowStore(sys.argv[1], 'taxifare').client"


def killed_while_making(home: Path, after_s: float) -> bool:
    """Whether a process that makes MLflow's store was killed so long after the store's folder appeared."""
    home.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    while not (home / "mlflow").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(after_s)
    process.kill()
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "after_s", [1.5, *(pytest.param(number / 4, marks=pytest.mark.slow) for number in range(0, 24, 2))]
)
def test_a_store_that_was_killed_while_it_was_made_is_made_anew(tmp_path: Path, after_s: float) -> None:
    killed_while_making(tmp_path / "state", after_s)
    store = MlflowStore(f"sqlite:///{tmp_path / 'state' / 'mlflow' / 'mlflow.db'}", "taxifare")
    assert store.experiment_id
    assert not list((tmp_path / "state" / "mlflow").glob(".*.mlflow.db"))


def test_a_store_that_an_earlier_release_left_half_made_is_made_anew(settings: Settings) -> None:
    path = settings.home / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    half = sqlite3.connect(path)
    half.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
    half.execute("CREATE TABLE alembic_version (version_num TEXT)")
    half.commit()
    half.close()
    assert registry_of(settings).production_version() is None


def test_a_store_that_is_no_database_is_told(settings: Settings) -> None:
    path = settings.home / "mlflow" / "mlflow.db"
    path.parent.mkdir(parents=True)
    path.write_text("no database, but a note of somebody's " * 100)
    assert "restore it from a backup" in ills(settings)["MLflow"]
    assert path.read_text().startswith("no database")
