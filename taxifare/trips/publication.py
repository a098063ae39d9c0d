"""Trips as a source published them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class Publication:
    """Trips as a source published them.

    Attributes:
        trips: A trip table (see `taxifare.trips`), unclean as published.
        revision: Identifies the content: equal exactly when the content is equal.
        origin: Where it was read, for people.
        is_validation: Which trips are for validation, by their index, where the source publishes that; else None.
        dropped: Published rows that are no trips of the table or were not drawn, by reason; empty where all are here.
    """

    trips: pd.DataFrame
    revision: str
    origin: str
    is_validation: pd.Series | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def pickups(self) -> npt.NDArray[np.datetime64]:
        """When the trips begin."""
        pickups: npt.NDArray[np.datetime64] = self.trips["pickup_datetime"].to_numpy()
        return pickups

    def known(self, column: str) -> int:
        """Returns how many trips have a value in a column."""
        return int(self.trips[column].count())


@dataclass(frozen=True)
class LargePublication:
    """A month of more trips than a frame should hold, as a source published it.

    Attributes:
        pickups: When the trips begin, in any order.
        parts: Yields the trips sorted by pickup time, some at a time, anew at each call.
        revision: Identifies the content.
        origin: Where it was read, for people.
        dropped: Published rows that are no trips of the table or were not drawn, by reason.
        counts: How many trips have a value, of columns that may lack it.
    """

    pickups: npt.NDArray[np.datetime64] = field(repr=False)
    parts: Callable[[], Iterator[pd.DataFrame]] = field(repr=False)
    revision: str
    origin: str
    dropped: Mapping[str, int]
    counts: Mapping[str, int]

    def known(self, column: str) -> int:
        """Returns how many trips have a value in a column."""
        return self.counts.get(column, len(self.pickups))


@dataclass(frozen=True)
class BasePublication:
    """The trips of the base years as a source published them, in parts: they may be more than memory holds.

    Attributes:
        parts: Read one after the other, when they are asked for; together they are the base years.
        revision: Identifies the content of all parts.
        origin: Where they are read, for people.
    """

    parts: Iterable[Publication]
    revision: str
    origin: str

    def whole(self) -> Publication:
        """Returns all parts together, sorted by pickup time, for what needs them in memory."""
        dropped, trips = Counter[str](), []
        for part in self.parts:
            dropped.update(part.dropped)
            trips.append(part.trips)
        together = pd.concat(trips).sort_values("pickup_datetime", kind="stable", ignore_index=True)
        return Publication(together, self.revision, self.origin, dropped=dropped)
