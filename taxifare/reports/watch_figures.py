"""Figures of what is watched over, as PNG bytes."""

from taxifare.monitoring.watch import THRESHOLD, Watched
from taxifare.reports.drawing import below_each_other, png
from taxifare.trips.targets import Unit


def days(watched: Watched, version: str, unit: Unit) -> bytes:
    """Returns a PNG of the days since a version came in: how far it was off, how hard rides were, and the score."""
    from matplotlib.dates import date2num

    of_days = watched.days
    titles = (f"How far off has version {version} been, and how hard were the rides?", "What does that add up to?")
    figure, (errors, score) = below_each_other(*titles)
    errors.plot(of_days.index, of_days["difficulty"], color="grey", label="a plain rate per km")
    errors.plot(of_days.index, of_days["mae"], marker=".", label=f"version {version}")
    errors.set_ylabel(f"mean absolute error, {unit} a ride")
    errors.legend()
    score.plot(of_days.index, of_days["score"], marker=".")
    score.axhline(THRESHOLD, color="tab:red", linestyle=":", label="raises the alarm")
    score.set(xlabel="day", ylabel="score, robust sd")
    score.legend()
    if watched.alarm is not None:
        for panel in (errors, score):
            panel.axvline(date2num(watched.alarm), color="tab:red", linewidth=0.8)
    return png(figure)
