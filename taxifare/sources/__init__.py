"""Where months of trips come from: one module a source, one protocol for all, one place that picks by setting."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from taxifare.settings import Settings
from taxifare.sources import bigquery
from taxifare.sources.base import MonthNotPublishedError, NoBaseError, SourceError, TripSource
from taxifare.sources.chicago import Chicago
from taxifare.sources.folder import Folder
from taxifare.sources.lewagon import LeWagon
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.tlc import Tlc
from taxifare.sources.web import Web
from taxifare.trips.publication import BasePublication, Publication

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

_PORTAL_TIMEOUT_S = 120.0
"""Counting years of trips may take the portal a minute."""

__all__ = [
    "BasePublication",
    "MonthNotPublishedError",
    "NoBaseError",
    "Publication",
    "SourceError",
    "TripSource",
    "make_source",
]


def make_source(
    settings: Settings, bigquery_client: "Callable[[], AbstractContextManager[Client]] | None" = None
) -> TripSource:
    """Returns the source that `TRIP_SOURCE` names, set up as the settings say.

    Args:
        settings: In force.
        bigquery_client: Opens a client of BigQuery; by default one with the credentials of the environment.

    Raises:
        SourceError: The source cannot be set up, such as a folder with a file pattern it cannot read months from.
    """
    if settings.trip_folder is not None and settings.trip_source == "folder":
        return Folder(
            path=settings.trip_folder.expanduser().absolute(),
            months_pattern=settings.trip_folder_months,
            base_pattern=settings.trip_folder_base,
        )
    if settings.trip_source == "bigquery":
        return bigquery.BigQuery(
            table=settings.bigquery_table,
            first_month=settings.first_month,
            base_rows=settings.dataset_size,
            maximum_bytes=settings.bigquery_maximum_bytes,
            client=bigquery_client or partial(bigquery.connect, settings.bigquery_project, settings.bigquery_location),
        )
    if settings.trip_source == "chicago":
        token = settings.chicago_app_token
        return Chicago(
            web=Web(
                settings.home / "downloads",
                secret_headers={} if token is None else {"X-App-Token": token},
                timeout_s=_PORTAL_TIMEOUT_S,
            ),
            url=settings.chicago_url.rstrip("/"),
            first_month=settings.first_month,
            trips_per_month=settings.chicago_trips_per_month,
            base_rows=settings.dataset_size,
        )
    web = Web(settings.home / "downloads")
    if settings.trip_source == "lewagon":
        return LeWagon(
            web=web, url=settings.lewagon_url, dataset_size=settings.dataset_size, first_month=settings.first_month
        )
    if settings.trip_source == "tlc":
        return Tlc(
            web=web,
            url=settings.tlc_url,
            color=settings.tlc_color,
            trips_per_month=settings.tlc_trips_per_month,
            base_months=settings.tlc_base_months,
            first_month=settings.first_month,
            last_month=settings.last_month,
        )
    return Simulator(
        seed=settings.simulator_seed,
        trips_per_month=settings.simulator_trips_per_month,
        base_trips=settings.simulator_base_trips,
        first_month=settings.first_month,
        last_month=settings.last_month,
        scenario=settings.simulator_scenario,
        scenario_from=settings.simulator_scenario_from,
    )
