"""Editions: a month, or the base years, as the source had it at one revision; and the trips themselves.

How an edition is marked in a file is the business of those who keep files: frames carry no marks in memory, because
pandas drops them on the way.

Why a type says it, not a mark: docs/decisions.md, under trips.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from taxifare.trips.targets import TargetName

BASE = "base"
"""Subject of the years before the first month."""

SO_FAR = "so-far-"
"""How the revision of an edition begins that is made of an open month's outcomes, not published by the source."""


def is_so_far(revision: str) -> bool:
    """Returns whether an edition of this revision has only the days of a month that were over.

    >>> is_so_far("so-far-2012-09-08-a1b2"), is_so_far("a1b2")
    (True, False)
    """
    return revision.startswith(SO_FAR)


@dataclass(frozen=True)
class Edition:
    """Which trips these are: a month (or `base`) as the source had it at one revision."""

    subject: str
    revision: str


class TripBatches(Protocol):
    """Trips of one edition that are read a batch at a time: they may be more than memory holds."""

    @property
    def edition(self) -> Edition:
        """Which trips these are."""
        ...

    def batches(self) -> Iterator[pd.DataFrame]:
        """Yields all trips, each once."""
        ...


@dataclass(frozen=True, eq=False)
class Trips:
    """Trips of one edition, in memory.

    Attributes:
        edition: Which trips these are.
        frame: A trip table, mostly with more columns: `is_validation` says which trips are for validation, `target` and
            the features are there once the trips have been preprocessed.
        target: What they were made ready for; None for trips as published.
    """

    edition: Edition
    frame: pd.DataFrame
    target: TargetName | None = None

    @property
    def rides(self) -> int:
        """How many trips there are."""
        return len(self.frame)

    @property
    def training_trips(self) -> int:
        """How many of them models learn from."""
        return len(self.training)

    @property
    def validation_trips(self) -> int:
        """How many of them are for validation."""
        return len(self.validation)

    @property
    def last_pickup(self) -> pd.Timestamp:
        """When the last trip begins."""
        last: pd.Timestamp = self.frame["pickup_datetime"].max()
        return last

    @property
    def training(self) -> pd.DataFrame:
        """The trips that models learn from."""
        return self._part(is_validation=False)

    @property
    def validation(self) -> pd.DataFrame:
        """The trips that models are judged by."""
        return self._part(is_validation=True)

    def _part(self, *, is_validation: bool) -> pd.DataFrame:
        """Returns one of the two parts; without a copy where it is one piece, which the latest trips mostly are."""
        rows = np.flatnonzero(self.frame["is_validation"].to_numpy(bool) == is_validation)
        if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
            return self.frame.iloc[rows[0] : rows[-1] + 1]
        return self.frame.iloc[rows]

    def batches(self) -> Iterator[pd.DataFrame]:
        """Yields the trips: all at once, for they are in memory."""
        yield self.frame

    def without_validation(self) -> "Trips":
        """Returns the trips with none kept for validation.

        >>> january = pd.DataFrame({"key": ["a", "b"], "is_validation": [False, True]})
        >>> len(Trips(Edition("2015-01", "a1b2"), january).without_validation().training)
        2
        """
        return replace(self, frame=self.frame.assign(is_validation=False))
