"""Whether memory stays and time grows in line when the base years do: gathering and training 100 k, 1 M, 10 M trips.

    .venv/bin/python bench/base.py [--trips 100k,1M] [--epochs 1]

Each size is a process of its own, on simulated trips, one epoch each by default; 10 M take some minutes on two
cores. The baseline of the ratios is 1 M trips.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3"}

from taxifare.model.fitting import peak_memory_mib
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.training.from_random_weights import fit_streamed
from taxifare.training.gathering import gather_base

BASELINE = 1_000_000
MOST_MEMORY_MIB = 4 * 1024
MOST_RATIO = 1.3
"""Seconds per million trips, against those of the baseline; two runs of one size differ by a tenth."""

SIZES = {"100k": 100_000, "1M": BASELINE, "10M": 10_000_000}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trips", default=",".join(SIZES))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone is not None:
        print(json.dumps(measured(given.alone, given.epochs)))
        return
    found = {SIZES[name]: in_a_process(SIZES[name], given.epochs) for name in given.trips.split(",")}
    print(
        f"{'trips':>12} {'gather, s':>10} {'epoch, s':>9} {'epochs/s':>9} {'trips/s':>9} {'s per million':>14} "
        f"{'ratio':>6} {'peak, MiB':>10}"
    )
    baseline = found.get(BASELINE)
    for trips, one in found.items():
        ratio = one["s_per_million"] / baseline["s_per_million"] if baseline else float("nan")
        print(
            f"{trips:>12,} {one['gather_s']:>10.1f} {one['epoch_s']:>9.1f} {1 / one['epoch_s']:>9.4f} "
            f"{one['trips_per_s']:>9,.0f} {one['s_per_million']:>14.1f} {ratio:>6.2f} {one['peak_mib']:>10,.0f}"
        )
    grown = [one for trips, one in found.items() if trips > BASELINE]
    is_linear = baseline is None or all(one["s_per_million"] <= MOST_RATIO * baseline["s_per_million"] for one in grown)
    if not is_linear or any(one["peak_mib"] > MOST_MEMORY_MIB for one in found.values()):
        sys.exit(f"promised: {MOST_MEMORY_MIB:,} MiB, {MOST_RATIO} times the seconds per million of {BASELINE:,} trips")


def in_a_process(trips: int, epochs: int) -> dict[str, float]:
    """Returns what a process of its own measures: its peak is that of this size only."""
    command = [sys.executable, __file__, "--alone", str(trips), "--epochs", str(epochs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(trips: int, epochs: int) -> dict[str, float]:
    """Returns the seconds of gathering and of an epoch, and the peak memory."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            _env_file=None, taxifare_home=Path(home), simulator_base_trips=trips, dataset_size=None, max_epochs=epochs
        )
        started = time.perf_counter()
        base = gather_base(make_source(settings).read_base(), settings).trips
        gather_s = time.perf_counter() - started
        _, history, _ = fit_streamed(base, settings)
        epoch_s = 1 / history.epochs_per_s
        return {
            "gather_s": gather_s,
            "epoch_s": epoch_s,
            "trips_per_s": history.trips_per_s,
            "s_per_million": (gather_s + epoch_s) / trips * 1e6,
            "peak_mib": peak_memory_mib(),
        }


if __name__ == "__main__":
    main()
