"""Three months at once, as the UI's backfill page launches them, and a month with a process for each step."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration

from taxifare.trips.months import months_between
from taxifare_dagster.catalog import MONTHLY_ASSETS
from tests.support.places import REPOSITORY
from tests.support.world import JANUARY, MARCH, World, failures


def environment_of(world: World, **changes: str) -> dict[str, str]:
    """The environment of a process that works on the world, sensors and settings as in the tests."""
    same = {
        "simulator_trips_per_month", "simulator_base_trips", "simulator_scenario", "simulator_scenario_from",
        "max_epochs", "batch_size", "learning_rate",
    }  # fmt: skip
    settings = world.settings.model_dump(mode="json", include=same)
    own = {
        "TAXIFARE_HOME": str(world.settings.home),
        "DAGSTER_HOME": str(world.settings.home / "dagster"),
        "APPROVAL_SECRET": "known to these tests only",
        "PYTHONPATH": str(REPOSITORY),
    }
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {name.upper(): str(value) for name, value in settings.items()} | own | changes


MONTH_IN_PROCESSES = """
import dagster as dg
from taxifare_dagster import definitions

def monthly_job():
    return definitions.defs.resolve_job_def("monthly_job")

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        job = dg.reconstructable(monthly_job)
        result = dg.execute_job(job, instance, tags={"dagster/partition": "2015-01-01"})
        print(result.run_id if result.success else "FAILED")
"""


@pytest.mark.end_to_end
@pytest.mark.slow
def test_a_month_with_a_process_for_each_step(started: World, tmp_path: Path) -> None:
    script = tmp_path / "month_in_processes.py"
    script.write_text(MONTH_IN_PROCESSES)
    environment = environment_of(started, EXECUTOR="multiprocess") | {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    finished = subprocess.run(
        [sys.executable, str(script)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    run_id = finished.stdout.strip().splitlines()[-1]
    assert run_id != "FAILED", finished.stderr[-3000:]
    runs = started.mlflow_runs(run_id)
    assert {asset: run.info.status for asset, run in runs.items()} == {
        "production_eval_mae": "FINISHED",
        "staging_model": "FINISHED",
    }
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs.values())
    assert started.evidence(JANUARY).verdict == "PROMOTE"
    assert started.versions() == {"1": "base", "2": "2015-01"}


SYNCHRONOUS = """
telemetry: {enabled: false}
run_launcher: {module: dagster._core.launcher.sync_in_memory_run_launcher, class: SyncInMemoryRunLauncher}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""

CODE_LOCATION = """
from pathlib import Path
from taxifare_dagster.build import build_definitions
from tests.support.world import world_settings
defs = build_definitions(world_settings(Path({home!r})))
"""


@pytest.mark.slow
def test_a_backfill_of_three_months(started: World, tmp_path: Path) -> None:
    """What the daemon does with the backfill that the UI's "Materialize" page asks for, three months chosen."""
    (started.settings.home / "dagster" / "dagster.yaml").write_text(SYNCHRONOUS)
    file = tmp_path / "code_location.py"
    file.write_text(CODE_LOCATION.format(home=str(started.settings.home)))
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file=str(file), attribute="defs"))
    months = list(months_between(JANUARY, MARCH))
    with create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), started.instance) as workspace:
        started.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="three",
                asset_graph=workspace.create_request_context().asset_graph,
                partition_names=[f"{month}-01" for month in months],
                asset_selection=[dg.AssetKey(asset) for asset in MONTHLY_ASSETS],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=started.instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        for _ in range(10):
            assert [
                error for error in execute_backfill_iteration(workspace, logging.getLogger("backfill")) if error
            ] == []
            backfill = started.instance.get_backfill("three")
            assert backfill is not None
            if backfill.status is not BulkActionStatus.REQUESTED:
                break
    assert backfill.status is BulkActionStatus.COMPLETED_SUCCESS

    # One run a month; each compared with the production that was in force, each a version of its own.
    runs = started.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": "three"}))
    assert sorted(run.tags["dagster/partition"] for run in runs) == [f"{month}-01" for month in months]
    assert started.versions() == {"1": "base", "2": "2015-01", "3": "2015-02", "4": "2015-03"}
    assert {started.evidence(month).production_version for month in months} == {"1"}

    # Three questions, each once.
    started.publisher.out = tuple(months)
    requested = started.tick("approval_sensor").run_requests
    assert len(requested) == 3
    for question in requested:
        assert failures(started.launch(question, "approval_job")) == {}
    assert not started.tick("approval_sensor").run_requests
    assert [request.subject for request in started.approvals.record.open_requests()] == [str(month) for month in months]
    assert len(started.chat.messages) == 3

    # Answering one makes the others void: they were compared with what is no longer production.
    assert failures(started.answer(started.request(JANUARY))) == {}
    assert started.approvals.record.open_requests() == ()
    (due,) = started.tick("new_month_sensor").run_requests
    assert due.partition_key == "2015-02-01"
    assert due.tags["taxifare/because"] == "2015-02 is due: production changed"
