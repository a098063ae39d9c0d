"""A renewal on the days so far: what an alarm leads to once a person agrees to it.

The open month's rides that were quoted and paid are an edition of their own, made from outcomes; its revision says so.
From there on it is as in any month: the candidate learns the earlier days, both models are compared on the latest
fifth, the comparison is recorded, and a person is asked whether it becomes production. Its exposure includes the days
it learned. When the whole month is published it is compared like a month never seen before: its last fifth, on which
models are judged, is later than anything learned from the days so far; a version for which that is not so is a leak.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import pandas as pd

from taxifare.approval.approvals import Approvals
from taxifare.approval.comparisons import compare, record
from taxifare.approval.due import Known
from taxifare.approval.records import Comparison
from taxifare.model.registry import ModelRegistry
from taxifare.settings import ProblemSettings, Settings
from taxifare.training.appraisal import appraise_production
from taxifare.training.candidacy import Candidacy
from taxifare.training.challengers import OnEpoch
from taxifare.training.staging import stage
from taxifare.trips.cleaning import row_hashes
from taxifare.trips.columns import COLUMN_NAMES, COORDINATES, TRIP_COLUMNS
from taxifare.trips.editions import SO_FAR, Edition, Trips
from taxifare.trips.months import Month, bounds
from taxifare.trips.preparation import preprocess
from taxifare.trips.splitting import SplitError, split_by_time
from taxifare.trips.table import DTYPES


class TooFewSoFarError(RuntimeError):
    """There are too few rides so far to learn from; says how many there are."""


def trips_so_far(outcomes: pd.DataFrame, month: Month, settings: Settings) -> Trips:
    """Returns the open month's rides with known outcomes, each once, preprocessed, as an edition of their own.

    Args:
        outcomes: Rows with the columns of `outcomes.OUTCOMES`, of whatever version and role.
        month: The open month.
        settings: City, target, the share for validation, and the fewest trips to learn from.

    Raises:
        TooFewSoFarError: There are fewer, or they cannot be split by time.
    """
    first, end = bounds(month)
    times = outcomes["pickup_datetime"]
    known = outcomes[outcomes["truth"].notna() & (times >= first) & (times < end)]
    frame = _as_trips(known.drop_duplicates("ride_id"), settings)
    try:
        split = frame.assign(is_validation=split_by_time(frame, settings.validation_share))
    except SplitError as error:
        raise TooFewSoFarError(f"{month} so far: {error}") from None
    trips = preprocess(Trips(_edition(month, frame), split), settings.city_facts, settings.target_facts).trips
    if len(trips.frame) < settings.minimum_trips:
        raise TooFewSoFarError(
            f"{month} so far has {len(trips.frame)} rides whose outcome is known, expected {settings.minimum_trips} "
            "(MINIMUM_TRIPS) at least"
        )
    return trips


def renew_so_far(
    trips: Trips,
    rehearsed: pd.DataFrame,
    candidacy: Candidacy | None,
    known: Known,
    approvals: Approvals,
    registry: ModelRegistry,
    settings: Settings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Comparison:
    """Returns the comparison, recorded, of production with a candidate that has learned the days so far.

    Run again on the same rides, it gives the same version and the same comparison.

    Args:
        trips: See `trips_so_far`.
        rehearsed: Earlier trips, see `rehearsal.reservoir`.
        candidacy: How the candidate stands before the month, None where nothing is in production.
        known: What is on record.
        approvals: Where the comparison is recorded.
        registry: Where versions are.
        settings: Hyperparameters, challengers, tolerances.
        run_tags: Identify the MLflow runs: asset, month and Dagster run.
        on_epoch: Called after each epoch of each challenger.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The new version does not predict.
        TrainingError: Training gave no usable network.
        EvaluationError: There are too few rides to judge by.
    """
    production = appraise_production(
        trips, known.production, registry, settings, run_tags=run_tags, replaced=known.replaced
    )
    staged = stage(trips, rehearsed, candidacy, None, registry, settings, run_tags=run_tags, on_epoch=on_epoch)
    evidence = compare(trips, production, staged.candidate.appraisal, registry, settings)
    return record(approvals.ledger, evidence, approvals.now())


def _as_trips(outcomes: pd.DataFrame, settings: ProblemSettings) -> pd.DataFrame:
    """Returns outcomes as a trip table, by pickup time."""
    found = pd.DataFrame({"key": outcomes["ride_id"], "pickup_datetime": outcomes["pickup_datetime"]})
    for name in (*COORDINATES, "passenger_count"):
        found[name] = outcomes[name]
    is_fare = settings.target == "fare"
    found["fare_amount"] = outcomes["truth"] if is_fare else np.nan
    minutes = pd.to_timedelta(outcomes["truth"], unit="min")
    found["dropoff_datetime"] = pd.NaT if is_fare else outcomes["pickup_datetime"] + minutes
    typed = found.astype({column.name: DTYPES[column.kind] for column in TRIP_COLUMNS})
    return typed[list(COLUMN_NAMES)].sort_values(["pickup_datetime", "key"], ignore_index=True)


def _edition(month: Month, trips: pd.DataFrame) -> Edition:
    """Returns the edition of these trips: the same rides with the same outcomes are the same edition."""
    content = hashlib.sha256(np.sort(row_hashes(trips, 0)).tobytes()).hexdigest()
    until = "" if trips.empty else f"{trips['pickup_datetime'].max():%Y-%m-%d}-"
    return Edition(str(month), f"{SO_FAR}{until}{content[:12]}")
