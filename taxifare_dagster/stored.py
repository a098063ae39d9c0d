"""What the lake holds of assets, for those that do not have it as an input. How it is kept stands in `io_managers`."""

from collections.abc import Iterator
from typing import TypeVar

import dagster as dg
import pandas as pd

from taxifare.gate.track_record import TrackRecord
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.training.base_trips import BaseTrips
from taxifare.training.candidacy import Candidacy, EarlierMonth, months_before
from taxifare.training.whole_month import WholeMonth
from taxifare.trips.editions import BASE, Trips
from taxifare.trips.months import Month
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
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


def candidacy(
    month: Month,
    record: TrackRecord,
    learned: Month | None,
    source: TripSource,
    parquet_io: ParquetIOManager,
    base_trips_io: BaseTripsIOManager,
    settings: Settings,
) -> Candidacy:
    """Returns how the candidate stands before a month; months it has not learned yet are read when they are needed."""

    def after(last: Month | None) -> Iterator[EarlierMonth]:
        return months_before(
            month,
            base_trips_io.stored,
            source,
            lambda earlier: parquet_io.stored("raw_new_data", partition_key(earlier)),
            settings,
            after=last,
        )

    return Candidacy(record, learned, after)


def whole_month(month: Month, version: str, parquet_io: ParquetIOManager, run: dg.DagsterRun) -> WholeMonth:
    """Returns what a version that was approved for the month is to be retrained on; nothing is read until it is."""

    def read() -> tuple[Trips, pd.DataFrame | None]:
        return clean_trips(month, parquet_io), parquet_io.stored_frame("rehearsal_trips", partition_key(month))

    return WholeMonth(version, read, run_tags(run, job="whole_month_job", month=str(month)))
