"""Training: it learns, stops, repeats itself, continues truly, and never hands back a broken network."""

import keras
import numpy as np
import pandas as pd
import pytest

from taxifare.model.fitting import (
    PREDICTION_ROWS,
    InMemory,
    TrainingError,
    fit,
    predict,
    quantile_loss,
    quote,
    state_of,
    twin_of,
)
from taxifare.model.network import Architecture, build_network
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK
from tests.support.places import REAL_TRIPS

NAMES = feature_names(NEW_YORK)
KM = NAMES.index("grid_km")
FAST = {"learning_rate": 0.005, "batch_size": 128, "patience": 3, "max_epochs": 6, "seed": 1}


SMALL = Architecture(
    members=2, dense_widths=(16, 8), cells_km=(0.8,), way_width=0, distance_width=0, hour_width=0, week_width=0
)
"""Two members with a table each, and a layer that draws; more tables would only take longer to trace."""


def trips(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns features without meaning but for the grid distance, and fares of 2.50 USD and 2 USD a km."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, 1, (rows, len(NAMES))).astype(np.float32)
    features[:, KM] = rng.uniform(0.5, 10, rows)
    return features, (2.5 + 2 * features[:, KM] + rng.laplace(0, 0.3, rows)).astype(np.float32)


def new_network(features: np.ndarray, fares: np.ndarray, seed: int = 1) -> keras.Model:
    return build_network(
        features,
        fares,
        NEW_YORK,
        learning_rate=0.005,
        seed=seed,
        architecture=SMALL,
    )


def mae(network: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.abs(predict(network, data[0]) - data[1]).mean(dtype=np.float64))


TRAIN, VALIDATION = trips(4000, seed=1), trips(1000, seed=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A fitted network's file, its history and what it was told to report."""
    network = new_network(*TRAIN)
    reported = []
    history = fit(network, InMemory(*TRAIN), *VALIDATION, **FAST, on_epoch=reported.append)
    path = tmp_path_factory.mktemp("trained") / "network.keras"
    network.save(path)
    return path, history, reported


def test_it_learns_and_reports_every_epoch(trained):
    _, history, reported = trained
    assert tuple(reported) == history.epochs
    assert [epoch.number for epoch in history.epochs] == list(range(len(history.epochs)))
    assert history.epochs[0].validation_mae > 2
    assert history.epochs[history.best_epoch].validation_mae < 0.6
    assert 0 < sum(epoch.seconds for epoch in history.epochs) < history.seconds


def test_the_saved_network_is_that_of_the_best_epoch(trained):
    path, history, _ = trained
    assert history.epochs[history.best_epoch].validation_mae == min(epoch.validation_mae for epoch in history.epochs)
    assert mae(keras.models.load_model(path), VALIDATION) == pytest.approx(
        history.epochs[history.best_epoch].validation_mae, abs=1e-6
    )


def test_half_of_the_rides_cost_more_than_the_fare_and_three_in_ten_more_than_the_upper_one():
    """Rides whose luck is known to be skewed: 5 USD and a log-normal surcharge."""
    features, _ = trips(6000, seed=3)
    fares = (5 + 2 * np.random.default_rng(4).lognormal(0, 1, 6000)).astype(np.float32)
    network = new_network(features, fares)
    fit(network, InMemory(features, fares, np.arange(6000) < 5000), features[5000:], fares[5000:], **FAST)
    middle, upper = quote(network, features[5000:]).T
    assert np.mean(fares[5000:] > middle) == pytest.approx(0.5, abs=0.05)
    assert np.mean(fares[5000:] > upper) == pytest.approx(0.3, abs=0.05)


def test_the_same_seed_repeats_itself_and_another_does_not(trained):
    _, history, _ = trained
    again = fit(new_network(*TRAIN), InMemory(*TRAIN), *VALIDATION, **FAST)
    assert [epoch.validation_mae for epoch in again.epochs] == [epoch.validation_mae for epoch in history.epochs]
    other = fit(new_network(*TRAIN), InMemory(*TRAIN), *VALIDATION, **FAST | {"seed": 2})
    assert other.epochs[1].loss != pytest.approx(history.epochs[1].loss, abs=1e-6)


def test_a_loaded_network_continues_where_its_parent_stopped(trained):
    path, history, _ = trained
    child = keras.models.load_model(path)
    child.get_layer("jitter").stddev = 0.0  # so that the loss depends on nothing but weights and rows
    steps_of_parent = int(child.optimizer.iterations)
    assert steps_of_parent == history.best_epoch * int(np.ceil(4000 / 128))
    parent_loss = float(quantile_loss(TRAIN[1][:, None], child(TRAIN[0])))
    momenta = [variable.numpy() for variable in child.optimizer.variables[2:]]
    assert any(np.any(momentum) for momentum in momenta)

    one_step = fit(
        child, InMemory(*TRAIN), *VALIDATION, **FAST | {"batch_size": 4000, "max_epochs": 1, "learning_rate": 1e-5}
    )
    assert one_step.epochs[0].validation_mae == pytest.approx(
        history.epochs[history.best_epoch].validation_mae, abs=1e-6
    )
    assert one_step.epochs[1].loss == pytest.approx(parent_loss, abs=1e-4)  # the loss before the first step
    assert child.optimizer.iterations == steps_of_parent + one_step.best_epoch


def test_a_renewal_that_helps_nothing_ends_as_its_parent(trained):
    path, _, _ = trained
    child = keras.models.load_model(path)
    before = child.get_weights()
    spoiled = (TRAIN[0], TRAIN[1] + 100)
    renewal = fit(child, InMemory(*spoiled), *VALIDATION, **FAST)
    assert renewal.best_epoch == 0
    assert len(renewal.epochs) == 1 + FAST["patience"]
    assert all(np.array_equal(old, new) for old, new in zip(before, child.get_weights(), strict=True))
    assert int(child.optimizer.iterations) == int(keras.models.load_model(path).optimizer.iterations)


def test_a_new_network_that_learns_nothing_ends_as_it_was():
    network = new_network(*TRAIN)
    before = network.get_weights()
    history = fit(network, InMemory(TRAIN[0], TRAIN[1] + 1000), *VALIDATION, **FAST | {"learning_rate": 1.0})
    assert history.best_epoch == 0
    assert all(np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True))


@pytest.mark.slow
def test_a_feature_that_never_varied_can_be_learned_when_it_does():
    rule = NAMES.index("tolls_2015_03")
    before = (TRAIN[0].copy(), TRAIN[1])
    before[0][:, rule] = 0
    network = new_network(*before)
    fit(network, InMemory(*before), *before, **FAST)
    after = (before[0].copy(), before[1] + 4)
    after[0][:, rule] = 1
    assert mae(network, after) == pytest.approx(4, abs=0.5)
    both = tuple(np.concatenate(parts) for parts in zip(before, after, strict=True))
    fit(network, InMemory(*both), *both, **FAST)
    assert mae(network, both) < 1


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ((TRAIN[0][:0], TRAIN[1][:0]), VALIDATION, r"training rows: expected .* received \(0, 34\) and \(0,\)"),
        (TRAIN, (VALIDATION[0][:0], VALIDATION[1][:0]), "validation rows: expected"),
        ((TRAIN[0], TRAIN[1][1:]), VALIDATION, "training rows: expected"),
        ((TRAIN[0], TRAIN[1] * np.nan), VALIDATION, "training rows: expected finite features and targets"),
        ((TRAIN[0] * np.inf, TRAIN[1]), VALIDATION, "training rows: expected finite features and targets"),
    ],
)
def test_rows_of_no_use_are_an_error(train, validation, message):
    with pytest.raises(TrainingError, match=message):
        fit(new_network(*TRAIN), InMemory(*train), *validation, **FAST)


def test_an_error_that_is_no_longer_finite_stops_training():
    with pytest.raises(TrainingError, match=r"epoch 1: loss .*expected finite numbers"):
        fit(new_network(*TRAIN), InMemory(*TRAIN), *VALIDATION, **FAST | {"learning_rate": 1e38})


def test_predictions_do_not_depend_on_how_many_rows_come_together(trained):
    network = keras.models.load_model(trained[0])
    many, _ = trips(PREDICTION_ROWS + 5, seed=3)
    together = predict(network, many)
    assert together.dtype == np.float32
    assert together[-7:] == pytest.approx(predict(network, many[-7:]), rel=1e-5)
    assert predict(network, many[:0]).shape == (0,)
    assert together[:100] == pytest.approx(predict(network, np.asfortranarray(many[:100])), rel=1e-5)
    assert network.means_of_members.experimental_get_tracing_count() == 1


def test_a_network_is_traced_once_however_often_it_is_trained(trained):
    network = keras.models.load_model(trained[0])
    for batch_size in (500, 1000):
        fit(network, InMemory(*TRAIN), *VALIDATION, **FAST | {"batch_size": batch_size, "max_epochs": 1})
    assert network.learner.experimental_get_tracing_count() == 1


def test_networks_trained_in_one_twin_end_as_each_would_by_itself(trained):
    path, twins = trained[0], []
    for learned in (InMemory(*TRAIN), InMemory(TRAIN[0], TRAIN[1] * 1.2)):
        alone, guest = keras.models.load_model(path), keras.models.load_model(path)
        fit(alone, learned, *VALIDATION, **FAST)
        with twin_of(guest) as twin:
            assert twin is not guest
            fit(twin, learned, *VALIDATION, **FAST)
        twins.append(twin)
        assert len(state_of(guest)) == len(guest.variables) + len(guest.optimizer.variables)
        assert all(map(np.array_equal, state_of(guest), state_of(alone)))
        path = path.with_name("next.keras")
        guest.save(path)  # a renewal goes on from it, its optimizer included
    assert twins == [twin] * 2, "whatever learning rate each ended with"
    assert twin.learner.experimental_get_tracing_count() == 1


def test_a_network_whose_twin_fails_to_train_is_left_as_it_was(trained):
    network = keras.models.load_model(trained[0])
    before = state_of(network)
    with pytest.raises(TrainingError, match="expected finite numbers"), twin_of(network) as twin:
        fit(twin, InMemory(*TRAIN), *VALIDATION, **FAST | {"learning_rate": 1e38})
    assert all(map(np.array_equal, state_of(network), before))


def test_predictions_follow_the_weights(trained):
    network = keras.models.load_model(trained[0])
    before = predict(network, TRAIN[0][:5])
    network.set_weights([weights * 0 for weights in network.get_weights()])
    assert not np.array_equal(before, predict(network, TRAIN[0][:5]))


@pytest.mark.slow
@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.exists(), reason=f"no real trips at {REAL_TRIPS}")
def test_thirty_thousand_real_trips_beat_the_course_and_a_renewal_does_no_harm():
    def month(name: str, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        trips = clean(as_trip_table(pd.read_parquet(REAL_TRIPS / f"{name}.parquet"), name), NEW_YORK, FARE).trips
        trips = trips if rows is None else trips.sample(rows, random_state=1)
        return compute_features(trips, NEW_YORK).to_numpy(), trips["fare_amount"].to_numpy(np.float32)

    base, january, february = month("taxi_base_2009_2014", 33_000), month("taxi_2015_01"), month("taxi_2015_02")
    held_back = (base[0][30_000:], base[1][30_000:])
    hyperparameters = {"learning_rate": 0.005, "batch_size": 512, "patience": 2, "max_epochs": 5, "seed": 1}
    network = build_network(base[0][:30_000], base[1][:30_000], NEW_YORK, learning_rate=0.005, seed=1)
    fit(network, InMemory(base[0][:30_000], base[1][:30_000]), *held_back, **hyperparameters)
    frozen_mae = mae(network, february)
    assert frozen_mae < 2.2  # the course's network: 2.34 after 63,000 trips

    stops = np.random.default_rng(1).random(len(january[1])) < 0.1
    learnt, stopping = ([part[rows] for part in january] for rows in (~stops, stops))
    fit(network, InMemory(*learnt), *stopping, **hyperparameters | {"learning_rate": 0.0005})
    assert mae(network, february) < frozen_mae + 0.01
