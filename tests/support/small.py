"""Months small enough to train on in a second: the simulated city with few trips, the network with few epochs."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cloudpickle
import numpy.typing as npt
import pandas as pd
import pytest

from taxifare.model.fitting import Matrix, quote
from taxifare.model.network import ARCHITECTURES
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.training.base_model import train_base
from taxifare.training.base_trips import BaseTrips
from taxifare.training.candidates import Candidate
from taxifare.training.challengers import OnEpoch
from taxifare.training.gathering import gather_base
from taxifare.training.renewal import renew
from taxifare.trips.editions import BASE, Trips
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess, split_month

if TYPE_CHECKING:
    import keras

TRIPS = 1_500

PLAIN_NETWORK = replace(
    ARCHITECTURES[0], dense_widths=(16,), cell_width=0, way_width=0, week_width=0, learning_rate=0.03
)
"""The network without its tables of places and weeks, which learns as much from an epoch of a small month. Whoever
trains, loads or asks a network traces it anew, which for this one takes half as long as for the real one."""


@contextmanager
def plain_networks() -> Iterator[None]:
    """New networks of this process are plain ones, for tests of what is done with networks, not of networks."""
    # A model holds the functions that it is asked through, and is asked where there are no tests, too: an installation
    # that went on with one found no tests.support, and its months could not be scored.
    here = sys.modules[__name__]
    with ExitStack() as ends, pytest.MonkeyPatch.context() as patch:
        if __name__ not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(here)
            ends.callback(cloudpickle.unregister_pickle_by_value, here)
        patch.setattr("taxifare.training.from_random_weights.ARCHITECTURES", {0: PLAIN_NETWORK})
        patch.setattr("taxifare.model.fitting.quote", _quote_untraced)
        yield


def _quote_untraced(network: "keras.Model", features: npt.ArrayLike) -> Matrix:
    """What `quote` returns; tracing a network takes ten times as long as asking it once about a small month."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        return quote(network, features)
    finally:
        tf.config.run_functions_eagerly(False)


def small_settings(home: Path, **changes: object) -> Settings:
    """Settings with all state under a folder of the test's own, whatever `.env` lies about."""
    small: dict[str, Any] = {
        "taxifare_home": home,
        "simulator_trips_per_month": TRIPS,
        "simulator_base_trips": 2 * TRIPS,
        "max_epochs": 1,
        "batch_size": 256,
        "rehearsal_trips": TRIPS,
        "challengers": ("warm",),
    }
    return Settings(_env_file=None, **small | changes)


def raw_month(settings: Settings, month: str) -> Trips:
    """A month of trips as published, split by time."""
    published = make_source(settings).read_month(parse_month(month))
    return split_month(published, parse_month(month), settings.validation_share)


def clean_month(settings: Settings, month: str) -> Trips:
    """The same, clean and with features."""
    return preprocess(raw_month(settings, month), settings.city_facts, settings.target_facts).trips


def clean_base(settings: Settings) -> Trips:
    """The years before the first month, clean and with features."""
    return base_file(settings).preprocessed(settings.city_facts, None)


def base_file(settings: Settings) -> BaseTrips:
    """The years before the first month, as the asset `base_trips` makes them."""
    return gather_base(make_source(settings).read_base(), settings).trips


def run_tags(asset: str, month: str, dagster_run: str) -> dict[str, str]:
    """What names the MLflow run of an asset."""
    return {"asset": asset, "month": month, "dagster_run": dagster_run}


def train(
    trips: Trips | BaseTrips,
    parent: str | None,
    registry: ModelRegistry,
    settings: Settings,
    run: str,
    on_epoch: OnEpoch | None = None,
    rehearsed: pd.DataFrame | None = None,
) -> Candidate:
    """A candidate, as the asset `base_model` or `staging_model` trains it in a Dagster run."""
    if isinstance(trips, BaseTrips):
        tags = run_tags("base_model", BASE, run)
        return train_base(trips, registry, settings, run_tags=tags, on_epoch=on_epoch)
    tags = run_tags("staging_model", trips.edition.subject, run)
    candidate = renew(trips, rehearsed, parent, registry, settings, run_tags=tags, on_epoch=on_epoch)
    registry.set_staging(candidate.version)
    return candidate


def version_of(candidate: Candidate) -> str:
    """The registered version of a candidate."""
    return cast("str", candidate.appraisal.version)
