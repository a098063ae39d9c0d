"""What is learned from a month that is too large for memory, and what models are judged by there.

Of its training trips 800,000 and of its validation trips 200,000 are drawn evenly, always the same of an edition. Why
that many: docs/decisions.md, under training.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from taxifare.trips import stored
from taxifare.trips.cities import City
from taxifare.trips.columns import KNOWN_AT_PICKUP
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.preparation import features_of, with_features
from taxifare.trips.stored import StoredTrips, as_frame

Chosen: TypeAlias = npt.NDArray[np.bool_]
"""Which of a month's trips, in the order of its file."""

_JUDGED = ("key", *KNOWN_AT_PICKUP, "target")


class DrawnTrips(Trips):
    """A large month as it is learned from and judged by. Its frames are read when they are asked for, and not kept.

    Args:
        trips: The month's clean trips, with `target` and `is_validation`.
        city: Gives the features.
        judged_by: The names of those that judging asks for, see `slices.judged_features`.
        learned: Which trips were drawn to be learned from.
        judged: Which trips were drawn to judge by.
        also: Which trips for validation were drawn to be learned as well, when the whole month is.
    """

    def __init__(
        self, trips: StoredTrips, city: City, judged_by: Sequence[str], *, learned: Chosen, judged: Chosen, also: Chosen
    ) -> None:
        own: dict[str, object] = {"edition": trips.edition, "target": trips.target, "_stored": trips, "_city": city}
        own |= {"_judged_by": judged_by, "_learned": learned, "_judged": judged, "_also": also}
        for name, value in own.items():
            object.__setattr__(self, name, value)
        # Whoever asks while another one still has a frame gets that one.
        object.__setattr__(self, "_in_use", WeakValueDictionary[str, pd.DataFrame]())

    _stored: StoredTrips
    _city: City
    _judged_by: Sequence[str]
    _learned: Chosen
    _judged: Chosen
    _also: Chosen
    _in_use: WeakValueDictionary[str, pd.DataFrame]

    @property
    def rides(self) -> int:
        """How many clean trips the month has, drawn or not."""
        return len(self._stored)

    @property
    def training_trips(self) -> int:
        """How many trips are learned from."""
        return int(np.count_nonzero(self._learned))

    @property
    def validation_trips(self) -> int:
        """How many trips models are judged by."""
        return int(np.count_nonzero(self._judged))

    @property
    def last_pickup(self) -> pd.Timestamp:
        """When the month's last trip begins."""
        latest = [batch["pickup_datetime"].max() for batch in self._stored.batches(["pickup_datetime"])]
        return pd.Timestamp(max(latest))

    @property
    def frame(self) -> pd.DataFrame:
        """The trips that models learn from."""
        return self.training

    @property
    def training(self) -> pd.DataFrame:
        """The trips that models learn from: those that were drawn."""
        frame = self._in_use.get("training")
        if frame is None:
            frame = with_features(_chosen(self._stored, self._learned), self._city)
            self._in_use["training"] = frame
        return frame

    @property
    def validation(self) -> pd.DataFrame:
        """The trips that models are judged by: those that were drawn, with the features that judging asks for."""
        frame = self._in_use.get("validation")
        if frame is None:
            trips, names = _chosen(self._stored, self._judged, _JUDGED), list(self._judged_by)
            features = pd.DataFrame(features_of(trips, self._city, names).T, columns=names, copy=False)
            frame = pd.concat([trips, features], axis=1, copy=False)
            self._in_use["validation"] = frame
        return frame

    def without_validation(self) -> "DrawnTrips":
        """Returns the trips with none kept for validation, of which as large a share is drawn."""
        nothing = np.zeros_like(self._judged)
        return DrawnTrips(
            self._stored,
            self._city,
            self._judged_by,
            learned=self._learned | self._also,
            judged=nothing,
            also=nothing,
        )


def drawn(trips: StoredTrips, city: City, judged_by: Sequence[str]) -> DrawnTrips:
    """Returns what is learned from a prepared month, and judged by.

    Args:
        trips: The month's clean trips, with `target` and `is_validation`.
        city: Gives the features.
        judged_by: The names of those that judging asks for, see `slices.judged_features`.
    """
    marks = [batch["is_validation"].to_numpy(bool) for batch in trips.batches(["is_validation"])]
    validation = np.concatenate([np.empty(0, dtype=np.bool_), *marks])
    draws = np.random.default_rng(_seed(trips.edition))
    share = _share_of(~validation, stored.MOST_LEARNED)
    learned, also = (_drawn_from(part, share, draws) for part in (~validation, validation))
    judged = _drawn_from(validation, _share_of(validation, stored.MOST_JUDGED), draws)
    return DrawnTrips(trips, city, judged_by, learned=learned, judged=judged, also=also)


def _seed(edition: Edition) -> int:
    """Returns what an edition's draws depend on: the same edition has the same."""
    return int.from_bytes(hashlib.sha256(f"{edition.subject}:{edition.revision}".encode()).digest()[:8])


def _share_of(part: Chosen, most: int) -> float:
    """Returns which share of the chosen rows at most so many are."""
    return min(most / max(int(np.count_nonzero(part)), 1), 1.0)


def _drawn_from(part: Chosen, share: float, draws: np.random.Generator) -> Chosen:
    """Returns which of the chosen rows are drawn."""
    rows, chosen = np.flatnonzero(part), np.zeros(len(part), dtype=np.bool_)
    chosen[draws.choice(rows, round(share * len(rows)), replace=False, shuffle=False)] = True
    return chosen


def _chosen(trips: StoredTrips, chosen: Chosen, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Returns the chosen trips; on the way each column is in memory once."""
    tables, start = list[pa.Table](), 0
    for table in trips.tables(columns):
        tables.append(table.filter(pa.array(chosen[start : start + len(table)])))
        start += len(table)
    together = pa.concat_tables(tables)
    del table
    tables.clear()
    return as_frame(together, is_used_up=True)
