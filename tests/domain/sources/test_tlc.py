"""The Taxi and Limousine Commission's files: places from zones, what is left out, what is drawn, what is told."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxifare.gate.scores import reference_mae, score
from taxifare.sources.base import CannotTellError, MonthNotPublishedError, NoBaseError, SourceError
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.tlc import Tlc, Zones, read_trips
from taxifare.sources.web import Web, WebError
from taxifare.training.from_random_weights import fit_from_scratch, predict_trips
from taxifare.trips import stored
from taxifare.trips.cleaning import clean
from taxifare.trips.features import compute_features, haversine_km
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess, split_month
from taxifare.trips.publication import LargePublication, Publication
from taxifare.trips.targets import DURATION, FARE
from tests.support.cities import NEW_YORK
from tests.support.places import DATA
from tests.support.publisher import ZONES, Publisher, publisher_server, tlc_files, tlc_month, zones_zip
from tests.support.small import small_settings

REAL = DATA / "tlc"

MARCH = parse_month("2024-03")
CITY = Simulator(
    seed=5,
    trips_per_month=400,
    base_trips=400,
    first_month=parse_month("2024-02"),
    last_month=parse_month("2024-04"),
    scenario="as-it-was",
    scenario_from=MARCH,
)
TRIPS = CITY.read_month(MARCH).trips
FILES = tlc_files({month: CITY.read_month(month).trips for month in CITY.months()})
MARCH_FILE = "trip-data/green_tripdata_2024-03.parquet"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server(dict(FILES)) as running:
        running.absent_status = 403
        yield running


@pytest.fixture
def commission(publisher: Publisher, tmp_path: Path) -> Tlc:
    return Tlc(
        web=Web(tmp_path, first_pause_s=0.001, believed_s=0),
        url=publisher.url,
        color="green",
        trips_per_month=100_000,
        base_months=1,
        first_month=MARCH,
        last_month=None,
        now=lambda: pd.Timestamp("2024-06-20"),
    )


def changed(**columns: Any) -> bytes:
    """March with other columns, as the commission might publish it."""
    return tlc_month(TRIPS, "green", **columns)


def without(*columns: str) -> bytes:
    """March without some columns."""
    content = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(FILES[MARCH_FILE])).drop(list(columns)), content)
    return content.getvalue()


def row_numbers(trips: pd.DataFrame) -> list[int]:
    return [int(key.rpartition("-")[2]) for key in trips["key"]]


# Places


def test_a_ride_is_placed_at_the_centroids_of_its_zones(commission: Tlc) -> None:
    march = commission.read_month(MARCH).trips
    rows = np.array(row_numbers(march))
    numbers = list(ZONES)
    for end, index in (("pickup", rows % 4), ("dropoff", rows // 4 % 4)):
        longitude, latitude = np.array([ZONES[numbers[at]] for at in index]).T
        away_km = haversine_km(march[f"{end}_longitude"], march[f"{end}_latitude"], longitude, latitude)
        assert away_km.max() < 0.001


def test_zones_in_degrees_are_refused(commission: Tlc, publisher: Publisher) -> None:
    """Their centroids would be off by the latitude's share."""
    publisher.files["misc/taxi_zones.zip"] = zones_zip(epsg=4326)
    with pytest.raises(
        SourceError, match=r"taxi_zones\.zip: expected zones in a projection.*received 4 zones in WGS 84"
    ):
        commission.read_month(MARCH)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and then nothing",
        zones_zip(lacks="prj"),
        zones_zip(lacks="dbf"),
        zones_zip(column="ZoneID"),
    ],
)
def test_what_are_no_zones_is_told(commission: Tlc, publisher: Publisher, content: bytes) -> None:
    publisher.files["misc/taxi_zones.zip"] = content
    with pytest.raises(SourceError, match=r"misc/taxi_zones\.zip: expected a zip of the taxi zones' shapefile"):
        commission.read_month(MARCH)


def test_moved_zones_restate_every_month(commission: Tlc, publisher: Publisher) -> None:
    before, march = commission.months(), commission.read_month(MARCH)
    publisher.files["misc/taxi_zones.zip"] = zones_zip(shift_ft=300)
    after = commission.read_month(MARCH)
    assert all(revision != before[month] for month, revision in commission.months().items())
    assert not np.allclose(after.trips["pickup_longitude"], march.trips["pickup_longitude"], rtol=0, atol=1e-4)


# What is left out, and what stays


def test_rides_of_other_months_and_of_nowhere_are_left_out_and_counted(commission: Tlc, publisher: Publisher) -> None:
    pickups, zones = TRIPS["pickup_datetime"].copy(), np.full(len(TRIPS), 2, dtype=np.int32)
    pickups.iloc[[0, 1, 2]] = pd.to_datetime(["2008-12-31 23:00:00", "2024-02-29 23:59:59", "2024-04-01 00:00:00"])
    pickups.iloc[3] = pd.Timestamp("2024-03-01 00:00:00")
    zones[[2, 5, 6, 7]] = [264, 264, 265, -1]
    publisher.files[MARCH_FILE] = changed(lpep_pickup_datetime=pickups, DOLocationID=zones)
    march = commission.read_month(MARCH)
    assert march.dropped == {"outside_month": 3, "unknown_zone": 3, "not_drawn": 0}
    assert len(march.trips) == len(TRIPS) - 6
    assert sorted(set(range(len(TRIPS))) - set(row_numbers(march.trips))) == [0, 1, 2, 5, 6, 7]


def test_nulls_are_what_they_are(commission: Tlc, publisher: Publisher) -> None:
    """No passengers counted is not one passenger; no zone is an unknown one; no time is no time of the month."""

    def gap(values: Any, *rows: int) -> pd.Series:
        return pd.Series(values).mask(np.isin(np.arange(len(TRIPS)), rows))

    publisher.files[MARCH_FILE] = changed(
        passenger_count=gap(TRIPS["passenger_count"].astype("Int64"), 0, 1),
        fare_amount=gap(TRIPS["fare_amount"], 2),
        tolls_amount=gap(np.zeros(len(TRIPS)), 3),
        PULocationID=gap(np.full(len(TRIPS), 2), 4).astype("Int64"),
        lpep_pickup_datetime=gap(TRIPS["pickup_datetime"], 5),
        lpep_dropoff_datetime=gap(TRIPS["dropoff_datetime"], 6),
    )
    march = commission.read_month(MARCH)
    trips = march.trips.set_index(pd.Index(row_numbers(march.trips))).sort_index()
    assert trips.index[trips["passenger_count"].isna()].tolist() == [0, 1]
    assert trips.index[trips["fare_amount"].isna()].tolist() == [2, 3]
    assert trips.index[trips["dropoff_datetime"].isna()].tolist() == [6]
    assert march.dropped == {"outside_month": 1, "unknown_zone": 1, "not_drawn": 0}


def test_the_fare_is_meter_and_tolls(commission: Tlc) -> None:
    march = commission.read_month(MARCH).trips
    rows = np.array(row_numbers(march))
    expected = TRIPS["fare_amount"].to_numpy()[rows] + np.where(rows % 10, 0.0, 5.54)
    np.testing.assert_allclose(march["fare_amount"], expected, atol=1e-9)


def test_rides_between_the_same_zones_are_not_duplicates(commission: Tlc) -> None:
    """Thousands of rides share their places to the last digit; times tell them apart."""
    march = commission.read_month(MARCH).trips
    assert clean(march, NEW_YORK, FARE).dropped["duplicate"] == 0
    within = march[(march["pickup_longitude"] == march["dropoff_longitude"])]
    assert len(within) > 50
    assert compute_features(within, NEW_YORK).notna().all(axis=None)


# What is drawn


def test_of_a_large_month_always_the_same_rides_are_drawn(commission: Tlc, publisher: Publisher) -> None:
    whole = commission.read_month(MARCH).trips
    drawn, again = (replace(commission, trips_per_month=150).read_month(MARCH) for _ in range(2))
    pd.testing.assert_frame_equal(drawn.trips, again.trips)
    assert len(drawn.trips) == 150
    assert drawn.dropped["not_drawn"] == len(whole) - 150
    both = whole.merge(drawn.trips, on=list(drawn.trips.columns))
    assert len(both) == 150, "they are rides of the whole, unchanged"


def test_every_ride_has_the_same_chance(tmp_path: Path) -> None:
    """Drawn from many pieces of a file, early and late rides are as many."""
    rows, file = 1_200_000, tmp_path / "large.parquet"
    pickup = np.datetime64("2024-03-01", "us") + np.arange(rows)
    columns = {"lpep_pickup_datetime": pickup, "lpep_dropoff_datetime": pickup, "PULocationID": 1, "DOLocationID": 1}
    numbers = dict.fromkeys(("passenger_count", "fare_amount", "tolls_amount"), 1.0)
    pd.DataFrame(columns | numbers).to_parquet(file, row_group_size=100_000)
    zones = Zones(np.array([np.nan, -73.9]), np.array([np.nan, 40.7]))
    trips, dropped = read_trips(file, MARCH, "green", zones, 10_000, "large")
    assert (len(trips), dropped["not_drawn"]) == (10_000, rows - 10_000)
    per_tenth = np.bincount(np.array(row_numbers(trips)) // (rows // 10), minlength=10)
    assert np.abs(per_tenth - 1_000).max() < 5 * np.sqrt(1_000)
    assert trips["key"].is_monotonic_increasing


def test_a_month_that_is_too_large_for_memory_is_made_by_parts(
    commission: Tlc, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, as `all` asks for: the same rides in the same order as at once, though the file is in none."""
    mixed = pq.read_table(io.BytesIO(FILES[MARCH_FILE]))
    content = io.BytesIO()
    pq.write_table(mixed.take(np.random.default_rng(0).permutation(len(mixed))), content)
    publisher.files[MARCH_FILE] = content.getvalue()
    whole = replace(commission, trips_per_month=None)
    once = whole.open_month(MARCH)
    assert isinstance(once, Publication)
    pd.testing.assert_frame_equal(once.trips, commission.read_month(MARCH).trips)
    monkeypatch.setattr(stored, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(stored, "BATCH_TRIPS", 64)
    large = whole.open_month(MARCH)
    assert isinstance(large, LargePublication)
    parts = list(large.parts())
    assert max(map(len, parts)) == 64
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), once.trips)
    assert (large.dropped, large.revision) == (once.dropped, once.revision)
    for column in ("fare_amount", "dropoff_datetime", "pickup_datetime"):
        assert large.known(column) == once.known(column)
    base = list(replace(whole, first_month=MARCH + 1).read_base().parts)
    pd.testing.assert_frame_equal(pd.concat([part.trips for part in base], ignore_index=True), once.trips)
    assert sum(sum(part.dropped.values()) for part in base) == sum(once.dropped.values())


def test_another_number_to_draw_is_another_revision(commission: Tlc) -> None:
    assert replace(commission, trips_per_month=150).months()[MARCH] != commission.months()[MARCH]


# Which months


def test_months_are_found_by_asking(commission: Tlc, publisher: Publisher) -> None:
    assert [str(month) for month in commission.months()] == ["2024-03", "2024-04"]
    assert "GET" not in publisher.methods()
    asked = sorted({path for _, path, _ in publisher.asked if "trip-data" in path})
    assert asked == [f"/trip-data/green_tripdata_2024-0{number}.parquet" for number in (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("status", [403, 404])
def test_a_recent_month_is_not_published_yet(commission: Tlc, publisher: Publisher, status: int) -> None:
    publisher.absent_status = status
    with pytest.raises(MonthNotPublishedError, match=rf"no month 2024-05, or not yet: .*2024-05\.parquet.*{status}"):
        commission.read_month(parse_month("2024-05"))


def test_a_new_source_waits_for_its_first_month(commission: Tlc, publisher: Publisher) -> None:
    del publisher.files[MARCH_FILE], publisher.files["trip-data/green_tripdata_2024-04.parquet"]
    assert commission.months() == {}


def test_old_months_that_are_all_missing_are_a_wrong_address(commission: Tlc, publisher: Publisher) -> None:
    publisher.files, publisher.absent_status = {"misc/taxi_zones.zip": FILES["misc/taxi_zones.zip"]}, 404
    with pytest.raises(SourceError, match=r"from 2023-12 on, received none: check TLC_URL, TLC_COLOR and FIRST_MONTH"):
        replace(commission, first_month=parse_month("2023-12")).months()
    assert replace(commission, first_month=parse_month("2024-05")).months() == {}


def test_where_everything_is_refused_nothing_is_told(commission: Tlc, publisher: Publisher) -> None:
    publisher.files = {"misc/taxi_zones.zip": FILES["misc/taxi_zones.zip"]}
    with pytest.raises(CannotTellError, match=r"2024-03 .*2024-03\.parquet: expected data, received 403") as doubt:
        commission.months()
    assert doubt.value.before == {}
    for read in (commission.base_revision, commission.read_base):
        with pytest.raises(SourceError, match=r"received of 2024-02: .*received 403") as refused:
            read()
        assert not isinstance(refused.value, NoBaseError)
    publisher.files.clear()
    with pytest.raises(WebError, match=r"taxi_zones\.zip: expected data, received 403"):
        commission.months()


def test_a_server_in_trouble_is_not_a_month_that_is_missing(commission: Tlc, publisher: Publisher) -> None:
    publisher.faults = ["503"] * 999
    with pytest.raises(WebError, match="503"):
        commission.months()


def test_the_base_years_are_the_months_before_the_first(commission: Tlc) -> None:
    base = commission.read_base().whole()
    assert set(base.trips["pickup_datetime"].dt.strftime("%Y-%m")) == {"2024-02"}
    assert base.revision == commission.base_revision()
    later = replace(commission, first_month=parse_month("2024-04"), base_months=2)
    assert set(later.read_base().whole().trips["pickup_datetime"].dt.strftime("%Y-%m")) == {"2024-02", "2024-03"}
    assert later.read_base().whole().trips["key"].is_unique


@pytest.mark.parametrize("status", [403, 404])
def test_base_years_of_which_a_month_is_missing_are_not_no_base(
    commission: Tlc, publisher: Publisher, status: int
) -> None:
    publisher.absent_status = status
    for read in (replace(commission, base_months=2).read_base, replace(commission, base_months=2).base_revision):
        with pytest.raises(SourceError, match=rf"of 2024-01: .*received {status}.*lower TLC_BASE_MONTHS") as refused:
            read()
        assert not isinstance(refused.value, NoBaseError)


def test_where_the_first_month_is_the_first_of_all_there_are_no_base_years(
    commission: Tlc, publisher: Publisher
) -> None:
    del publisher.files["trip-data/green_tripdata_2024-02.parquet"]
    publisher.absent_status = 404
    for read in (commission.read_base, commission.base_revision):
        with pytest.raises(NoBaseError, match=r"no base years of 1 months before 2024-03: none of them is there"):
            read()


def test_months_to_come_are_not_asked_for(commission: Tlc, publisher: Publisher) -> None:
    replace(commission, last_month=parse_month("2031-12")).months()
    assert max(path for _, path, _ in publisher.asked if "trip-data" in path).endswith("2024-06.parquet")


def test_a_login_in_the_address_is_used_and_not_shown(commission: Tlc, publisher: Publisher) -> None:
    private = replace(commission, url=publisher.url.replace("//", "//ada:sesame@"))
    january = private.read_month(MARCH)
    assert "authorization" in publisher.asked[-1][2]
    assert january.origin == f"{publisher.url}/{MARCH_FILE}"
    publisher.files[MARCH_FILE] = b"<html>"
    with pytest.raises(SourceError) as refused:
        private.read_month(MARCH)
    assert "sesame" not in str(refused.value)


def test_a_replaced_file_is_seen(commission: Tlc, publisher: Publisher) -> None:
    before = commission.months()
    publisher.files[MARCH_FILE] = changed(fare_amount=99.0)
    after = commission.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2024-03"]
    assert commission.read_month(MARCH).trips["fare_amount"].min() == 99.0


# What is not right


def test_only_the_columns_that_are_needed_are_read(commission: Tlc, publisher: Publisher) -> None:
    publisher.files[MARCH_FILE] = changed(trip_distance="far", VendorID=b"\xff", congestion_surcharge=2.5)
    assert len(commission.read_month(MARCH).trips) == len(TRIPS)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<html>Sign in</html>", "expected trips, received a web page with status 200"),
        (FILES[MARCH_FILE][:-100], "expected taxi trips in parquet, received something else"),
        (
            FILES[MARCH_FILE][:1000] + bytes(800) + FILES[MARCH_FILE][1800:],
            "month 2024-03: expected taxi trips in parquet",
        ),
        (without("PULocationID", "DOLocationID"), "missing columns PULocationID, DOLocationID; received VendorID"),
        (tlc_month(TRIPS, "yellow"), "missing columns lpep_pickup_datetime, lpep_dropoff_datetime"),
        (tlc_month(TRIPS[:0]), "month 2024-03: expected taxi trips, received no rows"),
        (
            tlc_month(CITY.read_month(MARCH + 1).trips),
            "month 2024-03: expected trips, received no rows; left out were outside_month 412",
        ),
        (
            tlc_month(TRIPS, PULocationID=264),
            f"month 2024-03: expected trips, received no rows; left out were unknown_zone {len(TRIPS)}",
        ),
        (changed(fare_amount="eleven"), "month 2024-03: column fare_amount: expected double, received string: Failed"),
        (changed(passenger_count=1.5), "column passenger_count: expected integer, received 1.5"),
    ],
    ids=[
        "page",
        "truncated",
        "damaged",
        "no zones",
        "other color",
        "no rows",
        "another month",
        "nowhere",
        "text",
        "half a passenger",
    ],
)
def test_what_is_no_month_of_taxi_trips_is_told(
    commission: Tlc, publisher: Publisher, content: bytes, told: str
) -> None:
    publisher.files[MARCH_FILE] = content
    with pytest.raises(SourceError) as refused:
        commission.read_month(MARCH)
    assert str(refused.value).startswith(f"{publisher.url}/{MARCH_FILE}: ")
    assert told in str(refused.value)


# The real ones


@pytest.fixture
def real(publisher: Publisher, commission: Tlc) -> Tlc:
    """The commission with its real files of two months."""
    if not REAL.is_dir():
        pytest.skip("the real trips are not here: expected ../shared/data/tlc beside the repository")
    publisher.files = {f"trip-data/{file.name}": file.read_bytes() for file in REAL.glob("*.parquet")}
    publisher.files["misc/taxi_zones.zip"] = (REAL / "taxi_zones.zip").read_bytes()
    return replace(commission, first_month=parse_month("2024-01"))


@pytest.mark.real_trips
def test_a_real_month_of_green_taxis(real: Tlc) -> None:
    january = real.read_month(parse_month("2024-01"))
    assert len(january.trips) == 56_551 - 2 - 643
    assert january.dropped == {"outside_month": 2, "unknown_zone": 643, "not_drawn": 0}
    assert january.trips["passenger_count"].isna().sum() > 3_000
    assert len(clean(january.trips, NEW_YORK, FARE).trips) > 0.98 * len(january.trips)
    assert len(real.read_base().whole().trips) == 64_215 - 4 - 745


@pytest.mark.real_trips
def test_how_long_the_rides_of_a_real_month_took(real: Tlc, tmp_path: Path) -> None:
    """The same features and network say more of the minutes than a constant and a rate per km."""
    settings = small_settings(tmp_path, target="duration", max_epochs=2)
    month = parse_month("2024-01")
    raw = split_month(real.read_month(month), month, 0.2)
    done = preprocess(raw, NEW_YORK, DURATION)
    assert done.dropped["duration"] == 250, "they ended when they began, before, or hours later"
    assert done.dropped["missing_value"] == 0
    training, validation = done.trips.training, done.trips.validation
    network, _ = fit_from_scratch(training, settings)
    found = score(predict_trips(network, validation, settings), validation["target"].to_numpy())
    assert found.mae < 0.85 * reference_mae(training, validation)


@pytest.mark.real_trips
def test_the_real_zones_lie_where_they_should(real: Tlc) -> None:
    zones = Zones.read(REAL / "taxi_zones.zip", "the real zones")
    assert zones.known(np.arange(300)).sum() == 263
    assert zones.known(np.array([0, 57, 103, 104, 105, 264, 265])).tolist() == [False, *[True] * 4, False, False]
    for airport, number in zip(NEW_YORK.airports, (132, 138, 1), strict=True):
        away_km = haversine_km(
            zones.longitude[number], zones.latitude[number], airport.longitude_deg, airport.latitude_deg
        )
        assert away_km < airport.radius_km, f"rides of {airport.code} are seen as such"
    inside = clean(
        pd.DataFrame(
            {
                "key": "x",
                "pickup_datetime": pd.date_range("2024-01-01", periods=263, freq="h"),
                "pickup_longitude": zones.longitude[zones.known(np.arange(264))],
                "pickup_latitude": zones.latitude[zones.known(np.arange(264))],
                "dropoff_longitude": -73.98,
                "dropoff_latitude": 40.75,
                "passenger_count": 1,
                "fare_amount": 10.0,
                "dropoff_datetime": pd.NaT,
            }
        ),
        NEW_YORK,
        FARE,
    )
    assert inside.dropped["outside_city"] == 0, inside.dropped
