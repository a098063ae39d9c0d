"""Schedules: what happens because of the date alone. What happens because of data or decisions: `sensors`."""

import dagster as dg

from taxifare_dagster.jobs import collect_job, inbox_job, reminder_job

reminder_schedule = dg.ScheduleDefinition(
    name="reminder_schedule",
    job=reminder_job,
    cron_schedule="0 9 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every morning: requests that nobody answered in time expire, those that waited long are sent again.",
)

inbox_schedule = dg.ScheduleDefinition(
    name="inbox_schedule",
    job=inbox_job,
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every hour, if turned on: files in SCORING_INBOX are priced; inbox_sensor does it sooner.",
)

collect_schedule = dg.ScheduleDefinition(
    name="collect_schedule",
    job=collect_job,
    cron_schedule="30 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every hour, if turned on: the prediction log of this machine's service is collected in the lake.",
)
