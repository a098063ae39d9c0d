"""The correction of the bias: how far, at what cost, and for whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taxifare.gate.scores import (
    FloatArray,
)
from taxifare.model.correction import CORRECTION_COST, correction_share

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
