"""A fit from random weights: what it makes of the settings where the network is a larger one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

import taxifare.training.from_random_weights
from taxifare.model.fitting import Epoch
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.studies.learning_curve import learning_curve
from taxifare.studies.tuning import tune
from taxifare.training.from_random_weights import fit_from_scratch
from taxifare.trips.editions import Trips
from tests.support.registry import all_runs
from tests.support.small import PLAIN_NETWORK, clean_base, small_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, batch_size=None, max_epochs=None, patience=9)


@pytest.fixture
def base(settings: Settings) -> Trips:
    return clean_base(settings)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is one that many trips get, but for its size: twice the epochs, twice as large steps."""
    large = replace(PLAIN_NETWORK, learning_rate=0.02, batch_size=256, epochs=4)
    monkeypatch.setattr(taxifare.training.from_random_weights, "ARCHITECTURES", {0: large})


def test_a_fit_is_given_what_its_shape_says(base: Trips, settings: Settings) -> None:
    epochs: list[Epoch] = []
    _, history = fit_from_scratch(base.frame, settings, on_epoch=epochs.append)
    assert (history.batch_size, history.learning_rate) == (256, 0.02)
    assert [(epoch.number, epoch.last) for epoch in epochs] == [(number, 4) for number in range(5)]


def test_progress_ends_at_the_whole_and_the_run_shows_what_the_fit_was_given(
    base: Trips, settings: Settings, open_registry: Callable[[Settings], ModelRegistry]
) -> None:
    registry, told = open_registry(settings), []
    learning_curve(base, registry, settings, sizes=[None], repeats=1, on_progress=told.append)
    assert told == sorted(told)
    assert (told[-1], max(share for share in told if share < 1)) == (1.0, pytest.approx(0.75, abs=0.01))
    runs = all_runs(registry, "tags.asset = 'learning_curve_point'")
    params = [{name: run.data.params[name] for name in ("learning_rate", "batch_size", "max_epochs")} for run in runs]
    least = -(-len(base.training) // 100)
    assert params == [{"learning_rate": "0.02", "batch_size": str(least), "max_epochs": "4"}]


def test_a_search_reports_quarters_of_all_epochs(
    base: Trips, settings: Settings, open_registry: Callable[[Settings], ModelRegistry]
) -> None:
    tune(base, open_registry(settings), settings, trials=1)
    storage = f"sqlite:///{settings.home / 'tuning.db'}"
    (name,) = optuna.get_all_study_names(storage)
    (trial,) = optuna.load_study(study_name=name, storage=storage).trials
    assert set(trial.intermediate_values) == {1, 2, 3, 4}
