"""Trips: as published, and ready to learn from; a month at a time, and the years before the first month.

The functions are the assets: their docstrings are what the catalog shows, `build_assets` says how each is stored.
"""

from functools import partial
from typing import Any

import dagster as dg
import pandas as pd

from taxifare.model.exposure import exposure_of
from taxifare.model.fitting import peak_memory_mib
from taxifare.reports import figures
from taxifare.settings import Settings
from taxifare.sources.base import TripSource
from taxifare.sources.whole_months import whole_month
from taxifare.training.base_trips import SAMPLE_TRIPS, BaseTrips
from taxifare.training.gathering import gather_base
from taxifare.trips.editions import Trips
from taxifare.trips.preparation import (
    Preprocessed,
    preprocess,
    preprocess_large,
    split_opened_month,
    with_features,
)
from taxifare.trips.stored import OnTrips, StoredTrips
from taxifare_dagster import metadata
from taxifare_dagster.catalog import OWNERS, TRIPS_GROUP, TRIPS_KINDS
from taxifare_dagster.io_managers import BaseTripsIOManager, ParquetIOManager
from taxifare_dagster.partitions import month_of_partition
from taxifare_dagster.stored import past


def raw_new_data(
    context: dg.AssetExecutionContext, source: dg.ResourceParam[TripSource], settings: dg.ResourceParam[Settings]
) -> dg.Output[Any]:
    """The month's trips as published, sorted by pickup time.

    Split by time: `is_validation` marks the latest fifth, or what the source publishes for validation. Models are
    judged by these trips and never trained on them. The revision identifies the content at the source; when it changes,
    the month is run again. `left_out` counts published rows that are not trips of the month, or were not sampled. An
    incomplete month fails here and waits until it is complete, or until somebody accepts it as it is. A month of more
    than a million trips is processed in batches; the run's log shows the progress.
    """
    month = month_of_partition(context.partition_key)
    published = whole_month(source, month, settings, settings.lake)
    trips = split_opened_month(published, month, settings.validation_share, settings.home, _progress(context))
    pickups = published.pickups
    return dg.Output(
        trips,
        metadata={
            "dagster/partition_row_count": len(pickups),
            "dagster/column_schema": metadata.trip_schema(settings),
            "revision": published.revision,
            "source": published.origin,
            "left_out": metadata.dropped(published.dropped),
            "time_span": metadata.time_span(pd.DataFrame({"pickup_datetime": [pickups.min(), pickups.max()]})),
            "validation_trips": trips.validation_trips,
        },
    )


def preprocessed_data(
    context: dg.AssetExecutionContext, raw_new_data: StoredTrips, settings: dg.ResourceParam[Settings]
) -> dg.Output[Any]:
    """Clean trips of the month with the target, one row per trip. Features are computed whenever trips are read.

    Features use only what is known at pickup. `overview` shows where rides start, what they cost (or how long they
    take) and when they start; `dropped` counts the trips that each cleaning rule removed. A month of more than a
    million trips is processed in batches; the run's log shows the progress.
    """
    done, shown = _preprocessed(raw_new_data, settings, _progress(context))
    return dg.Output(
        done.trips,
        metadata={
            "dagster/partition_row_count": done.trips.rides,
            "dagster/column_schema": metadata.preprocessed_schema(settings),
            "revision": done.trips.edition.revision,
            "share_kept": done.trips.rides / raw_new_data.rides,
            "dropped": metadata.dropped(done.dropped),
            # Of no trip there is nothing to draw, and a check says why none is left.
            **({"overview": metadata.plot(figures.trips_overview(shown, settings.target_facts))} if len(shown) else {}),
        },
    )


def _preprocessed(
    raw: StoredTrips, settings: Settings, on_trips: OnTrips
) -> tuple[Preprocessed[Trips] | Preprocessed[StoredTrips], pd.DataFrame]:
    """Returns the clean trips, and those that are shown of them, with features."""
    city, target = settings.city_facts, settings.target_facts
    if raw.fits_in_memory:
        done = preprocess(raw.in_memory(), city, target)
        return done, done.trips.frame
    large = preprocess_large(raw, city, target, settings.home, on_trips)
    return large, with_features(large.trips.every_so_many(SAMPLE_TRIPS), city)


def _progress(context: dg.AssetExecutionContext) -> OnTrips:
    """Returns what writes to the run's log how many trips of a large month have been worked on."""

    def report(trips: int) -> None:
        context.log.info("%s: %s trips so far", context.asset_key.to_user_string(), f"{trips:,}")

    return report


def base_trips(source: dg.ResourceParam[TripSource], settings: dg.ResourceParam[Settings]) -> dg.Output[BaseTrips]:
    """Clean trips of the years before the first month, shuffled: what the first model learns from.

    At most DATASET_SIZE trips, sampled at random over the years; the latest twentieth, at most 100,000, is held out for
    validation. They are streamed from the source to the file, so memory does not grow with their number. Features are
    computed when trips are read. The plots show a sample.
    """
    published = source.read_base()
    done = gather_base(published, settings)
    sample = done.trips.preprocessed(settings.city_facts).frame
    return dg.Output(
        done.trips,
        metadata={
            "dagster/row_count": done.trips.training_trips + done.trips.validation_trips,
            "dagster/column_schema": metadata.trip_schema(settings),
            "revision": published.revision,
            "source": published.origin,
            "published_trips": done.published_trips,
            "left_out": metadata.dropped(done.left_out),
            "time_span": metadata.time_span(sample),
            "validation_trips": done.trips.validation_trips,
            "dropped": metadata.dropped(done.dropped),
            "peak_memory_mib": round(peak_memory_mib()),
            "overview": metadata.plot(figures.trips_overview(sample, settings.target_facts)),
        },
    )


def rehearsal_trips(
    context: dg.AssetExecutionContext,
    source: dg.ResourceParam[TripSource],
    parquet_io: dg.ResourceParam[ParquetIOManager],
    base_trips_io: dg.ResourceParam[BaseTripsIOManager],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pd.DataFrame]:
    """A sample of the trips before the month, mixed into training so that learning a month does not forget the years.

    At most REHEARSAL_TRIPS, sampled from the base years and every earlier published month, with newer trips more
    likely. It does not matter which of those months have been run: a backfill in any order samples the same trips. The
    sample of each edition is kept in the lake (`rehearsal_samples`), so the 200th month reads no more than the second.
    """
    trips, base = past(source, parquet_io, base_trips_io, settings), base_trips_io.stored()
    rehearsed = trips.rehearsed(trips.published_before(month_of_partition(context.partition_key)))
    years = rehearsed["pickup_datetime"].dt.year.value_counts().sort_index()
    return dg.Output(
        rehearsed,
        metadata={
            "dagster/partition_row_count": len(rehearsed),
            "dagster/column_schema": metadata.rehearsal_schema(settings),
            "base_trips": "none: base_trips has not been materialized" if base is None else base.edition.revision,
            "editions": dg.MetadataValue.json({entry.subject: entry.revision for entry in exposure_of(rehearsed)}),
            "trips_by_year": dg.MetadataValue.json({str(year): int(count) for year, count in years.items()}),
        },
    )


def build_assets(months: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Returns the assets of this module, those of a month partitioned by the given months."""
    asset = partial(dg.asset, group_name=TRIPS_GROUP, owners=OWNERS, kinds=TRIPS_KINDS)
    monthly = asset(partitions_def=months, io_manager_key="parquet_io")
    return [
        monthly(raw_new_data),
        monthly(preprocessed_data),
        monthly(rehearsal_trips),
        asset(io_manager_key="base_trips_io")(base_trips),
    ]
