"""How fast trips are simulated: a month of a million of them, against a taxi meter that takes one ride at a time."""

import math
import random
import resource
import time
from dataclasses import replace

import pandas as pd

from taxifare.sources.simulator.meter import FLAG_DROP_USD, UNIT_KM
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.months import parse_month
from taxifare.trips.table import as_trip_table

MONTH = parse_month("2015-01")
CITY = Simulator(
    seed=42,
    trips_per_month=1_000_000,
    base_trips=1,
    first_month=MONTH,
    last_month=MONTH,
    scenario="as-it-was",
    scenario_from=MONTH,
)
BASELINE_TRIPS = 20_000


def one_at_a_time(trips: int) -> pd.DataFrame:
    """Returns trips of a plainer city, one place and one speed, made ride by ride: the baseline."""
    rng = random.Random(42)
    rows = []
    for number in range(trips):
        pickup = pd.Timestamp("2015-01-01") + pd.Timedelta(seconds=rng.randrange(31 * 86_400))
        longitude, latitude = rng.gauss(-73.98, 0.02), rng.gauss(40.75, 0.02)
        to_longitude, to_latitude = rng.gauss(-73.98, 0.02), rng.gauss(40.75, 0.02)
        driven_km = abs(to_longitude - longitude) * 84.3 + abs(to_latitude - latitude) * 111.0
        units = math.ceil(driven_km / UNIT_KM + driven_km * rng.gauss(2.0, 0.3))
        rows.append(
            {
                "key": f"{pickup:%Y-%m-%d %H:%M:%S}.{number:07d}",
                "pickup_datetime": pickup,
                "pickup_longitude": longitude,
                "pickup_latitude": latitude,
                "dropoff_longitude": to_longitude,
                "dropoff_latitude": to_latitude,
                "passenger_count": rng.randint(1, 6),
                "fare_amount": FLAG_DROP_USD + 0.5 * max(units - 1, 0),
            }
        )
    return as_trip_table(pd.DataFrame(rows), "baseline")


def main() -> None:
    replace(CITY, trips_per_month=1_000).read_month(MONTH)  # first call: imports and tables
    started = time.perf_counter()
    baseline = len(one_at_a_time(BASELINE_TRIPS)) / (time.perf_counter() - started)
    started = time.perf_counter()
    trips = len(CITY.read_month(MONTH).trips)
    seconds = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"simulator: {trips:,} trips in {seconds:.2f} s, {trips / seconds:,.0f} trips/s; peak {peak_mib:,.0f} MiB")
    print(f"baseline, a ride at a time: {baseline:,.0f} trips/s; ratio {trips / seconds / baseline:,.0f}")


if __name__ == "__main__":
    main()
