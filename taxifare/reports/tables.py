"""Tables of plain values: headings and rows once, for the terminal, Dagster's pages and the HTML report to render.

What only one of these shows is made where it is shown.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.approval.records import Promotion
from taxifare.gate.scores import Interval
from taxifare.monitoring.realised import QuotedPart, RealisedError, RealisedMonth
from taxifare.replay.results import Replay
from taxifare.texts import one_line
from taxifare.trips.targets import Target, Unit

Value: TypeAlias = str | int | float | None


@dataclass(frozen=True)
class Heading:
    """What stands above a column, and how the values below it are shown.

    Attributes:
        name: What they are, with the unit.
        kind: Of which kind they are.
        digits: How many a person reads after the point, of numbers.
        is_unbroken: Whether they stay on one line, so that they can be copied.
        is_detail: Whether a table in a terminal of 80 columns does without them.
    """

    name: str
    kind: Literal["string", "bool", "int", "float"] = "string"
    digits: int = 0
    is_unbroken: bool = False
    is_detail: bool = False

    @property
    def is_number(self) -> bool:
        """Whether they are numbers, which are aligned to the right."""
        return self.kind in {"int", "float"}

    def text(self, value: Value) -> str:
        """Returns a value as people read it.

        >>> Heading("off in all, USD", "float").text(1234.5)
        '1,234'
        >>> Heading("mean MAE, USD", "float", 3).text(1.8303)
        '1.830'
        >>> Heading("gain").text(None)
        '–'
        """
        if value is None:
            return "–"
        return f"{value:,.{self.digits}f}" if self.is_number else str(value)


@dataclass(frozen=True)
class Table:
    """Rows of values, a value a column."""

    headings: tuple[Heading, ...]
    rows: tuple[tuple[Value, ...], ...]

    def texts(self) -> Iterator[tuple[str, ...]]:
        """Yields the rows as people read them."""
        for row in self.rows:
            yield tuple(heading.text(value) for heading, value in zip(self.headings, row, strict=True))


def policies(replay: Replay) -> Table:
    """Returns the policies of a replay over all its months, a row a policy."""
    unit = replay.target_facts.unit
    headings = (
        Heading("policy", is_unbroken=True),
        Heading(f"mean MAE, {unit}", "float", 3),
        Heading(f"MAE on all rides, {unit}", "float", 4),
        Heading(f"off in all, {unit}", "float"),
        Heading("questions", "int"),
        Heading("promotions", "int"),
        Heading("regretted", "int"),
        Heading(f"above the best, {unit}", "float", 3),
        Heading("training, s", "float", is_detail=True),
    )
    rows = (
        (
            one.policy,
            one.mean_mae,
            one.mae_per_trip,
            one.total,
            one.questions,
            one.promotions,
            one.regretted,
            one.mean_regret,
            one.training_seconds,
        )
        for one in map(replay.summary, replay.policies)
    )
    return Table(headings, tuple(rows))


def history(entries: Iterable[Promotion]) -> Table:
    """Returns who was production when, a row a promotion or rollback, in the order given."""
    headings = (
        Heading("since (UTC)", is_unbroken=True),
        *map(Heading, ("version", "replaced")),
        Heading("how", is_detail=True),
        *map(Heading, ("by", "why")),
        Heading("request", is_unbroken=True, is_detail=True),
    )
    rows = (
        (
            f"{entry.promoted_at:%Y-%m-%d %H:%M}",
            entry.version or "nothing",
            entry.replaced_version or "nothing",
            entry.kind,
            # An earlier release stored texts as they came.
            one_line(entry.by),
            one_line(entry.reason),
            entry.request_id or "–",
        )
        for entry in entries
    )
    return Table(headings, tuple(rows))


def worst_rides(predicted: npt.NDArray[np.floating], trips: pd.DataFrame, target: Target, most: int = 10) -> Table:
    """Returns the rides that predictions are furthest from, the worst first; `taxifare explain` tells of each.

    Args:
        predicted: Predictions, shape (n,).
        trips: The trips with features and `target`, n rows.
        target: What is predicted.
        most: How many rides.
    """
    errors = predicted - trips["target"].to_numpy(np.float64)
    worst = np.argsort(-np.abs(errors), kind="stable")[:most]
    headings = (
        Heading("key", is_unbroken=True),
        Heading("pickup"),
        Heading("km", "float", 2),
        Heading("passengers"),
        Heading(f"{target.truth}, {target.unit}", "float", 2),
        Heading(f"predicted, {target.unit}", "float", 2),
        Heading(f"off, {target.unit}", "float", 2),
    )
    rows = (
        (
            str(trips["key"].iloc[row]),
            f"{trips['pickup_datetime'].iloc[row]:%Y-%m-%d %H:%M}",
            float(trips["haversine_km"].iloc[row]),
            "–" if pd.isna(trips["passenger_count"].iloc[row]) else str(trips["passenger_count"].iloc[row]),
            float(trips["target"].iloc[row]),
            float(predicted[row]),
            float(errors[row]),
        )
        for row in worst
    )
    return Table(headings, tuple(rows))


def realised(months: Iterable[RealisedMonth], unit: Unit) -> Table:
    """Returns what quotes came to, a row a month, role and version, beside what was promised of the version.

    Errors and bias are in the unit.
    """
    names = ("month", "version", "rides", f"MAE, {unit}", "promised", "kept", "difficulty", "skill", "bias")
    details = {"difficulty", "skill", "bias"}
    headings = tuple(Heading(name, is_unbroken=True, is_detail=name in details) for name in names)
    rows = (
        (
            month.month,
            error.name if error.served_as == "production" else f"{error.name} {error.served_as}",
            f"{error.rides:,}",
            _with_bounds(error.interval),
            _with_bounds(error.expected),
            {None: "–", True: "yes", False: "no"}[error.is_kept],
            _or_dash(error.difficulty_mae),
            "–" if error.skill is None else f"{error.skill:.1%}",
            f"{error.bias:+.2f}",
        )
        for month in months
        for error in month.errors
        if not _is_said_twice(error, month)
    )
    return Table(headings, tuple(rows))


def parts(found: Iterable[QuotedPart], of: str, unit: Unit) -> Table:
    """Returns the errors of parts of a month – weeks, slices – a row a part."""
    numbers = (Heading("rides", "int"), Heading(f"MAE, {unit}", "float", 2))
    told = (Heading("difficulty"), Heading("skill"), Heading("bias", "float", 2))
    rows = (
        (
            part.name,
            part.rides,
            part.mae,
            _or_dash(part.difficulty_mae),
            "–" if part.skill is None else f"{part.skill:.1%}",
            part.bias,
        )
        for part in found
    )
    return Table((Heading(of, is_unbroken=True), *numbers, *told), tuple(rows))


def _is_said_twice(error: RealisedError, month: RealisedMonth) -> bool:
    """Whether an error of all versions together is that of the only one."""
    return error is month.production and sum(other.served_as == "production" for other in month.errors) == 2


def _with_bounds(found: Interval | None) -> str:
    """Returns an error with its interval, as `1.83 (1.70–1.96)`."""
    if found is None:
        return "–"
    bounds = f" ({found.low:.2f}–{found.high:.2f})" if np.isfinite([found.low, found.high]).all() else ""
    return f"{found.mean:.2f}{bounds}"


def _or_dash(number: float | None) -> str:
    return "–" if number is None else f"{number:.2f}"
