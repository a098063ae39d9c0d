"""The chronological split: no training trip starts at or after the first validation trip."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.trips.splitting import SplitError, split_by_time
from tests.support.places import REAL_TRIPS


def at_minutes(*minutes: int) -> pd.DataFrame:
    start = pd.Timestamp("2015-01-01")
    return pd.DataFrame({"pickup_datetime": [start + pd.Timedelta(minutes=minute) for minute in minutes]})


def test_the_latest_share_is_for_validation_in_whatever_order_the_rows_come():
    split = split_by_time(at_minutes(9, 1, 7, 3, 5, 2, 8, 4, 6, 0), 0.2)
    assert split.name == "is_validation"
    assert split.tolist() == [True, False, False, False, False, False, True, False, False, False]


def test_trips_at_the_moment_of_the_cut_all_go_to_training():
    assert split_by_time(at_minutes(0, 1, 2, 3, 3, 3, 3, 4, 5, 6), 0.4).sum() == 3
    assert split_by_time(at_minutes(0, 1, 2, 3, 3, 3, 3, 4, 5, 6), 0.5).sum() == 3


def test_the_index_is_the_trips():
    trips = at_minutes(0, 1, 2, 3).set_axis([7, 5, 3, 1])
    assert split_by_time(trips, 0.25).index.tolist() == [7, 5, 3, 1]


@pytest.mark.parametrize(
    ("minutes", "share", "message"),
    [
        ([], 0.2, "0 trips cannot be split"),
        ([1], 0.2, "1 trips cannot be split into 1 to learn from and 0 to judge by: one part would be empty"),
        ([1, 2], 0.2, "one part would be empty"),
        ([1, 2], 0.9, "one part would be empty"),
        ([5, 5, 5, 5], 0.5, "none starts after the moment of the cut, 2015-01-01T00:05"),
        ([1, 2, 3], 0.0, "expected a validation share between 0 and 1, received 0.0"),
        ([1, 2, 3], 1.0, "expected a validation share between 0 and 1, received 1.0"),
    ],
)
def test_what_cannot_be_split_is_an_error(minutes, share, message):
    with pytest.raises(SplitError, match=message):
        split_by_time(at_minutes(*minutes), share)


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=200).filter(lambda minutes: len(set(minutes)) > 1),
    st.floats(0.05, 0.95),
)
def test_training_ends_strictly_before_validation_starts(minutes, share):
    trips = at_minutes(*minutes)
    try:
        split = split_by_time(trips, share)
    except SplitError:
        return
    times = trips["pickup_datetime"]
    assert times[~split].max() < times[split].min()
    assert split.sum() <= round(len(trips) * share)


@pytest.mark.real_trips
@pytest.mark.skipif(not REAL_TRIPS.exists(), reason=f"no real trips at {REAL_TRIPS}")
def test_the_last_fifth_of_a_real_january_starts_on_the_26th():
    january = pd.read_parquet(REAL_TRIPS / "taxi_2015_01.parquet")
    split = split_by_time(january, 0.2)
    assert split.mean() == pytest.approx(0.2, abs=0.001)
    assert january["pickup_datetime"][split].min().day in (25, 26)
