"""From two models' predictions on the same trips to a verdict a person can check.

An error is predicted minus actual, so a negative bias means that rides are priced too low. A gain is what a passenger's
ride is priced better by: |error of production| minus |error of staging|, per trip; positive means staging is better.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from taxifare.cities import City
from taxifare.features import airport_distances_km, haversine_km
from taxifare.settings import Settings

Z_95 = 1.959964
MINIMUM_SLICE_TRIPS = 30


class EvaluationError(ValueError):
    """Predictions that cannot be compared: not the same trips, or not finite numbers."""


class Verdict(StrEnum):
    """What the evidence says about replacing production by staging."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    REJECT = "REJECT"
    COLD_START = "COLD_START"
    UNSCORABLE = "UNSCORABLE"
    LEAK = "LEAK"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Frozen):
    """A mean per trip in USD with its 95 % confidence interval; infinite bounds where the trips are too few to say."""

    mean_usd: float
    low_usd: float
    high_usd: float


class Scores(_Frozen):
    """How far predictions are from fares, per trip: mean absolute error, root mean squared error, mean error (bias)."""

    trips: int
    mae_usd: float
    rmse_usd: float
    bias_usd: float


class SliceComparison(_Frozen):
    """Both models on one kind of trips."""

    name: str
    production: Scores
    staging: Scores
    gain: Interval


class Exposure(_Frozen):
    """Trips a model has been trained on: those of one revision picked up in `[first_pickup, last_pickup]`."""

    subject: str
    revision: str
    first_pickup: pd.Timestamp
    last_pickup: pd.Timestamp

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Contender(_Frozen):
    """A registered version as it was scored: which one, in which MLflow run, how well."""

    version: str
    run_id: str
    scores: Scores


class Evidence(_Frozen):
    """Everything a decision rests on; what was shown is what is promoted, so it has a digest.

    Attributes:
        subject: The month `YYYY-MM`, or `base` for the first model.
        revision: Revision of the trips both models were scored on.
        staging: The version asked about.
        production_version: What was in production, None where nothing was.
        production: Its scores, None where there is no production or it cannot be scored.
        difficulty_mae_usd: Error of a plain rate per km on the same trips: how hard they are for anybody.
        gain: Paired difference, None where there is nothing to compare with.
        slices: The same on kinds of trips.
        verdict: What follows.
        reasons: Why, in words.
    """

    subject: str
    revision: str
    staging: Contender
    production_version: str | None
    production: Contender | None
    difficulty_mae_usd: float
    gain: Interval | None
    slices: tuple[SliceComparison, ...]
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence's canonical JSON, without the MLflow runs that happened to produce it."""
        content = self.model_dump_json(exclude={"staging": {"run_id"}, "production": {"run_id"}})
        return hashlib.sha256(content.encode()).hexdigest()
