"""The watch on the days: whether production surely errs more than it did, judged by outcomes of rides, day by day.

A sequential test (Page 1954) on the daily skill, 1 - MAE / difficulty: a hard day is hard for the flat per-km rate as
well, and does not lower it. Each day is compared with the usual days before it, in robust standard deviations; what it
lacks beyond `ALLOWANCE` adds up, and better days reduce the sum again. No day counts more than `CLIP`: one day of snow
raises no alarm, and has no part in what is usual. At `THRESHOLD` a person is asked, once for each promotion.

The numbers were chosen on months before July 2012 and tried on those after it: docs/monitoring.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.approval.records import AlarmEvidence, WatchedDay
from taxifare.texts import counted
from taxifare.trips.targets import Unit

ALLOWANCE = 2.0
"""Robust standard deviations that a day may lack without effect."""

CLIP = 6.0
"""Most robust standard deviations that one day can count."""

THRESHOLD = 10.0
"""Score at which an alarm is raised: three of the worst days that can be counted, or more that are less bad."""

REFERENCE_DAYS = 60
"""The first days after the promotion, which define what is usual and how much usual days differ."""

FEWEST_DAYS = 14
"""With fewer days there is nothing usual to compare with, and no result."""

FEWEST_RIDES = 10
"""A day with fewer outcomes says nothing."""

FALSE_ALARMS_A_YEAR = 0.1
"""At most, while nothing has changed."""

MAD_TO_SD = 1.4826
"""The ratio of standard deviation to median absolute deviation of a normal distribution."""

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Watched:
    """What the days of one version in production add up to.

    Attributes:
        days: As `outcomes.days_of`, those with enough rides, with `lack` – how far a day is below the usual ones, in
            robust standard deviations, clipped; NaN while there are none – and `score`.
        usual_skill: The median of the usual days, NaN while there are too few.
        alarm: The first day on which the score reached `THRESHOLD`; None if it has not.
    """

    days: pd.DataFrame
    usual_skill: float
    alarm: date | None

    @property
    def says(self) -> str:
        """A summary in words."""
        if len(self.days) <= FEWEST_DAYS:
            known = f"{counted(len(self.days), 'days')} {'is' if len(self.days) == 1 else 'are'} known"
            return f"{known}; it takes more than {FEWEST_DAYS} to know what is usual"
        score = float(self.days["score"].iloc[-1])
        if self.alarm is None:
            return f"the score is {score:.1f}; the alarm is raised at {THRESHOLD:g}"
        return f"on {self.alarm} the score reached {THRESHOLD:g}: the error of production has grown"

    @property
    def rise(self) -> pd.DataFrame:
        """The days over which the score rose to the alarm, from the first above 0; none without an alarm."""
        if self.alarm is None:
            return self.days.iloc[:0]
        until = self.days.loc[: pd.Timestamp(self.alarm)]
        at_rest = np.flatnonzero(until["score"].to_numpy() == 0)
        return until.iloc[at_rest[-1] + 1 if len(at_rest) else 0 :]


def watch(days: pd.DataFrame) -> Watched:
    """Returns what the days since a version came into production add up to, that version's alone.

    Args:
        days: As `outcomes.days_of`, in order; days without a skill or with too few rides are ignored.
    """
    known = days[(days["rides"] >= FEWEST_RIDES) & days["skill"].notna()]
    lack = lacks(known["skill"].to_numpy(np.float64), known["rides"].to_numpy(np.float64))
    score = scores(lack)
    reached = np.flatnonzero(score >= THRESHOLD)
    alarm = pd.Timestamp(known.index[reached[0]]).date() if len(reached) else None
    usual = known["skill"].iloc[:REFERENCE_DAYS].median() if len(known) >= FEWEST_DAYS else np.nan
    if alarm is not None:
        before = known["skill"].iloc[: min(REFERENCE_DAYS, int(reached[0]))]
        usual = before.median()
    return Watched(known.assign(lack=lack, score=score), float(usual), alarm)


def lacks(skills: _Numbers, rides: _Numbers) -> _Numbers:
    """Returns how far each day is below the usual ones before it, in robust standard deviations, at most `CLIP`.

    The usual days are the first `REFERENCE_DAYS`, or those of them that are over. A day with fewer rides than they have
    is less certain, and counts less.

    Args:
        skills: Of each day, in order, shape (n,).
        rides: How many rides each has, shape (n,).

    Returns:
        Shape (n,); NaN for the first `FEWEST_DAYS`.
    """
    found = np.full(len(skills), np.nan)
    for known in range(FEWEST_DAYS, min(len(skills), REFERENCE_DAYS + 1)):
        # From then on, what is usual stays the same.
        judged = slice(known, known + 1 if known < REFERENCE_DAYS else None)
        surely = np.sqrt(np.minimum(rides / np.median(rides[:known]), 1.0))
        centre = np.median(skills[:known])
        spread = MAD_TO_SD * np.median(np.abs(skills[:known] - centre) * surely[:known])
        below = (centre - skills[judged]) * surely[judged]
        found[judged] = np.clip(below / max(spread, np.finfo(float).tiny), -CLIP, CLIP)
    return found


def scores(lacks: _Numbers) -> _Numbers:
    """Returns what the days add up to: S = max(0, previous S + lack - `ALLOWANCE`); unknown days add nothing.

    >>> scores(np.array([np.nan, 0.5, 3.0, 6.0, -4.0, 2.5])).tolist()
    [0.0, 0.0, 1.0, 5.0, 0.0, 0.5]
    """
    found, score = np.zeros(len(lacks)), 0.0
    for day, lack in enumerate(lacks):
        score = score if np.isnan(lack) else max(0.0, score + lack - ALLOWANCE)
        found[day] = score
    return found


def evidence_of(watched: Watched, unit: Unit, month: str, rules: Sequence[str] = ()) -> AlarmEvidence:
    """Returns the evidence for retraining on the open month.

    Args:
        watched: Days with an alarm.
        unit: Unit of the errors.
        month: The open month.
        rules: Dated rules that production has not learned, in words.
    """
    rise = watched.rise
    weights = rise["rides"].to_numpy(np.float64)
    mae, difficulty = (float(np.average(rise[name], weights=weights)) for name in ("mae", "difficulty"))
    return AlarmEvidence(
        unit=unit,
        month=month,
        usual_skill=round(watched.usual_skill, 6),
        recent_skill=round(1 - mae / difficulty, 6),
        days=tuple(
            WatchedDay(day=day.date(), rides=rides, mae=round(mae, 6), difficulty=round(hard, 6), score=round(score, 4))
            for day, rides, mae, hard, score in zip(
                rise.index, *(rise[name].tolist() for name in ("rides", "mae", "difficulty", "score")), strict=True
            )
        ),
        threshold=THRESHOLD,
        false_alarms_a_year=FALSE_ALARMS_A_YEAR,
        rules=tuple(rules),
    )
