"""The network: what it starts from, what it must not be disturbed by, and that loading it needs none of our code."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from taxifare.model.fitting import InMemory, fit, predict, quote
from taxifare.model.network import Architecture, build_network
from taxifare.settings import TrainingSettings
from taxifare.training.from_random_weights import architecture_of
from taxifare.trips.features import compute_features, feature_names
from tests.domain.trips.test_features import JFK, TIMES_SQUARE, trip
from tests.support.cities import NEW_YORK

NAMES = feature_names(NEW_YORK)
SMALL = Architecture(dense_widths=(16, 8))


def column(name: str) -> int:
    return NAMES.index(name)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Features of 400 trips around Times Square and to JFK in 2014, all before the last toll rise."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        start = (TIMES_SQUARE[0] + rng.normal(0, 0.02), TIMES_SQUARE[1] + rng.normal(0, 0.02))
        end = JFK if number % 5 == 0 else (start[0] + rng.normal(0, 0.02), start[1] + rng.normal(0, 0.02))
        rows.append(compute_features(trip(start, end, f"2014-0{number % 9 + 1}-12 {number:02d}:10:00"), NEW_YORK))
    return np.tile(np.concatenate(rows), (20, 1))


@pytest.fixture(scope="module")
def targets(features: np.ndarray) -> np.ndarray:
    return (2.5 + 2 * features[:, column("grid_km")]).astype(np.float32)


@pytest.fixture(scope="module")
def network(features, targets):
    return build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)


def test_it_takes_the_features_and_a_fare_is_the_mean_of_its_members(network, features):
    assert network.input_shape == (None, len(NAMES))
    said = np.asarray(network(features))
    assert said.shape == (len(features), 2 * SMALL.members)
    assert np.ptp(said, axis=1).max() > 0
    middle, upper = (said[:, : SMALL.members], said[:, SMALL.members :])
    np.testing.assert_allclose(predict(network, features), middle.mean(axis=1), rtol=1e-5)
    at_least = np.maximum(upper.mean(axis=1), middle.mean(axis=1))
    np.testing.assert_allclose(quote(network, features)[:, 1], at_least, rtol=1e-5)


def test_it_starts_near_the_median_fare(network, features, targets):
    predicted = predict(network, features)
    assert np.isfinite(predicted).all()
    assert np.median(predicted) == pytest.approx(np.median(targets), abs=3)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(network, features, targets):
    def weights(seed: int) -> np.ndarray:
        built = build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=seed, architecture=SMALL)
        return np.concatenate([np.ravel(array) for array in built.get_weights()])

    here = np.concatenate([np.ravel(array) for array in network.get_weights()])
    assert np.array_equal(weights(1), here)
    assert not np.array_equal(weights(2), here)


def test_a_rule_that_came_after_the_training_rows_says_nothing(network, features):
    after = features.copy()
    after[:, column("tolls_2015_03")] = 1
    assert np.array_equal(predict(network, features), predict(network, after))


def test_fares_of_thousands_are_learned_as_well_as_those_of_tens(features, targets):
    """As in yen or rupiah: the same rides in a currency of other size are priced the same."""
    bare = replace(NEW_YORK, rules=(), airports=())
    kept = [NAMES.index(name) for name in feature_names(bare)]
    answers = []
    for rate in (1, 10_000):
        rows, fares = np.ascontiguousarray(features[:, kept]), targets * np.float32(rate)
        network = build_network(rows, fares, bare, learning_rate=0.001, seed=1, architecture=SMALL)
        answers.append(predict(network, rows) / rate)
        network.get_layer("target_0").bias.assign_add([0.5, 0.5])
        answers.append(predict(network, rows) / rate)
    ours, ours_after, others, others_after = answers
    np.testing.assert_allclose(others, ours, rtol=1e-3)
    np.testing.assert_allclose(others_after - others, ours_after - ours, rtol=1e-2)


def test_the_trend_stops_at_the_last_training_day(features, targets):
    network = build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)
    levels = network.get_layer("levels")
    levels.set_weights([np.linspace([0, 0], [0.1, 1], len(levels.get_weights()[0]))])
    assert (features[:, column("trend_years")] < 15).all()
    last, beyond, before = features.copy(), features.copy(), features.copy()
    last[:, column("trend_years")] = features[:, column("trend_years")].max()
    beyond[:, column("trend_years")] = 40
    before[:, column("trend_years")] = features[:, column("trend_years")].min()
    assert np.array_equal(predict(network, last), predict(network, beyond))
    assert not np.array_equal(predict(network, last), predict(network, before))


def test_prices_have_a_level_for_each_turn_of_a_year_and_go_straight_between(features, targets):
    years, at = features.copy(), features[:5].copy()
    years[:, column("trend_years")] = np.linspace(9, 11, len(features))
    network = build_network(years, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)
    network.get_layer("levels").set_weights([np.array([[0, 0], [0, 1], [0, 5]])])
    at[:] = at[0]
    at[:, column("trend_years")] = [9, 9.5, 10, 10.75, 11]
    fares = predict(network, at)
    assert fares - fares[0] == pytest.approx([0, 0.5, 1, 4, 5], abs=0.01)


@pytest.mark.slow
def test_the_last_level_is_that_of_the_last_year_not_of_a_line_through_all(features, targets):
    years, later = features.copy(), features.copy()
    years[:, column("trend_years")] = np.random.default_rng(0).uniform(9, 14, len(features))
    rise = np.maximum(years[:, column("trend_years")] - 13, 0)
    later[:, column("trend_years")] = 14.2
    missed = {}
    for levels_a_year in (0, 1):
        shape = replace(SMALL, levels_a_year=levels_a_year)
        network = build_network(years, targets, NEW_YORK, learning_rate=0.02, seed=1, architecture=shape)
        fit(
            network,
            InMemory(years, targets * (1 + 0.5 * rise)),
            *(later, targets * 1.5),
            learning_rate=0.02,
            batch_size=64,
            patience=30,
            max_epochs=30,
            seed=1,
        )
        missed[levels_a_year] = abs(np.median(predict(network, later) / (targets * 1.5)) - 1)
    assert missed[1] < 0.5 * missed[0]


def test_a_season_that_was_never_seen_is_taken_for_the_nearest_that_was(features, targets):
    """Whoever knows one December knows nothing of January, and must not guess from how December went."""
    december, last, january = features.copy(), features.copy(), features.copy()
    december[:, column("year_sin")] = np.linspace(-0.5, 0, len(features))
    network = build_network(december, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)
    last[:, column("year_sin")] = 0
    january[:, column("year_sin")] = 0.4
    assert np.array_equal(predict(network, last), predict(network, january))
    assert not np.array_equal(predict(network, last), predict(network, december))


def test_a_week_of_the_year_has_a_fare_of_its_own_and_the_last_one_leads_to_the_first(features, targets):
    """The same ride on every day of 2013."""
    shape = replace(SMALL, members=1)
    day = pd.date_range("2013-01-01", "2013-12-31")
    dated = pd.concat([trip(TIMES_SQUARE, JFK, f"{date:%Y-%m-%d} 10:00:00") for date in day], ignore_index=True)
    season = [column("year_sin"), column("year_cos")]
    rides = np.repeat(features[:1], len(day), axis=0)
    rides[:, season] = compute_features(dated, NEW_YORK).to_numpy()[:, season]
    network = build_network(rides, targets[: len(day)], NEW_YORK, learning_rate=0.001, seed=1, architecture=shape)
    table, plain = network.get_layer("weeks").get_weights()[0], predict(network, rides)

    def days_that_change_with(week: int) -> list[int]:
        changed = table.copy()
        changed[week] += 1
        network.get_layer("weeks").set_weights([changed])
        return (day[np.abs(predict(network, rides) - plain) > 1e-5].dayofyear).tolist()

    assert len(table) == 52
    assert days_that_change_with(5) == list(range(30, 44))
    assert days_that_change_with(0) == [*range(1, 9), *range(360, 366)]


def test_a_place_off_the_map_has_a_finite_fare(network, features):
    far = features[:2].copy()
    far[0, [column("pickup_east_km"), column("dropoff_north_km")]] = 1e6
    far[1, [column("pickup_east_km"), column("dropoff_north_km")]] = -1e6
    assert np.isfinite(predict(network, far)).all()


def test_a_fare_does_not_jump_at_the_edge_of_a_cell(features, targets):
    """Walking 6 km east metre by metre, with random tables."""
    network = build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)
    walk = np.repeat(features[1:2], 6000, axis=0)
    walk[:, column("dropoff_east_km")] += np.arange(6000, dtype=np.float32) / 1000
    fares = predict(network, walk)
    assert np.ptp(fares) > 0
    assert np.abs(np.diff(fares)).max() < 0.01


def test_each_member_has_a_map_turned_by_another_angle(features, targets):
    """The places whose fares one corner decides fill a square of 2 km; the second member's stands on its point."""
    shape = Architecture(
        members=2,
        dense_widths=(),
        cells_km=(1.0,),
        **dict.fromkeys(("way_width", "distance_width", "hour_width", "week_width"), 0),
    )
    rng = np.random.default_rng(0)
    city = np.repeat(features[1:2], 2000, axis=0)
    ends = [column(f"{end}_{axis}_km") for end in ("pickup", "dropoff") for axis in ("east", "north")]
    city[:, ends] = rng.uniform(-8, 8, (2000, 4))
    network = build_network(city, np.resize(targets, 2000), NEW_YORK, learning_rate=0.01, seed=1, architecture=shape)
    steps_km = np.arange(-2, 2, 0.05, dtype=np.float32)
    along_km, across_km = (axis.ravel() for axis in np.meshgrid(steps_km, steps_km))
    sine, cosine = np.sin(np.radians(NEW_YORK.grid_angle_deg)), np.cos(np.radians(NEW_YORK.grid_angle_deg))
    around = np.repeat(city[:1], len(along_km), axis=0)
    around[:, column("pickup_east_km")] = along_km * sine + across_km * cosine
    around[:, column("pickup_north_km")] = along_km * cosine - across_km * sine
    plain, extents_km = predict(network, around), []
    for member in range(shape.members):
        layer = network.get_layer(f"cells_{member}")
        with tf.GradientTape() as tape:
            fare = tf.reduce_sum(network(around[[len(around) // 2 + len(steps_km) // 2]]))
        nearest = np.abs(tf.convert_to_tensor(tape.gradient(fare, layer.weights[0]))).sum(axis=1)
        table = layer.get_weights()[0]
        nearest[len(table) // 2 :] = 0
        changed = table.copy()
        changed[nearest.argmax()] += 10
        layer.set_weights([changed])
        decided = np.abs(predict(network, around) - plain) > 1e-3
        layer.set_weights([table])
        extents_km.append([np.ptp(along_km[decided]), np.ptp((along_km + across_km)[decided]) / 2**0.5])
    np.testing.assert_allclose(extents_km, [[2, 2 * 2**0.5], [2 * 2**0.5, 2]], atol=0.15)


def test_places_are_moved_in_training_only_and_by_as_much_as_is_said(network, features):
    jitter = network.get_layer("jitter")
    ends_km = np.zeros((5000, 2, 2), dtype=np.float32)
    assert np.asarray(jitter(ends_km, training=True)).std() == pytest.approx(SMALL.jitter_km, rel=0.05)
    assert np.array_equal(network(features, training=False), network(features, training=False))
    assert not np.array_equal(network(features, training=True), network(features, training=True))


def test_what_lies_on_the_way_counts_and_what_lies_beside_it_does_not(features, targets):
    """A trip 6 km along the avenues: a square half-way is on its way, one 3 km across from there is not."""
    only_ways = Architecture(members=1, cell_width=0, distance_width=0, hour_width=0, week_width=0, dense_widths=(8,))
    network = build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=only_ways)
    trip = features[1:2].copy()
    sine, cosine = np.sin(np.radians(29)), np.cos(np.radians(29))
    start = np.array([trip[0, column("pickup_east_km")], trip[0, column("pickup_north_km")]])
    end, middle = start + 6 * np.array([sine, cosine]), start + 3 * np.array([sine, cosine])
    beside = middle + 3 * np.array([cosine, -sine])

    def at(place_1: np.ndarray, place_2: np.ndarray) -> np.ndarray:
        moved = trip.copy()
        for name, (east, north) in (("pickup", place_1), ("dropoff", place_2)):
            moved[0, [column(f"{name}_east_km"), column(f"{name}_north_km")]] = east, north
        return moved

    def squares_that_price(place_1: np.ndarray, place_2: np.ndarray) -> set[int]:
        """The corners of the map whose vectors the fare depends on."""
        with tf.GradientTape() as tape:
            fare = tf.reduce_sum(network(at(place_1, place_2)))
        slopes = tf.convert_to_tensor(tape.gradient(fare, network.get_layer("ways").trainable_weights[0]))
        return set(np.flatnonzero(np.abs(slopes.numpy()).sum(axis=1)).tolist())

    on_the_way = squares_that_price(start, end)
    assert squares_that_price(middle, middle) & on_the_way
    assert not squares_that_price(beside, beside) & on_the_way


@pytest.mark.parametrize("rows", [1, 2])
def test_one_or_two_trips_are_enough_to_build_it(features, targets, rows):
    few, their_fares = features[:rows], targets[:rows]
    network = build_network(few, their_fares, NEW_YORK, learning_rate=0.001, seed=1, architecture=SMALL)
    assert np.isfinite(predict(network, features)).all()


def test_rows_that_do_not_fit_are_an_error(features, targets):
    expected = r"expected features \(n, 34\) and targets \(n,\) with n > 0, received"
    for x, y in ((features[:0], targets[:0]), (features[:, 1:], targets), (features, targets[1:])):
        with pytest.raises(ValueError, match=expected):
            build_network(x, y, NEW_YORK, learning_rate=0.001, seed=1)


@pytest.mark.slow
def test_a_saved_network_is_loaded_by_keras_alone(network, features, tmp_path):
    network.save(tmp_path / "network.keras")
    np.save(tmp_path / "features.npy", features)
    program = (
        "import sys, keras, numpy as np\n"
        "network = keras.models.load_model('network.keras')\n"
        "fares = network.predict(np.load('features.npy'), verbose=0)\n"
        "assert not [name for name in sys.modules if name.startswith('taxifare')]\n"
        f"np.save('fares.npy', fares[:, :{SMALL.members}].mean(axis=1))\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "fares.npy"), predict(network, features), rtol=1e-5)


@pytest.mark.parametrize(("trips", "members"), [(1, 1), (119_999, 1), (120_000, 2), (299_999, 2), (300_000, 4)])
def test_fewer_trips_get_a_smaller_network(trips, members):
    assert architecture_of(TrainingSettings(), trips).members == members


@pytest.mark.parametrize(
    ("trips", "given"), [(119_999, (0.01, 512, 4)), (120_000, (0.02, 2048, 8)), (10_000_000, (0.02, 2048, 8))]
)
def test_a_shape_has_its_own_learning_rate_batch_size_and_epochs(trips, given):
    shape = architecture_of(TrainingSettings(), trips)
    assert (shape.learning_rate, shape.batch_size, shape.epochs) == given


@pytest.mark.parametrize("trips", [1, 10_000_000])
def test_settings_mean_what_they_say_whatever_the_shape(trips):
    shape = architecture_of(TrainingSettings(learning_rate=0.003, batch_size=100, max_epochs=7), trips)
    assert (shape.learning_rate, shape.batch_size, shape.epochs) == (0.003, 100, 7)
