"""Where months of trips come from: one module a source, one protocol for all, one place that picks by setting."""

from taxifare.settings import Settings
from taxifare.sources.base import MonthNotPublishedError, Publication, SourceError, TripSource
from taxifare.sources.folder import Folder
from taxifare.sources.simulator import Simulator

__all__ = ["MonthNotPublishedError", "Publication", "SourceError", "TripSource", "make_source"]


def make_source(settings: Settings) -> TripSource:
    """Returns the source that `TRIP_SOURCE` names, set up as the settings say.

    Raises:
        SourceError: The source cannot be set up, such as a folder with a file pattern it cannot read months from.
    """
    if settings.trip_folder is not None and settings.trip_source == "folder":
        return Folder(
            path=settings.trip_folder.expanduser().absolute(),
            months_pattern=settings.trip_folder_months,
            base_pattern=settings.trip_folder_base,
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
