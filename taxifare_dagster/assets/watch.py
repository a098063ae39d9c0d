"""The watch: what the days since production came in add up to, and the renewal on the days so far that may follow."""

from collections.abc import Iterator
from itertools import chain

import dagster as dg
import pandas as pd

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known, last_learned
from taxifare.approval.records import Comparison, Promotion
from taxifare.approval.track_records import record_before
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.calendar import rules_in_words
from taxifare.monitoring.outcomes import days_of
from taxifare.monitoring.so_far import renew_so_far, trips_so_far
from taxifare.monitoring.watch import evidence_of, watch
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.training.rehearsal import editions_before, reservoir
from taxifare.trips.editions import TripBatches, Trips, is_so_far
from taxifare.trips.months import Month
from taxifare_dagster import metadata
from taxifare_dagster.catalog import MONITORING_GROUP, OWNERS
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.order import covered_months_before
from taxifare_dagster.partitions import month_of_partition, months_of, partition_key
from taxifare_dagster.provenance import run_tags
from taxifare_dagster.stored import candidacy

OUTCOMES_ASSET = "served_outcomes"


def production_watch(
    context: dg.AssetExecutionContext,
    approvals: dg.ResourceParam[Approvals],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """Whether production errs surely more than it did, day by day since it came in, from what rides came to.

    A hard day is hard for a plain rate per km, too, and raises no alarm; a fare rise does within days. The score adds
    up what days lack beyond one robust standard deviation of the usual ones. At its threshold a person is asked, once
    until production changes, whether to retrain on the days of the open month so far.
    """
    known, unit = Known.of(approvals), settings.target_facts.unit
    if known.promotion is None or known.promotion.version is None:
        return dg.MaterializeResult(metadata={"says": "nothing is in production"})
    version = known.promotion.version
    watched = watch(days_of(_outcomes_since(known.promotion, parquet_io, settings)))
    shown = metadata.watched(watched, version, unit)
    month = None if watched.alarm is None else Month(watched.days.index[-1], freq="M")
    if month is not None and known.alarms.of(known.promotion.sequence) is None:
        if _is_over(known.comparisons.get(str(month))):
            shown |= {"nobody_is_asked": f"{month} is over, and compared: its own question is about that"}
        else:
            with approvals.ledger.reading() as entries:
                rules = rules_in_words(entries, settings, approvals.now())
            alarm = approvals.raise_alarm(evidence_of(watched, unit, str(month), rules), version)
            context.log.warning("%s: %s", alarm.id, watched.says)
            shown |= {"alarm": alarm.id}
    return dg.MaterializeResult(metadata=shown)


def outcomes_of(month: Month, parquet_io: ParquetIOManager) -> pd.DataFrame | None:
    """Returns what rides of the month came to, as far as it is known; None where nothing has been joined."""
    return parquet_io.stored_frame(OUTCOMES_ASSET, partition_key(month))


def renewed_so_far(
    context: dg.OpExecutionContext,
    month: Month,
    source: TripSource,
    registry: ModelRegistry,
    approvals: Approvals,
    parquet_io: ParquetIOManager,
    base_trips_io: BaseTripsIOManager,
    settings: Settings,
) -> Comparison:
    """Returns the comparison of production with a candidate that has learned the month's days so far, on record.

    Raises:
        dg.Failure: The month has no outcomes.
        TooFewSoFarError: It has too few.
    """
    outcomes, known = outcomes_of(month, parquet_io), Known.of(approvals)
    if outcomes is None:
        raise dg.Failure(f"{month} has no outcomes in the lake: materialize {OUTCOMES_ASSET} first")
    trips = trips_so_far(outcomes, month, settings)
    record = record_before(month, covered_months_before(month, source, settings), known)
    before = (
        None
        if record is None
        else candidacy(month, record, last_learned(known), source, parquet_io, base_trips_io, settings)
    )

    def stored(earlier: Month) -> Trips | None:
        return parquet_io.stored("raw_new_data", partition_key(earlier))

    base: list[TripBatches] = [] if (years := base_trips_io.stored()) is None else [years]
    rehearsed = reservoir(
        chain(base, editions_before(month, source, stored, settings)), settings.rehearsal_trips, settings.seed
    )
    tags = run_tags(context.run, asset="staging_model", month=str(month))
    return renew_so_far(trips, rehearsed, before, known, approvals, registry, settings, run_tags=tags)


def build_assets() -> list[dg.AssetsDefinition]:
    """Returns the assets of this module."""
    asset = dg.asset(group_name=MONITORING_GROUP, owners=OWNERS, kinds={"pandas"}, deps=[dg.AssetKey(OUTCOMES_ASSET)])
    return [asset(production_watch)]


def _is_over(comparison: Comparison | None) -> bool:
    """Returns whether a month has been compared as it was published."""
    return comparison is not None and not is_so_far(comparison.revision)


def _outcomes_since(promotion: Promotion, parquet_io: ParquetIOManager, settings: Settings) -> pd.DataFrame:
    """Returns what came of the quotes that were given under a promotion."""
    months = list(_months_since(promotion, parquet_io, settings))
    return pd.concat(reversed(months), ignore_index=True) if months else pd.DataFrame(columns=_WATCHED)


_WATCHED = ["pickup_datetime", "predicted", "truth", "reference"]


def _months_since(promotion: Promotion, parquet_io: ParquetIOManager, settings: Settings) -> Iterator[pd.DataFrame]:
    """Yields the quotes under a promotion month by month, the newest first, back to where there are none."""
    is_found = False
    for key in reversed(months_of(settings).get_partition_keys()):
        outcomes = outcomes_of(month_of_partition(key), parquet_io)
        if outcomes is None:
            continue
        under = (outcomes["served_as"] == "production") & (outcomes["sequence"] == promotion.sequence)
        if is_found and not under.any():
            return
        is_found = is_found or bool(under.any())
        yield outcomes.loc[under, _WATCHED]
