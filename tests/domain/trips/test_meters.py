"""Quotes at the meter's step: what a customer is shown is a fare that the meter can show."""

import numpy as np
import pandas as pd
import pytest

from taxifare.settings import Settings
from taxifare.trips.city_files import shipped
from taxifare.trips.meters import quoted


@pytest.mark.parametrize(
    ("pickup", "fare_usd", "shown_usd"),
    [
        ("2009-01-01 00:00", 7.60, 7.70),
        ("2012-09-03 23:59", 7.60, 7.70),
        ("2012-09-04 00:00", 7.60, 7.50),
        ("2012-09-04 00:00", 1.00, 2.50),  # the meter begins there
        ("2022-12-19 00:00", 7.60, 7.90),
        ("1999-01-01 00:00", 7.61, 7.61),  # the tariff is not known
    ],
)
def test_a_fare_is_shown_as_the_meter_of_its_date_would(pickup: str, fare_usd: float, shown_usd: float) -> None:
    shown = quoted(np.array([fare_usd]), pd.Series(pd.to_datetime([pickup])), shipped("new-york").meter)
    assert shown == pytest.approx([shown_usd])


def test_what_is_shown_stays_within_half_a_step_and_leaves_predictions_alone() -> None:
    fares = np.linspace(2.5, 60, 999, dtype=np.float32)
    before = fares.copy()
    shown = quoted(fares, pd.Series(pd.to_datetime(["2015-01-01"] * len(fares))), shipped("new-york").meter)
    assert np.abs(shown - fares).max() <= 0.25 + 1e-6
    assert np.array_equal(fares, before)
    assert np.array_equal(
        quoted(shown, pd.Series(pd.to_datetime(["2015-01-01"] * len(fares))), shipped("new-york").meter), shown
    )


def test_only_fares_have_a_meter() -> None:
    assert Settings(_env_file=None, target="fare").meter == shipped("new-york").meter
    assert Settings(_env_file=None, target="duration", trip_source="tlc").meter == ()
