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
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.backfill import execute_backfill_iteration

from taxifare.months import months_between
from tests.orchestration.world import JANUARY, MARCH, World, failures

ROOT = Path(__file__).parents[2]


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
        "PYTHONPATH": str(ROOT),
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
def test_a_month_with_a_process_for_each_step(started: World, tmp_path: Path) -> None:
    script = tmp_path / "month_in_processes.py"
    script.write_text(MONTH_IN_PROCESSES)
    environment = environment_of(started, EXECUTOR="multiprocess") | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
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
