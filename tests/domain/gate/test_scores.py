"""Scores and intervals: numbers by hand, properties, and how often an interval covers the truth."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS
from tests.support.comparison import (
    FARES,
    RIDES,
    VALIDATION,
)

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
