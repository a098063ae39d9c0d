"""Figures as PNG bytes. Every axis carries its unit; a figure answers the question in its title."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from taxifare.approval.records import Promotion
from taxifare.gate.scores import predictions_of
from taxifare.gate.track_record import TrackRecord
from taxifare.model.fitting import TrainingHistory
from taxifare.monitoring.realised import MonthErrors
from taxifare.reports.drawing import WIDTH_IN, below_each_other, png, side_by_side
from taxifare.studies.learning_curve import Level
from taxifare.studies.results import Trial
from taxifare.texts import named_version
from taxifare.trips.cities import Rule
from taxifare.trips.targets import Target, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LABELS = 24
"""Months that are named on an axis."""

_DRAWN_TRIPS = 20_000
"""Points of a map; more make the file larger and the picture no clearer."""


def trips_overview(trips: pd.DataFrame, target: Target) -> bytes:
    """Returns a PNG of where rides start, their target by distance, and when they start.

    Args:
        trips: Clean trips with target and features; a sample of at most 20,000 is drawn.
        target: What is learned of them.
    """
    drawn = trips if len(trips) <= _DRAWN_TRIPS else trips.sample(_DRAWN_TRIPS, random_state=0)
    figure, (place, size, hours) = side_by_side("Where do rides start?", target.question, "When do they start?")
    place.scatter(drawn["pickup_longitude"], drawn["pickup_latitude"], s=1, alpha=0.3, linewidths=0)
    place.set(xlabel="longitude, degrees", ylabel="latitude, degrees")
    place.set_aspect(1 / np.cos(np.radians(drawn["pickup_latitude"].mean())))
    size.scatter(drawn["haversine_km"], drawn["target"], s=2, alpha=0.3, linewidths=0)
    size.set(
        xlabel="distance as the crow flies, km",
        ylabel=f"{target.name}, {target.unit}",
        xlim=(0, 30),
        ylim=(0, max(100, target.most / 4)),
    )
    per_hour = trips["pickup_datetime"].dt.hour.value_counts(normalize=True).sort_index() * 100
    hours.bar(per_hour.index, per_hour.to_numpy())
    hours.set(xlabel="hour of the day", ylabel="share of rides, %")
    return png(figure)


def training_curve(history: TrainingHistory, unit: Unit) -> bytes:
    """Returns a PNG of the loss and the early-stopping error by epoch, with the epoch whose weights were kept."""
    from matplotlib.ticker import MaxNLocator

    figure, (curve,) = side_by_side("Did training help, and when was it stopped?")
    trained = [epoch for epoch in history.epochs if epoch.number]
    curve.plot(
        [epoch.number for epoch in trained], [epoch.loss for epoch in trained], marker="o", label="training loss"
    )
    curve.plot(
        [epoch.number for epoch in history.epochs],
        [epoch.validation_mae for epoch in history.epochs],
        marker="o",
        label="error on the early-stopping trips",
    )
    curve.axvline(history.best_epoch, color="grey", linestyle=":", label=f"weights kept: epoch {history.best_epoch}")
    curve.set(xlabel="epoch", ylabel=f"mean absolute error, {unit}")
    curve.xaxis.set_major_locator(MaxNLocator(integer=True))
    curve.legend()
    return png(figure)


def errors_by_hour(predictions: pd.Series, trips: pd.DataFrame, target: Target) -> bytes:
    """Returns a PNG of the mean absolute error and the bias by hour of the day, and of predictions against the truth.

    Args:
        predictions: By trip key.
        trips: The same trips, with `key`, `target` and `pickup_datetime`; of more than 20,000 some are drawn as points.
        target: What is predicted.
    """
    actual, predicted = trips["target"].to_numpy(), predictions_of(trips, predictions)
    errors, hour_of_day = pd.Series(predicted - actual), trips["pickup_datetime"].dt.hour.to_numpy()
    points = slice(None, None, -(-len(trips) // _DRAWN_TRIPS) or 1)
    figure, (by_hour, pairs) = side_by_side("When is the model wrong?", f"Predicted against {target.truth}")
    by_hour.bar(range(24), errors.abs().groupby(hour_of_day).mean().reindex(range(24)), label="mean absolute error")
    by_hour.plot(range(24), errors.groupby(hour_of_day).mean().reindex(range(24)), color="black", label="bias")
    by_hour.axhline(0, color="grey", linewidth=0.5)
    by_hour.set(xlabel="hour of the day", ylabel=f"{target.unit} a ride")
    _make_room_for_legend(by_hour)
    by_hour.legend(loc="upper left", ncols=2, frameon=False)
    pairs.scatter(actual[points], predicted[points], s=3, alpha=0.4, linewidths=0)
    pairs.plot([0, 80], [0, 80], color="grey", linewidth=0.8)
    shown = (0, max(80, target.most / 5))
    pairs.set(xlabel=f"{target.truth}, {target.unit}", ylabel=f"predicted, {target.unit}", xlim=shown, ylim=shown)
    return png(figure)


def track_record(record: TrackRecord, unit: Unit) -> bytes:
    """Returns a PNG of what the candidate would have saved a ride by the end of each month since production came in."""
    figure, (saved,) = side_by_side(f"What has it saved since version {record.production}?")
    until = [
        TrackRecord(production=record.production, months=record.months[: end + 1]) for end in range(len(record.months))
    ]
    intervals = [part.gains.all.interval for part in until]
    places = range(len(until))
    saved.axhline(0, color="grey", linewidth=1)
    saved.plot(places, [interval.mean for interval in intervals], marker="o", label="so far")
    saved.fill_between(
        places,
        [interval.low if isfinite(interval.low) else interval.mean for interval in intervals],
        [interval.high if isfinite(interval.high) else interval.mean for interval in intervals],
        alpha=0.2,
        label="95 % interval, days as units",
    )
    for place in places[1:]:
        if len(until[place].since_last_start) == 1:
            saved.axvline(place, color="grey", linestyle=":", label="began anew from production")
    saved.set_xticks(places, [part.months[-1].month for part in until])
    saved.set(xlabel="month", ylabel=f"saved so far, {unit} a ride")
    saved.tick_params("x", rotation=45)
    saved.legend()
    return png(figure)


def errors_over_time(
    months: Sequence[MonthErrors], promoted: Mapping[str, str], rules: Sequence[Rule], unit: Unit
) -> bytes:
    """Returns a PNG of the errors of all months, see `drawn_over_time`."""
    return png(drawn_over_time(months, promoted, rules, unit))


def drawn_over_time(
    months: Sequence[MonthErrors], promoted: Mapping[str, str], rules: Sequence[Rule], unit: Unit
) -> "Figure":
    """Returns the errors of all months: production and staging on validation trips, difficulty, quotes.

    Args:
        months: Oldest first, at least one.
        promoted: The version that became production on a month's evidence, by month.
        rules: Of the city; those of the months shown are drawn.
        unit: What errors are in.
    """
    figure, (errors,) = below_each_other("How far off are predictions, month by month?")
    figure.set_size_inches(WIDTH_IN, 5.2)
    places = np.array([_month_number(month.month) for month in months])
    series = (
        ("difficulty", "flat per-km rate (difficulty)", "#9ca3af", "--", "."),
        ("production", "production, on validation trips", "tab:blue", "-", "o"),
        ("staging", "staging, on the same trips", "tab:orange", "-", "o"),
    )
    for name, meaning, color, line, marker in series:
        is_to_come = name == "staging" and months[-1].staging is None and months[-1].production is not None
        label = f"{meaning} ({months[-1].month}: not trained yet)" if is_to_come else meaning
        values = np.array([getattr(month, name) for month in months], np.float64)
        if np.isfinite(values).any():
            errors.plot(places, values, label=label, color=color, linestyle=line, marker=marker, markersize=4)
    told = [(place, month.realised) for place, month in zip(places, months, strict=True) if month.realised is not None]
    if told:
        means = np.array([found.mean for _, found in told])
        bounds = np.array([[found.low, found.high] for _, found in told]).T
        reach = np.where(np.isfinite(bounds), np.abs(bounds - means), 0.0)
        errors.errorbar(
            *([place for place, _ in told], means, reach),
            label="what customers were told, 95 % interval",
            color="black",
            marker="D",
            markersize=5,
            capsize=3,
            linewidth=1.2,
            zorder=4,
        )
    first, last = places[0] - 0.6, places[-1] + 0.8
    for month, version in promoted.items():
        place = _month_number(month) + 0.5
        if first <= place <= last:
            errors.axvline(place, color="tab:green", linestyle=":", linewidth=1.2)
            _tell_at_top(errors, place, f"version {version}", "tab:green")
    for rule in rules:
        place = _month_number(f"{rule.since:%Y-%m}") + (rule.since.day - 1) / 31 - 0.5
        if first <= place <= last:
            errors.axvline(place, color="tab:red", linestyle="--", linewidth=1)
            _tell_at_top(errors, place, rule.name, "tab:red")
    step = -(-len(places) // _MOST_LABELS)
    errors.set_xticks(places[::step], [month.month for month in months][::step], rotation=45, ha="right")
    errors.set(ylabel=f"mean absolute error, {unit} a ride", xlim=(first, last))
    bottom, top = errors.get_ylim()
    errors.set_ylim(min(bottom, 0.9 * bottom), top + 0.3 * (top - bottom))
    figure.legend(*errors.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _make_room_for_legend(panel: "Axes") -> None:
    """Leaves the upper fifth of a panel to its legend."""
    bottom, top = panel.get_ylim()
    panel.set_ylim(bottom, top + 0.2 * (top - bottom))


def _month_number(month: str) -> int:
    year, number = map(int, month.split("-"))
    return 12 * year + number


def _tell_at_top(panel: "Axes", place: float, what: str, color: str) -> None:
    """Writes at a line what it stands for, along it."""
    panel.annotate(
        what,
        (place, 0.99),
        xycoords=panel.get_xaxis_transform(),
        xytext=(3, 0),
        textcoords="offset points",
        rotation=90,
        va="top",
        fontsize=8,
        color=color,
        parse_math=False,
    )


def production_timeline(history: Sequence[Promotion]) -> bytes:
    """Returns a PNG of which version was production when; a rollback is drawn in another color.

    The last bar is still growing: it is drawn as long as a sixth of all before it, and at least an hour.

    Args:
        history: Every promotion and rollback, in order.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.patches import Patch

    figure, (axis,) = below_each_other("Which version was production when, and by whose decision?")
    names = [named_version(entry.version) for entry in history]
    rows = sorted(set(names), key=lambda name: (len(name), name))
    begins = date2num([entry.promoted_at for entry in history])
    end = begins.max() + max((begins.max() - begins.min()) / 6, 1 / 24)
    shortest = (end - begins.min()) / 150
    middle = (begins.min() + end) / 2
    colors = {"promotion": "tab:blue", "rollback": "tab:orange"}
    for entry, name, begin, after in zip(history, names, begins, np.append(begins[1:], end), strict=True):
        row = rows.index(name)
        # One that was short, or of a clock that went backwards, is to be seen all the same.
        axis.barh(row, max(after - begin, shortest), left=begin, height=0.3, color=colors[entry.kind])
        side = "left" if begin < middle else "right"
        axis.annotate(entry.by, (begin, row + 0.22), ha=side, va="bottom", fontsize=8, parse_math=False)
    locator = AutoDateLocator()
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.set_yticks(range(len(rows)), rows)
    axis.set(xlabel="time, UTC", ylim=(-0.5, len(rows) - 0.2))
    patches = [Patch(color=color, label=kind) for kind, color in colors.items()]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False)
    return png(figure)


def tuning(trials: Sequence[Trial], importances: Mapping[str, float], unit: Unit) -> bytes:
    """Returns a PNG of the error of each trial and the least so far, and of how much each setting matters.

    Args:
        trials: Finished trials in the order of their ends.
        importances: Share of each setting in the differences between the trials; may be empty.
        unit: What errors are in.
    """
    figure, (history, shares) = side_by_side("Did the search find better settings?", "Which settings matter?")
    complete = [(place, trial.mae) for place, trial in enumerate(trials, 1) if trial.mae is not None]
    places, errors = [place for place, _ in complete], [error for _, error in complete]
    history.scatter(places, errors, s=20, label="trial")
    history.step(places, np.minimum.accumulate(errors), where="post", color="grey", label="least so far")
    for end, color in (("pruned", "tab:orange"), ("failed", "tab:red")):
        ended = [place for place, trial in enumerate(trials, 1) if trial.end == end]
        # They have no error to be drawn at: a mark at the foot of the panel says that they were tried.
        history.plot(
            ended,
            [0.02] * len(ended),
            transform=history.get_xaxis_transform(),
            marker="x",
            linestyle="",
            color=color,
            label=f"{end}: {len(ended)}",
        )
    history.set(xlabel="finished trials", ylabel=f"mean absolute error on held-out trips, {unit}")
    history.legend()
    shares.barh(list(importances)[::-1], [100 * share for share in importances.values()][::-1])
    shares.set(xlabel="share of the differences between trials, %")
    return png(figure)


def learning_curve(levels: Sequence[Level], unit: Unit) -> bytes:
    """Returns a PNG of the error against the training size, its 95 % interval, and that of a flat per-km rate.

    Args:
        levels: At least one size, smallest first.
        unit: What errors are in.
    """
    figure, (curve,) = side_by_side("What do more trips bring?")
    sizes = [level.trips for level in levels]
    curve.plot(sizes, [level.interval.mean for level in levels], marker="o", label="network, mean of the repeats")
    if all(np.isfinite(level.interval.high) for level in levels):
        lows, highs = ([getattr(level.interval, end) for level in levels] for end in ("low", "high"))
        curve.fill_between(sizes, lows, highs, alpha=0.25, linewidth=0, label="95 % interval of the mean")
    for number, level in enumerate(levels):
        label = "_" if number else "one fit"
        curve.scatter([level.trips] * len(level.maes), level.maes, s=8, color="black", zorder=3, label=label)
    references = [level.reference_mae for level in levels]
    curve.plot(sizes, references, color="grey", linestyle="--", label="linear on distance")
    curve.set(xscale="log", xlabel="training trips", ylabel=f"mean absolute error on the latest trips, {unit}")
    curve.legend()
    return png(figure)
