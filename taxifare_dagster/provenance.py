"""What tells which Dagster run something came from, wherever that is kept."""

import dagster as dg


def run_tags(run: dg.DagsterRun, **what: str) -> dict[str, str]:
    """Returns the tags of an MLflow run: what it is of, and the Dagster run that made it.

    A run that is executed again after a failure or a kill goes on in the MLflow run it began.
    """
    return what | {"dagster_run": run.root_run_id or run.run_id}
