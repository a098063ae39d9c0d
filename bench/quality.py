"""How good the network is on real trips, beside simpler models, gradient boosting and the course's network.

    .venv/bin/python bench/quality.py                            # 200,000 trips up to 2013, judged on 2014
    .venv/bin/python bench/quality.py --rows all --judge 2015    # every base trip, judged on January to June 2015
    .venv/bin/python bench/quality.py --only speed               # seconds to the least error on 100,000 trips

Whatever is chosen is chosen on 2014, but for the cost of the correction (`docs/model.md`); 2015 is looked at to report.
Every model learns from the same trips and is judged on the same ones. A random tenth of the training trips decides when
to stop. The first table compares models, the second takes the network apart, the third says how long the network and
the course's take to their least error. `--figures` keeps the first two as pictures for `docs/model.md`.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import lightgbm
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from preprocessing import course_preprocess

from taxifare.model.correction import correction_share
from taxifare.model.fitting import InMemory, peak_memory_mib, predict, quote
from taxifare.model.network import ARCHITECTURES, Architecture
from taxifare.settings import Settings
from taxifare.training.from_random_weights import architecture_of, fit_rows
from taxifare.trips.city_files import shipped
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features, feature_names
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE

REAL_TRIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "nyc_kaggle_format"
NEW_YORK = shipped("new-york").facts
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
SPEED_ROWS, SPEED_TURNS = 100_000, 5
NETWORKS: dict[tuple[Architecture, int, int], keras.Model] = {}
TIMES: dict[str, tuple[float, int]] = {}
"""Seconds and epochs that a network took to its least error, the last time it was trained."""

TREND = ("trend_years", *(rule.name for rule in NEW_YORK.rules))

ABLATIONS: dict[str, dict[str, Any]] = {
    "the network": {},
    "without cells": {"cell_width": 0},
    "without ways": {"way_width": 0},
    "without distance steps": {"distance_width": 0},
    "without hours of the week": {"hour_width": 0},
    "without weeks of the year": {"week_width": 0},
    "dense layers only": {"cell_width": 0, "way_width": 0, "distance_width": 0, "hour_width": 0, "week_width": 0},
    "one size of cells": {"cells_km": (0.5,)},
    "dense layers of 64 and 32": {"dense_widths": (64, 32)},
    "one member": {"members": 1},
    "places not moved": {"jitter_km": 0.0},
    "a straight trend": {"levels_a_year": 0},
    "the shape for fewer trips": asdict(min(ARCHITECTURES.items())[1]),
    "the shape for more trips": asdict(max(ARCHITECTURES.items())[1]),
}
"""What is different from the network for so many trips."""


@dataclass(frozen=True)
class Rows:
    """Trips with their features and fares in USD; `stops` marks the training trips that decide when to stop."""

    trips: pd.DataFrame
    features: np.ndarray
    targets: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Result:
    """What came of a model: errors in USD (seeds, trips), and the seconds of one training."""

    name: str
    errors: np.ndarray
    seconds: float

    @property
    def maes(self) -> np.ndarray:
        """Mean absolute error of each seed."""
        return np.asarray(np.abs(self.errors).mean(axis=1))

    @property
    def rmse(self) -> float:
        """Root mean squared error, averaged over the seeds."""
        return float(np.sqrt((self.errors**2).mean(axis=1)).mean())

    @property
    def absolute(self) -> np.ndarray:
        """Absolute error of each trip, averaged over the seeds."""
        return np.asarray(np.abs(self.errors).mean(axis=0))


Learner = Callable[[Rows, Rows, int], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="200000", help="training trips: a number or all")
    parser.add_argument("--judge", default="2014", choices=["2014", "2015"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["models", "ablations", "speed"])
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    if arguments.only == "speed":
        compare_speed(*load(SPEED_ROWS, 2014))
        return
    train, judge = load(None if arguments.rows == "all" else int(arguments.rows), int(arguments.judge))
    print(f"{len(train):,} trips to learn from, {len(judge):,} of {arguments.judge} to be judged by")

    if arguments.only != "ablations":
        models: dict[str, tuple[Learner, int]] = {
            "the network, corrected": (corrected_network, arguments.seeds),
            "the network": (network_with(), arguments.seeds),
            "constant (median)": (constant, 1),
            "linear on haversine": (linear, 1),
            "LightGBM, same features": (lightgbm_same_features, arguments.seeds),
            "LightGBM without trend": (lightgbm_without_trend, 1),
            "the course's network": (course_network, arguments.seeds),
        }
        results = compare(models, train, judge)
        if arguments.figures:
            draw(results, f"Judged on {arguments.judge}", arguments.figures / "model-quality.png")
    if arguments.only != "models":
        parts = {name: (network_with(**change), arguments.seeds) for name, change in ABLATIONS.items()}
        results = compare(parts, train, judge)
        if arguments.figures:
            draw(results, "What each part is worth", arguments.figures / "model-ablations.png")
    if arguments.only is None:
        compare_speed(*load(SPEED_ROWS, 2014))


def load(rows: int | None, judged_year: int) -> tuple[Rows, Rows]:
    """Returns the trips to learn from, at most `rows` drawn at random, and the later ones to be judged by."""
    files = ["taxi_base_2009_2014", *(f"taxi_2015_{month:02d}" for month in range(1, 7))]
    tables = [as_trip_table(pd.read_parquet(REAL_TRIPS / f"{name}.parquet"), name) for name in files]
    trips = clean(pd.concat(tables, ignore_index=True), NEW_YORK, FARE).trips
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
        errors.append(learner(train, judge, seed) - judge.targets)
    return Result(name, np.array(errors), (time.perf_counter() - started) / seeds)


def compare(models: dict[str, tuple[Learner, int]], train: Rows, judge: Rows) -> list[Result]:
    """Prints a line a model, with its distance to the first on the same trips and the distance's 95 % interval."""
    print(f"\n{'':<27}{'MAE':>8}{'± seeds':>9}{'RMSE':>8}{'bias':>8}{'seconds':>9}   the first has less MAE and RMSE")
    results: list[Result] = []
    for name, (learner, seeds) in models.items():
        result = judge_model(name, learner, train, judge, seeds)
        results.append(result)
        ours, maes = results[0], result.maes
        more = result.absolute - ours.absolute
        half = 1.96 * more.std() / np.sqrt(len(more))
        print(
            f"{result.name:<27}{maes.mean():>8.4f}{maes.std():>9.4f}{result.rmse:>8.3f}{result.errors.mean():>+8.3f}"
            f"{result.seconds:>9.1f}   {more.mean():+.4f} ± {half:.4f} ({more.mean() / maes.mean():+.1%})"
            f" {1 - ours.rmse / result.rmse:+.1%}",
            flush=True,
        )
    return results


def draw(results: list[Result], title: str, file: Path) -> None:
    """Keeps the errors of the models as a picture."""
    figure = Figure(figsize=(8, 0.45 * len(results) + 1.2), layout="constrained")
    axes = figure.subplots()
    maes = [result.maes for result in results]
    colours = ["#1f77b4" if result.name.startswith("the network") else "#999999" for result in results]
    bars = axes.barh(
        [result.name for result in results],
        [mae.mean() for mae in maes],
        xerr=[mae.std() for mae in maes],
        color=colours,
    )
    axes.bar_label(bars, fmt="%.3f", padding=4)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="mean absolute error, USD a trip")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def compare_speed(train: Rows, judge: Rows) -> None:
    """Prints the seconds to the least error on the trips that decide when to stop, and the share of the course's.

    The networks take turns, a seed each time; seconds are medians, so that neither TensorFlow's start, which the first
    fit of a process pays for, nor a busy moment counts.
    """
    NETWORKS.clear()
    print(f"\n{len(train):,} trips{'':<14}{'MAE':>8}{'to best, s':>12}{'epochs/s':>10}{'peak MiB':>10}")
    learners = {"the network": network_with(), "the course's network": course_network}
    taken: dict[str, list[float]] = {name: [] for name in learners}
    for seed in range(1, SPEED_TURNS + 1):
        for name, learner in learners.items():
            keras.backend.clear_session()
            predicted = learner(train, judge, seed)
            seconds, epochs = TIMES[name]
            taken[name].append(seconds)
            mae = np.abs(predicted - judge.targets).mean()
            rate = epochs / seconds
            print(f"{name:<27}{mae:>8.4f}{seconds:>12.1f}{rate:>10.2f}{peak_memory_mib():>10.0f}", flush=True)
    ours, course = (float(np.median(each)) for each in taken.values())
    print(f"the network takes {ours / course:.2f} of the course's time: {ours:.1f} s and {course:.1f} s")


def constant(train: Rows, judge: Rows, _seed: int) -> np.ndarray:
    return np.full(len(judge), np.median(train.targets))


def linear(train: Rows, judge: Rows, _seed: int) -> np.ndarray:
    kilometre = NAMES.index("haversine_km")
    return np.polyval(np.polyfit(train.features[:, kilometre], train.targets, 1), judge.features[:, kilometre])


def lightgbm_same_features(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    def dataset(rows: np.ndarray) -> lightgbm.Dataset:
        return lightgbm.Dataset(train.features[rows], train.targets[rows])

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


def network_with(**change: Any) -> Learner:
    def learn(train: Rows, judge: Rows, seed: int) -> np.ndarray:
        return predict(trained(replace(usual(train), **change), train, seed), judge.features)

    return learn


def corrected_network(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    network = trained(usual(train), train, seed)
    held, held_upper = quote(network, train.features[train.stops]).T
    share = correction_share(held - train.targets[train.stops], held_upper - held)
    predicted, upper = quote(network, judge.features).T
    return np.asarray(predicted + share * (upper - predicted))


def usual(train: Rows) -> Architecture:
    return architecture_of(SETTINGS, int((~train.stops).sum()))


def trained(shape: Architecture, train: Rows, seed: int) -> keras.Model:
    """Returns the network fitted to the trips, once for each shape, number of trips and seed."""
    key = (shape, len(train), seed)
    if key not in NETWORKS:
        x, y, stops = train.features, train.targets, train.stops
        network, history = fit_rows(
            InMemory(x, y, ~stops),
            (x[~stops], y[~stops]),
            (x[stops], y[stops]),
            SETTINGS.model_copy(update={"seed": seed}),
            architecture=shape,
        )
        until_best = history.epochs[: history.best_epoch + 1]
        TIMES["the network"] = sum(epoch.seconds for epoch in until_best), history.best_epoch
        NETWORKS[key] = network
    return NETWORKS[key]


def course_network(train: Rows, judge: Rows, seed: int) -> np.ndarray:
    """Trains the course's network on the course's features, re-created from their public description."""
    x, y, stops = course_preprocess(train.trips), train.targets, train.stops
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
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: ends.append(time.perf_counter()))
    started = time.perf_counter()
    network.fit(
        *(x[~stops], y[~stops]),
        validation_data=(x[stops], y[stops]),
        batch_size=256,
        epochs=100,
        callbacks=[stop, clock],
        verbose=0,
    )
    TIMES["the course's network"] = ends[stop.best_epoch] - started, stop.best_epoch + 1
    return np.asarray(network.predict(course_preprocess(judge.trips), batch_size=16384, verbose=0)[:, 0])


if __name__ == "__main__":
    main()
