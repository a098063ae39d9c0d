"""Failures: the runs that did not do their work, as Dagster has them, told to people by `notice_job`.

Derived from Dagster's runs at each tick rather than seen once as they fail: what could not be told yet is told later.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterEventType, DagsterRun, DagsterRunStatus
from dagster_shared.error import SerializableErrorInfo

from taxifare.approval.faults import FaultNotice, about_failure, failure
from taxifare.approval.message import Links
from taxifare_dagster.run_guards import REFUSED

LOOKS_BACK = timedelta(days=7)
_MOST_RUNS = 200

_SILENT = frozenset({"approval_job", "notice_job", "reminder_job", "decision_job", "rollback_job", "ask_again_job"})
"""Messages are tried again by themselves; whoever answers sees the run, and gets fresh links where those are spent."""

_HOLD_BACK = frozenset({"base_job", "monthly_job", "whole_month_job"})
"""Requested by the sensor of months, which requests nothing else until they have been run."""

_ENDINGS = {DagsterRunStatus.FAILURE: "failed", DagsterRunStatus.CANCELED: "stopped"}


def failed_runs(instance: dg.DagsterInstance) -> Mapping[str, DagsterRun]:
    """Returns the runs of late that failed or were stopped, by what notices call them; not what Dagster runs again.

    Of a backfill's it is one, the latest: a fault that stops two hundred months is told once.
    """
    since = datetime.now(UTC) - LOOKS_BACK
    ended = instance.get_runs(dg.RunsFilter(statuses=list(_ENDINGS), updated_after=since), limit=_MOST_RUNS)
    return {
        about_failure(_name(run)): run
        for run in reversed(ended)
        if run.job_name not in _SILENT and run.tags.get("dagster/will_retry") != "true"
    }


def failure_of(run: DagsterRun, instance: dg.DagsterInstance, links: Links) -> FaultNotice:
    """Returns what is told of a run that failed or was stopped."""
    partition = run.tags.get("dagster/partition")
    assets = sorted(key.to_user_string() for key in run.asset_selection or ()) if _is_of_assets(run) else []
    what = ", ".join([", ".join(assets) or run.job_name, *([partition[:7]] if partition else [])])
    return failure(
        _name(run),
        what,
        _ENDINGS[run.status],
        _why(run, instance),
        links.run(run.run_id),
        holds_back="dagster/run_key" in run.tags and run.job_name in _HOLD_BACK,
        is_refused=REFUSED.items() <= run.tags.items(),
    )


def _name(run: DagsterRun) -> str:
    """Returns what a run's failure is told under."""
    backfill = run.tags.get("dagster/backfill")
    return f"of backfill {backfill}" if backfill else f"of run {run.run_id}"


def _is_of_assets(run: DagsterRun) -> bool:
    """Returns whether somebody chose assets: the job is one of Dagster's own then."""
    return run.job_name.startswith("__")


def _why(run: DagsterRun, instance: dg.DagsterInstance) -> str:
    """Returns what the first step that failed says, or else the run."""
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = entry.get_dagster_event()
        return f"{event.step_key}: {why_blocked(run.run_id, instance) or _said(event)}"
    ends = {DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED}
    ended = [entry.get_dagster_event() for entry in instance.all_logs(run.run_id, of_type=ends)]
    return next(filter(None, map(_ending, ended)), "")


def why_blocked(run_id: str, instance: dg.DagsterInstance) -> str | None:
    """Returns what those checks say that stopped a run, and of which trips; None where no check did.

    Dagster's own error has their names, but not what they have found.
    """
    evaluated = instance.all_logs(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [entry.get_dagster_event().asset_check_evaluation_data for entry in evaluated]
    failed = [one for one in found if one.blocking and not one.passed and one.severity is dg.AssetCheckSeverity.ERROR]
    if not failed:
        return None
    origin = _origin(failed[0].partition, instance)
    said = "; ".join(one.description or one.check_name for one in failed)
    return said if origin is None else f"{origin}: {said}"


def _origin(partition: str | None, instance: dg.DagsterInstance) -> str | None:
    """Returns the month, and where its trips were read; None where that is not known."""
    if partition is None:
        return None
    published = dg.AssetRecordsFilter(asset_key=dg.AssetKey("raw_new_data"), asset_partitions=[partition])
    for record in instance.fetch_materializations(published, limit=1).records:
        if record.asset_materialization is not None and "source" in record.asset_materialization.metadata:
            return f"{partition[:7]}, {record.asset_materialization.metadata['source'].value}"
    return None


def _ending(event: dg.DagsterEvent) -> str:
    """Returns what the end of a run says: the error that it failed with before its first step, or Dagster's words."""
    has_error = event.event_type is DagsterEventType.RUN_FAILURE and event.event_specific_data is not None
    return (_innermost(event.job_failure_data.error) if has_error else None) or event.message or ""


def _said(event: dg.DagsterEvent) -> str:
    """Returns what a step's failure says: its own description, or the innermost words of its error."""
    failed = event.step_failure_data
    if failed.user_failure_data is not None and failed.user_failure_data.description:
        return failed.user_failure_data.description
    return _innermost(failed.error) or event.message or ""


def _innermost(error: SerializableErrorInfo | None) -> str | None:
    """Returns the innermost words of an error, without the name of its class; None where there is none."""
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return None
    name, _, words = str(error.message).strip().partition(": ")
    return words if words and name.rpartition(".")[2] == error.cls_name else str(error.message).strip()
