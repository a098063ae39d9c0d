"""What goes wrong before a command has begun: a sentence that names the setting, no traceback, and nothing made."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from taxifare.approval import ledger
from taxifare.approval.ledger import Ledger
from taxifare.cli import mlflow_pages
from taxifare.cli.main import app
from taxifare.environment import SettingsError
from taxifare.settings import settings_in_force, unknown_names
from taxifare_dagster.command import surroundings
from tests.support.places import REPOSITORY
from tests.support.servers import free_port

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
        ("PATIENCE=", "PATIENCE: expected a whole number, received '' (in .env)"),
        ("MINIMUM_GAIN: 0.02", ".env, line 1: expected NAME=value, received 'MINIMUM_GAIN: 0.02'"),
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
    assert ended.stderr.strip() == (
        "SettingsError: FIRST_MONTH: expected a month written YYYY-MM, received '2015-13' (FIRST_MONTH is set in .env)"
    )
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
NAMED = {
    f"decide 2015-01-v2-0 {SIGNED}": "--approve or --reject",
    f"decide you --approve {SIGNED}": "for 'request'",
    "decide 2015-01-v2-0 --approve --by you --reason complaints": "for '--by'",
    "rollback --by Ada --reason WHY": "for '--reason'",
    "requests --newest 0": "for '--newest'",
    "history --on 2015-13-01": "for '--on'",
    "history --month January": "for '--month'",
    "history --on 2015-01-01 --month 2015-01": "--on or --month",
    "history --head 1:00000000": "for '--head'",
    "history --verify --head nonsense": "for '--head'",
    f"take january {SIGNED}": "for 'MONTH'",
    "new-data january": "for 'MONTH'",
    "outcomes 2015-13": "for 'MONTH'",
    "metrics --listen nowhere": "for '--listen'",
    "tuned --write": "for '--write'",
    "learning-curve --sizes many": "for '--sizes'",
    "learning-curve --repeats 0": "for '--repeats'",
    "replay --from 2015-13 --to 2015-02": "for '--from'",
    "replay --from 2015-01 --to 2015-13": "for '--to'",
    "replay --from 2015-02 --to 2015-01": "for '--to'",
    "replay --from 2015-01 --to 2015-02 --policy sometimes": "for '--policy'",
    "replay --from 2015-01 --to 2015-02 --challengers cold": "for '--challengers'",
    "predict rides.txt": "for 'file'",
    "predict rides.csv --output prices.parquet": "for '--output'",
    f"predict --at 2015-01-01 {PLACES} --passengers many": "for '--passengers'",
    "predict --at 2015-01-01 --from here --to there": "for '--from'",
    "predict --at 2015-01-01 --from -73.98,40.75 --to there": "for '--to'",
}


@pytest.mark.parametrize("command", NAMED)
def test_what_is_wrong_with_an_option_is_told_with_its_name(command: str, folder: Path) -> None:
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    result = run(command)
    assert result.exit_code == 2
    assert f"Invalid value{' ' if NAMED[command].startswith('for') else ': expected '}{NAMED[command]}" in result.output


def test_no_option_of_any_command_is_read_only_after_the_command_has_begun() -> None:
    """Months, days and heads are parsed by click, which names the option; none is left to a command's own words."""
    plain = {
        f"{command} {parameter.name}": parameter.help
        for command, found in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        for parameter in found.params
        if "YYYY-MM" in (getattr(parameter, "help", None) or "")
        and parameter.type_descriptor.parameter_info.parser is None
    }
    assert not plain


@pytest.fixture
def taken() -> Iterator[str]:
    """An address at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def begun(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_port_that_is_taken_is_the_world_and_no_wrong_setting(
    taken: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens says so alike and ends with 1; an address that is none ends with 2."""
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").writing():
        pass
    said = f"{taken} cannot be listened on (Address already in use): "
    monkeypatch.setattr(mlflow_pages, "PAGES_ADDRESS", f"http://{taken}")
    for command, where in (("mlflow", ""), (f"metrics --listen {taken}", "--listen: ")):
        refused = run(command)
        assert (refused.exit_code, f"AddressError: {where}{said}" in refused.stderr) == (1, True), refused.output
    consumed = begun("taxifare.cli.streams", STREAM_METRICS_LISTEN=taken)
    assert (consumed.returncode, f"STREAM_METRICS_LISTEN: {said}" in consumed.stderr) == (1, True), consumed.stderr
    for workers in "12":
        served = begun("taxifare.serving", SERVICE_LISTEN=taken, SERVICE_WORKERS=workers)
        assert (served.returncode, f"SERVICE_LISTEN: {said}" in served.stderr) == (1, True), served.stderr
    for miswritten in (
        begun("taxifare.serving", SERVICE_LISTEN="nowhere"),
        begun("taxifare.cli.streams", STREAM_METRICS_LISTEN="nowhere"),
        begun("taxifare_dagster.dev", "--port", "http"),
    ):
        assert miswritten.returncode == 2, miswritten.stderr
        assert "Traceback" not in miswritten.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_that_cannot_start_says_once_or_as_often_as_it_has_processes_why_and_ends(workers: str) -> None:
    """A bundle that is not there is the world, too; the supervisor passes on what its processes end with."""
    nowhere = f"127.0.0.1:{free_port()}"
    served = begun("taxifare.serving", SERVICE_LISTEN=nowhere, SERVICE_WORKERS=workers, SERVICE_MODEL_PATH="nowhere")
    assert served.returncode == 1, served.stderr
    assert "SERVICE_MODEL_PATH: " in served.stderr
    assert "another is started" not in served.stderr


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
