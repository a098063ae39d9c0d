"""Exposure: what a model has learned from, as spans of time, and whether that touches what it is judged by.

Why spans, not rows: docs/decisions.md, under model.
"""

from collections.abc import Iterable
from datetime import datetime

import pandas as pd

from taxifare.values import Frozen


class Exposure(Frozen):
    """Trips a model has been trained on: those of one revision picked up in `[first_pickup, last_pickup]`."""

    subject: str
    revision: str
    first_pickup: datetime
    last_pickup: datetime


def union_of(*exposures: Iterable[Exposure]) -> tuple[Exposure, ...]:
    """Returns what has been seen in all: one entry an edition, from its earliest to its latest pickup, oldest first."""
    spans: dict[tuple[str, str], Exposure] = {}
    for entry in (entry for exposure in exposures for entry in exposure):
        known = spans.setdefault((entry.subject, entry.revision), entry)
        spans[entry.subject, entry.revision] = known.model_copy(
            update={
                "first_pickup": min(known.first_pickup, entry.first_pickup),
                "last_pickup": max(known.last_pickup, entry.last_pickup),
            }
        )
    return tuple(sorted(spans.values(), key=lambda entry: (entry.first_pickup, entry.subject, entry.revision)))


def leaked(exposure: Iterable[Exposure], validation: pd.DataFrame) -> Exposure | None:
    """Returns the first exposure whose time span touches that of the validation trips, None where none does.

    Spans are compared, not rows: a month that was restated has other rows at the same times, and a model trained on the
    first edition must not be judged on the second as if it were new.
    """
    first, last = validation["pickup_datetime"].min(), validation["pickup_datetime"].max()
    return next((entry for entry in exposure if entry.first_pickup <= last and entry.last_pickup >= first), None)


def exposure_of(rehearsed: pd.DataFrame) -> tuple[Exposure, ...]:
    """Returns what a model has seen that was trained on these trips of `reservoir`: an entry an edition."""
    spans = rehearsed.groupby(["subject", "revision"])["pickup_datetime"].agg(["min", "max"])
    return tuple(
        Exposure(subject=subject, revision=revision, first_pickup=first, last_pickup=last)
        for (subject, revision), first, last in spans.itertuples()
    )
