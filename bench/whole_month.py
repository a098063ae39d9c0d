"""What a whole month of the Taxi and Limousine Commission costs: memory and processor time of each step, by its rides.

A made month in the commission's form is served on loopback, and `monthly_job` runs on it in a process of its own, all
steps in that one process, with a base model in production. Memory is what is resident, at most, sampled ten times a
second. Where there are several sizes, it ends with what a million more rides take.

    .venv/bin/python bench/whole_month.py                                # 1,000,000 and 4,000,000 rides
    .venv/bin/python bench/whole_month.py --rides 15000000               # the largest months; half an hour
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapefile

from taxifare.settings import Settings
from taxifare_dagster.build import build_definitions
from taxifare_dagster.demo import Demo
from taxifare_dagster.home import prepare_home

PROMISED_MIB = 2048
MONTH, BASE = "2015-01", "2014-12"
BASE_RIDES = 60_000
GROUP_RIDES = 1 << 20
SIDE = 16
"""Zones are squares in so many rows and columns."""
SAMPLED_EVERY_S = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rides", default="1000000,4000000", help="one month of each of these sizes")
    parser.add_argument("--drawn", default="all", help="TLC_TRIPS_PER_MONTH")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run()
        return
    found = dict[int, dict[str, tuple[float, float]]]()
    print(f"{'rides':>12} {'step':<34}{'peak MiB':>10}{'CPU s':>10}")
    for rides in sorted(map(int, arguments.rides.split(","))):
        found[rides] = measured(rides, arguments.drawn)
        for step, (peak_mib, cpu_s) in found[rides].items():
            print(f"{rides:>12,} {step:<34}{peak_mib:>10,.0f}{cpu_s:>10,.1f}", flush=True)
    fewest, most = min(found), max(found)
    if fewest < most:
        print(f"{'a million':>12} {'more rides take':<34}{'MiB':>10}{'CPU s':>10}")
        for step in filter(found[fewest].get, found[most]):
            growth = (np.array(found[most][step]) - found[fewest][step]) / (most - fewest) * 1e6
            print(f"{'':>12} {step:<34}{growth[0]:>10,.0f}{growth[1]:>10,.1f}")
    if max(peak_mib for steps in found.values() for peak_mib, _ in steps.values()) > PROMISED_MIB:
        sys.exit(f"promised: {PROMISED_MIB:,} MiB")


def measured(rides: int, drawn: str = "all") -> dict[str, tuple[float, float]]:
    """Returns the peak memory, MiB, and the processor time, s, of each step of a month of so many rides."""
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "published"
        publish(published, rides)
        with served(published) as url:
            environment = os.environ | {
                "TAXIFARE_HOME": f"{folder}/home",
                "TRIP_SOURCE": "tlc",
                "TLC_URL": url,
                "TLC_TRIPS_PER_MONTH": drawn,
                "TLC_BASE_MONTHS": "1",
                "FIRST_MONTH": MONTH,
                "LAST_MONTH": MONTH,
                "EXECUTOR": "in_process",
            }
            command = [sys.executable, __file__, "--run"]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, tuple[float, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def run() -> None:
    """Prints, as JSON, what each step of the month took, once a base model is in production."""
    settings = Settings()
    if os.environ.get("BENCH_BASE_IS_THERE") is None:
        prepare_home(settings)
        with dg.DagsterInstance.get() as instance:
            Demo(settings, instance).run("base")
        # The base model is trained in a process that ends before the month begins.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"BENCH_BASE_IS_THERE": "yes"})
    with dg.DagsterInstance.get() as instance, sampled() as samples:
        done = (
            build_definitions(settings)
            .resolve_job_def("monthly_job")
            .execute_in_process(instance=instance, partition_key=f"{MONTH}-01", run_config=QUIET)
        )
        stats = instance.get_run_step_stats(done.run_id)
    found = {}
    for step in sorted(stats, key=lambda step: step.start_time or 0.0):
        within = [sample for sample in samples if (step.start_time or 0.0) <= sample[0] <= (step.end_time or 0.0)]
        if within:
            found[step.step_key] = (max(mib for _, mib, _ in within), within[-1][2] - within[0][2])
    found["all of it"] = (peak_mib(), samples[-1][2] - samples[0][2])
    print(json.dumps(found))


def peak_mib() -> float:
    """Returns the most that has been resident since this program began; `getrusage` counts what ran before it, too."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024


@contextmanager
def sampled() -> Iterator[list[tuple[float, float, float]]]:
    """Yields time, resident MiB and processor seconds of this process, which starts no other, as they come."""
    samples: list[tuple[float, float, float]] = []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(SAMPLED_EVERY_S):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            samples.append((time.time(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20, time.process_time()))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yields the address of a web server of a folder, on loopback."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files."""

    def log_message(self, *_: object) -> None:
        """Silence."""


def publish(folder: Path, rides: int) -> None:
    """Writes a month of so many rides, a small one before it, and the zones, as the commission publishes them."""
    (folder / "trip-data").mkdir(parents=True)
    (folder / "misc").mkdir()
    places = write_zones(folder / "misc" / "taxi_zones.zip")
    for month, number in ((BASE, BASE_RIDES), (MONTH, rides)):
        write_month(folder / "trip-data" / f"yellow_tripdata_{month}.parquet", month, number, places)


def write_zones(file: Path) -> npt.NDArray[np.float64]:
    """Returns the centres of square zones in metres, by their numbers from 1 on, which the file has in feet."""
    x, y = np.meshgrid(np.arange(SIDE) * 5_000 + 960_000.0, np.arange(SIDE) * 5_000 + 160_000.0)
    centres = np.column_stack([x.ravel(), y.ravel()])
    members = {ending: io.BytesIO() for ending in ("shp", "shx", "dbf")}
    with shapefile.Writer(**members) as writer:
        for name in ("OBJECTID", "LocationID"):
            writer.field(name, "N")
        for number, (east, north) in enumerate(centres, 1):
            corners = [(-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1)]
            writer.poly([[(east + 2_500 * right, north + 2_500 * up) for right, up in corners]])
            writer.record(number, number)
    with zipfile.ZipFile(file, "w") as archive:
        for ending, content in members.items():
            archive.writestr(f"taxi_zones.{ending}", content.getvalue())
        archive.writestr("taxi_zones.prj", pyproj.CRS.from_epsg(2263).to_wkt("WKT1_ESRI"))
    return centres * 0.3048


def write_month(file: Path, month: str, rides: int, places: npt.NDArray[np.float64]) -> None:
    """Writes a month of rides nearly in order of time, in row groups of a million, with fares of a meter and chance."""
    rng, first = np.random.default_rng(1), np.datetime64(month, "s")
    seconds = int((np.datetime64(month, "M") + 1).astype("datetime64[s]").astype(int) - first.astype(int))
    with pq.ParquetWriter(file, SCHEMA) as writer:
        for start in range(0, rides, GROUP_RIDES):
            number = min(GROUP_RIDES, rides - start)
            at = np.linspace(start / rides, (start + number) / rides, number, endpoint=False) * seconds
            pickup = np.clip(at + rng.normal(0, 600, number), 0, seconds - 1).astype(np.int64)
            ends = rng.integers(0, len(places), (2, number))
            km = np.hypot(*(places[ends[0]] - places[ends[1]]).T) / 1_000
            fare = 3.0 + 1.7 * km + 0.5 * (pickup // 3600 % 24 > 15) + rng.gamma(2, 0.8, number)
            columns = {
                "tpep_pickup_datetime": (first + pickup).astype("datetime64[us]"),
                "tpep_dropoff_datetime": (first + pickup + (60 + 150 * km).astype(np.int64)).astype("datetime64[us]"),
                "PULocationID": ends[0] + 1,
                "DOLocationID": ends[1] + 1,
                "passenger_count": np.where(rng.random(number) < 0.05, np.nan, rng.integers(1, 7, number)),
                "trip_distance": km.round(2),
                "fare_amount": fare.round(1),
                "tolls_amount": np.where(rng.random(number) < 0.05, 5.54, 0.0),
            }
            writer.write_table(pa.table(columns, schema=SCHEMA))


QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}

SCHEMA = pa.schema(
    {
        "tpep_pickup_datetime": pa.timestamp("us"),
        "tpep_dropoff_datetime": pa.timestamp("us"),
        "PULocationID": pa.int64(),
        "DOLocationID": pa.int64(),
        "passenger_count": pa.float64(),
        "trip_distance": pa.float64(),
        "fare_amount": pa.float64(),
        "tolls_amount": pa.float64(),
    }
)


if __name__ == "__main__":
    main()
