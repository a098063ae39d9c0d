"""`taxifare settings`: what is in force, from where, and no secret."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from taxifare.cli.main import app
from taxifare.settings import MATTER_FIRST, Settings


@pytest.fixture(autouse=True)
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of both kinds, secrets among them, and one that only repeats its default."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "FIRST_MONTH=2012-01\nDATASET_SIZE=all\nSEED=1\nCITY=chicago\nTRIP_SOURCE=folder\nTRIP_FOLDER=trips\n"
        "DATABASE_URL=postgresql+psycopg://ada:sesame@db/taxifare\nAPPROVAL_SECRET=open-sesame\n"
    )
    monkeypatch.setenv("FIRST_MONTH", "2013-01")


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, ["settings", *words], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result


def found() -> dict[str, dict[str, Any]]:
    return {setting["name"]: setting for setting in json.loads(run("--json").output)}


def test_each_is_shown_with_where_it_comes_from_and_whether_it_differs() -> None:
    shown = {name: (one["value"], one["origin"], one["differs"]) for name, one in found().items()}
    assert shown["FIRST_MONTH"] == ("2013-01", "environment", True)
    assert shown["DATASET_SIZE"] == ("all", ".env", True)
    assert shown["CITY"] == ("chicago", ".env", True)
    assert shown["SEED"] == ("1", ".env", False)
    assert shown["MINIMUM_GAIN"] == ("0.01", "default", False)
    assert shown["LEWAGON_URL"][0].startswith("https://"), "what everybody may know"
    assert set(shown) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("words", [(), ("--all",), ("--json",)])
def test_no_secret_is_shown(words: tuple[str, ...]) -> None:
    shown = run(*words).output
    assert "sesame" not in shown
    assert "set, not shown" in " ".join(shown.split())


def test_first_come_the_ten_that_matter_and_what_is_set() -> None:
    lines = run().output.splitlines()
    names = [line.split()[0] for line in lines[1:] if line[:1].isupper() and line.split()[0].isupper()]
    assert names[:10] == [name.upper() for name in MATTER_FIRST]
    assert sorted(names[10:]) == ["APPROVAL_SECRET", "DATABASE_URL", "DATASET_SIZE", "SEED"]
    assert not [line for line in lines if len(line) > 80 and "taxifare " not in line]
    assert any(line.startswith("Changed from the default: 7 of ") for line in lines)
