"""The calendar names what production has not learned before rides are paid under it, and nothing else."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.gate.staleness import Baseline
from taxifare.monitoring.calendar import LOOKS_AHEAD, Calendar, Expectation, Observed, fault_of, unlearned_rules
from taxifare.trips.features import feature_names
from taxifare.trips.months import parse_month
from tests.support.cities import NEW_YORK

RISE = date(2012, 9, 4)


@dataclass(frozen=True)
class Until:
    """What was learned, to its last pickup."""

    last_pickup: datetime


def named(learned: datetime, today: date, features: tuple[str, ...] | None = None) -> list[str]:
    return [one.rule.name for one in unlearned_rules(NEW_YORK, [Until(learned)], today, features)]


def test_the_fare_rise_is_named_two_weeks_before_its_day_and_until_it_is_learned() -> None:
    august = datetime(2012, 8, 31, 23, 59)
    assert named(august, RISE - LOOKS_AHEAD - timedelta(days=1)) == []
    assert named(august, RISE - LOOKS_AHEAD) == ["fares_2012_09"]
    assert named(august, RISE + timedelta(days=100)) == ["fares_2012_09"]
    assert named(datetime(2012, 9, 4, 0, 1), RISE + timedelta(days=100)) == []


def test_it_says_how_many_days_are_left_and_what_is_missing() -> None:
    (rule,) = unlearned_rules(NEW_YORK, [Until(datetime(2012, 8, 31))], date(2012, 8, 30))
    assert str(rule).startswith("fares_2012_09, in 5 days, on 2012-09-04: 0.40 to 0.50 USD a unit")
    assert str(rule).endswith("learned until 2012-08-31")
    assert rule.is_news
    (years_ago,) = unlearned_rules(NEW_YORK, [Until(datetime(2015, 3, 21))], date(2026, 1, 1))
    assert not years_ago.is_news


def test_a_rule_that_is_none_of_the_features_is_not_learned_however_late_the_rides_were() -> None:
    features = tuple(name for name in feature_names(NEW_YORK) if name != "tolls_2013_03")
    assert named(datetime(2013, 6, 30), date(2013, 7, 1), features) == ["tolls_2013_03"]


def test_people_read_the_same_each_day_and_of_a_missing_feature_no_more_than_that() -> None:
    """The way out – wait for rides under the rule – is that of a model which has seen none."""
    expected = Expectation(Baseline(mae=1.5, difficulty_mae=3.0), 3.4, "2012-08")

    def on(today: date, learned: datetime, features: tuple[str, ...] | None = None) -> Calendar:
        return Calendar("7", today, unlearned_rules(NEW_YORK, [Until(learned)], today, features), expected)

    before, later = (on(RISE - timedelta(days=days), datetime(2012, 8, 20)) for days in (9, 8))
    assert before.state == later.state
    assert before.told("USD") != later.told("USD")
    assert "Error to expect" in before.told("USD")
    (rule,) = before.unlearned
    assert "Version 7, which prices rides, was trained before it" in fault_of(rule, before, "USD", "page").lines
    features = tuple(name for name in feature_names(NEW_YORK) if name != "fares_2012_09")
    lacking = on(RISE + timedelta(days=9), datetime(2012, 9, 10), features)
    assert lacking.state != before.state
    (rule,) = lacking.unlearned
    lines = " ".join(fault_of(rule, lacking, "USD", "page").lines)
    assert "it is none of its features" in lines
    for untrue in ("trained before", "nothing can be learned before", "Error to expect"):
        assert untrue not in lines + lacking.told("USD")


@given(
    learned=st.datetimes(datetime(2010, 1, 1), datetime(2016, 1, 1)),
    today=st.dates(date(2010, 1, 1), date(2016, 1, 1)),
    later=st.integers(0, 400),
)
def test_time_only_adds_rules_and_learning_only_takes_them_away(learned: datetime, today: date, later: int) -> None:
    now = set(named(learned, today))
    assert now <= set(named(learned, today + timedelta(days=later)))
    assert now >= set(named(learned + timedelta(days=later), today))


def test_the_error_to_expect_keeps_the_skill_and_says_that_it_is_blind_to_rules() -> None:
    expected = Expectation(Baseline(mae=1.5, difficulty_mae=3.0), 3.4, "2012-08")
    assert expected.mae == pytest.approx(1.7)
    assert expected.told("USD").startswith("1.70 USD a ride at the difficulty of 2012-08 (promised: 1.50)")
    assert "does not account for rules" in expected.told("USD")


def test_a_rule_is_a_concern_until_a_whole_month_under_it_was_compared_and_its_cost_is_known() -> None:
    """Bridge tolls rose on 22 March 2015: all of March is not under it, all of April is."""
    learned, today = [Until(datetime(2015, 2, 23))], date(2026, 1, 1)

    def on(month: str, *, is_stale: bool | None = False) -> Calendar:
        seen = Observed(parse_month(month), mae=1.64, expected=1.61, is_stale=is_stale)
        return Calendar("3", today, unlearned_rules(NEW_YORK, learned, today, observed=seen))

    march, april, stale = on("2015-03"), on("2015-04"), on("2015-04", is_stale=True)
    assert [one.rule.name for one in march.concerns] == ["tolls_2015_03"]
    assert march.told("USD").endswith("no whole month under it has been compared yet")
    assert (april.concerns, len(april.unlearned)) == ((), 1)
    assert april.told("USD").endswith(
        "off by 1.64 USD a ride in 2015-04, where 1.61 was to be expected at its difficulty: not stale there"
    )
    assert len(stale.concerns) == 1
    assert stale.told("USD").endswith(": stale there")
    assert len({march.state, april.state, stale.state}) == 3, "the check is evaluated again"
    few = on("2015-04", is_stale=None)
    assert len(few.concerns) == 1, "what is not known settles nothing"
    assert few.told("USD").endswith("too few rides to tell whether it is stale")


def test_rules_after_the_last_month_that_is_worked_on_are_no_concern_unless_they_are_news() -> None:
    """An archive of 2014 to January 2015 knows of the tolls of March 2015, and will never see a ride under them."""
    learned, january = [Until(datetime(2014, 9, 3))], parse_month("2015-01")

    def on(today: date) -> Calendar:
        return Calendar("1", today, unlearned_rules(NEW_YORK, learned, today, last_month=january))

    years_later, days_before = on(date(2026, 1, 1)), on(date(2015, 3, 15))
    assert (len(years_later.unlearned), years_later.concerns, years_later.news) == (1, (), ())
    assert "it begins after LAST_MONTH, so no month under it is worked on" in years_later.told("USD")
    assert len(days_before.concerns) == len(days_before.news) == 1, "what is in production prices rides all the same"
    march = unlearned_rules(NEW_YORK, learned, date(2026, 1, 1), last_month=parse_month("2015-03"))
    assert march[0].is_concern, "some days of March are under it"


def test_no_message_is_sent_about_a_rule_once_a_month_under_it_was_compared() -> None:
    """A rule of the first of a month may be news while that month is compared: its question says what it came to."""
    learned, today = [Until(datetime(2015, 2, 23))], date(2015, 4, 15)
    before = Calendar("3", today, unlearned_rules(NEW_YORK, learned, today))
    assert [one.rule.name for one in before.news] == ["tolls_2015_03"]
    seen = Observed(parse_month("2015-04"), mae=1.64, expected=None, is_stale=True)
    after = Calendar("3", today, unlearned_rules(NEW_YORK, learned, today, observed=seen))
    assert (after.news, len(after.concerns)) == ((), 1)
    assert after.told("USD").endswith("off by 1.64 USD a ride in 2015-04: stale there")
