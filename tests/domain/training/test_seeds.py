"""Seeds hold: the same settings give the same weights to the last bit, whatever else the process does or has done."""

import multiprocessing
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest

from taxifare.digests import digest
from taxifare.model.fitting import InMemory, fit
from taxifare.settings import Settings
from taxifare.training.from_random_weights import arrays_of, fit_from_scratch
from tests.support.small import clean_base, small_settings

BASE_TRIPS = 600


def weights_of(settings: Settings) -> str:
    """Returns a short text that changes when a bit does of a network, fitted from random weights and then renewed."""
    base = clean_base(settings)
    network, _ = fit_from_scratch(base.frame, settings)
    features, targets = arrays_of(base.frame, settings)
    held = np.arange(len(targets)) % 5 == 0
    fit(
        network,
        InMemory(features, targets, ~held),
        features[held],
        targets[held],
        learning_rate=0.001,
        batch_size=256,
        patience=2,
        max_epochs=2,
        seed=settings.seed,
    )
    return digest([array.tobytes().hex() for array in network.get_weights()])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small_settings(tmp_path_factory.mktemp("home"), simulator_base_trips=BASE_TRIPS)


@pytest.fixture(scope="module")
def weights(settings: Settings) -> str:
    return weights_of(settings)


@contextmanager
def drawing_beside() -> Iterator[None]:
    """Draws from Python's generator and from Keras' own on a thread."""
    is_over, has_drawn = threading.Event(), threading.Event()

    def draw() -> None:
        while not is_over.wait(0.0005):
            random.random()
            keras.random.uniform((1,))
            has_drawn.set()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        assert has_drawn.wait(60)
        yield
    finally:
        is_over.set()
        thread.join()


def test_in_another_process(settings: Settings, weights: str) -> None:
    # A pool of multiprocessing ends its process by SIGTERM, which one of TensorFlow's did not heed.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(weights_of, settings).result() == weights


def test_after_other_trainings_and_beside_a_thread_that_draws(tmp_path: Path, settings: Settings, weights: str) -> None:
    """Nothing is drawn from generators that are shared either: what draws from them next would find them changed."""

    def draw() -> tuple[float, ...]:
        return random.random(), np.random.random(), float(keras.random.uniform(()))  # noqa: NPY002

    keras.utils.set_random_seed(1)
    undisturbed = draw()
    keras.utils.set_random_seed(1)
    other = weights_of(small_settings(tmp_path, seed=2, simulator_base_trips=BASE_TRIPS))
    assert draw() == undisturbed
    with drawing_beside():
        assert weights_of(settings) == weights != other
