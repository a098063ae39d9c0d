"""What may become production under a standing approval: worked months, one for each answer."""

import pytest

from taxifare.gate.evidence import Evidence, Verdict
from taxifare.gate.verdict import StandingAnswer, under_standing_approval
from tests.support.approvals import evidence
from tests.support.standing import STANDING, WORSE_AIRPORT, month

LEAST = STANDING.minimum_gain


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        pytest.param(month("2015-01", "2", "1"), "promote", id="surely better so far, the last days agree"),
        pytest.param(month("2015-01", "2", "1", so_far=0, lately=3 * LEAST), "promote", id="surely better lately"),
        pytest.param(month("2015-01", "2", "1", lately=-0.001), "keep", id="the last days do not agree"),
        pytest.param(month("2015-01", "2", "1", so_far=LEAST / 3), "keep", id="surely better, by too little"),
        pytest.param(month("2015-01", "2", "1", so_far=0, lately=LEAST), "keep", id="not surely more than the least"),
        pytest.param(month("2015-01", "2", "1", objections=(WORSE_AIRPORT,)), "ask", id="one kind of trip is worse"),
        pytest.param(
            month("2015-01", "2", "1", so_far=0, objections=(WORSE_AIRPORT,)), "keep", id="worse there, better nowhere"
        ),
        pytest.param(month("2015-01", "2", "1", verdict=Verdict.LEAK), "ask", id="the comparison means nothing"),
        pytest.param(month("2015-01", "2", "1", verdict=Verdict.REJECT), "keep", id="surely worse"),
        pytest.param(month("2015-01", "2", "1", verdict=Verdict.UNCHANGED), "keep", id="the same"),
        pytest.param(evidence("2015-01", "2", None), "ask", id="nothing is in production"),
        pytest.param(evidence("2015-01", "2", "1"), "ask", id="evidence of before has no track record"),
    ],
)
def test_each_answer(found: Evidence, answer: StandingAnswer) -> None:
    given, reasons = under_standing_approval(found, STANDING)
    assert given == answer
    assert reasons


def test_whoever_is_asked_learns_what_speaks_against() -> None:
    _, reasons = under_standing_approval(month("2015-01", "2", "1", objections=(WORSE_AIRPORT,)), STANDING)
    assert reasons == ("airport trips get worse",)


def test_what_speaks_against_is_found_by_the_tolerances_in_force() -> None:
    """A month that was compared while more was tolerated holds no objection, and promotes nothing for that."""
    answer, reasons = under_standing_approval(month("2015-01", "2", "1", at_airports=-0.5), STANDING)
    assert (answer, "airport trips get worse: -0.500 USD" in reasons[0]) == ("ask", True)
    tolerant = STANDING.model_copy(update={"slice_tolerance": 1.0})
    assert under_standing_approval(month("2015-01", "2", "1", at_airports=-0.5), tolerant)[0] == "promote"
    found = month("2015-01", "2", "1")
    biased = found.staging.model_copy(update={"corrected": found.staging.corrected.model_copy(update={"bias": 0.9})})
    answer, reasons = under_standing_approval(found.model_copy(update={"staging": biased}), STANDING)
    assert (answer, "the bias of corrected predictions grows" in reasons[0]) == ("ask", True)
