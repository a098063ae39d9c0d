"""Training: fitting a network, new or continued, and predicting with it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

Matrix = npt.NDArray[np.float32]

PREDICTION_ROWS = 16_384
"""Rows predicted at once: large enough to hide the cost of a call, small enough for the processor's cache."""


class TrainingError(RuntimeError):
    """A fit that yields no usable network."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows came to.

    Attributes:
        number: 0 is the state before training, 1 the first pass.
        loss: Mean absolute error over the pass, USD; of epoch 0, null.
        validation_mae: Mean absolute error on the validation rows afterwards, USD.
        seconds: What it took.
    """

    number: int
    loss: float
    validation_mae: float
    seconds: float


@dataclass(frozen=True)
class TrainingHistory:
    """How a fit went. The network holds the weights of `best_epoch`.

    Attributes:
        epochs: Every epoch, from epoch 0, the network as it was given.
        best_epoch: The number of the epoch with the least error on the validation rows.
        seconds: What the whole fit took.
    """

    epochs: tuple[Epoch, ...] = field(repr=False)
    best_epoch: int
    seconds: float

    @property
    def best_validation_mae(self) -> float:
        """The least mean absolute error on the validation rows, USD."""
        return self.epochs[self.best_epoch].validation_mae


def fit(
    network: "keras.Model",
    train_features: npt.ArrayLike,
    train_fares: npt.ArrayLike,
    validation_features: npt.ArrayLike,
    validation_fares: npt.ArrayLike,
    *,
    learning_rate: float,
    batch_size: int,
    patience: int,
    max_epochs: int,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainingHistory:
    """Fits the network in place until the validation error stops falling, and returns how it went.

    The network ends with the weights of its best epoch. Epoch 0, the network as given, takes part: a renewal that
    helps nothing returns its parent. A loaded network goes on where it stopped, optimizer state included; only the
    learning rate is set. The same seed and rows give the same weights on the same machine.

    Args:
        network: A compiled network: new from `build_network`, or loaded.
        train_features: (n, k).
        train_fares: (n,) in USD.
        validation_features: (m, k).
        validation_fares: (m,) in USD.
        learning_rate: Step size.
        batch_size: Rows a step.
        patience: Epochs without improvement before training stops.
        max_epochs: Most epochs.
        seed: Seed of the order of rows.
        on_epoch: Called after every epoch, epoch 0 included.

    Raises:
        TrainingError: There are no rows, or an error is not finite.
    """
    import keras
    import tensorflow as tf

    started = time.perf_counter()
    x, y = _rows(train_features, train_fares, "training")
    x_validation, y_validation = _rows(validation_features, validation_fares, "validation")
    keras.utils.set_random_seed(seed)
    network.optimizer.learning_rate = learning_rate

    x_tensor, y_tensor = tf.constant(x), tf.constant(y[:, None])
    rows = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=seed).batch(batch_size)
    batches = rows.map(lambda index: (tf.gather(x_tensor, index), tf.gather(y_tensor, index))).prefetch(2)

    def epoch(number: int, loss: float, since: float) -> Epoch:
        mae = float(np.abs(predict(network, x_validation) - y_validation).mean(dtype=np.float64))
        done = Epoch(number, loss, mae, time.perf_counter() - since)
        if not np.isfinite(mae) or (number and not np.isfinite(loss)):
            raise TrainingError(f"epoch {number}: loss {loss}, validation error {mae}; expected finite numbers")
        if on_epoch is not None:
            on_epoch(done)
        return done

    epochs = [epoch(0, float("nan"), started)]
    best, best_state = epochs[0], _state(network)
    for number in range(1, max_epochs + 1):
        since = time.perf_counter()
        fitted = network.fit(batches, epochs=1, verbose=0)
        epochs.append(epoch(number, fitted.history["loss"][0], since))
        if epochs[-1].validation_mae < best.validation_mae:
            best, best_state = epochs[-1], _state(network)
        elif number - best.number >= patience:
            break
    _restore(network, best_state)
    return TrainingHistory(tuple(epochs), best.number, time.perf_counter() - started)


def predict(network: "keras.Model", features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the fares (n,) in USD that the network predicts for features (n, k)."""
    x = np.ascontiguousarray(features, dtype=np.float32)
    fares = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), PREDICTION_ROWS):
        part = slice(start, start + PREDICTION_ROWS)
        fares[part] = np.asarray(network(x[part], training=False))[:, 0]
    return fares


def _rows(features: npt.ArrayLike, fares: npt.ArrayLike, part: str) -> tuple[Matrix, npt.NDArray[np.float32]]:
    """Returns features and fares as contiguous float32, or raises where there are none or they do not fit."""
    x = np.ascontiguousarray(features, dtype=np.float32)
    y = np.ascontiguousarray(fares, dtype=np.float32)
    if not len(x) or x.ndim != 2 or y.shape != (len(x),):
        raise TrainingError(
            f"{part}: expected features (n, k) and fares (n,) with n > 0, received {x.shape} and {y.shape}"
        )
    return x, y


def _state(network: "keras.Model") -> list[npt.NDArray[np.floating]]:
    """Returns a copy of everything that training changes: weights and the optimizer's state."""
    import keras

    variables = (*network.variables, *network.optimizer.variables)
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _restore(network: "keras.Model", state: list[npt.NDArray[np.floating]]) -> None:
    """Puts a state back."""
    for variable, value in zip((*network.variables, *network.optimizer.variables), state, strict=True):
        variable.assign(value)
