"""Retraining an approved version on the whole of its month, the trips that it was judged by included.

Whether and when that is to be done is told by whoever knows the decisions (`taxifare.approval.due`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from taxifare.model.registry import WHOLE_MONTH_TAG, ModelRegistry
from taxifare.settings import TrainingSettings
from taxifare.training.appraisal import facts_of
from taxifare.training.candidates import known_version, training_inputs
from taxifare.training.challengers import OnEpoch, lesson_of, warm
from taxifare.training.recipe import fingerprint
from taxifare.trips.editions import Trips


@dataclass(frozen=True)
class WholeMonth:
    """An approved version, and the month that it is to learn whole.

    Attributes:
        version: The approved version.
        read: Returns the month's preprocessed trips and what was rehearsed with them, None for nothing.
        run_tags: Identify the MLflow run: job, month and Dagster run.
    """

    version: str
    read: Callable[[], tuple[Trips, pd.DataFrame | None]]
    run_tags: Mapping[str, str]

    def retrain(self, registry: ModelRegistry, settings: TrainingSettings) -> str:
        """Returns the version that has learned the whole month, see `retrain_whole_month`."""
        trips, rehearsed = self.read()
        return retrain_whole_month(trips, rehearsed, self.version, registry, settings, run_tags=self.run_tags)


def retrain_whole_month(
    trips: Trips,
    rehearsed: pd.DataFrame | None,
    version: str,
    registry: ModelRegistry,
    settings: TrainingSettings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> str:
    """Returns a second version of an approved one, trained on with the whole of its month, validation trips included.

    Nobody has judged it: there is no trip of the month left to judge it by. Its exposure says so, and it is one of the
    challengers of the next month. Run again, it is the same version.

    Args:
        trips: Preprocessed trips of the month that the version was trained and judged on.
        rehearsed: Earlier trips, see `rehearsal.reservoir`; None for none.
        version: The approved version.
        registry: Where versions are.
        settings: Hyperparameters and seed.
        run_tags: Identify the MLflow run: job, month and Dagster run.
        on_epoch: Told of each epoch.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The version cannot be loaded.
        TrainingError: Training gave no usable network.
    """
    edition = trips.edition
    whole = trips.without_validation()
    inputs = training_inputs(whole, rehearsed=rehearsed, parents=(version,))
    with registry.runs.open(f"whole month {edition.subject}", run_tags) as run_id:
        if (known := known_version(inputs, registry, settings)) is not None:
            return known.version
        renewed = warm(lesson_of(whole, rehearsed, settings), registry.load(version), settings, on_epoch)
        registry.runs.log(
            run_id,
            params=facts_of(whole) | {"context": "whole month", "parent_version": version},
            metrics={"training_seconds": renewed.seconds},
        )
        return registry.register(
            renewed.network,
            settings.city_facts,
            renewed.exposure,
            run_id=run_id,
            fingerprint=fingerprint(settings, **inputs),
            tags={"revision": edition.revision, "parent_version": version, WHOLE_MONTH_TAG: version},
            correction_share=renewed.correction_share,
        )
