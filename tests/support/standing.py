"""What tests of standing approvals share: evidence on a month with a track record, and settings that want one."""

import numpy as np

from taxifare.gate.evidence import Evidence, Hindsight, Objection, Verdict
from taxifare.gate.gains import Gains, SlicedGains, gains_of
from taxifare.gate.scores import Interval
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.settings import Settings
from tests.support.approvals import evidence

STANDING = Settings(_env_file=None, approval_policy="standing")

WORSE_AIRPORT = Objection(about="slice", name="airport", reason="airport trips get worse")


def gains_around(mean: float, *, days: int = 30) -> Gains:
    """The gains of ten rides a day that differ from day to day by a tenth of a cent."""
    of_days = mean + np.where(np.arange(days) % 2 == 0, 0.001, -0.001)
    return gains_of(np.repeat(of_days, 10), np.repeat(np.arange(days), 10))


def month(
    subject: str,
    staging: str,
    production: str,
    *,
    so_far: float = 0.02,
    lately: float = 0.004,
    verdict: Verdict = Verdict.HOLD,
    objections: tuple[Objection, ...] = (),
    looking_back: float | None = None,
    at_airports: float | None = None,
) -> Evidence:
    """Evidence on a month: what the candidate saved since production came in, on the last days, and in hindsight."""
    slices = {} if at_airports is None else {"airport": gains_around(at_airports)}
    gains = SlicedGains(all=gains_around(so_far), slices=slices)
    on_record = MonthOnRecord(month=subject, revision="r1", candidate=staging, gains=gains)
    back = None
    if looking_back is not None:
        interval = Interval(mean=looking_back, low=looking_back - 0.001, high=looking_back + 0.001)
        back = Hindsight(replaced_version="1", gain=interval)
    return evidence(subject, staging, production, verdict=verdict).model_copy(
        update={
            "gain": Interval(mean=lately, low=lately - 0.002, high=lately + 0.002),
            "track_record": TrackRecord(production=production, months=(on_record,)),
            "objections": objections,
            "hindsight": back,
        }
    )
