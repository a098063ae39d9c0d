"""What was quoted and what it came to, as the processes of an installation leave it in the lake."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pyarrow as pa
from upath import UPath

from taxifare.monitoring.joining import Published
from taxifare.serving import outcome_log, prediction_log
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer, Role
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
    return folder / f"{name}.jsonl"
