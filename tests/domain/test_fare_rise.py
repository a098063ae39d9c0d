"""The fare rise of September 2012 as it was: a model renewed month by month follows it, a frozen one does not."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from taxifare.challengers import lesson_of, warm
from taxifare.evaluation import Exposure, score, skill
from taxifare.features import feature_names
from taxifare.months import bounds, months_between, parse_month
from taxifare.rehearsal import exposure_of, reservoir
from taxifare.renewal import difficulty_of, preprocess
from taxifare.scratch import fit_from_scratch, predict_trips
from taxifare.settings import Settings
from taxifare.splitting import split_by_time
from taxifare.training import quote, restore, state_of
from taxifare.trips import Edition, as_trip_table
from tests.small import small_settings

if TYPE_CHECKING:
    import keras

pytestmark = pytest.mark.real_trips

BASE_TRIPS, REHEARSED = 60_000, 20_000


@dataclass(frozen=True)
class Version:
    """A model as it is handed on from month to month."""

    version: str
    exposure: tuple[Exposure, ...]
    network: "keras.Model"


@pytest.fixture(scope="module")
def course(real_trips: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Each month's scores on its validation trips: of the frozen model, and of the one renewed up to that month."""
    settings = small_settings(tmp_path_factory.mktemp("rise"), max_epochs=3, batch_size=512, rehearsal_trips=REHEARSED)
    trips = as_trip_table(pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet"), "base")
    base = trips[trips["pickup_datetime"] < "2012-07-01"].sample(BASE_TRIPS, random_state=1).sort_index()
    base = ready("base", base.reset_index(drop=True), settings).assign(subject="base", revision="r1")
    network, _ = fit_from_scratch(base, settings)
    frozen_state = state_of(network)
    model, past, months = Version("0", exposure_of(base), network), [base], []
    for month in months_between(parse_month("2012-07"), parse_month("2013-02")):
        first, end = bounds(month)
        published = trips[(trips["pickup_datetime"] >= first) & (trips["pickup_datetime"] < end)]
        now = ready(str(month), published.reset_index(drop=True), settings)
        rehearsed = reservoir(past, settings.rehearsal_trips, settings.seed)
        renewed = warm(lesson_of(now, rehearsed, settings), model, settings)
        validation = now[now["is_validation"]]
        features = validation[list(feature_names(settings.city_facts))].to_numpy(np.float32)
        middle, upper = quote(renewed.network, features).T.astype(np.float64)
        raised = middle + renewed.correction_share * (upper - middle)
        renewed_state = state_of(network)
        restore(network, frozen_state)
        before = predict_trips(network, validation, settings)
        restore(network, renewed_state)
        paid = validation["target"].to_numpy(np.float64)
        frozen, after = score(before, paid), score(middle, paid)
        corrected = score(raised, paid)
        months.append(
            {
                "month": str(month),
                "trips": len(validation),
                "frozen": frozen.mae,
                "renewed": after.mae,
                "difficulty": difficulty_of(now),
                "bias": after.bias,
                "corrected": corrected.mae,
                "corrected_bias": corrected.bias,
            }
        )
        model = Version(str(month), renewed.exposure, renewed.network)
        past.append(now)
    return pd.DataFrame(months).set_index("month")


def ready(subject: str, trips: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Clean trips with features, split."""
    split = trips.assign(is_validation=split_by_time(trips, settings.validation_share))
    return preprocess(Edition(subject, "r1").stamp(split), settings.city_facts, settings.target_facts).trips


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


def test_the_correction_takes_much_of_the_bias_and_costs_little(course: pd.DataFrame) -> None:
    """Over the eight months together: the last week of a December is like no other, and one month's luck is large."""

    def mean(column: str) -> float:
        return float(np.average(course[column], weights=course["trips"]))

    assert mean("bias") < -0.2
    assert abs(mean("corrected_bias")) < 0.67 * abs(mean("bias"))
    assert mean("corrected") / mean("renewed") - 1 < 0.02
