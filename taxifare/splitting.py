"""Splitting: which trips a model learns from and which it is judged by."""

import numpy as np
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
    training_rows = len(trips) - round(len(trips) * validation_share)
    if training_rows in (0, len(trips)):
        raise SplitError(
            f"{len(trips)} trips cannot be split with a validation share of {validation_share}: one part would be empty"
        )
    times = trips["pickup_datetime"].to_numpy()
    last_training_time = np.partition(times, training_rows - 1)[training_rows - 1]
    is_validation = times > last_training_time
    if not is_validation.any():
        raise SplitError(
            f"{len(trips)} trips cannot be split by time: none starts after the moment of the cut, {last_training_time}"
        )
    return pd.Series(is_validation, index=trips.index, name="is_validation")
