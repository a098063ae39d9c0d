"""The network: from features to the target, made of stock Keras parts only, so that loading it needs no code of ours.

Trips are told apart mostly by where they start and end, so most of what the network learns stands in tables that are
looked up, which costs next to nothing, and the dense layers stay narrow:

- cells: a vector for every corner of the squares of a map, at several sizes, for pickups and for drop-offs. The map is
  turned to the streets: its squares are blocks; further members' maps are turned further, so that they err elsewhere.
  A place's vector is interpolated between the four corners around it, so that predictions do not jump at a square's
  edge, and in training each end is moved a little, so that neighbours learn from each other.
- ways: the vectors of a map of its own, averaged over points along the straight way from end to end, and the same times
  the distance: what lies between – rivers, bridges, slow streets – is paid for by everybody who passes.
- distances: a vector for every step of each distance on a logarithmic scale, interpolated as well: flat fares around
  the airports and the flag drop are kinks that a dense layer learns slowly.
- hours and weeks: a vector for every hour of the week, and one for every week of the year, interpolated too:
  holidays and full streets come back every year.

On these, dense layers have two outputs: the target, and an upper one, which a correction of the bias is made from
(`fitting.quote`). Where there are trips enough, several members with tables and layers of their own each have both,
learn from their own errors, and are averaged. Their outputs are scaled and shifted by the dated rules and the trend: a
fare rise multiplies, whatever the trip; to durations a rule is a date like any other. The trend is a level of prices
that may change its course once a year, so that the last one is that of the last year, not of a line through all; more
levels would learn seasons. It acts there only, and goes no further than in the training rows, as every feature: it can
neither bend what a trip costs nor run away.

What was tried, and what each part earns: docs/decisions.md, under model, and docs/model.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taxifare.model.quiet import load_tensorflow
from taxifare.trips.cities import City
from taxifare.trips.features import feature_names

if TYPE_CHECKING:
    import keras

Matrix = npt.NDArray[np.float32]

Parts = tuple[Any, ...]
"""What a member sees of a table. Where members look up the same rows, their vectors stand beside each other there."""

_ENDS = ("pickup_east_km", "pickup_north_km", "dropoff_east_km", "dropoff_north_km")

# Share of the trips beyond the edge of the map on each side; their cells are those of the edge.
_OFF_THE_MAP = 0.002

_HOURS, _WEEKS = 7 * 24, 52

# Distances are told apart on a logarithmic scale from about this length on.
_SHORTEST_KM = 0.03


@dataclass(frozen=True)
class Architecture:
    """The shape of a network. The defaults won on the real trips of 2014, all earlier ones given (`bench/quality.py`).

    A width of 0 leaves a part out.

    Attributes:
        members: Sets of tables and dense layers whose outputs are averaged.
        dense_widths: Units of a member's dense layers, first to last.
        cells_km: Sizes of the map's squares.
        cell_width: Numbers in a cell's vector.
        jitter_km: How far, in each direction, an end is from its place in training (standard deviation).
        way_cell_km: Size of the squares that ways are made of.
        way_width: Numbers in a way's vector.
        way_points: Points along a way.
        distance_steps: Steps of each distance.
        distance_width: Numbers in a step's vector.
        hour_width: Numbers in the vector of an hour of the week.
        week_width: Numbers in the vector of a week of the year.
        levels_a_year: How many levels prices have in a year; they go straight from one to the next. 0 is one straight
            line over all years.
        epochs: Most epochs of a fit from random weights.
        batch_size: Trips a step of such a fit takes.
        learning_rate: Step size of its first epoch. It goes with the square root of the batch size, which keeps Adam's
            noise (Malladi et al. 2022).
    """

    members: int = 4
    dense_widths: tuple[int, ...] = (256, 128)
    cells_km: tuple[float, ...] = (0.1, 0.3, 1.0)
    cell_width: int = 4
    jitter_km: float = 0.08
    way_cell_km: float = 0.5
    way_width: int = 16
    way_points: int = 8
    distance_steps: int = 24
    distance_width: int = 4
    hour_width: int = 8
    week_width: int = 8
    levels_a_year: int = 1
    epochs: int = 8
    batch_size: int = 2_048
    learning_rate: float = 0.02


_MIDDLE = Architecture(
    members=2, dense_widths=(128, 64), cells_km=(0.2, 0.8), way_cell_km=0.8, way_width=8, way_points=4
)

ARCHITECTURES: Mapping[int, Architecture] = {
    0: replace(_MIDDLE, members=1, dense_widths=(64, 32), epochs=4, batch_size=512, learning_rate=0.01),
    120_000: _MIDDLE,
    300_000: Architecture(),
}
"""The shape of a new network by the least number of training trips: fewer do not fill a larger one."""


def build_network(
    features: Matrix,
    targets: npt.NDArray[np.floating],
    city: City,
    *,
    learning_rate: float,
    seed: int,
    architecture: Architecture | None = None,
) -> "keras.Model":
    """Returns an untrained, compiled network from features (n, k) to the outputs of its members (n, 2 members).

    It starts from the median target. A feature that never varies in the training rows starts without effect: the dated
    rule of a later year must not disturb predictions before a renewal has seen what it does.

    Args:
        features: Training features (n, k), float32, those of `feature_names(city)`; scales and the map are taken from
            them.
        targets: Training targets (n,).
        city: Gives the names of the features and the angle of the streets.
        learning_rate: Step size of Adam.
        seed: Every layer that draws has one of its own, which is made from this one and its name.
        architecture: Shape of the network.

    Raises:
        ValueError: There is no row, or features and targets do not fit the city and each other.
    """
    load_tensorflow()
    import keras
    from keras import ops

    names, features, targets = feature_names(city), np.asarray(features), np.asarray(targets)
    if features.shape != (len(targets), len(names)) or not len(features):
        raise ValueError(
            f"expected features (n, {len(names)}) and targets (n,) with n > 0, "
            f"received {features.shape} and {targets.shape}"
        )
    shape, unit = architecture or Architecture(), _unit_of(targets)

    inputs = keras.Input((len(names),), name="features")
    within, varies = _within(inputs, features)
    scaled = _scaled(within, features, varies)
    timeless = [column for column, name in enumerate(names) if name != "trend_years"]
    plain = _columns(scaled, timeless)
    to_streets = _turn(city.grid_angle_deg)
    ends_km = ops.matmul(_ends(inputs, names), to_streets)
    if shape.jitter_km:
        ends_km = keras.layers.GaussianNoise(shape.jitter_km, seed=seed_of(seed, "jitter"), name="jitter")(ends_km)
    known_km = features[:, [names.index(name) for name in _ENDS]].reshape(-1, 2) @ to_streets
    tables = []
    if shape.cell_width:
        tables.append([_cells(ends_km, known_km, shape, member, seed) for member in range(shape.members)])
    if shape.way_width:
        tables.append(_ways(ends_km, _map_edges(known_km), shape, seed))
    if shape.distance_width:
        tables.append(_distances(inputs, features, names, shape, seed))
    if shape.hour_width:
        tables.append(_hours(inputs, names, shape, seed))
    if shape.week_width:
        tables.append(_weeks(within, names, shape, seed))
    outputs = [
        _outputs(
            [plain, *(part for table in tables for part in table[member])],
            varies[timeless],
            targets / unit,
            shape,
            member,
            seed,
        )
        for member in range(shape.members)
    ]
    plain_targets = ops.concatenate([*(both[:, :1] for both in outputs), *(both[:, 1:] for both in outputs)], axis=1)
    in_units = _under_rules(plain_targets, inputs, scaled, features, city, shape)
    network = keras.Model(inputs, in_units if unit == 1 else in_units * unit, name="taxifare")
    # So that a saved network keeps its optimizer; `training.fit` has a loss of its own. Whoever loads it predicts
    # without XLA: on a month of trips compiling takes longer than it saves.
    network.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mae", jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    return network


def _unit_of(targets: npt.NDArray[np.floating]) -> float:
    """Returns what a network counts in: 1, or a power of ten where targets are of quite another size than some ten.

    Steps of training are as large whatever the currency, and one in which a ride costs thousands would take thousands
    of them to come near.

    >>> [_unit_of(np.array([fare])) for fare in (0.6, 1.5, 9.0, 99.0, 150.0, 1500.0, 55_000.0)]
    [0.1, 1.0, 1.0, 1.0, 10.0, 100.0, 10000.0]
    """
    middle = float(np.median(targets))
    return 1.0 if middle <= 0 or 1 <= middle <= 100 else float(10.0 ** (round(np.log10(middle)) - 1))


def _within(inputs: Any, features: Matrix) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Returns the features, none beyond what training rows knew; and which of them vary there.

    A trend runs away, and so does the season where the base years are a few months: to a network that knows one
    December, January is far out. A feature that never varied has no limits, for a renewal may yet see what it does.
    """
    from keras import ops

    varies = np.ptp(features, axis=0) > 0
    limit = np.finfo(np.float32).max
    lowest, highest = np.where(varies, features.min(axis=0), -limit), np.where(varies, features.max(axis=0), limit)
    return ops.minimum(ops.maximum(inputs, lowest.astype(np.float32)), highest.astype(np.float32)), varies


def _scaled(within: Any, features: Matrix, varies: npt.NDArray[np.bool_]) -> Any:
    """Returns the features with mean 0 and variance 1 over the training rows."""
    import keras

    variance = np.where(varies, features.var(axis=0, dtype=np.float64), 1.0)
    scale = keras.layers.Normalization(mean=features.mean(axis=0, dtype=np.float64), variance=variance, name="scaled")
    return scale(within)


def _outputs(
    parts: Sequence[Any],
    varies: npt.NDArray[np.bool_],
    targets: npt.NDArray[np.floating],
    shape: Architecture,
    member: int,
    seed: int,
) -> Any:
    """Returns a member's two outputs (n, 2), the middle and the upper one, before rules and trend.

    Args:
        parts: What the member sees, first the plain features, which also act on the outputs directly.
        varies: Which of the plain features vary in the training rows.
        targets: Training targets.
        shape: Widths.
        member: Its number.
        seed: The network's.
    """
    import keras

    plain = parts[0]
    hidden = keras.layers.Concatenate()(parts) if len(parts) > 1 else plain
    for number, width in enumerate(shape.dense_widths):
        name = f"dense_{number}_{member}"
        layer = keras.layers.Dense(width, activation="relu", kernel_initializer=_spread(seed, name), name=name)
        hidden = layer(hidden)
        if number == 0:
            _silence(layer, varies)
    start = _constant(np.median(targets))
    name, plain_name = f"target_{member}", f"plain_target_{member}"
    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer=_spread(seed, plain_name), name=plain_name)
    last = keras.layers.Dense(2, kernel_initializer=_spread(seed, name), bias_initializer=start, name=name)
    outputs = last(hidden) + layer(plain)
    _silence(layer, varies)
    return outputs


def _cells(ends_km: Any, known_km: Matrix, shape: Architecture, member: int, seed: int) -> Parts:
    """Returns a member's vectors of both ends at all sizes, interpolated, and the products of the two ends'.

    The four corners of a square are weighted with the areas of the opposite rectangles (bilinear interpolation).

    Args:
        ends_km: Positions (n, end, axis) along the streets.
        known_km: Positions (m, axis) of the ends of the training rows.
        shape: Sizes and widths.
        member: Its number, which the angle of its map depends on.
        seed: The network's.
    """
    import keras
    from keras import ops

    turn = _turn(90 * member / shape.members)
    west_south, east_north = _map_edges(known_km @ turn)
    size_km = np.array(shape.cells_km, dtype=np.float32)
    corners = np.ceil((east_north - west_south)[:, None] / size_km).astype(np.int64).clip(1) + 1
    # One table holds the corners of all sizes, first those of pickups, then those of drop-offs.
    counts = np.tile(corners.prod(axis=0), 2)
    first = (counts.cumsum() - counts).reshape(2, len(size_km)).astype(np.float32)

    # Sizes are the last axis throughout: adding a vector along any other, Keras 3.15 may take it for a bias of the
    # first axis of equal length (keras.src.backend.tensorflow.numpy.add).
    positions_km = ops.expand_dims(ops.matmul(ends_km, turn) - west_south, -1)
    place = ops.minimum(ops.relu(positions_km / size_km), (corners - 1.001).astype(np.float32))
    corner = ops.floor(place)
    east, north = (place - corner)[:, :, 0], (place - corner)[:, :, 1]
    row = corners[1].astype(np.float32)
    south_west = corner[:, :, 0] * row + corner[:, :, 1] + first
    numbers = ops.stack([south_west, south_west + 1, south_west + row, south_west + row + 1], axis=-1)
    weights = ops.stack([(1 - east) * (1 - north), (1 - east) * north, east * (1 - north), east * north], axis=-1)

    table = _table(int(counts.sum()), shape.cell_width, f"cells_{member}", seed)
    vectors = ops.sum(table(ops.cast(numbers, "int32")) * ops.expand_dims(weights, -1), axis=-2)
    return keras.layers.Flatten()(vectors), keras.layers.Flatten()(vectors[:, 0] * vectors[:, 1])


def _ways(ends_km: Any, edges_km: tuple[Matrix, Matrix], shape: Architecture, seed: int) -> list[Parts]:
    """Returns for each member the mean vector of points along the straight way, and the same times its length."""
    from keras import ops

    west_south, east_north = edges_km
    corners = np.ceil((east_north - west_south) / shape.way_cell_km).astype(np.int64).clip(1) + 1
    row = int(corners[1])
    share = (np.arange(shape.way_points, dtype=np.float32)[:, None] + 0.5) / shape.way_points
    points_km = ops.expand_dims(ends_km[:, 0], 1) * (1 - share) + ops.expand_dims(ends_km[:, 1], 1) * share - west_south
    place = ops.minimum(ops.relu(points_km / shape.way_cell_km), (corners - 1.001).astype(np.float32))
    corner = ops.floor(place)
    across, along = (place - corner)[..., 0], (place - corner)[..., 1]
    first = corner[..., 0] * row + corner[..., 1]
    numbers = ops.concatenate([first, first + 1, first + row, first + row + 1], axis=1)
    weights = ops.concatenate(
        [(1 - across) * (1 - along), (1 - across) * along, across * (1 - along), across * along], axis=1
    )

    table = _table(int(corners.prod()), shape.members * shape.way_width, "ways", seed)
    # Not as an einsum: TensorFlow would multiply a tiny matrix for each trip.
    vectors = ops.sum(table(ops.cast(numbers, "int32")) * ops.expand_dims(weights / shape.way_points, -1), axis=1)
    length_km = ops.sum(ops.abs(ends_km[:, 1] - ends_km[:, 0]), axis=1, keepdims=True)
    return [(own, own * length_km) for own in ops.split(vectors, shape.members, axis=-1)]


def _distances(inputs: Any, features: Matrix, names: Sequence[str], shape: Architecture, seed: int) -> list[Parts]:
    """Returns for each member the interpolated vectors of the trip's distance and of its ends' to the airports."""
    import keras
    from keras import ops

    columns = [
        column
        for column, name in enumerate(names)
        if name.endswith("_km") and not name.endswith(("east_km", "north_km"))
    ]
    known = np.log(features[:, columns] + _SHORTEST_KM)
    lowest, span = known.min(axis=0), np.maximum(np.ptp(known, axis=0), np.float32(1e-3))
    last_step = shape.distance_steps - 1
    first = (np.arange(len(columns)) * shape.distance_steps).astype(np.float32)

    logarithms = ops.log(_columns(inputs, columns) + _SHORTEST_KM)
    place = (logarithms - lowest) * (last_step / span).astype(np.float32)
    table = _table(len(columns) * shape.distance_steps, shape.members * shape.distance_width, "distances", seed)
    vectors = _interpolated(table, place, last_step, first)
    return [(keras.layers.Flatten()(own),) for own in ops.split(vectors, shape.members, axis=-1)]


def _hours(inputs: Any, names: Sequence[str], shape: Architecture, seed: int) -> list[Parts]:
    """Returns for each member the interpolated vector of the hour of the week."""
    from keras import ops

    hour, weekday = (inputs[:, list(names).index(name)] for name in ("hour", "weekday"))
    table = _table(_HOURS, shape.members * shape.hour_width, "hours", seed)
    vectors = _around(table, weekday * 24 + hour, _HOURS)
    return [(own,) for own in ops.split(vectors, shape.members, axis=-1)]


def _weeks(within: Any, names: Sequence[str], shape: Architecture, seed: int) -> list[Parts]:
    """Returns for each member the interpolated vector of the week of the year."""
    from keras import ops

    sine, cosine = (within[:, list(names).index(name)] for name in ("year_sin", "year_cos"))
    turns = ops.arctan2(sine, cosine) / (2 * np.pi)
    table = _table(_WEEKS, shape.members * shape.week_width, "weeks", seed)
    vectors = _around(table, turns * _WEEKS, _WEEKS)
    return [(own,) for own in ops.split(vectors, shape.members, axis=-1)]


def _under_rules(
    plain_targets: Any, inputs: Any, scaled: Any, features: Matrix, city: City, shape: Architecture
) -> Any:
    """Returns the plain outputs, scaled and shifted by the rules in force and by the level of prices at the time."""
    import keras

    names, dated = feature_names(city), {rule.name for rule in city.rules}
    factor: Any = 0.0
    shift: Any = 0.0
    if dated:
        rules = _columns(scaled, [column for column, name in enumerate(names) if name in dated])
        factor = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="rules_factor")(rules)
        shift = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="rules_shift")(rules)

    trend = names.index("trend_years")
    first_year, span_years = features[:, trend].min(), np.ptp(features[:, trend])
    last_step = max(1, round(float(span_years) * shape.levels_a_year))
    steps_a_year = last_step / np.maximum(span_years, np.float32(1e-3))
    place = (inputs[:, trend] - first_year) * steps_a_year
    level = _interpolated(keras.layers.Embedding(last_step + 1, 2, "zeros", name="levels"), place, last_step)
    return plain_targets * (1 + factor + level[:, :1]) + shift + level[:, 1:]


def _interpolated(table: "keras.layers.Embedding", place: Any, last_step: int, first: Any = 0) -> Any:
    """Returns the vectors at places between the rows of a table, those of both weighted; beyond an end, the end's.

    Places run from 0, the row `first`, to `last_step`.
    """
    from keras import ops

    return _between(table, ops.clip(place, 0.0, last_step - 0.001), lambda step: step + first)


def _around(table: "keras.layers.Embedding", place: Any, rows: int) -> Any:
    """Returns the vectors at places between the rows of a table whose last row leads to the first one again."""
    from keras import ops

    return _between(table, place, lambda step: ops.mod(step, rows))


def _between(table: "keras.layers.Embedding", place: Any, row_of: Callable[[Any], Any]) -> Any:
    """Returns the vectors of the steps before and after places, weighted; `row_of` gives the row of a step."""
    from keras import ops

    step = ops.floor(place)
    within = ops.expand_dims(place - step, -1)
    this, following = (table(ops.cast(row_of(at), "int32")) for at in (step, step + 1))
    return this * (1 - within) + following * within


def _turn(angle_deg: float) -> Matrix:
    """Returns the matrix that turns (east, north) into (across, along) avenues that run so far clockwise from north."""
    angle = np.radians(angle_deg)
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], dtype=np.float32)


def _ends(inputs: Any, names: Sequence[str]) -> Any:
    """Returns the positions (n, end, axis) of pickup and drop-off in km east and north."""
    from keras import ops

    return ops.reshape(_columns(inputs, [list(names).index(name) for name in _ENDS]), (-1, 2, 2))


def _columns(matrix: Any, columns: Sequence[int]) -> Any:
    """Returns some columns of a matrix, in slices: `ops.take` copies number by number, ten times slower."""
    from keras import ops

    starts = [0, *(place for place in range(1, len(columns)) if columns[place] != columns[place - 1] + 1), len(columns)]
    slices = [matrix[:, columns[start] : columns[end - 1] + 1] for start, end in pairwise(starts)]
    return slices[0] if len(slices) == 1 else ops.concatenate(slices, axis=1)


def _map_edges(known_km: Matrix) -> tuple[Matrix, Matrix]:
    """Returns the two opposite corners (axis,) of where nearly all of the positions (n, axis) are, in km."""
    low, high = np.quantile(known_km, (_OFF_THE_MAP, 1 - _OFF_THE_MAP), axis=0).astype(np.float32)
    return low, high


def _silence(layer: "keras.layers.Dense", varies: npt.NDArray[np.bool_]) -> None:
    """Sets the weights of features that never vary to zero; the features are the layer's first inputs."""
    kernel, *bias = layer.get_weights()
    kernel[: len(varies)][~varies] = 0
    layer.set_weights([kernel, *bias])


def seed_of(seed: int, name: str) -> int:
    """Returns the seed of the layer with a name, under the seed of all.

    A layer without one draws it from Python's `random`, which every thread of the process shares.

    >>> seed_of(1, "hours"), seed_of(1, "weeks"), seed_of(2, "hours")
    (303576285, 511490527, 158598455)
    """
    return int(np.random.default_rng([seed, *name.encode()]).integers(2**31))


def _spread(seed: int, name: str) -> "keras.Initializer":
    """Returns the start of a dense layer's kernel (Glorot and Bengio 2010)."""
    import keras

    return keras.initializers.GlorotUniform(seed=seed_of(seed, name))


def _table(rows: int, width: int, name: str, seed: int) -> "keras.layers.Embedding":
    """Returns a table of vectors that start small, so that entries no training row touches have little effect."""
    import keras

    start = keras.initializers.RandomUniform(-0.05, 0.05, seed=seed_of(seed, name))
    return keras.layers.Embedding(rows, width, start, name=name)


def _constant(value: np.floating) -> "keras.Initializer":
    """Returns an initializer that is the value everywhere."""
    import keras

    return keras.initializers.Constant(float(value))
