"""Jobs: what is launched by hand, by sensors, by schedules and by the links of messages.

Jobs of assets name the assets. The ops of the others take a person's words from their config, call the domain, and log
what came of it. Their names and the fields of their config are in messages that were sent: they stay.
"""

from collections.abc import Mapping, Sequence

import dagster as dg
from pydantic import Field

from taxifare.approval.approvals import Approvals
from taxifare.approval.asking import ask
from taxifare.approval.channels import DeliveryError, Notifier
from taxifare.approval.delivery import send_notice, send_reminders
from taxifare.approval.due import Known, standing_due_after, to_learn_so_far, to_tell
from taxifare.approval.faults import FaultNotice, damage
from taxifare.approval.message import Links
from taxifare.approval.records import Decision
from taxifare.approval.texts import one_line
from taxifare.approval.versions import registry_of
from taxifare.gate.evidence import Evidence
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.calendar import calendar_if_told, faults_of, rules_not_learned
from taxifare.monitoring.so_far import TooFewSoFarError
from taxifare.operations.month_pages import renew_pages
from taxifare.reports import figures
from taxifare.serving import prediction_log
from taxifare.serving.batches import waiting
from taxifare.serving.collecting import collect_logs
from taxifare.serving.inbox import price_files
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.studies.tuning import tune
from taxifare.texts import named_version
from taxifare.trips.editions import BASE
from taxifare.trips.months import parse_month
from taxifare_dagster import metadata
from taxifare_dagster.assets.production import unshown_promotions
from taxifare_dagster.assets.serving import collected_predictions, scored_files, scored_trips
from taxifare_dagster.assets.watch import input_drift, production_watch, renewed_so_far
from taxifare_dagster.catalog import MONTHLY_ASSETS, OUTCOME_ASSETS, PRODUCTION_POOL, REPLAY_GROUP
from taxifare_dagster.failures import failed_runs, failure_of
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.lake import realised
from taxifare_dagster.stored import base_trips, clean_trips, whole_month

MONTHLY_TAG = {"taxifare/pipeline": "monthly"}
STUDY_TAG = {"taxifare/pipeline": "study"}
"""Runs with the same of these tags are run one at a time (`dagster.yaml`); a study takes minutes to hours."""

_SUBJECT_TAG = "taxifare/subject"
"""Tells, in the UI's list of runs, which month a run without a partition is about, or `base`."""

base_job = dg.define_asset_job(
    "base_job",
    selection=dg.AssetSelection.assets("base_trips", "base_model"),
    tags=MONTHLY_TAG,
    description="Train the first model from the years before the first month.",
)

monthly_job = dg.define_asset_job(
    "monthly_job",
    selection=dg.AssetSelection.assets(*MONTHLY_ASSETS),
    tags=MONTHLY_TAG,
    description="One month: fetch, check, clean, score production, train staging, compare.",
)


replay_job = dg.define_asset_job(
    "replay_job",
    selection=dg.AssetSelection.groups(REPLAY_GROUP),
    tags=STUDY_TAG,
    description="Replay months under several policies and write the report. Stopped, it resumes when launched again.",
)


scoring_job = dg.define_asset_job(
    "scoring_job",
    selection=dg.AssetSelection.assets(scored_trips.__name__),
    description="Price every ride of a month with the model in production.",
)


outcomes_job = dg.define_asset_job(
    "outcomes_job",
    selection=dg.AssetSelection.assets(*OUTCOME_ASSETS, input_drift.__name__),
    description="Join a month's quotes with what the rides came to; measure their error, and the drift of rides.",
)


class Subject(dg.Config):
    """What to ask about."""

    subject: str = Field(description="Month YYYY-MM, or base")


@dg.op
def send_approval_message(
    context: dg.OpExecutionContext,
    config: Subject,
    approvals: dg.ResourceParam[Approvals],
    publisher: dg.ResourceParam[LakePublisher],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    links: dg.ResourceParam[Links],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Writes the request to the ledger, then sends the message. Run again after a failure it asks nothing twice.

    Where a policy decides, the message tells what it does, and it does so although a channel is down.
    """
    subject = one_line(config.subject)
    _tag(context, subject)
    comparison = approvals.record.comparisons().get(subject)
    if comparison is None:
        raise dg.Failure(f"{subject} has not been compared yet: materialize its assets first", allow_retries=False)
    page = _comparison_page(comparison.evidence, settings)
    rules = rules_not_learned(comparison.evidence, settings)
    asked = ask(approvals, comparison, notifiers, links, settings, comparison_page=page, rules=rules)
    context.log.info("%s: sent just now to %s", asked.request.id, ", ".join(asked.sent) or "nobody")
    if asked.decided is not None:
        context.log.info("%s: %s by %s", asked.request.id, asked.decided.state, asked.decided.by)
        _show_promotions(context, approvals, publisher)
    renew_pages(approvals.ledger, settings, realised)
    if asked.faults:
        raise dg.Failure("; ".join(map(str, asked.faults)))


def _comparison_page(evidence: Evidence, settings: Settings) -> str | None:
    """Returns where MLflow shows the two runs side by side, None without a server or a second run."""
    if evidence.production is None:
        return None
    return registry_of(settings).runs.comparison_url([evidence.production.run_id, evidence.staging.run_id])


@dg.job(description="Ask a person about a comparison: the request goes to the ledger, the message to the chat.")
def approval_job() -> None:
    """Asks a person about one comparison."""
    send_approval_message()


@dg.op
def keep_requests(
    context: dg.OpExecutionContext,
    approvals: dg.ResourceParam[Approvals],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    links: dg.ResourceParam[Links],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Closes questions that nobody answered in time, and reminds of those that have waited long."""
    for request in approvals.expire():
        context.log.warning("%s expired: nobody decided until %s", request.id, request.valid_until)
    renew_pages(approvals.ledger, settings, realised)
    for request_id in send_reminders(approvals, notifiers, links, settings):
        context.log.info("reminded of %s", request_id)


@dg.job(description="Expire unanswered requests and send reminders.")
def reminder_job() -> None:
    """Expires and reminds."""
    keep_requests()


class AnswerConfig(dg.Config):
    """A person's answer to a request. The message fills in all but who and why."""

    request: str = Field(description="The request's id, as in the message")
    token: str = Field(description="The token in the message; it proves that this answers that message")
    decision: Decision = Field(description="approve or reject")
    decided_by: str = Field(description="Who decides")
    reason: str = Field(description="Why")
    override: bool = Field(default=False, description="true: approve although the verdict is not PROMOTE or COLD_START")


@dg.op
def decide(
    context: dg.OpExecutionContext,
    config: AnswerConfig,
    approvals: dg.ResourceParam[Approvals],
    publisher: dg.ResourceParam[LakePublisher],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Records the decision; when it approves, exactly the version that was shown becomes production."""
    with approvals.ledger.reading() as entries:
        asked = entries.request(one_line(config.request))
    if asked is not None:
        _tag(context, asked.subject)
    outcome = approvals.decide(
        config.request, config.decision, config.decided_by, config.reason, config.token, override=config.override
    )
    context.log.info("%s: %s by %s", outcome.request_id, outcome.state, outcome.by)
    _show_promotions(context, approvals, publisher)
    renew_pages(approvals.ledger, settings, realised)


@dg.job(description="Approve or reject a request. Open this from the link in the message.")
def decision_job() -> None:
    """Records a person's decision and acts on it."""
    decide()


class Return(dg.Config):
    """Which version to go back to. The message that told of the promotion fills in all but who and why."""

    token: str = Field(description="The token in the message; it proves that somebody has read it")
    to: str | None = Field(default=None, description="Version to go back to; empty: the one that was replaced last")
    decided_by: str = Field(description="Who decides")
    reason: str = Field(description="Why")


@dg.op
def roll_back(
    context: dg.OpExecutionContext,
    config: Return,
    approvals: dg.ResourceParam[Approvals],
    publisher: dg.ResourceParam[LakePublisher],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Makes an earlier production version production again, on the record."""
    promotion = approvals.rollback(config.to, by=config.decided_by, reason=config.reason, token=config.token)
    was, now = named_version(promotion.replaced_version), named_version(promotion.version)
    context.log.info("%s is in production, instead of %s", now, was)
    _show_promotions(context, approvals, publisher)
    renew_pages(approvals.ledger, settings, realised)


@dg.job(description="Go back to an earlier production version. Open this from the link in the message.")
def rollback_job() -> None:
    """Goes back to an earlier production version."""
    roll_back()


class Repetition(dg.Config):
    """What to ask again. The message that told of the expiry fills it in."""

    request: str = Field(description="The id of the request that nobody answered, as in the message")
    token: str = Field(description="The token in the message; it proves that somebody has read it")


@dg.op
def ask_again(context: dg.OpExecutionContext, config: Repetition, approvals: dg.ResourceParam[Approvals]) -> None:
    """Asks again what nobody answered in time; its message follows."""
    again = approvals.ask_again(config.request, config.token)
    context.log.info("%s waits for an answer until %s", again.id, again.valid_until)


@dg.job(description="Ask again about a request that nobody answered in time. Open this from the link in the message.")
def ask_again_job() -> None:
    """Asks again what nobody answered in time."""
    ask_again()


@dg.op
def send_notices(
    context: dg.OpExecutionContext,
    approvals: dg.ResourceParam[Approvals],
    notifiers: dg.ResourceParam[Sequence[Notifier]],
    links: dg.ResourceParam[Links],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Tells people of changes of production, with the link back, of expired questions, and of faults.

    A standing approval is asked for here as well, where it is due: its message is about no month.
    """
    known = Known.of(approvals)
    if standing_due_after(known, settings) is not None:
        context.log.info("a standing approval is asked for: %s", approvals.ask_standing(settings).id)
        known = Known.of(approvals)
    failed, damaged = failed_runs(context.instance), damage_of(approvals, links)
    with approvals.ledger.reading() as entries:
        calendar = calendar_if_told(entries, settings, approvals.now())
    found = {**damaged, **faults_of(calendar, settings.target_facts.unit, links.production())}
    undelivered = []
    for about in to_tell(known, [notifier.channel for notifier in notifiers], [*failed, *found]):
        fault = failure_of(failed[about], context.instance, links) if about in failed else found.get(about)
        for notifier in notifiers:
            try:
                if send_notice(approvals, notifier, about, links, settings, fault=fault):
                    context.log.info("told %s of %s", notifier.channel, about)
            except DeliveryError as error:
                undelivered.append(str(error))
    if undelivered:
        raise dg.Failure("; ".join(undelivered))


def damage_of(approvals: Approvals, links: Links) -> Mapping[str, FaultNotice]:
    """Returns what is wrong with production, by what notices call it; nothing where it is what was registered."""
    found = approvals.damage()
    if found is None:
        return {}
    fault = damage(*found, links.production())
    return {fault.about: fault}


@dg.job(description="Send messages about changes of production, expired questions and faults.")
def notice_job() -> None:
    """Tells people of what needs no answer."""
    send_notices()


class ApprovedMonth(dg.Config):
    """Which month."""

    month: str = Field(description="Month YYYY-MM whose staging model was approved")
    version: str = Field(description="The approved version")


@dg.op(pool=PRODUCTION_POOL)
def retrain_on_whole_month(
    context: dg.OpExecutionContext,
    config: ApprovedMonth,
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
    parquet_io: dg.ResourceParam[ParquetIOManager],
) -> None:
    """Trains the approved version on with its whole month; the result competes next month, nothing is promoted.

    Whoever launches it may name anything: what was never approved for the month would compete as its successor.
    """
    if not approvals.record.was_approved(config.month, config.version):
        raise dg.Failure(
            f"nothing is retrained: version {one_line(config.version)} was not approved for {one_line(config.month)}",
            allow_retries=False,
        )
    approved = whole_month(parse_month(config.month), config.version, parquet_io, context.run)
    version = approved.retrain(registry, settings)
    _tag(context, config.month)
    context.log.info(
        "version %s is version %s trained on with the whole of %s; the next month judges it",
        version,
        config.version,
        config.month,
    )


@dg.job(
    tags=MONTHLY_TAG,
    description="Continue training the approved model on the whole month; the next month judges the result.",
)
def whole_month_job() -> None:
    """Retrains an approved model on its whole month."""
    retrain_on_whole_month()


watch_job = dg.define_asset_job(
    "watch_job",
    selection=dg.AssetSelection.assets(production_watch.__name__),
    description="Look for a growing error of production in the outcomes of rides; ask a person if there is one.",
)


class Agreed(dg.Config):
    """Which alarm."""

    alarm: str = Field(description="The id of an alarm that somebody has agreed to, as in its message")


@dg.op(pool=PRODUCTION_POOL)
def renew_on_days_so_far(
    context: dg.OpExecutionContext,
    config: Agreed,
    source: dg.ResourceParam[TripSource],
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    base_trips_io: dg.ResourceParam[BaseTripsIOManager],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Trains a candidate on the open month's outcomes and compares it with production; a person is asked about it then.

    Days that are too few are no failure: more of them come, and the sensor asks again.
    """
    alarm = to_learn_so_far(Known.of(approvals))
    if alarm is None or alarm.id != one_line(config.alarm):
        raise dg.Failure(
            f"nothing is retrained: nobody has agreed to {one_line(config.alarm)}, or production has changed since, or "
            "its month has been compared",
            allow_retries=False,
        )
    month = parse_month(alarm.month)
    try:
        found = renewed_so_far(context, month, source, registry, approvals, parquet_io, base_trips_io, settings)
    except TooFewSoFarError as error:
        context.log.warning("%s; tried again when more is known", error)
        return
    context.log.info("%s so far: version %s, %s", month, found.staging_version, found.evidence.verdict)


@dg.job(
    tags=MONTHLY_TAG, description="Retrain on the days of the open month so far, once a person has agreed to an alarm."
)
def days_so_far_job() -> None:
    """Retrains on the days so far."""
    renew_on_days_so_far()


class Budget(dg.Config):
    """What to search on, and for how long: until the first of the two bounds that are given."""

    subject: str = Field(default=BASE, description="Month YYYY-MM, or base")
    trials: int | None = Field(default=30, description="Trials of the whole search, earlier runs of it included", ge=1)
    minutes: float | None = Field(default=None, description="Minutes of this run", gt=0)


@dg.op
def search_settings(
    context: dg.OpExecutionContext,
    config: Budget,
    registry: dg.ResourceParam[ModelRegistry],
    settings: dg.ResourceParam[Settings],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    base_trips_io: dg.ResourceParam[BaseTripsIOManager],
) -> None:
    """Searches for better hyperparameters; a person may then adopt them with `taxifare tuned --write`."""
    if config.subject == BASE:
        trips = base_trips(base_trips_io).preprocessed(settings.city_facts)
    else:
        trips = clean_trips(parse_month(config.subject), parquet_io)
    search = tune(trips, registry, settings, trials=config.trials, minutes=config.minutes, on_trial=context.log.info)
    result, picture = search.result, figures.tuning(search.trials, search.importances, search.result.unit)
    context.log.info("the winner's settings, to be adopted by a person:\n%s", "\n".join(result.env_lines))
    registry.runs.log_figure(result.run_id, "tuning", picture)
    context.add_output_metadata({**metadata.tuning(result), "search": metadata.plot(picture)})


@dg.job(
    tags=STUDY_TAG,
    description="Search for better hyperparameters, for a person to adopt. Stopped, it resumes when launched again.",
)
def tuning_job() -> None:
    """Searches better hyperparameters."""
    search_settings()


class RideFile(dg.Config):
    """Which file of SCORING_INBOX."""

    file: str | None = Field(default=None, description="The file's name; empty: all files that wait")


@dg.op
def score_inbox(context: dg.OpExecutionContext, config: RideFile, settings: dg.ResourceParam[Settings]) -> None:
    """Prices files of rides: the answers and a receipt lie beside each. One that was priced is left as it is."""
    inbox = settings.inbox
    if inbox is None:
        raise dg.Failure("SCORING_INBOX is not set: there is nothing to price", allow_retries=False)
    names = [name for name in waiting(inbox) if config.file in {None, name}]
    faults = []
    for name, receipt in price_files(inbox, names, settings):
        if isinstance(receipt, OSError):
            faults.append(f"{name} cannot be priced: {receipt}")
            continue
        context.log_event(dg.AssetMaterialization(scored_files.key, metadata=metadata.receipt(name, receipt)))
        if receipt.fault is not None:
            faults.append(f"{name}: {receipt.fault}")
    context.log.info("%d files priced", len(names) - len(faults))
    if faults:
        raise dg.Failure("; ".join(faults), allow_retries=False)


@dg.job(description="Price the files of rides waiting in SCORING_INBOX; prices and a receipt appear beside each file.")
def inbox_job() -> None:
    """Prices the files that wait."""
    score_inbox()


@dg.op
def collect_predictions(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Moves the finished parts of this machine's prediction log, and of what rides came to, into the lake, once."""
    found, outcomes = collect_logs(settings)
    shown = {"answers": found.lines, "segments": found.segments, "torn_lines": found.torn}
    shown |= {"outcomes": outcomes.lines, "outcome_segments": outcomes.segments, "torn_outcomes": outcomes.torn}
    path = dg.MetadataValue.path(str(prediction_log.collected_in(settings.lake)))
    context.log_event(dg.AssetMaterialization(collected_predictions.key, metadata={**shown, "path": path}))


@dg.job(description="Move the finished parts of the prediction log into the lake, as `taxifare collect` does.")
def collect_job() -> None:
    """Collects the prediction log."""
    collect_predictions()


def _tag(context: dg.OpExecutionContext, subject: str) -> None:
    """Ensures that the list of runs shows what the run is about."""
    context.instance.add_run_tags(context.run_id, {_SUBJECT_TAG: subject})


def _show_promotions(context: dg.OpExecutionContext, approvals: Approvals, publisher: LakePublisher) -> None:
    """Shows what the ledger has new on the production_model asset."""
    for materialization in unshown_promotions(context.instance, approvals, publisher):
        context.log_event(materialization)
