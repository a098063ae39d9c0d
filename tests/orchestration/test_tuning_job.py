"""Tuning as a job: on the lake's trips, with its evidence on the run's page, and again after a run that did not end."""

from typing import Any

import dagster as dg
import pytest

import taxifare.studies.trials
from taxifare.studies.storage import latest_result
from tests.support.world import JANUARY, World, failures


def search(world: World, **budget: object) -> dg.ExecuteInProcessResult:
    return world.run("tuning_job", ops={"search_settings": budget})


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the op's output shows."""
    (output,) = [event.step_output_data for event in result.all_events if event.is_successful_output]
    return {name: value.value for name, value in output.metadata.items()}


def test_a_search_shows_the_lines_to_adopt_and_the_picture(trained: World) -> None:
    result = search(trained, trials=2)
    assert failures(result) == {}

    found = latest_result(trained.settings)
    assert found is not None
    page = shown(result)
    for line in found.env_lines:
        assert line in page["settings"].splitlines()
    assert "taxifare tuned --write" in page["adopt"]
    assert page["trials"] == {"complete": 2, "pruned": 0, "failed": 0}
    assert page["search"].startswith("![plot](data:image/png;base64,")

    client = trained.registry.store.client
    runs = trained.mlflow_runs(result.run_id)
    tuning = client.get_run(found.run_id)
    assert tuning.data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
    trials = client.search_runs(
        [tuning.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found.run_id}'", order_by=["start_time"]
    )
    assert [run.info.run_name for run in trials] == ["trial 0", "trial 1"]
    assert [artifact.path for artifact in client.list_artifacts(found.run_id)] == ["tuning.png"]
    lines = [entry.message for entry in trained.instance.all_logs(result.run_id)]
    assert len([line for line in lines if "finished, least error" in line]) == 2


@pytest.mark.slow
def test_a_run_that_failed_goes_on_when_run_again(trained: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, fits = taxifare.studies.trials.fit_from_scratch, []

    def fit_once(*given: Any, **named: Any) -> Any:
        fits.append(named)
        if len(fits) == 2:
            raise OSError("the disk is full")
        return fit(*given, **named)

    monkeypatch.setattr(taxifare.studies.trials, "fit_from_scratch", fit_once)
    assert "the disk is full" in failures(search(trained, trials=2))["search_settings"]
    result = search(trained, trials=2)
    assert failures(result) == {}
    assert len(fits) == 3
    assert shown(result)["trials"]["complete"] == 2


@pytest.mark.slow
def test_a_month_can_be_searched_on_too(compared_january: World) -> None:
    assert failures(search(compared_january, subject=str(JANUARY), trials=1)) == {}
    found = latest_result(compared_january.settings)
    assert found is not None
    assert found.subject == str(JANUARY)


@pytest.mark.parametrize(("subject", "asset"), [("base", "base_trips"), ("2015-02", "preprocessed_data")])
def test_trips_that_are_not_in_the_lake_are_named(empty: World, subject: str, asset: str) -> None:
    told = failures(search(empty, subject=subject, trials=1))["search_settings"]
    assert told == f"{subject} has no trips in the lake: materialize {asset} first"


def test_a_budget_of_nothing_is_refused(empty: World) -> None:
    assert "greater than or equal to 1" in failures(search(empty, trials=0))["search_settings"]
