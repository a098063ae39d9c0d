"""Several machines without containers: runs are executed in the homes of any of them, by the command of a container."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dagster._core.launcher import LaunchRunContext
from dagster._grpc.types import ExecuteRunArgs

from taxifare_dagster.launcher import ProcessLauncher

MACHINES = "MACHINES"
"""The variable that says on which machine a partition is executed, as JSON: homes by partition. What it does not name,
and what is run again, is executed on this one."""


class MachineLauncher(ProcessLauncher):
    """Executes runs as dagster-docker and dagster-k8s do, in processes whose home is another machine's."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Starts a run's process on its machine."""
        run = context.dagster_run
        home = os.environ["TAXIFARE_HOME"]
        if run.parent_run_id is None:
            home = json.loads(os.environ[MACHINES]).get(run.tags.get("dagster/partition", ""), home)
        assert run.job_code_origin is not None
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref()).get_command_args()
        with (Path(home) / f"{run.run_id}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=os.environ | {"TAXIFARE_HOME": home, "DAGSTER_HOME": f"{home}/dagster"},
                cwd=home,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (Path(home) / f"{run.run_id}.pid").write_text(str(process.pid))
