"""The track record: months added up since production came in, and where the candidate begins anew."""

import numpy as np
import pytest

from taxifare.gate.gains import Gains, SlicedGains, gains_of
from taxifare.gate.slices import sliced_gains
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from tests.support.cities import NEW_YORK
from tests.support.comparison import PAID, VALIDATION, noise


def gained(usd: float, swing: float = 0.01) -> Gains:
    """Ten days of a hundred rides that gained so much, a little more and less in turn."""
    by_day = usd + swing * np.where(np.arange(10) % 2, 1, -1)
    return gains_of(np.repeat(by_day, 100), np.repeat(np.arange(10), 100))


def month(number: int, usd: float, candidate: str) -> MonthOnRecord:
    gains = SlicedGains(all=gained(usd), slices={"night": gained(2 * usd)})
    return MonthOnRecord(month=f"2015-{number:02d}", revision="r", candidate=candidate, gains=gains)


def test_before_any_month_the_candidate_is_production() -> None:
    record = TrackRecord(production="3")
    assert record.candidate == "3"
    assert record.gains == SlicedGains()


def test_months_add_up_on_all_rides_and_on_each_kind() -> None:
    record = TrackRecord(production="3", months=(month(1, 0.02, "4"), month(2, 0.04, "5")))
    assert record.candidate == "5"
    assert record.gains.all.rides == 2_000
    assert record.gains.all.mean == pytest.approx(0.03)
    assert record.gains.slices["night"].mean == pytest.approx(0.06)
    assert record.gains.all.interval.low > 0


def test_a_candidate_that_is_surely_worse_begins_anew_and_so_do_its_gains() -> None:
    worse = TrackRecord(production="3", months=(month(1, 0.02, "4"), month(2, -0.10, "5")))
    assert worse.gains.all.interval.high < 0
    assert worse.candidate == "3", "it is production that learns the next month"
    anew = worse.followed_by(month(3, 0.03, "6"))
    assert anew.candidate == "6"
    assert [entry.month for entry in anew.since_last_start] == ["2015-03"]
    assert anew.gains.all.mean == pytest.approx(0.03)


def test_a_bad_month_that_is_not_surely_bad_is_gone_on_from() -> None:
    record = TrackRecord(production="3", months=(month(1, 0.02, "4"), month(2, -0.021, "5")))
    assert record.gains.all.interval.high > 0
    assert record.candidate == "5"


def test_the_validation_trips_join_the_month_that_they_are_of() -> None:
    record = TrackRecord(production="3", months=(month(1, 0.02, "4"), month(2, 0.04, "5")))
    whole = record.with_gains(SlicedGains(all=gained(0.04), slices={"rush hour": gained(0.01)}))
    assert [entry.gains.all.rides for entry in whole.months] == [1_000, 2_000]
    assert whole.gains.slices.keys() == {"night", "rush hour"}
    assert whole.gains.all.mean == pytest.approx((0.02 + 0.04 + 0.04) / 3)


def test_a_month_that_is_not_sound_has_no_rides_and_changes_nothing() -> None:
    nothing = MonthOnRecord(month="2015-02", revision="r", candidate="4")
    record = TrackRecord(production="3", months=(month(1, 0.02, "4"), nothing))
    assert record.gains.all == gained(0.02)
    assert record.candidate == "4"


def test_gains_are_of_each_kind_of_trip_that_the_city_has() -> None:
    found = sliced_gains(PAID + noise(3), PAID + noise(1), VALIDATION, NEW_YORK)
    assert found.all.rides == len(PAID)
    assert found.slices["night"].rides == int((VALIDATION["is_night"] > 0).sum())
    assert found.slices["JFK"].rides == 0, "far from any airport"
    assert TrackRecord.model_validate_json(TrackRecord(production="1").model_dump_json()) == TrackRecord(production="1")
