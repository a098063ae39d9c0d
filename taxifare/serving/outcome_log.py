"""The outcome log: what rides came to, as reported to the service, one line each, in segments.

As on the prediction log, lines are written before the answer is sent; `taxifare.monitoring` uses them.
"""

from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from upath import UPath

from taxifare.serving.asking import LONGEST_ID, is_id, only, unfit
from taxifare.serving.problems import ProblemError
from taxifare.serving.rides import Fault, shown
from taxifare.serving.segments import SegmentLog
from taxifare.trips.targets import Target

MOST_OUTCOMES = 10_000
"""In one request."""

_MOST_FAULTS = 100


class ToldOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log: what a ride came to.

    Attributes:
        ride_id: The client's id of the ride when it asked for its price.
        truth: What it came to, in `unit`: the fare that was paid, or how long it took.
        unit: The city's currency, or min.
        told_at: When it was reported, UTC.
    """

    ride_id: str | int
    truth: float
    unit: str
    told_at: datetime


class OutcomeLog(SegmentLog):
    """Outcomes reported to one process."""

    name = "outcome log"
    without_it = "Outcomes are turned away, to be told again"


def folder_in(home: Path) -> Path:
    """Returns where the processes of an installation write their segments."""
    return home / "outcome-log"


def collected_in(lake: UPath) -> UPath:
    """Returns where the segments of all machines are collected."""
    return lake / "outcomes"


def outcome_of(entry: Any, told_at: datetime, target: Target) -> ToldOutcome:
    """Returns the outcome reported for a ride.

    Raises:
        ProblemError: It is not an outcome of that target; says for each field what is wrong.
    """
    found = only(entry, ("ride_id", "truth", "unit"))
    ride_id, truth, unit = found["ride_id"], found["truth"], found["unit"]
    faults = []
    if not is_id(ride_id):
        expected = f"a text of at most {LONGEST_ID} characters, or a whole number"
        faults.append(Fault("ride_id", expected, shown(ride_id)))
    if isinstance(truth, bool) or not isinstance(truth, int | float) or not 0 < truth < target.most:
        faults.append(Fault("truth", f"a number above 0 and below {target.most:g}, in {target.unit}", shown(truth)))
    if unit != target.unit:
        faults.append(Fault("unit", target.unit, shown(unit)))
    if faults:
        raise unfit(faults)
    return ToldOutcome(ride_id=ride_id, truth=float(truth), unit=unit, told_at=told_at)


def outcomes_of(told: Any, told_at: datetime, target: Target) -> list[ToldOutcome]:
    """Returns the outcomes reported for several rides: all or none, for a report taken in part would be sent again.

    Raises:
        ProblemError: There are none, too many, or one of them is not an outcome; says which.
    """
    entries = only(told, ("outcomes",))["outcomes"]
    if not isinstance(entries, list) or not entries:
        raise unfit([Fault("outcomes", "a list of at least one outcome", shown(entries))])
    if len(entries) > MOST_OUTCOMES:
        raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {MOST_OUTCOMES:,} outcomes")
    outcomes: list[ToldOutcome] = []
    errors: list[Fault] = []
    for number, entry in enumerate(entries):
        try:
            outcomes.append(outcome_of(entry, told_at, target))
        except ProblemError as error:
            errors += (Fault(f"outcome {number}: {f.field}", f.expected, f.received) for f in error.problem.errors)
    if errors:
        raise unfit(errors[:_MOST_FAULTS])
    return outcomes
