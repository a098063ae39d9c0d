"""The verdict: every one of them, from both models' predictions on the same rides."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taxifare.gate.evidence import Appraisal, Verdict
from taxifare.gate.gains import Gains, SlicedGains, gains_of
from taxifare.gate.scores import (
    EvaluationError,
    Interval,
)
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.gate.verdict import weighed
from taxifare.model.exposure import Exposure, leaked
from tests.support.comparison import DECEMBER, NO_SETTINGS, PAID, RIDES, VALIDATION, judged, noise, off_by, scored
from tests.support.small import small_settings


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


# Every verdict


def test_a_better_staging_is_promoted() -> None:
    evidence = judged(off_by(noise(3)), off_by(noise(1)))
    assert evidence.verdict is Verdict.PROMOTE
    assert evidence.gain is not None
    assert evidence.gain.low > 0
    assert evidence.reasons[0].startswith("staging is better on the month's last days: +")


def test_a_worse_staging_is_rejected() -> None:
    evidence = judged(off_by(noise(1)), off_by(noise(3)))
    assert evidence.verdict is Verdict.REJECT
    assert evidence.gain is not None
    assert evidence.gain.high < 0
    assert evidence.reasons[0].startswith("staging is worse on the month's last days: -")


def test_a_model_compared_with_itself_gains_exactly_nothing() -> None:
    evidence = judged(off_by(noise(2)), off_by(noise(2)))
    assert evidence.verdict is Verdict.UNCHANGED
    assert evidence.reasons == (
        "versions 1 and 2 predict the same on each of the 200 trips, so there is nothing to decide",
    )
    assert evidence.gain == Interval(mean=0, low=0, high=0)


def test_a_single_trip_that_is_priced_otherwise_is_something_to_decide_on() -> None:
    other = off_by(noise(2)).copy()
    other.iloc[7] += 0.01
    assert judged(off_by(noise(2)), other).verdict is Verdict.HOLD


def test_the_same_predictions_raised_by_other_corrections_are_something_to_decide_on() -> None:
    same = off_by(noise(2))
    staging = scored("2", same, DECEMBER)
    assert staging.contender is not None
    corrected = staging.contender.corrected.model_copy(update={"bias": 0.1})
    raised = staging.model_copy(update={"contender": staging.contender.model_copy(update={"corrected": corrected})})
    assert judged(same, same, staging=raised).verdict is Verdict.HOLD


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
    assert [(objection.about, objection.name) for objection in evidence.objections] == [("slice", "night")]
    assert evidence.reasons[0] == evidence.objections[0].reason
    assert "USD a trip (95 % interval" in evidence.reasons[0]
    assert judged(production_predicted, worse_at_night, slice_tolerance=5).verdict is Verdict.PROMOTE


def test_a_slice_may_get_worse_within_its_tolerance() -> None:
    is_night = VALIDATION["is_night"].to_numpy() > 0
    swings = np.sign(noise(1))
    production_predicted, staging_predicted = off_by(2 * swings), off_by(np.where(is_night, 2.2, 0.5) * swings)
    assert judged(production_predicted, staging_predicted, slice_tolerance=0.25).verdict is Verdict.PROMOTE
    assert judged(production_predicted, staging_predicted, slice_tolerance=0.15).verdict is Verdict.HOLD


def test_a_slice_that_is_worse_on_average_but_not_surely_is_no_objection() -> None:
    """At rush hour staging is off by 0 on one day and by 7.50 on the next: worse than production, perhaps by chance."""
    is_rush = VALIDATION["is_rush"].to_numpy() > 0
    swings = np.sign(noise(1))
    in_turn = np.where(VALIDATION["pickup_datetime"].dt.day % 2, 7.5, 0.0)
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
    assert evidence.reasons == (
        "the bias of corrected predictions grows from +0.00 to -1.00 USD a trip, tolerated are 0.20 USD",
    )
    assert [(objection.about, objection.name) for objection in evidence.objections] == [("bias", "bias")]
    assert judged(production_predicted, staging_predicted, bias_tolerance=1.0).verdict is Verdict.PROMOTE


def test_a_bias_that_changes_sides_has_not_grown() -> None:
    assert judged(off_by(-3.0), off_by(2.0)).verdict is Verdict.PROMOTE


def test_a_bias_that_the_correction_takes_away_is_none() -> None:
    """Every model of the median is biased; an overpriced production hides that, and must not hold its renewal."""
    staging = scored("2", off_by(-1.0), DECEMBER)
    assert staging.contender is not None
    corrected = staging.contender.scores.model_copy(update={"bias": -0.1})
    mended = staging.model_copy(update={"contender": staging.contender.model_copy(update={"corrected": corrected})})
    either_way = off_by(3 * np.where(np.arange(len(PAID)) % 2, 1, -1))
    assert judged(either_way, off_by(-1.0), staging=mended).verdict is Verdict.PROMOTE


# The track record


def with_record(staging: pd.Series, *months: SlicedGains, production: str = "1") -> Appraisal:
    """Staging, scored, with a record of these months, the one that is judged the last of them."""
    entries = tuple(
        MonthOnRecord(month=f"2014-{number:02d}", revision="r", candidate="2", gains=gains)
        for number, gains in enumerate(months, 1)
    )
    appraisal = scored("2", staging, DECEMBER)
    return appraisal.model_copy(update={"track_record": TrackRecord(production=production, months=entries)})


def saved(usd: float, *, days: int = 25, rides: int = 400, **slices: float) -> SlicedGains:
    """A month in which every day saved about so much a ride."""
    by_day = usd + 0.001 * np.where(np.arange(days) % 2, 1, -1)

    def gains(mean: float) -> Gains:
        return gains_of(np.repeat(by_day - usd + mean, rides), np.repeat(np.arange(days), rides))

    return SlicedGains(all=gains(usd), slices={name.replace("_", " "): gains(mean) for name, mean in slices.items()})


def test_what_the_last_days_cannot_show_the_track_record_does() -> None:
    """A gain of 0.8 cents a ride: less than one cent, more than half of one, and sure over a month."""
    unsure = off_by(1.0), off_by(0.995)
    assert judged(*unsure).verdict is Verdict.HOLD
    evidence = judged(*unsure, staging=with_record(unsure[1], saved(0.008)))
    assert evidence.verdict is Verdict.PROMOTE
    assert [reason.split(" USD")[0] for reason in evidence.reasons] == [
        "staging is better on the 10,200 rides since production came in: +0.008"
    ]
    assert evidence.track_record is not None
    assert evidence.track_record.gains.all.rides == 10_000 + len(PAID)


def test_a_record_is_no_reason_where_the_last_days_disagree() -> None:
    worse = off_by(1.0), off_by(1.001)
    evidence = judged(*worse, staging=with_record(worse[1], saved(0.05)))
    assert evidence.verdict is Verdict.HOLD
    assert evidence.reasons[1].endswith("but the last days do not agree")


def test_last_days_that_gain_nothing_at_all_disagree_too() -> None:
    even, settings = Interval(mean=0, low=-0.01, high=0.01), small_settings(NO_SETTINGS)
    assert weighed(even, saved(0.05).all, (), settings)[0] is Verdict.HOLD
    more = even.model_copy(update={"mean": 0.0001})
    assert weighed(more, saved(0.05).all, (), settings)[0] is Verdict.PROMOTE


def test_a_fall_of_the_last_days_alone_is_no_rejection_while_the_record_is_good() -> None:
    worse = off_by(1.0), off_by(1.001)
    assert judged(*worse).verdict is Verdict.REJECT
    assert judged(*worse, staging=with_record(worse[1], saved(-0.05))).verdict is Verdict.REJECT


def test_a_change_that_the_last_days_show_is_not_held_by_a_record_of_quieter_months() -> None:
    """A fare rise: the candidate lost a little for months, and now it alone knows the new prices."""
    risen = off_by(2.0), off_by(1.5)
    evidence = judged(*risen, staging=with_record(risen[1], saved(-0.001), saved(0.0)), bias_tolerance=9)
    assert evidence.verdict is Verdict.PROMOTE


def test_a_slice_objects_on_the_record() -> None:
    better = off_by(1.0), off_by(0.5)
    held = judged(*better, staging=with_record(better[1], saved(0.05, over_10_km=-0.4)), bias_tolerance=9)
    assert held.verdict is Verdict.HOLD
    assert held.reasons[0].startswith("over 10 km trips get worse: -0.3")
    fine = judged(*better, staging=with_record(better[1], saved(0.05, over_10_km=-0.01)), bias_tolerance=9)
    assert fine.verdict is Verdict.PROMOTE


def test_rides_that_end_where_they_begin_have_a_tolerance_of_their_own() -> None:
    """Nobody knows where they went in between, so that their gains swing five times as far as those of others."""
    better = off_by(1.0), off_by(0.5)
    fine = judged(*better, staging=with_record(better[1], saved(0.05, same_point=-0.4)), bias_tolerance=9)
    assert fine.verdict is Verdict.PROMOTE
    held = judged(*better, staging=with_record(better[1], saved(0.05, same_point=-0.6)), bias_tolerance=9)
    assert [objection.name for objection in held.objections] == ["same point"]
    assert held.reasons[0].endswith("tolerated are 0.50 USD")


def test_a_record_against_another_production_says_nothing() -> None:
    unsure = off_by(1.0), off_by(0.995)
    evidence = judged(*unsure, staging=with_record(unsure[1], saved(0.05), production="7"))
    assert evidence.verdict is Verdict.HOLD
    assert evidence.track_record is None


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
