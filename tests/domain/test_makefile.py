"""The Makefile: what is installed is installed again when the lock says something else, not when it was touched."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY
from tests.support.ui import eventually

INPUTS = {
    ".venv/installed": ("requirements.lock", "pyproject.toml"),
    ".venv/emulators/installed": ("tests/emulators.lock",),
    ".venv/checkers/installed": ("tests/checkers.lock",),
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What make looks at; everything is installed."""
    for name in ("Makefile", *(name for names in INPUTS.values() for name in names)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for stamp, names in INPUTS.items():
        (tmp_path / stamp).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(f"cat {' '.join(names)} | cksum > {stamp}", shell=True, cwd=tmp_path, check=True)
    return tmp_path


def would_install(clone: Path, stamp: str) -> bool:
    """Whether `make` would fill the environment of that stamp."""
    said = subprocess.run(["make", "-n", stamp], cwd=clone, capture_output=True, text=True, check=True).stdout
    return "pip install" in said


@pytest.mark.parametrize("stamp", INPUTS)
def test_it_is_installed_again_when_the_lock_says_something_else_and_only_then(clone: Path, stamp: str) -> None:
    assert not would_install(clone, stamp)
    for name in INPUTS[stamp]:
        (clone / name).touch()  # as a checkout does
    assert not would_install(clone, stamp)
    lock = clone / INPUTS[stamp][0]
    lock.write_text(lock.read_text() + "another==1.0\n")
    assert would_install(clone, stamp)


@pytest.mark.parametrize("ends", ["exporter", "prometheus"])
def test_make_monitor_ends_with_whichever_of_its_two_processes_ends(clone: Path, tmp_path: Path, ends: str) -> None:
    """Prometheus alone would go on with alerts on numbers that nobody gives it, or on somebody else's."""
    programs = {"exporter": tmp_path / ".venv/bin/taxifare", "prometheus": tmp_path / "bin/prometheus"}
    for name, program in programs.items():
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{'sleep 1; exit 1' if name == ends else 'echo $$ > pid; exec sleep 60'}\n")
        program.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["make", "monitor"], cwd=clone, env=os.environ | path, capture_output=True, text=True, timeout=30, check=False
    )
    assert "Error 1" in ended.stderr
    stat = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"

    def has_ended() -> bool:
        try:
            return ") Z " in stat.read_text()  # whose parent is gone, and who waits to be reaped
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(has_ended, "the other to end, which was told to a moment ago", 20)


@pytest.mark.parametrize("stamp", INPUTS)
@pytest.mark.parametrize("left", [None, ""], ids=["a fresh clone", "a stamp of an earlier release"])
def test_a_fresh_clone_is_installed(clone: Path, stamp: str, left: str | None) -> None:
    (clone / stamp).unlink()
    if left is not None:
        (clone / stamp).write_text(left)
    assert would_install(clone, stamp)
    assert (
        "-m taxifare_dagster.demo"
        in subprocess.run(["make", "-n", "demo"], cwd=clone, capture_output=True, text=True, check=True).stdout
    )


@pytest.mark.parametrize("written", ["environment", ".env"])
def test_make_clean_says_what_it_leaves_and_how_to_forget_that(clone: Path, written: str) -> None:
    """TAXIFARE_HOME may name a folder with other things in it."""
    named, usual = clone / "my states", clone / "state"
    for folder in (named, usual):
        folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TAXIFARE_HOME"}
    if written == "environment":
        environment["TAXIFARE_HOME"] = str(named)
    else:
        (clone / ".env").write_text(f"LAST_MONTH=2015-02\nTAXIFARE_HOME='{named}'\n")

    def said() -> list[str]:
        # Within `make test` it would say as well which folder it enters.
        command = ["make", "--no-print-directory", "clean"]
        run = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    _, left = said()
    assert not usual.exists()
    assert named.exists()
    assert left.startswith(f"Left: {named}, which TAXIFARE_HOME names. ")
    subprocess.run(["bash", "-c", left.partition("as well: ")[2]], cwd=clone, check=True)
    assert not named.exists()
    assert said() == ["rm -rf state"]
