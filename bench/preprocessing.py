"""How fast raw trips become features, on one core, beside the course's way of doing it; and in how much memory.

    taskset -c 0 .venv/bin/python bench/preprocessing.py

The course's code is re-created from its public description: cleaning with pandas, then columns for distance, time and
passengers, scaled or one-hot encoded, and geohash districts, which it computes trip by trip with `DataFrame.apply`.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
import pandas as pd

from taxifare.trips.city_files import shipped
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE

NEW_YORK = shipped("new-york").facts
ROWS = 1_000_000
COURSE_ROWS = 20_000
GEOHASH_ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
# The 20 districts of New York with the most pickups, geohashes of 5 characters.
DISTRICTS = (
    *("dr5ru", "dr5rs", "dr5rv", "dr5re", "dr72h", "dr72j", "dr5rg", "dr5rz", "dr5ry", "dr5rk"),
    *("dr5x1", "dr5x0", "dr5rt", "dr72m", "dr5rx", "dr5x2", "dr5rm", "dr5rh", "dr5x8", "dr5rw"),
)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    trips = make_trips(ROWS)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cleaning_s = best_seconds(lambda: clean(trips, NEW_YORK, FARE))
    kept = clean(trips, NEW_YORK, FARE).trips
    features_s = best_seconds(lambda: compute_features(kept, NEW_YORK))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    sample = trips.iloc[:COURSE_ROWS]
    course_s = best_seconds(lambda: course_preprocess(course_clean(sample)), repeats=2)

    ours, course = ROWS / (cleaning_s + features_s), COURSE_ROWS / course_s
    print(f"{'on one core':<24}{'rows':>12}{'seconds':>10}{'trips/s':>14}")
    for name, rows, seconds in (
        ("cleaning", ROWS, cleaning_s),
        ("features", ROWS, features_s),
        ("cleaning + features", ROWS, cleaning_s + features_s),
        ("the course's way", COURSE_ROWS, course_s),
    ):
        print(f"{name:<24}{rows:>12,}{seconds:>10.3f}{rows / seconds:>14,.0f}")
    print(f"ratio: {ours / course:,.0f} times the course's way")
    print(
        f"peak memory: {peak_mib:,.0f} MiB, of which {before_mib:,.0f} MiB before preprocessing (trips and libraries)"
    )
    if ours < 1_000_000:
        sys.exit("cleaning + features are slower than 1,000,000 trips/s")


def make_trips(rows: int) -> pd.DataFrame:
    """Returns trips of one month like the real ones: hot spots, 2 % zero coordinates, duplicates, absurd values."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "pickup_datetime": pd.Timestamp("2015-01-01")
            + pd.to_timedelta(rng.integers(0, 31 * 86400, rows), unit="s"),
            "pickup_longitude": rng.normal(-73.98, 0.03, rows),
            "pickup_latitude": rng.normal(40.75, 0.03, rows),
            "dropoff_longitude": rng.normal(-73.98, 0.03, rows),
            "dropoff_latitude": rng.normal(40.75, 0.03, rows),
            "passenger_count": rng.integers(0, 7, rows),
            "fare_amount": rng.gamma(3, 4, rows).round(2),
        }
    )
    frame.loc[rng.random(rows) < 0.02, ["pickup_longitude", "pickup_latitude"]] = 0.0
    frame.iloc[1000:2000] = frame.iloc[:1000].to_numpy()
    return as_trip_table(frame, "bench")


def best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Returns the least time the work took: what it costs when nothing else runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def course_clean(trips: pd.DataFrame) -> pd.DataFrame:
    """Cleans as the course does: a chain of pandas filters."""
    trips = trips.drop_duplicates().dropna(subset=["fare_amount", "pickup_longitude", "dropoff_longitude"])
    trips = trips[
        (trips.dropoff_latitude != 0)
        | (trips.dropoff_longitude != 0)
        | (trips.pickup_latitude != 0)
        | (trips.pickup_longitude != 0)
    ]
    trips = trips[(trips.passenger_count < 8) & (trips.passenger_count > 0)]
    trips = trips[trips.fare_amount.between(left=0, right=400, inclusive="neither")]
    for end in ("pickup", "dropoff"):
        trips = trips[trips[f"{end}_latitude"].between(left=40.5, right=40.9)]
        trips = trips[trips[f"{end}_longitude"].between(left=-74.3, right=-73.7)]
    return trips


def course_preprocess(trips: pd.DataFrame) -> np.ndarray:
    """Computes columns as the course does: passengers, clock, calendar, distances, one-hot geohash districts."""
    passengers = (trips[["passenger_count"]].to_numpy(dtype=float) - 1) / 7
    local = trips["pickup_datetime"].dt.tz_localize("UTC").dt.tz_convert("America/New_York").dt
    hour = 2 * np.pi * local.hour / 24
    days = (trips["pickup_datetime"] - pd.Timestamp("2009-01-01")) / pd.Timedelta(days=1) / 2190
    weekday = one_hot(local.weekday.astype(str), [str(day) for day in range(7)])
    month = one_hot(local.month.astype(str), [str(number) for number in range(1, 13)])
    distances = np.column_stack([haversine_km(trips), manhattan_km(trips)]) / 100
    districts = []
    for end in ("pickup", "dropoff"):
        hashes = trips.apply(
            lambda row, end=end: geohash(row[f"{end}_latitude"], row[f"{end}_longitude"], precision=5), axis=1
        )
        districts.append(one_hot(hashes, DISTRICTS))
    clock = np.column_stack([np.sin(hour), np.cos(hour), days])
    return np.column_stack([passengers, clock, weekday, month, distances, *districts]).astype(np.float32)


def one_hot(values: pd.Series, categories: Iterable[str]) -> np.ndarray:
    return np.column_stack([(values == category).to_numpy(dtype=float) for category in categories])


def haversine_km(trips: pd.DataFrame) -> np.ndarray:
    phi_1, phi_2 = np.radians(trips["pickup_latitude"]), np.radians(trips["dropoff_latitude"])
    east = np.radians(trips["dropoff_longitude"] - trips["pickup_longitude"])
    half = np.sin((phi_2 - phi_1) / 2) ** 2 + np.cos(phi_1) * np.cos(phi_2) * np.sin(east / 2) ** 2
    return np.asarray(2 * 6371 * np.arcsin(np.sqrt(half)))


def manhattan_km(trips: pd.DataFrame) -> np.ndarray:
    north = np.radians(trips["dropoff_latitude"] - trips["pickup_latitude"])
    east = np.radians(trips["dropoff_longitude"] - trips["pickup_longitude"])
    return np.asarray(6371 * (np.abs(north) + np.abs(east)))


def geohash(latitude: float, longitude: float, precision: int) -> str:
    """Returns the geohash of a point: its interval halved again and again, longitude and latitude in turn."""
    low, high = [-90.0, -180.0], [90.0, 180.0]
    point, text, bits, axis = (latitude, longitude), "", 0, 1
    for number in range(5 * precision):
        middle = (low[axis] + high[axis]) / 2
        above = point[axis] >= middle
        (low if above else high)[axis] = middle
        bits, axis = bits * 2 + above, 1 - axis
        if number % 5 == 4:
            text, bits = text + GEOHASH_ALPHABET[bits], 0
    return text


if __name__ == "__main__":
    main()
