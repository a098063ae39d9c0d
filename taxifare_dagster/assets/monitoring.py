"""Monitoring: what was quoted in a month, what the rides came to, and how far off it was.

The functions are the assets: their docstrings are what the catalog shows.
"""

from functools import partial

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.monitoring.gathering import gather
from taxifare.monitoring.joining import join
from taxifare.monitoring.outcomes import OUTCOMES, PREDICTIONS
from taxifare.monitoring.realised import RealisedMonth, promises_of, read_outcomes, realise
from taxifare.operations.month_pages import renew_pages
from taxifare.settings import Settings
from taxifare_dagster import metadata
from taxifare_dagster.assets.production import production_model
from taxifare_dagster.assets.serving import collected_predictions, scored_files
from taxifare_dagster.catalog import MONITORING_GROUP, MONITORING_KINDS, OWNERS
from taxifare_dagster.io_managers import ParquetIOManager
from taxifare_dagster.lake import realised
from taxifare_dagster.partitions import month_of_partition
from taxifare_dagster.stored import published


def served_predictions(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """Quotes for the rides of the month, from the service, streams and files, and the prices of the shadow model.

    One row for each ride, version and role, by month of pickup; of several quotes by one version, the first. The
    prediction log is deleted after PREDICTION_LOG_DAYS, these rows are kept: materializing again adds what was
    collected since. Rides from files are included if the file has a column `ride_id`.
    """
    place = parquet_io.place(context.asset_key.to_user_string(), context.partition_key)
    parquet_io.make_directory(place.parent)
    found = gather(place, month_of_partition(context.partition_key), settings)
    return dg.MaterializeResult(
        metadata={
            **metadata.gathered(found),
            "dagster/column_schema": metadata.served_schema(PREDICTIONS, settings.target_facts.unit),
            "path": dg.MetadataValue.path(str(place)),
        }
    )


def served_outcomes(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """What the quoted rides came to: quotes joined by ride id with the month's trips and with reported outcomes.

    The same rows as `served_predictions`, each with its true value or the reason why there is none: `fates` counts the
    reasons, and docs/monitoring.md explains them. If the month is restated, or outcomes arrive late, materialize it
    again; the order of arrival does not matter. TLC uses ride ids of its own: for its trips only reported outcomes
    (`POST /outcomes`, STREAM_OUTCOMES) can match a quote.
    """
    key = context.partition_key
    quotes, place = (parquet_io.place(asset, key) for asset in ("served_predictions", "served_outcomes"))
    parquet_io.make_directory(place.parent)
    found = join(quotes, place, published(key, parquet_io), settings)
    return dg.MaterializeResult(
        metadata={
            **metadata.joined(found),
            "dagster/column_schema": metadata.served_schema(OUTCOMES, settings.target_facts.unit),
            "path": dg.MetadataValue.path(str(place)),
        }
    )


def served_mae(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[RealisedMonth]:
    """The error of the month's quotes: mean absolute error by version, week and slice.

    It is shown next to the promise: the error on the validation trips on which the version was approved, adjusted to
    the difficulty of the rides that customers actually asked for. The shadow model is compared with production on the
    same rides.
    """
    month, record = month_of_partition(context.partition_key), approvals.record
    outcomes = read_outcomes(parquet_io.place("served_outcomes", context.partition_key))
    promises = promises_of(outcomes["version"].unique(), record.comparisons().values(), record.requests())
    found = realise(outcomes, str(month), promises, settings.city_facts, settings.target_facts.unit)
    renew_pages(approvals.ledger, settings, lambda lake: {**realised(lake), month: found})
    return dg.Output(found, metadata=metadata.realised(found))


def build_assets(months: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets of this module, partitioned by the given months."""
    asset = partial(dg.asset, group_name=MONITORING_GROUP, owners=OWNERS, kinds=MONITORING_KINDS, partitions_def=months)
    trips = ["raw_new_data", "preprocessed_data"]
    return [
        asset(deps=[collected_predictions, scored_files])(served_predictions),
        asset(deps=[*trips, "served_predictions"])(served_outcomes),
        asset(deps=["served_outcomes", production_model], io_manager_key="json_io")(served_mae),
    ]
