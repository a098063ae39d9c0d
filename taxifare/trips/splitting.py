"""Splitting: which trips a model learns from and which it is judged by."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


class SplitError(ValueError):
    """Trips that cannot be split into a part to learn from and a later part to judge by."""


def split_by_time(trips: pd.DataFrame, validation_share: float) -> pd.Series:
    """Returns which trips are for validation: the latest share by pickup time.

    A moment divides the trips: those that start at the moment of the cut all go to training, so that the last
    training trip starts strictly before the first validation trip. Ties can make the validation part smaller than
    the share, never larger by more than rounding.

    Args:
        trips: Rows with `pickup_datetime`, in any order.
        validation_share: Share of the rows wanted for validation, between 0 and 1, both excluded.

    Returns:
        Booleans named `is_validation` with the trips' index; False is training.

    Raises:
        SplitError: The share is out of range, or one of the parts would be empty.

    >>> days = pd.DataFrame({"pickup_datetime": pd.date_range("2015-01-01", periods=5)})
    >>> split_by_time(days, 0.4).tolist()
    [False, False, False, True, True]
    """
    if not 0 < validation_share < 1:
        raise SplitError(f"expected a validation share between 0 and 1, received {validation_share}")
    times = trips["pickup_datetime"].to_numpy()
    is_validation = times > last_training_time(times, round(len(trips) * validation_share))
    return pd.Series(is_validation, index=trips.index, name="is_validation")


def last_training_time(times: npt.NDArray[Any], validation_rows: int) -> np.datetime64:
    """Returns the moment that divides trips: those that start after it, at most so many, are for validation.

    Args:
        times: Pickup times, in any order; of all trips, or of the latest ones, more than are for validation.
        validation_rows: Rows wanted for validation.

    Raises:
        SplitError: One of the parts would be empty.
    """
    if validation_rows in (0, len(times)):
        raise SplitError(
            f"{len(times)} trips cannot be split into {len(times) - validation_rows} to learn from and "
            f"{validation_rows} to judge by: one part would be empty"
        )
    last_training_row = len(times) - validation_rows - 1
    moment: np.datetime64 = np.partition(times, last_training_row)[last_training_row]
    if not (times > moment).any():
        raise SplitError(
            f"{len(times)} trips cannot be split by time: none starts after the moment of the cut, {moment}"
        )
    return moment
