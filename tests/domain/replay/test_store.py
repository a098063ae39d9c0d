"""Where a replay keeps its trainings: what other facts, settings or code have trained is never taken over."""

import shutil
from pathlib import Path

import pytest

import taxifare.digests
from taxifare.replay.store import folder_of
from taxifare.settings import Settings
from taxifare.trips.cities import City
from tests.support.cities import CORRECTED, new_york_with
from tests.support.places import REPOSITORY


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, taxifare_home=tmp_path)


@pytest.mark.parametrize("city", CORRECTED.values(), ids=CORRECTED)
def test_a_corrected_date_angle_or_radius_has_another_folder(settings: Settings, city: City) -> None:
    corrected = settings.model_copy(update={"city": new_york_with(city)})
    assert folder_of(corrected) != folder_of(settings)


def test_another_training_has_another_folder_and_other_rivals_have_not(settings: Settings) -> None:
    changed = [{"seed": 2}, {"patience": 1}, {"max_epochs": 3}, {"rehearsal_trips": 10}, {"dataset_size": 1_000}]
    folders = {folder_of(settings.model_copy(update=change)) for change in [{}, *changed]}
    assert len(folders) == 1 + len(changed)
    same = [{"challengers": ("warm",)}, {"minimum_gain": 0.5}, {"chat_author": "Ada"}]
    assert {folder_of(settings.model_copy(update=change)) for change in [{}, *same]} == {folder_of(settings)}


@pytest.mark.parametrize("package", ["replay", "training", "model", "trips"])
def test_other_code_has_another_folder(
    settings: Settings, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder_of(settings)
    copy = tmp_path / "taxifare"
    shutil.copytree(REPOSITORY / "taxifare", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(taxifare.digests, "_FOLDER", copy)
    assert folder_of(settings) == before
    file = next(file for file in sorted((copy / package).glob("*.py")) if file.stem != "__init__")
    file.write_text(file.read_text() + "\n# another line\n")
    assert folder_of(settings) != before
