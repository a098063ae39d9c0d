"""docs/one-month-by-hand.md: its ten cells, run in order as a reader runs them, on few trips."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import REPOSITORY
from tests.support.small import small_settings

CELL = re.compile(r"```python\n(.*?)```", re.DOTALL)
FEW = {
    "SIMULATOR_TRIPS_PER_MONTH": "1500",
    "SIMULATOR_BASE_TRIPS": "3000",
    "MAX_EPOCHS": "1",
    "REHEARSAL_TRIPS": "1500",
    "CHALLENGERS": "warm",
    "BATCH_SIZE": "256",
}


def test_a_reader_comes_from_a_first_model_to_a_price_in_ten_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = CELL.findall((REPOSITORY / "docs" / "one-month-by-hand.md").read_text())
    assert len(cells) == 10
    monkeypatch.chdir(tmp_path)
    for name, value in ({"TAXIFARE_HOME": "", "DATASET_SIZE": "", "MLFLOW_TRACKING_URI": ""} | FEW).items():
        monkeypatch.setenv(name, value)
    here: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, "one-month-by-hand.md", "exec"), here)
    assert here["settings"].home == small_settings(tmp_path / "by-hand").home
    assert here["evidence"].production_version == "1"
    assert here["evidence"].staging.version == "2"
    assert here["evidence"].production.scores.trips == here["evidence"].staging.scores.trips > 250
    history = here["approvals"].record.history()
    assert [(entry.version, entry.by) for entry in history] == [("1", "Ada")]
    said = capsys.readouterr().out
    assert "in production: version 1" in said
    assert f"{here['evidence'].verdict} – " in said
    assert "rejected – the first three rides cost" in said
