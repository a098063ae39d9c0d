"""Serving: what the model in force makes of every ride of a month.

The functions are the assets: their docstrings are what the catalog shows.
"""

import dagster as dg

from taxifare.serving import in_force
from taxifare.serving.batches import score_file
from taxifare.serving.scored_table import ScoredTable
from taxifare.settings import Settings
from taxifare_dagster import metadata
from taxifare_dagster.assets.production import production_model
from taxifare_dagster.catalog import OWNERS, SERVING_GROUP, SERVING_KINDS
from taxifare_dagster.io_managers import ParquetIOManager
from taxifare_dagster.partitions import month_of_partition

scored_files = dg.AssetSpec(
    "scored_files",
    group_name=SERVING_GROUP,
    owners=OWNERS,
    kinds={"onnx"},
    description=(
        "Files of rides in SCORING_INBOX, priced by the model in production as they arrive: the prices and a receipt "
        "appear beside each file. Each materialization is one file."
    ),
)

collected_predictions = dg.AssetSpec(
    "collected_predictions",
    group_name=SERVING_GROUP,
    owners=OWNERS,
    kinds={"json"},
    description=(
        "The prediction log of this machine's service, moved to the lake under quotes/: one row for each ride, version "
        "and role. Each materialization is one collection."
    ),
)


def scored_trips(
    context: dg.AssetExecutionContext,
    parquet_io: dg.ResourceParam[ParquetIOManager],
    scored_table: dg.ResourceParam[ScoredTable | None],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:
    """Every ride of the month as published, priced by the model in production: its columns, the fare, the version.

    These are all rides, not only the validation fifth and not only clean ones: a row that cannot be priced keeps its
    place, with the reason in `fault`. Rides are streamed from file to file, so memory does not grow with the month.
    Materialize it again after a promotion to price the month with the new version. If SCORED_TRIPS_TABLE names a
    BigQuery table, the month's rows are replaced there as well: all of them or, if that fails, none.
    """
    promotion, bundle = in_force.model_in(settings.lake, settings.city, settings.target)
    rides, answers = (
        parquet_io.place(asset, context.partition_key) for asset in ("raw_new_data", context.asset_key.to_user_string())
    )
    parquet_io.make_directory(answers.parent)
    scored, unit = score_file(rides, answers, bundle), bundle.manifest.unit
    in_table: dict[str, str | int] = {}
    if scored_table is not None:
        month = month_of_partition(context.partition_key)
        rows = scored_table.replace(answers, month, promotion.sequence, unit)
        in_table = {"table": scored_table.name, "table_rows": rows}
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": scored.rides,
            "dagster/column_schema": metadata.scored_schema(settings),
            "production_version": bundle.manifest.version,
            "promotion": promotion.sequence,
            "refused": scored.refused,
            "path": dg.MetadataValue.path(str(answers)),
            **in_table,
            **metadata.refused_rides(scored.examples),
        }
    )


def build_assets(months: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets of this module, partitioned by the given months."""
    asset = dg.asset(
        group_name=SERVING_GROUP,
        owners=OWNERS,
        kinds=SERVING_KINDS,
        partitions_def=months,
        deps=["raw_new_data", production_model],
    )
    return [asset(scored_trips)]
