"""Figures of what is watched over, as PNG bytes."""

from taxifare.monitoring.drift import InputDrift
from taxifare.monitoring.watch import THRESHOLD, Watched
from taxifare.reports.drawing import below_each_other, png, side_by_side
from taxifare.trips.targets import Unit


def days(watched: Watched, version: str, unit: Unit) -> bytes:
    """Returns a PNG of the days since a version came in: how far it was off, how hard rides were, and the score."""
    from matplotlib.dates import date2num

    of_days = watched.days
    titles = (f"How far off has version {version} been, and how hard were the rides?", "What does that add up to?")
    figure, (errors, score) = below_each_other(*titles)
    errors.plot(of_days.index, of_days["difficulty"], color="grey", label="a flat per-km rate")
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


def inputs(drift: InputDrift) -> bytes:
    """Returns a PNG of how far each feature is from the rides before, and of when rides begin, now and before."""
    figure, (features, hours) = side_by_side("Are the rides others than before?", "When do they start?")
    shown = drift.features[:12][::-1]
    features.barh([feature.name for feature in shown], [feature.index for feature in shown])
    features.axvline(drift.features[0].threshold, color="tab:red", linestyle=":", label="never reached in quiet months")
    features.set_xlabel("population stability index")
    features.legend(loc="lower right")
    hours.bar(range(24), drift.by_hour["now"] * 100, label="this month")
    hours.plot(range(24), drift.by_hour["before"] * 100, color="black", label="before")
    hours.set(xlabel="hour of the day", ylabel="share of rides, %")
    hours.legend()
    return png(figure)
