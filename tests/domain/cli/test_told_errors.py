"""What goes wrong before a command has begun: a sentence that names the setting, no traceback, and nothing made."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from taxifare.approval import ledger
from taxifare.approval.ledger import Ledger
from taxifare.cli.main import app
from taxifare.environment import SettingsError
from taxifare.settings import settings_in_force, unknown_names
from taxifare_dagster.command import surroundings
from tests.support.places import REPOSITORY

READING = [
    "doctor",
    "mend",
    "requests",
    "requests --all",
    "history",
    "history --on 2015-03-14",
    "history --verify",
    "mlflow",
]
CHANGING = [
    "decide 2015-01-v2-0 --approve --by Ada --reason complaints",
    "ask-again 2015-01-v2-0",
    "rollback --by Ada --reason complaints",
    "adopt --by Ada --reason complaints",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> Result:
    result = CliRunner().invoke(app, command.split(), obj=surroundings(), env={"COLUMNS": "200"})
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.parametrize("command", READING + CHANGING)
def test_where_there_is_no_state_a_command_says_so_and_makes_none(command: str, folder: Path) -> None:
    result = run(command)
    assert result.exit_code == 1
    assert f"there is no state in {folder / 'state'}" in result.output
    assert "`make demo` or `make dev`" in result.output
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("FIRST_MONTH=2015-13", "FIRST_MONTH: expected a month written YYYY-MM, received '2015-13'"),
        ("TRIP_SOURCE=nonsense", "TRIP_SOURCE: expected 'simulator'"),
        ("PATIENCE=", "PATIENCE: expected a whole number, received ''"),
        ("CHAT_BASE_URL=https://chat", "CHAT_BASE_URL and CHAT_CHANNEL go together"),
        ("CITY=rome.yaml", "rome.yaml: expected a YAML file that describes a city, received No such file"),
        ("CITY=rome.toml", "CITY: expected new-york, chicago or the path of a YAML file (a complete file"),
    ],
)
def test_a_bad_setting_is_told_as_it_stands_in_the_file(written: str, told: str, folder: Path) -> None:
    (folder / ".env").write_text(f"{written}\n")
    result = run("requests")
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.startswith("SettingsError: ")
    assert result.stderr.count("\n") == 1, "a line that can be copied, not a box with the command's usage"


def test_a_file_of_settings_that_is_no_text_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"\xff\xfe")
    result = run("requests")
    assert result.exit_code == 2
    assert ".env: expected a text file of settings" in result.stderr
    (folder / ".env").unlink()
    (folder / ".env").mkdir()
    assert ".env: expected a text file of settings, received a folder" in run("requests").stderr


def test_an_unknown_name_is_warned_of_with_the_nearest_known_one(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".env").write_text("TRIP_FOLDERS=here\nMLFLOW_HTTP_REQUEST_TIMEOUT=5\nZZZ=1\n")
    settings_in_force()
    settings_in_force()
    assert caplog.messages == [
        ".env: TRIP_FOLDERS is no setting of taxifare and has no effect (did you mean TRIP_FOLDER?)",
        ".env: ZZZ is no setting of taxifare and has no effect",
    ]
    assert list(unknown_names(["TAXIFARE_HOME", "taxifare_home"])) == []


def test_a_ledger_that_is_none_a_folder_or_out_of_reach_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / "state" / "ledger.db"
    place.parent.mkdir()
    place.write_text("no database at all, but long enough to be taken for one that is damaged")
    assert "file is not a database" in run("requests").stderr
    place.unlink()
    place.mkdir()
    assert "unable to open database file" in run("requests").stderr
    monkeypatch.setenv("DATABASE_URL", "postgresql://ops:secret@127.0.0.1:1/taxifare")
    refused = run("history")
    assert refused.exit_code == 1
    assert "Connection refused" in refused.stderr
    assert "DATABASE_URL" in refused.stderr
    assert "secret" not in refused.stderr
    for address in ("nonsense://here", "mysql://here"):
        monkeypatch.setenv("DATABASE_URL", address)
        assert "DATABASE_URL: expected postgresql" in run("history").stderr


@pytest.mark.parametrize("written", ["nonsense://bucket/lake", "abfs://bucket/lake"])
def test_a_storage_that_cannot_be_opened_is_told(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_URI", written)
    with pytest.raises(SettingsError, match=r"^STORAGE_URI: expected a folder, or a bucket whose client is installed"):
        _ = settings_in_force().lake


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("home", ["notes", "notes/below"])
def test_a_home_that_is_a_file_is_told(command: str, home: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes").write_text("mine")
    monkeypatch.setenv("TAXIFARE_HOME", home)
    refused = run(command)
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.replace("│", "").split())
    assert f"TAXIFARE_HOME: expected a folder, received {folder / home}, but {folder / 'notes'} is a file" in told
    assert (folder / "notes").read_text() == "mine"


@pytest.mark.parametrize("command", ["requests", "history", "history --verify"])
def test_a_command_that_reads_makes_no_secret(command: str, folder: Path) -> None:
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    assert run(command).exit_code == 0
    assert not (folder / "state" / "approval-secret").exists()


def test_a_silent_mlflow_is_told_with_the_setting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    refused = run("mend")
    assert refused.exit_code == 1
    assert "is MLFLOW_TRACKING_URI right, and does the server run?" in refused.stderr


def test_a_damaged_ledger_is_told(folder: Path) -> None:
    place = folder / "state" / "ledger.db"
    with Ledger(f"sqlite:///{place}", "USD").writing():
        pass
    content = bytearray(place.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    place.write_bytes(content)
    damaged = run("history")
    assert damaged.exit_code == 1
    assert "LedgerError" in damaged.stderr


@pytest.mark.parametrize("program", ["demo", "dev"])
def test_make_demo_and_make_dev_tell_a_bad_setting_likewise(program: str, folder: Path) -> None:
    (folder / ".env").write_text("FIRST_MONTH=2015-13\n")
    ended = subprocess.run(
        [sys.executable, "-m", f"taxifare_dagster.{program}"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.strip() == "SettingsError: FIRST_MONTH: expected a month written YYYY-MM, received '2015-13'"
    assert [path.name for path in folder.iterdir()] == [".env"]


def test_a_ledger_that_another_process_holds_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LOCK_S", 0.2)
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    holder = sqlite3.connect(folder / "state" / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused = run("rollback --by Ada --reason complaints")
    assert [run(command).exit_code for command in ("requests", "history", "standing")] == [0, 0, 0], "reading goes on"
    holder.close()
    assert refused.exit_code == 1
    assert "database is locked; nothing of this was recorded, try again" in refused.stderr
    holder = sqlite3.connect(folder / "state" / "ledger.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    for command in ("requests", "history", "history --verify", "standing", "rollback --by Ada --reason complaints"):
        refused = run(command)
        assert refused.exit_code == 1
        assert "database is locked; another process holds it, try again" in refused.stderr
    holder.close()


PLACES = "--from -73.98,40.75 --to -73.78,40.64"
SIGNED = "--by Ada --reason complaints"
MISWRITTEN = (
    f"decide 2015-01-v2-0 {SIGNED}",
    f"decide 2015-01-v2-0 --approve --reject {SIGNED}",
    "decide 2015-01-v2-0 --approve --by Ada",
    "rollback --by Ada",
    "standing end",
    "requests --newest 0",
    "history --on 2015-13-01",
    "history --month January",
    "history --on 2015-01-01 --month 2015-01",
    "history --head 1:00000000",
    "history --verify --head nonsense",
    f"take january {SIGNED}",
    "new-data january",
    "outcomes 2015-13",
    "explain",
    "metrics --listen nowhere",
    "tuned --write",
    "learning-curve --sizes many",
    "learning-curve --repeats 0",
    "replay --from 2015-13 --to 2015-02",
    "replay --from 2015-02 --to 2015-01",
    "replay --from 2015-01 --to 2015-02 --policy sometimes",
    "replay --from 2015-01 --to 2015-02 --challengers cold",
    "predict",
    "predict rides.txt",
    "predict rides.csv --output prices.parquet",
    "predict rides.csv --output prices.txt",
    f"predict --at 2015-01-01 {PLACES} --passengers many",
    f"predict rides.csv {PLACES}",
    "predict --at 2015-01-01 --from here --to there",
    "nonsense",
)
REFUSED = (
    f"decide 2015-09-v9 --approve {SIGNED}",
    "ask-again 2015-09-v9",
    f"rollback {SIGNED}",
    f"standing end {SIGNED}",
    "history --month 2014-12",
    "outcomes 2015-01",
    "explain nobody",
    "tuned",
    "learning-curve --output nowhere/curve.png",
    "replay --from 2015-01 --to 2015-02 --output nowhere/report.html",
    "predict rides.csv",
    "restore nowhere",
)


@pytest.mark.parametrize(
    ("command", "code"), [*((command, 2) for command in MISWRITTEN), *((command, 1) for command in REFUSED)]
)
def test_exit_codes_tell_what_was_written_wrongly_from_what_was_refused(command: str, code: int, folder: Path) -> None:
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    result = run(command)
    assert result.exit_code == code, result.output
    assert result.output
