"""How good the network is on real trips, beside simpler models, gradient boosting and the course's network.

    .venv/bin/python bench/quality.py                            # 200,000 trips up to 2013, judged on 2014
    .venv/bin/python bench/quality.py --rows all --judge 2015    # every base trip, judged on January to June 2015

Whatever is chosen is chosen on 2014; 2015 is looked at to report. Every model learns from the same trips and is judged
on the same ones. A random tenth of the training trips decides when to stop. The first table compares models, the
second takes the network apart.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import lightgbm
import numpy as np
import pandas as pd
from preprocessing import course_preprocess

from taxifare.cities import NEW_YORK
from taxifare.cleaning import clean
from taxifare.features import compute_features, feature_names
from taxifare.network import Architecture, build_network
from taxifare.settings import Settings
from taxifare.training import InMemory, fit, predict
from taxifare.trips import as_trip_table

REAL_TRIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "nyc_kaggle_format"
NAMES = feature_names(NEW_YORK)
SETTINGS = Settings(_env_file=None)

# Won on 2014 among 127 and 255 leaves, learning rates 0.05 and 0.1, 40 and 60 rows a leaf.
LIGHTGBM = {
    "objective": "l1",
    "num_leaves": 255,
    "learning_rate": 0.05,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbose": -1,
}
LIGHTGBM_TREES, LIGHTGBM_PATIENCE = 2000, 100
TREND = ("trend_years", *(rule.name for rule in NEW_YORK.rules))

ABLATIONS = {
    "the network": Architecture(),
    "without cells": Architecture(cell_width=0),
    "without routes": Architecture(route_width=0),
    "without distance steps": Architecture(distance_width=0),
    "without hours of the week": Architecture(hour_width=0),
    "dense layers only": Architecture(cell_width=0, route_width=0, distance_width=0, hour_width=0),
    "one size of cells": Architecture(cells_km=(0.5,)),
    "half the dense units": Architecture(dense_widths=(64, 32)),
}


@dataclass(frozen=True)
class Rows:
    """Trips with their features and fares in USD; `stops` marks the training trips that decide when to stop."""

    trips: pd.DataFrame
    features: np.ndarray
    fares_usd: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.fares_usd)


@dataclass(frozen=True)
class Result:
    """What came of a model: errors in USD (seeds, trips), and the seconds of one training."""

    name: str
    errors_usd: np.ndarray
    seconds: float

    @property
    def absolute_usd(self) -> np.ndarray:
        """Absolute error of each trip, averaged over the seeds."""
        return np.abs(self.errors_usd).mean(axis=0)


Learner = Callable[[Rows, Rows, int], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="200000", help="training trips: a number or all")
    parser.add_argument("--judge", default="2014", choices=["2014", "2015"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["models", "ablations"])
    arguments = parser.parse_args()
    train, judge = load(None if arguments.rows == "all" else int(arguments.rows), int(arguments.judge))
    print(f"{len(train):,} trips to learn from, {len(judge):,} of {arguments.judge} to be judged by")

    if arguments.only != "ablations":
        models: dict[str, tuple[Learner, int]] = {
            "the network": (network_of(Architecture()), arguments.seeds),
            "constant (median)": (constant, 1),
            "linear on haversine": (linear, 1),
            "the course's network": (course_network, arguments.seeds),
            "LightGBM without trend": (lightgbm_without_trend, 1),
            "LightGBM, same features": (lightgbm_same_features, arguments.seeds),
        }
        compare(models, train, judge)
    if arguments.only != "models":
        compare({name: (network_of(shape), arguments.seeds) for name, shape in ABLATIONS.items()}, train, judge)


def load(rows: int | None, judged_year: int) -> tuple[Rows, Rows]:
    """Returns the trips to learn from, at most `rows` drawn at random, and the later ones to be judged by."""
    files = ["taxi_base_2009_2014", *(f"taxi_2015_{month:02d}" for month in range(1, 7))]
    tables = [as_trip_table(pd.read_parquet(REAL_TRIPS / f"{name}.parquet"), name) for name in files]
    trips = clean(pd.concat(tables, ignore_index=True), NEW_YORK).trips
    year = trips["pickup_datetime"].dt.year
    train = trips[year < judged_year]
    if rows is not None:
        train = train.sample(rows, random_state=1).sort_index()
    return as_rows(train), as_rows(trips[year == judged_year])


def as_rows(trips: pd.DataFrame) -> Rows:
    features = np.ascontiguousarray(compute_features(trips, NEW_YORK))
    stops = np.random.default_rng(1).random(len(trips)) < 0.1
    return Rows(trips, features, trips["fare_amount"].to_numpy(np.float32), stops)


def judge_model(name: str, learner: Learner, train: Rows, judge: Rows, seeds: int) -> Result:
    errors, started = [], time.perf_counter()
    for seed in range(1, seeds + 1):
        keras.backend.clear_session()
        errors.append(learner(train, judge, seed) - judge.fares_usd)
    return Result(name, np.array(errors), (time.perf_counter() - started) / seeds)


def compare(models: dict[str, tuple[Learner, int]], train: Rows, judge: Rows) -> None:
    """Prints a line a model, with its distance to the first on the same trips and the distance's 95 % interval."""
    print(f"\n{'':<27}{'MAE':>8}{'± seeds':>9}{'RMSE':>8}{'bias':>8}{'seconds':>9}   MAE more than the first")
    ours: Result | None = None
    for name, (learner, seeds) in models.items():
        result = judge_model(name, learner, train, judge, seeds)
        ours = ours or result
        maes = np.abs(result.errors_usd).mean(axis=1)
        rmse = np.sqrt((result.errors_usd**2).mean(axis=1)).mean()
        more = result.absolute_usd - ours.absolute_usd
        half = 1.96 * more.std() / np.sqrt(len(more))
        print(
            f"{result.name:<27}{maes.mean():>8.4f}{maes.std():>9.4f}{rmse:>8.3f}{result.errors_usd.mean():>+8.3f}"
            f"{result.seconds:>9.1f}   {more.mean():+.4f} ± {half:.4f} ({more.mean() / maes.mean():+.1%})",
            flush=True,
        )


def constant(train: Rows, judge: Rows, _seed: int) -> np.ndarray:
    return np.full(len(judge), np.median(train.fares_usd))


def linear(train: Rows, judge: Rows, _seed: int) -> np.ndarray:
    kilometre = NAMES.index("haversine_km")
    return np.polyval(np.polyfit(train.features[:, kilometre], train.fares_usd, 1), judge.features[:, kilometre])


def lightgbm_same_features(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    def dataset(rows: np.ndarray) -> lightgbm.Dataset:
        return lightgbm.Dataset(train.features[rows], train.fares_usd[rows])

    booster = lightgbm.train(
        LIGHTGBM | {"seed": seed},
        dataset(~train.stops),
        LIGHTGBM_TREES,
        valid_sets=[dataset(train.stops)],
        callbacks=[lightgbm.early_stopping(LIGHTGBM_PATIENCE, verbose=False)],
    )
    return np.asarray(booster.predict(judge.features))


def lightgbm_without_trend(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    kept = [column for column, name in enumerate(NAMES) if name not in TREND]
    without = [replace(rows, features=rows.features[:, kept]) for rows in (train, judge)]
    return lightgbm_same_features(without[0], without[1], seed)


def network_of(shape: Architecture) -> Learner:
    def learn(train: Rows, judge: Rows, seed: int) -> np.ndarray:
        x, y, stops = train.features, train.fares_usd, train.stops
        rate = SETTINGS.learning_rate
        network = build_network(x[~stops], y[~stops], NEW_YORK, learning_rate=rate, seed=seed, architecture=shape)
        fit(
            network,
            *(InMemory(x, y, ~stops), x[stops], y[stops]),
            learning_rate=rate,
            batch_size=SETTINGS.batch_size,
            patience=SETTINGS.patience,
            max_epochs=SETTINGS.max_epochs,
            seed=seed,
        )
        return predict(network, judge.features)

    return learn


def course_network(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    """Trains the course's network on the course's features, re-created from their public description."""
    x, y, stops = course_preprocess(train.trips), train.fares_usd, train.stops
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            layers.Dense(100, activation="relu", kernel_regularizer=keras.regularizers.L1L2(l2=0.005)),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.1),
            layers.Dense(50, activation="relu"),
            layers.BatchNormalization(momentum=0.9),
            layers.Dropout(0.1),
            layers.Dense(1),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(0.0005), loss="mean_squared_error")
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    network.fit(
        *(x[~stops], y[~stops]),
        validation_data=(x[stops], y[stops]),
        batch_size=256,
        epochs=100,
        callbacks=[stop],
        verbose=0,
    )
    return network.predict(course_preprocess(judge.trips), batch_size=16384, verbose=0)[:, 0]


if __name__ == "__main__":
    main()
