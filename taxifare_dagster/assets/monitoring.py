"""Monitoring: what was quoted in a month, what the rides came to, and how far off it was.

The functions are the assets: their docstrings are what the catalog shows.
"""

from functools import partial

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.monitoring.gathering import gather
from taxifare.monitoring.joining import join
from taxifare.monitoring.realised import RealisedMonth, promises_of, read_outcomes, realise, versions_in
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
    """What was quoted for the rides of the month, by the service, streams and files of rides, and what shadow said.

    One row for each ride, version and role, by the pickup's month: of several quotes by one version the first that was
    asked for. The prediction log goes after PREDICTION_LOG_DAYS, these rows stay: materialized again, the month has
    what it had and what was collected since. Rides of files are among them where the file has a column `ride_id`.
    """
    place = parquet_io.place(context.asset_key.to_user_string(), context.partition_key)
    parquet_io.make_directory(place.parent)
    found = gather(place, month_of_partition(context.partition_key), settings)
    return dg.MaterializeResult(metadata={**metadata.gathered(found), "path": dg.MetadataValue.path(str(place))})


def served_outcomes(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """What the rides that were quoted came to: joined by the ride's id with the month's trips, and with what was told.

    The same rows as `served_predictions`, each with its truth, or with why there is none: `fates` counts them, and
    docs/monitoring.md says what each means. Where the month is restated, or outcomes come late, materialize it again:
    it does not matter what came first. TLC numbers its rides itself: there only outcomes that are told (`POST
    /outcomes`, STREAM_OUTCOMES) meet a quote.
    """
    key = context.partition_key
    quotes, place = (parquet_io.place(asset, key) for asset in ("served_predictions", "served_outcomes"))
    parquet_io.make_directory(place.parent)
    found = join(quotes, place, published(key, parquet_io), settings)
    return dg.MaterializeResult(metadata={**metadata.joined(found), "path": dg.MetadataValue.path(str(place))})


def served_mae(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    approvals: dg.ResourceParam[Approvals],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[RealisedMonth]:
    """How far off the quotes of the month were: mean absolute error by version, week and slice.

    Beside it stands what was promised: the error on the validation trips that the version was approved on, at the
    difficulty of the rides that were really asked for. What was in shadow is held against production on the same rides.
    """
    place = parquet_io.place("served_outcomes", context.partition_key)
    record, month = approvals.record, str(month_of_partition(context.partition_key))
    promises = promises_of(versions_in(place), record.comparisons().values(), record.requests())
    unit = settings.target_facts.unit
    found = realise(read_outcomes(place), month, promises, settings.city_facts, unit)
    of_now = {month_of_partition(context.partition_key): found}
    renew_pages(approvals.ledger, settings, lambda lake: {**realised(lake), **of_now})
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
