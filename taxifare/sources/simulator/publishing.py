"""What becomes of rides on their way into the published file: keys, passengers, and what goes wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from taxifare.sources.simulator.city import Integers
from taxifare.trips.table import DTYPES

_PASSENGERS = np.array([1, 2, 5, 3, 4, 6])
_PASSENGER_SHARES = np.array([0.6938, 0.1483, 0.0711, 0.0441, 0.0216, 0.0211])

# Share of published rows with a defect, one for each kind.
ROUND_TRIPS = 0.007
ZERO_COORDINATES = 0.018
ZERO_PICKUP = 0.001
ZERO_DROPOFF = 0.001
NO_PASSENGERS = 0.0035
ABSURD_PASSENGERS = 1e-5
NEGATIVE_FARES = 4e-5
ZERO_FARES = 3e-5
ABSURD_FARES = 1e-5
NULL_DROPOFFS = 1e-5


def draw_passengers(rng: np.random.Generator, trips: int) -> Integers:
    """Returns how many ride on each trip."""
    return rng.choice(_PASSENGERS, trips, p=_PASSENGER_SHARES)


def keys_of(start: np.datetime64, seconds: Integers) -> pd.Series:
    """Returns a unique text for each ride as Kaggle writes it: `2015-01-27 13:08:24.0000001`.

    The seventh decimal counts the rides that start in the same second, so it is a time in steps of 100 ns – and the
    time's own text, cut to seven decimals, is the key: no string is formatted row by row.
    """
    of_second = np.arange(len(seconds)) - np.searchsorted(seconds, seconds) + 1
    time_ns = start.astype("datetime64[ns]").astype(np.int64) + seconds * 1_000_000_000 + of_second * 100
    text = pc.utf8_slice_codeunits(pa.array(time_ns, pa.timestamp("ns")).cast(pa.string()), 0, 27)
    return pd.Series(text, dtype=DTYPES["text"])


def spoil(rng: np.random.Generator, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Ensures that the columns are as they are published: with what goes wrong between meter and file, as often."""
    pickup, dropoff = ("pickup_longitude", "pickup_latitude"), ("dropoff_longitude", "dropoff_latitude")
    fares, passengers = columns["fare_amount"], columns["passenger_count"]

    def some(share: float) -> npt.NDArray[np.intp]:
        return np.flatnonzero(rng.random(len(fares)) < share)

    for ends, share, wrong in (
        (pickup + dropoff, ZERO_COORDINATES, 0.0),
        (pickup, ZERO_PICKUP, 0.0),
        (dropoff, ZERO_DROPOFF, 0.0),
        (dropoff, NULL_DROPOFFS, np.nan),
    ):
        rides = some(share)
        for name in ends:
            columns[name][rides] = wrong
    passengers[some(NO_PASSENGERS)] = 0
    passengers[some(ABSURD_PASSENGERS)] = 208
    negative, absurd = some(NEGATIVE_FARES), some(ABSURD_FARES)
    fares[negative] *= -1
    fares[some(ZERO_FARES)] = 0.0
    fares[absurd] = 6770.0
