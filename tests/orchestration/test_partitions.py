"""Months as partitions: a key for each, and a month for each key."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.sources import make_source
from taxifare.trips.months import parse_month
from taxifare_dagster.order import covered_months
from taxifare_dagster.partitions import month_of_partition, months_of, partition_key
from tests.support.world import JANUARY, Publisher, world_settings

months = st.datetimes(datetime(2009, 1, 1), datetime(2030, 12, 31)).map(lambda instant: pd.Period(instant, "M"))


@given(months)
def test_a_month_comes_back_from_its_key(month: pd.Period) -> None:
    assert month_of_partition(partition_key(month)) == month


@pytest.mark.parametrize("key", ["2015-01-15", "2015-01-01-01"])
def test_a_partition_key_is_the_first_of_a_month(key: str) -> None:
    with pytest.raises(ValueError, match="expected a month"):
        month_of_partition(key)


def test_by_default_there_are_the_first_six_months_of_2015(tmp_path: Path) -> None:
    keys = months_of(world_settings(tmp_path)).get_partition_keys()
    assert (keys[0], keys[-1]) == ("2015-01-01", "2015-06-01")


def test_without_a_last_month_every_past_month_is_one(tmp_path: Path) -> None:
    found = months_of(world_settings(tmp_path, last_month=""))
    assert found.end is None
    assert {"2015-07-01", "2025-12-01"} <= set(found.get_partition_keys())


@pytest.mark.parametrize("last_month", ["", "2099-12"])
def test_so_is_the_present_one_whose_rides_are_paid_and_it_is_run_once_it_is_over(
    tmp_path: Path, last_month: str
) -> None:
    settings, present = world_settings(tmp_path, last_month=last_month), parse_month(f"{datetime.now(UTC):%Y-%m}")
    assert months_of(settings).get_last_partition_key() == partition_key(present)
    publisher = Publisher(make_source(settings), (JANUARY, present - 1, present))
    for month in publisher.out:
        publisher.restate(month, "what is out of it")
    assert list(covered_months(publisher, settings)) == [JANUARY, present - 1]
