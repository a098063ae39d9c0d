"""The prediction log: the answer to each ride, one line each, in segments.

Lines are written before the answer is sent.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from upath import UPath

from taxifare.serving.segments import SegmentLog, lines_of, segments_in

Role = Literal["production", "shadow"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log: a ride, and the answer.

    Attributes:
        ride_id: The client's id of the ride.
        ride: The ride as the client described it.
        role: Whether the answer was given (`production`), or only logged (`shadow`).
        version: Number of the registered version that gave it.
        bundle: Digest of the bundle that computed it.
        sequence: Number of the promotion in force, None where a bundle was served directly.
        fare: The prediction, in `unit`.
        upper: The upper prediction.
        corrected: The prediction corrected for its bias.
        quoted: The fare as the meter would show it.
        unit: The city's currency, or min.
        received_at: When the request arrived, UTC.
        answered_at: When the answer was ready, UTC.
    """

    ride_id: str | int
    ride: dict[str, Any]
    role: Role
    version: str
    bundle: str
    sequence: int | None
    fare: float
    upper: float
    corrected: float
    quoted: float
    unit: str
    received_at: datetime
    answered_at: datetime

    @property
    def key(self) -> tuple[str, str, Role]:
        """What makes two lines the same answer: the ride, the version and the role."""
        return str(self.ride_id), self.version, self.role


class PredictionLog(SegmentLog):
    """What one process answers."""

    name = "prediction log"
    without_it = "Rides are priced on, their answers are not on the log"


def folder_in(home: Path) -> Path:
    """Returns where the processes of an installation write their segments."""
    return home / "prediction-log"


def collected_in(lake: UPath) -> UPath:
    """Returns where the segments of all machines are collected."""
    return lake / "quotes"


def read(collected: UPath, since: datetime | None = None) -> Iterator[Answer]:
    """Yields the collected answers, oldest segment first: for each ride, version and role the first one.

    Args:
        collected: Where they are.
        since: Segments that were finished before this are left out.
    """
    seen: set[tuple[str, str, Role]] = set()
    for path in segments_in(collected, since):
        for answer in lines_of(path.read_bytes(), Answer):
            if answer is not None and answer.key not in seen:
                seen.add(answer.key)
                yield answer
