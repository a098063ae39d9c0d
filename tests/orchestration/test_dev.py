"""`make dev` where it cannot listen: said at once, with the way out, before any state is made."""

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taxifare.addresses import AddressError, ensure_free
from taxifare.environment import SettingsError
from taxifare.errors import MiswrittenError
from taxifare.settings import settings_in_force
from taxifare_dagster.dev import listening
from taxifare_dagster.home import SHIPPED, parts_left_out, prepare_home
from tests.support.places import REPOSITORY


def test_a_port_in_use_is_told_with_another_one_and_makes_no_state(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "taxifare_dagster.dev", "--port", str(port)],
            cwd=REPOSITORY,
            env={"TAXIFARE_HOME": str(tmp_path / "state"), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1
    assert f'make dev ARGS="--port {port + 1}"' in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "state").exists()


def test_begun_in_the_background_by_a_script_it_ends_on_term() -> None:
    """Such a process is born ignoring interrupts, and what it becomes would, too; Dagster ends by TERM as by those."""
    becomes = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    begins = (
        "import os, sys; from taxifare_dagster.dev import heed_interrupts; heed_interrupts(); "
        f"os.execv(sys.executable, [sys.executable, '-c', {becomes!r}])"
    )
    script = f'trap "" INT; {shlex.quote(sys.executable)} -c {shlex.quote(begins)} & wait'
    ended = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.stdout == "True\n", ended.stderr


def test_a_configuration_of_an_earlier_release_is_told_what_it_lacks(tmp_path: Path) -> None:
    """It stays as it is, for it may have been edited; without `python_logs` the terminal is full of DEBUG."""
    shipped = SHIPPED.read_text()
    (tmp_path / "dagster.yaml").write_text(shipped)
    assert parts_left_out(tmp_path) == []
    edited = {part: value for part, value in yaml.safe_load(shipped).items() if part != "python_logs"}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(edited))
    assert parts_left_out(tmp_path) == ["python_logs"]
    (tmp_path / "dagster.yaml").write_text("nux: [")
    with pytest.raises(SettingsError, match=r"dagster\.yaml: expected YAML: "):
        parts_left_out(tmp_path)


def test_a_configuration_that_is_broken_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXIFARE_HOME", str(tmp_path))
    (tmp_path / "dagster").mkdir()
    for broken, told in (("nux: [", "expected YAML: "), ("- nux", "expected parts with names")):
        (tmp_path / "dagster" / "dagster.yaml").write_text(broken)
        with pytest.raises(SettingsError, match=told):
            prepare_home(settings_in_force())
    assert [path.name for path in tmp_path.iterdir()] == ["dagster"]


@pytest.mark.parametrize("port", ["http", "-1", "65536", ""])
def test_a_port_that_is_none_is_told(port: str) -> None:
    with pytest.raises(MiswrittenError, match="--port: expected a number below 65536"):
        listening([f"--port={port}"])


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.1:3000 cannot be listened on \(Cannot assign"):
        ensure_free("192.0.2.1", 3000, "stop it")
