"""Meters: the fares that a city's taxi meter can show, by date. For what customers are shown, and nothing else.

A meter counts in steps, and a quote between two of them is a fare that nobody pays. Comparisons are of predictions as
they are: rounding widens their differences. So no training depends on a meter, and it is kept apart from the facts of
the city, which trainings do depend on.
"""

from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np
import numpy.typing as npt

Fares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeterStep:
    """What a meter shows from a date on: its first fare, and that with so many steps more, in the city's currency.

    Bundles have these names, which are of the first city's.
    """

    since: date
    first_usd: float
    step_usd: float


Meter = tuple[MeterStep, ...]
"""The steps of a city's meter, oldest first; none where they are not known."""


def quoted(predicted: npt.NDArray[np.floating], pickups: npt.ArrayLike, meter: Meter) -> Fares:
    """Returns fares as the meter in force at the pickup would show them: the nearest step, the first one at least.

    Fares of a time whose steps are not known stay as they are.

    >>> meter = (MeterStep(date(2004, 5, 3), 2.50, 0.40), MeterStep(date(2012, 9, 4), 2.50, 0.50))
    >>> pickups = np.array(["2012-09-03T23:59", "2012-09-04T00:00"], "datetime64[s]")
    >>> quoted(np.array([9.0, 9.1]), pickups, meter).round(2).tolist()
    [8.9, 9.0]
    >>> quoted(np.array([1.0, 9.1]), pickups, meter).round(2).tolist()
    [2.5, 9.0]
    >>> quoted(np.array([9.03, 9.1]), pickups, ()).tolist()
    [9.03, 9.1]

    Args:
        predicted: Predicted fares, in the city's currency, shape (n,).
        pickups: When the rides begin, shape (n,).
        meter: The city's.
    """
    fares: Fares = np.array(predicted, np.float64)
    if not meter:
        return fares
    since, first_usd, step_usd = _columns(meter)
    number = np.searchsorted(since, np.asarray(pickups), side="right")
    first, step = first_usd[number], step_usd[number]
    shown: Fares = first + step * np.maximum(np.rint((fares - first) / step), 0)
    return np.where(number > 0, shown, fares)


def steps_of(pickups: npt.ArrayLike, meter: Meter) -> Fares:
    """Returns the steps in which the meter in force at the pickup counts; NaN for a time whose steps are not known.

    >>> meter = (MeterStep(date(2012, 9, 4), 2.50, 0.50),)
    >>> steps_of(np.array(["2001-01-01", "2015-03-14T18:05"], "datetime64[s]"), meter).tolist()
    [nan, 0.5]
    """
    if not meter:
        return np.full(np.shape(pickups), np.nan)
    since, _, step_usd = _columns(meter)
    number = np.searchsorted(since, np.asarray(pickups), side="right")
    return np.where(number > 0, step_usd[number], np.nan)


@cache
def _columns(meter: Meter) -> tuple[npt.NDArray[np.datetime64], Fares, Fares]:
    """Returns when each step begins, its first fare and its size; before the first stands one of no effect."""
    since = np.array([step.since for step in meter], "datetime64[s]")
    first, size = ([step.first_usd for step in meter], [step.step_usd for step in meter])
    return since, np.array([0.0, *first]), np.array([1.0, *size])
