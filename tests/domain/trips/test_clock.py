"""The city's clock: times with offsets and zones are what it showed, and rides take what they took over its changes."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.trips.clock import Clocked, ClockError, Offsets, offsets_in, on_pickups_clock, wall_clock
from taxifare.trips.table import TripTableError, as_trip_table

NEW_YORK = "America/New_York"

MARCH = ("2015-03-07 12:00:00", "2015-03-09 12:00:00")
"""The clock was put forward between them, on the 8th at two."""


def on_the_wall(times: Any, zone: str = NEW_YORK) -> list[str]:
    return [str(time).replace("T", " ")[:19] for time in wall_clock(times, zone).wall]


@pytest.mark.parametrize(
    "times",
    [
        MARCH,
        ("2015-03-07T12:00:00", "2015-03-09T12:00:00"),
        ("2015-03-07 12:00:00 UTC", "2015-03-09 12:00:00 UTC"),
        ("2015-03-07 12:00:00Z", "2015-03-09 12:00:00Z"),
        ("2015-03-07T12:00:00+00:00", "2015-03-09 12:00:00 UTC"),
        ("2015-03-07 12:00:00-05:00", "2015-03-09 12:00:00-04:00"),
        ("2015-03-07T12:00:00-0500", "2015-03-09T12:00:00-04"),
        ("2015-03-07 12:00:00 -05:00", "2015-03-09 12:00:00 -04:00"),
        ("2015-03-07 12:00:00.000000-05:00", "2015-03-09 12:00-04:00"),
        ("2015-03-07 12:00:00.0000004-05:00", "2015-03-09 12:00:00-04:00"),
        ("2015-03-07 12:00:00-05:00", "2015-03-09 11:00:00-05:00"),
        ("2015-03-07 12:00:00-05:00", "2015-03-09T16:00:00Z"),
        ("2015-03-07 17:00:00 UTC", "2015-03-09 12:00:00-04:00"),
        ("2015-03-07 12:00:00", "2015-03-09 12:00:00-04:00"),
        ("2015-03-07 18:00:00+01:00", "2015-03-09 21:45:00+05:45"),
        ("20150307T120000-0500", "20150309T160000Z"),
        ("20150307T120000Z", "20150309T120000 UTC"),
        ("2015-03-07T120000-05:00", "2015-03-09T12-04:00"),
        ("2015-03-07 12:00:00,000-05:00", "2015-03-09 12:00:00 +0000 UTC".replace("12", "16")),
    ],
    ids=" and ".join,
)
@pytest.mark.parametrize("holder", [list, pa.array, lambda times: pd.Series(times, dtype="category")])
def test_text_says_what_the_clock_in_the_city_showed(times: tuple[str, str], holder: Any) -> None:
    """Without an offset it is the clock's own time, and so it is where all is called UTC, as Kaggle does."""
    held = holder(list(times))
    assert on_the_wall(pd.Series(held) if isinstance(held, list) else held) == list(MARCH)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Etc/UTC", "America/New_York", "America/Chicago", "Asia/Kathmandu"])
def test_typed_times_say_what_the_clock_in_the_city_showed(zone: str | None, unit: str) -> None:
    shown = pd.Series(pd.DatetimeIndex(MARCH).as_unit(unit))
    if zone in {"UTC", "Etc/UTC"}:
        shown = shown.dt.tz_localize(zone)
    elif zone is not None:
        shown = shown.dt.tz_localize(NEW_YORK).dt.tz_convert(zone)
    for held in (shown, pa.array(shown), pa.chunked_array([pa.array(shown)])):
        assert on_the_wall(held) == list(MARCH)


def test_another_city_has_another_clock() -> None:
    assert on_the_wall(pa.array(["2015-03-07 12:00:00-05:00", "2015-03-09T16:00:00Z"]), "America/Chicago") == [
        "2015-03-07 11:00:00",
        "2015-03-09 11:00:00",
    ]


@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(2009, 1, 1), datetime(2026, 1, 1)),
            st.integers(-12 * 60, 14 * 60).filter(bool),
            st.sampled_from(["T", " "]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_same_instants_in_any_offset_are_the_same_times(told: list[tuple[datetime, int, str]]) -> None:
    texts, city = [], ZoneInfo(NEW_YORK)
    for instant, offset_min, separator in told:
        local = instant + timedelta(minutes=offset_min)
        sign, (hours, minutes) = "-" if offset_min < 0 else "+", divmod(abs(offset_min), 60)
        texts.append(f"{local.isoformat(separator)}{sign}{hours:02d}:{minutes:02d}")
    clocked = wall_clock(pa.array(texts), NEW_YORK)
    in_city = [instant.replace(tzinfo=UTC).astimezone(city).replace(tzinfo=None) for instant, _, _ in told]
    assert clocked.wall.tolist() == in_city
    assert clocked.instants is not None
    assert clocked.instants.tolist() == [instant for instant, _, _ in told]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["2015-03-07 12:00", "2015-03-07"], "expected times of day, received the date '2015-03-07' (the first of 1"),
        (["2015-03-07 UTC", None], "expected times of day, received the date '2015-03-07 UTC'"),
        ([date(2015, 3, 7)], "expected times of day, received the date '2015-03-07'"),
        ([20150307, 20150308], "expected times of day, received the date '20150307' (the first of 2"),
        (["2015-03-07 12:00", "soon", "later"], "expected timestamp, received 'soon' (the first of 2"),
        (["2015-03-07 12:00-05:00", "2015-03-07 12:00 EST"], "expected timestamp, received '2015-03-07 12:00 EST'"),
        (["2015-03-07 12:00-05:00", "2015-02-30 12:00-05:00"], "expected timestamp, received '2015-02-30 12:00-05:00'"),
        (["2015-03-07 12:00-05:00", "2015-03-07 12:00+25:00"], "expected timestamp, received '2015-03-07 12:00+25:00'"),
        (["2015-03-07Z", "2015-03-08Z"], "received '2015-03-07Z'"),
        (["2015-03-07 12:00:00-05:00:00"] * 2, "expected timestamp, received '2015-03-07 12:00:00-05:00:00'"),
        ([1425747600], "expected timestamp, received '1425747600'"),
    ],
    ids=str,
)
def test_what_is_no_time_of_day_is_refused(times: list[Any], told: str) -> None:
    with pytest.raises(ClockError) as refusal:
        wall_clock(pd.Series(times), NEW_YORK)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "wrong", ["2015-13-45 12:00:00-05:00", "2015-02-30 12:00-05:00", "noon 12:00", "n/a 00:00", "", None]
)
def test_what_is_no_time_says_nothing_of_what_the_others_mean(wrong: str | None) -> None:
    """Four cells with an impossible date and an offset moved 396 rides by hours; four of "noon 12:00" refused them."""
    assert offsets_in(pa.array(["2015-03-07 12:00:00Z", wrong]), NEW_YORK) == Offsets(utc=1)


def clocks(pickups: Any, dropoffs: Any = None, zone: str = NEW_YORK) -> list[str]:
    """All times of a table of such rides, pickups first."""
    trips = as_trip_table(rides(pickups, dropoffs), "trips.csv", time_zone=zone)
    return [f"{time:%m-%d %H:%M}" for name in ("pickup_datetime", "dropoff_datetime") for time in trips[name].dropna()]


@pytest.mark.parametrize(
    ("pickups", "dropoffs", "said"),
    [
        (
            ["20150307T120000Z", "2015-03-07 12:00"],
            None,
            "pickup_datetime: expected times .* received 1 in UTC and 1 w",
        ),
        (
            ["2015-03-07 12:00", "2015-03-07 13:00"],
            ["2015-03-07T17:20:00Z", "2015-03-07T18:20:00Z"],
            "trips.csv: pickup_datetime and dropoff_datetime: expected times .* received 2 in UTC and 2 without one",
        ),
    ],
    ids=["of pickups", "of pickups and drop-offs"],
)
def test_times_of_which_some_say_utc_and_the_rest_nothing_are_refused(pickups: Any, dropoffs: Any, said: str) -> None:
    """Rides that began by the city's clock and ended in UTC took five hours, and were called "in seconds"."""
    with pytest.raises(TripTableError, match=said):
        as_trip_table(rides(pickups, dropoffs), "trips.csv", time_zone=NEW_YORK)


@pytest.mark.parametrize("as_column", [list, lambda times: pd.to_datetime(pd.Series(times))], ids=["text", "typed"])
def test_an_offset_in_one_column_says_that_utc_is_meant_in_the_other(as_column: Any) -> None:
    pickups, dropoffs = as_column(["2015-03-07T17:00:00Z"]), as_column(["2015-03-07T12:20:00-05:00"])
    assert clocks(pickups, dropoffs) == ["03-07 12:00", "03-07 12:20"]
    assert clocks(pickups) == ["03-07 17:00"]


@pytest.mark.parametrize("in_utc", ["+00:00", "Z", " UTC"])
def test_utc_is_as_good_as_no_offset_while_the_citys_clock_is_utc(in_utc: str) -> None:
    """A January of London, half with `+00:00`, was refused, and one all in UTC remarked upon for ever."""
    january = [f"2015-01-09 12:00:00{in_utc}", "2015-01-09 13:00:00"]
    assert clocks(january, zone="Europe/London") == ["01-09 12:00", "01-09 13:00"]
    assert offsets_in(pa.array(january), "Europe/London") == Offsets(without=1)
    typed = pa.array(pd.to_datetime(january[:1], utc=True))
    assert offsets_in(typed, "Europe/London") == Offsets()
    with pytest.raises(TripTableError, match="received 1 in UTC and 1 without one"):
        clocks([time.replace("-01-", "-07-") for time in january], zone="Europe/London")


def test_pickups_that_are_midnights_are_dates() -> None:
    """A table of dates becomes one of midnights on its way through a data frame."""
    days = pd.Series(pd.date_range("2015-03-01", periods=31))
    with pytest.raises(TripTableError) as refusal:
        as_trip_table(rides(days), "trips.csv")
    assert "trips.csv: column pickup_datetime: expected times of day, received midnights only (31 of them)" in str(
        refusal.value
    )
    days[30] += pd.Timedelta(seconds=1)
    assert len(as_trip_table(rides(days), "trips.csv")) == 31


def rides(pickups: Any, dropoffs: Any = None) -> pd.DataFrame:
    """Rides as files have them, that begin at these times and end at those."""
    frame = pd.DataFrame({"pickup_datetime": pickups}).assign(
        pickup_longitude=-73.98,
        pickup_latitude=40.75,
        dropoff_longitude=-73.95,
        dropoff_latitude=40.77,
        passenger_count=1,
        fare_amount=9.5,
    )
    return frame if dropoffs is None else frame.assign(dropoff_datetime=dropoffs)


def minutes(pickup: str, dropoff: str, zone: str = NEW_YORK) -> float | None:
    """How long a ride took, as whoever learns durations reads it in the trip table; None where it cannot be told."""
    trips = as_trip_table(rides([pickup], [dropoff]), "trips.csv", time_zone=zone)
    took = (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds()[0] / 60
    return None if np.isnan(took) else float(took)


@pytest.mark.parametrize(
    ("pickup", "dropoff", "took"),
    [
        pytest.param("2024-03-10 01:50", "2024-03-10 03:10", 20, id="forward: an hour is missing"),
        pytest.param("2024-03-09 23:50", "2024-03-10 03:00", 130, id="forward: a long ride"),
        pytest.param("2024-03-10 01:20", "2024-03-10 01:40", 20, id="forward: before"),
        pytest.param("2024-03-10 03:00", "2024-03-10 03:40", 40, id="forward: after"),
        pytest.param("2024-03-10 01:50", "2024-03-10 02:10", None, id="forward: ends when no clock showed it"),
        pytest.param("2024-03-10 02:10", "2024-03-10 03:10", None, id="forward: begins when no clock showed it"),
        pytest.param("2024-11-03 01:50", "2024-11-03 01:10", 20, id="back: ends before it begins, by the clock"),
        pytest.param("2024-11-03 00:50", "2024-11-03 02:10", 140, id="back: over the whole hour"),
        pytest.param("2024-11-03 01:10", "2024-11-03 01:30", None, id="back: 20 minutes or 80"),
        pytest.param("2024-11-03 00:50", "2024-11-03 01:10", None, id="back: 20 minutes, or 80 from before"),
        pytest.param("2024-11-03 01:50", "2024-11-03 02:10", None, id="back: 20 minutes, or 80 to after"),
        pytest.param("2024-11-03 02:00", "2024-11-03 02:40", 40, id="back: after"),
        pytest.param("2024-11-03 00:30", "2024-11-03 00:59", 29, id="back: before"),
        pytest.param("2024-11-03 02:10", "2024-11-03 00:50", -20 - 120, id="back: ends before it begins, by any clock"),
        pytest.param("2024-11-03 01:10-04:00", "2024-11-03 01:30-04:00", 20, id="offsets: 20 minutes"),
        pytest.param("2024-11-03 01:10-04:00", "2024-11-03 01:30-05:00", 80, id="offsets: 80 minutes"),
        pytest.param("2024-11-03 01:10-05:00", "2024-11-03 01:30-05:00", 20, id="offsets: 20 minutes, an hour later"),
        pytest.param("2024-11-03 01:10-05:00", "2024-11-03 01:30", 20, id="one offset leaves one reading"),
        pytest.param("2024-11-03 01:10-04:00", "2024-11-03 01:30", None, id="one offset leaves two readings"),
        pytest.param("2024-03-10 01:50-05:00", "2024-03-10 02:10-05:00", 20, id="offsets: a clock nobody put forward"),
        pytest.param("2024-06-10 01:50", "2024-06-10 03:10", 80, id="any other night"),
        pytest.param("2024-12-31 23:50", "2025-01-01 00:10", 20, id="over the year's end"),
    ],
)
def test_a_ride_took_what_it_took(pickup: str, dropoff: str, took: float | None) -> None:
    """80 minutes and -40 they came to, by the clocks on the wall."""
    assert minutes(pickup, dropoff) == took


def test_the_clock_of_another_city_changes_at_another_time() -> None:
    assert minutes("2024-03-31 01:50", "2024-03-31 03:10", "Europe/Paris") == 20
    assert minutes("2024-03-31 01:50", "2024-03-31 03:10") == 80
    assert minutes("2024-10-27 02:50", "2024-10-27 02:10", "Europe/Paris") == 20


@given(st.datetimes(datetime(2023, 1, 1), datetime(2025, 12, 31)), st.integers(0, 180))
def test_a_ride_with_offsets_takes_the_time_between_its_instants(begin: datetime, took_min: int) -> None:
    city = ZoneInfo(NEW_YORK)
    ends = [moment.replace(tzinfo=UTC).astimezone(city) for moment in (begin, begin + timedelta(minutes=took_min))]
    trips = as_trip_table(rides([ends[0].isoformat()], [ends[1].isoformat()]), "trips.csv", time_zone=NEW_YORK)
    assert trips["pickup_datetime"][0] == ends[0].replace(tzinfo=None)
    assert trips["dropoff_datetime"][0] - trips["pickup_datetime"][0] == timedelta(minutes=took_min)


@given(st.datetimes(datetime(2023, 1, 1), datetime(2025, 12, 31)), st.integers(0, 180))
def test_without_offsets_a_ride_takes_the_time_between_its_instants_or_is_not_told(begin: datetime, took: int) -> None:
    city = ZoneInfo(NEW_YORK)
    ends = [moment.replace(tzinfo=UTC).astimezone(city) for moment in (begin, begin + timedelta(minutes=took))]
    told = minutes(*(end.replace(tzinfo=None).isoformat() for end in ends))
    assert told in {None, took}
    is_in_the_hour = any(end.replace(fold=0).utcoffset() != end.replace(fold=1).utcoffset() for end in ends)
    assert told == took or is_in_the_hour, "only what the repeated hour hides is not told"


def test_times_far_off_are_left_alone() -> None:
    pickups = np.array(["1677-10-01", "2015-01-01", "NaT", "2261-12-31"], "datetime64[us]")
    clocked = Clocked(pickups, None)
    np.testing.assert_array_equal(on_pickups_clock(clocked, clocked, NEW_YORK), pickups)
    none = Clocked(np.array([], "datetime64[us]"), None)
    assert len(on_pickups_clock(none, none, NEW_YORK)) == 0
