"""How fast published files become trips, on one core: CSV beside pandas, taxi-commission parquet beyond reading it.

    .venv/bin/python bench/sources.py

Both files are made here, with the columns, types and digits of the published ones.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxifare.sources.base import checked_month
from taxifare.sources.files import read_rows
from taxifare.sources.tlc import Zones, read_trips
from taxifare.trips.months import parse_month

CSV_ROWS = 100_000
TLC_ROWS = 3_000_000
DRAWN = 100_000
LARGEST = 5
"""The largest months had 15 million trips."""
MONTH = parse_month("2015-01")
ZONE = "America/New_York"
LEAST_CSV_RATIO = 5
LEAST_TLC_TRIPS_PER_S = 2_000_000


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        is_quick_csv = csv(Path(folder) / "train_jan.csv")
        is_quick_tlc = tlc(Path(folder) / "yellow_tripdata_2015-01.parquet")
    if not (is_quick_csv and is_quick_tlc):
        sys.exit("slower than promised")


def csv(file: Path) -> bool:
    """Prints how much faster than pandas a month is read from CSV; returns whether it is enough."""
    write_csv(file)
    pandas_s = best_seconds(lambda: pd.read_csv(file, parse_dates=["pickup_datetime"]))
    ours_s = best_seconds(lambda: checked_month(read_rows(file.read_bytes(), file.name), MONTH, file.name, ZONE))
    ratio = pandas_s / ours_s
    print(f"CSV, {CSV_ROWS:,} trips: pandas.read_csv(parse_dates=…) {pandas_s:.3f} s, here {ours_s:.3f} s")
    print(f"ratio: {ratio:.1f} times pandas, checks of the trip table included (promised: {LEAST_CSV_RATIO})")
    return ratio >= LEAST_CSV_RATIO


def tlc(file: Path) -> bool:
    """Prints how fast a yellow month is parsed beyond reading it; returns whether it is enough."""
    columns = write_tlc(file)
    zones = Zones(np.linspace(-74.2, -73.7, 264), np.linspace(40.5, 40.9, 264))

    def parse(limit: int) -> Callable[[], object]:
        return lambda: read_trips(file, MONTH, "yellow", zones, limit, file.name)

    drawn_s = best_seconds(parse(DRAWN))
    read_s = best_seconds(lambda: pq.read_table(file, columns=columns, use_threads=False))
    whole_s = best_seconds(parse(TLC_ROWS))
    print(f"\nTLC, {TLC_ROWS:,} trips{'seconds':>16}{'beyond reading':>17}{'trips/s beyond':>17}")
    print(f"{'reading the columns':<28}{read_s:>8.3f}")
    for name, seconds in ((f"drawing {DRAWN:,}", drawn_s), ("keeping all", whole_s)):
        beyond_s = max(seconds - read_s, 1e-9)
        print(f"{name:<28}{seconds:>8.3f}{beyond_s:>17.3f}{TLC_ROWS / beyond_s:>17,.0f}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        mib = fresh.submit(peak_mib, file, zones).result()
    print(f"peak memory of a process that draws {DRAWN:,} of {LARGEST * TLC_ROWS:,}: {mib:,.0f} MiB")
    return TLC_ROWS / max(drawn_s - read_s, whole_s - read_s) >= LEAST_TLC_TRIPS_PER_S


def peak_mib(file: Path, zones: Zones) -> float:
    """Returns the most memory of a process that draws from a month as large as the largest, libraries included."""
    largest = file.with_name("largest.parquet")
    with pq.ParquetFile(file) as month, pq.ParquetWriter(largest, month.schema_arrow) as writer:
        for number in range(LARGEST * month.num_row_groups):
            writer.write_table(month.read_row_group(number % month.num_row_groups))
    read_trips(largest, MONTH, "yellow", zones, DRAWN, largest.name)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_csv(file: Path) -> None:
    """Writes trips as Kaggle does: 18 digits of degrees, `UTC` after the time."""
    rng = np.random.default_rng(1)
    times = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 31 * 86400, CSV_ROWS)), unit="s")
    frame = pd.DataFrame(
        {
            "key": [f"{time}.{number:07d}" for number, time in enumerate(times)],
            "fare_amount": rng.gamma(3, 4, CSV_ROWS).round(2),
            "pickup_datetime": times.strftime("%Y-%m-%d %H:%M:%S UTC"),
            **{
                f"{end}_{axis}": rng.normal(middle, 0.03, CSV_ROWS).astype(np.float32).astype(np.float64)
                for end in ("pickup", "dropoff")
                for axis, middle in (("longitude", -73.98), ("latitude", 40.75))
            },
            "passenger_count": rng.integers(0, 7, CSV_ROWS),
        }
    )
    frame.to_csv(file, index=False)


def write_tlc(file: Path) -> list[str]:
    """Writes a month of yellow taxis as the commission does, in row groups of a million; returns the columns needed."""
    rng = np.random.default_rng(1)
    pickup = np.datetime64("2015-01-01", "us") + np.sort(rng.integers(-86_400, 31 * 86_400, TLC_ROWS)) * 1_000_000
    needed = {
        "tpep_pickup_datetime": pickup,
        "tpep_dropoff_datetime": pickup + rng.integers(60, 3600, TLC_ROWS) * 1_000_000,
        "PULocationID": rng.integers(1, 266, TLC_ROWS),
        "DOLocationID": rng.integers(1, 266, TLC_ROWS),
        "passenger_count": np.where(rng.random(TLC_ROWS) < 0.05, np.nan, rng.integers(0, 7, TLC_ROWS)),
        "fare_amount": rng.gamma(3, 4, TLC_ROWS).round(1),
        "tolls_amount": np.where(rng.random(TLC_ROWS) < 0.05, 5.54, 0.0),
    }
    others = {name: rng.gamma(3, 4, TLC_ROWS).round(2) for name in ("trip_distance", "tip_amount", "total_amount")}
    table = pa.Table.from_pandas(pd.DataFrame(needed | others), preserve_index=False)
    pq.write_table(table, file, row_group_size=1 << 20)
    return list(needed)


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Returns the least time the work took: what it costs when nothing else runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    main()
