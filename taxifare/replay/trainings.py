"""Trainings that several policies share: each is done once, kept on disk, and two are done at a time.

A replay asks for hundreds of trainings, and many of them twice, because policies agree on most months. What a training
depends on has a key: the trips up to its month, the way, and the model it starts from. Under its key lie what came of
it, the predictions of every validation trip of the replay, and the network's state, so that a replay that was killed
goes on and a second one trains nothing.

Compiling a network costs as much as renewing it. So a process keeps one network object for all models that descend from
the same random weights, and exchanges their states.
"""

import gc
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from taxifare.model.exposure import Exposure
from taxifare.model.fitting import Matrix, TrainingError, quote, restore, state_of
from taxifare.replay.results import Model
from taxifare.settings import ChallengerName, Settings
from taxifare.training.base_trips import BaseTrips
from taxifare.training.challengers import Challenger, Learned, Lesson, Parent, renewed, warm
from taxifare.training.renewal import fit_base
from taxifare.trips.editions import BASE
from taxifare.whole_files import whole_file

if TYPE_CHECKING:
    import keras

Material: TypeAlias = Lesson | Path
"""What is learned from: a lesson, or the file of the base trips."""

Work: TypeAlias = ChallengerName | Literal["base", "retraining"]
"""What is done: the first fit, one of the challengers, or the retraining of a promoted model on its whole month."""

_PROCESSES = 2
"""Processes that train: a fit of this network keeps one core busy, and a process takes about a gigabyte."""

_NETWORKS_KEPT = 3
"""Networks that a process keeps compiled."""


@dataclass(frozen=True, kw_only=True)
class Entry(Learned):
    """A challenger of a replay: what came of it, and the model it is."""

    model: Model


@dataclass(frozen=True)
class Assignment:
    """A training to be done.

    Attributes:
        key: What it depends on, see `key_of`.
        work: What is done.
        subject: The month, or `base`.
        parent: The model that it starts from, or that is taken as it is.
    """

    key: str
    work: Work
    subject: str
    parent: Model | None = None


def key_of(*facts: object) -> str:
    """Returns a short text that changes when one of the facts does, which are what JSON can hold.

    >>> key_of("2015-01", "warm", None)
    'de566143d9e41b72'
    """
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class Trainings:
    """Trainings under one folder. Processes are started when the first one has to be done.

    Args:
        folder: Where results are kept; nobody else may be at work in it.
        validation: Features of the trips that every model is scored on, shape (n, k).
        settings: Hyperparameters and seed.
    """

    def __init__(self, folder: Path, validation: Matrix, settings: Settings) -> None:
        self._shelf = _Shelf(folder, hashlib.sha256(validation.tobytes()).hexdigest()[:16])
        self._settings = settings
        self._begun: dict[str, Future[None]] = {}
        self._shelf.keep_validation(validation)

    def __enter__(self) -> Self:
        """Returns the trainings."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes; what they have begun is finished unless there was an error."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(wait=True, cancel_futures=error is not None)

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        """The processes. They are started anew, not forked: TensorFlow does not survive a fork."""
        return ProcessPoolExecutor(_PROCESSES, get_context("spawn"), initializer=_end_with_parent)

    def begin(self, assignment: Assignment, material: Callable[[], Material], *, with_state: bool = False) -> None:
        """Ensures that the training is done, or will be.

        Args:
            assignment: The training.
            material: Gives what is learned from, if it has to be done.
            with_state: Whether another training is to start from what comes of it.
        """
        key = assignment.key
        if key in self._begun or (self._shelf.has(key) and (not with_state or self._shelf.has_state(key))):
            return
        self._begun[key] = self._pool.submit(_do, self._shelf, assignment, material(), self._settings)

    def entry(self, key: str) -> Entry:
        """Returns what came of a training, once it is done.

        Raises:
            TrainingError: It gave no usable network, or its process died.
        """
        begun = self._begun.pop(key, None)
        if begun is not None:
            try:
                begun.result()
            except BrokenProcessPool as error:
                raise TrainingError(
                    "a training process died, perhaps for want of memory; run the replay again"
                ) from error
        return self._shelf.entry(key)

    def predictions(self, model: Model) -> npt.NDArray[np.float32]:
        """Returns the model's predictions and corrected ones of the validation trips, shape (n, 2)."""
        predicted, upper = self._shelf.quotes(model.key).T
        return np.column_stack([predicted, predicted + model.correction_share * (upper - predicted)])

    def forget_states(self, keys: Iterable[str]) -> None:
        """Ensures that the states of these trainings take no room: nothing will start from them."""
        for key in keys:
            self._shelf.forget_state(key)


@dataclass(frozen=True)
class _Shelf:
    """The files of trainings. What came of one is written last: where it is, all of it is.

    Attributes:
        folder: Where they are.
        rows: Which trips are predicted.
    """

    folder: Path
    rows: str

    def has(self, key: str) -> bool:
        """Whether the training is done and its model has predicted these trips."""
        return self._entry(key).exists() and self._predictions(self.entry(key).model.key).exists()

    def has_state(self, key: str) -> bool:
        """Whether the training is done and another can start from its network."""
        return self._entry(key).exists() and self._state(self.entry(key).model.key).exists()

    def entry(self, key: str) -> Entry:
        """Returns what came of the training."""
        with np.load(self._entry(key)) as file:
            facts, errors = json.loads(str(file["facts"])), file["errors"]
        model = Model.model_validate(facts["model"])
        return Entry(
            name=facts["name"],
            exposure=model.exposure,
            errors=errors,
            correction_share=facts["correction_share"],
            learned_trips=facts["learned_trips"],
            seconds=facts["seconds"],
            parent_version=model.parent,
            version=model.name,
            model=model,
        )

    def put(self, key: str, entry: Entry) -> None:
        """Ensures that what came of the training is there, whole."""
        facts = {
            "name": entry.name,
            "learned_trips": entry.learned_trips,
            "seconds": entry.seconds,
            "correction_share": entry.correction_share,
            "model": entry.model.model_dump(mode="json"),
        }
        self._write(self._entry(key), facts=np.array(json.dumps(facts)), errors=entry.errors)

    def quotes(self, key: str) -> Matrix:
        """Returns the predictions and upper ones (n, 2) of the training's model."""
        with np.load(self._predictions(key)) as file:
            quotes: Matrix = file["quotes"]
        return quotes

    def put_quotes(self, key: str, quotes: Matrix) -> None:
        """Ensures that the predictions are there."""
        self._write(self._predictions(key), quotes=quotes)

    def put_network(self, key: str, network: "keras.Model", *, is_new: bool) -> None:
        """Ensures that the network's state is there; of one from random weights the network itself, too."""
        if is_new:
            with whole_file(self._network(key)) as unfinished:
                network.save(unfinished)
        state = {f"{number:03d}": values for number, values in enumerate(state_of(network))}
        self._write(self._state(key), **state)

    def network(self, lineage: str) -> "keras.Model":
        """Returns the network that began a lineage."""
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
            self._write(self._validation, features=validation)

    def validation(self) -> Matrix:
        """Returns the trips to predict."""
        with np.load(self._validation) as file:
            features: Matrix = file["features"]
        return features

    @property
    def _validation(self) -> Path:
        return self.folder / f"validation.{self.rows}.npz"

    def _entry(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _predictions(self, key: str) -> Path:
        return self.folder / f"{key}.predictions.{self.rows}.npz"

    def _state(self, key: str) -> Path:
        return self.folder / f"{key}.state.npz"

    def _network(self, key: str) -> Path:
        return self.folder / f"{key}.keras"

    def _write(self, path: Path, **arrays: npt.NDArray[np.generic]) -> None:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


# What follows runs in the processes that train.
_networks: OrderedDict[str, "keras.Model"] = OrderedDict()

_validation: dict[str, Matrix] = {}


@dataclass(frozen=True)
class _Start(Parent):
    """A model to start from; its network is made ready when it is asked for."""

    model: Model
    shelf: _Shelf

    @property
    def version(self) -> str:
        """Its name."""
        return self.model.name

    @property
    def exposure(self) -> tuple[Exposure, ...]:
        """What it has been trained on."""
        return self.model.exposure

    @property
    def network(self) -> "keras.Model":
        """The network of its lineage, in its state."""
        lineage = self.model.lineage
        if lineage not in _networks:
            _keep(lineage, self.shelf.network(lineage))
        _networks.move_to_end(lineage)
        restore(_networks[lineage], self.shelf.state(self.model.key))
        return _networks[lineage]


def _do(shelf: _Shelf, assignment: Assignment, material: Material, settings: Settings) -> None:
    """Does a training and keeps what came of it."""
    if shelf.has_state(assignment.key):  # what is missing are the predictions of these trips
        model = shelf.entry(assignment.key).model
        _predict(shelf, model, _Start(model, shelf).network)
        return
    parent = None if assignment.parent is None else _Start(assignment.parent, shelf)
    challenger = _challenger(assignment.work, material, parent, settings)
    if challenger.version is not None and assignment.parent is not None:
        model = assignment.parent
    else:
        lineage = assignment.key
        if assignment.parent is not None and challenger.parent_version is not None:
            lineage = assignment.parent.lineage
        model = Model(
            key=assignment.key,
            name=_name(assignment),
            subject=assignment.subject,
            lineage=lineage,
            parent=challenger.parent_version,
            exposure=challenger.exposure,
            correction_share=challenger.correction_share,
            seconds=challenger.seconds,
        )
        if lineage == assignment.key:
            _keep(lineage, challenger.network)
        shelf.put_network(model.key, challenger.network, is_new=lineage == assignment.key)
        _predict(shelf, model, challenger.network)
    shelf.put(
        assignment.key,
        Entry(
            name=challenger.name,
            exposure=challenger.exposure,
            errors=challenger.errors,
            correction_share=challenger.correction_share,
            learned_trips=challenger.learned_trips,
            seconds=challenger.seconds,
            parent_version=challenger.parent_version,
            model=model,
        ),
    )


def _predict(shelf: _Shelf, model: Model, network: "keras.Model") -> None:
    """Ensures that what the model predicts is there."""
    if shelf.rows not in _validation:
        _validation[shelf.rows] = shelf.validation()
    shelf.put_quotes(model.key, quote(network, _validation[shelf.rows]))


def _challenger(work: Work, material: Material, parent: Parent | None, settings: Settings) -> Challenger:
    """Returns what comes of the work."""
    if isinstance(material, Path):
        return fit_base(BaseTrips(material.open("rb")), settings)
    if work == "base":
        raise ValueError("base: expected the base trips, received a lesson")
    if work == "retraining":
        if parent is None:
            raise ValueError("retraining: expected a model to start from, received none")
        return replace(warm(material, parent, settings), name=work)
    return renewed(work, material, parent, parent, settings)


def _name(assignment: Assignment) -> str:
    """Returns what people call the model."""
    if assignment.work == BASE:
        return BASE
    way = "whole month" if assignment.work == "retraining" else assignment.work
    return f"{assignment.subject} {way} {assignment.key[:4]}"


def _keep(lineage: str, network: "keras.Model") -> None:
    """Keeps a network for its descendants; those not needed for longest make room."""
    _networks[lineage] = network
    while len(_networks) > _NETWORKS_KEPT:
        _networks.popitem(last=False)
        gc.collect()


def _end_with_parent() -> None:
    """Ensures that this process does not outlive the one that started it, not even one that was killed."""
    parent = parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
