"""Retraining what was approved on its whole month, from what the lake holds: for the sensor's job, or on demand."""

import dagster as dg

from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.training.renewal import retrain_whole_month
from taxifare.trips.months import parse_month
from taxifare_dagster.io_managers import ParquetIOManager
from taxifare_dagster.partitions import partition_key


def retrain_from_lake(
    month: str,
    version: str,
    registry: ModelRegistry,
    settings: Settings,
    parquet_io: ParquetIOManager,
    dagster_run: str,
) -> str:
    """Returns the version that continues the approved one on the whole of its month; run again, it is the same.

    Raises:
        dg.Failure: The month has no trips in the lake.
    """
    key = partition_key(parse_month(month))
    trips = parquet_io.stored("preprocessed_data", key)
    if trips is None:
        raise dg.Failure(f"{month} has no trips in the lake: materialize it first", allow_retries=False)
    tags = {"job": "whole_month_job", "month": month, "dagster_run": dagster_run}
    return retrain_whole_month(
        trips, parquet_io.stored_frame("rehearsal_trips", key), version, registry, settings, run_tags=tags
    )
