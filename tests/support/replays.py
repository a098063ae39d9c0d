"""A replay of three months under three policies, made by hand: what is shown of it can be worked out."""

from datetime import date

from taxifare.gate.evidence import Verdict
from taxifare.gate.scores import Interval
from taxifare.replay.policies import PolicyName
from taxifare.replay.results import DatedRule, Model, MonthFacts, MonthUnderPolicy, Replay

_MONTHS = ("2015-01", "2015-02", "2015-03")

_MAE = {
    "base": (3.0, 3.2, 3.4),
    "2015-01 warm 1a1a": (2.0, 2.5, 2.6),
    "2015-02 warm 2b2b": (1.9, 2.2, 2.8),
    "2015-03 warm 3c3c": (1.9, 2.2, 2.3),
}
_BASE, _JANUARY, _FEBRUARY, _MARCH = _MAE


def by_hand() -> Replay:
    """The gate promotes in January; always promoting regrets February's model in March."""
    return Replay(
        city="New York",
        target="fare",
        challengers=("warm",),
        base_seconds=10.0,
        months=tuple(
            MonthFacts(month=month, trips=trips, validation_trips=trips // 5, difficulty_mae=4.0)
            for month, trips in zip(_MONTHS, (1000, 2000, 1000), strict=True)
        ),
        rules=(DatedRule(since=date(2015, 3, 22), description="tolls of 5.33 & more"),),
        models=tuple(map(_model, _MAE)),
        mae=tuple(_MAE.values()),
        decisions=(
            _month("gate", 0, _BASE, _JANUARY, Verdict.PROMOTE, is_promoted=True, is_regretted=False),
            _month("gate", 1, _JANUARY, _FEBRUARY, Verdict.HOLD),
            _month("gate", 2, _JANUARY, _MARCH, Verdict.HOLD),
            _month("always", 0, _BASE, _JANUARY, Verdict.PROMOTE, is_promoted=True, is_regretted=False),
            _month("always", 1, _JANUARY, _FEBRUARY, Verdict.HOLD, is_promoted=True, is_regretted=True),
            _month("always", 2, _FEBRUARY, _MARCH, Verdict.PROMOTE, is_promoted=True),
            *(_month("never", number, _BASE, None, None) for number in range(3)),
        ),
    )


def _model(name: str) -> Model:
    subject = name.split(maxsplit=1)[0]
    return Model(
        key=name[-4:] * 4,
        name=name,
        subject=subject,
        lineage="base" * 4,
        parent=None if subject == "base" else "base",
        exposure=(),
        correction_share=0.0,
        seconds=10.0,
    )


def _month(
    policy: PolicyName,
    number: int,
    production: str,
    staging: str | None,
    verdict: Verdict | None,
    *,
    is_promoted: bool = False,
    is_regretted: bool | None = None,
) -> MonthUnderPolicy:
    production_mae = _MAE[production][number]
    existed = list(_MAE)[: number + 1]
    best = min(existed, key=lambda name: _MAE[name][number])
    gained = None if staging is None else production_mae - _MAE[staging][number]
    return MonthUnderPolicy(
        policy=policy,
        month=_MONTHS[number],
        production=production,
        production_mae=production_mae,
        all_rides_mae=production_mae,
        staging=staging,
        staging_mae=None if staging is None else _MAE[staging][number],
        gain=None if gained is None else Interval(mean=gained, low=gained - 0.1, high=gained + 0.1),
        verdict=verdict,
        is_asked=policy == "gate",
        is_promoted=is_promoted,
        reason=f"because of {verdict} & policy",
        is_regretted=is_regretted,
        best=best,
        regret=production_mae - _MAE[best][number],
        training_seconds=0.0 if staging is None else 1234.5,
    )
