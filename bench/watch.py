"""How the watch on the days does on real rides, beside the presets that look at inputs.

    .venv/bin/python bench/watch.py choose      # months before July 2012: what the numbers of the watch were chosen by
    .venv/bin/python bench/watch.py drift       # how far the inputs of each month are from the year before
    .venv/bin/python bench/watch.py renewal     # what retraining on the first days of September 2012 is worth
    .venv/bin/python bench/watch.py             # July 2012 to June 2015: alarms, delays, false alarms, and input drift

For each span a network of the smallest shape is trained on 110,000 rides from before it, and prices its rides as a
version in production would that nobody renews. `choose` looks at nothing from July 2012 on. Runs for some minutes; its
daily errors are kept in `--keep` and taken from there the next time.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
from scipy import stats

from taxifare.model.exposure import Exposure, exposure_of
from taxifare.monitoring import watch as rules
from taxifare.monitoring.drift import input_drift, psi
from taxifare.monitoring.outcomes import days_of, expected
from taxifare.settings import Settings
from taxifare.training.challengers import RENEWAL, lesson_of, warm
from taxifare.training.from_random_weights import fit_from_scratch, predict_trips
from taxifare.training.reservoir import Reservoir
from taxifare.trips.city_files import shipped
from taxifare.trips.cleaning import clean
from taxifare.trips.editions import SO_FAR, Edition, Trips
from taxifare.trips.features import compute_features
from taxifare.trips.splitting import split_by_time
from taxifare.trips.table import as_trip_table
from taxifare.trips.targets import FARE

NEW_YORK = shipped("new-york").facts
REAL_TRIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "nyc_kaggle_format"
SETTINGS = Settings(_env_file=None)
ROWS = 110_000
RISE = pd.Timestamp("2012-09-04")


@dataclass(frozen=True)
class Span:
    """A version in production: the first month it prices, the month it is no longer looked at, and what happens."""

    first: str
    end: str
    moves: pd.Timestamp | None = None

    @property
    def name(self) -> str:
        """Its months."""
        return f"{self.first} to {pd.Period(self.end, 'M') - 1}"


DEFECT = pd.Timestamp("2010-08-01")
"""In August and September 2010 published fares and places do not belong together: fares go with distances at a
correlation of 0.72 and 0.46, in other months at 0.85. That is a feed that is broken, not a month to choose by."""

BEFORE = [
    Span("2010-01", "2010-07"), Span("2010-07", "2011-01", DEFECT), Span("2011-01", "2011-07"),
    Span("2011-07", "2012-01"), Span("2012-01", "2012-07"),
]  # fmt: skip
QUIET = [
    Span("2012-10", "2013-01"), Span("2013-01", "2013-07"), Span("2013-07", "2014-01"), Span("2014-01", "2014-07"),
    Span("2014-07", "2015-01"), Span("2015-01", "2015-07"),
]  # fmt: skip
MOVING = [Span("2012-07", "2012-10", RISE), Span("2012-08", "2012-10", RISE)]


@cache
def rides() -> pd.DataFrame:
    """Every clean ride of 2009 to June 2015 with its features, by pickup time."""
    files = ["taxi_base_2009_2014", *(f"taxi_2015_{month:02d}" for month in range(1, 7))]
    tables = [as_trip_table(pd.read_parquet(REAL_TRIPS / f"{name}.parquet"), name) for name in files]
    trips = clean(pd.concat(tables, ignore_index=True), NEW_YORK, FARE).trips
    trips = trips.sort_values("pickup_datetime", ignore_index=True)
    return pd.concat([trips.assign(target=trips["fare_amount"]), compute_features(trips, NEW_YORK)], axis=1)


def of(span: Span) -> pd.DataFrame:
    times = rides()["pickup_datetime"]
    return rides()[(times >= span.first) & (times < span.end)]


def daily(span: Span, keep: Path) -> pd.DataFrame:
    """The daily table of a version that learned everything before the span."""
    kept = keep / f"{span.first}-{span.end}.parquet"
    if not kept.exists():
        before = rides()[rides()["pickup_datetime"] < span.first]
        network, _ = fit_from_scratch(before.sample(min(ROWS, len(before)), random_state=1), SETTINGS)
        priced = of(span)
        outcomes = priced.assign(truth=priced["target"], predicted=predict_trips(network, priced, SETTINGS))
        keep.mkdir(parents=True, exist_ok=True)
        days_of(outcomes.assign(reference=expected(outcomes))).to_parquet(kept)
    return pd.read_parquet(kept)


def choose(keep: Path) -> None:
    """Prints, of months before July 2012, what thresholds would have come to."""
    lacks = []
    for span in BEFORE:
        days = daily(span, keep)
        days = days if span.moves is None else days[days.index < span.moves]
        watched = rules.watch(days)
        lacks.append(watched.days["lack"].dropna().to_numpy())
        print(f"{span.name}: {len(days)} days, MAE {days['mae'].mean():.3f}, highest score {highest(watched):.1f}")
    pool = np.concatenate(lacks)
    print(f"\n{len(pool)} days; beyond 1, 2, 3, 4 sd below: ", [f"{(pool > sd).mean():.1%}" for sd in (1, 2, 3, 4)])
    for threshold in (5, 6, 8, 10, 12):
        alarms, years = resampled(lacks, threshold)
        print(f"threshold {threshold:>2}: {alarms / years:.3f} false alarms a year, resampled {years:,.0f} years")


def highest(watched: rules.Watched) -> float:
    return float(watched.days["score"].max())


def resampled(lacks: list[np.ndarray], threshold: float, years: int = 2_000, block: int = 14) -> tuple[int, float]:
    """False alarms in so many years, drawn in blocks of two weeks, so that what lasts for days stays together."""
    draws, pool = np.random.default_rng(1), np.concatenate(lacks)
    starts = draws.integers(0, len(pool) - block, years * 365 // block)
    alarms, score = 0, 0.0
    for lack in pool[(starts[:, None] + np.arange(block)).ravel()]:
        score = max(0.0, score + lack - rules.ALLOWANCE)
        if score >= threshold:
            alarms, score = alarms + 1, 0.0
    return alarms, years


PRESET_FEATURES = (
    "haversine_km", "grid_km", "pickup_east_km", "pickup_north_km", "dropoff_east_km", "dropoff_north_km", "hour",
    "weekday", "passengers", "bearing_sin",
)  # fmt: skip


def presets(now: pd.DataFrame, before: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """The farthest feature, and how many of ten drift, by the usual presets."""
    found: dict[str, list[float]] = {"KS, p < 0.05": [], "Wasserstein > 0.1 sd": [], "PSI > 0.1": []}
    for name in PRESET_FEATURES:
        was, is_now = before[name].to_numpy(np.float64), now[name].to_numpy(np.float64)
        found["KS, p < 0.05"].append(0.05 - stats.ks_2samp(was, is_now, method="asymp").pvalue)
        found["Wasserstein > 0.1 sd"].append(stats.wasserstein_distance(was, is_now) / was.std() - 0.1)
        found["PSI > 0.1"].append(psi(was, is_now) - 0.1)
    return {test: (max(by), sum(value > 0 for value in by)) for test, by in found.items()}


def by_month(span: Span) -> Iterator[tuple[pd.Period, dict[str, tuple[float, int]]]]:
    """What the presets say of each month of a span, held against the twelve months before the span."""
    start = pd.Timestamp(span.first)
    times = rides()["pickup_datetime"]
    before = rides()[(times >= start - pd.DateOffset(years=1)) & (times < start)]
    for month, trips in of(span).groupby(of(span)["pickup_datetime"].dt.to_period("M")):
        yield month, presets(trips, before)


def report(keep: Path) -> None:
    """Prints the table of docs/monitoring.md."""
    print("| span | days | false alarms | the rise of 4 September 2012 | highest score before |\n|---|---|---|---|---|")
    for span in [*QUIET, *MOVING]:
        watched = rules.watch(daily(span, keep))
        alarm = None if watched.alarm is None else pd.Timestamp(watched.alarm)
        is_false = alarm is not None and (span.moves is None or alarm < span.moves)
        seen = "" if span.moves is None else "not seen"
        if span.moves is not None and alarm is not None and not is_false:
            seen = f"alarm on {alarm:%d %B}, {(alarm - span.moves).days + 1} days of it known"
        quiet = watched.days if span.moves is None else watched.days[watched.days.index < span.moves]
        print(f"| {span.name} | {len(quiet)} | {int(is_false)} | {seen} | {float(quiet['score'].max()):.1f} |")
    months: dict[str, list[tuple[bool, int]]] = {}
    for span in [*QUIET, MOVING[0]]:
        for month, found in by_month(span):
            moved = span.moves is not None and month >= span.moves.to_period("M")
            for test, (_, drifting) in found.items():
                months.setdefault(test, []).append((moved, drifting))
    print("\n| preset | quiet months with an alarm | half of the features | September 2012 |\n|---|---|---|---|")
    for test, drifted in months.items():
        quiet_ones = [drifting for moved, drifting in drifted if not moved]
        moved_ones = [drifting for moved, drifting in drifted if moved]
        told = f"{sum(n > 0 for n in quiet_ones)} of {len(quiet_ones)}"
        half = sum(n >= len(PRESET_FEATURES) / 2 for n in quiet_ones)
        print(f"| {test} | {told} | {half} | {', '.join(map(str, moved_ones))} of 10 features |")


def drift(_keep: Path) -> None:
    """Prints the farthest feature of each month by the index of `input_drift`, held against the year before."""
    months = rides()["pickup_datetime"].dt.to_period("M")
    found: dict[str, list[float]] = {"before July 2012": [], "from October 2012 on": [], "September 2012": []}
    for month in pd.period_range("2010-01", "2015-06", freq="M"):
        now, before = rides()[months == month], rides()[(months < month) & (months >= month - 12)]
        of_month = input_drift(now, now, before, NEW_YORK)
        farthest = of_month.features[0]
        print(f"{month}: {farthest.name} {farthest.index:.4f}, threshold {farthest.threshold:.4f}")
        when = "before July 2012" if month < pd.Period("2012-07") else "from October 2012 on"
        if pd.Period("2012-07") <= month < pd.Period("2012-10"):
            when = "September 2012" if month == pd.Period("2012-09") else "July and August 2012"
        found.setdefault(when, []).append(farthest.index)
    for when, indices in found.items():
        print(f"{when}: {len(indices)} months, the farthest {max(indices):.4f}, half below {np.median(indices):.4f}")


@dataclass
class Learned:
    """A network to start from, as `training.challengers` asks for it."""

    network: keras.Model
    exposure: tuple[Exposure, ...]
    version: str = "1"


def renewal(_keep: Path) -> None:
    """Prints what a renewal on the first days of September 2012 is worth on the rides from the 11th on."""
    times, end = rides()["pickup_datetime"], pd.Timestamp("2012-10-01")
    before, later = rides()[times < "2012-09-01"], rides()[(times >= "2012-09-11") & (times < end)]
    network, _ = fit_from_scratch(before.sample(ROWS, random_state=1), SETTINGS)
    sample = Reservoir(SETTINGS.rehearsal_trips, SETTINGS.seed)
    sample.draw_from(Trips(Edition("base", "r"), before))
    rehearsed = sample.drawn
    print(f"learned until August: {off(network, later):.2f} USD a ride on {len(later):,} rides from 11 September on")
    for until in ("2012-09-07", "2012-09-09", "2012-09-11"):
        days = rides()[(times >= "2012-09-01") & (times < until)].reset_index(drop=True)
        so_far = days.assign(is_validation=split_by_time(days, SETTINGS.validation_share))
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
        copy.set_weights(network.get_weights())
        copy.compile(optimizer=keras.optimizers.Adam(RENEWAL.learning_rate), loss=network.loss)
        lesson = lesson_of(Trips(Edition("2012-09", f"{SO_FAR}{until}"), so_far), rehearsed, SETTINGS)
        renewed = warm(lesson, Learned(copy, exposure_of(rehearsed)), SETTINGS, None)
        print(f"renewed on {len(days):,} rides before {until}: {off(renewed.network, later):.2f}", flush=True)


def off(network: keras.Model, trips: pd.DataFrame) -> float:
    """Mean absolute error."""
    return float(np.abs(predict_trips(network, trips, SETTINGS) - trips["target"].to_numpy()).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="report", choices=["choose", "report", "drift", "renewal"])
    parser.add_argument("--keep", type=Path, default=Path("state/bench-watch"), help="where daily errors are kept")
    arguments = parser.parse_args()
    {"choose": choose, "report": report, "drift": drift, "renewal": renewal}[arguments.what](arguments.keep)


if __name__ == "__main__":
    main()
