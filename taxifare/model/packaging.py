"""How a network travels: packed as a pyfunc that needs no line of this repository, and what comes of unpacking one.

A packed model takes raw trips and returns the target: fares in the city's currency, or durations in minutes. Its
feature code is pickled by value, so a version always computes the features it was trained with, whatever this
repository has become since, and loads in a process that has no `taxifare` at all. The Keras network lies beside it with
its optimizer, so that training can go on.

Where packed models are kept is the business of `registry`.

Why features travel by value: docs/decisions.md, under model.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.errors import ToldError
from taxifare.model.contents import Content
from taxifare.model.exposure import Exposure
from taxifare.model.quiet import load_tensorflow
from taxifare.trips import stored
from taxifare.trips.cities import City
from taxifare.trips.columns import KNOWN_AT_PICKUP
from taxifare.trips.features import check_computable, feature_names

if TYPE_CHECKING:
    import keras

_NETWORK_FILE = "network.keras"

_NAMED_PACKAGES = ("cloudpickle", "keras", "mlflow", "numpy", "pandas", "tensorflow")


class VersionUnusableError(ToldError, RuntimeError):
    """A registered version exists but cannot be loaded or does not predict; says which and why."""


@dataclass(frozen=True)
class LoadedModel:
    """A registered version in memory.

    Attributes:
        content: What it is, verified before it was loaded.
        model: The MLflow pyfunc model.
        exposure: What it has been trained on.
        features: Names of the features its network takes, in order.
        correction_share: How far towards its upper predictions it offers to go against its bias.
    """

    content: Content
    model: Any
    exposure: tuple[Exposure, ...]
    features: tuple[str, ...]
    correction_share: float

    @property
    def version(self) -> str:
        """Its number."""
        return self.content.version

    @property
    def network(self) -> "keras.Model":
        """The Keras network with its optimizer; it may be trained unless the model is shared, see `unpacked_once`."""
        network: keras.Model = self.model.unwrap_python_model().network
        return network

    def predict(self, trips: pd.DataFrame, *, corrected: bool = False) -> npt.NDArray[np.float32]:
        """Returns predictions in the target's unit, shape (n,), of raw trips with the columns known at pickup.

        Args:
            trips: n trips.
            corrected: Whether to go against the bias, see `correction.correction_share`.

        Raises:
            KeyError: A column is missing.
            InputError: A trip cannot be predicted by any model: a coordinate is null or infinite, or a time null.
            VersionUnusableError: The model raises, or returns anything but n finite numbers.
        """
        known_at_pickup = trips[list(KNOWN_AT_PICKUP)]
        check_computable(known_at_pickup)
        try:
            predicted = self._predicted(known_at_pickup, corrected=corrected)
        except Exception as error:
            raise VersionUnusableError(f"version {self.version} does not predict: {error}") from error
        if predicted.shape != (len(trips),) or not np.isfinite(predicted).all():
            raise VersionUnusableError(
                f"version {self.version}: expected {len(trips)} finite predictions, received shape {predicted.shape} "
                f"with {int((~np.isfinite(predicted)).sum())} that are not finite"
            )
        return predicted

    def _predicted(self, trips: pd.DataFrame, *, corrected: bool) -> npt.NDArray[np.float32]:
        """Returns what the model returns; of a month that is more than its features should be in memory, by parts."""
        parts = [
            np.asarray(
                self.model.predict(trips[start : start + stored.BATCH_TRIPS], {"corrected": corrected}), np.float32
            )
            for start in range(0, max(len(trips), 1), stored.BATCH_TRIPS)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def log_packed(
    mlflow: Any, network: "keras.Model", city: City, exposure: Sequence[Exposure], correction_share: float
) -> Any:
    """Returns MLflow's description of the network, packed and logged with the active run.

    Args:
        mlflow: MLflow's module, set to the store.
        network: A compiled network over the features of `taxifare.trips.features`.
        city: Whose facts its features use.
        exposure: What it has been trained on, its parents' exposure included.
        correction_share: How far towards its upper predictions it goes when it is asked for corrected ones.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet_mlflow(), _pickled_by_value():
        path = Path(folder) / _NETWORK_FILE
        network.save(path)
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=_pyfunc_model(city, correction_share),
            artifacts={"network": str(path)},
            signature=_signature(),
            metadata={
                "exposure": [entry.model_dump(mode="json") for entry in exposure],
                "features": list(feature_names(city)),
                "correction_share": correction_share,
            },
            # Inferring the requirements would import the model in a process of its own: 15 s.
            pip_requirements=_requirements(),
        )


@dataclass(frozen=True)
class Packed:
    """A packed model.

    Attributes:
        content: What it is, which its files have been found to be.
        folder: Where these are.
        mlflow: MLflow's module, set to the store.
    """

    content: Content
    folder: str = field(compare=False)
    mlflow: Any = field(compare=False, repr=False)


def unpacked(packed: Packed) -> LoadedModel:
    """Returns the model; whatever a damaged one raises passes through."""
    load_tensorflow()
    model = packed.mlflow.pyfunc.load_model(packed.folder)
    metadata = model.metadata.metadata
    exposure = tuple(Exposure.model_validate(entry) for entry in metadata["exposure"])
    features, share = tuple(metadata["features"]), float(metadata["correction_share"])
    return LoadedModel(packed.content, model, exposure, features, share)


# Of a month: production, the candidate before and after, and one that has learned a month whole.
@lru_cache(maxsize=4)
def unpacked_once(packed: Packed) -> LoadedModel:
    """Returns what `unpacked` does, in this process the same one for the same content: nobody may change it."""
    return unpacked(packed)


def _pyfunc_model(city: City, correction_share: float) -> Any:
    """Returns the pyfunc that wraps a network with its features; everything of this repository in it goes by value."""
    import mlflow

    from taxifare.model.fitting import quote
    from taxifare.trips.features import compute_features

    class TripModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Raw trips in, the target out."""

        def load_context(self, context: Any) -> None:
            import keras

            self.network = keras.models.load_model(context.artifacts["network"])

        def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
            del context  # the signature is MLflow's
            share = np.float32(correction_share if (params or {}).get("corrected") else 0.0)
            predicted, upper = quote(self.network, compute_features(model_input, city).to_numpy()).T
            return predicted + share * (upper - predicted)

    return TripModel()


def _signature() -> Any:
    """Returns the model's signature: the trip columns known at pickup in, the target out, corrected on demand."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    types = {"pickup_datetime": "datetime", "passenger_count": AnyType()}
    inputs = [ColSpec(types.get(name, "double"), name) for name in KNOWN_AT_PICKUP]
    corrected = ParamSchema([ParamSpec("corrected", "boolean", default=False)])
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec("float")]), params=corrected)


def _requirements() -> list[str]:
    """Returns the packages a registered model needs, at the versions installed here."""
    from importlib.metadata import version

    return [f"{package}=={version(package)}" for package in _NAMED_PACKAGES]


@contextmanager
def _pickled_by_value() -> Iterator[None]:
    """Makes pickles carry the code of this package instead of a reference to it."""
    import cloudpickle

    import taxifare

    cloudpickle.register_pickle_by_value(taxifare)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(taxifare)


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Silences MLflow's advice against pickles and for input examples: both are decided here on purpose."""
    logger = logging.getLogger("mlflow.pyfunc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
