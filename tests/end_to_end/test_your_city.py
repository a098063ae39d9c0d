"""The worked example of docs/your-city.md, as it stands there: its files, its settings, its commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY
from tests.support.your_city import write_files

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_example_runs_from_its_file_to_a_decision(tmp_path: Path) -> None:
    """One epoch in place of all: it is not the model that is looked at."""
    write_files(tmp_path)
    quick = {"MAX_EPOCHS": "1", "CHALLENGERS": "warm", "TRIP_FOLDER_QUIET_S": "0"}
    environment = {**os.environ, **quick, "PYTHONPATH": str(REPOSITORY)}
    for words in (["make_trips.py"], ["-m", "taxifare_dagster.demo"]):
        ended = subprocess.run(
            [sys.executable, *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "EUR a ride" in ended.stdout
    assert "\n2024-02  4,994 " in ended.stdout
    assert re.search(r"^fare +\d+\.\d\d EUR$", ended.stdout, re.MULTILINE)
    assert "USD" not in ended.stdout
