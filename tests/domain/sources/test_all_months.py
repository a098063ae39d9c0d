"""All months of a source: the base years cut into months, and revisions that say what was cut."""

import pandas as pd
import pytest

from taxifare.settings import Settings
from taxifare.sources import MonthNotPublishedError, NoBaseError, make_source
from taxifare.sources.all_months import AllMonths
from taxifare.trips.months import parse_month
from tests.support.small import small_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small_settings(tmp_path_factory.mktemp("months"))


@pytest.fixture(scope="module")
def all_months(settings: Settings) -> AllMonths:
    return AllMonths(make_source(settings), parse_month("2014-11"))


def test_the_base_is_cut_into_months(settings: Settings, all_months: AllMonths) -> None:
    source = make_source(settings)
    whole = source.read_base().whole().trips
    parts = [all_months.read_base().whole().trips]
    parts += [all_months.read_month(parse_month(month)).trips for month in ("2014-11", "2014-12")]
    together = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole)
    assert parts[0]["pickup_datetime"].max() < pd.Timestamp("2014-11-01")
    assert set(parts[1]["pickup_datetime"].dt.strftime("%Y-%m")) == {"2014-11"}
    later = parse_month("2015-01")
    pd.testing.assert_frame_equal(all_months.read_month(later).trips, source.read_month(later).trips)


def test_months_that_are_cut_have_revisions(settings: Settings, all_months: AllMonths) -> None:
    source, months = make_source(settings), all_months.months()
    assert next(iter(months)) == parse_month("2014-11")
    assert len(set(months.values())) == len(months)
    assert {month: months[month] for month in source.months()} == source.months()
    assert all_months.base_revision() != source.base_revision()


def test_where_nothing_is_cut_revisions_are_the_sources(settings: Settings) -> None:
    source = make_source(settings)
    same = AllMonths(source, parse_month("2015-01"))
    assert same.base_revision() == source.base_revision() == same.read_base().revision
    assert same.months() == source.months()


def test_published_months_before_the_first_belong_to_the_base(settings: Settings) -> None:
    source = make_source(settings)
    later = AllMonths(source, parse_month("2015-03"))
    trips = later.read_base().whole().trips
    months = [source.read_month(parse_month(month)).trips for month in ("2015-01", "2015-02")]
    assert len(trips) == len(source.read_base().whole().trips) + sum(map(len, months))
    assert min(later.months()) == parse_month("2015-03")
    with pytest.raises(MonthNotPublishedError, match="received 2015-02"):
        later.read_month(parse_month("2015-02"))


def test_the_first_model_needs_trips_to_learn_from(settings: Settings) -> None:
    with pytest.raises(NoBaseError, match="before 2009-01"):
        AllMonths(make_source(settings), parse_month("2009-01")).read_base()
