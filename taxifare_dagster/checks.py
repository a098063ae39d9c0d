"""Asset checks, partitioned by month like the assets: `build_checks` says which functions check what.

Checks of data block what is downstream: a month that is not a month of trips must not train a model. Checks that
compare models never block and never fail a run: "production is still better" is an answer, and the person hears it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.comparisons import compare, record
from taxifare.approval.due import Known, is_past
from taxifare.approval.promotions import rolled_back_in_words
from taxifare.approval.records import readable
from taxifare.approval.requests import approved_on
from taxifare.gate.evidence import Appraisal, Verdict
from taxifare.gate.scores import EvaluationError, Interval
from taxifare.gate.staleness import baseline_shown
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.calendar import calendar_in
from taxifare.monitoring.guards import (
    GuardFinding,
    asked_in_time,
    clocks_agree,
    known_versions,
    read_fates,
    read_predictions,
    rides_match,
    same_again,
)
from taxifare.operations.month_pages import renew_pages
from taxifare.settings import Settings
from taxifare.training.appraisal import change_since_approval
from taxifare.training.base_trips import SAMPLE_TRIPS, BaseTrips
from taxifare.trips.columns import COORDINATES
from taxifare.trips.dropped import why_dropped
from taxifare.trips.editions import Trips
from taxifare.trips.preparation import Inspection, inspect_clean, inspect_published
from taxifare.trips.stored import StoredTrips
from taxifare_dagster import metadata
from taxifare_dagster.assets.models import all_months
from taxifare_dagster.assets.production import production_model
from taxifare_dagster.catalog import BEATS_PRODUCTION
from taxifare_dagster.io_managers import JsonIOManager, ParquetIOManager
from taxifare_dagster.lake import realised
from taxifare_dagster.partitions import month_of_partition

_log = logging.getLogger(__name__)

_OF_THE_PAST = "A later month has been compared since; see there how production stands today. For this month:"


def raw_new_data_checks(
    context: dg.AssetCheckExecutionContext, raw_new_data: StoredTrips, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.AssetCheckResult]:
    """Whether what the source published is a month of trips."""
    month = month_of_partition(context.op_execution_context.partition_key)
    trips = raw_new_data.in_memory().frame if raw_new_data.fits_in_memory else raw_new_data
    inspections = inspect_published(trips, month, settings.minimum_trips)
    yield from _inspected("raw_new_data", inspections, dict(settings.trip_columns))


def preprocessed_data_checks(
    preprocessed_data: StoredTrips, raw_new_data: StoredTrips, settings: dg.ResourceParam[Settings]
) -> Iterator[dg.AssetCheckResult]:
    """Whether enough of the month can be learned from."""
    # Features are computed whenever they are read; they have no nulls where these columns have none.
    inspections = inspect_clean(preprocessed_data, len(raw_new_data), (*COORDINATES, "pickup_datetime", "target"))
    names, why = dict(settings.trip_columns), None
    if not all(found.is_passed for found in inspections):
        why = why_dropped(raw_new_data.every_so_many(SAMPLE_TRIPS), settings.city, settings.target_facts, names)
    yield from _inspected("preprocessed_data", inspections, names, why)


def production_is_not_stale(
    context: dg.AssetCheckExecutionContext,
    production_eval_mae: Appraisal,
    preprocessed_data: Trips,
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    json_io: dg.ResourceParam[JsonIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """On the same trips, a model that has learned the month is not better than production by more than the tolerance.

    A hard month or another season raises the error of both models; a stale model is wrong where the month's candidate
    is not. `why` says how much of the change is due to which, and which dated fare rules production has not learned.
    Once a later month has been compared, this month's check passes: the latest one says how production stands today.
    """
    if production_eval_mae.contender is None:
        nothing = production_eval_mae.version is None
        why = "nothing is in production" if nothing else str(production_eval_mae.fault)
        return dg.AssetCheckResult(passed=nothing, severity=dg.AssetCheckSeverity.ERROR, metadata={"not_scored": why})
    key = context.op_execution_context.partition_key
    candidate = json_io.stored("staging_model", key, Appraisal)
    attainable = (
        None
        if candidate is None
        else _attainable(preprocessed_data, production_eval_mae, candidate, registry, settings)
    )
    with approvals.ledger.reading() as entries:
        approved = approved_on(entries.promotions(), entries.requests()).get(production_eval_mae.contender.version)
    then = None if approved is None else baseline_shown(readable(approved))
    change = change_since_approval(preprocessed_data, production_eval_mae, then, attainable, settings)
    of_these_trips = None if attainable is None else candidate
    past = is_past(month_of_partition(key), Known.of(approvals))
    return dg.AssetCheckResult(
        passed=past or not change.is_stale,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{_OF_THE_PAST} {change.sentence}" if past else change.sentence,
        metadata={
            "all_months": all_months(production_eval_mae, of_these_trips, preprocessed_data, approvals, settings),
            **metadata.change(change, production_eval_mae.version),
            "is_past": past,
        },
    )


def _attainable(
    trips: Trips, production: Appraisal, candidate: Appraisal, registry: ModelRegistry, settings: Settings
) -> Interval | None:
    """Returns what the candidate saves a trip; None where it was scored on another edition of the month."""
    try:
        return compare(trips, production, candidate, registry, settings).gain
    except EvaluationError as error:
        _log.info("what is attainable is not known: %s", error)
        return None


def staging_model_checks(
    staging_model: Appraisal,
    production_eval_mae: Appraisal,
    preprocessed_data: Trips,
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.AssetCheckResult]:
    """The comparison of the two models on the same validation trips, which the request to a person is made from."""
    evidence = compare(preprocessed_data, production_eval_mae, staging_model, registry, settings)
    record(approvals.ledger, evidence, approvals.now())
    renew_pages(approvals.ledger, settings, realised)
    worse = [objection.name for objection in evidence.objects("slice")]
    gone_back = Known.of(approvals).rolled_back.get(evidence.staging.version)
    before = "" if gone_back is None else f"; {rolled_back_in_words(evidence.staging.version, gone_back)}"
    asset = "staging_model"
    yield _result(
        asset,
        BEATS_PRODUCTION,
        passed=evidence.verdict in {Verdict.PROMOTE, Verdict.COLD_START},
        shown={**metadata.comparison(evidence), **metadata.report(evidence.subject, settings.lake)},
        warn=True,
        says=f"{metadata.answer(evidence)}{before}",
    )
    yield _result(
        asset,
        "keeps_every_slice",
        passed=not worse,
        shown={"slices_worse": ", ".join(worse)},
        warn=True,
        says=metadata.objections(evidence, "slice"),
    )
    yield _result(
        asset,
        "keeps_bias",
        passed=not evidence.objects("bias"),
        shown=metadata.biases(evidence),
        warn=True,
        says=metadata.objections(evidence, "bias"),
    )
    leak = evidence.verdict is Verdict.LEAK
    yield _result(
        asset, "has_no_leak", passed=not leak, shown={"leak": "; ".join(evidence.reasons) if leak else "none"}
    )


def base_beats_reference(
    base_model: Appraisal,
    base_trips: BaseTrips,
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    """The first model is better than a flat per-km rate. The request to put it into production rests on this."""
    sample = base_trips.preprocessed(settings.city_facts)
    evidence = compare(sample, Appraisal(version=None), base_model, registry, settings)
    record(approvals.ledger, evidence, approvals.now())
    renew_pages(approvals.ledger, settings, realised)
    return dg.AssetCheckResult(
        passed=evidence.beats_flat_rate,
        severity=dg.AssetCheckSeverity.WARN,
        description=metadata.answer(evidence),
        metadata={**metadata.comparison(evidence), **metadata.report(evidence.subject, settings.lake)},
    )


def served_predictions_checks(
    context: dg.AssetCheckExecutionContext,
    registry: dg.ResourceParam[ModelRegistry],
    approvals: dg.ResourceParam[Approvals],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.AssetCheckResult]:
    """Whether what was quoted is what registered versions say, by versions that the ledger knows, and in time."""
    asset = "served_predictions"
    predictions = read_predictions(parquet_io.place(asset, context.op_execution_context.partition_key))
    record = approvals.record
    asked = {request.staging_version for request in record.requests()}
    yield _found(asset, "knows_every_version", known_versions(predictions, record.history(), asked))
    yield _found(asset, "predicts_again_the_same", same_again(predictions, registry))
    yield _found(asset, "is_asked_in_time", asked_in_time(predictions, settings.time_zone), warn=True)


def served_outcomes_checks(
    context: dg.AssetCheckExecutionContext, parquet_io: dg.ResourceParam[ParquetIOManager]
) -> Iterator[dg.AssetCheckResult]:
    """Whether the ids of quotes meet those of trips, and the clocks of clients that of the source."""
    asset = "served_outcomes"
    outcomes = read_fates(parquet_io.place(asset, context.op_execution_context.partition_key))
    yield _found(asset, "matches_rides", rides_match(outcomes), warn=True)
    yield _found(asset, "clocks_agree", clocks_agree(outcomes), warn=True)


def _found(asset: str, name: str, finding: GuardFinding, *, warn: bool = False) -> dg.AssetCheckResult:
    """Returns what a guard found as the result of a check."""
    result = _result(asset, name, passed=finding.is_passed, shown={"rides": finding.rides}, warn=warn)
    return result._replace(description=finding.said)


def knows_the_rules(
    approvals: dg.ResourceParam[Approvals], settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """No dated fare rule, in force or within two weeks, may cost more than is tolerated because production lacks it.

    The calendar knows of a rule before any ride is paid under it. One that production has not learned is a concern
    until a whole month under it shows that production is not stale. `error_to_expect` accounts for how hard rides are,
    not for rules. `calendar_sensor` evaluates this check as well, whenever its answer changes.
    """
    with approvals.ledger.reading() as entries:
        found = calendar_in(entries, settings, approvals.now())
    unit = settings.target_facts.unit
    return dg.AssetCheckResult(
        passed=not found.concerns,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.told(unit),
        metadata=dict(metadata.calendar(found, unit)),
    )


def build_checks(months: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """Returns the checks of all assets, those of a month partitioned by the given months, as their assets are."""

    def checks(
        asset: str, found: Mapping[str, str], *, blocking: bool = False, reads: Sequence[str] = ()
    ) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
        """Returns the decorator of what yields these checks of an asset and may read the same month of others."""
        return dg.multi_asset_check(
            specs=[
                dg.AssetCheckSpec(
                    name,
                    asset=asset,
                    description=description,
                    blocking=blocking,
                    additional_deps=reads,
                    partitions_def=months,
                )
                for name, description in found.items()
            ]
        )

    published = {
        "has_trip_columns": "Columns and types are those of the trip table",
        "is_within_month": "Every pickup is within the month, up to but not including the next midnight",
        "has_enough_trips": "There are at least MINIMUM_TRIPS trips",
        "has_unique_keys": "No two trips share a key",
    }
    clean = {
        "keeps_most_trips": "Cleaning keeps at least 80 % of the trips",
        "has_no_nulls": "Features and targets have no nulls",
    }
    compared = {
        BEATS_PRODUCTION: "Staging is better than production, with confidence and by at least the minimum gain",
        "keeps_every_slice": "No slice (airports, long rides, night, rush hour, …) gets worse beyond its tolerance",
        "keeps_bias": "The bias (mean signed error) does not grow beyond its tolerance",
        "has_no_leak": "Neither model was trained on trips from the validation period",
    }
    quoted = {
        "knows_every_version": "What was served was in production, and what ran in shadow was asked about",
        "predicts_again_the_same": "The registered versions predict a sample of the rides again, to the cent",
        "is_asked_in_time": "Prices were asked for before rides began: the clocks of the service and its clients agree",
    }
    outcomes = {
        "matches_rides": "Some of the quoted rides are among the published trips or the reported outcomes",
        "clocks_agree": "Published pickups are close to the times at which prices were asked for",
    }
    trips = {"preprocessed_data": dg.AssetIn("preprocessed_data")}
    base_trips = {"base_trips": dg.AssetIn("base_trips")}
    return [
        checks("raw_new_data", published, blocking=True)(raw_new_data_checks),
        checks("preprocessed_data", clean, blocking=True, reads=["raw_new_data"])(preprocessed_data_checks),
        checks("served_predictions", quoted)(served_predictions_checks),
        checks("served_outcomes", outcomes)(served_outcomes_checks),
        checks("staging_model", compared, reads=["production_eval_mae", "preprocessed_data"])(staging_model_checks),
        dg.asset_check(
            asset="production_eval_mae", additional_ins=trips, additional_deps=["staging_model"], partitions_def=months
        )(production_is_not_stale),
        dg.asset_check(asset="base_model", additional_ins=base_trips)(base_beats_reference),
        dg.asset_check(asset=production_model.key)(knows_the_rules),
    ]


def _inspected(
    asset: str, inspections: Iterable[Inspection], names: Mapping[str, str], why: str | None = None
) -> Iterator[dg.AssetCheckResult]:
    """Yields the check of each inspection, which has its name, and says in words what is wrong.

    Args:
        asset: What was inspected.
        inspections: Of it.
        names: What columns are called in the files, as TRIP_COLUMNS says.
        why: What is known besides of what is wrong.
    """
    for found in inspections:
        says = None if found.is_passed else "; ".join(filter(None, (why, found.in_words(names))))
        yield _result(asset, found.name, passed=found.is_passed, shown=found.found, says=says)


def _result(
    asset: str, name: str, *, passed: bool, shown: Mapping[str, Any], warn: bool = False, says: str | None = None
) -> dg.AssetCheckResult:
    """Returns the result of one check of an asset."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=says,
        metadata=dict(shown),
    )
