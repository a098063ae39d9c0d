"""The report of a replay: one HTML page that needs nothing beside itself, and its figures."""

from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taxifare.gate.scores import skill
from taxifare.replay.policies import PolicyName
from taxifare.replay.results import Decision, Replay
from taxifare.trips.targets import TARGETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEANINGS: Mapping[PolicyName, str] = {
    "gate": "promotes when the verdict is PROMOTE: surely better, by enough to matter, and no kind of trip worse",
    "always": "promotes every month's model",
    "never": "keeps the first model and trains nothing",
    "naive": "promotes whatever has the lower error, by however little",
    "threshold": "the course's rule: promotes what has the lower error, if that is below 2.50 USD",
}

_LOOKS: Mapping[PolicyName, Mapping[str, Any]] = {
    "gate": {"color": "#0b7a55", "linewidth": 2.4, "zorder": 5},
    "always": {"color": "#d9730d", "linewidth": 1.5, "zorder": 4},
    "never": {"color": "#6b7280", "linewidth": 1.8, "zorder": 3},
    "naive": {"color": "#7c3aed", "linewidth": 1.3, "zorder": 4},
    "threshold": {"color": "#2563eb", "linewidth": 1.3, "linestyle": (0, (4, 3)), "zorder": 4},
}

_WIDTH_IN = 11.0

_SHOWN = 60
"""Beyond so many cents, or seconds, above the month's best the heat map says no more than that."""


def headline(replay: Replay) -> str:
    """Returns the replay in one sentence: the first policy against never and always promoting, in the target's unit."""
    what, unit = replay.target, TARGETS[replay.target].unit
    first, *others = (replay.summary(policy) for policy in replay.policies)
    against = [other for other in others if other.policy in {"never", "always"}] or others[:2]
    compared = " and ".join(
        f"{abs(other.total - first.total):,.0f} {unit} {'less' if other.total >= first.total else 'more'} "
        f"than under “{other.policy}”"
        for other in against
    )
    return (
        f"Under the policy “{first.policy}”, from {replay.months[0].month} to {replay.months[-1].month}, a {what} was "
        f"off by {first.mae_per_trip:.2f} {unit} a ride, with {_times(first.promotions, 'promotion')}. "
        f"On {_trips(replay):,} rides that is {compared or f'{first.total:,.0f} {unit}'}."
    )


def render(replay: Replay) -> str:
    """Returns the report as an HTML page; the same replay gives the same page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("taxifare.reports"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("replay.html").render(
        replay=replay,
        target=TARGETS[replay.target],
        headline=headline(replay),
        trips=_trips(replay),
        meanings=MEANINGS,
        summaries=[replay.summary(policy) for policy in replay.policies],
        least_mae=min(replay.summary(policy).mean_mae for policy in replay.policies),
        # The figures are drawn here, from numbers and names that matplotlib escapes.
        figures={name: Markup(_svg(figure)) for name, figure in figures(replay).items()},  # noqa: S704
        skills={
            facts.month: skill(decision.production_mae, facts.difficulty_mae)
            for facts, decision in zip(replay.months, replay.decisions_of(replay.policies[0]), strict=True)
        },
    )


def figures(replay: Replay) -> Mapping[str, "Figure"]:
    """Returns the figures by name: errors over time, difficulty against staleness, the matrix."""
    return {"errors": _errors(replay), "staleness": _staleness(replay), "matrix": _matrix(replay)}


def png(figure: "Figure") -> bytes:
    """Returns a figure drawn as PNG."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def _svg(figure: "Figure") -> str:
    """Returns a figure drawn as SVG to stand in a page, the same for the same figure."""
    import matplotlib as mpl

    file = StringIO()
    with mpl.rc_context({"svg.hashsalt": "taxifare", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :]


def _errors(replay: Replay) -> "Figure":
    """Returns the error a ride over time, and what each policy has saved by then against the dearest one."""
    dearest = max(replay.policies, key=lambda policy: replay.summary(policy).total)
    target = TARGETS[replay.target]
    figure, (errors, saved) = _axes(
        f"How far off was a {target.name}?", f"What has been saved by then against “{dearest}”?"
    )
    dates, trips = _dates(replay), np.array([facts.trips for facts in replay.months])
    worst = _maes(replay.decisions_of(dearest))
    for policy in replay.policies:
        maes = _maes(replay.decisions_of(policy))
        errors.plot(dates, maes, label=policy, **_LOOKS[policy])
        saved.plot(dates, np.cumsum((worst - maes) * trips), **_LOOKS[policy])
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
    figure, (hard, skills) = _axes(
        "How hard is the month for anybody?", "How much of that does production avoid? A fall is staleness"
    )
    dates, difficulties = _dates(replay), np.array([facts.difficulty_mae for facts in replay.months])
    hard.plot(dates, difficulties, color="#111827", linewidth=1.6)
    hard.set(ylabel=f"error of a plain rate per km, {TARGETS[replay.target].unit}")
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
    target = TARGETS[replay.target]
    above = target.small_units * (maes - maes.min(axis=0))
    order = {facts.month: number for number, facts in enumerate(replay.months)}
    learned = np.array([order.get(model.subject, -1) for model in replay.models])
    is_past = np.arange(len(replay.months)) <= learned[:, None]
    figure = Figure(figsize=(_WIDTH_IN, min(9.0, 2.0 + 0.2 * len(learned))), layout="constrained")
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
    axes.set_yticks(shown, [replay.models[number].subject for number in shown])
    axes.set(
        title="Which model was good when? Pale: months that it had learned by then, or that had passed",
        xlabel="month that is scored",
        ylabel="month that the model learned last",
    )
    axes.legend(loc="lower left", framealpha=0.9)
    figure.colorbar(image, ax=axes, label=f"{target.small_unit} a ride above the month’s best", extend="max", pad=0.01)
    return figure


def _axes(*titles: str) -> tuple["Figure", Sequence["Axes"]]:
    """Returns a figure with one pair of axes a title, below each other, with time in common."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, 3.1 * len(titles)), layout="constrained")
    axes = list(figure.subplots(len(titles), 1, sharex=True))
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        axis.margins(x=0.01)
    return figure, axes


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


def _maes(decisions: Sequence[Decision]) -> npt.NDArray[np.float64]:
    """Returns production's error in each month."""
    return np.array([decision.production_mae for decision in decisions])


def _trips(replay: Replay) -> int:
    """Returns how many clean trips there were in all."""
    return sum(facts.trips for facts in replay.months)


def _times(count: int, what: str) -> str:
    """Returns a count with its noun.

    >>> _times(1, "promotion"), _times(0, "promotion")
    ('1 promotion', 'no promotions')
    """
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
