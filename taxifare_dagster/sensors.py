"""Sensors: they ask for the runs that are due, and for no run twice.

What is due, and how long to wait before another try, is said by `taxifare.approval.due`; what belongs here is only what
Dagster knows: which runs there were and how they ended.
"""

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import partial
from typing import Any

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import Notifier
from taxifare.approval.due import (
    Known,
    Why,
    covered,
    next_month,
    pause_before_try,
    standing_due_after,
    to_ask,
    to_learn_so_far,
    to_retrain,
    to_tell,
    undecided_before,
    waiting_start,
)
from taxifare.approval.message import Links
from taxifare.approval.records import Comparison
from taxifare.approval.tokens import about_request
from taxifare.errors import ToldError
from taxifare.monitoring.calendar import calendar_in, faults_of
from taxifare.monitoring.due import months_due
from taxifare.serving.batches import waiting
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import Settings
from taxifare.sources.base import CannotTellError, SourceError, TripSource, base_revision_of
from taxifare.sources.whole_months import taken, why_waiting
from taxifare.texts import counted
from taxifare.trips.editions import BASE
from taxifare.trips.months import Month
from taxifare_dagster import metadata
from taxifare_dagster.assets.production import production_model, unshown_promotions
from taxifare_dagster.assets.watch import OUTCOMES_ASSET
from taxifare_dagster.failures import failed_runs
from taxifare_dagster.io_managers import ParquetIOManager
from taxifare_dagster.jobs import (
    MONTHLY_TAG,
    approval_job,
    base_job,
    damage_of,
    days_so_far_job,
    inbox_job,
    monthly_job,
    notice_job,
    outcomes_job,
    renew_on_days_so_far,
    retrain_on_whole_month,
    score_inbox,
    send_approval_message,
    watch_job,
    whole_month_job,
)
from taxifare_dagster.lake import whole_edition
from taxifare_dagster.order import covered_months, revisions_before
from taxifare_dagster.partitions import month_of_partition, months_of, partition_key

RUNNING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

_LATEST_RUNS = 200
"""Of a job, to know how its last run of each month ended."""


def _sensor(**options: Any) -> Callable[[Callable[..., Any]], dg.SensorDefinition]:
    """Returns Dagster's decorator of sensors that start running, and whose page shows the docstring."""

    def described(function: Callable[..., Any]) -> dg.SensorDefinition:
        running = dg.DefaultSensorStatus.RUNNING
        return dg.sensor(default_status=running, description=inspect.getdoc(function), **options)(function)

    return described


@_sensor(
    jobs=[base_job, monthly_job, whole_month_job],
    minimum_interval_seconds=15,
)
def new_month_sensor(
    context: dg.SensorEvaluationContext,
    source: dg.ResourceParam[TripSource],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.RunRequest | dg.SkipReason:
    """Runs the oldest month that is new, restated or to be compared again; the base model comes first.

    A model that was approved is first retrained on its whole month, so that it can compete in the next one.

    Oldest month first, as many at once as `dagster.yaml` lets run at the same time: one, unless it says more. Later
    months wait while a month has failed, while it cannot be told whether an earlier one is published, or while an
    earlier one is incomplete and nobody has accepted it as it is. With a policy that decides, each month also waits for
    the decision on the one before; with nothing in production, for the answer to the first question.
    """
    busy, known = runs_at_work(context.instance), Known.of(approvals)
    # Until something is in production, a month is a start: one is prepared, not several.
    room = _months_at_once(context.instance) if known.production is not None else 1
    if len(busy) >= room:
        return dg.SkipReason(f"run {busy[0].run_id} is at work; {_in_words(room)} run at a time")
    approved = to_retrain(known, settings.challengers)
    key = None if approved is None else f"whole month:v{approved.staging_version}"
    is_due = key is not None and not _requested(context.instance, key)
    at_work = {month_of_partition(day) for run in busy if (day := run.tags.get("dagster/partition")) is not None}
    if busy and (is_due or len(at_work) < len(busy)):
        return dg.SkipReason(f"run {busy[0].run_id} is at work; what comes next waits for its end")
    if approved is not None and is_due:
        config = _config(retrain_on_whole_month, month=approved.subject, version=approved.staging_version)
        return dg.RunRequest(key, dict(config), job_name=whole_month_job.name)
    try:
        return _next_start(context.instance, known, source, settings, at_work)
    except SourceError as error:
        return dg.SkipReason(f"the source of trips cannot tell: {error}")


def _next_start(
    instance: dg.DagsterInstance, known: Known, source: TripSource, settings: Settings, at_work: AbstractSet[Month]
) -> dg.RunRequest | dg.SkipReason:
    """Returns the request for the base model, or the oldest month that is due, or why there is none.

    Raises:
        SourceError: Which is due is not known, because the source cannot tell what is published.
    """
    if known.is_blank and (revision := base_revision_of(source)) is not None:
        return _request(instance, f"{BASE}:{revision}", base_job.name, None, "the base model is new")
    return next_month_run(instance, known, source, settings, at_work)


def next_month_run(
    instance: dg.DagsterInstance, known: Known, source: TripSource, settings: Settings, at_work: AbstractSet[Month]
) -> dg.RunRequest | dg.SkipReason:
    """Returns the request for the oldest month that is due, or why there is none.

    Args:
        instance: Knows what was requested before.
        known: What is on record.
        source: Says what is published.
        settings: In force.
        at_work: The months that are being run.

    Raises:
        SourceError: Which is due is not known, because the source cannot tell what is published.
    """
    doubt = None
    try:
        published = covered_months(source, settings)
    except CannotTellError as error:
        published, doubt = covered(error.before, settings, datetime.now(UTC)), error
    due = next_month({month: revision for month, revision in published.items() if month not in at_work}, known)
    if due is None and doubt is not None:
        raise doubt
    if due is None and (start := waiting_start(known)) is not None:
        return dg.SkipReason(f"the start with {start.subject} waits for its answer; no other is prepared meanwhile")
    if due is None:
        are = f"{counted(len(published), 'months')} {'is' if len(published) == 1 else 'are'} published"
        return dg.SkipReason(f"{are} and none is new, restated or to be compared anew")
    reason = f"{due.month} is due: {due.why}"
    before = undecided_before(due.month, revisions_before(due.month, published, source, known), known, settings)
    if before is not None:
        return dg.SkipReason(f"{reason}, once the policy has decided on {before.subject}")
    revision = published[due.month]
    is_used = due.why == Why.PRODUCTION_CHANGED
    if (
        not is_used
        and (why := why_waiting(source, due.month, revision, source.rides(), settings, settings.lake)) is not None
    ):
        return dg.SkipReason(f"{reason}, but {why}; later months wait")
    key = due.run_key if taken(due.month, revision, settings.lake) is None else f"{due.run_key}:taken"
    return _request(instance, key, monthly_job.name, partition_key(due.month), reason)


@_sensor(jobs=[approval_job, notice_job], minimum_interval_seconds=10)
def approval_sensor(
    context: dg.SensorEvaluationContext,
    approvals: dg.ResourceParam[Approvals],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Sends the question about each comparison that nobody has been told of, however its month was run.

    It also asks for a standing approval where one is due, and sends messages that need no answer: a change of
    production with the link back, an expired question, a failed run. A message that could not be delivered is tried
    again, after pauses that double up to an hour.
    """
    known, channels = Known.of(approvals), _channels(notifiers)
    untold, notices = to_ask(known, channels, settings), to_tell(known, channels, failed_runs(context.instance))
    if (month := standing_due_after(known, settings)) is not None:
        notices.append(f"standing approval after {month}")
    tries = [_next_question(context.instance, known, comparison) for comparison in untold]
    if notices:
        tries.append(_next_try(context.instance, "; ".join(notices), notice_job.name, {}))
    run_requests = [request for request in tries if request is not None]
    if run_requests:
        return dg.SensorResult(run_requests=run_requests)
    return dg.SkipReason(_waiting(len(tries), "message") if tries else "everybody has been told")


@_sensor(minimum_interval_seconds=10)
def production_sensor(
    context: dg.SensorEvaluationContext,
    approvals: dg.ResourceParam[Approvals],
    publisher: dg.ResourceParam[LakePublisher],
) -> dg.SensorResult | dg.SkipReason:
    """Shows promotions and rollbacks made outside Dagster on `production_model`, and what is being served."""
    new = unshown_promotions(context.instance, approvals, publisher)
    return dg.SensorResult(asset_events=new) if new else dg.SkipReason("production_model is up to date")


@_sensor(job=notice_job, minimum_interval_seconds=600)
def damage_sensor(
    context: dg.SensorEvaluationContext,
    approvals: dg.ResourceParam[Approvals],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    links: dg.ResourceParam[Links],
) -> dg.RunRequest | dg.SkipReason:
    """Sends a message when the files of the production version are not those that were registered.

    It reads all of them, every ten minutes.
    """
    damaged = damage_of(approvals, links)
    told = to_tell(Known.of(approvals), _channels(notifiers), damaged)
    untold = [about for about in told if about in damaged]
    if not damaged:
        return dg.SkipReason("the files of production are those that were registered")
    requested = _next_try(context.instance, untold[0], notice_job.name, {}) if untold else None
    return requested or dg.SkipReason("the message has been sent, or is being sent")


@_sensor(job=notice_job, minimum_interval_seconds=600)
def calendar_sensor(
    context: dg.SensorEvaluationContext,
    approvals: dg.ResourceParam[Approvals],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    links: dg.ResourceParam[Links],
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Sends a message about a dated fare rule that production has not learned, before rides are paid under it.

    Every tick compares the calendar with what is in production; a change is shown as a check of `production_model`.
    """
    try:
        with approvals.ledger.reading() as entries:
            found = calendar_in(entries, settings, approvals.now())
    except (ToldError, OSError) as error:
        return dg.SkipReason(f"the calendar cannot be held against what is in force: {error}")
    unit = settings.target_facts.unit
    faults = faults_of(found, unit, links.production())
    untold = [about for about in to_tell(Known.of(approvals), _channels(notifiers), faults) if about in faults]
    tries = [_next_try(context.instance, about, notice_job.name, {}) for about in untold]
    says = found.told(unit)
    is_new = found.version is not None and found.state != context.cursor
    unlearned = dg.AssetCheckEvaluation(
        asset_key=production_model.key,
        check_name="knows_the_rules",
        passed=not found.concerns,
        severity=dg.AssetCheckSeverity.WARN,
        description=says,
        metadata=dict(metadata.calendar(found, unit)),
    )
    requests = [request for request in tries if request is not None][:1]
    return dg.SensorResult(
        run_requests=requests,
        asset_events=[unlearned] if is_new else [],
        cursor=found.state,
        skip_reason=None if requests else dg.SkipReason(says),
    )


@_sensor(jobs=[watch_job, days_so_far_job], minimum_interval_seconds=60)
def watch_sensor(
    context: dg.SensorEvaluationContext, approvals: dg.ResourceParam[Approvals]
) -> dg.RunRequest | dg.SkipReason:
    """Runs the watch whenever new outcomes are known, and retrains on the days so far once a person has agreed.

    Retraining waits for its turn like a month, and is tried again each day until there are enough days. A run that
    failed is tried again, after pauses that double up to an hour.
    """
    known, latest = Known.of(approvals), _latest_outcomes(context.instance)
    if known.production is None or latest is None:
        return dg.SkipReason("no outcomes are known yet of rides priced by the model in production")
    alarm = to_learn_so_far(known)
    if alarm is not None and (busy := runs_at_work(context.instance)):
        return dg.SkipReason(f"run {busy[0].run_id} is at work; {alarm.month} so far is learned after it")
    if alarm is not None and not _is_done(context.instance, key := f"{alarm.id}:{latest}"):
        config = _config(renew_on_days_so_far, alarm=alarm.id)
        if (renewal := _next_try(context.instance, key, days_so_far_job.name, config)) is not None:
            return renewal
    promotion = None if known.promotion is None else known.promotion.sequence
    key = f"watch:{promotion}:{latest}"
    if _is_done(context.instance, key):
        return dg.SkipReason("no new outcomes since the watch ran last")
    watch = _next_try(context.instance, key, watch_job.name, {})
    return watch or dg.SkipReason("the watch is running, or waits for another try")


def _latest_outcomes(instance: dg.DagsterInstance) -> int | None:
    """Returns which materialization of what rides came to is the latest, None before the first."""
    records = instance.fetch_materializations(dg.AssetKey(OUTCOMES_ASSET), limit=1).records
    return records[0].storage_id if records else None


@_sensor(job=inbox_job, minimum_interval_seconds=30)
def inbox_sensor(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    """Prices each file of rides that appears in SCORING_INBOX, once it has stopped growing.

    A run that was killed, or could not reach the lake, is tried again, after pauses that double up to an hour.
    """
    if settings.inbox is None:
        return dg.SkipReason("SCORING_INBOX is not set")
    try:
        seen, found = json.loads(context.cursor or "{}"), waiting(settings.inbox)
    except (FileNotFoundError, NotADirectoryError):
        return dg.SkipReason(f"SCORING_INBOX: expected a folder, received {settings.scoring_inbox}, which is not there")
    grown = [name for name, edition in found.items() if seen.get(name) == edition]
    tries = [
        _next_try(context.instance, f"{name}:{found[name]}", inbox_job.name, _config(score_inbox, file=name))
        for name in grown
    ]
    requests = [request for request in tries if request is not None]
    reason = None if requests else dg.SkipReason(_waiting(len(found), "file"))
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(found), skip_reason=reason)


def _waiting(number: int, what: str) -> str:
    """Returns that some of the tries are at work, or came too short ago.

    >>> _waiting(2, "message")
    '2 messages: being worked on, or waiting for another try'
    """
    return f"{number} {what}{'' if number == 1 else 's'}: being worked on, or waiting for another try"


def _channels(notifiers: Sequence[Notifier]) -> list[str]:
    """Returns where messages have to arrive."""
    return [notifier.channel for notifier in notifiers]


@_sensor(job=outcomes_job, minimum_interval_seconds=120)
def outcomes_sensor(
    context: dg.SensorEvaluationContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    """Joins a month's quotes with what the rides came to, whenever something new is known of either.

    New quotes, new outcomes, a month that was published or restated: what is missing is derived from the lake. A run
    that failed is tried again, after pauses that double up to an hour.
    """
    places = {
        month_of_partition(key): (parquet_io.place("served_predictions", key), parquet_io.place("served_outcomes", key))
        for key in months_of(settings).get_partition_keys()
    }
    due = {
        partition_key(month): f"outcomes:{month}:{what}"
        for month, what in months_due(partial(whole_edition, lake=settings.lake), places, settings).items()
    }
    failed = _failed_last(context.instance, outcomes_job.name)
    due |= {
        partition: failed[partition] for partition in map(partition_key, places) if partition in failed.keys() - due
    }
    tries = [_next_try(context.instance, key, outcomes_job.name, {}, partition) for partition, key in due.items()]
    requests = [request for request in tries if request is not None]
    if requests:
        return dg.SensorResult(run_requests=requests)
    return dg.SkipReason(_waiting(len(due), "month") if due else "no new quotes or outcomes")


def _failed_last(instance: dg.DagsterInstance, job_name: str) -> Mapping[str, str]:
    """Returns the partitions of which a job's last run failed or was stopped, and what the sensor had asked it for."""
    last: dict[str, dg.DagsterRun] = {}
    for run in instance.get_runs(dg.RunsFilter(job_name=job_name), limit=_LATEST_RUNS):
        last.setdefault(run.tags.get("dagster/partition", ""), run)
    return {
        partition: run.tags["taxifare/asks"]
        for partition, run in sorted(last.items())
        if run.status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED} and "taxifare/asks" in run.tags
    }


def _config(op: dg.OpDefinition, **config: object) -> Mapping[str, object]:
    """Returns the config of a run with one op."""
    return {"ops": {op.name: {"config": config}}}


def runs_at_work(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Returns the unfinished runs that train a model."""
    trained = {dg.AssetKey("staging_model"), dg.AssetKey("base_model")}
    jobs = {job.name for job in (base_job, monthly_job, whole_month_job, days_so_far_job)}
    unfinished = instance.get_runs(dg.RunsFilter(statuses=RUNNING))
    return [run for run in unfinished if run.job_name in jobs or trained & set(run.asset_selection or ())]


def _months_at_once(instance: dg.DagsterInstance) -> int:
    """Returns how many monthly runs the instance's queue lets run beside each other; one where it does not say."""
    queue = instance.get_concurrency_config().run_queue_config
    limits = [] if queue is None else queue.tag_concurrency_limits or []
    ours = [limit["limit"] for limit in limits if {limit["key"]: limit.get("value")} == MONTHLY_TAG]
    return min(ours, default=1)


def _in_words(months: int) -> str:
    return "one month is" if months == 1 else f"{months} months are"


def _request(
    instance: dg.DagsterInstance, run_key: str, job_name: str, partition: str | None, reason: str
) -> dg.RunRequest | dg.SkipReason:
    """Returns the run request, or why there is none: the same run was requested before and did not finish its work."""
    if earlier := _requested(instance, run_key):
        return dg.SkipReason(
            f"{reason}, but run {earlier[0].run_id} for it ended {earlier[0].status.value}; "
            "re-execute it from its page, later months wait"
        )
    return dg.RunRequest(run_key=run_key, job_name=job_name, partition_key=partition, tags={"taxifare/because": reason})


def _next_question(instance: dg.DagsterInstance, known: Known, comparison: Comparison) -> dg.RunRequest | None:
    """Returns the request for the run that asks about the comparison, None while one is at work or too short ago."""
    config = _config(send_approval_message, subject=comparison.subject)
    key = f"{comparison.subject}:v{comparison.staging_version}:{comparison.evidence_digest[:12]}"
    asked = known.round_on(comparison)
    if asked is not None and asked.id in known.ends:
        key += f":after {asked.id}"
    elif asked is not None and (number := known.live_from.get(about_request(asked.id), 0)):
        key += f":{asked.id}, message {number}"
    return _next_try(instance, key, approval_job.name, config)


def _next_try(
    instance: dg.DagsterInstance, key: str, job_name: str, config: Mapping[str, object], partition: str | None = None
) -> dg.RunRequest | None:
    """Returns the request for a run that is tried until it succeeds, None while one is at work or too short ago."""
    earlier = instance.get_run_records(dg.RunsFilter(tags={"taxifare/asks": key}), limit=100)
    if any(record.dagster_run.status in RUNNING for record in earlier):
        return None
    if earlier and time.time() - (earlier[0].end_time or 0.0) < pause_before_try(len(earlier)):
        return None
    return dg.RunRequest(
        run_key=f"{key}:{len(earlier)}",
        job_name=job_name,
        run_config=dict(config),
        partition_key=partition,
        tags={"taxifare/asks": key},
    )


def _is_done(instance: dg.DagsterInstance, key: str) -> bool:
    """Returns whether one of the tries at it has succeeded."""
    succeeded = dg.RunsFilter(tags={"taxifare/asks": key}, statuses=[dg.DagsterRunStatus.SUCCESS])
    return bool(instance.get_runs(succeeded, limit=1))


def _requested(instance: dg.DagsterInstance, run_key: str) -> Sequence[dg.DagsterRun]:
    """Returns the run that was requested under the key, if any."""
    return instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}), limit=1)
