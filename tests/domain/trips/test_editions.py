"""Trips in memory: they know which edition they are, and can be read as larger ones are."""

import pandas as pd

from taxifare.trips.editions import Edition, Trips

JANUARY = Trips(
    Edition("2015-01", "a1b2"), pd.DataFrame({"key": ["a", "b", "c"], "is_validation": [False, False, True]}), "fare"
)


def test_training_and_validation_trips_are_all_trips() -> None:
    assert JANUARY.training["key"].tolist() == ["a", "b"]
    assert JANUARY.validation["key"].tolist() == ["c"]


def test_batches_together_are_all_trips() -> None:
    pd.testing.assert_frame_equal(pd.concat(JANUARY.batches()), JANUARY.frame)


def test_a_whole_month_keeps_nothing_for_validation_and_stays_the_same_edition() -> None:
    whole = JANUARY.without_validation()
    assert (whole.edition, whole.target) == (JANUARY.edition, "fare")
    assert whole.training["key"].tolist() == ["a", "b", "c"]
    assert whole.validation.empty
    assert JANUARY.frame["is_validation"].any(), "the month itself stays as it was"
