"""The staging model of a month: from which version training starts, and what becomes of it where production is broken.

How a model is renewed stands in `renewal` and `challengers`; what production is, and whether it is to be retrained on
its whole month, is told by whoever knows the decisions (`taxifare.approval.due`).

Why a model is trained even then: docs/decisions.md, under training.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from taxifare.model.fitting import TrainingError
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.settings import TrainingSettings
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
    production: str | None,
    whole_month: WholeMonth | None,
    registry: ModelRegistry,
    settings: TrainingSettings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Staged:
    """Returns the best of the month's challengers to production, registered and scored from its saved weights.

    A month has the same challengers whenever it is run: where production has not been retrained on its whole month yet,
    that is done first. Training starts from the base model where nothing is in production, and where production is
    broken: the comparison will say UNSCORABLE, and a person needs something to decide on beside a broken version.

    Args:
        trips: Preprocessed trips of the month.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        production: The version in production, None where there is none.
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

    def renewed(parent_version: str | None) -> Candidate:
        return renew(trips, rehearsed, parent_version, registry, settings, run_tags=run_tags, on_epoch=on_epoch)

    try:
        if whole_month is not None and registry.newest_whole_month_of(whole_month.version) is None:
            whole_month.retrain(registry, settings)
        return Staged(renewed(production or base), None)
    except (VersionUnusableError, TrainingError):
        fault = _fault_of(production, registry, trips)
        if fault is None:
            raise
    return Staged(renewed(None if base == production else base), fault)


def _fault_of(version: str | None, registry: ModelRegistry, trips: Trips) -> str | None:
    """Returns why the version cannot be loaded or does not predict, None where it does or there is none."""
    try:
        _ = None if version is None else registry.load(version).predict(trips.frame.head(1))
    except VersionUnusableError as error:
        return str(error)
    return None
