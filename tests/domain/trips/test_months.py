"""Months tile time: every instant is in exactly one of them, midnight included."""

from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.trips.months import bounds, months_between, parse_month

instants = st.datetimes(min_value=datetime(2009, 1, 1), max_value=datetime(2030, 12, 31))
months = instants.map(lambda instant: pd.Period(instant, "M"))


def test_midnight_of_the_first_is_in_the_new_month_only() -> None:
    midnight = pd.Timestamp("2015-02-01")
    january, february = bounds(parse_month("2015-01")), bounds(parse_month("2015-02"))
    assert not january[0] <= midnight < january[1]
    assert february[0] <= midnight < february[1]


def test_the_last_day_belongs_to_its_month() -> None:
    first, until = bounds(parse_month("2015-06"))
    assert first <= pd.Timestamp("2015-06-30 23:59:59.999999") < until


@given(instants)
def test_an_instant_is_in_one_month_and_in_no_neighbour(instant: datetime) -> None:
    month = pd.Period(instant, "M")
    holding = [m for m in months_between(month - 1, month + 1) if bounds(m)[0] <= instant < bounds(m)[1]]
    assert holding == [month]


@given(months)
def test_months_are_written_and_read_alike(month: pd.Period) -> None:
    assert parse_month(str(month)) == month


@given(months, st.integers(min_value=0, max_value=40))
def test_consecutive_months_leave_no_gap(first: pd.Period, count: int) -> None:
    span = [bounds(month) for month in months_between(first, first + count)]
    assert len(span) == count + 1
    assert all(until == start for (_, until), (start, _) in pairwise(span))
    assert span[0][0] + timedelta(days=27 * len(span)) < span[-1][1]


@pytest.mark.parametrize("text", ["2015-1", "2015-13", "2015-00", "15-01", "2015-01-01", " 2015-01", "2015-01\n", ""])
def test_anything_but_a_month_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ValueError, match="expected a month written YYYY-MM, received") as refusal:
        parse_month(text)
    assert repr(text) in str(refusal.value)
