"""The staging model of a month: from which version training starts, and what becomes of it where production is broken.

How a model is renewed stands in `renewal` and `challengers`; what production is, and whether it is to be retrained on
its whole month, is told by whoever knows the decisions (`taxifare.approval.due`).

Why a model is trained even then: docs/decisions.md, under training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from taxifare.gate.track_record import TrackRecord
from taxifare.model.fitting import TrainingError
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.settings import TrainingSettings
from taxifare.training.candidacy import Candidacy
from taxifare.training.candidates import Candidate
from taxifare.training.challengers import OnEpoch
from taxifare.training.renewal import renew
from taxifare.training.whole_month import WholeMonth
from taxifare.trips.editions import BASE, Trips


@dataclass(frozen=True)
class Staged:
    """The staging model of a month.

    Attributes:
        candidate: The version that may replace production.
        production_fault: Why training could not start from production, None where it could or nothing is in production.
    """

    candidate: Candidate
    production_fault: str | None


def stage(
    trips: Trips,
    rehearsed: pd.DataFrame | None,
    candidacy: Candidacy | None,
    whole_month: WholeMonth | None,
    registry: ModelRegistry,
    settings: TrainingSettings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Staged:
    """Returns the candidate after the month, registered and scored from its saved weights.

    It goes on from where the months since production's have brought it, see `candidacy`. A month has the same candidate
    whenever it is run: where production has not been retrained on its whole month yet, that is done first. Training
    starts from the base model where nothing is in production, and where production is broken: the comparison will say
    UNSCORABLE, and a person needs something to decide on beside a broken version.

    Args:
        trips: Preprocessed trips of the month.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        candidacy: How the candidate stands before the month, None where nothing is in production.
        whole_month: What production is to be retrained on, None for nothing.
        registry: Where versions are.
        settings: Hyperparameters, challengers and seed.
        run_tags: Identify the MLflow run: asset, month and Dagster run.
        on_epoch: Told of each epoch of each challenger.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The new version does not predict, or the base model is broken.
        TrainingError: Training gave no usable network, and production is not to blame.
        EvaluationError: The month has too few trips to be judged by.
    """
    base = registry.newest_of(BASE)

    def renewed(parent_version: str | None, record: TrackRecord | None = None) -> Candidate:
        candidate = renew(
            trips, rehearsed, parent_version, registry, settings, run_tags=run_tags, record=record, on_epoch=on_epoch
        )
        registry.set_staging(candidate.version)
        return candidate

    if candidacy is None:
        return Staged(renewed(base), None)
    production = candidacy.record.production
    try:
        if whole_month is not None and registry.newest_whole_month_of(whole_month.version) is None:
            whole_month.retrain(registry, settings)
        record = candidacy.brought_up_to_date(registry, settings, run_tags=run_tags, on_epoch=on_epoch)
        return Staged(renewed(record.candidate, record), None)
    except (VersionUnusableError, TrainingError):
        fault = _fault_of(production, registry, trips)
        if fault is None:
            raise
    return Staged(renewed(None if base == production else base), fault)


def _fault_of(version: str, registry: ModelRegistry, trips: Trips) -> str | None:
    """Returns why the version cannot be loaded or does not predict, None where it does."""
    try:
        registry.load_once(version).predict(trips.frame.head(1))
    except VersionUnusableError as error:
        return str(error)
    return None
