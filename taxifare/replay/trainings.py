"""Trainings that several policies share: each is done once, kept on disk, and several are done at a time.

A replay asks for hundreds of trainings, and many of them twice, because policies agree on most months. What a training
depends on has a key: the trips up to its month, the way, and the model it starts from. A replay that was killed goes
on, and a second one trains nothing.
"""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taxifare.model.fitting import Matrix
from taxifare.replay.assignments import Assignment, LearnedFrom, carry_out, price
from taxifare.replay.months import ReplayedMonth
from taxifare.replay.results import Model
from taxifare.replay.store import TrainingResult, TrainingStore
from taxifare.settings import TrainingSettings, of_training
from taxifare.workers import Workers


class Trainings:
    """Trainings under one folder.

    Args:
        folder: Where results are kept; nobody else may be at work in it, and every worker sees it.
        validation: Features of the trips that every model is scored on, shape (n, k).
        settings: Hyperparameters and seed.
        workers: Who trains.
    """

    def __init__(self, folder: Path, validation: Matrix, settings: TrainingSettings, workers: Workers) -> None:
        self._store = TrainingStore(folder, hashlib.sha256(validation.tobytes()).hexdigest()[:16])
        self._settings, self._workers = of_training(settings), workers
        self._begun: dict[str, Future[None]] = {}
        self._store.keep_validation(validation)

    def begin(
        self, assignment: Assignment, learned_from: Callable[[], LearnedFrom], *, with_state: bool = False
    ) -> None:
        """Ensures that the training is done, or will be.

        Args:
            assignment: The training.
            learned_from: Gives what is learned from, if it has to be done.
            with_state: Whether another training is to start from what comes of it.
        """
        key = assignment.key
        if key in self._begun or (self._store.has(key) and (not with_state or self._store.has_state(key))):
            return
        self._begun[key] = self._workers.submit(carry_out, self._store, assignment, learned_from(), self._settings)

    def result(self, key: str) -> TrainingResult:
        """Returns what came of a training, once it is done.

        Raises:
            TrainingError: It gave no usable network.
            WorkersError: Whoever did it died, again and again.
        """
        self._wait_for(key)
        return self._store.result(key)

    def _wait_for(self, key: str) -> None:
        """Ensures that what was begun is done."""
        begun = self._begun.pop(key, None)
        if begun is not None:
            begun.result()

    def predictions(self, model: Model) -> npt.NDArray[np.float32]:
        """Returns the model's predictions and corrected ones of the validation trips, shape (n, 2)."""
        predicted, upper = self._store.quotes(model.key).T
        return np.column_stack([predicted, predicted + model.correction_share * (upper - predicted)])

    def begin_pricing(self, model: Model, month: ReplayedMonth, features: Callable[[], Matrix]) -> None:
        """Ensures that the model has priced the month's training trips, or will have.

        Args:
            model: One whose state is kept.
            month: The month.
            features: Gives those of its training trips, if it has to be done.
        """
        key = _pricing(model, month)
        if key not in self._begun and not self._store.has_prices(model.key, month.key):
            self._begun[key] = self._workers.submit(price, self._store, model, month.key, features())

    def prices(self, model: Model, month: ReplayedMonth) -> npt.NDArray[np.float32]:
        """Returns the model's predictions of the month's training trips, shape (n,).

        Raises:
            WorkersError: Whoever did it died, again and again.
        """
        self._wait_for(_pricing(model, month))
        return self._store.prices(model.key, month.key)

    def forget_states(self, keys: Iterable[str]) -> None:
        """Ensures that the states of these trainings take no room: nothing will start from them."""
        for key in keys:
            self._store.forget_state(key)


def _pricing(model: Model, month: ReplayedMonth) -> str:
    """Returns the name under which a model's prices of a month are made."""
    return f"{model.key}.{month.key}"
