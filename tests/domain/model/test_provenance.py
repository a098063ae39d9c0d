"""Which code is at work, as git tells it – or cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxifare.model.provenance import COMMIT_TAG, TREE_TAG, code_tags, tags_of, version_in_words
from taxifare.model.registry import ModelRegistry
from tests.support.places import REPOSITORY

UNKNOWN = {COMMIT_TAG: "unknown", TREE_TAG: "unknown"}


def git(folder: Path, *command: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    done = subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project under git, all of it committed."""
    (tmp_path / "taxifare").mkdir()
    (tmp_path / "taxifare" / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All there is")
    return tmp_path


def test_a_clean_tree_is_told_with_its_commit(project: Path) -> None:
    (project / "state").mkdir()
    (project / "state" / "ledger.db").write_text("no part of the code")
    assert tags_of(project) == {COMMIT_TAG: git(project, "rev-parse", "HEAD"), TREE_TAG: "clean"}


def test_a_changed_tree_is_told(project: Path) -> None:
    (project / "taxifare" / "__init__.py").write_text("changed = True\n")
    assert tags_of(project) == {COMMIT_TAG: git(project, "rev-parse", "HEAD"), TREE_TAG: "changed"}


def test_a_package_within_somebody_elses_repository_is_not_taken_for_theirs(project: Path) -> None:
    installed = project / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    assert tags_of(installed) == UNKNOWN


@pytest.mark.parametrize("empty", ["no repository", "no commit", "no git"])
def test_where_git_cannot_tell_it_is_unknown(empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if empty == "no commit":
        git(tmp_path, "init", "--quiet")
    if empty == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert tags_of(tmp_path) == UNKNOWN


def test_a_hook_of_another_repository_does_not_lead_astray(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(project / "nowhere"))
    assert tags_of(project)[TREE_TAG] == "clean"


def test_an_image_has_the_commit_behind_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taxifare-0.1.0.dist-info").mkdir()
    commit = "1bf2389c0ffee" + "0" * 27
    (tmp_path / "taxifare-0.1.0.dist-info" / "METADATA").write_text(f"Name: taxifare\nVersion: 0.1.0+{commit}\n")
    monkeypatch.syspath_prepend(tmp_path)
    code_tags.cache_clear()
    try:
        assert code_tags() == {COMMIT_TAG: commit, TREE_TAG: "unknown"}
        assert version_in_words() == "0.1.0 (1bf2389c0ffe)"
    finally:
        code_tags.cache_clear()


def test_nobody_else_is_told_what_mlflow_is_used_for() -> None:
    """Asked in a process that knows of no test and no CI, where MLflow is silent by itself."""
    asks = "import taxifare; from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    plain = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    asked = subprocess.run([sys.executable, "-c", asks], env=plain, capture_output=True, text=True, check=True)
    assert asked.stdout == "True\n"


def test_every_run_says_which_code_made_it(registry: ModelRegistry) -> None:
    with pytest.raises(ZeroDivisionError), registry.runs.open("a run", {"asset": "staging_model"}) as run_id:
        raise ZeroDivisionError
    tags = registry.store.client.get_run(run_id).data.tags
    assert code_tags().items() <= tags.items()
    with registry.runs.open("a run", {"asset": "staging_model"}) as again:
        assert again == run_id, "the code is no part of what names a run"
