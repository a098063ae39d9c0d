"""Why production errs more than when it was approved: by hand, and on real trips whose story is known."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.gate.gains import days_of, gains_of
from taxifare.gate.scores import Interval, paired_gains, reference_mae, score
from taxifare.gate.staleness import Baseline, Change, Rise, explain_change
from taxifare.model.exposure import Exposure
from taxifare.settings import Settings
from taxifare.sources import Folder
from taxifare.training.from_random_weights import fit_from_scratch, predict_trips
from taxifare.trips.editions import Edition, Trips
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess
from taxifare.trips.splitting import split_by_time
from taxifare.trips.targets import FARE
from tests.support.cities import NEW_YORK

THEN = Baseline(mae=2.0, difficulty_mae=4.0)

LITTLE, MUCH = Interval(mean=0.03, low=0.01, high=0.05), Interval(mean=0.4, low=0.3, high=0.5)
"""What the month's candidate saves a trip, USD: on a quiet month, and after a rise that production has not learned."""


def learned_up_to(last: str) -> tuple[Exposure, ...]:
    first = datetime(2009, 1, 1)
    return (Exposure(subject="base", revision="r", first_pickup=first, last_pickup=datetime.fromisoformat(last)),)


def month_up_to(last: str) -> pd.DataFrame:
    return pd.DataFrame({"pickup_datetime": pd.to_datetime([last])})


def change(now: Baseline, attainable: Interval | None = LITTLE, tolerance: float = 0.05) -> Change:
    learned, month = learned_up_to("2012-08-25"), month_up_to("2012-09-30")
    return explain_change(THEN, now, learned, month, NEW_YORK, "USD", tolerance, attainable)


def rise(found: Change) -> Rise:
    assert found.rise is not None
    return found.rise


# By hand


def test_a_harder_month_raises_the_error_and_makes_no_model_stale() -> None:
    """A quarter harder for anybody, half of the reference's error avoided as ever."""
    found = change(Baseline(mae=2.5, difficulty_mae=5.0))
    assert (rise(found).whole, rise(found).harder, rise(found).staler) == (0.5, 0.5, 0.0)
    assert not found.is_stale


def test_lost_skill_that_a_candidate_has_is_staleness() -> None:
    """As hard as ever, 40 % avoided instead of 50; a model that has learned the month avoids it."""
    found = change(Baseline(mae=2.4, difficulty_mae=4.0), MUCH)
    assert (rise(found).harder, rise(found).staler) == (0.0, pytest.approx(0.4))
    assert found.is_stale


def test_lost_skill_that_no_candidate_has_either_is_the_season() -> None:
    """The first January of the demo: the error fell, and the skill with it, of whatever model."""
    found = change(Baseline(mae=1.6, difficulty_mae=2.0))
    assert rise(found).whole < 0
    assert found.now.skill < found.then.skill - 0.05
    assert not found.is_stale


def test_what_is_not_known_is_said_and_alarms_nobody() -> None:
    found = change(Baseline(mae=2.8, difficulty_mae=4.0), None)
    assert not found.is_stale
    assert "It is unknown whether the model is stale" in found.sentence


def test_without_the_evidence_of_the_approval_staleness_is_said_all_the_same() -> None:
    """A version that was adopted: nobody approved it here."""
    learned, month = learned_up_to("2012-08-25"), month_up_to("2012-09-30")
    now = Baseline(mae=2.4, difficulty_mae=4.0)
    found = explain_change(None, now, learned, month, NEW_YORK, "USD", 0.05, MUCH)
    assert (found.rise, found.is_stale) == (None, True)
    assert "The error is 2.40 USD a ride; what it was at its approval is not on record." in found.sentence
    assert "The model is stale: " in found.sentence


def test_a_candidate_that_is_the_model_itself_is_said_to_be() -> None:
    found = change(Baseline(mae=2.5, difficulty_mae=5.0), Interval(mean=0.0, low=0.0, high=0.0))
    assert not found.is_stale
    assert "the month's candidate is the model itself" in found.sentence
    assert "saves" not in found.sentence


def test_a_rise_is_divided_among_the_two() -> None:
    """A month of 5.0 at the old skill gives 2.5; at 44 % it gives 2.8: 0.5 for the month, 0.3 for the model."""
    found = change(Baseline(mae=2.8, difficulty_mae=5.0))
    assert (rise(found).harder, rise(found).staler) == (pytest.approx(0.5), pytest.approx(0.3))
    assert rise(found).harder + rise(found).staler == pytest.approx(rise(found).whole)


def test_the_shown_differences_are_those_of_the_shown_errors() -> None:
    """1.594 to 1.788 is a rise of 0.194; beside 1.59 and 1.79 a reader finds 0.20, and the two parts come to that."""
    then, now = Baseline(mae=1.594, difficulty_mae=2.053), Baseline(mae=1.788, difficulty_mae=2.273)
    said = explain_change(
        then, now, learned_up_to("2012-08-25"), month_up_to("2012-09-03"), NEW_YORK, "USD", 0.05, None
    )
    assert "from 1.59 to 1.79 USD a ride (+0.20): +0.18 because" in said.sentence
    assert "+0.02 because the model fits it less well" in said.sentence


def test_an_easy_month_hides_no_stale_model() -> None:
    found = change(Baseline(mae=1.9, difficulty_mae=3.0), MUCH)
    assert rise(found).whole < 0
    assert rise(found).harder == pytest.approx(-0.5)
    assert rise(found).staler == pytest.approx(0.4)
    assert found.is_stale


def test_a_candidate_may_surely_save_as_much_as_is_tolerated() -> None:
    """Surely 0.30 USD of a difficulty of 4.00, which is a skill of 7.5 %."""
    now = Baseline(mae=2.4, difficulty_mae=4.0)
    assert change(now, MUCH, tolerance=0.07).is_stale
    assert not change(now, MUCH, tolerance=0.08).is_stale


def test_the_words_carry_the_numbers_and_the_rule() -> None:
    said = change(Baseline(mae=2.8, difficulty_mae=5.0), MUCH).sentence
    assert "from 2.00 to 2.80 USD a ride (+0.80)" in said
    assert "+0.50 because the month is harder for any model" in said
    assert "+0.30 because the model fits it less well (skill 44.0%, was 50.0%)" in said
    assert "The model is stale: on the same rides the month's candidate saves 0.400 USD a ride (95 % int" in said
    assert "tolerance: 0.250 USD." in said
    assert "Fare rules that changed since training: 2012-09-04 0.40 to 0.50 USD a unit" in said


@pytest.mark.parametrize(
    ("learned", "month_ends", "named"),
    [
        ("2012-08-25", "2012-09-03", []),  # the month ends before it
        ("2012-08-25", "2012-09-30", ["2012-09-04"]),
        ("2012-09-20", "2012-10-31", []),  # learned already
        ("2012-08-25", "2013-03-31", ["2012-09-04", "2013-03-03"]),
    ],
)
def test_rules_are_named_that_came_into_force_since_it_was_trained(
    learned: str, month_ends: str, named: list[str]
) -> None:
    found = explain_change(THEN, THEN, learned_up_to(learned), month_up_to(month_ends), NEW_YORK, "USD", 0.05, LITTLE)
    assert [rule.split()[0] for rule in found.rules] == named


# Real months


def prepared(trips: pd.DataFrame) -> pd.DataFrame:
    trips = trips.reset_index(drop=True)
    split = trips.assign(is_validation=split_by_time(trips, 0.2))
    return preprocess(Trips(Edition("2015-01", "r"), split), NEW_YORK, FARE).trips.frame


def saved(network: object, candidate: object, trips: pd.DataFrame, settings: Settings) -> Interval:
    validation = trips[trips["is_validation"]]
    predicted = [predict_trips(model, validation, settings) for model in (network, candidate)]
    gains = paired_gains(*predicted, validation["target"].to_numpy(np.float64))
    return gains_of(gains, days_of(validation)).interval


def baseline_of(network: object, trips: pd.DataFrame, settings: Settings) -> Baseline:
    training, validation = trips[~trips["is_validation"]], trips[trips["is_validation"]]
    scores = score(predict_trips(network, validation, settings), validation["target"].to_numpy(np.float64))
    return Baseline(mae=scores.mae, difficulty_mae=reference_mae(training, validation))


@pytest.fixture(scope="module")
def base(real_trips: Path) -> pd.DataFrame:
    return Folder(real_trips).read_base().whole().trips


def changed(base: pd.DataFrame, learned: tuple[str, str], then: pd.DataFrame, now: pd.DataFrame) -> Change:
    """What is said of a model that learned from a span of months, was approved on one and is watched on another."""
    settings = Settings(_env_file=None, max_epochs=6)
    times = base["pickup_datetime"]
    known, month = prepared(base[(times >= learned[0]) & (times < learned[1])]), prepared(now)
    network, _ = fit_from_scratch(known, settings)
    candidate, _ = fit_from_scratch(pd.concat([known, month[~month["is_validation"]]], ignore_index=True), settings)
    baselines = [baseline_of(network, trips, settings) for trips in (prepared(then), month)]
    attainable, tolerance = saved(network, candidate, month, settings), settings.staleness_tolerance
    return explain_change(*baselines, learned_up_to(learned[1]), now, NEW_YORK, "USD", tolerance, attainable)


@pytest.mark.slow
@pytest.mark.real_trips
def test_september_2012_is_staleness_by_the_fare_rise(base: pd.DataFrame) -> None:
    then, now = (base[base["pickup_datetime"].dt.strftime("%Y-%m") == month] for month in ("2012-08", "2012-09"))
    found = changed(base, ("2011-08-01", "2012-08-01"), then, now)
    assert found.is_stale, found.sentence
    assert rise(found).staler > rise(found).harder
    assert any(rule.startswith("2012-09-04") for rule in found.rules)


@pytest.mark.slow
@pytest.mark.real_trips
def test_the_rise_of_2015_is_difficulty(base: pd.DataFrame, real_trips: Path) -> None:
    then, now = (Folder(real_trips).read_month(parse_month(month)).trips for month in ("2015-01", "2015-06"))
    found = changed(base, ("2014-01-01", "2015-01-01"), then, now)
    assert rise(found).whole > 0.2, found.sentence
    assert rise(found).harder > rise(found).staler, found.sentence
    assert not found.is_stale
