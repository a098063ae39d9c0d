"""The months of a replay and the base years before them, as the monthly assets make them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxifare.digests import digest
from taxifare.replay.errors import ReplayError
from taxifare.settings import Settings
from taxifare.sources.all_months import AllMonths
from taxifare.sources.whole_months import taken
from taxifare.training.base_trips import BaseTrips
from taxifare.training.gathering import gather_base
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import Month, months_between
from taxifare.trips.preparation import faults_of, preprocess, split_month
from taxifare.trips.wholeness import Extent, extent_of, lacks_end, lacks_rides


@dataclass(frozen=True)
class ReplayedMonth:
    """A month, ready to be judged and learned from.

    Attributes:
        month: Which one.
        trips: Preprocessed.
        rows: Where its validation trips are among those of all months.
        key: Changes when its trips or those of an earlier month change.
    """

    month: Month
    trips: Trips
    rows: slice
    key: str

    @property
    def targets(self) -> npt.NDArray[np.float64]:
        """What the predictions of its validation trips should be, shape (n,)."""
        return self.trips.validation["target"].to_numpy(np.float64)


def replayed_months(
    history: AllMonths, first: Month, last: Month, settings: Settings
) -> tuple[BaseTrips, list[ReplayedMonth]]:
    """Returns the trips before the first month, and the months from it to the last one.

    Args:
        history: Whose trips; its base ends before the first month.
        first: The first month.
        last: The last one.
        settings: City, target, and what a sound month is.

    Raises:
        ReplayError: A month has no trips or is not whole, or the checks would stop it.
        SourceError: The source does not give its trips.
    """
    published = history.months()
    asked = list(months_between(first, last))
    missing = [str(month) for month in asked if month not in published]
    if missing or not asked:
        raise ReplayError(
            f"expected trips of every month from {first} to {last}, "
            f"received none of {', '.join(missing) or 'them: the last month is before the first'}. "
            "taxifare months lists those that are published"
        )
    base = gather_base(history.read_base(), settings).trips
    months, extents = list[ReplayedMonth](), dict[Month, Extent]()
    row, key = 0, key_of_base(base)
    for month in asked:
        trips = _prepared(month, history, settings, extents)
        end = row + len(trips.validation)
        key = digest([key, digest([trips.edition.subject, trips.edition.revision, len(trips.frame), end - row])])
        months.append(ReplayedMonth(month, trips, slice(row, end), key))
        row = end
    _ensure_whole(extents, published, settings)
    return base, months


def key_of_base(base: BaseTrips) -> str:
    """Returns a short text that changes when the base trips do."""
    return digest([base.edition.subject, base.edition.revision, base.training_trips, base.validation_trips])


def _ensure_whole(extents: Mapping[Month, Extent], revisions: Mapping[Month, str], settings: Settings) -> None:
    """Ensures that months are whole, each held against those beside it, or were taken anyway.

    Raises:
        ReplayError: One is not: its own run waits.
    """
    for month, extent in extents.items():
        rides = {other: seen.rides for other, seen in extents.items() if other != month}
        why = lacks_end(month, extent, settings.month_ends_within_hours) or lacks_rides(
            month, extent.rides, rides, settings.month_least_share
        )
        if why is not None and taken(month, revisions[month], settings.lake) is None:
            raise ReplayError(
                f"{month} is not whole, and its own run would wait: {why}. Replay other months, or take it as it is: "
                f'taxifare take {month} --by YOU --reason "WHY"'
            )


def _prepared(month: Month, history: AllMonths, settings: Settings, extents: dict[Month, Extent]) -> Trips:
    """Returns a month's clean trips with features, and notes how far it goes; one that is not sound is an error."""
    published = history.read_month(month)
    extents[month] = extent_of(published)
    raw = split_month(published, month, settings.validation_share)
    trips = preprocess(raw, settings.city_facts, settings.target_facts).trips
    needed = (*feature_names(settings.city_facts), "target")
    faults = faults_of(raw, trips.frame, month, settings.minimum_trips, needed)
    if faults:
        told = "; ".join(fault.in_words(dict(settings.trip_columns)) for fault in faults)
        raise ReplayError(f"{month}, {published.origin}: the checks would stop this month: {told}")
    return trips
