"""Realised error: how far quotes were from what rides came to, compared with what validation trips promised.

The promise is the error that the version had where it was approved. A month that is harder for anybody raises the error
of every model, so the promise is taken at the difficulty of the rides that were actually asked for: the error of a
model that has kept its skill.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from upath import UPath

from taxifare.approval.records import Comparison, Promotion, Request, readable
from taxifare.gate.evidence import Contender, Evidence
from taxifare.gate.gains import days_of, gains_of
from taxifare.gate.scores import Interval, paired_gains, skill
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS, slice_masks
from taxifare.monitoring.outcomes import OUTCOMES
from taxifare.trips.cities import City
from taxifare.trips.editions import BASE
from taxifare.trips.preparation import with_features
from taxifare.trips.targets import Unit
from taxifare.values import Frozen

_BY_DAYS = 1.4
"""How much wider intervals are with days as units than with rides, at most (`gate.gains`): promises are known only
with rides as units."""

_Z = 1.96


class Promise(Frozen):
    """The error that a version had where it was compared.

    Attributes:
        subject: The month whose validation trips they were, or `base`.
        mae: Mean absolute error with its 95 % interval.
        difficulty_mae: Difficulty of those trips.
    """

    subject: str
    mae: Interval
    difficulty_mae: float

    def at(self, difficulty_mae: float) -> Interval:
        """Returns the error to expect on rides of this difficulty from a model that has kept its skill."""
        ratio = difficulty_mae / self.difficulty_mae
        return Interval(mean=self.mae.mean * ratio, low=self.mae.low * ratio, high=self.mae.high * ratio)


class QuotedPart(Frozen):
    """How far off some of the quotes were: those of a week, named by its Monday, or of a slice.

    Attributes:
        name: Of the week or slice.
        rides: How many.
        mae: Mean absolute error.
        bias: Mean of predicted minus truth.
        difficulty_mae: Error of a flat per-km rate on the same rides, None where unknown.
    """

    name: str
    rides: int
    mae: float
    bias: float
    difficulty_mae: float | None

    @property
    def skill(self) -> float | None:
        """Share of the flat rate's error that was avoided."""
        return skill(self.mae, self.difficulty_mae) if self.difficulty_mae else None


class RealisedError(QuotedPart):
    """How far off the quotes of a version were in a month; `name` is the version, or `all` for all that were served.

    Attributes:
        served_as: Whether customers were told (`production`), or nobody was (`shadow`).
        interval: Interval of the mean absolute error, with days as units.
        quoted_mae: Error of the quotes as the meter showed them.
        promise: What was promised for the version; None where the ledger has no comparison.
        weeks: By week, beginning on Mondays.
        slices: By kind of ride, for those with enough rides.
    """

    served_as: str
    interval: Interval
    quoted_mae: float
    promise: Promise | None
    weeks: tuple[QuotedPart, ...]
    slices: tuple[QuotedPart, ...]

    @property
    def expected(self) -> Interval | None:
        """What was promised, at the difficulty of these rides; None where either is unknown."""
        if self.promise is None or not self.difficulty_mae:
            return None
        return self.promise.at(self.difficulty_mae)

    @property
    def is_kept(self) -> bool | None:
        """Whether the promise was kept: the error is not surely above it; None where unknown."""
        expected = self.expected
        if expected is None or not math.isfinite(self.interval.low):
            return None
        return self.interval.low <= expected.high


class Beside(Frozen):
    """A version in shadow compared with production, on the rides that both have priced.

    Attributes:
        production: Version in production.
        shadow: Version in shadow.
        gain: How much closer the one in shadow was, per ride; with days as units.
        rides: How many.
    """

    production: str
    shadow: str
    gain: Interval
    rides: int


class RealisedMonth(Frozen):
    """A month of quotes with their outcomes.

    Attributes:
        month: YYYY-MM, of the pickup.
        unit: Of all errors.
        rides: Rides that were priced.
        share_matched: The share of them whose truth is known; None if there are no rides.
        errors: By role and version; production's together first (`all`), if customers were told anything.
        beside: Versions in shadow, compared with production on the same rides.
    """

    month: str
    unit: Unit
    rides: int
    share_matched: float | None
    errors: tuple[RealisedError, ...]
    beside: tuple[Beside, ...]

    @property
    def production(self) -> RealisedError | None:
        """The error of what customers were quoted, by all versions together; None where no truth is known."""
        return next((error for error in self.errors if error.name == ALL), None)


ALL = "all"


def promises_of(
    versions: Iterable[str], comparisons: Iterable[Comparison], requests: Iterable[Request]
) -> dict[str, Promise]:
    """Returns what was promised for versions, if on the ledger: by the evidence asked about, or else the comparison.

    A comparison of a version that nobody has been asked about counts as long as it is the subject's latest. Evidence
    that another release has written in a different form promises nothing.
    """
    wanted, found = set(versions), dict[str, Promise]()
    asked: list[Comparison | Request] = [*comparisons, *requests]
    for told in asked:
        if told.staging_version in wanted and (evidence := readable(told)) is not None:
            found[told.staging_version] = promise_of(evidence)
    return found


def promise_of(evidence: Evidence) -> Promise:
    """Returns what evidence promises for the version that it is about."""
    return Promise(subject=evidence.subject, mae=_interval(evidence.staging), difficulty_mae=evidence.difficulty_mae)


def _interval(contender: Contender) -> Interval:
    """Returns a MAE with its interval, for which scores suffice: |e| has the variance RMSE² - MAE²."""
    scores = contender.scores
    spread = math.sqrt(max(scores.rmse**2 - scores.mae**2, 0.0) / max(scores.trips, 1))
    half_width = _BY_DAYS * _Z * spread if scores.trips > 1 else math.inf
    return Interval(mean=scores.mae, low=scores.mae - half_width, high=scores.mae + half_width)


def read_outcomes(outcomes: UPath) -> pd.DataFrame:
    """Returns a month's table of outcomes."""
    with outcomes.open("rb") as file:
        # What was told, and the bundle, are not needed for errors and take much of the memory.
        names = [name for name in OUTCOMES.names if name not in {"bundle", "told_least", "told_most", "asked_at"}]
        frame: pd.DataFrame = pq.read_table(file, columns=names).to_pandas(
            strings_to_categorical=True, self_destruct=True
        )
    return frame


def realise(
    outcomes: pd.DataFrame, month: str, promises: Mapping[str, Promise], city: City, unit: Unit
) -> RealisedMonth:
    """Returns how far off the quotes of a month were.

    Args:
        outcomes: See `read_outcomes`.
        month: YYYY-MM.
        promises: By version, see `promises_of`.
        city: Gives the slices.
        unit: Unit of predictions and truths.
    """
    known = outcomes[outcomes["truth"].notna()]
    asked = outcomes["ride_id"].nunique()
    return RealisedMonth(
        month=month,
        unit=unit,
        rides=asked,
        share_matched=known["ride_id"].nunique() / asked if asked else None,
        errors=tuple(_errors(known, promises, city)),
        beside=tuple(_beside(known)),
    )


def _errors(known: pd.DataFrame, promises: Mapping[str, Promise], city: City) -> Iterator[RealisedError]:
    """Yields the error of production as a whole, then those of each role and version."""
    if known.empty:
        return
    masks = pd.DataFrame(slice_masks(with_features(known, city), city), index=known.index)
    production = known["served_as"] == "production"
    if production.any():
        yield _error(ALL, known[production], masks, None)
    for (served_as, version), rows in known.groupby(["served_as", "version"], observed=True, sort=True):
        del served_as
        yield _error(str(version), rows, masks, promises.get(str(version)))


def _error(name: str, rows: pd.DataFrame, masks: pd.DataFrame, promise: Promise | None) -> RealisedError:
    error = (rows["predicted"] - rows["truth"]).abs().to_numpy(np.float64)
    mondays = rows["pickup_datetime"].dt.to_period("W").dt.start_time
    weeks = [_part(f"{monday:%Y-%m-%d}", some) for monday, some in rows.groupby(mondays)]
    kinds = masks.loc[rows.index]
    slices = [
        _part(str(kind), rows[kinds[kind].to_numpy()]) for kind in kinds if kinds[kind].sum() >= MINIMUM_SLICE_TRIPS
    ]
    return RealisedError(
        **dict(_part(name, rows)),
        served_as=str(rows["served_as"].iloc[0]),
        interval=gains_of(error, days_of(rows)).interval,
        quoted_mae=float((rows["quoted"] - rows["truth"]).abs().mean()),
        promise=promise,
        weeks=tuple(weeks),
        slices=tuple(slices),
    )


def _part(name: str, rows: pd.DataFrame) -> QuotedPart:
    error = rows["predicted"] - rows["truth"]
    difficulty = float((rows["reference"] - rows["truth"]).abs().mean())
    return QuotedPart(
        name=name,
        rides=len(rows),
        mae=float(error.abs().mean()),
        bias=float(error.mean()),
        difficulty_mae=difficulty if math.isfinite(difficulty) else None,
    )


def _beside(known: pd.DataFrame) -> Iterator[Beside]:
    """Yields each version in shadow beside a promotion, on the rides that both have priced."""
    names = ["ride_id", "sequence", "version", "predicted", "truth", "pickup_datetime"]
    shadow = known.loc[known["served_as"] == "shadow", names]
    if shadow.empty:
        return
    production = known.loc[known["served_as"] == "production", ["ride_id", "sequence", "version", "predicted"]]
    both = shadow.merge(production, on=["ride_id", "sequence"], suffixes=("", "_given"))
    for (given, other), rows in both.groupby(["version_given", "version"], observed=True, sort=True):
        predictions: list[npt.NDArray[np.float64]] = [
            rows[name].to_numpy(np.float64) for name in ("predicted_given", "predicted", "truth")
        ]
        gain = gains_of(paired_gains(*predictions), days_of(rows)).interval
        yield Beside(production=str(given), shadow=str(other), gain=gain, rides=len(rows))


class MonthErrors(Frozen):
    """All errors of a month, each None where it is not known.

    Attributes:
        month: YYYY-MM.
        production: Of production on the month's validation trips.
        staging: Of its possible replacement, on the same trips.
        difficulty: Of a flat per-km rate, on the same trips.
        realised: Of what customers were quoted.
    """

    month: str
    production: float | None = None
    staging: float | None = None
    difficulty: float | None = None
    realised: Interval | None = None


def errors_by_month(
    comparisons: Iterable[Comparison], realised: Iterable[RealisedMonth], now: MonthErrors | None = None
) -> tuple[MonthErrors, ...]:
    """Returns the errors of all months that were compared or quoted, oldest first.

    Args:
        comparisons: The latest of each subject.
        realised: Months of quotes.
        now: A month that is being run, whose comparison has yet to come.
    """
    found: dict[str, MonthErrors] = {}
    for comparison in comparisons:
        evidence = readable(comparison)
        if evidence is not None and evidence.subject != BASE:
            found[evidence.subject] = MonthErrors(
                month=evidence.subject,
                production=None if evidence.production is None else evidence.production.scores.mae,
                staging=evidence.staging.scores.mae,
                difficulty=evidence.difficulty_mae,
            )
    if now is not None:
        found[now.month] = now
    for month in realised:
        if month.production is not None:
            before = found.get(month.month, MonthErrors(month=month.month))
            found[month.month] = before.model_copy(update={"realised": month.production.interval})
    return tuple(found[month] for month in sorted(found))


def promoted_on(history: Iterable[Promotion], requests: Iterable[Request]) -> dict[str, str]:
    """Returns, by month, the version that became production on its evidence; the last where there were several."""
    subjects = {request.id: request.subject for request in requests}
    found = {
        subjects[entry.request_id]: entry.version
        for entry in history
        if entry.version is not None and entry.request_id in subjects
    }
    return {subject: version for subject, version in found.items() if subject != BASE}
