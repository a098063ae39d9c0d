"""How the steps of a run are executed. Where runs are executed is a matter of Dagster's instance (`dagster.yaml`)."""

import dagster as dg

from taxifare.settings import ExecutionSettings
from taxifare_dagster.catalog import CODE_LOCATION


def executor_of(settings: ExecutionSettings) -> dg.ExecutorDefinition:
    """Returns the executor of all jobs: EXECUTOR."""
    if settings.executor == "in_process":
        return dg.in_process_executor
    # Forking from a server that has the definitions imported costs 2 s a step instead of 5.
    start = {"forkserver": {"preload_modules": [CODE_LOCATION]}}
    return dg.multiprocess_executor.configured({"max_concurrent": 2, "start_method": start})
