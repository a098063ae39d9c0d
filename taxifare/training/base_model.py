"""The first model: trained from random weights on the years before the first month."""

from collections.abc import Mapping

from taxifare.model.registry import ModelRegistry
from taxifare.settings import TrainingSettings
from taxifare.training.appraisal import facts_of
from taxifare.training.base_trips import BaseTrips
from taxifare.training.candidates import Candidate, candidate_of, training_inputs
from taxifare.training.challengers import Challenger, OnEpoch
from taxifare.training.from_random_weights import fit_streamed
from taxifare.trips.editions import BASE


def train_base(
    trips: BaseTrips,
    registry: ModelRegistry,
    settings: TrainingSettings,
    *,
    run_tags: Mapping[str, str],
    on_epoch: OnEpoch | None = None,
) -> Candidate:
    """Returns the first model: trained from random weights on the training trips of the base years.

    The same trips under the same settings give the version that was registered for them, not a second one.

    Args:
        trips: The base years.
        registry: Where versions are.
        settings: Hyperparameters and seed.
        run_tags: Identify the MLflow run: asset, subject and Dagster run.
        on_epoch: Told of each epoch.

    Raises:
        RegistryError: MLflow does not answer.
        VersionUnusableError: The new version does not predict.
        TrainingError: Training gave no usable network.
        EvaluationError: There are too few trips to judge by.
    """

    def learn(run_id: str) -> tuple[Challenger, tuple[()]]:
        trained = fit_base(trips, settings, on_epoch)
        registry.runs.log(run_id, params={"context": "training"}, metrics={"training_seconds": trained.seconds})
        return trained, ()

    sample = trips.preprocessed(settings.city_facts)
    facts = facts_of(sample) | {
        "row_count": trips.training_trips + trips.validation_trips,
        "training_set_size": trips.training_trips,
    }
    return candidate_of(sample, facts, training_inputs(sample), learn, registry, settings, run_tags)


def fit_base(trips: BaseTrips, settings: TrainingSettings, on_epoch: OnEpoch | None = None) -> Challenger:
    """Returns a network trained from random weights on the training trips of the base years.

    Args:
        trips: The base years.
        settings: Hyperparameters and seed.
        on_epoch: Told of each epoch.

    Raises:
        TrainingError: Training gave no usable network.
    """
    told = None if on_epoch is None else lambda epoch: on_epoch(BASE, epoch)
    network, history, (errors, share) = fit_streamed(trips, settings, on_epoch=told)
    return Challenger(
        name=BASE,
        network=network,
        exposure=trips.exposure,
        errors=errors,
        correction_share=share,
        learned_trips=trips.training_trips - len(errors),
        seconds=history.seconds,
        parent_version=None,
        history=history,
    )
