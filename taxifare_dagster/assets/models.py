"""Models: the first one, the score of the one in production, and the one that may replace it.

The functions are the assets: their docstrings are what the catalog shows, `build_assets` says how each is stored.
"""

import logging
from functools import partial

import dagster as dg
import pandas as pd

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known, last_learned, to_retrain
from taxifare.approval.track_records import record_before
from taxifare.gate.evidence import Appraisal
from taxifare.gate.scores import difficulty_of
from taxifare.model.fitting import Epoch
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.errors import MonitoringError
from taxifare.monitoring.realised import MonthErrors, errors_by_month, promoted_on
from taxifare.reports import figures
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.training.appraisal import appraise_production
from taxifare.training.base_model import train_base
from taxifare.training.base_trips import BaseTrips
from taxifare.training.candidacy import Candidacy, months_before
from taxifare.training.challengers import OnEpoch
from taxifare.training.staging import stage
from taxifare.training.whole_month import WholeMonth
from taxifare.trips.editions import Trips
from taxifare.trips.months import parse_month
from taxifare_dagster import metadata
from taxifare_dagster.assets.production import production_model
from taxifare_dagster.catalog import MODEL_KINDS, MODELS_GROUP, OWNERS, PRODUCTION_POOL
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.lake import realised
from taxifare_dagster.order import covered_months_before, known_in_turn
from taxifare_dagster.partitions import month_of_partition
from taxifare_dagster.provenance import run_tags
from taxifare_dagster.stored import past, whole_month

_log = logging.getLogger(__name__)


def base_model(
    context: dg.AssetExecutionContext,
    base_trips: BaseTrips,
    registry: dg.ResourceParam[ModelRegistry],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[Appraisal]:
    """The first model: trained from random weights on the years before the first month.

    The trips are streamed from their file, so memory does not grow with their number. Nothing is in production before
    it: its request asks to start, not to replace.
    """
    sample = base_trips.preprocessed(settings.city_facts)
    candidate = train_base(
        base_trips,
        registry,
        settings,
        run_tags=_run_tags(context, sample),
        on_epoch=_reporter(context, settings),
    )
    return dg.Output(candidate.appraisal, metadata=metadata.candidate(candidate, sample, registry, settings))


def production_eval_mae(
    context: dg.AssetExecutionContext,
    preprocessed_data: Trips,
    source: dg.ResourceParam[TripSource],
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[Appraisal]:
    """Mean absolute error of the production model on the month's validation trips, per ride.

    `all_months` shows every month: production, the candidate, what customers were actually told (`served_mae`),
    promotions and dated fare rules. It is drawn before the month's own candidate is trained; the check
    `production_is_not_stale` shows it with that one, and says whether production is still good. Compare the error with
    `difficulty_mae_usd` (or `_eur`, `_min`), the error of a flat per-km rate on the same trips: a hard month raises
    both, a stale model only the first. `all_numbers` lists what was measured; the single numbers below it are for
    plots, and left out where production has learned these rides (`learned_these_rides`). When nothing is in
    production, or the model cannot be scored, the value says so. `mlflow_page` opens while `make mlflow` runs.
    """
    known = known_in_turn(context, source, approvals, settings)
    appraisal = appraise_production(
        preprocessed_data,
        known.production,
        registry,
        settings,
        run_tags=_run_tags(context, preprocessed_data),
        replaced=known.replaced,
    )
    return dg.Output(
        appraisal,
        metadata={
            "all_months": all_months(appraisal, None, preprocessed_data, approvals, settings),
            **metadata.appraisal(appraisal, preprocessed_data, registry, settings),
            "production_version": known.production or "none",
            "revision": preprocessed_data.edition.revision,
        },
    )


def staging_model(
    context: dg.AssetExecutionContext,
    preprocessed_data: Trips,
    rehearsal_trips: pd.DataFrame,
    source: dg.ResourceParam[TripSource],
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    base_trips_io: dg.ResourceParam[BaseTripsIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[Appraisal]:
    """The candidate: the model that may replace production. It learns every month on top of what it knows.

    Its check `staging_beats_production` holds the comparison and the verdict. Each month several challengers start from
    the candidate and compete on training trips that none of them has learned from (`challengers`). The winner's lesson
    is kept only if it makes the candidate better on the validation trips. Before the candidate learns from a ride, it
    and production both price it: `track_record` shows what it would have saved since production came in.

    The error is that of the registered version, loaded back, on the validation trips that production was scored on.
    The same trips and the same production give the same version, in whatever order months are run. If nothing is in
    production yet, or its files are damaged, training starts from the base model; the verdict is then COLD_START or
    UNSCORABLE, and a person decides.
    """
    known = known_in_turn(context, source, approvals, settings)
    before = _candidacy(context, known, source, parquet_io, base_trips_io, settings)
    staged = stage(
        preprocessed_data,
        rehearsal_trips,
        before,
        _whole_month(context, known, settings, parquet_io),
        registry,
        settings,
        run_tags=_run_tags(context, preprocessed_data),
        on_epoch=_reporter(context, settings),
    )
    shown = {"production_version": "none" if before is None else before.record.production}
    if staged.production_fault is not None:
        context.log.warning("%s: training started without it", staged.production_fault)
        shown["production_fault"] = staged.production_fault
    return dg.Output(
        staged.candidate.appraisal,
        metadata={**metadata.candidate(staged.candidate, preprocessed_data, registry, settings), **shown},
    )


def build_assets(months: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets of this module, those of a month partitioned by the given months."""
    asset = partial(dg.asset, group_name=MODELS_GROUP, owners=OWNERS, kinds=MODEL_KINDS, io_manager_key="json_io")
    monthly = partial(asset, partitions_def=months, deps=[production_model])
    return [
        asset(pool=PRODUCTION_POOL)(base_model),
        monthly()(production_eval_mae),
        monthly(pool=PRODUCTION_POOL)(staging_model),
    ]


def _candidacy(
    context: dg.AssetExecutionContext,
    known: Known,
    source: TripSource,
    parquet_io: ParquetIOManager,
    base_trips_io: BaseTripsIOManager,
    settings: Settings,
) -> Candidacy | None:
    """Returns how the candidate stands before the month, None where nothing is in production."""
    month = month_of_partition(context.partition_key)
    record = record_before(month, covered_months_before(month, source, settings), known)
    if record is None:
        return None
    trips = past(source, parquet_io, base_trips_io, settings)
    return Candidacy(record, last_learned(known), partial(months_before, month, trips))


def _whole_month(
    context: dg.AssetExecutionContext, known: Known, settings: Settings, parquet_io: ParquetIOManager
) -> WholeMonth | None:
    """Returns what production is to be retrained on, unless the sensor has seen to it; None for nothing."""
    approved = to_retrain(known, settings.challengers)
    if approved is None:
        return None
    return whole_month(parse_month(approved.subject), approved.staging_version, parquet_io, context.run)


def all_months(
    production: Appraisal, staging: Appraisal | None, trips: Trips, approvals: Approvals, settings: Settings
) -> dg.MarkdownMetadataValue:
    """Returns the picture of all months so far, the one that is being run as it was scored just now.

    Args:
        production: What came of scoring production on it.
        staging: What came of scoring its candidate; None before that was trained.
        trips: Preprocessed trips of the month.
        approvals: Tell of the other months.
        settings: In force.
    """
    record, unit = approvals.record, settings.target_facts.unit
    now = MonthErrors(
        month=trips.edition.subject,
        production=_mae_of(production),
        staging=None if staging is None else _mae_of(staging),
        difficulty=difficulty_of(trips),
    )
    try:
        quoted = realised(settings.lake).values()
    except MonitoringError as error:
        # A month is run whatever has become of another month's page.
        _log.warning("the picture of all months lacks what customers were told: %s", error)
        quoted = {}.values()
    months = errors_by_month(record.comparisons().values(), quoted, now)
    promoted = promoted_on(record.history(), record.requests())
    return metadata.plot(figures.errors_over_time(months, promoted, settings.city_facts.rules, unit))


def _mae_of(appraisal: Appraisal) -> float | None:
    return None if appraisal.contender is None else appraisal.contender.scores.mae


def _run_tags(context: dg.AssetExecutionContext, trips: Trips) -> dict[str, str]:
    """Returns what identifies the MLflow run of an asset."""
    return run_tags(context.run, asset=context.asset_key.to_user_string(), month=trips.edition.subject)


def _reporter(context: dg.AssetExecutionContext, settings: Settings) -> OnEpoch:
    """Returns what writes the progress of training to the run's log."""

    def report(challenger: str, epoch: Epoch) -> None:
        # Before training there is an error, but no loss: nothing has been passed over yet.
        context.log.info(
            "%s, %s error on early-stopping trips %.3f %s (%.1f s)",
            challenger,
            f"epoch {epoch.number}: loss {epoch.loss:.3f}," if epoch.number else "before training:",
            epoch.validation_mae,
            settings.target_facts.unit,
            epoch.seconds,
        )

    return report
