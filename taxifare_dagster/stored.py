"""What the lake holds of assets, for those that do not have it as an input. How it is kept stands in `io_managers`."""

from typing import TypeVar

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from taxifare.monitoring.joining import Published
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.training.base_trips import BaseTrips
from taxifare.training.rehearsal import Past
from taxifare.training.whole_month import WholeMonth
from taxifare.trips.editions import BASE, Trips
from taxifare.trips.months import Month
from taxifare.trips.stored import StoredTrips
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.lake import revision_of
from taxifare_dagster.partitions import partition_key
from taxifare_dagster.provenance import run_tags

Found = TypeVar("Found")


def base_trips(base_trips_io: BaseTripsIOManager) -> BaseTrips:
    """Returns the trips of the base years.

    Raises:
        dg.Failure: There are none in the lake.
    """
    return _there(base_trips_io.stored(), BASE, "base_trips")


def clean_trips(month: Month, parquet_io: ParquetIOManager) -> Trips:
    """Returns the month's trips, clean and with features.

    Raises:
        dg.Failure: There are none in the lake.
    """
    return _there(parquet_io.stored("preprocessed_data", partition_key(month)), str(month), "preprocessed_data")


def _there(found: Found | None, subject: str, asset: str) -> Found:
    if found is None:
        raise dg.Failure(f"{subject} has no trips in the lake: materialize {asset} first", allow_retries=False)
    return found


def past(
    source: TripSource, parquet_io: ParquetIOManager, base_trips_io: BaseTripsIOManager, settings: Settings
) -> Past:
    """Returns where the trips before a month are."""

    def raw(month: Month) -> StoredTrips | None:
        return parquet_io.opened("raw_new_data", partition_key(month))

    return Past(source, base_trips_io.stored, raw, settings)


def whole_month(month: Month, version: str, parquet_io: ParquetIOManager, run: dg.DagsterRun) -> WholeMonth:
    """Returns what a version that was approved for the month is to be retrained on; nothing is read until it is."""

    def read() -> tuple[Trips, pd.DataFrame | None]:
        return clean_trips(month, parquet_io), parquet_io.stored_frame("rehearsal_trips", partition_key(month))

    return WholeMonth(version, read, run_tags(run, job="whole_month_job", month=str(month)))


def published(partition: str, parquet_io: ParquetIOManager) -> Published | None:
    """Returns what the lake has of a month's trips, as far as outcomes need it; None where it has nothing.

    Raises:
        dg.Failure: What is clean is of another edition than what was published: the month is being run, or failed.
    """
    places = [parquet_io.place(asset, partition) for asset in ("raw_new_data", "preprocessed_data")]
    try:
        raw, clean = (
            _columns(place, names)
            for place, names in zip(places, (["key", "pickup_datetime"], ["key", "target"]), strict=True)
        )
    except FileNotFoundError:
        return None
    revisions = [revision_of(table.schema) for table in (raw, clean)]
    if revisions[0] != revisions[1]:
        raise dg.Failure(
            f"{partition}: preprocessed_data is of revision {revisions[1]}, raw_new_data of {revisions[0]}: run the "
            "month first, then join it with what was quoted"
        )
    keys = [table["key"].combine_chunks().cast(pa.string()) for table in (raw, clean)]
    pickups, truths = raw["pickup_datetime"].combine_chunks(), clean["target"].combine_chunks()
    return Published(revisions[0], keys[0], pickups.cast(pa.timestamp("us")), keys[1], truths.cast(pa.float64()))


def _columns(place: UPath, names: list[str]) -> pa.Table:
    with place.open("rb") as file:
        return pq.read_table(file, columns=names)
