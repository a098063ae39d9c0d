"""Drift of the inputs: whether rides are others than those that production learned from. Shown; by itself no alarm.

Rides are held against training rides of the same mix of calendar – the same weekdays and hours – so that a month of
five Mondays, or a holiday at its end, is no drift. What inputs cannot say is whether prices have moved: at the largest
fare rise on record no feature did, see docs/monitoring.md.
"""

import numpy as np
import numpy.typing as npt

BINS = 10
"""Of the population stability index: tenths of the reference."""

LEAST_SHARE = 1e-4
"""What an empty bin counts as: a logarithm of nothing is no number."""


def psi(reference: npt.NDArray[np.float64], now: npt.NDArray[np.float64], bins: int = BINS) -> float:
    """Returns the population stability index: Σ (p - q) ln(p / q) over the reference's tenths.

    Values that fill a tenth and more by themselves, such as one passenger, are a bin of their own.

    >>> same = np.arange(1000.0)
    >>> psi(same, same)
    0.0
    >>> round(psi(same, same + 100), 2)
    0.76

    Args:
        reference: Values that production learned from, shape (n,).
        now: Values to hold against them, shape (m,).
        bins: How many.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))

    def shares(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        return np.maximum(counts / len(values), LEAST_SHARE)

    was, is_now = shares(reference), shares(now)
    return float(((is_now - was) * np.log(is_now / was)).sum())
