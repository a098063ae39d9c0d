"""What a month costs beyond its own work: until the first step, between the steps, imports, and after the last step.

The software as its operator has it: a base model in production, `make dev`, and months as the sensor requests them. The
parts are read from Dagster's log. MLflow is imported before the first step, TensorFlow within the steps; its import is
measured apart, in fresh interpreters, and taken off the steps: the rest is the month's own work.

    .venv/bin/python bench/orchestration.py                          # three months of 20,000 trips
    .venv/bin/python bench/orchestration.py --months 6 --trips 1000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import dagster as dg

from taxifare.settings import Settings
from taxifare_dagster.demo import Demo
from taxifare_dagster.home import prepare_home

DEFINITIONS = "import taxifare_dagster.definitions"
MLFLOW = f"{DEFINITIONS}, mlflow, dagster_mlflow"
TENSORFLOW = f"{MLFLOW}, keras"
PATIENCE_S = 900.0
Begin, End = dg.DagsterEventType.STEP_START, (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=3)
    parser.add_argument("--trips", type=int, default=20_000)
    parser.add_argument("--port", type=int, default=3907)
    arguments = parser.parse_args()
    dagster_s, definitions_s = import_seconds("import dagster"), import_seconds(DEFINITIONS)
    print(f"definitions load in {definitions_s:.1f} s (`import dagster`: {dagster_s:.1f} s)")
    mlflow_s, tensorflow_s = import_seconds(MLFLOW), import_seconds(TENSORFLOW)
    imports_s = tensorflow_s - mlflow_s
    print(f"MLflow after that: {mlflow_s - definitions_s:.1f} s; TensorFlow after that: {imports_s:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "TAXIFARE_HOME": folder,
            "SIMULATOR_TRIPS_PER_MONTH": str(arguments.trips),
            "LAST_MONTH": f"2015-{arguments.months:02}",
        }
        settings = Settings()
        prepare_home(settings)
        with dg.DagsterInstance.get() as instance:
            Demo(settings, instance).run("base")
            runs = run_months(instance, arguments.months, arguments.port)
            parts = [parts_of(instance, record, imports_s) for record in runs]
            waits = [
                later.create_timestamp.timestamp() - (earlier.end_time or 0.0) for earlier, later in pairwise(runs)
            ]
    show(parts, waits)


def import_seconds(statement: str) -> float:
    """Returns the best of three times that a fresh interpreter takes for the statement."""

    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - started

    return min(seconds() for _ in range(3))


def run_months(instance: dg.DagsterInstance, months: int, port: int) -> list[dg.RunRecord]:
    """Returns the runs of the months, oldest first, as `make dev` runs them by itself."""
    log = Path(os.environ["TAXIFARE_HOME"]) / "dagster.log"
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [sys.executable, "-m", "taxifare_dagster.dev", "--port", str(port)], stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + PATIENCE_S
        done = dg.RunsFilter(job_name="monthly_job", statuses=[dg.DagsterRunStatus.SUCCESS])
        while len(instance.get_runs(done)) < months:
            if dev.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the months did not end; the end of the log:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        return sorted(instance.get_run_records(done), key=lambda record: record.create_timestamp)
    finally:
        dev.terminate()
        with suppress(subprocess.TimeoutExpired):
            dev.wait(30)


def parts_of(instance: dg.DagsterInstance, record: dg.RunRecord, imports_s: float) -> dict[str, float]:
    """Returns the seconds of each part of a run, in their order."""
    events = [
        (entry.timestamp, entry.dagster_event)
        for entry in instance.all_logs(record.dagster_run.run_id)
        if entry.dagster_event is not None
    ]

    def when(kind: dg.DagsterEventType) -> float:
        return next(at for at, event in events if event.event_type is kind)

    created = record.create_timestamp.timestamp()
    begun = {event.step_key: at for at, event in events if event.event_type is Begin}
    steps = sorted((begun[event.step_key], at) for at, event in events if event.event_type in End)
    busy, reached = 0.0, steps[0][0]
    for begin, end in steps:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    launched, started = when(dg.DagsterEventType.RUN_STARTING), when(dg.DagsterEventType.RUN_START)
    return {
        "in the queue": launched - created,
        "process and definitions": started - launched,
        "until the first step": steps[0][0] - started,
        "between steps": reached - steps[0][0] - busy,
        "imports in steps": imports_s,
        "own work": busy - imports_s,
        "after the last step": (record.end_time or reached) - reached,
    }


def show(parts: list[dict[str, float]], waits: list[float]) -> None:
    """Prints the median of each part and the ratio."""
    medians = {name: median(part[name] for part in parts) for name in parts[0]}
    for name, seconds in medians.items():
        print(f"{name:<26}{seconds:>7.1f} s")
    total, work = median(sum(part.values()) for part in parts), medians["own work"]
    print(f"{'a month, click to end':<26}{total:>7.1f} s, {total / work:.2f} times its own work")
    if waits:
        print(f"the sensor asks for the next month {median(waits):.1f} s after the end of the one before")


if __name__ == "__main__":
    main()
