"""The network: from features to fares, made of stock Keras parts only, so that loading it needs no code of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Architecture:
    """The shape of a network.

    Attributes:
        widths: Units of the dense layers, first to last.
    """

    widths: tuple[int, ...] = (256, 128, 64)


def build_network(
    features: Matrix,
    fares: npt.NDArray[np.floating],
    names: Sequence[str],
    *,
    learning_rate: float = 0.001,
    seed: int = 1,
    architecture: Architecture | None = None,
) -> "keras.Model":
    """Returns an untrained, compiled network that takes features (n, k) and returns fares in USD (n, 1).

    It starts from the median fare. A feature that never varies in the training rows starts with no say: the dated
    rule of a later year must not disturb fares before a renewal has seen what it does. The trend stops at the
    training rows' last day.

    Args:
        features: Training features (n, k), float32, in the order of `names`; scales are taken from them.
        fares: Training fares (n,) in USD.
        names: Names of the k features.
        learning_rate: Step size of Adam.
        seed: Seed of the initial weights.
        architecture: Shape of the network.

    Raises:
        ValueError: There is no row, or names, features and fares do not fit each other.
    """
    import keras

    features, fares = np.asarray(features), np.asarray(fares)
    if features.ndim != 2 or features.shape[1] != len(names) or len(features) != len(fares) or not len(features):
        raise ValueError(
            f"expected features (n, {len(names)}) and fares (n,) with n > 0, "
            f"received {features.shape} and {fares.shape}"
        )
    architecture = architecture or Architecture()
    keras.utils.set_random_seed(seed)
    mean, variance = features.mean(axis=0, dtype=np.float64), features.var(axis=0, dtype=np.float64)
    varies = np.ptp(features, axis=0) > 0
    trend = list(names).index("trend_years")
    last_trend = float(features[:, trend].max())

    inputs = keras.Input((len(names),), name="features")
    capped = keras.ops.concatenate(
        [
            inputs[:, :trend],
            keras.ops.minimum(inputs[:, trend : trend + 1], last_trend),
            inputs[:, trend + 1 :],
        ],
        axis=1,
    )
    hidden = keras.layers.Normalization(mean=mean, variance=np.where(varies, variance, 1.0))(capped)
    for number, width in enumerate(architecture.widths):
        layer = keras.layers.Dense(width, activation="relu", name=f"dense_{number}")
        hidden = layer(hidden)
        if number == 0:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * varies[:, None], bias])
    start = keras.initializers.Constant(float(np.median(fares)))
    fare = keras.layers.Dense(1, bias_initializer=start, name="fare_usd")(hidden)
    network = keras.Model(inputs, fare, name="taxifare")
    network.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mae", jit_compile=False)
    return network
