"""Schedules: what happens because of the date alone. What happens because of data or decisions: `sensors`."""

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known
from taxifare.settings import Settings
from taxifare.sources.base import SourceError, TripSource, base_revision_of
from taxifare_dagster.jobs import base_job, collect_job, inbox_job, monthly_job, reminder_job
from taxifare_dagster.sensors import next_month_run, runs_at_work


@dg.schedule(
    job=monthly_job,
    cron_schedule="0 6 5 * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description=(
        "On the fifth of each month, if turned on: run the oldest month that is due. For whoever wants one run a "
        "month at a known hour; turn off new_month_sensor then, which looks every 15 seconds."
    ),
)
def monthly_schedule(
    context: dg.ScheduleEvaluationContext,
    source: dg.ResourceParam[TripSource],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.RunRequest | dg.SkipReason:
    """Requests the oldest month that is due, as `new_month_sensor` does, and never the same run as the sensor."""
    if busy := runs_at_work(context.instance):
        return dg.SkipReason(f"run {busy[0].run_id} is at work; one month is run at a time")
    known = Known.of(approvals)
    try:
        if known.is_blank and base_revision_of(source) is not None:
            return dg.SkipReason(f"the base model comes before the first month: launch {base_job.name}")
        return next_month_run(context.instance, known, source, settings, at_work=frozenset())
    except SourceError as error:
        return dg.SkipReason(f"the source of trips cannot tell: {error}")


reminder_schedule = dg.ScheduleDefinition(
    name="reminder_schedule",
    job=reminder_job,
    cron_schedule="0 9 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning: expire requests that nobody answered in time, and send reminders of long-open ones.",
)

inbox_schedule = dg.ScheduleDefinition(
    name="inbox_schedule",
    job=inbox_job,
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every hour, if turned on: price the files in SCORING_INBOX. inbox_sensor does it sooner.",
)

collect_schedule = dg.ScheduleDefinition(
    name="collect_schedule",
    job=collect_job,
    cron_schedule="30 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every hour, if turned on: collect the prediction log of this machine's service into the lake.",
)
