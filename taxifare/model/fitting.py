"""Training: fitting a network, new or continued, and predicting with it.

Why an epoch is one graph of our own: docs/decisions.md, under model.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from taxifare.model.network import seed_of

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

Matrix = npt.NDArray[np.float32]

Vector = npt.NDArray[np.float32]

Part = tuple[Matrix, Vector, npt.NDArray[np.int64]]
"""Features (n, k), targets (n,), and the numbers of the rows among them that are trained on."""

PREDICTION_ROWS = 2_048
"""Rows predicted at once: enough to keep two cores busy, few enough for their caches."""

UPPER_QUANTILE = 0.7
"""The upper prediction is one that seven rides in ten do not exceed; the middle one, every other ride."""


class TrainingError(RuntimeError):
    """A fit that yields no usable network."""


class TrainingRows(Protocol):
    """Rows to train on, in parts: one is held at a time, and a second one is prepared meanwhile.

    The rows of a part are shuffled, and so are the parts; what is in one part stays together. Rows in parts must
    therefore be in random order.
    """

    @property
    def counts(self) -> Sequence[int]:
        """How many rows of each part are trained on."""
        ...

    def part(self, number: int) -> Part:
        """Returns a part; the first is number 0."""
        ...


class InMemory(TrainingRows):
    """Rows in one part, which are shuffled altogether.

    Args:
        features: (n, k).
        targets: (n,).
        chosen: Which rows are trained on, shape (n,); None is all. Choosing them here saves a copy.

    Raises:
        TrainingError: There are none, or a value is not finite.
    """

    def __init__(
        self, features: npt.ArrayLike, targets: npt.ArrayLike, chosen: npt.NDArray[np.bool_] | None = None
    ) -> None:
        x, y = _rows(features, targets, "training")
        rows = np.arange(len(x)) if chosen is None else np.flatnonzero(chosen)
        if not len(rows):
            raise TrainingError(f"training rows: none of {len(x):,} rows is chosen, expected one at least")
        self._part = (x, y, rows)

    @property
    def counts(self) -> Sequence[int]:
        """How many rows are trained on."""
        return (len(self._part[2]),)

    def part(self, number: int) -> Part:
        """Returns all rows."""
        del number
        return self._part


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows came to.

    Attributes:
        number: 0 is the state before training, 1 the first pass.
        last: The number of the last one, if training is not stopped before.
        loss: Mean `quantile_loss` over the pass; of epoch 0, null.
        validation_mae: Mean absolute error on the validation rows afterwards.
        seconds: What it took.
    """

    number: int
    last: int
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
        trips: How many rows an epoch trains on.
        learning_rate: Step size of the first epoch.
        batch_size: Rows a step.
    """

    epochs: tuple[Epoch, ...] = field(repr=False)
    best_epoch: int
    seconds: float
    trips: int
    learning_rate: float
    batch_size: int

    @property
    def epochs_per_s(self) -> float:
        """Epochs a second, the error on the validation rows after each included."""
        trained = self.epochs[1:]
        return len(trained) / sum(epoch.seconds for epoch in trained)

    @property
    def trips_per_s(self) -> float:
        """Rows trained on a second."""
        return self.epochs_per_s * self.trips


def fit(
    network: "keras.Model",
    training: TrainingRows,
    validation_features: npt.ArrayLike,
    validation_targets: npt.ArrayLike,
    *,
    learning_rate: float,
    batch_size: int,
    patience: int,
    max_epochs: int,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainingHistory:
    """Fits the network in place until the validation error stops falling, and returns how it went.

    The learning rate falls to nearly zero along half a cosine over `max_epochs`: the last epochs average out what the
    first ones learned from single trips. The network ends with the state of its best epoch. Epoch 0, the network as
    given, takes part: a renewal that helps nothing ends as its parent. A loaded network goes on where it stopped,
    optimizer state included; only the learning rate is set. The same network, rows and seed give the same weights on
    the same machine, noise layers included.

    Args:
        network: A compiled network: new from `build_network`, or loaded.
        training: The rows to learn from.
        validation_features: (m, k); the rows that decide when to stop.
        validation_targets: (m,).
        learning_rate: Step size of the first epoch.
        batch_size: Rows a step.
        patience: Epochs without improvement before training stops.
        max_epochs: Most epochs.
        seed: Of the order of rows, and with its name of each layer that draws.
        on_epoch: Called after every epoch, epoch 0 included.

    Raises:
        TrainingError: There are no rows, a value is not finite, or an error became so.
    """
    import keras

    started = time.perf_counter()
    x_validation, y_validation = _rows(validation_features, validation_targets, "validation")
    for layer in network.layers:
        if isinstance(layer, keras.layers.GaussianNoise):
            layer.seed_generator.state.assign([seed_of(seed, layer.name), 0])

    def finished(number: int, loss: float, since: float) -> Epoch:
        mae = float(np.abs(predict(network, x_validation) - y_validation).mean(dtype=np.float64))
        if not np.isfinite(mae) or (number > 0 and not np.isfinite(loss)):
            raise TrainingError(f"epoch {number}: loss {loss}, validation error {mae}; expected finite numbers")
        epoch = Epoch(number, max_epochs, loss, mae, time.perf_counter() - since)
        if on_epoch is not None:
            on_epoch(epoch)
        return epoch

    learn = _learner(network)
    epochs = [finished(0, float("nan"), started)]
    best, best_state = epochs[0], state_of(network)
    for number in range(1, max_epochs + 1):
        since = time.perf_counter()
        network.optimizer.learning_rate = learning_rate * (1 + np.cos(np.pi * (number - 1) / max_epochs)) / 2
        losses = [float(learn(*part, batch_size)) for part in _shuffled(training, [seed, number])]
        loss = sum(losses) / sum(training.counts)
        epochs.append(finished(number, loss, since))
        if epochs[-1].validation_mae < best.validation_mae:
            best, best_state = epochs[-1], state_of(network)
        elif number - best.number >= patience:
            break
    restore(network, best_state)
    seconds = time.perf_counter() - started
    return TrainingHistory(tuple(epochs), best.number, seconds, sum(training.counts), learning_rate, batch_size)


@contextmanager
def twin_of(network: "keras.Model") -> "Iterator[keras.Model]":
    """Yields a network to train in place of one, which takes over its state at the end.

    The twin stays in this process with what was traced, for the next network of the same configuration: tracing takes a
    second, and renewing a small network a twentieth of one. If training fails, the network is left as it was.
    """
    configuration = json.loads(network.to_json())
    # The learning rate is a part of the state: with it here, each renewal would have a twin of its own.
    configuration["compile_config"]["optimizer"]["config"]["learning_rate"] = 0.0
    twin, turn = _twin(json.dumps(configuration))
    with turn:
        restore(twin, state_of(network))
        yield twin
        restore(network, state_of(twin))


@lru_cache(maxsize=3)  # as many as a replay keeps lineages
def _twin(configuration: str) -> "tuple[keras.Model, Lock]":
    """Returns the network that this process keeps for a configuration, and the lock of whoever trains it."""
    import keras

    return keras.models.model_from_json(configuration), Lock()


def peak_memory_mib() -> float:
    """Returns the most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _shuffled(training: TrainingRows, seed: Sequence[int]) -> Iterator[Part]:
    """Yields the parts and the rows of each in random order; while one is used, the next is prepared."""
    draws = np.random.default_rng(seed)
    order = [int(number) for number in draws.permutation(len(training.counts))]
    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming = ahead.submit(training.part, order[0])
        for following in [*order[1:], None]:
            features, targets, rows = coming.result()
            if following is not None:
                coming = ahead.submit(training.part, following)
            yield features, targets, draws.permutation(rows)


def _learner(network: "keras.Model") -> "Callable[[Matrix, Vector, npt.NDArray[np.int64], int], tf.Tensor]":
    """Returns a function that learns from rows of a part in their order, in batches, and returns their losses' sum.

    It is one graph for all steps: `keras.Model.fit` takes a third longer, for it returns to Python between steps
    and leaves the gradients of tables sparse, which Adam then adds up twice, for its mean and for its variance.
    It stays with the network, see `twin_of`.
    """
    import tensorflow as tf

    if not hasattr(network, "learner"):
        weights = network.trainable_variables

        def learn(features: tf.Tensor, targets: tf.Tensor, rows: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
            loss_sum = tf.constant(0.0)
            for start in tf.range(0, tf.size(rows), batch_size):
                batch = rows[start : start + batch_size]
                with tf.GradientTape() as tape:
                    outputs = network(tf.gather(features, batch), training=True)
                    loss = quantile_loss(tf.gather(targets, batch)[:, None], outputs)
                gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
                network.optimizer.apply(gradients, weights)
                loss_sum += loss * tf.cast(tf.size(batch), tf.float32)
            return loss_sum

        signature = [
            tf.TensorSpec((None, network.input_shape[1]), tf.float32),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((), tf.int32),
        ]
        network.learner = tf.function(learn, input_signature=signature)
    function: Callable[[Matrix, Vector, npt.NDArray[np.int64], int], tf.Tensor] = network.learner
    return function


def quantile_loss(targets: "tf.Tensor", outputs: "tf.Tensor") -> "tf.Tensor":
    """Returns what training makes small: the members' mean absolute error, that of their upper outputs tilted.

    An upper output's error counts 2q when it is too low and 2(1 - q) when it is too high, which is least at the
    quantile q of the targets (Koenker and Bassett 1978).

    Args:
        targets: What they should be (n, 1).
        outputs: Of the members (n, 2 members), the upper ones last.
    """
    from keras import ops

    tilt = np.zeros(outputs.shape[-1], dtype=np.float32)
    tilt[len(tilt) // 2 :] = 2 * UPPER_QUANTILE - 1
    errors = targets - outputs
    return ops.mean(ops.abs(errors) + tilt * errors)


def predict(network: "keras.Model", features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns what the network predicts (n,) for features (n, k): the first column of `quote`."""
    return quote(network, features)[:, 0]


def quote(network: "keras.Model", features: npt.ArrayLike) -> Matrix:
    """Returns the prediction and the upper one (n, 2) for features (n, k), 90,000 trips a second and more.

    The upper one is never below the other. The first call for a network traces it, which takes a fifth of a second.
    """
    x = np.ascontiguousarray(features, dtype=np.float32)
    means = means_of(network)
    quotes = np.empty((len(x), 2), dtype=np.float32)
    for start in range(0, len(x), PREDICTION_ROWS):
        quotes[start : start + PREDICTION_ROWS] = np.asarray(means(x[start : start + PREDICTION_ROWS]))
    return quotes


def means_of(network: "keras.Model") -> Callable[[Matrix], npt.ArrayLike]:
    """Returns the means of the network's members as one function, which reads the network's weights at every call.

    It stays with the network, under a name that the code which a version brought looks for as well: what returns
    anything else needs another name. XLA would make it 1.4 times as fast after a second of compiling, which only pays
    from half a million trips on.
    """
    import tensorflow as tf

    if not hasattr(network, "means_of_members"):

        def means(rows: tf.Tensor) -> tf.Tensor:
            outputs = network(rows, training=False)
            middle, upper = (tf.reduce_mean(half, axis=1) for half in tf.split(outputs, 2, axis=1))
            return tf.stack([middle, tf.maximum(middle, upper)], axis=1)

        rows = tf.TensorSpec((None, network.input_shape[1]), tf.float32)
        network.means_of_members = tf.function(means, input_signature=[rows], autograph=False)
    function: Callable[[Matrix], npt.ArrayLike] = network.means_of_members
    return function


def _rows(features: npt.ArrayLike, targets: npt.ArrayLike, part: str) -> tuple[Matrix, npt.NDArray[np.float32]]:
    """Returns features and targets as contiguous float32, or raises where there are none or they are of no use."""
    x = np.ascontiguousarray(features, dtype=np.float32)
    y = np.ascontiguousarray(targets, dtype=np.float32)
    if not len(x) or x.ndim != 2 or y.shape != (len(x),):
        raise TrainingError(
            f"{part} rows: expected features (n, k) and targets (n,) with n > 0, received {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise TrainingError(f"{part} rows: expected finite features and targets, received null or infinite ones")
    return x, y


def state_of(network: "keras.Model") -> list[npt.NDArray[np.floating]]:
    """Returns a copy of everything that training changes: weights and the optimizer's state."""
    import keras

    variables = (*network.variables, *network.optimizer.variables)
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def restore(network: "keras.Model", state: Sequence[npt.NDArray[np.floating]]) -> None:
    """Puts a state of `state_of` back, of this network or of one that began as a copy of it."""
    for variable, value in zip((*network.variables, *network.optimizer.variables), state, strict=True):
        variable.assign(value)
