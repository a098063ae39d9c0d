"""A source whose months can be restated under a test's eyes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pandas as pd

from taxifare.sources.base import TripSource
from taxifare.trips.months import Month
from taxifare.trips.publication import Publication


@dataclass
class Published(TripSource):
    """The simulated city, with months that were restated, and a count of what was read."""

    city: TripSource
    restated: dict[Month, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)

    def months(self) -> dict[Month, str]:
        return self.city.months() | {month: revision for month, (revision, _) in self.restated.items()}

    def read_month(self, month: Month) -> Publication:
        self.read.append(str(month))
        publication = self.city.read_month(month)
        if month not in self.restated:
            return publication
        revision, change = self.restated[month]
        return replace(publication, trips=change(publication.trips.copy()), revision=revision)
