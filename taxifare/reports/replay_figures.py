"""The figures of a replay: errors over time, difficulty against staleness, and every model on every month."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taxifare.gate.scores import skill
from taxifare.replay.results import MonthUnderPolicy, Replay
from taxifare.reports.drawing import WIDTH_IN, below_each_other

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "gate": {"color": "#0b7a55", "linewidth": 2.4, "zorder": 5},
    "standing": {"color": "#be185d", "linewidth": 1.8, "zorder": 4},
    "always": {"color": "#d9730d", "linewidth": 1.5, "zorder": 4},
    "never": {"color": "#6b7280", "linewidth": 1.8, "zorder": 3},
    "naive": {"color": "#7c3aed", "linewidth": 1.3, "zorder": 4},
    "threshold": {"color": "#2563eb", "linewidth": 1.3, "linestyle": (0, (4, 3)), "zorder": 4},
}

_SHOWN = 60
"""Beyond so many cents, or seconds, above the month's best the heat map says no more than that."""


def figures(replay: Replay) -> Mapping[str, "Figure"]:
    """Returns the figures by name: errors over time, difficulty against staleness, the matrix."""
    return {"errors": _errors(replay), "staleness": _staleness(replay), "matrix": _matrix(replay)}


def _errors(replay: Replay) -> "Figure":
    """Returns the error a ride over time, and what each policy has saved by then against the dearest one."""
    dearest = max(replay.policies, key=lambda policy: replay.summary(policy).total)
    target = replay.target_facts
    figure, (errors, saved) = below_each_other(
        f"How far off was a {target.name}?", f"What has been saved by then against “{dearest}”?"
    )
    dates, trips = _dates(replay), np.array([facts.trips for facts in replay.months])
    worst = _all_rides_maes(replay.decisions_of(dearest))
    for policy in replay.policies:
        maes = _maes(replay.decisions_of(policy))
        errors.plot(dates, maes, label=policy, **_LOOKS[policy])
        by_then = np.cumsum((worst - _all_rides_maes(replay.decisions_of(policy))) * trips)
        saved.plot(dates, by_then, **_LOOKS[policy])
    errors.set(ylabel=f"mean absolute error, {target.unit} a ride")
    saved.set(ylabel=f"{target.unit}, all rides up to then")
    saved.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _mark_rules(replay, errors, saved)
    figure.legend(
        *errors.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=len(replay.policies)
    )
    return figure


def _staleness(replay: Replay) -> "Figure":
    """Returns how hard each month was for anybody, and the skill of what each policy had in production."""
    figure, (hard, skills) = below_each_other(
        "How hard is the month for any model?", "How much of that does production avoid? A fall is staleness"
    )
    dates, difficulties = _dates(replay), np.array([facts.difficulty_mae for facts in replay.months])
    hard.plot(dates, difficulties, color="#111827", linewidth=1.6)
    hard.set(ylabel=f"error of a flat per-km rate, {replay.target_facts.unit}")
    for policy in replay.policies:
        shares = [
            100 * skill(mae, difficulty)
            for mae, difficulty in zip(_maes(replay.decisions_of(policy)), difficulties, strict=True)
        ]
        skills.plot(dates, shares, label=policy, **_LOOKS[policy])
    skills.set(ylabel="skill, %")
    _mark_rules(replay, hard, skills)
    figure.legend(
        *skills.get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=len(replay.policies)
    )
    return figure


def _matrix(replay: Replay) -> "Figure":
    """Returns every model on every month, as cents, or seconds, above the best of the month."""
    from matplotlib.figure import Figure

    maes = np.array(replay.mae)
    target = replay.target_facts
    above = target.small_units * (maes - maes.min(axis=0))
    order = {facts.month: number for number, facts in enumerate(replay.months)}
    learned = np.array([order.get(model.subject, -1) for model in replay.models])
    is_past = np.arange(len(replay.months)) <= learned[:, None]
    figure = Figure(figsize=(WIDTH_IN, min(9.0, 2.0 + 0.2 * len(learned))), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        above,
        cmap="YlOrRd",
        vmin=0,
        vmax=_SHOWN,
        alpha=np.where(is_past, 0.35, 1.0),
        aspect="auto",
        interpolation="nearest",
    )
    first = replay.policies[0]
    rows = {model.name: number for number, model in enumerate(replay.models)}
    places = [rows[decision.production] for decision in replay.decisions_of(first)]
    axes.scatter(range(len(places)), places, s=9, color="#0b7a55", label=f"in production under “{first}”", zorder=3)
    shown = list(range(0, len(order), max(1, len(order) // 12)))
    axes.set_xticks(shown, [replay.months[number].month for number in shown], rotation=45, ha="right")
    shown = list(range(0, len(learned), max(1, len(learned) // 20)))
    axes.set_yticks(shown, [replay.models[number].name for number in shown])
    axes.set(
        title="Which model was good when? Pale: months that it had learned by then, or that had passed",
        xlabel="month that is scored",
        ylabel="model",
    )
    axes.legend(loc="lower left", framealpha=0.9)
    figure.colorbar(image, ax=axes, label=f"{target.small_unit} a ride above the month’s best", extend="max", pad=0.01)
    return figure


def _mark_rules(replay: Replay, *axes: "Axes") -> None:
    """Marks the dates of rules; the page says what they are."""
    from matplotlib.dates import date2num

    for rule in replay.rules:
        for axis in axes:
            axis.axvline(date2num(rule.since), color="#b91c1c", linewidth=0.9, linestyle=":", zorder=1)
        axes[0].annotate(
            str(rule.since),
            (date2num(rule.since), 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            rotation=90,
            fontsize=7.5,
            color="#b91c1c",
        )


def _dates(replay: Replay) -> npt.NDArray[np.datetime64]:
    """Returns the middle of each month: a rule of its first days lies before it."""
    return np.array([f"{facts.month}-15" for facts in replay.months], dtype="datetime64[D]")


def _maes(decisions: Sequence[MonthUnderPolicy]) -> npt.NDArray[np.float64]:
    """Returns production's error on each month's validation trips."""
    return np.array([decision.production_mae for decision in decisions])


def _all_rides_maes(decisions: Sequence[MonthUnderPolicy]) -> npt.NDArray[np.float64]:
    """Returns production's error on all rides of each month."""
    return np.array([decision.all_rides_mae for decision in decisions])
