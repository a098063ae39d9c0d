"""Digests of code: what a package is made of, wherever it stands."""

import shutil
from pathlib import Path

import pytest

import taxifare.digests
from taxifare.digests import code_digest, modules_behind
from tests.support.places import REPOSITORY


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project that is looked at in its place."""
    shutil.copytree(REPOSITORY / "taxifare", tmp_path / "taxifare", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(taxifare.digests, "_FOLDER", tmp_path / "taxifare")
    return tmp_path / "taxifare"


@pytest.mark.parametrize(
    "file",
    ["replay/replaying.py", "training/challengers.py", "model/network.py", "trips/cities.py", "trips/preparation.py"],
)
def test_a_changed_line_of_whatever_a_package_imports_changes_its_digest(copy: Path, file: str) -> None:
    before = code_digest("taxifare.replay")
    (copy / file).write_text((copy / file).read_text() + "\n# another line\n")
    assert code_digest("taxifare.replay") != before


def test_a_line_elsewhere_does_not(copy: Path) -> None:
    before = code_digest("taxifare.replay")
    for file in ("cli/main.py", "reports/replay_page.py", "sources/tlc.py"):
        (copy / file).write_text("# nothing is left\n")
    assert code_digest("taxifare.replay") == before


def test_a_new_module_counts_as_soon_as_it_is_there(copy: Path) -> None:
    before = code_digest("taxifare.training")
    (copy / "training" / "better.py").write_text("SHARE = 0.3\n")
    assert code_digest("taxifare.training") != before
    assert "taxifare.training.better" in modules_behind("taxifare.training")


def test_what_a_function_imports_when_it_is_called_counts(copy: Path) -> None:
    (copy / "late.py").write_text("def late():\n    import taxifare.whole_files\n")
    assert list(modules_behind("taxifare.late")) == ["taxifare.late", "taxifare.whole_files"]
