"""On real rides of each city and target a bundle answers as the registered model does, to the cent or the second."""

from collections.abc import Callable
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from taxifare.model.exposure import Exposure
from taxifare.model.fitting import InMemory, fit
from taxifare.model.network import ARCHITECTURES, Architecture, build_network
from taxifare.model.registry import ModelRegistry
from taxifare.serving.bundle import Bundle
from taxifare.serving.making import make_bundle, rides_of
from taxifare.serving.zones import zones_of
from taxifare.settings import Settings
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features
from taxifare.trips.table import as_trip_table
from tests.support.places import DATA
from tests.support.small import small_settings

RIDES = 10_000

pytestmark = [pytest.mark.slow, pytest.mark.real_trips]


def new_york_fares() -> pd.DataFrame:
    return pd.read_parquet(DATA / "nyc_kaggle_format" / "taxi_base_2009_2014.parquet").sample(40_000, random_state=1)


def new_york_durations() -> pd.DataFrame:
    """Green taxis, whose trips name zones."""
    trips = pd.read_parquet(DATA / "tlc" / "green_tripdata_2024-01.parquet")
    zones = zones_of("new-york")
    places = {
        f"{end}_{axis}": trips[f"{short}LocationID"].map({number: place[of] for number, place in zones.items()})
        for end, short in (("pickup", "PU"), ("dropoff", "DO"))
        for of, axis in enumerate(("longitude", "latitude"))
    }
    times = {"pickup_datetime": trips["lpep_pickup_datetime"], "dropoff_datetime": trips["lpep_dropoff_datetime"]}
    others = {"passenger_count": trips["passenger_count"], "fare_amount": trips["fare_amount"]}
    found = pd.DataFrame(times | places | others)
    return found[found["pickup_datetime"].between("2024-01-01", "2024-01-31 23:59")]


def chicago_trips() -> pd.DataFrame:
    trips = pd.read_csv(DATA / "chicago" / "tfx_chicago_taxi_data.csv")
    start = pd.to_datetime(trips["trip_start_timestamp"], unit="s")
    places = {
        f"{end}_{axis}": trips[f"{end}_{axis}"] for end in ("pickup", "dropoff") for axis in ("longitude", "latitude")
    }
    return pd.DataFrame(
        {"pickup_datetime": start, "dropoff_datetime": start + pd.to_timedelta(trips["trip_seconds"], unit="s")}
        | places
        | {"passenger_count": 1, "fare_amount": trips["fare"]}
    )


@pytest.mark.parametrize(
    ("city", "target", "read", "shape"),
    [
        ("new-york", "fare", new_york_fares, ARCHITECTURES[300_000]),
        ("new-york", "duration", new_york_durations, ARCHITECTURES[120_000]),
        ("chicago", "fare", chicago_trips, ARCHITECTURES[0]),
        ("chicago", "duration", chicago_trips, ARCHITECTURES[0]),
    ],
)
def test_a_bundle_answers_as_the_registered_model(
    city: str,
    target: str,
    read: Callable[[], pd.DataFrame],
    shape: Architecture,
    tmp_path: object,
    open_registry: Callable[[Settings], ModelRegistry],
) -> None:
    if not DATA.exists():
        pytest.skip(f"no real trips at {DATA}")
    home = UPath(tmp_path)
    source = {"trip_source": "chicago"} if city == "chicago" else {}
    settings = small_settings(home / "state", city=city, target=target, mlflow_tracking_uri=None, **source)
    facts, registry = settings.city_facts, open_registry(settings)
    trips = clean(as_trip_table(read(), "real trips"), facts, settings.target_facts).trips
    features = compute_features(trips, facts).to_numpy()
    truth = settings.target_facts.of(trips).to_numpy(np.float32)
    network = build_network(features, truth, facts, learning_rate=0.01, seed=1, architecture=shape)
    fit(
        network,
        InMemory(features, truth),
        features[:2_000],
        truth[:2_000],
        learning_rate=0.01,
        batch_size=512,
        patience=1,
        max_epochs=1,
        seed=1,
    )
    seen = Exposure(subject="base", revision="r1", first_pickup=datetime(2009, 1, 1), last_pickup=datetime(2024, 2, 1))
    with registry.runs.open("a test", {"asset": "base_model"}) as run_id:
        version = registry.register(
            network, facts, [seen], run_id=run_id, fingerprint="f1", tags={}, correction_share=0.3
        )
    model = registry.load(version)
    bundle = Bundle.read(home / make_bundle(model, settings, home), city=settings.city, target=target)

    asked = trips.sample(min(RIDES, len(trips)), random_state=2)
    assert len(asked) > 5_000
    rides = rides_of(asked)
    quotes = bundle.quote(rides)
    assert np.abs(quotes.fare - model.predict(asked)).max() < 0.005
    assert np.abs(quotes.corrected - model.predict(asked, corrected=True)).max() < 0.005
    alone = np.concatenate([bundle.quote(rides[row : row + 1]).fare for row in range(RIDES // 10)])
    assert np.abs(alone - quotes.fare[: len(alone)]).max() < 0.001
