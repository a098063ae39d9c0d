"""Commands that are printed can be typed as they stand there, from the folder in which they were printed."""

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from taxifare.cli.main import app
from taxifare.cli.shared import errors_told
from taxifare.cli.typed import COMMANDS, typed
from taxifare_dagster.command import surroundings


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in a clone, which is the folder one is in; the shell's path does not lead to it."""
    program = tmp_path / "clone" / ".venv" / "bin" / "taxifare"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path / "clone")
    return program


def test_every_command_is_known_by_name() -> None:
    assert set(COMMANDS) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_in_a_clone_a_command_stands_with_its_folder(environment: Path) -> None:
    assert typed("Next: taxifare status") == "Next: .venv/bin/taxifare status"
    assert typed("see `taxifare ask-again R`; taxifare mend.") == (
        "see `.venv/bin/taxifare ask-again R`; .venv/bin/taxifare mend."
    )
    assert typed(typed("taxifare decide R --approve")) == ".venv/bin/taxifare decide R --approve"


@pytest.mark.parametrize("text", ["another release of taxifare", "my-taxifare status", "taxifare decided it"])
def test_what_only_resembles_a_command_stays(environment: Path, text: str) -> None:
    assert typed(text) == text


def test_elsewhere_its_place_is_given_in_full(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    assert typed("taxifare status").endswith(f"{environment.relative_to(tmp_path.parent)} status")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert typed("taxifare status") == f"{environment} status"


def test_on_the_shells_path_its_name_is_enough_unless_that_is_anothers(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(environment.parent))
    assert typed("taxifare status") == "taxifare status"
    linked = tmp_path / "bin" / "taxifare"
    linked.parent.mkdir()
    linked.symlink_to(environment)
    monkeypatch.setenv("PATH", str(linked.parent))
    assert typed("taxifare status") == "taxifare status"
    linked.unlink()
    linked.write_text("#!/bin/sh\n")
    linked.chmod(0o755)
    assert typed("taxifare status") == ".venv/bin/taxifare status"


def test_what_the_command_prints_and_what_it_refuses_name_it_so(environment: Path) -> None:
    listed = CliRunner().invoke(app, ["shadow"], obj=surroundings())
    assert listed.output.splitlines()[-1] == "Next: .venv/bin/taxifare status"
    with pytest.raises(typer.BadParameter) as refused, errors_told():
        raise typer.BadParameter("expected a month, received none: see taxifare months")
    assert refused.value.message.endswith("see .venv/bin/taxifare months")
