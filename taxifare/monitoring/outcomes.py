"""Outcomes: quotes and what their rides came to, a row for each ride and version; and the error day by day.

The two monthly tables are defined here, column by column. A month is that of the pickup, on the city's clock. `joining`
makes the rows.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from taxifare.trips.columns import COORDINATES
from taxifare.trips.features import haversine_km

PREDICTIONS = pa.schema(
    [
        pa.field("ride_id", pa.string(), nullable=False),
        pa.field("served_as", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("sequence", pa.int64()),
        pa.field("bundle", pa.string()),
        pa.field("asked_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("pickup_datetime", pa.timestamp("us"), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in COORDINATES),
        pa.field("passenger_count", pa.int32(), nullable=False),
        pa.field("predicted", pa.float64(), nullable=False),
        pa.field("quoted", pa.float64(), nullable=False),
    ]
)
"""`served_predictions`: answers that were given (`production`), or only logged (`shadow`).

`sequence` is that of the promotion in force, null where a bundle was served directly; `bundle` is null for files of
rides. `asked_at` is UTC, the pickup is on the city's clock without a zone. `predicted` is the prediction, from which
errors are computed, as on validation trips; `quoted` is what the meter would show. Both, and the truth, are in the
target's unit.
"""

OUTCOMES = pa.schema(
    [
        *PREDICTIONS,
        pa.field("truth", pa.float64()),
        pa.field("reference", pa.float64()),
        pa.field("fate", pa.string(), nullable=False),
        pa.field("told_least", pa.float64()),
        pa.field("told_most", pa.float64()),
        pa.field("began_at", pa.timestamp("us")),
    ]
)
"""`served_outcomes`: the same rows, with what each ride came to.

`truth` is null where it is not known, and `fate` says why (docs/monitoring.md); `reference` is what a plain rate per km
expects of the ride, see `expected`. Outcomes reported to the service are kept as the lowest and the highest reported
for the ride, so that it does not matter when, how often or in which order that was. `began_at` is the pickup as the
source has published it, on the city's clock; null where it has not.
"""

DAY_RIDES = 100
"""Fewest rides for which a day has a rate of its own; smaller days share one."""

_Numbers = npt.NDArray[np.float64]


def given(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of what customers were quoted; the others were logged in shadow."""
    return outcomes[outcomes["served_as"] == "production"]


def days_of(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns, by day of the pickup, how far predictions were off; days without a truth are left out.

    Rows of all versions and roles count alike: select rows first, see `given`.

    Args:
        outcomes: Rows with the columns of `OUTCOMES`.

    Returns:
        Indexed by day (`datetime64[ns]`, named `day`), oldest first, with the columns `rides`, `mae`, `difficulty` (the
        error of the reference on the same rides), `skill` (1 - mae / difficulty; NaN where the difficulty is 0 or
        unknown) and `bias` (predicted minus truth), errors in the target's unit.
    """
    known = outcomes[outcomes["truth"].notna()]
    error = known["predicted"] - known["truth"]
    days = pd.DataFrame(
        {
            "day": known["pickup_datetime"].dt.normalize().astype("datetime64[ns]"),
            "rides": 1,
            "mae": error.abs(),
            "difficulty": (known["reference"] - known["truth"]).abs(),
            "bias": error,
        }
    ).groupby("day")
    found = days.agg({"rides": "size", "mae": "mean", "difficulty": "mean", "bias": "mean"})
    skill = 1 - found["mae"] / found["difficulty"].where(found["difficulty"] > 0)
    return found.assign(skill=skill)[["rides", "mae", "difficulty", "skill", "bias"]]


def expected(rides: pd.DataFrame) -> pd.Series:
    """Returns what a constant and a rate per km expect of each ride, fitted on the other rides of its day.

    It follows every change at once, as the difficulty of a month does on its trips (`gate.scores`), and needs no trips
    other than those that were asked for. Each ride is left out of its own fit, so none makes itself easy. Days with
    fewer than `DAY_RIDES` rides are fitted together.

    Args:
        rides: Each ride once, with pickup time, coordinates and a known `truth`.

    Returns:
        In the unit of the truth, by the index of the rides; NaN where there is nothing to fit to.
    """
    distances_km = haversine_km(*(rides[name].to_numpy(np.float64) for name in COORDINATES))
    truths = rides["truth"].to_numpy(np.float64)
    days = rides["pickup_datetime"].to_numpy().astype("datetime64[D]").astype(np.int64)
    _, day, counts = np.unique(days, return_inverse=True, return_counts=True)
    groups = np.where(counts[day] >= DAY_RIDES, day, -1)
    found = np.full(len(rides), np.nan)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        found[rows] = _without_itself(distances_km[rows], truths[rows])
    return pd.Series(found, index=rides.index, name="reference")


def _without_itself(distances_km: _Numbers, truths: _Numbers) -> _Numbers:
    """Returns what the line through the other points expects at each; NaN with fewer than three, or all at one spot.

    With residuals e of the line through all points and leverages h, the line through the others is off by e / (1 - h).

    >>> _without_itself(np.array([0.0, 1.0, 2.0]), np.array([3.0, 5.0, 10.0])).round(6).tolist()
    [0.0, 6.5, 7.0]
    """
    away = distances_km - distances_km.mean() if len(truths) else distances_km
    spread = float(away @ away)
    if len(truths) < 3 or spread == 0:
        return np.full(len(truths), np.nan)
    residuals = truths - truths.mean() - away * float(away @ truths) / spread
    rest = 1 - 1 / len(truths) - away**2 / spread
    found: _Numbers = truths - np.divide(residuals, rest, out=np.full(len(truths), np.nan), where=rest > 1e-9)
    return found
