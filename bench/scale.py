"""Whether it stays fast as it grows: what a month rehearses after 200 months, and work that two workers share.

    OMP_NUM_THREADS=1 .venv/bin/python bench/scale.py [--months 200] [--trips 200000]

Months are run one after the other, and each makes what it rehearses; the 200th may cost twice the second. Preparation –
read, clean, compute features, write – is shared by one and by two workers of one thread each: processes of this
machine, then a dask cluster on loopback. The figures stand beside the machine's load: two workers beside other work
are no two workers.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")

import pandas as pd

from taxifare.settings import ExecutionSettings, Settings
from taxifare.sources import make_source
from taxifare.training.gathering import gather_base
from taxifare.training.rehearsal import Past
from taxifare.trips.city_files import shipped
from taxifare.trips.cleaning import clean
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import with_target_and_features
from taxifare.trips.targets import FARE
from taxifare.workers import Workers, WorkersError

FIRST = parse_month("2009-01")
MOST_GROWTH, LEAST_SPEEDUP, MOST_OF_DRIVER = 2.0, 1.6, 0.05
TASKS = 12
AROUND = 3
"""Months on either side, whose seconds a figure is the median of."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--months", type=int, default=200)
    parser.add_argument("--trips", type=int, default=200_000)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"load: {', '.join(f'{load:.1f}' for load in os.getloadavg())} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        rehearsal(Path(folder) / "home", asked.months)
        preparation(Path(folder), asked.trips)
    print(f"load: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def rehearsal(home: Path, months: int) -> None:
    """Prints what making a month's rehearsal takes, by how many months there are before it."""
    settings = Settings(
        _env_file=None,
        taxifare_home=home,
        first_month=str(FIRST),
        last_month=str(FIRST + months + AROUND),
        simulator_trips_per_month=2_000,
    )
    source, later = make_source(settings), Settings(_env_file=None, taxifare_home=home, simulator_base_trips=80_000)
    base = gather_base(make_source(later).read_base(), later).trips
    past = Past(source, lambda: base, lambda _month: None, settings)
    first = None
    print(f"\n{'months before':<16}{'CPU s':>8}{'times month 2':>16}", flush=True)
    for number in [number for number in (2, 10, 50, 100, 200) if number <= months]:
        # Those before are drawn by the first of a few months in a row; it is the others that are timed.
        began = max(number - AROUND, 1)
        past.rehearsed(past.published_before(FIRST + began))
        took_s = median(cpu_seconds(past, began + step) for step in range(1, 2 * AROUND))
        first = first or took_s
        print(f"{number:<16}{took_s:>8.3f}{took_s / first:>16.2f}", flush=True)
        if took_s > MOST_GROWTH * first:
            print(f"promised: at most {MOST_GROWTH} times month 2")


def cpu_seconds(past: Past, number: int) -> float:
    """Returns the CPU seconds of a month's rehearsal: what waits for other work does not count."""
    began = time.process_time()
    past.rehearsed(past.published_before(FIRST + number))
    return time.process_time() - began


def preparation(folder: Path, trips: int) -> None:
    """Prints how long workers take to prepare trips, and what this process has to do for it."""
    settings = Settings(_env_file=None, taxifare_home=folder / "raw", simulator_trips_per_month=trips)
    raw = folder / "raw.parquet"
    make_source(settings).read_month(parse_month("2015-01")).trips.to_parquet(raw)
    print(f"\n{'preparation':<24}{'seconds':>10}{'x one':>8}{'CPU of tasks':>14}{'of this process':>17}")
    for engine in ("processes", "dask"):
        one = None
        for count in (1, 2):
            with engine_of(engine, count, folder) as execution, Workers(execution) as workers:
                for begun in [workers.submit(prepared, raw, folder / f"warm{n}") for n in range(2 * count)]:
                    begun.result()
                began, own = time.perf_counter(), time.process_time()
                begun_all = [workers.submit(prepared, raw, folder / f"{n}.parquet") for n in range(TASKS)]
                tasks_s = sum(begun.result() for begun in begun_all)
                took_s, own_s = time.perf_counter() - began, time.process_time() - own
            one = one or took_s
            print(
                f"{f'{count} of {engine}':<24}{took_s:>10.2f}{one / took_s:>8.2f}{tasks_s:>14.2f}"
                f"{own_s / tasks_s:>16.1%}"
            )
            if own_s > MOST_OF_DRIVER * tasks_s or (count == 2 and one / took_s < LEAST_SPEEDUP):
                print(f"promised: two {LEAST_SPEEDUP} x one, this process at most {MOST_OF_DRIVER:.0%} of the tasks")


@contextmanager
def engine_of(engine: str, count: int, folder: Path) -> Iterator[ExecutionSettings]:
    """Yields settings of so many workers."""
    if engine == "processes":
        yield ExecutionSettings(workers=count)
        return
    url = "tcp://127.0.0.1:8799"
    with (folder / "dask.log").open("wb") as log:
        words = [["dask_scheduler", "--host", "127.0.0.1", "--port", "8799"]]
        words += [["dask_worker", url, "--nthreads", "1", "--local-directory", str(folder)]] * count
        commands = [[sys.executable, "-m", f"distributed.cli.{first}", *rest] for first, *rest in words]
        running = [subprocess.Popen([*command, "--no-dashboard"], stdout=log, stderr=log) for command in commands]
        try:
            wait_for(url, count)
            yield ExecutionSettings(cluster_url=url)
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait()


def wait_for(url: str, count: int) -> None:
    """Ensures that so many workers are there."""
    deadline, told = time.monotonic() + 120, ""
    while time.monotonic() < deadline:
        try:
            with Workers(ExecutionSettings(cluster_url=url)) as workers:
                if workers.count == count:
                    return
        except WorkersError as error:
            told = f": {error}"
            time.sleep(0.5)
    raise SystemExit(f"dask: {count} workers are not there within two minutes{told}")


def prepared(raw: Path, place: Path) -> float:
    """Returns the CPU seconds of preparing the trips of a file."""
    began = time.process_time()
    new_york = shipped("new-york").facts
    trips = clean(pd.read_parquet(raw), new_york, FARE).trips
    with_target_and_features(trips, new_york, FARE).to_parquet(place)
    return time.process_time() - began


if __name__ == "__main__":
    main()
