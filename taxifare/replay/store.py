"""The files of a replay's trainings: what came of each, its predictions, and states that others start from.

Under a training's key lie what came of it, the predictions of every validation trip of the replay, and the network's
state. What came of it is written last: where that is, all of it is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from taxifare.digests import code_digest
from taxifare.model.fitting import Matrix, state_of
from taxifare.model.quiet import load_tensorflow
from taxifare.replay.errors import ReplayError
from taxifare.replay.results import Model
from taxifare.secrets import private_folder
from taxifare.settings import Settings
from taxifare.training.challengers import Contestant
from taxifare.training.recipe import fingerprint
from taxifare.whole_files import whole_file

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class TrainingResult(Contestant):
    """A challenger of a replay: what came of it, and the model it is."""

    model: Model


@dataclass(frozen=True)
class TrainingStore:
    """The files under one folder; processes may read and write them side by side.

    Attributes:
        folder: Where they are.
        rows: Which trips are predicted.
    """

    folder: Path
    rows: str

    def has(self, key: str) -> bool:
        """Whether the training is done and its model has predicted these trips."""
        return self._result(key).exists() and self._predictions(self.result(key).model.key).exists()

    def has_state(self, key: str) -> bool:
        """Whether the training is done and another can start from its network."""
        return self._result(key).exists() and self._state(self.result(key).model.key).exists()

    def result(self, key: str) -> TrainingResult:
        """Returns what came of the training."""
        with np.load(self._result(key)) as file:
            facts, errors = json.loads(str(file["facts"])), file["errors"]
        return TrainingResult(
            name=facts["name"],
            errors=errors,
            learned_trips=facts["learned_trips"],
            seconds=facts["seconds"],
            model=Model.model_validate(facts["model"]),
        )

    def put(self, key: str, trained: Contestant, model: Model) -> None:
        """Ensures that what came of the training is there, whole, and the model it is."""
        facts = {
            "name": trained.name,
            "learned_trips": trained.learned_trips,
            "seconds": trained.seconds,
            "model": model.model_dump(mode="json"),
        }
        _write(self._result(key), facts=np.array(json.dumps(facts)), errors=trained.errors)

    def quotes(self, key: str) -> Matrix:
        """Returns the predictions and upper ones (n, 2) of the training's model."""
        with np.load(self._predictions(key)) as file:
            quotes: Matrix = file["quotes"]
        return quotes

    def put_quotes(self, key: str, quotes: Matrix) -> None:
        """Ensures that the predictions are there."""
        _write(self._predictions(key), quotes=quotes)

    def has_prices(self, key: str, month: str) -> bool:
        """Whether the model has priced the month's training trips."""
        return self._prices(key, month).exists()

    def prices(self, key: str, month: str) -> npt.NDArray[np.float32]:
        """Returns the model's predictions of the month's training trips, shape (n,)."""
        with np.load(self._prices(key, month)) as file:
            predicted: npt.NDArray[np.float32] = file["predicted"]
        return predicted

    def put_prices(self, key: str, month: str, predicted: npt.NDArray[np.float32]) -> None:
        """Ensures that the predictions of the month's training trips are there."""
        _write(self._prices(key, month), predicted=predicted)

    def put_network(self, key: str, network: "keras.Model", *, is_new: bool) -> None:
        """Ensures that the network's state is there; of one from random weights the network itself, too."""
        if is_new:
            with whole_file(self._network(key)) as unfinished:
                network.save(unfinished)
        _write(self._state(key), **{f"{number:03d}": values for number, values in enumerate(state_of(network))})

    def network(self, lineage: str) -> "keras.Model":
        """Returns the network that began a lineage."""
        load_tensorflow()
        import keras

        return keras.models.load_model(self._network(lineage))

    def state(self, key: str) -> list[npt.NDArray[np.floating]]:
        """Returns the state of the training's network."""
        with np.load(self._state(key)) as file:
            return [file[name] for name in sorted(file.files)]

    def forget_state(self, key: str) -> None:
        """Ensures that the state takes no room."""
        self._state(key).unlink(missing_ok=True)
        self._network(key).unlink(missing_ok=True)

    def keep_validation(self, validation: Matrix) -> None:
        """Ensures that the trips to predict are there."""
        if not self._validation.exists():
            _write(self._validation, features=validation)

    def validation(self) -> Matrix:
        """Returns the trips to predict."""
        with np.load(self._validation) as file:
            features: Matrix = file["features"]
        return features

    @property
    def _validation(self) -> Path:
        return self.folder / f"validation.{self.rows}.npz"

    def _result(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _predictions(self, key: str) -> Path:
        return self.folder / f"{key}.predictions.{self.rows}.npz"

    def _prices(self, key: str, month: str) -> Path:
        return self.folder / f"{key}.{month}.npz"

    def _state(self, key: str) -> Path:
        return self.folder / f"{key}.state.npz"

    def _network(self, key: str) -> Path:
        return self.folder / f"{key}.keras"


def _write(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Ensures that the arrays are in the file, whole."""
    with whole_file(path) as unfinished:
        np.savez(unfinished, **arrays)  # type: ignore[arg-type]


def folder_of(settings: Settings) -> Path:
    """Returns where trainings under these settings are kept: what other code has trained is kept elsewhere.

    Which challengers there are is no part of what comes of one.
    """
    packages = [version(package) for package in ("keras", "numpy", "tensorflow")]
    common = settings.model_copy(update={"challengers": ()})
    return settings.home / "replay" / fingerprint(common, code=code_digest(__package__), packages=packages)


@contextmanager
def training_folder(settings: Settings) -> Iterator[Path]:
    """Yields where trainings under these settings and this code are kept; one replay at a time is at work there.

    Raises:
        ReplayError: Another one is.
    """
    from filelock import FileLock, Timeout

    folder = private_folder(folder_of(settings))
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout as error:
        raise ReplayError(
            f"another replay of these settings is at work, in {folder}: wait for its end, or end it"
        ) from error
