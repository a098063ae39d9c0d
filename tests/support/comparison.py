"""A month of rides by hand, and two models that are wrong about them by so much."""

from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taxifare.gate.evidence import Appraisal, Evidence
from taxifare.gate.scores import (
    score,
)
from taxifare.gate.verdict import judge
from taxifare.model.exposure import Exposure
from taxifare.trips.editions import Edition, Trips
from tests.support.approvals import contender
from tests.support.small import small_settings

FARES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(2.5, 399, allow_subnormal=False))

NO_SETTINGS = Path("nowhere")

DECEMBER = Exposure(
    subject="base", revision="b", first_pickup=datetime(2009, 1, 1), last_pickup=datetime(2014, 12, 31, 23, 59)
)


def rides(number: int = 1_000) -> pd.DataFrame:
    """Rides of January with what a verdict looks at: one every 44 minutes, 5 USD plus 2 USD a km plus some luck."""
    rng = np.random.default_rng(7)
    pickups = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.arange(number) * 44, unit="min")
    kilometres = rng.uniform(1, 12, number)
    airports = {f"{end}_{code}_km": np.full(number, 20.0) for end in ("pickup", "dropoff") for code in AIRPORTS}
    return pd.DataFrame(
        {
            "key": pd.Series([f"ride {row}" for row in range(number)], dtype="string[pyarrow]"),
            "pickup_datetime": pickups,
            "target": 5 + 2 * kilometres + rng.normal(0, 1, number),
            "haversine_km": kilometres.astype(np.float32),
            "is_night": ((pickups.hour >= 20) | (pickups.hour < 6)).astype(np.float32),
            "is_rush": ((pickups.hour >= 16) & (pickups.hour < 20)).astype(np.float32),
            "is_validation": np.arange(number) >= number * 4 // 5,
            **airports,
        }
    )


AIRPORTS = ("jfk", "lga", "ewr")

RIDES = rides()

VALIDATION = RIDES[RIDES["is_validation"]]

PAID = VALIDATION["target"].to_numpy()


def off_by(errors: npt.ArrayLike) -> pd.Series:
    """Predictions of the validation rides that are wrong by so much."""
    return pd.Series(PAID + np.asarray(errors), index=VALIDATION["key"])


def scored(version: str, predicted: pd.Series, *exposure: Exposure, trips: pd.DataFrame = VALIDATION) -> Appraisal:
    """What scoring a version comes to that predicts these fares."""
    paid = trips.set_index("key")["target"]
    scores = score(predicted.reindex(paid.index).to_numpy(np.float64), paid.to_numpy())
    return Appraisal(version=version, contender=contender(version, scores), exposure=exposure)


def judged(
    production_predicted: pd.Series | None,
    staging_predicted: pd.Series,
    *,
    production: Appraisal | None = None,
    staging: Appraisal | None = None,
    trips: pd.DataFrame = RIDES,
    **tolerances: float,
) -> Evidence:
    """The evidence on two models' predictions; version 1 is production and knows the years before."""
    if production is None and production_predicted is not None:
        production = scored("1", production_predicted, DECEMBER)
    return judge(
        trips=Trips(Edition("2015-01", "r1"), trips),
        production=production or Appraisal(version=None),
        production_predicted=production_predicted,
        staging=staging or scored("2", staging_predicted, DECEMBER),
        staging_predicted=staging_predicted,
        settings=small_settings(NO_SETTINGS, **tolerances),
    )


def noise(size: float, seed: int = 1) -> npt.NDArray[np.float64]:
    """Errors of both signs."""
    return np.random.default_rng(seed).normal(0, size, len(PAID))
