"""The projection: commands killed at any step, registries that are down, wrong or behind."""

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from taxifare.approval import projection
from taxifare.approval.errors import (
    AlteredError,
    RegistryBehindError,
)
from taxifare.approval.records import RequestState
from taxifare.model.store import RegistryError
from tests.support.approvals import FileRegistry, Office
from tests.support.registry import put_files, registry_at


class Killed(BaseException):
    """Stands for the end of a process."""


def die_at(step: int) -> Callable[[str], None]:
    """A hook that ends this process, without any clean-up, the `step`-th time it is passed."""
    passed = 0

    def hook(_where: object) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def killed_at(step: int, url: str, registry: Path, command: Callable[[Office], object]) -> bool:
    """Whether a process that ran the command was killed at a step: an insert, a commit or a call of the registry."""

    def work() -> None:
        hook = die_at(step)
        sa.event.listen(
            sa.Engine, "before_cursor_execute", lambda *args: args[2].startswith("INSERT") and hook("insert")
        )
        sa.event.listen(sa.Engine, "commit", lambda _connection: hook("commit"))
        command(Office.open(url, FileRegistry(path=registry, before=hook, after=hook)))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


@pytest.mark.databases("sqlite")
def test_an_approval_killed_at_any_step_is_finished_by_whatever_comes_next(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    for step in range(1, 200):
        production = office.approvals.production()
        staging = str(step + 1)
        request = office.ask("2015-01", staging, production)

        killed = killed_at(step, ledger_url, path, lambda there, request=request: there.approve(request))

        # Whatever command comes next, here a mere look, finds one truth and makes the registry tell it.
        found = office.approvals.production()
        assert found == office.registry.production_version() == office.approvals.record.history()[-1].version
        assert (found == staging) == (office.approvals.record.state(request) == RequestState.APPROVED)
        assert office.registry.tags[staging]["decision"] == office.approvals.record.state(request)
        # The person, who saw it die, tries again.
        office.approve(request)
        assert office.approvals.production() == office.registry.production_version() == staging
        assert office.registry.tags[staging]["decided_by"] == "Ada"
        if production is not None:
            assert office.registry.tags[production]["replaced_by"] == staging
        assert len(office.approvals.record.history()) == step + 1
        if not killed:
            break
    assert 10 < step < 199


@pytest.mark.databases("sqlite")
def test_a_rollback_killed_at_any_step_and_repeated_goes_back_one_step(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    office.approve(office.ask("2015-01", "2", "1"))
    for step in range(1, 200):
        office.approvals.rollback("2", by="Ada", reason=f"again for step {step}") if step > 1 else None
        killed = killed_at(
            step, ledger_url, path, lambda there, step=step: there.approvals.rollback("1", by="Bob", reason=str(step))
        )
        assert office.approvals.production() == office.registry.production_version()
        office.approvals.rollback("1", by="Bob", reason=str(step))
        assert office.approvals.production() == office.registry.production_version() == "1"
        assert len(office.approvals.record.history()) == 2 * step + 1
        if not killed:
            break
    assert 10 < step < 199


@pytest.mark.databases("sqlite")
def test_a_request_killed_at_any_step_is_made_once(ledger_url: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    office = Office.open(ledger_url, FileRegistry(path=path)).with_first_model()
    for step in range(1, 200):
        killed = killed_at(step, ledger_url, path, lambda there, step=step: there.ask("2015-01", str(step + 1), "1"))
        request = office.ask("2015-01", str(step + 1), "1")
        assert office.approvals.record.open_requests() == (request,)
        assert office.registry.tags[str(step + 1)]["decision"] == "requested"
        if not killed:
            break
    assert 5 < step < 199


def failing(call: str) -> Callable[[str], None]:
    """A hook that makes one kind of call fail."""

    def hook(name: str) -> None:
        if name == call:
            raise RegistryError("connection refused")

    return hook


@pytest.mark.parametrize("call", ["production_version", "set_production", "verify"])
def test_a_registry_that_is_down_is_never_taken_for_an_empty_one(office: Office, call: str) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.before = failing(call)
    with pytest.raises((RegistryError, RegistryBehindError)):
        office.approve(request)
    office.registry.before = lambda _call: None

    recorded = office.approvals.record.outcome(request.id)
    assert office.approvals.production() == office.registry.alias == ("2" if recorded else "1")
    assert office.approve(request).state == RequestState.APPROVED
    assert office.versions() == ["1", "2"]


def test_when_the_alias_cannot_be_set_the_person_learns_that_the_decision_stands(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.before = failing("set_production")
    with pytest.raises(
        RegistryBehindError, match=r"recorded, but .* \(connection refused\); the next command catches up"
    ):
        office.approve(request)
    assert office.approvals.record.state(request) == RequestState.APPROVED


def test_a_version_that_is_gone_from_the_registry_is_neither_asked_about_nor_promoted(office: Office) -> None:
    request = office.ask("2015-01", "2", "1")
    office.registry.altered |= {"2", "3"}
    with pytest.raises(AlteredError):
        office.approve(request)
    with pytest.raises(AlteredError):
        office.ask("2015-02", "3", "1")
    assert office.approvals.record.open_requests() == (request,)
    assert office.versions() == ["1"]


def test_the_alias_is_never_moved_to_files_that_are_not_those_that_were_approved(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    """Repair would be promotion: the model behind the number is another one, or gone."""
    office.approve(office.ask("2015-01", "2", "1"))
    office.registry.alias, office.registry.altered = "1", {"2"}
    assert office.approvals.production() == "2", "the ledger's word stands"
    assert office.registry.alias == "1"
    assert "the ledger says version 2 is production, the alias stays as it is" in caplog.text
    office.registry.altered.clear()
    assert office.approvals.repair() == ("production is version 2, was 1",)


def test_what_mends_a_damaged_production_is_not_stopped_by_it(office: Office) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    office.registry.alias, office.registry.altered = None, {"2"}
    office.approvals.rollback(by="Ada", reason="its files were altered")
    assert office.approvals.production() == office.registry.alias == "1"


def test_a_version_that_somebody_deleted_stops_nothing_but_its_own_tags(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.ask("2015-01", "2", "1")
    office.clock.move(days=40)
    office.registry.before = failing("tag")
    assert len(office.approvals.expire()) == 1
    assert office.approvals.production() == "1"
    assert "version 2 does not tell its story" in caplog.text
    office.registry.before = lambda _call: None
    assert office.approvals.repair() == ("tags of version 2",)
    assert office.registry.tags["2"]["decision"] == "expired"


def test_a_promotion_that_ends_many_questions_tells_the_latest_first_and_the_rest_by_later_commands(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [office.ask(f"2015-{month:02}", f"{month}", "1") for month in range(2, 12)]
    wanted = office.ask("2015-12", "12", "1")
    assert office.approvals.repair() == ()
    # A registry so slow that a command has time for one event only.
    monkeypatch.setattr(projection, "TELLING_S", 0)
    told: list[str] = []
    monkeypatch.setattr(office.registry, "after", told.append)
    office.approve(wanted)
    assert told.count("tag") == 2, "one each with what was promoted"
    assert office.registry.alias == "12"
    assert office.registry.tags["12"]["decision"] == "approved"
    assert office.registry.tags["2"]["decision"] == "requested"
    events = len(others) + 1
    assert [bool(office.approvals.repair()) for _ in range(events + 1)] == [True] * events + [False]
    assert {office.registry.tags[request.staging_version]["decision"] for request in others} == {"void"}
    assert office.registry.tags["1"]["replaced_by"] == "12"


def test_an_alias_moved_by_hand_is_put_back_and_said(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.registry.alias = "7"
    with caplog.at_level(logging.WARNING):
        assert office.approvals.production() == "1"
    assert office.registry.alias == "1"
    assert "production is version 1, was 7" in caplog.text
    assert office.approvals.repair() == ()


@pytest.mark.end_to_end
def test_the_registry_of_mlflow_tells_the_same_story(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    registry = registry_at(store)
    registry.prepare()
    put_files(registry, 3, tmp_path / "files")
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}", registry)

    assert office.approvals.production() is None
    office.approve(office.ask("base", "1", None))
    request = office.ask("2015-01", "2", "1")
    office.approve(request)
    office.reject(office.ask("2015-02", "3", "2"))

    assert registry.production_version() == "2"
    assert registry.describe("2").tags.items() >= {
        ("asked_about", "2015-01"),
        ("verdict", "PROMOTE"),
        ("request", request.id),
        ("decision", "approved"),
        ("decided_by", "Ada"),
        ("replaced", "1"),
    }
    assert registry.describe("1").tags["replaced_by"] == "2"
    assert registry.describe("3").tags["decision"] == "rejected"

    registry.set_production("3")
    assert office.approvals.production() == registry.production_version() == "2"
    assert office.approvals.rollback(by="Ada", reason="complaints").version == registry.production_version() == "1"

    with pytest.raises(RegistryError):
        office.ask("2015-03", "9", "1")


def test_tags_that_somebody_edited_say_again_what_the_ledger_says(office: Office) -> None:
    """All that the ledger knows, how well a version did included: by an event about the version, or when asked to."""
    request = office.ask("2015-01", "2", "1")
    evidence = request.evidence
    true = office.registry.tags["2"] | {}
    assert true["decision"] == "requested"
    assert json.loads(true["footing"]) == {
        "mae": evidence.staging.scores.mae,
        "difficulty_mae": evidence.difficulty_mae,
    }
    assert float(true["skill"]) == pytest.approx(1 - evidence.staging.scores.mae / evidence.difficulty_mae, abs=1e-6)
    forged = {"footing": '{"mae": 0.01, "difficulty_mae": 9.99}', "skill": "0.999", "decision": "approved"}

    office.registry.tags["2"] |= forged
    assert office.approvals.retell() == ("tags of version 2",)
    assert office.registry.tags["2"] == true
    assert office.approvals.retell() == ()

    office.registry.tags["2"] |= forged
    office.approve(request)
    assert office.registry.tags["2"]["footing"] == true["footing"]
    assert office.registry.tags["2"]["skill"] == true["skill"]
