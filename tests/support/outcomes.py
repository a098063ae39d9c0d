"""What was quoted and what it came to, as the processes of an installation leave it in the lake."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from taxifare.monitoring.joining import Published
from taxifare.monitoring.outcomes import OUTCOMES, expected
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer, Role
from taxifare.trips.features import haversine_km
from tests.support.services import RIDE

ASKED_AT = datetime(2015, 3, 14, 22, 0, tzinfo=UTC)
"""When the clocks in New York showed 18:00."""


def quote(
    ride_id: str | int,
    version: str = "4",
    role: Role = "production",
    fare: float = 9.5,
    minute: int = 0,
    sequence: int | None = 7,
    **changes: Any,
) -> Answer:
    """A line of the prediction log."""
    asked_at = ASKED_AT + timedelta(minutes=minute)
    return Answer(
        ride_id=ride_id,
        ride={**RIDE, **changes},
        role=role,
        version=version,
        bundle="d" * 64,
        sequence=sequence,
        fare=fare,
        upper=12.0,
        corrected=10.0,
        quoted=round(2 * fare) / 2,
        unit="USD",
        received_at=asked_at,
        answered_at=asked_at,
    )


def outcome(ride_id: str | int, truth: float = 10.0, unit: str = "USD") -> ToldOutcome:
    """A line of the outcome log."""
    return ToldOutcome(ride_id=ride_id, truth=truth, unit=unit, told_at=ASKED_AT + timedelta(hours=1))


def published(trips: dict[str, float | None], revision: str = "a", pickup: str = RIDE["pickup_datetime"]) -> Published:
    """Trips as a source has published them, by key; those that come to nothing are not sound."""
    sound = {key: truth for key, truth in trips.items() if truth is not None}
    return Published(
        revision=revision,
        keys=pa.array(list(trips), pa.string()),
        pickups=pa.array([datetime.fromisoformat(pickup)] * len(trips), pa.timestamp("us")),
        sound_keys=pa.array(list(sound), pa.string()),
        truths=pa.array(list(sound.values()), pa.float64()),
    )


def segment(lake: UPath, lines: Sequence[Answer | ToldOutcome], name: str = "20150314T220000-a") -> UPath:
    """Returns a segment of the lake that holds these lines, all of one kind."""
    log = prediction_log if isinstance(lines[0], Answer) else outcome_log
    folder = log.collected_in(lake)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(lines))
    return UPath(folder / f"{name}.jsonl")


def priced_rides(rides: int, days: int = 2, seed: int = 1) -> pd.DataFrame:
    """Rides of some days in 2015-03, as many each day, priced by version 1 with a bias of 0.5."""
    draws = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "ride_id": [f"ride {number}" for number in range(rides)],
            "served_as": "production",
            "version": "1",
            "sequence": 1,
            "bundle": "a digest",
            "asked_at": pd.Timestamp("2015-03-01", tz="UTC"),
            "pickup_datetime": pd.Timestamp("2015-03-02 12:00") + pd.to_timedelta(np.arange(rides) % days, "D"),
            "pickup_longitude": draws.uniform(-74.0, -73.9, rides),
            "pickup_latitude": draws.uniform(40.7, 40.8, rides),
            "dropoff_longitude": draws.uniform(-74.0, -73.9, rides),
            "dropoff_latitude": draws.uniform(40.7, 40.8, rides),
            "passenger_count": 1,
        }
    )
    ways_km = haversine_km(
        *(frame[f"{end}_{axis}"] for end in ("pickup", "dropoff") for axis in ("longitude", "latitude"))
    )
    truth = 3 + 2 * ways_km + draws.normal(0, 1, rides)
    frame = frame.assign(predicted=truth + 0.5 + draws.normal(0, 0.2, rides), truth=truth, fate="matched")
    return frame.assign(quoted=frame["predicted"].round(1), reference=expected(frame)).reindex(columns=OUTCOMES.names)
