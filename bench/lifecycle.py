"""What a month costs: loading the code location, a million trips through the four steps, registering, scoring, memory.

Each figure stands beside a named baseline measured in the same run. Run: `python bench/lifecycle.py`.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar, cast

import numpy as np
import pandas as pd

from taxifare.approval.versions import registry_of
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.simulator.source import Simulator
from taxifare.training.appraisal import appraise_production
from taxifare.training.renewal import renew
from taxifare.trips.editions import Trips
from taxifare.trips.features import compute_features
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess, split_month

MONTH = parse_month("2015-01")
TRIPS = 1_000_000
KERAS_TRIPS = 20_000

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Returns what the work returns, and the seconds it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def peak_mib() -> float:
    """Returns the most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def import_seconds(statement: str) -> float:
    """Returns the best of three times that a fresh interpreter takes for the statement."""
    with tempfile.TemporaryDirectory() as folder:
        command, environment = [sys.executable, "-c", statement], {**os.environ, "TAXIFARE_HOME": folder}
        return min(timed(lambda: subprocess.run(command, check=True, env=environment))[1] for _ in range(3))


def raw_month(settings: Settings) -> Trips:
    """Returns a simulated month of about a million raw trips, split."""
    source = replace(cast("Simulator", make_source(settings)), trips_per_month=TRIPS)
    return split_month(source.read_month(MONTH), MONTH, settings.validation_share)


def bench_code_location() -> None:
    """Prints what loading the definitions takes beyond Dagster itself."""
    dagster_s = import_seconds("import dagster")
    ours_s = import_seconds("import taxifare_dagster.definitions")
    print(f"code location: {ours_s - dagster_s:.2f} s beyond `import dagster`, which takes {dagster_s:.2f} s")


def bench_month(settings: Settings, registry: ModelRegistry) -> None:
    """Prints speed and memory of a million-trip month, and of scoring it with the registered model."""
    raw, seconds = timed(lambda: raw_month(settings))
    print(f"simulating {len(raw.frame):,} trips: {seconds:.2f} s")
    processed, seconds = timed(lambda: preprocess(raw, settings.city_facts, settings.target_facts).trips)
    print(f"cleaning and features: {len(raw.frame) / seconds:,.0f} trips/s; peak memory so far {peak_mib():,.0f} MiB")
    tags: Mapping[str, str] = {"asset": "staging_model", "month": str(MONTH), "dagster_run": "bench"}
    candidate, seconds = timed(lambda: renew(processed, None, None, registry, settings, run_tags=tags))
    print(f"training one epoch, registering and scoring: {seconds:.1f} s; peak memory so far {peak_mib():,.0f} MiB")
    version = str(candidate.appraisal.version)
    tags = {**tags, "asset": "production_eval_mae"}
    _, seconds = timed(lambda: appraise_production(processed, version, registry, settings, run_tags=tags))
    print(f"scoring production on the validation trips: {seconds:.1f} s; peak memory of it all {peak_mib():,.0f} MiB")
    bench_registry(processed.frame, version, registry, settings)


def bench_registry(processed: pd.DataFrame, version: str, registry: ModelRegistry, settings: Settings) -> None:
    """Prints what logging and registering a model takes, and how fast a registered model scores raw trips."""
    model = registry.load(version)

    def register(number: int) -> str:
        with registry.runs.open("bench", {"number": str(number)}) as run_id:
            return registry.register(
                model.network, settings.city_facts, model.exposure, run_id=run_id, fingerprint=str(number), tags={}
            )

    print(f"logging and registering a model: {min(timed(partial(register, number))[1] for number in range(3)):.2f} s")
    model.predict(processed.head(100_000))
    seconds = min(timed(lambda: model.predict(processed))[1] for _ in range(3))
    sample = processed.head(KERAS_TRIPS)
    network, city = model.network, settings.city_facts
    _, keras_s = timed(lambda: network.predict(compute_features(sample, city).to_numpy(np.float32), verbose=0))
    ratio = (len(processed) / seconds) / (KERAS_TRIPS / keras_s)
    print(
        f"scoring raw trips with a registered model: {len(processed) / seconds:,.0f} trips/s, "
        f"{ratio:.0f} times features and `keras.Model.predict` in its default batches"
    )


def main() -> None:
    """Prints all figures."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(taxifare_home=folder, max_epochs=2, challengers=("warm",))
        registry = registry_of(settings)
        registry.prepare()
        bench_code_location()
        bench_month(settings, registry)


if __name__ == "__main__":
    main()
