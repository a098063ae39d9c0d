"""Rehearsal: a bounded sample of the past that nothing but the published trips decides."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from taxifare.model.exposure import exposure_of
from taxifare.settings import Settings
from taxifare.sources import SourceError, TripSource, make_source
from taxifare.sources.whole_months import take
from taxifare.training.rehearsal import Past
from taxifare.trips.columns import COLUMN_NAMES, TRIP_COLUMNS
from taxifare.trips.editions import BASE, Edition, Trips
from taxifare.trips.months import Month, parse_month
from taxifare.trips.table import DTYPES, as_trip_table
from tests.support.published import Published
from tests.support.rehearsals import reservoir, sound_months_before
from tests.support.small import raw_month, small_settings

MARCH = parse_month("2015-03")

JANUARY = pd.Timestamp("2015-01-01")


def edition(subject: str, rows: int, *, first: str | None = None, revision: str = "r1") -> Trips:
    """Trips one a minute from the first day of the subject on."""
    trips = as_trip_table(
        pd.DataFrame(
            {
                "key": [f"{subject}-{number}" for number in range(rows)],
                "pickup_datetime": pd.date_range(first or subject, periods=rows, freq="min"),
                "pickup_longitude": -73.98,
                "pickup_latitude": 40.75,
                "dropoff_longitude": -73.95,
                "dropoff_latitude": 40.77,
                "passenger_count": 1,
                "fare_amount": 9.5,
            }
        ),
        subject,
    )
    return Trips(Edition(subject, revision), trips)


YEAR = [edition(f"2014-{month:02}", 40 + month) for month in range(1, 13)]
WHOLE = sum(len(month.frame) for month in YEAR)


def keys(sample: pd.DataFrame) -> set[str]:
    return set(sample["key"])


# The sample


@hypothesis_settings(max_examples=25)
@given(size=st.integers(0, WHOLE + 10), seed=st.integers(0, 2**32))
def test_it_is_bounded_and_holds_everything_that_fits(size: int, seed: int) -> None:
    sample = reservoir(YEAR, size, seed)
    assert len(sample) == min(size, WHOLE)
    assert sample["key"].is_unique
    assert sample["pickup_datetime"].is_monotonic_increasing


@hypothesis_settings(max_examples=25)
@given(order=st.permutations(YEAR), size=st.integers(0, WHOLE), seed=st.integers(0, 1000))
def test_the_order_of_the_editions_does_not_matter(order: list[Trips], size: int, seed: int) -> None:
    pd.testing.assert_frame_equal(reservoir(order, size, seed), reservoir(YEAR, size, seed))


@hypothesis_settings(max_examples=25)
@given(size=st.integers(1, WHOLE), larger=st.integers(0, 300), cut=st.integers(1, 11), seed=st.integers(0, 1000))
def test_a_sample_of_samples_is_the_sample_of_the_whole(size: int, larger: int, cut: int, seed: int) -> None:
    """What is kept of the whole is kept of each part, and in every larger sample: nothing has to be drawn twice."""
    whole = keys(reservoir(YEAR, size, seed))
    assert whole <= keys(reservoir(YEAR[:cut], size, seed)) | keys(reservoir(YEAR[cut:], size, seed))
    assert whole <= keys(reservoir(YEAR, size + larger, seed))


def test_the_same_seed_draws_the_same_trips_and_another_draws_others() -> None:
    sample = reservoir(YEAR, 200, 1)
    pd.testing.assert_frame_equal(reservoir(YEAR, 200, 1), sample)
    assert len(keys(reservoir(YEAR, 200, 2)) & keys(sample)) < 150


def test_trips_keep_their_values_and_say_which_edition_they_are_from() -> None:
    sample = reservoir(YEAR, 300, 1)
    assert list(sample.columns) == [*COLUMN_NAMES, "subject", "revision"]
    assert {name: str(sample[name].dtype) for name in COLUMN_NAMES} == {
        column.name: "string" if column.kind == "text" else DTYPES[column.kind] for column in TRIP_COLUMNS
    }
    assert (sample["subject"] == sample["key"].str[:7]).all()
    assert set(sample["revision"]) == {"r1"}
    original = pd.concat(month.frame for month in YEAR).set_index("key").loc[sample["key"]]
    assert original["pickup_datetime"].tolist() == sample["pickup_datetime"].tolist()


@pytest.mark.parametrize("editions", [[], [edition("2014-01", 10)]])
def test_an_empty_sample_is_a_trip_table_too(editions: list[Trips]) -> None:
    """No base years and no month before the first, or REHEARSAL_TRIPS=0."""
    sample = reservoir(editions, 0, 1)
    assert sample.empty
    assert sample.dtypes.equals(reservoir(YEAR, 1, 1).dtypes)
    assert exposure_of(sample) == ()
    assert sample["pickup_datetime"].dt.year.empty


def test_a_trip_a_year_older_is_half_as_likely_to_be_kept() -> None:
    """Few of many are kept, so that shares are weights: 1, 1/2, 1/4 and 1/8 of 15/8."""
    rows, days = 40_000, ("2011-07-02", "2012-07-01", "2013-07-01", "2014-07-01")
    years = [edition(day, rows, first=day) for day in days]
    shares = reservoir(years, 4_000, 1)["subject"].value_counts(normalize=True)
    for age, day in enumerate(reversed(days)):
        assert shares[day] == pytest.approx(0.5**age / 1.875, abs=0.02), day


def test_within_a_month_every_trip_has_about_the_same_chance() -> None:
    """Thirty days are worth six per cent: 0.486 for the earlier half, 0.514 for the later one."""
    month = edition("2014-07", 43_000)
    places = reservoir([month], 8_000, 1)["key"].str[8:].astype(int)
    assert (places < 21_500).mean() == pytest.approx(0.493, abs=0.02)


def test_a_restated_month_is_drawn_anew_and_the_others_are_not() -> None:
    before, restated = reservoir(YEAR, WHOLE // 2, 1), edition("2014-06", 46, revision="r2")
    after = reservoir([*YEAR[:5], restated, *YEAR[6:]], WHOLE // 2, 1)
    june = {f"2014-06-{number}" for number in range(46)}
    assert keys(before) & june != keys(after) & june
    assert set(after.loc[after["subject"] == "2014-06", "revision"]) == {"r2"}
    # How many stay is given, so where June keeps more or fewer, some others make room or come in; never both.
    others = keys(before) - june, keys(after) - june
    assert others[0] <= others[1] or others[1] <= others[0]
    assert len(others[0] ^ others[1]) == abs(len(keys(before) & june) - len(keys(after) & june))


def test_exposure_has_an_entry_for_each_edition_with_its_span() -> None:
    restated = edition("2014-06", 46, revision="r2")
    entries = exposure_of(reservoir([*YEAR, restated], WHOLE + 46, 1))
    assert {(entry.subject, entry.revision) for entry in entries} == {
        *((f"2014-{month:02}", "r1") for month in range(1, 13)),
        ("2014-06", "r2"),
    }
    june = next(entry for entry in entries if entry.revision == "r2")
    assert (june.first_pickup, june.last_pickup) == (
        restated.frame["pickup_datetime"].min(),
        restated.frame["pickup_datetime"].max(),
    )


# Which trips it is drawn from


@pytest.fixture
def city_settings(tmp_path: Path) -> Settings:
    return small_settings(tmp_path, simulator_trips_per_month=400, first_month="2014-12", rehearsal_trips=500)


@pytest.fixture
def published(city_settings: Settings) -> Published:
    return Published(make_source(city_settings))


def nothing(_month: Month) -> None:
    """A lake without a month."""


def drawn(
    source: TripSource, stored: Callable[[Month], Trips | None], settings: Settings, month: Month = MARCH
) -> pd.DataFrame:
    past = Past(source, lambda: None, stored, settings)
    return past.rehearsed(past.published_before(month))


def as_before(source: TripSource, stored: Callable[[Month], Trips | None], settings: Settings) -> pd.DataFrame:
    """What is rehearsed when no sample is kept."""
    sound = sound_months_before(MARCH, source, stored, settings)
    return reservoir(sound, settings.rehearsal_trips, settings.seed)


def test_months_from_the_first_until_before_this_one_oldest_first(
    published: Published, city_settings: Settings
) -> None:
    found = drawn(published, nothing, city_settings)
    assert published.read == ["2014-12", "2015-01", "2015-02"]
    entries = {entry.subject: entry.revision for entry in exposure_of(found)}
    assert entries == {str(month): revision for month, revision in list(published.months().items())[:3]}
    assert found["fare_amount"].gt(0).all(), "clean"


def test_months_before_the_first_month_are_the_base_years_business(
    published: Published, city_settings: Settings
) -> None:
    later = city_settings.model_copy(update={"first_month": parse_month("2015-02")})
    assert set(drawn(published, nothing, later)["subject"]) == {"2015-02"}
    assert published.read == ["2015-02"]


def test_a_month_that_is_not_whole_is_not_rehearsed_until_somebody_takes_it(
    published: Published, city_settings: Settings
) -> None:
    january = parse_month("2015-01")
    published.restated[january] = ("half", lambda trips: trips[trips["pickup_datetime"] < "2015-01-15"])
    assert set(drawn(published, nothing, city_settings)["subject"]) == {"2014-12", "2015-02"}
    take(published, january, city_settings, city_settings.lake, by="Ada", reason="the publisher has lost the rest")
    assert set(drawn(published, nothing, city_settings)["subject"]) == {"2014-12", "2015-01", "2015-02"}


@pytest.mark.parametrize("run", [(), *combinations(("2014-12", "2015-01", "2015-02"), 1), ("2014-12", "2015-02")])
def test_it_does_not_matter_which_months_have_been_run(
    published: Published, city_settings: Settings, run: tuple[str, ...]
) -> None:
    def stored(month: Month) -> Trips | None:
        return raw_month(city_settings, str(month)) if str(month) in run else None

    expected = as_before(make_source(city_settings), nothing, city_settings)
    pd.testing.assert_frame_equal(drawn(published, stored, city_settings), expected)
    assert set(published.read) == {"2014-12", "2015-01", "2015-02"} - set(run), "what is in the lake is not fetched"


def test_an_outdated_edition_in_the_lake_is_not_rehearsed(published: Published, city_settings: Settings) -> None:
    january = parse_month("2015-01")
    published.restated[january] = ("dearer", lambda trips: trips.assign(fare_amount=trips["fare_amount"] + 1))
    kept = {month: raw_month(city_settings, month) for month in ("2014-12", "2015-01", "2015-02")}
    sample = drawn(published, lambda month: kept[str(month)], city_settings)
    assert published.read == ["2015-01"]
    assert set(sample.loc[sample["subject"] == "2015-01", "revision"]) == {"dearer"}
    pd.testing.assert_frame_equal(sample, as_before(published, nothing, city_settings))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda trips: trips[:99], id="too few trips"),
        pytest.param(lambda trips: trips.assign(key=trips["key"].where(trips.index > 1, "twice")), id="a key twice"),
        pytest.param(lambda trips: trips.assign(pickup_latitude=0.0), id="positions lost"),
        pytest.param(
            lambda trips: trips.assign(pickup_datetime=trips["pickup_datetime"] + pd.Timedelta(days=1)),
            id="trips of another month",
        ),
        pytest.param(
            lambda trips: trips.assign(pickup_datetime=trips["pickup_datetime"].where(trips.index < 0, JANUARY)),
            id="all trips at the same moment",
        ),
    ],
)
def test_a_month_that_its_checks_would_stop_is_left_out(
    published: Published, city_settings: Settings, fault: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    published.restated[parse_month("2015-01")] = ("unsound", fault)
    assert set(drawn(published, nothing, city_settings)["subject"]) == {"2014-12", "2015-02"}


def test_a_source_that_cannot_be_read_is_an_error_not_a_smaller_sample(
    published: Published, city_settings: Settings
) -> None:
    def broken(_trips: pd.DataFrame) -> pd.DataFrame:
        raise SourceError("2015-01: the file ends in the middle")

    published.restated[parse_month("2015-01")] = ("torn", broken)
    with pytest.raises(SourceError, match="ends in the middle"):
        drawn(published, nothing, city_settings)


@pytest.mark.real_trips
def test_real_years_are_drawn_in_seconds_and_the_newest_most(real_trips: Path) -> None:
    base = pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet")
    sample = reservoir([Trips(Edition(BASE, "x"), as_trip_table(base, "base"))], 60_000, 1)
    shares = sample["pickup_datetime"].dt.year.value_counts(normalize=True).sort_index()
    assert shares.is_monotonic_increasing
    assert shares[2014] / 64 < shares[2009] < shares[2014] / 8, "five years are five halvings"
