"""Which runs are refused before their first step, and what to launch instead.

Dagster's UI offers runs that this project has no use for. `ensure_of_one_month` refuses them with a way out; it is
called when a run opens the lake (`resources`), which whatever is of a month does before its first step. What is wrong
with data is a matter of `checks`, whose turn it is one of `order`. Why a range is no run: docs/decisions.md, under
taxifare_dagster.
"""

import dagster as dg

from taxifare_dagster.catalog import MONTHLY_ASSETS

REFUSED = {"dagster/max_retries": "0"}
"""Tags of a run that was refused, so that Dagster does not run it again."""


def ensure_of_one_month(run: dg.DagsterRun | None, instance: dg.DagsterInstance | None) -> None:
    """Ensures that a run is not of several months, and that one which only checks months is of one.

    Args:
        run: The run that begins; None where values are read without one.
        instance: Has the run.

    Raises:
        dg.Failure: It is another one. Dagster does not run it again.
    """
    if run is None:
        return
    try:
        _refuse_range(run)
        _refuse_checks_without_month(run)
    except dg.Failure:
        # What fails before the first step counts as a process that died: Dagster runs it again, whatever the failure
        # allows.
        if instance is not None:
            instance.add_run_tags(run.run_id, REFUSED)
        raise


def _refuse_range(run: dg.DagsterRun) -> None:
    """The UI's "Single run" over a range: the results of checks would be of no month."""
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    if first != last:
        raise dg.Failure(
            f"A run is of one month, this one is of {first} to {last}: each month has its own comparison and "
            'its own question. Materialize the months with "Launch backfill", which makes a run for each.',
            allow_retries=False,
        )


def _refuse_checks_without_month(run: dg.DagsterRun) -> None:
    """The UI's "Execute all" on the tab of checks: Dagster fails it as well, but without a word on why."""
    if "dagster/partition" in run.tags or run.asset_selection:
        return
    checked = {key.asset_key.to_user_string() for key in run.asset_check_selection or ()}
    if checked & set(MONTHLY_ASSETS):
        raise dg.Failure(
            "These checks are of one month and this run has none: open the asset, choose a month, and execute "
            "the checks from there, or materialize the month.",
            allow_retries=False,
        )
