"""Realised error: what quotes came to, against what was promised at the difficulty of the rides really asked for."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from taxifare.approval.comparisons import comparison_of
from taxifare.gate.scores import Interval
from taxifare.monitoring.guards import asked_in_time, clocks_agree, known_versions
from taxifare.monitoring.realised import (
    ALL,
    Promise,
    RealisedMonth,
    errors_by_month,
    promises_of,
    realise,
)
from taxifare.reports import tables
from tests.support.approvals import evidence
from tests.support.cities import NEW_YORK
from tests.support.outcomes import priced_rides

PROMISE = Promise(subject="2015-02", mae=Interval(mean=0.5, low=0.45, high=0.55), difficulty_mae=0.8)


def month_of(outcomes: pd.DataFrame, **promises: Promise) -> RealisedMonth:
    return realise(
        outcomes, "2015-03", {name.removeprefix("v"): one for name, one in promises.items()}, NEW_YORK, "USD"
    )


def test_the_error_is_held_against_the_promise_at_the_difficulty_of_the_rides() -> None:
    found = month_of(priced_rides(3000, days=20), v1=PROMISE)
    assert [(error.name, error.served_as) for error in found.errors] == [(ALL, "production"), ("1", "production")]
    one = found.errors[1]
    assert (one.rides, found.rides, found.share_matched) == (3000, 3000, 1.0)
    assert (one.mae, one.bias) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert one.interval.low < one.mae < one.interval.high
    assert one.expected is not None
    assert one.difficulty_mae is not None
    assert one.expected.mean == pytest.approx(0.5 * one.difficulty_mae / 0.8)
    assert one.is_kept
    worse = priced_rides(3000, days=20).assign(predicted=lambda told: told["predicted"] + 0.3)
    assert month_of(worse, v1=PROMISE).errors[1].is_kept is False
    assert found.errors[0].is_kept is None, "no promise was made of all versions together"
    assert one.model_copy(update={"difficulty_mae": 0.0}).is_kept is None, "nothing was hard"
    assert RealisedMonth.model_validate_json(found.model_dump_json()) == found


def test_weeks_begin_on_mondays_and_slices_are_those_of_the_gate() -> None:
    one = month_of(priced_rides(3000, days=20)).errors[1]
    assert [week.name for week in one.weeks] == ["2015-03-02", "2015-03-09", "2015-03-16"]
    assert sum(week.rides for week in one.weeks) == 3000
    assert {part.name for part in one.slices} <= {"JFK", "LGA", "EWR", "over 10 km", "same point", "night", "rush hour"}
    table = tables.parts(one.weeks, "week from", "USD")
    assert [row[0] for row in table.texts()] == [week.name for week in one.weeks]


def test_what_was_in_shadow_is_held_against_production_on_the_same_rides() -> None:
    given = priced_rides(2000, days=10)
    shadow = given.head(1500).assign(served_as="shadow", version="2", predicted=given["predicted"] - 0.5)
    found = month_of(pd.concat([given, shadow], ignore_index=True))
    assert [(error.name, error.served_as) for error in found.errors] == [
        *((ALL, "production"), ("1", "production"), ("2", "shadow"))
    ]
    (beside,) = found.beside
    assert (beside.production, beside.shadow, beside.rides) == ("1", "2", 1500)
    assert beside.gain.low > 0.3
    table = tables.realised([found], "USD")
    assert [row[1:3] for row in table.texts()] == [("1", "2,000"), ("2 shadow", "1,500")]
    columns = zip([heading.name for heading in table.headings], *table.texts(), strict=True)
    assert sum(max(map(len, column)) + 3 for column in columns) < 110, "all of a row is to be seen"


def test_a_month_without_a_truth_or_without_a_ride_has_no_error() -> None:
    waiting = priced_rides(50).assign(truth=np.nan, reference=np.nan)
    assert month_of(waiting) == RealisedMonth(
        month="2015-03", unit="USD", rides=50, share_matched=0.0, errors=(), beside=()
    )
    assert month_of(waiting.head(0)).share_matched is None
    (_, one) = month_of(priced_rides(2).assign(reference=np.nan)).errors
    assert (one.difficulty_mae, one.skill, one.expected) == (None, None, None)


def test_promises_are_those_of_the_ledgers_comparisons_and_months_are_put_together() -> None:
    asked = evidence("2015-02", "4", "3")
    comparison = comparison_of(asked, datetime(2015, 3, 1))
    promise = promises_of([asked.staging.version, "99"], [comparison], [])[asked.staging.version]
    assert (promise.subject, promise.mae.mean) == (asked.subject, asked.staging.scores.mae)
    assert promise.mae.low < promise.mae.mean < promise.mae.high
    assert promises_of(["99"], [comparison], []) == {}
    months = errors_by_month([comparison], [month_of(priced_rides(500))])
    assert [month.month for month in months] == [asked.subject, "2015-03"]
    assert months[0].staging == asked.staging.scores.mae
    assert months[1].production is None
    assert months[1].realised is not None


def test_versions_that_the_ledger_does_not_know_are_named() -> None:
    told = priced_rides(10)
    unknown = known_versions(told, [], [])
    assert not unknown.is_passed
    assert "version 1 (production, promotion 1): 10 quotes" in unknown.said
    assert known_versions(told.assign(served_as="shadow"), [], ["1"]).is_passed
    assert known_versions(told.head(0), [], []).is_passed


@pytest.mark.parametrize(
    ("asked_at", "is_passed", "said"),
    [
        ("2015-03-02 16:50", True, "10 min before the ride"),
        ("2015-03-02 21:00", False, "rides had begun before"),
        ("2015-03-02 12:50", False, "nobody asks within the hour"),
        ("2026-03-02 12:50", True, "rides of another time"),
    ],
)
def test_clocks_that_are_hours_off_are_told(asked_at: str, is_passed: bool, said: str) -> None:
    told = priced_rides(20, days=1).assign(asked_at=pd.Timestamp(asked_at, tz="UTC"))
    found = asked_in_time(told, "America/New_York")
    assert (found.is_passed, said in found.said) == (is_passed, True), found.said
    nightly = told.assign(bundle=None, asked_at=pd.Timestamp("2015-03-03 06:00", tz="UTC"))
    assert asked_in_time(pd.concat([told, nightly, nightly]), "America/New_York") == found, (
        "files tell nothing of clocks"
    )
    assert asked_in_time(nightly, "America/New_York").is_passed


def test_a_source_by_another_clock_than_its_clients_is_told() -> None:
    told = priced_rides(20)
    for hours, is_passed in ((0, True), (4, False)):
        began_at = told["pickup_datetime"] + pd.Timedelta(hours=hours)
        assert clocks_agree(told.assign(began_at=began_at)).is_passed == is_passed
    assert clocks_agree(told.assign(began_at=pd.NaT)).said == "no ride that was priced is published"
