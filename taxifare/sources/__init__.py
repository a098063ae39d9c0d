"""Where months of trips come from: one module a source, one protocol for all, one place that picks by setting.

What becomes of trips once they are published is the business of the packages above. A new source is a module here, a
group of settings (`taxifare/settings.py`), and an entry in `make_source`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

from taxifare.settings import Settings
from taxifare.sources.base import CannotTellError, MonthNotPublishedError, NoBaseError, SourceError, TripSource
from taxifare.sources.bigquery import BigQuery
from taxifare.sources.chicago import Chicago
from taxifare.sources.folder import Folder
from taxifare.sources.lewagon import LeWagon
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.tlc import Tlc
from taxifare.sources.web import OnDownload, Web, log_download
from taxifare.trips.publication import BasePublication, Publication

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

__all__ = [
    "BasePublication",
    "CannotTellError",
    "MonthNotPublishedError",
    "NoBaseError",
    "Publication",
    "SourceError",
    "TripSource",
    "make_source",
]


def make_source(
    settings: Settings,
    *,
    on_download: OnDownload = log_download,
    bigquery_client: "Callable[[], AbstractContextManager[Client]] | None" = None,
) -> TripSource:
    """Returns the source that `TRIP_SOURCE` names, set up as the settings say.

    Args:
        settings: In force.
        on_download: Told how much of a file has arrived.
        bigquery_client: Opens a client of BigQuery; by default one with the credentials of the environment.

    Raises:
        SourceError: The source cannot be set up, such as a folder with a file pattern it cannot read months from.
    """
    web = Web(settings.downloads, on_download=on_download)
    sources: Mapping[str, Callable[[Settings], TripSource]] = {
        "simulator": Simulator.from_settings,
        "folder": Folder.from_settings,
        "lewagon": partial(LeWagon.from_settings, web=web),
        "tlc": partial(Tlc.from_settings, web=web),
        "bigquery": partial(BigQuery.from_settings, client=bigquery_client),
        "chicago": partial(Chicago.from_settings, web=web),
    }
    return sources[settings.trip_source](settings)
