"""A month of a million quotes, gathered and joined: expected within a minute of CPU and 2 GiB.

    .venv/bin/python bench/outcomes.py [quotes]

Quotes lie in segments as services leave them, three in four are of rides that the source publishes, one in eight is
told to the service, and one in twenty is delivered twice.
"""

import resource
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import pyarrow as pa
from upath import UPath

from taxifare.monitoring.gathering import gather
from taxifare.monitoring.joining import Published, join
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer
from taxifare.settings import Settings
from taxifare.trips.months import parse_month

MOST_CPU_S, MOST_MIB = 60.0, 2048

_SEGMENT = 20_000
"""Lines of a segment: some MB."""


def main(quotes: int) -> int:
    """Returns 1 where a promise is not kept."""
    month = parse_month("2015-03")
    with TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, taxifare_home=Path(folder))
        published = written(quotes, settings.lake)
        predictions, outcomes = (settings.lake / name for name in ("predictions.parquet", "outcomes.parquet"))
        before_mib, began_s = peak_mib(), time.process_time()
        gathered = gather(predictions, month, settings)
        gathered_s = time.process_time() - began_s
        found = join(predictions, outcomes, published, settings)
        took_s = time.process_time() - began_s
        again_s = time.process_time()
        assert gather(predictions, month, settings).quotes == gathered.quotes == found.quotes == quotes
        again_s = time.process_time() - again_s
        print(f"{quotes:,} quotes: gathered in {gathered_s:.1f} s of CPU, joined in {took_s - gathered_s:.1f} s;")
        print(f"gathered again on top of what is stored in {again_s:.1f} s; share matched {found.share_matched:.1%}")
        print(f"peak {peak_mib():,.0f} MiB, {before_mib:,.0f} of them before")
    return int(took_s > MOST_CPU_S or peak_mib() > MOST_MIB)


def written(quotes: int, lake: UPath) -> Published:
    """Returns the trips of a month; quotes and outcomes are in the lake."""
    draws = np.random.default_rng(1)
    start = datetime(2015, 3, 1)
    for log in (prediction_log, outcome_log):
        log.collected_in(lake).mkdir(parents=True)
    encoder = msgspec.json.Encoder()
    for part, first in enumerate(range(0, quotes, _SEGMENT)):
        numbers = range(first, min(first + _SEGMENT, quotes))
        places = np.array([-74.0, 40.7, -74.0, 40.7]) + draws.uniform(0, 0.1, (len(numbers), 4))
        lines = [answer(number, place, start) for number, place in zip(numbers, places.tolist(), strict=True)]
        lines += lines[::20]
        name = f"{start + timedelta(hours=part):%Y%m%dT%H%M%S}-{part}.jsonl"
        (prediction_log.collected_in(lake) / name).write_bytes(encoder.encode_lines(lines))
        told = [ToldOutcome(ride_id=f"ride {number}", truth=10.0, unit="USD", told_at=start) for number in numbers[::8]]
        (outcome_log.collected_in(lake) / name).write_bytes(encoder.encode_lines(told))
    keys = pa.array([f"ride {number}" for number in range(quotes) if number % 4])
    pickups = pa.array([start + timedelta(seconds=2 * number) for number in range(quotes) if number % 4])
    return Published("a", keys, pickups.cast(pa.timestamp("us")), keys, pa.array(draws.uniform(3, 30, len(keys))))


def answer(number: int, place: list[float], start: datetime) -> Answer:
    """Returns a line of the log."""
    pickup = start + timedelta(seconds=2 * number)
    west, south, east, north = place
    ride = {"pickup_datetime": str(pickup), "pickup_longitude": west, "pickup_latitude": south}
    ride |= {"dropoff_longitude": east, "dropoff_latitude": north, "passenger_count": 1}
    fare = 3 + number % 1000 / 37
    asked_at = pickup.astimezone()
    return Answer(
        ride_id=f"ride {number}",
        ride=ride,
        role="production",
        version="4",
        bundle="d" * 64,
        sequence=7,
        fare=fare,
        upper=fare,
        corrected=fare,
        quoted=fare,
        unit="USD",
        received_at=asked_at,
        answered_at=asked_at,
    )


def peak_mib() -> float:
    """Returns the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
