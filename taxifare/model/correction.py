"""The correction: how far predictions are raised against the bias of a model that predicts medians.

Why the median is corrected, and by how much: docs/decisions.md, under model.
"""

import numpy as np
import numpy.typing as npt

CORRECTION_COST = 0.0125
"""Share of the mean absolute error that a correction of the bias may cost on held-out trips, which are of the training
trips' time. Fares mostly rise, so later trips pay for less of it: those of 2014 nothing (`docs/model.md`)."""


def correction_share(errors: npt.NDArray[np.floating], raises: npt.NDArray[np.floating]) -> float:
    """Returns how much of the way to the upper prediction to go against the bias: until the mean error is zero at most.

    A model that makes the mean absolute error least predicts the median of what a ride may cost or take, and rides have
    more ways to be dear or long than cheap or short: the predictions come to less than the truth. The median is the
    best single answer; who adds up many of them wants the sum right. Going towards a higher quantile raises each by as
    much as its ride is uncertain, which costs less than raising all by the same; it goes as far as costs
    `CORRECTION_COST` of the MAE.

    Args:
        errors: Predicted minus actual on trips the model was not trained on, shape (n,), n > 0.
        raises: How far the upper prediction of each is above the predicted one, shape (n,), none below zero.

    >>> correction_share(np.array([0.0, 0.0, 0.0, -4.0]), np.array([0.0, 0.0, 0.0, 2.0]))
    1.0
    >>> round(correction_share(np.array([0.0, 0.0, 0.0, -4.0]), np.array([1.0, 1.0, 1.0, 1.0])), 6)
    0.025
    """
    from scipy.optimize import brentq

    bearable = (1 + CORRECTION_COST) * float(np.abs(errors).mean())
    mean_raise = float(raises.mean())
    if mean_raise <= 0:
        return 0.0
    most = min(1.0, max(0.0, -float(errors.mean()) / mean_raise))

    def excess(share: float) -> float:
        return float(np.abs(errors + share * raises).mean()) - bearable

    # The error is convex in the share, so what is affordable is an interval from 0 on.
    return most if excess(most) <= 0 else float(brentq(excess, 0.0, most, xtol=1e-12))
