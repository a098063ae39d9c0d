"""Gains: how much closer one model is than another, added up by day, so that months can be added.

Rides of one day go wrong together – rain, a parade, a closed bridge – so days are the units of chance, not rides: on
real trips standard errors by day are 1.2 to 1.4 times those by ride.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.gate.scores import FloatArray, Interval
from taxifare.values import Frozen


class Gains(Frozen):
    """The gains of some rides: what their mean and its interval are made of, and nothing more.

    With n_d rides and a sum of gains S_d on day d:

    Attributes:
        rides: n = Σ n_d.
        days: D, those with rides.
        total: Σ S_d.
        total_squares: Σ S_d².
        cross_products: Σ S_d n_d.
        ride_squares: Σ n_d².
    """

    rides: int = 0
    days: int = 0
    total: float = 0.0
    total_squares: float = 0.0
    cross_products: float = 0.0
    ride_squares: float = 0.0

    @property
    def mean(self) -> float:
        """The mean gain a ride, 0 without rides."""
        return self.total / self.rides if self.rides else 0.0

    @property
    def interval(self) -> Interval:
        """The mean with its 95 % interval; bounds are infinite on fewer than two days.

        ḡ ± t(0.975, D-1) · se with ḡ = Σ S_d / n and se = √(D/(D-1) · Σ (S_d - n_d ḡ)²) / n: the cluster-robust error
        of a mean with days as clusters (Liang and Zeger 1986), and Student's t for their small number.

        >>> two_days = gains_of(np.array([1.0, 2.0, 3.0, 2.0]), np.array(["2015-01-01"] * 2 + ["2015-01-02"] * 2))
        >>> two_days.interval.model_dump()
        {'mean': 2.0, 'low': -4.35310..., 'high': 8.35310...}
        """
        if self.days < 2:
            return Interval(mean=self.mean, low=-math.inf, high=math.inf)
        mean = self.mean
        # Rounding may leave the sum just below zero where every day gains the same.
        spread = max(self.total_squares - 2 * mean * self.cross_products + mean**2 * self.ride_squares, 0.0)
        half_width = _t(self.days - 1) * math.sqrt(self.days / (self.days - 1) * spread) / self.rides
        return Interval(mean=mean, low=mean - half_width, high=mean + half_width)

    def __add__(self, other: "Gains") -> "Gains":
        """Returns the gains of these rides and of others; a day that has rides in both counts as two."""
        return Gains(**{name: getattr(self, name) + getattr(other, name) for name in Gains.model_fields})


class SlicedGains(Frozen):
    """Gains of all rides, and of each kind of them."""

    all: Gains = Gains()
    slices: Mapping[str, Gains] = {}

    def __add__(self, other: "SlicedGains") -> "SlicedGains":
        """Returns the gains of both, see `Gains.__add__`."""
        names = dict.fromkeys([*self.slices, *other.slices])
        return SlicedGains(
            all=self.all + other.all,
            slices={name: self.slices.get(name, Gains()) + other.slices.get(name, Gains()) for name in names},
        )


def gains_of(gains: FloatArray, days: npt.NDArray[np.generic]) -> Gains:
    """Returns the gains of rides, added up by day.

    Args:
        gains: Of each ride, see `scores.paired_gains`; shape (n,).
        days: The day of each ride, shape (n,).
    """
    _, day = np.unique(days, return_inverse=True)
    rides = np.bincount(day).astype(np.float64)
    totals = np.bincount(day, weights=gains)
    return Gains(
        rides=len(gains),
        days=len(rides),
        total=float(totals.sum()),
        total_squares=float(totals @ totals),
        cross_products=float(totals @ rides),
        ride_squares=float(rides @ rides),
    )


def days_of(trips: pd.DataFrame) -> npt.NDArray[np.datetime64]:
    """Returns the day of each trip's pickup, shape (n,)."""
    days: npt.NDArray[np.datetime64] = trips["pickup_datetime"].to_numpy().astype("datetime64[D]")
    return days


@cache
def _t(degrees_of_freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees_of_freedom))
