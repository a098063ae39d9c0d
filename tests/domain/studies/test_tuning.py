"""Tuning: what is searched on which trips, killed and gone on with, what fails, and how a person adopts the winner."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import taxifare.studies.trials
import taxifare.training.from_random_weights
from taxifare.approval.locks import holding
from taxifare.cli.main import app
from taxifare.gate.scores import mean_interval
from taxifare.model.fitting import TrainingHistory, fit
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.studies.adopting import adopt
from taxifare.studies.results import Search, TuningError
from taxifare.studies.storage import finished_trials, latest_result
from taxifare.studies.trials import searched_settings
from taxifare.studies.tuning import SearchProgress, _Budget, tune
from taxifare.training.from_random_weights import architecture_of, fit_from_scratch
from taxifare.trips.editions import Trips
from tests.support.places import REPOSITORY
from tests.support.registry import runs_by_name
from tests.support.small import PLAIN_NETWORK, clean_base, small_settings

pytestmark = pytest.mark.usefixtures("networks_without_tables")

DIES = """
import os, signal, sys
from pathlib import Path
import taxifare.studies.trials
from taxifare.approval.versions import registry_of
from taxifare.studies.tuning import tune
from taxifare.training.from_random_weights import fit_from_scratch
from tests.support.small import clean_base, plain_networks, small_settings

settings, fits = small_settings(Path(sys.argv[1])), []

def fit_or_die(trips, own, *, on_epoch):
    fits.append(own)
    def watch(epoch):
        on_epoch(epoch)
        if len(fits) == 2 and epoch.number:
            os.kill(os.getpid(), signal.SIGKILL)
    return fit_from_scratch(trips, own, on_epoch=watch)

taxifare.studies.trials.fit_from_scratch = fit_or_die
with plain_networks():
    tune(clean_base(settings), registry_of(settings), settings, trials=3)
"""


@dataclass(frozen=True)
class Found:
    """A search of three trials, what it told, and the trips each trial was fitted to."""

    settings: Settings
    registry: ModelRegistry
    trips: Trips
    search: Search
    told: tuple[SearchProgress, ...]
    fitted: tuple[pd.DataFrame, ...]

    @property
    def runs(self) -> dict[str, Any]:
        return runs_by_name(self.registry)


def studied(settings: Settings) -> optuna.Study:
    """The one study in the state folder."""
    storage = f"sqlite:///{settings.home / 'tuning.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Trips:
    """Base trips; not to be changed in place."""
    return clean_base(small_settings(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def found(
    base: Trips, tmp_path_factory: pytest.TempPathFactory, open_registry: Callable[[Settings], ModelRegistry]
) -> Found:
    settings = small_settings(tmp_path_factory.mktemp("tuning"))
    registry, told, fitted = open_registry(settings), [], []

    def watched(trips: pd.DataFrame, *rest: Any, **given: Any) -> Any:
        fitted.append(trips)
        return fit_from_scratch(trips, *rest, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taxifare.studies.trials, "fit_from_scratch", watched)
        search = tune(base, registry, settings, trials=3, on_trial=told.append)
    return Found(settings, registry, base, search, tuple(told), tuple(fitted))


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever fits a network fails."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a finished trial was repeated")

    monkeypatch.setattr(taxifare.studies.trials, "fit_from_scratch", refuse)


# What is searched, on which trips


def test_the_present_settings_are_the_first_trial(found: Found) -> None:
    first = found.search.trials[0]
    assert first.number == 0
    assert found.settings.learning_rate is None
    assert first.settings == found.search.result.present
    assert first.settings == {
        "learning_rate": PLAIN_NETWORK.learning_rate,
        "batch_size": found.settings.batch_size,
        "patience": found.settings.patience,
        "max_epochs": found.settings.max_epochs,
        "dense_width_factor": 1.0,
    }


def test_trials_differ_and_stay_where_a_setting_makes_sense(found: Found) -> None:
    tried = [trial.settings for trial in found.search.trials]
    assert len({tuple(settings.items()) for settings in tried}) == 3
    for settings in tried:
        Settings(_env_file=None, **settings)


def test_trials_learn_from_earlier_training_trips_than_they_are_judged_by(found: Found) -> None:
    held = found.registry.runs.read_predictions(found.search.trials[0].run_id).index
    by_key = found.trips.frame.set_index("key")
    assert not by_key.loc[held, "is_validation"].any(), "the gate's trips take no part"
    training = len(found.trips.training)
    assert len(held) == pytest.approx(training / 10, abs=2)
    for trips in found.fitted:
        assert not trips["is_validation"].any()
        assert trips["pickup_datetime"].max() < by_key.loc[held, "pickup_datetime"].min()
        assert len(trips) + len(held) == training


def test_the_winner_is_chosen_on_other_trips_than_its_gain_is_measured_on(found: Found) -> None:
    """By hand: every other held trip chooses."""
    errors = {}
    for trial in found.search.trials:
        predicted = found.registry.runs.read_predictions(trial.run_id)
        paid = found.trips.frame.set_index("key").loc[predicted.index, "target"]
        errors[trial.number] = (predicted - paid).abs().to_numpy()
        assert trial.mae == pytest.approx(errors[trial.number][::2].mean())
    result = found.search.result
    best = min(found.search.trials, key=lambda trial: trial.mae or np.inf)
    assert best.number != 0, "one epoch is too few to win"
    assert result.winner == best.settings
    assert result.winner_mae == best.mae
    assert result.gain == mean_interval((errors[0] - errors[best.number])[1::2])


# What is on record


def test_each_trial_is_a_run_nested_in_the_run_of_the_search(found: Found) -> None:
    parent = found.runs["tuning base"]
    assert parent.info.status == "FINISHED"
    for trial in found.search.trials:
        run = found.runs[f"trial {trial.number}"]
        assert run.info.run_id == trial.run_id
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {name: run.data.params[name] for name in trial.settings} == {
            name: str(value) for name, value in trial.settings.items()
        }
        assert run.data.metrics["mae"] == trial.mae
        curve = found.registry.store.client.get_metric_history(trial.run_id, "epoch_early_stopping_mae")
        assert [point.step for point in curve] == list(range(int(run.data.tags["epochs"]) + 1))


def test_the_run_of_the_search_shows_the_winner_and_the_evidence(found: Found) -> None:
    run, result = found.runs["tuning base"], found.search.result
    assert run.data.metrics["mae"] == result.winner_mae
    assert run.data.metrics["winner_learning_rate"] == result.winner["learning_rate"]
    assert result.gain is not None
    assert run.data.metrics["gain_low"] == pytest.approx(result.gain.low)
    assert result.run_id == run.info.run_id


def test_progress_tells_how_long_it_may_still_take(found: Found) -> None:
    assert [progress.finished for progress in found.told] == [1, 2, 3]
    assert found.told[0].left_s > found.told[1].left_s > found.told[2].left_s == 0
    assert found.told[-1].best_mae == found.search.result.winner_mae


# Going on


@pytest.mark.usefixtures("no_fit")
def test_a_search_that_is_done_is_not_done_again(found: Found) -> None:
    again = tune(found.trips, found.registry, found.settings, trials=3)
    assert again.trials == found.search.trials
    assert again.result.winner == found.search.result.winner
    assert again.result.run_id == found.search.result.run_id


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trial_it_was_killed_in(
    base: Trips, settings: Settings, registry: ModelRegistry
) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(settings.home)], check=False, cwd=REPOSITORY)
    assert died.returncode == -signal.SIGKILL
    killed = runs_by_name(registry)
    assert set(killed) == {"tuning base", "trial 0", "trial 1"}
    assert killed["trial 1"].info.status == "RUNNING"

    search = tune(base, registry, settings, trials=3)

    after = runs_by_name(registry)
    assert [trial.number for trial in search.trials] == [0, 1, 2]
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert after["trial 0"].info.end_time == killed["trial 0"].info.end_time, "a finished trial is not repeated"
    assert after["trial 1"].info.run_id == killed["trial 1"].info.run_id
    assert after["trial 1"].data.params == killed["trial 1"].data.params
    assert after["tuning base"].info.run_id == killed["tuning base"].info.run_id
    assert len({tuple(trial.settings.items()) for trial in search.trials}) == 3, "it does not draw the same again"


def test_other_trips_or_other_present_settings_are_another_search(
    base: Trips, settings: Settings, registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = []

    def stopped(trips: pd.DataFrame, own: Settings, **_: Any) -> None:
        fits.append((len(trips), own.learning_rate, own.seed))
        raise KeyboardInterrupt

    monkeypatch.setattr(taxifare.studies.trials, "fit_from_scratch", stopped)
    fewer = replace(base, frame=base.frame[:-200])
    for trips, changes in ((base, {}), (fewer, {}), (base, {"learning_rate": 0.001}), (base, {"seed": 7})):
        with pytest.raises(KeyboardInterrupt):
            tune(trips, registry, settings.model_copy(update=changes), trials=1)
    assert len(set(fits)) == 4
    assert len(optuna.get_all_study_names(f"sqlite:///{settings.home / 'tuning.db'}")) == 4


def test_two_searches_at_once_are_refused(found: Found) -> None:
    with holding(found.settings, "tuning"), pytest.raises(TuningError, match="another search is at work"):
        tune(found.trips, found.registry, found.settings, trials=3)


# Budgets


def test_minutes_are_kept(base: Trips, settings: Settings, registry: ModelRegistry) -> None:
    started = time.monotonic()
    search = tune(base, registry, settings, minutes=0.2)
    took = time.monotonic() - started
    longest = max(trial.took_s for trial in search.trials)
    assert took < 12 + longest
    assert _Budget.of(99, 100.0).left_s(finished_trials(studied(settings))) > 0
    at_once = tune(base, registry, settings, minutes=0.001)
    assert at_once.trials == search.trials, "no trial fits into so little time"


@pytest.mark.parametrize("budget", [{}, {"trials": 0}, {"minutes": -1.0}])
def test_a_search_needs_a_budget(found: Found, budget: dict[str, Any]) -> None:
    with pytest.raises(TuningError, match="expected a budget"):
        tune(found.trips, found.registry, found.settings, **budget)


def test_too_few_trips_are_refused(found: Found) -> None:
    few = replace(found.trips, frame=found.trips.frame[:50])
    with pytest.raises(TuningError, match="expected at least 100 training trips, received 50"):
        tune(few, found.registry, found.settings, trials=1)


# Bad trials


@pytest.mark.filterwarnings("ignore:Fixed parameter learning_rate:UserWarning")
def test_a_trial_that_explodes_is_a_failed_trial(base: Trips, settings: Settings, registry: ModelRegistry) -> None:
    tune(base, registry, settings, trials=1)
    studied(settings).enqueue_trial({"learning_rate": 1e30, "max_epochs": 3})
    told: list[SearchProgress] = []

    search = tune(base, registry, settings, trials=2, on_trial=told.append)

    assert [trial.end for trial in search.trials] == ["complete", "failed"]
    assert "expected finite numbers" in (told[0].trial.fault or "")
    runs = runs_by_name(registry)
    assert runs["trial 1"].info.status == "FAILED"
    assert runs["tuning base"].info.status == "FINISHED"
    result = search.result
    assert (result.winner, result.gain) == (result.present, None)
    assert result.trials == {"complete": 1, "pruned": 0, "failed": 1}


def test_where_nothing_trains_the_first_fault_is_told(base: Trips, settings: Settings, registry: ModelRegistry) -> None:
    hopeless = settings.model_copy(update={"learning_rate": 1e30, "max_epochs": 3})
    with pytest.raises(TuningError, match="none of 1 trials gave a usable network; the first: epoch"):
        tune(base, registry, hopeless, trials=1)
    assert latest_result(settings) is None


def test_a_bad_trial_is_given_up_early(base: Trips, settings: Settings, registry: ModelRegistry) -> None:
    settings = settings.model_copy(update={"max_epochs": 4})
    first = tune(base, registry, settings, trials=1).trials[0]
    study = studied(settings)
    excellent = {
        "state": optuna.trial.TrialState.COMPLETE,
        "value": 9.0,
        "params": study.trials[0].params,
        "distributions": study.trials[0].distributions,
        "user_attrs": {"mlflow_run": first.run_id},
        "intermediate_values": dict.fromkeys(range(1, 5), 0.01),
    }
    for _ in range(4):
        study.add_trial(optuna.trial.create_trial(**excellent))

    search = tune(base, registry, settings, trials=6)

    given_up = search.trials[-1]
    assert (given_up.end, given_up.mae) == ("pruned", None)
    run = runs_by_name(registry)[f"trial {given_up.number}"]
    assert run.info.status == "FINISHED"
    assert int(run.data.tags["epochs"]) < given_up.settings["max_epochs"]
    assert "mae" not in run.data.metrics


# Adopting


@pytest.fixture
def desk(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A person at a terminal, in a folder with a `.env`."""
    monkeypatch.chdir(tmp_path)
    lines = [f"TAXIFARE_HOME={found.settings.home}", "# ours", "LEARNING_RATE=0.005", "MODEL_NAME=taxifare"]
    lines += ["BATCH_SIZE=256", "MAX_EPOCHS=1"]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["tuned", *words], env={"COLUMNS": "160"})

    return run


def test_the_winner_is_shown_with_its_evidence_and_the_lines_to_paste(
    found: Found, desk: Callable[..., Result]
) -> None:
    answer = desk()
    assert answer.exit_code == 0, answer.output
    assert "95 % interval" in answer.output
    for line in found.search.result.env_lines:
        assert line in answer.output.splitlines()
    assert "LEARNING_RATE=0.005" in Path(".env").read_text(), "showing changes nothing"


def test_adopted_settings_are_those_of_the_next_fit_and_all_else_is_as_it_was(
    found: Found, desk: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk("--write", "--by", "Ada").exit_code == 2, "a choice has a reason"
    answer = desk("--write", "--by", "Ada", "--reason", "half a cent for nothing")
    assert answer.exit_code == 0, answer.output

    lines = Path(".env").read_text().splitlines()
    assert lines[:2] == [f"TAXIFARE_HOME={found.settings.home}", "# ours"]
    assert "MODEL_NAME=taxifare" in lines
    assert set(found.search.result.env_lines) < set(lines)
    tags = found.runs["tuning base"].data.tags
    assert (tags["adopted_by"], tags["adopted_reason"]) == ("Ada", "half a cent for nothing")

    adopted = Settings()
    winner = found.search.result.winner
    assert searched_settings(adopted) == winner
    usual = architecture_of(found.settings, len(found.trips.frame)).dense_widths[0]
    given: dict[str, Any] = {}

    def seen(*rest: Any, **named: Any) -> TrainingHistory:
        given.update(named)
        return fit(*rest, **named)

    monkeypatch.setattr(taxifare.training.from_random_weights, "fit", seen)
    network, _ = fit_from_scratch(found.trips.frame, adopted)
    assert network.get_layer("dense_0_0").units == round(usual * winner["dense_width_factor"])
    assert {name: given[name] for name in winner if name in given} == {
        name: value for name, value in winner.items() if name != "dense_width_factor"
    }


def test_settings_of_the_environment_go_first_and_that_is_said(
    found: Found, desk: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARNING_RATE", "0.123")
    answer = desk("--write", "--by", "Ada", "--reason", "x")
    assert answer.exit_code == 2
    assert "unset LEARNING_RATE" in " ".join(answer.output.split())


def test_before_any_search_there_is_nothing_to_show(
    desk: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAXIFARE_HOME", str(tmp_path / "elsewhere"))
    answer = desk()
    assert answer.exit_code == 1
    assert "nothing has been tuned yet" in answer.output


def test_adopting_makes_an_env_file_where_there_is_none(found: Found, tmp_path: Path) -> None:
    adopt(found.search.result, found.registry, tmp_path / ".env", by="Ada", reason="a start")
    assert tuple((tmp_path / ".env").read_text().splitlines()) == found.search.result.env_lines
