"""Whether reading a month has become slower: processor time beside a commit of before, both in one run, taking turns.

    .venv/bin/python bench/reading.py                       # beside the release before sources told three answers
    .venv/bin/python bench/reading.py --before COMMIT

The same files are read by the code of each: a month as CSV and as parquet from a folder, and a month of the taxi
commission, of which some rides are drawn, or all are kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from sources import CSV_ROWS, TLC_ROWS, write_csv, write_tlc

BEFORE = "03523e6"
ROUNDS = 3
MOST_RATIO = 1.1
TREE = Path(__file__).parents[1]

READ = """
import json, os, time
from pathlib import Path
import numpy as np
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.tlc import Zones, read_trips
from taxifare.trips.months import parse_month

folder, month = Path(os.environ["BENCH_FILES"]), parse_month("2015-01")
zones = Zones(np.linspace(-74.2, -73.7, 264), np.linspace(40.5, 40.9, 264))
tlc = folder / "yellow_tripdata_2015-01.parquet"

def of_folder(kind):
    settings = Settings(_env_file=None, trip_source="folder", trip_folder=folder / kind, taxifare_home=folder / "home")
    return lambda: make_source(settings).read_month(month)

def least(work, repeats):
    found = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)

print(json.dumps({
    "CSV": least(of_folder("csv"), 7),
    "parquet": least(of_folder("parquet"), 7),
    "TLC, some drawn": least(lambda: read_trips(tlc, month, "yellow", zones, 100_000, tlc.name), 3),
    "TLC, all kept": least(lambda: read_trips(tlc, month, "yellow", zones, 10_000_000, tlc.name), 3),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, help="commit to compare with")
    before = parser.parse_args().before
    with tempfile.TemporaryDirectory() as folder, code_of(before) as earlier:
        files = Path(folder)
        publish(files)
        then, now = dict[str, float](), dict[str, float]()
        for _ in range(ROUNDS):
            for tree, least in ((earlier, then), (TREE, now)):
                for what, seconds in read_by(tree, files).items():
                    least[what] = min(seconds, least.get(what, seconds))
    print(f"{'a month as':<20}{'rows':>12}{f'{before}, CPU s':>18}{'now, CPU s':>12}{'ratio':>8}")
    for what, seconds in now.items():
        rows = TLC_ROWS if what.startswith("TLC") else CSV_ROWS
        print(f"{what:<20}{rows:>12,}{then[what]:>18.3f}{seconds:>12.3f}{seconds / then[what]:>8.2f}")
    if any(seconds > MOST_RATIO * then[what] for what, seconds in now.items()):
        sys.exit(f"slower than promised: at most {MOST_RATIO} times {before}")


@contextmanager
def code_of(commit: str) -> Iterator[Path]:
    """Yields a folder with the code of a commit, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(tree), commit], check=True, cwd=TREE)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], check=True, cwd=TREE)


def read_by(tree: Path, files: Path) -> dict[str, float]:
    """Returns the least processor time of each way to read, in a process with the code of a folder."""
    alone = {"PYTHONPATH": str(tree), "BENCH_FILES": str(files)} | dict.fromkeys(("OMP_NUM_THREADS",), "1")
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, check=True, env=os.environ | alone, cwd=files, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def publish(folder: Path) -> None:
    """Writes the files that are read; nobody is writing them any more."""
    for kind in ("csv", "parquet"):
        (folder / kind).mkdir()
    csv, parquet = folder / "csv" / "taxi_2015_01.csv", folder / "parquet" / "taxi_2015_01.parquet"
    write_csv(csv)
    trips = pd.read_csv(csv)
    trips.assign(pickup_datetime=pd.to_datetime(trips["pickup_datetime"]).dt.tz_localize(None)).to_parquet(parquet)
    write_tlc(folder / "yellow_tripdata_2015-01.parquet")
    for file in (csv, parquet):
        os.utime(file, (1_420_070_400, 1_420_070_400))


if __name__ == "__main__":
    main()
