"""The watch: what the days since production came in add up to, and the renewal on the days so far that may follow."""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import pandas as pd

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known, last_learned
from taxifare.approval.records import Comparison
from taxifare.approval.track_records import record_before
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.calendar import calendar_if_told
from taxifare.monitoring.drift import input_drift as drift_of
from taxifare.monitoring.outcomes import days_of
from taxifare.monitoring.so_far import renew_so_far, trips_so_far
from taxifare.monitoring.watch import evidence_of, watch
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.training.candidacy import Candidacy, months_before
from taxifare.trips.editions import Trips
from taxifare.trips.months import Month
from taxifare.trips.preparation import with_features
from taxifare.trips.stored import MOST_LEARNED, StoredTrips
from taxifare_dagster import metadata
from taxifare_dagster.catalog import MONITORING_GROUP, OWNERS
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.order import covered_months_before
from taxifare_dagster.partitions import month_of_partition, months_of, partition_key
from taxifare_dagster.provenance import run_tags
from taxifare_dagster.stored import past

OUTCOMES_ASSET = "served_outcomes"


def production_watch(
    context: dg.AssetExecutionContext,
    approvals: dg.ResourceParam[Approvals],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """Whether the error of production has grown, day by day since it came in, judged by the outcomes of rides.

    A hard day is hard for a flat per-km rate too, and raises no alarm; a fare rise does, within days. The score adds up
    by how much days fall short of the usual skill, beyond two robust standard deviations. When it reaches the
    threshold, a person is asked whether to retrain on the days of the current month so far, once until production
    changes.
    """
    known, unit = Known.of(approvals), settings.target_facts.unit
    if known.promotion is None or known.promotion.version is None:
        return dg.MaterializeResult(metadata={"says": "nothing is in production"})
    version = known.promotion.version
    watched = watch(days_under(known.promotion.sequence, last_learned(known), parquet_io, settings))
    shown = metadata.watched(watched, version, unit)
    month = None if watched.alarm is None else Month(watched.days.index[-1], freq="M")
    if month is not None and known.alarms.of(known.promotion.sequence) is None:
        compared = known.comparisons.get(str(month))
        if compared is not None and compared.is_of_month:
            shown |= {"nobody_is_asked": f"{month} is over, and compared: its own question is about that"}
        else:
            with approvals.ledger.reading() as entries:
                calendar = calendar_if_told(entries, settings, approvals.now())
            rules = () if calendar is None else tuple(map(str, calendar.unlearned))
            alarm = approvals.raise_alarm(evidence_of(watched, unit, str(month), rules), version)
            context.log.warning("%s: %s", alarm.id, watched.says)
            shown |= {"alarm": alarm.id}
    return dg.MaterializeResult(metadata=shown)


def input_drift(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """Whether the month's rides differ from earlier ones, feature by feature. For information; it raises no alarm.

    It shows the population stability index of each feature against earlier rides (`rehearsal_trips`) on the same
    weekdays and at the same times of day, the share of published trips with missing values or outside the city, and
    when rides start. Inputs do not show whether prices moved: the largest fare rise on record appeared in none of them,
    but in `production_watch`.
    """
    key, city = context.partition_key, settings.city_facts
    published, clean = parquet_io.month("raw_new_data", key), parquet_io.month("preprocessed_data", key)
    before = parquet_io.stored_frame("rehearsal_trips", key)
    if published is None or clean is None or before is None or before.empty:
        return dg.MaterializeResult(metadata={"says": "the month has not been run, or nothing is there before it"})
    found = drift_of(_shown(published), with_features(_shown(clean), city), with_features(before, city), city)
    return dg.MaterializeResult(metadata=metadata.input_drift(found))


def _shown(trips: Trips | StoredTrips) -> pd.DataFrame:
    """Returns a month's trips; of a large one as many as are learned of it, spread over all of its days."""
    return trips.frame if isinstance(trips, Trips) else trips.every_so_many(MOST_LEARNED)


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
    outcomes, known = parquet_io.stored_frame(OUTCOMES_ASSET, partition_key(month)), Known.of(approvals)
    if outcomes is None:
        raise dg.Failure(f"{month} has no outcomes in the lake: materialize {OUTCOMES_ASSET} first")
    trips = trips_so_far(outcomes, month, settings)
    record = record_before(month, covered_months_before(month, source, settings), known)
    earlier = past(source, parquet_io, base_trips_io, settings)
    before = None if record is None else Candidacy(record, last_learned(known), partial(months_before, month, earlier))
    rehearsed = earlier.rehearsed(earlier.published_before(month))
    tags = run_tags(context.run, asset="staging_model", month=str(month))
    return renew_so_far(trips, rehearsed, before, known, approvals, registry, settings, run_tags=tags)


def build_assets(months: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets of this module, those of a month partitioned by the given months."""
    asset = dg.asset(group_name=MONITORING_GROUP, owners=OWNERS, kinds={"pandas"}, deps=[dg.AssetKey(OUTCOMES_ASSET)])
    of_month = partial(dg.asset, group_name=MONITORING_GROUP, owners=OWNERS, kinds={"pandas"}, partitions_def=months)
    trips = ["raw_new_data", "preprocessed_data", "rehearsal_trips"]
    return [asset(production_watch), of_month(deps=trips)(input_drift)]


def days_under(sequence: int, learned: Month | None, parquet_io: ParquetIOManager, settings: Settings) -> pd.DataFrame:
    """Returns by day how far off the quotes were that were given under a promotion, see `outcomes.days_of`.

    Args:
        sequence: Of the promotion.
        learned: The month up to which its version has learned, None where that is not known. A file of rides of months
            until then may have been priced since: how far off they are says nothing of days to come.
        parquet_io: Has the outcomes.
        settings: Say which months there are.
    """
    months = list(_months_under(sequence, learned, parquet_io, settings))
    none = pd.DataFrame(columns=["rides", "mae", "difficulty", "skill", "bias"], index=pd.DatetimeIndex([], name="day"))
    return pd.concat(reversed(months)) if months else none.astype("float64")


_WATCHED = ["pickup_datetime", "predicted", "truth", "reference"]


def _months_under(
    sequence: int, learned: Month | None, parquet_io: ParquetIOManager, settings: Settings
) -> Iterator[pd.DataFrame]:
    """Yields the days under a promotion month by month, the newest first, back to where there are none."""
    is_found = False
    for key in reversed(months_of(settings).get_partition_keys()):
        if learned is not None and month_of_partition(key) <= learned:
            return
        try:
            with parquet_io.place(OUTCOMES_ASSET, key).open("rb") as file:
                outcomes = pd.read_parquet(file, columns=[*_WATCHED, "served_as", "sequence"])
        except FileNotFoundError:
            continue
        under = (outcomes["served_as"] == "production") & (outcomes["sequence"] == sequence)
        if is_found and not under.any():
            return
        is_found = is_found or bool(under.any())
        yield days_of(outcomes[under])
