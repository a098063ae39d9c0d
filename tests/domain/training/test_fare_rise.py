"""Real months: a model renewed month by month follows the fare rise of 2012, and a frozen one does not; in 2015, where
prices nearly stand still, renewing does no harm."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from taxifare.gate.scores import difficulty_of, mean_interval, score, skill
from taxifare.model.exposure import Exposure, exposure_of
from taxifare.model.fitting import quote, restore, state_of
from taxifare.settings import Settings
from taxifare.training.challengers import lesson_of, warm
from taxifare.training.from_random_weights import fit_from_scratch, predict_trips
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.features import feature_names
from taxifare.trips.months import bounds, months_between, parse_month
from taxifare.trips.preparation import preprocess
from taxifare.trips.splitting import split_by_time
from taxifare.trips.table import as_trip_table
from tests.support.rehearsals import reservoir
from tests.support.small import small_settings

if TYPE_CHECKING:
    import keras

pytestmark = [pytest.mark.slow, pytest.mark.real_trips]

BASE_TRIPS, REHEARSED = 200_000, 60_000
"""As the settings have it. With 60,000 and 20,000 the January of 2015 was taken for the level of February."""


@dataclass(frozen=True)
class Version:
    """A model as it is handed on from month to month."""

    version: str
    exposure: tuple[Exposure, ...]
    network: "keras.Model"


@pytest.fixture(scope="module")
def base_years(real_trips: Path) -> pd.DataFrame:
    """All trips from 2009 to 2014."""
    return as_trip_table(pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet"), "base")


@pytest.fixture(scope="module")
def course(base_years: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The months around the rise."""
    pickups = base_years["pickup_datetime"]
    months = {}
    for month in months_between(parse_month("2012-07"), parse_month("2013-02")):
        first, end = bounds(month)
        months[str(month)] = base_years[(pickups >= first) & (pickups < end)]
    return renewed_through(months, base_years[pickups < "2012-07-01"], tmp_path_factory.mktemp("rise"))


@pytest.fixture(scope="module")
def quiet_course(real_trips: Path, base_years: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The months of 2015."""
    months = {}
    for number in range(1, 7):
        trips = pd.read_parquet(real_trips / f"taxi_2015_{number:02d}.parquet")
        months[f"2015-{number:02d}"] = as_trip_table(trips, f"2015-{number:02d}")
    return renewed_through(months, base_years, tmp_path_factory.mktemp("quiet"))


def renewed_through(months: dict[str, pd.DataFrame], earlier: pd.DataFrame, home: Path) -> pd.DataFrame:
    """Returns scores on each month's validation trips: of the model of the earlier trips, and renewed up to that month.

    `worse` is by how much the renewed one is worse than the frozen one at least, with 95 % confidence for all months
    together (Bonferroni): negative unless it surely is. `worse_a_month_later` is that of the model renewed up to the
    month before, which prices the month.
    """
    confidence = 1 - 0.05 / len(months)
    settings = small_settings(home, max_epochs=6, batch_size=None, rehearsal_trips=REHEARSED)
    base = earlier.sample(BASE_TRIPS, random_state=1).sort_index().reset_index(drop=True)
    learned = ready("base", base, settings)
    network, _ = fit_from_scratch(learned.frame, settings)
    frozen_state = state_of(network)
    model, past, scores = (
        Version("0", exposure_of(learned.frame.assign(subject="base", revision="r1")), network),
        [learned],
        [],
    )
    for month, published in months.items():
        now = ready(month, published.reset_index(drop=True), settings)
        validation = now.validation
        paid = validation["target"].to_numpy(np.float64)
        in_production = predict_trips(network, validation, settings)
        rehearsed = reservoir(past, settings.rehearsal_trips, settings.seed)
        renewed = warm(lesson_of(now, rehearsed, settings), model, settings)
        features = validation[list(feature_names(settings.city_facts))].to_numpy(np.float32)
        middle, upper = quote(renewed.network, features).T.astype(np.float64)
        raised = middle + renewed.correction_share * (upper - middle)
        renewed_state = state_of(network)
        restore(network, frozen_state)
        before = predict_trips(network, validation, settings)
        restore(network, renewed_state)
        frozen, after = score(before, paid), score(middle, paid)
        corrected = score(raised, paid)
        scores.append(
            {
                "month": month,
                "trips": len(validation),
                "frozen": frozen.mae,
                "renewed": after.mae,
                "worse": mean_interval(abs(middle - paid) - abs(before - paid), confidence).low,
                "worse_a_month_later": mean_interval(abs(in_production - paid) - abs(before - paid), confidence).low,
                "difficulty": difficulty_of(now),
                "bias": after.bias,
                "corrected": corrected.mae,
                "corrected_bias": corrected.bias,
            }
        )
        model = Version(month, renewed.exposure, renewed.network)
        past.append(now)
    return pd.DataFrame(scores).set_index("month")


def ready(subject: str, trips: pd.DataFrame, settings: Settings) -> Trips:
    """Clean trips with features, split."""
    split = trips.assign(is_validation=split_by_time(trips, settings.validation_share))
    return preprocess(Trips(Edition(subject, "r1"), split), settings.city_facts, settings.target_facts).trips


def test_renewal_recovers_four_fifths_of_what_the_frozen_model_loses_within_two_months(course: pd.DataFrame) -> None:
    """The frozen model's loss is its error beyond what it would be with the skill it had before the rise.

    Skill is measured against each month's own rate per km, which follows prices: a month that is harder for everybody,
    or dearer, does not count as loss.
    """
    before = course.loc["2012-07":"2012-08"]  # type: ignore[misc]
    skill_before = np.mean([skill(row.frozen, row.difficulty) for row in before.itertuples()])
    after = course.loc["2012-11":]  # type: ignore[misc]
    expected = after["difficulty"] * (1 - skill_before)
    lost, regained = after["frozen"] - expected, after["frozen"] - after["renewed"]
    assert (lost > 0.3).all(), "there is something to recover"
    assert regained.sum() / lost.sum() >= 0.8
    assert (regained / lost >= 0.7).all(), "and not in one lucky month"


def test_renewal_does_no_harm_while_prices_stand_still(course: pd.DataFrame) -> None:
    before = course.loc["2012-07":"2012-08"]  # type: ignore[misc]
    assert (before["renewed"] <= before["frozen"] + 0.01).all()


def test_over_2015_the_renewed_model_is_never_surely_worse_by_what_counts_than_the_frozen_one(
    quiet_course: pd.DataFrame, tmp_path: Path
) -> None:
    assert (quiet_course["worse"] < 0).all()
    # In January it is the frozen model itself. March is worse by a fifth of a cent on one processor, not on another.
    assert (quiet_course["worse_a_month_later"] < small_settings(tmp_path).minimum_gain).all()
    assert quiet_course["renewed"].mean() < quiet_course["frozen"].mean(), "and it is of use"


def test_the_correction_takes_much_of_the_bias_and_costs_little(course: pd.DataFrame) -> None:
    """Over the eight months together: the last week of a December is like no other, and one month's luck is large."""

    def mean(column: str) -> float:
        return float(np.average(course[column], weights=course["trips"]))

    assert mean("bias") < -0.2
    assert abs(mean("corrected_bias")) < 0.67 * abs(mean("bias"))
    assert mean("corrected") / mean("renewed") - 1 < 0.02
