"""The verdict: numbers checked by hand, every verdict reached, and an interval that covers as often as it says."""

import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from taxifare.gate.evidence import Appraisal, Evidence, Objection, Verdict
from taxifare.gate.scores import (
    EvaluationError,
    FloatArray,
    Interval,
    Scores,
    mean_interval,
    paired_gains,
    reference_mae,
    score,
    skill,
)
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS, compare_slices, slice_masks
from taxifare.gate.verdict import judge
from taxifare.model.correction import CORRECTION_COST, correction_share
from taxifare.model.exposure import Exposure, leaked
from taxifare.trips.cities import NEW_YORK
from tests.support.approvals import contender
from tests.support.small import small_settings

FARES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(2.5, 399, allow_subnormal=False))
NO_SETTINGS = Path("nowhere")

DECEMBER = Exposure(
    subject="base", revision="b", first_pickup=datetime(2009, 1, 1), last_pickup=datetime(2014, 12, 31, 23, 59)
)


def rides(number: int = 1_000) -> pd.DataFrame:
    """Rides of January with what a verdict looks at: one every half hour, 5 USD plus 2 USD a km plus some luck."""
    rng = np.random.default_rng(7)
    pickups = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.arange(number) * 30, unit="min")
    kilometres = rng.uniform(1, 12, number)
    airports = {f"{end}_{code}_km": np.full(number, 20.0) for end in ("pickup", "dropoff") for code in AIRPORTS}
    return pd.DataFrame(
        {
            "key": pd.Series([f"ride {row}" for row in range(number)], dtype="string[pyarrow]"),
            "pickup_datetime": pickups,
            "target": 5 + 2 * kilometres + rng.normal(0, 1, number),
            "haversine_km": kilometres.astype(np.float32),
            "is_night": ((pickups.hour >= 20) | (pickups.hour < 6)).astype(np.float32),
            "is_rush": ((pickups.hour >= 16) & (pickups.hour < 20)).astype(np.float32),
            "is_validation": np.arange(number) >= number * 4 // 5,
            **airports,
        }
    )


AIRPORTS = ("jfk", "lga", "ewr")
RIDES = rides()
VALIDATION = RIDES[RIDES["is_validation"]]
PAID = VALIDATION["target"].to_numpy()


def off_by(errors: npt.ArrayLike) -> pd.Series:
    """Predictions of the validation rides that are wrong by so much."""
    return pd.Series(PAID + np.asarray(errors), index=VALIDATION["key"])


def scored(version: str, predicted: pd.Series, *exposure: Exposure, trips: pd.DataFrame = VALIDATION) -> Appraisal:
    """What scoring a version comes to that predicts these fares."""
    paid = trips.set_index("key")["target"]
    scores = score(predicted.reindex(paid.index).to_numpy(np.float64), paid.to_numpy())
    return Appraisal(version=version, contender=contender(version, scores), exposure=exposure)


def judged(
    production_predicted: pd.Series | None,
    staging_predicted: pd.Series,
    *,
    production: Appraisal | None = None,
    staging: Appraisal | None = None,
    trips: pd.DataFrame = RIDES,
    **tolerances: float,
) -> Evidence:
    """The evidence on two models' predictions; version 1 is production and knows the years before."""
    if production is None and production_predicted is not None:
        production = scored("1", production_predicted, DECEMBER)
    return judge(
        subject="2015-01",
        revision="r1",
        trips=trips,
        production=production or Appraisal(version=None),
        production_predicted=production_predicted,
        staging=staging or scored("2", staging_predicted, DECEMBER),
        staging_predicted=staging_predicted,
        settings=small_settings(NO_SETTINGS, **tolerances),
    )


def noise(size: float, seed: int = 1) -> npt.NDArray[np.float64]:
    """Errors of both signs."""
    return np.random.default_rng(seed).normal(0, size, len(PAID))


# Numbers by hand


def test_four_rides_by_hand() -> None:
    """Paid 10, 20, 30, 40; predicted 11, 18, 30, 44: errors +1, -2, 0, +4."""
    scores = score(np.array([11.0, 18.0, 30.0, 44.0]), np.array([10.0, 20.0, 30.0, 40.0]))
    assert scores == Scores(trips=4, mae=7 / 4, rmse=math.sqrt(21 / 4), bias=3 / 4)


def test_a_ride_priced_too_low_has_a_negative_error() -> None:
    assert score(np.array([8.0]), np.array([10.0])).bias == -2


def test_the_gain_of_each_ride_by_hand() -> None:
    """Production is 3, 1 and 2 off, staging 1, 2 and 2: the first ride gains 2 USD, the second loses 1."""
    gains = paired_gains(np.array([13.0, 19.0, 32.0]), np.array([9.0, 22.0, 28.0]), np.array([10.0, 20.0, 30.0]))
    assert gains.tolist() == [2, -1, 0]


def test_an_interval_by_hand() -> None:
    """1, 2, 3, 4, 5: mean 3, standard deviation √2.5, half width 1.96 · √2.5 / √5 = 1.386."""
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert interval.mean == 3
    assert interval.low == pytest.approx(3 - 1.385904, abs=1e-6)
    assert interval.high == pytest.approx(3 + 1.385904, abs=1e-6)


def test_one_ride_says_nothing_of_the_spread() -> None:
    assert mean_interval(np.array([2.0])) == Interval(mean=2, low=-math.inf, high=math.inf)


def test_the_difficulty_is_the_error_of_a_line_through_the_training_rides() -> None:
    """Training rides cost 3 + 2 a km to the cent; the two validation rides are 1 and 2 USD off that line."""
    training = pd.DataFrame({"haversine_km": [1.0, 2.0, 5.0], "target": [5.0, 7.0, 13.0]})
    validation = pd.DataFrame({"haversine_km": [1.0, 3.0], "target": [6.0, 7.0]})
    assert reference_mae(training, validation) == pytest.approx(1.5)


def test_dearer_rides_are_no_harder() -> None:
    """A new tariff is in the month's own training rides: the reference follows it, the difficulty stays."""
    training, validation = RIDES[~RIDES["is_validation"]], VALIDATION
    before = reference_mae(training, validation)
    after = reference_mae(*(part.assign(target=part["target"] + 3) for part in (training, validation)))
    assert after == pytest.approx(before)


@pytest.mark.parametrize(("training", "validation"), [(1, 5), (5, 0)])
def test_no_difficulty_without_rides(training: int, validation: int) -> None:
    with pytest.raises(EvaluationError, match=f"received {training} and {validation}"):
        reference_mae(RIDES.head(training), RIDES.head(validation))


def test_skill_is_the_share_of_the_error_avoided() -> None:
    assert skill(1.0, 4.0) == 0.75
    assert skill(5.0, 4.0) == -0.25


# What cannot be scored is said


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_prediction_that_is_no_number_is_an_error(wrong: float) -> None:
    with pytest.raises(EvaluationError, match="1 of 2 errors are not finite"):
        score(np.array([10.0, wrong]), np.array([10.0, 12.0]))


@pytest.mark.parametrize("shape", [(0,), (2,), (3, 1)])
def test_predictions_that_are_not_one_a_ride_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match="one prediction a trip"):
        score(np.ones(shape), np.ones(0 if shape == (0,) else 3))


def renamed(usd: pd.Series) -> pd.Series:
    return usd.rename(index={"ride 999": "ride of another month"})


def doubled(usd: pd.Series) -> pd.Series:
    return usd.rename(index={"ride 999": "ride 998"})


OTHER_RIDES: list[Callable[[pd.Series], pd.Series]] = [lambda usd: usd.iloc[1:], renamed, doubled]


@pytest.mark.parametrize("other", OTHER_RIDES, ids=["one missing", "one of another month", "one twice"])
@pytest.mark.parametrize("whose", ["production", "staging"])
def test_models_scored_on_other_rides_are_not_compared(whose: str, other: Callable[[pd.Series], pd.Series]) -> None:
    usd = {"production": off_by(noise(2)), "staging": off_by(noise(1))}
    appraisals = {"production": scored("1", usd["production"]), "staging": scored("2", usd["staging"])}
    usd[whose] = other(usd[whose])
    with pytest.raises(EvaluationError, match=f"{whose} was scored on other trips"):
        judged(usd["production"], usd["staging"], **appraisals)


def test_rides_with_the_same_keys_in_another_edition_of_the_month_are_other_rides() -> None:
    """Where a source has no keys they are numbers, and the restated month has the same ones."""
    production_predicted, staging_predicted = off_by(noise(2)), off_by(noise(1))
    restated = RIDES.assign(target=RIDES["target"] * 1.1)
    staging = scored("2", staging_predicted, trips=restated[restated["is_validation"]])
    with pytest.raises(EvaluationError, match=r"production was scored on other trips: version 1 .* score it again"):
        judged(production_predicted, staging_predicted, staging=staging, trips=restated)


def test_staging_that_was_not_scored_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="staging version 2 was not scored: no weights"):
        judged(off_by(2), off_by(1), staging=Appraisal(version="2", fault="no weights"))


def test_production_that_was_scored_has_predictions() -> None:
    """Without them the verdict would be that production cannot be scored, which is not so."""
    with pytest.raises(EvaluationError, match="its predictions are missing"):
        judged(None, off_by(1), production=scored("1", off_by(2)))


def test_scored_nothing_and_unscorable_exclude_each_other() -> None:
    found = contender("1", score(PAID, PAID))
    for confused in (
        {"version": None, "fault": "?"},
        {"version": None, "contender": found},
        {"version": "1"},
        {"version": "1", "contender": found, "fault": "?"},
        {"version": "2", "contender": found},
    ):
        with pytest.raises(ValidationError):
            Appraisal.model_validate(confused)


# The correction of the bias


def cost_of(errors: FloatArray, raised_by: FloatArray) -> float:
    """The share that a correction adds to the mean absolute error."""
    return float(np.abs(errors + raised_by).mean() / np.abs(errors).mean()) - 1


def test_a_correction_that_costs_nothing_takes_the_whole_bias() -> None:
    """Two rides too cheap by 1 and 3 USD: with 2 USD more each is off by 1, and no longer to one side."""
    assert correction_share(np.array([-1.0, -3.0]), np.array([4.0, 4.0])) == 0.5
    assert correction_share(np.array([-1.0, -3.0]), np.array([1.0, 1.0])) == 1.0, "never beyond the upper fare"


def test_a_correction_never_lowers_fares_and_needs_somewhere_to_go() -> None:
    assert correction_share(np.array([1.0, 3.0, 2.0]), np.ones(3)) == 0.0
    assert correction_share(np.array([-1.0, 1.0]), np.ones(2)) == 0.0
    assert correction_share(np.array([-1.0, -3.0]), np.zeros(2)) == 0.0


def test_a_correction_that_would_cost_more_goes_as_far_as_one_and_a_quarter_per_cent() -> None:
    """99 rides exact and one 100 USD too cheap: c more costs 0.98 c a ride, of 1 USD; 0.0128 is affordable."""
    errors = np.array([0.0] * 99 + [-100.0])
    share = correction_share(errors, np.ones(100))
    assert share == pytest.approx(0.0125 / 0.98, rel=1e-6)
    assert cost_of(errors, share * np.ones(100)) == pytest.approx(CORRECTION_COST, rel=1e-6)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.just(2), st.integers(1, 60)),
        elements=st.floats(-200, 200, allow_subnormal=False),
    )
)
def test_a_correction_is_cheap_goes_against_the_bias_and_never_beyond_it(rows: FloatArray) -> None:
    errors, raises = rows[0], np.abs(rows[1])
    share, mae = correction_share(errors, raises), float(np.abs(errors).mean())
    assert 0 <= share <= 1
    raised = errors + share * raises
    assert raised.mean() <= max(0.0, errors.mean()) + 1e-6
    assert np.abs(raised).mean() <= (1 + CORRECTION_COST) * mae + 1e-9


def test_what_held_trips_say_holds_for_later_ones_and_uncertain_rides_are_raised_more() -> None:
    """A network that makes the absolute error least says the median, and rides are dear by surprise."""
    draws = np.random.default_rng(1)
    spread = draws.uniform(0.1, 3.0, (2, 20_000))
    held, later = spread * (np.exp(0.5) - draws.lognormal(0.5, 0.75, (2, 20_000)))
    upper = spread * (np.exp(0.5 + 0.75 * 0.2533) - np.exp(0.5))  # the 60th percentile of a log-normal
    share = correction_share(held, upper[0])
    assert 0 < share < 1
    assert abs((later + share * upper[1]).mean()) < abs(later.mean())
    assert cost_of(later, share * upper[1]) < CORRECTION_COST + 0.002
    same_for_all = np.full(20_000, share * upper[1].mean())
    assert cost_of(later, share * upper[1]) < cost_of(later, same_for_all)


# Every verdict


def test_a_better_staging_is_promoted() -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.verdict is Verdict.PROMOTE
    assert evidence.gain is not None
    assert evidence.gain.low > 0
    assert evidence.reasons[0].startswith("staging is better: +")


def test_a_worse_staging_is_rejected() -> None:
    evidence = judged(off_by(noise(1)), off_by(noise(3)))
    assert evidence.verdict is Verdict.REJECT
    assert evidence.gain is not None
    assert evidence.gain.high < 0
    assert evidence.reasons[0].startswith("staging is worse: -")


def test_a_model_compared_with_itself_gains_exactly_nothing() -> None:
    evidence = judged(off_by(noise(2)), off_by(noise(2)))
    assert evidence.verdict is Verdict.HOLD
    assert evidence.gain == Interval(mean=0, low=0, high=0)


def test_swapping_the_models_swaps_the_sign() -> None:
    one, other = judged(off_by(noise(3)), off_by(noise(1))).gain, judged(off_by(noise(1)), off_by(noise(3))).gain
    assert one is not None
    assert other is not None
    assert (other.mean, other.low, other.high) == (-one.mean, -one.high, -one.low)


def test_a_gain_too_small_to_be_sure_of_is_held() -> None:
    evidence = judged(off_by(noise(2, seed=1)), off_by(noise(1.98, seed=2)))
    assert evidence.verdict is Verdict.HOLD
    assert evidence.gain is not None
    assert evidence.gain.low < 0 < evidence.gain.high


def test_a_sure_gain_that_is_too_small_to_be_worth_it_is_held() -> None:
    """Half a cent a ride, on every ride: as sure as can be."""
    evidence = judged(off_by(1.0), off_by(0.995))
    assert evidence.gain is not None
    assert evidence.gain.low > 0
    assert evidence.verdict is Verdict.HOLD
    assert "at least 0.01 USD" in evidence.reasons[0]
    assert judged(off_by(1.0), off_by(0.995), minimum_gain=0.0).verdict is Verdict.PROMOTE


def test_a_gain_of_exactly_the_least_useful_one_does_not_exceed_it() -> None:
    evidence = judged(off_by(1.0), off_by(0.5), minimum_gain=0.5, bias_tolerance=9)
    assert evidence.gain is not None
    assert evidence.gain.low == pytest.approx(0.5)
    held = judged(off_by(1.0), off_by(0.5), minimum_gain=evidence.gain.low, bias_tolerance=9)
    assert held.verdict is Verdict.HOLD


def test_a_better_model_that_is_worse_at_night_is_held() -> None:
    is_night = VALIDATION["is_night"].to_numpy() > 0
    production_predicted, staging_predicted = off_by(noise(3)), off_by(noise(0.2))
    worse_at_night = staging_predicted + np.where(is_night, 4 * np.sign(noise(1)), 0)
    assert judged(production_predicted, staging_predicted).verdict is Verdict.PROMOTE
    evidence = judged(production_predicted, worse_at_night, minimum_gain=0)
    assert evidence.gain is not None
    assert evidence.gain.low > 0, "it is better on the whole"
    assert evidence.verdict is Verdict.HOLD
    assert [reason.split(":")[0] for reason in evidence.reasons] == ["night trips get worse"]
    assert judged(production_predicted, worse_at_night, slice_tolerance=5).verdict is Verdict.PROMOTE


def test_a_slice_may_get_worse_within_its_tolerance() -> None:
    is_night = VALIDATION["is_night"].to_numpy() > 0
    swings = np.sign(noise(1))
    production_predicted, staging_predicted = off_by(2 * swings), off_by(np.where(is_night, 2.2, 0.5) * swings)
    assert judged(production_predicted, staging_predicted, slice_tolerance=0.25).verdict is Verdict.PROMOTE
    assert judged(production_predicted, staging_predicted, slice_tolerance=0.15).verdict is Verdict.HOLD


def test_a_slice_that_is_worse_on_average_but_not_surely_is_no_objection() -> None:
    """At rush hour staging is off by 0 and 7.50 in turn, 75 cents worse than production: perhaps by chance."""
    is_rush = VALIDATION["is_rush"].to_numpy() > 0
    swings = np.sign(noise(1))
    in_turn = np.where(np.cumsum(is_rush) % 2, 7.5, 0.0)
    production_predicted = off_by(3 * swings)
    perhaps = judged(production_predicted, off_by(np.where(is_rush, in_turn, 0.5) * swings), bias_tolerance=9)
    rush = next(part for part in perhaps.slices if part.name == "rush hour")
    assert rush.gain.mean < -0.5 < 0 < rush.gain.high
    assert perhaps.verdict is Verdict.PROMOTE
    surely = judged(production_predicted, off_by(np.where(is_rush, 3.75, 0.5) * swings), bias_tolerance=9)
    assert surely.verdict is Verdict.HOLD
    assert [reason.split(":")[0] for reason in surely.reasons] == ["rush hour trips get worse"]


def test_a_better_model_that_prices_all_rides_too_low_is_held() -> None:
    """Production is off by 3 either way, staging by 1 one way: closer on every ride, and a loss on every ride."""
    production_predicted, staging_predicted = off_by(3 * np.where(np.arange(len(PAID)) % 2, 1, -1)), off_by(-1.0)
    evidence = judged(production_predicted, staging_predicted)
    assert evidence.gain is not None
    assert evidence.gain.low > 0
    assert evidence.verdict is Verdict.HOLD
    assert evidence.reasons == ("the bias grows from +0.00 to -1.00 USD a trip, tolerated are 0.20 USD",)
    assert judged(production_predicted, staging_predicted, bias_tolerance=1.0).verdict is Verdict.PROMOTE


def test_a_bias_that_changes_sides_has_not_grown() -> None:
    assert judged(off_by(-3.0), off_by(2.0)).verdict is Verdict.PROMOTE


def test_nothing_in_production_is_a_cold_start() -> None:
    evidence = judged(None, off_by(noise(1)))
    assert evidence.verdict is Verdict.COLD_START
    assert evidence.production is None, "no metrics are made up for a missing champion"
    assert evidence.production_version is None
    assert evidence.gain is None
    assert evidence.slices == ()


def test_production_that_cannot_be_scored_is_neither_beaten_nor_absent() -> None:
    evidence = judged(None, off_by(noise(1)), production=Appraisal(version="1", fault="its weights are damaged"))
    assert evidence.verdict is Verdict.UNSCORABLE
    assert evidence.production_version == "1"
    assert evidence.production is None
    assert evidence.gain is None
    assert evidence.reasons == ("production version 1 cannot be scored: its weights are damaged",)


# Leaks

FIRST, LAST = VALIDATION["pickup_datetime"].min(), VALIDATION["pickup_datetime"].max()
A_MOMENT = pd.Timedelta(1, "us")


def trained_until(last: pd.Timestamp, subject: str = "2015-01", first: pd.Timestamp | None = None) -> Exposure:
    first = first or min(pd.Timestamp("2015-01-01"), last)
    return Exposure(subject=subject, revision="r0", first_pickup=first, last_pickup=last)


@pytest.mark.parametrize("whose", ["production", "staging"])
def test_whoever_was_trained_on_the_validation_rides_is_not_judged_by_them(whose: str) -> None:
    usd = {"production": off_by(noise(3)), "staging": off_by(noise(1))}
    version = {"production": "1", "staging": "2"}[whose]
    leaky = scored(version, usd[whose], DECEMBER, trained_until(FIRST))
    evidence = judged(usd["production"], usd["staging"], **{whose: leaky})
    assert evidence.verdict is Verdict.LEAK
    assert evidence.reasons == (
        f"{whose} version {version} was trained on trips of 2015-01 up to {FIRST:%Y-%m-%d %H:%M}, "
        "which reach into the validation trips",
    )


def test_a_leak_goes_before_everything_else() -> None:
    leaky = scored("2", off_by(noise(1)), trained_until(LAST))
    assert judged(None, off_by(noise(1)), staging=leaky).verdict is Verdict.LEAK
    fault = Appraisal(version="1", fault="?")
    assert judged(None, off_by(noise(1)), production=fault, staging=leaky).verdict is Verdict.LEAK


def test_training_that_ends_a_moment_before_the_validation_rides_is_no_leak() -> None:
    before = trained_until(FIRST - A_MOMENT)
    assert leaked([DECEMBER, before], VALIDATION) is None
    assert leaked([DECEMBER, trained_until(FIRST)], VALIDATION) == trained_until(FIRST)


def test_training_that_begins_a_moment_after_them_is_no_leak() -> None:
    """A production of a later month, when an earlier one is run again."""
    after = trained_until(LAST + pd.Timedelta(30, "D"), "2015-02", first=LAST + A_MOMENT)
    assert leaked([after], VALIDATION) is None
    assert leaked([trained_until(LAST + pd.Timedelta(30, "D"), "2015-02", first=LAST)], VALIDATION) is not None


def test_base_years_that_reach_into_the_month_leak() -> None:
    base = trained_until(pd.Timestamp("2015-06-30"), "base", first=pd.Timestamp("2009-01-01"))
    assert leaked([base], VALIDATION) == base


def test_a_month_that_is_restated_is_no_news_to_a_model_of_its_first_edition() -> None:
    """Other rows, other revision, the same hours: the model knows the prices of exactly these hours."""
    first_edition = trained_until(LAST)
    restated = RIDES.assign(key=[f"new key {row}" for row in range(len(RIDES))], target=RIDES["target"] + 0.5)
    assert leaked([first_edition], restated[restated["is_validation"]]) == first_edition


# Slices


def test_slices_are_found_by_hand() -> None:
    trips = RIDES.head(4).assign(
        pickup_jfk_km=[2.4, 2.6, 20, 20],
        dropoff_lga_km=[20, 1.5, 1.7, 20],
        haversine_km=[10.0, 10.1, 3, 3],
        is_night=[1.0, 0, 0, 0],
        is_rush=[0.0, 0, 1, 0],
    )
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slice_masks(trips, NEW_YORK).items()} == {
        "JFK": [0],
        "LGA": [1],
        "EWR": [],
        "over 10 km": [1],
        "night": [0],
        "rush hour": [2],
    }


def test_a_slice_of_few_rides_is_not_judged() -> None:
    at_jfk = np.where(np.arange(len(PAID)) < MINIMUM_SLICE_TRIPS - 1, 1.0, 20.0)
    few = VALIDATION.assign(pickup_jfk_km=at_jfk)
    enough = VALIDATION.assign(pickup_jfk_km=np.roll(at_jfk, 1).clip(None, 20), dropoff_jfk_km=at_jfk)
    names = [[part.name for part in compare_slices(PAID, PAID, trips, NEW_YORK)] for trips in (few, enough)]
    assert names == [["over 10 km", "night", "rush hour"], ["JFK", "over 10 km", "night", "rush hour"]]


def test_a_slice_has_both_models_scores_and_its_own_gain() -> None:
    is_night = VALIDATION["is_night"].to_numpy() > 0
    production_predicted, staging_predicted = PAID + 2, PAID + np.where(is_night, -3, 1)
    night = next(
        part
        for part in compare_slices(production_predicted, staging_predicted, VALIDATION, NEW_YORK)
        if part.name == "night"
    )
    assert night.staging.trips == is_night.sum()
    assert (night.production.bias, night.staging.bias) == (pytest.approx(2), pytest.approx(-3))
    assert night.gain.mean == pytest.approx(-1)


# The evidence as a document


def test_evidence_survives_json_with_infinite_bounds() -> None:
    """One validation ride: a mean, and no idea how sure it is."""
    one = RIDES.iloc[:-199].assign(is_validation=[False] * 800 + [True])
    ride = one[one["is_validation"]]
    production_predicted, staging_predicted = (
        pd.Series(ride["target"].to_numpy() + by, index=ride["key"]) for by in (2, 1)
    )
    evidence = judged(
        production_predicted,
        staging_predicted,
        production=scored("1", production_predicted, trips=ride),
        staging=scored("2", staging_predicted, trips=ride),
        trips=one,
    )
    assert evidence.verdict is Verdict.HOLD
    assert evidence.gain is not None
    assert evidence.gain.low == -math.inf
    for text in (evidence.model_dump_json(), json.dumps(evidence.model_dump(mode="json"), allow_nan=False)):
        assert Evidence.model_validate_json(text) == evidence
        assert Evidence.model_validate(json.loads(text)).digest == evidence.digest


def test_the_digest_is_of_what_was_shown_and_not_of_the_run_that_showed_it() -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.production is not None
    again = evidence.model_copy(
        update={
            "staging": evidence.staging.model_copy(update={"run_id": "another"}),
            "production": evidence.production.model_copy(update={"run_id": "a third"}),
        }
    )
    assert again.digest == evidence.digest


CHANGES: dict[str, object] = {
    "objections": (Objection(about="bias", name="bias", reason="it grows"),),
    "subject": "2015-02",
    "revision": "r2",
    "production_version": "9",
    "unit": "min",
    "difficulty_mae": 1.0,
    "gain": None,
    "slices": (),
    "verdict": Verdict.HOLD,
    "reasons": ("because",),
    "production": None,
    "staging": contender("3", score(PAID + 1, PAID)),
}


@pytest.mark.parametrize("name", list(Evidence.model_fields))
def test_whatever_is_shown_differs_in_the_digest(name: str) -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.model_copy(update={name: CHANGES[name]}).digest != evidence.digest


# Properties


@given(FARES, st.integers(0, 1000))
def test_the_gain_is_antisymmetric(paid: FloatArray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = paid + rng.normal(0, 3, len(paid)), paid + rng.normal(0, 2, len(paid))
    np.testing.assert_array_equal(paired_gains(one, other, paid), -paired_gains(other, one, paid))
    assert not paired_gains(one, one, paid).any()


@given(FARES, st.integers(0, 1000), st.floats(-20, 20))
def test_scores_do_not_depend_on_order_nor_on_a_shift_of_all_fares(paid: FloatArray, seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    predicted, order = paid + rng.normal(0, 3, len(paid)), rng.permutation(len(paid))
    scores = score(predicted, paid)
    for same in (score(predicted[order], paid[order]), score(predicted + shift, paid + shift)):
        assert same.model_dump() == pytest.approx(scores.model_dump(), abs=1e-9)
    assert abs(scores.bias) <= scores.mae + 1e-12 <= scores.rmse + 1e-9


@given(FARES, st.integers(0, 1000), st.floats(0.1, 10))
def test_scores_in_cents_are_a_hundred_times_those_in_dollars(paid: FloatArray, seed: int, factor: float) -> None:
    predicted = paid + np.random.default_rng(seed).normal(0, 3, len(paid))
    dollars, other = score(predicted, paid), score(predicted * factor, paid * factor)
    assert (other.mae, other.rmse, other.bias) == pytest.approx(
        (dollars.mae * factor, dollars.rmse * factor, dollars.bias * factor), abs=1e-9
    )


@hypothesis_settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_order_of_rides_and_of_predictions_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    production_predicted, staging_predicted = off_by(noise(2.2)), off_by(noise(2, seed=2))
    evidence = judged(production_predicted, staging_predicted)
    shuffled = judged(
        production_predicted.sample(frac=1, random_state=seed),
        staging_predicted.sample(frac=1, random_state=seed + 1),
        production=scored("1", production_predicted, DECEMBER),
        staging=scored("2", staging_predicted, DECEMBER),
        trips=RIDES.iloc[rng.permutation(len(RIDES))],
    )
    assert shuffled.verdict == evidence.verdict
    assert shuffled.gain is not None
    assert evidence.gain is not None
    assert shuffled.gain.model_dump() == pytest.approx(evidence.gain.model_dump())
    assert shuffled.difficulty_mae == pytest.approx(evidence.difficulty_mae)


# Coverage of the interval


def paired_differences(number: int) -> npt.NDArray[np.float64]:
    """Gains of two models that resemble each other, on fares like the real ones: most small, some of tens of dollars.

    Errors grow with the fare and have Student's t tails of 3 degrees of freedom; seven rides in a hundred (airports,
    long rides) have six times the error; staging shares 90 % of production's error.
    """
    rng = np.random.default_rng(2015)
    paid = np.exp(rng.normal(2.2, 0.55, number)).clip(2.5, 200)
    size = 0.1 * paid * np.where(rng.random(number) < 0.07, 6, 1)
    shared = rng.standard_t(3, number)
    production, staging = (size * (shared + 0.45 * rng.standard_t(3, number)) for _ in range(2))
    return paired_gains(paid + production, paid + 0.97 * staging, paid)


def covers(samples: npt.NDArray[np.float64], truth: float) -> float:
    """The share of samples (one a row) whose interval contains the truth; `mean_interval`, but for many at once."""
    half = 1.959964 * samples.std(axis=1, ddof=1) / math.sqrt(samples.shape[1])
    return float((np.abs(samples.mean(axis=1) - truth) <= half).mean())


def bootstrap_covers(samples: npt.NDArray[np.float64], truth: float, resamples: int = 300) -> float:
    """The same for the percentiles of a paired bootstrap."""
    rng, inside = np.random.default_rng(3), 0
    for sample in samples:
        means = sample[rng.integers(0, len(sample), (resamples, len(sample)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        inside += low <= truth <= high
    return inside / len(samples)


@pytest.fixture(scope="module")
def population() -> npt.NDArray[np.float64]:
    return paired_differences(2_000_000)


@pytest.mark.parametrize(("trips", "least"), [(MINIMUM_SLICE_TRIPS, 0.92), (100, 0.93), (300, 0.93), (4_000, 0.94)])
def test_the_interval_covers(population: npt.NDArray[np.float64], trips: int, least: float) -> None:
    drawn = np.random.default_rng(trips).integers(0, len(population), (4_000_000 // trips // 2, trips))
    samples = population[drawn]
    first = mean_interval(samples[0])
    assert (first.high - first.mean) == pytest.approx(1.959964 * samples[0].std(ddof=1) / math.sqrt(trips), rel=1e-6), (
        "the many at once are computed as mean_interval does"
    )
    assert least <= covers(samples, population.mean()) <= 0.98


def test_a_bootstrap_would_cover_no_better(population: npt.NDArray[np.float64]) -> None:
    for trips in (100, 300):
        samples = population[np.random.default_rng(trips).integers(0, len(population), (1_000, trips))]
        normal, bootstrap = (how(samples, population.mean()) for how in (covers, bootstrap_covers))
        assert normal >= bootstrap - 0.01


def test_the_differences_have_the_tails_of_real_ones(population: npt.NDArray[np.float64]) -> None:
    """Otherwise the coverage above would say little."""
    spread = population.std()
    assert (np.abs(population) > 4 * spread).mean() > 0.003, "a normal distribution has 0.00006"
    assert np.abs(population).max() > 20 * spread
