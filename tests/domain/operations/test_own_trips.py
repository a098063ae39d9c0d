"""What the doctor says of trips of one's own before anything was made of them: whether they can be used, or why not.

Each is a file as somebody brings it: column, expected, received and the way out are said, whatever is wrong.
"""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.approval.tokens import KEPT_IN
from taxifare.operations.doctor import Finding, examine
from taxifare.settings import Settings
from taxifare.sources import files
from tests.support.cities import SAINT_DENIS
from tests.support.places import REPOSITORY
from tests.support.saint_denis import trips_between

EARLIER = trips_between("2022-01-01", "2024-02-01", 1_500)
FEBRUARY = trips_between("2024-02-01", "2024-03-01", 1_500)
PLACES = ["pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"]


def settings_of(folder: Path, **changes: object) -> Settings:
    """Settings of Saint-Denis, whose trips are in a folder; there is no state."""
    facts: dict[str, object] = {
        "city": str(SAINT_DENIS),
        "trip_source": "folder",
        "trip_folder": str(folder / "trips"),
        "trip_folder_quiet_s": 0,
        "first_month": "2024-02",
        "last_month": "2024-02",
        "taxifare_home": folder / "state",
    }
    return Settings(_env_file=None, **facts | changes)


def findings(settings: Settings) -> dict[str, Finding]:
    """What the doctor finds, and nothing made by looking."""
    found = {finding.part: finding for finding in examine(settings, lambda _: None)}
    assert not settings.home.exists()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Base years and a month that are well, as CSV."""
    (tmp_path / "trips").mkdir()
    EARLIER.to_csv(tmp_path / "trips" / "taxi_base_2022.csv", index=False)
    FEBRUARY.to_csv(tmp_path / "trips" / "taxi_2024_02.csv", index=False)
    return tmp_path


def test_trips_that_can_be_used_are_said_to_be_before_there_is_any_state(folder: Path) -> None:
    found = findings(settings_of(folder))
    assert [part for part, finding in found.items() if not finding.is_well] == ["state folder"]
    assert re.search(r"2024-02: .*taxi_2024_02\.csv: [\d,]+ of the [\d,]+ trips looked at", found["newest month"].says)
    assert "taxi_base_2022.csv: " in found["base years"].says


Spoil = Callable[[pd.DataFrame], str]


def text(trips: pd.DataFrame, **how: object) -> str:
    return str(trips.to_csv(index=False, **how))


def exchanged(trips: pd.DataFrame, *ends: str) -> pd.DataFrame:
    """The trips, longitude and latitude of these ends exchanged."""
    names = {f"{end}_{one}": f"{end}_{other}" for end in ends for one, other in [("longitude", "latitude")]}
    return trips.rename(columns=names | {theirs: ours for ours, theirs in names.items()})


def exchanged_in(rows: slice, trips: pd.DataFrame) -> pd.DataFrame:
    """The trips, pickup longitude and latitude exchanged in some rows only."""
    other = exchanged(trips, "pickup")[trips.columns]
    return pd.concat([trips.drop(trips.index[rows]), other.iloc[rows]]).sort_index()


UNUSABLE: dict[str, tuple[Spoil, str]] = {
    "names in another language": (
        lambda trips: text(trips.rename(columns={"pickup_longitude": "longitud_pickup"})),
        r"missing columns pickup_longitude; unknown columns longitud_pickup; "
        r"did you mean TRIP_COLUMNS=pickup_longitude=longitud_pickup\?",
    ),
    "names in other letters": (
        lambda trips: text(trips.rename(columns=str.title)),
        r"did you mean TRIP_COLUMNS=pickup_datetime=Pickup_Datetime,",
    ),
    "capitals, of an optional column too": (
        lambda trips: text(trips.assign(key=range(len(trips))).rename(columns=str.upper)),
        r"did you mean TRIP_COLUMNS=key=KEY,pickup_datetime=PICKUP_DATETIME,.*,fare_amount=FARE_AMOUNT\?",
    ),
    "names that are like none": (
        lambda trips: text(trips.set_axis([f"c{n}" for n in range(len(trips.columns))], axis=1)),
        r"if your columns have other names, map them in TRIP_COLUMNS, as in fare_amount=price",
    ),
    "names with blanks around them": (
        lambda trips: text(trips).replace(",", ", ", len(trips.columns) - 1),
        r"unknown columns ' pickup_longitude' \(write without blanks around it\)",
    ),
    "a name that is there twice": (
        lambda trips: text(trips.assign(extra=1.0).rename(columns={"extra": "fare_amount"})),
        r"repeated columns fare_amount",
    ),
    "pickups exchanged": (
        lambda trips: text(exchanged(trips, "pickup")),
        r"pickup longitudes lie in the city's latitudes, .*exchange pickup_longitude and pickup_latitude; "
        r"write TRIP_COLUMNS=pickup_longitude=pickup_latitude,pickup_latitude=pickup_longitude into \.env \(",
    ),
    "drop-offs exchanged": (
        lambda trips: text(exchanged(trips, "dropoff")),
        r"dropoff longitudes lie in the city's latitudes",
    ),
    "both ends exchanged": (
        lambda trips: text(exchanged(trips, "pickup", "dropoff")),
        r"pickup longitudes lie in .*; dropoff longitudes lie in",
    ),
    "pickups exchanged in every third row": (
        lambda trips: text(exchanged_in(slice(None, None, 3), trips)),
        r"in (33\d|500) of 1,\d+ trips only, pickup longitudes lie in the city's latitudes, and pickup latitudes in "
        r"its longitudes: mend these rows in the file; they are dropped; (?!.*exchange)",
    ),
    "south without a sign": (
        lambda trips: text(trips.assign(pickup_latitude=-trips["pickup_latitude"])),
        r"pickup latitudes seem to have lost their sign: south of the equator they are negative",
    ),
    "millionths of degrees": (
        lambda trips: text(trips.assign(**{name: (trips[name] * 1e6).round() for name in PLACES})),
        r"pickup places seem to be degrees times 1,000,000: write degrees",
    ),
    "another city": (
        lambda trips: text(trips.assign(pickup_longitude=2.35, pickup_latitude=48.85)),
        r"1,\d+ of 1,\d+ trips have an end outside the box of CITY=saint-denis \(.*most of these ends lie at",
    ),
    "places that are not known": (
        lambda trips: text(trips.assign(**dict.fromkeys(PLACES, 0.0))),
        r"trips have a coordinate of 0 in columns pickup_longitude, pickup_latitude",
    ),
    "no places": (
        lambda trips: text(trips.assign(pickup_longitude=None)),
        r"trips have no value in column pickup_longitude",
    ),
    "decimal commas": (
        lambda trips: text(trips.assign(fare_amount=trips["fare_amount"].map("{:.2f}".format).str.replace(".", ","))),
        r"column fare_amount: expected number, received '\d+,\d\d' \(the first of 1,\d+ such values\): numbers are "
        r"written as in 12\.5, with a point before decimals",
    ),
    "decimal commas in several columns": (
        lambda trips: text(
            trips.assign(**{name: trips[name].map(str).str.replace(".", ",") for name in (*PLACES, "fare_amount")})
        ),
        r"column pickup_longitude: expected number, received '\d+,\d+' .*written as in 12\.5, [^;]*; nor are values as "
        r"expected in pickup_latitude, dropoff_longitude, dropoff_latitude, fare_amount$",
    ),
    "a currency in every fare": (
        lambda trips: text(trips.assign(fare_amount=trips["fare_amount"].map("{:.2f} €".format))),
        r"column fare_amount: expected number, received '\d+\.\d\d €' .*without a unit",
    ),
    "semicolons": (
        lambda trips: text(trips, sep=";"),
        r"expected fields separated by commas, received the header 'pickup_datetime;pickup_lon.*separated by ';'",
    ),
    "semicolons and decimal commas": (
        lambda trips: text(trips, sep=";", decimal=","),
        r"separated by ';': write it with commas between fields, and points before decimals",
    ),
    "tabs": (lambda trips: text(trips, sep="\t"), r"separated by '\\t'"),
    "an empty file": (lambda _: "", r"expected trips, received an empty file"),
    "a header alone": (lambda trips: text(trips.head(0)), r"expected trips, received no rows"),
    "days before months": (
        lambda trips: text(trips, date_format="%d/%m/%Y %H:%M:%S"),
        r"column pickup_datetime: expected timestamp, received '\d\d/0[12]/202\d .*times are written as in 2015-01-31",
    ),
    "seconds since 1970": (
        lambda trips: text(trips.assign(pickup_datetime=trips["pickup_datetime"].astype("int64") // 10**9)),
        r"column pickup_datetime: expected timestamp, received '1[67]\d{8}'",
    ),
    "dates": (
        lambda trips: text(trips, date_format="%Y-%m-%d"),
        r"column pickup_datetime: expected times of day, received the date",
    ),
    "fares below zero": (
        lambda trips: text(trips.assign(fare_amount=-trips["fare_amount"])),
        r"column fare_amount: expected more than 0 and less than 250 EUR \(highest_fare of CITY=saint-.*, received "
        r"-\d[\d.]* to -\d[\d.]* in .* trips: with the other sign they would be fares",
    ),
    "fares of zero": (
        lambda trips: text(trips.assign(fare_amount=0)),
        r"column fare_amount: expected more than 0 .*received 0 in 1,\d+ of 1,\d+ trips$|received 0 in",
    ),
    "fares in cents": (
        lambda trips: text(trips.assign(fare_amount=(trips["fare_amount"] * 100).round())),
        r"they seem to be in cents: write them in EUR",
    ),
    "no fares": (lambda trips: text(trips.assign(fare_amount=None)), r"column fare_amount: expected values"),
    "more passengers than seats": (
        lambda trips: text(trips.assign(passenger_count=99)),
        r"column passenger_count: expected 1 to 8, or nothing \(max_passengers of CITY=saint-denis .*received 99 in",
    ),
    "one trip over and over": (
        lambda trips: text(trips.head(1).loc[[0] * 1_500]),
        r"trips are equal to an earlier one in everything but key",
    ),
}


@pytest.mark.parametrize("part", ["newest month", "base years"])
@pytest.mark.parametrize("wrong", UNUSABLE)
def test_trips_that_cannot_be_used_are_said_with_column_expected_and_received(
    folder: Path, wrong: str, part: str
) -> None:
    spoil, said = UNUSABLE[wrong]
    name, trips = ("taxi_2024_02.csv", FEBRUARY) if part == "newest month" else ("taxi_base_2022.csv", EARLIER)
    (folder / "trips" / name).write_text(spoil(trips))
    found = findings(settings_of(folder))[part]
    assert not found.is_well, found.says
    assert name in found.says
    assert re.search(said, found.says), found.says


BYTES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "letters of Windows": (
        lambda plain: plain.replace(b"pickup_datetime", "début".encode("latin-1"), 1),
        "taxi_2024_02.csv",
        "expected CSV in UTF-8, received the byte 0xe9",
    ),
    "text of a spreadsheet": (lambda plain: plain.decode().encode("utf-16"), "taxi_2024_02.csv", "received UTF-16"),
    "packed, and cut at once": (lambda plain: gzip.compress(plain)[:200], "taxi_2024_02.csv.gz", "expected gzip"),
    "not packed": (lambda plain: plain, "taxi_2024_02.csv.gz", "expected gzip"),
    "no parquet": (lambda plain: plain, "taxi_2024_02.parquet", "expected parquet"),
    "packed, and cut at its end": (
        lambda plain: gzip.compress(plain + plain.partition(b"\n")[2] * 3)[:-12],
        "taxi_2024_02.csv.gz",
        "expected gzip: Compressed file ended before the end-of-stream marker",
    ),
    "an archive": (lambda _: b"PK\x03\x04" + bytes(99), "taxi_2024_02.csv", "received a zip archive, which"),
    "packed, by no name": (
        gzip.compress,
        "taxi_2024_02.csv",
        "received a gzip file: unpack it, or end its",
    ),
    "decimal commas between commas": (
        lambda plain: re.sub(rb"\.(?=\d+\r?\n)", b",", plain),
        "taxi_2024_02.csv",
        "Expected 7 columns, got 8: ",
    ),
    "a ride of the next month at the end": (
        lambda plain: plain + plain.splitlines(keepends=True)[-1].replace(b"2024-02-", b"2024-03-"),
        "taxi_2024_02.csv",
        "until before 2024-03-01 00:00:00, received 2024-03-",
    ),
    "a year a century ago": (
        lambda plain: plain.replace(b"2024-02-", b"1924-02-"),
        "taxi_2024_02.csv",
        "month 2024-02: column pickup_datetime: expected times from 2024-02-01 00:00:00",
    ),
}


@pytest.mark.parametrize("wrong", BYTES)
def test_files_that_are_no_text_of_trips_are_said(folder: Path, wrong: str) -> None:
    spoil, name, said = BYTES[wrong]
    plain = (folder / "trips" / "taxi_2024_02.csv").read_bytes()
    (folder / "trips" / "taxi_2024_02.csv").unlink()
    (folder / "trips" / name).write_bytes(spoil(plain))
    found = findings(settings_of(folder))
    # What does not even end like a text is found where the months are listed.
    says = found["newest month" if found["trips"].is_well else "trips"]
    assert not says.is_well, says.says
    assert said in says.says


def test_a_month_that_its_checks_would_stop_is_said_with_setting_column_and_a_way_out(folder: Path) -> None:
    file = folder / "trips" / "taxi_2024_02.csv"
    FEBRUARY.iloc[::30].to_csv(file, index=False)
    found = findings(settings_of(folder))["newest month"]
    assert not found.is_well
    assert "expected at least 100 trips in 2024-02 (MINIMUM_TRIPS=100), received 50: add those that" in found.says
    FEBRUARY.assign(ride_id=[f"{ride % 1_400}" for ride in range(1_500)]).to_csv(file, index=False)
    found = findings(settings_of(folder, trip_columns="key=ride_id"))["newest month"]
    assert not found.is_well
    assert (
        "column ride_id (TRIP_COLUMNS: key=ride_id): expected each key once in 2024-02, received 100 trips whose key "
        "an earlier one has: give each a key of its own, or leave the column out"
    ) in found.says


def test_trips_that_are_left_out_are_said_by_the_columns_that_the_file_has(folder: Path) -> None:
    names = {"pickup_longitude": "lon", "passenger_count": "riders", "fare_amount": "price"}
    spoiled = FEBRUARY.assign(
        pickup_longitude=FEBRUARY["pickup_longitude"].where(FEBRUARY.index > 2),
        passenger_count=FEBRUARY["passenger_count"].where(FEBRUARY.index != 10, 99),
        fare_amount=FEBRUARY["fare_amount"].where(FEBRUARY.index != 11, 999),
    )
    of_columns = {"trip_columns": ",".join("=".join(pair) for pair in names.items())}
    spoiled.rename(columns=names).to_csv(folder / "trips" / "taxi_2024_02.csv", index=False)
    found = findings(settings_of(folder, **of_columns))["newest month"]
    assert found.is_well, found.says
    assert re.search(
        r"left out: 3 without a value in column lon \(TRIP_COLUMNS: pickup_longitude=lon\), 1 whose riders "
        r"\(TRIP_COLUMNS: passenger_count=riders\) is not 1 to 8, or nothing \(.*\), 1 whose price \(TRIP_COLUMNS: "
        r"fare_amount=price\) is not more than 0 and less than 250 EUR",
        found.says,
    ), found.says
    FEBRUARY.assign(fare_amount=-1).rename(columns=names).to_csv(folder / "trips" / "taxi_2024_02.csv", index=False)
    found = findings(settings_of(folder, **of_columns))["newest month"]
    assert "column price (TRIP_COLUMNS: fare_amount=price): expected more than 0 and" in found.says


MANY = trips_between("2024-02-01", "2024-03-01", 50_000)


@pytest.mark.parametrize("part", ["newest month", "base years"])
@pytest.mark.parametrize(("kept", "is_well"), [(1_200, True), (1_199, False), (75, False)])
def test_base_years_need_as_large_a_share_of_usable_trips_as_a_month(
    folder: Path, part: str, kept: int, is_well: bool
) -> None:
    """What is wrong in nineteen of twenty rows is wrong with the file, however many trips the twentieth come to."""
    name, trips = ("taxi_2024_02.csv", FEBRUARY) if part == "newest month" else ("taxi_base_2022.csv", EARLIER)
    exchanged_in(slice(kept, None), trips).to_csv(folder / "trips" / name, index=False)
    found = findings(settings_of(folder))[part]
    assert found.is_well is is_well, found.says
    assert "pickup longitudes lie in the city's latitudes" in found.says
    assert ("expected at least 80% of the trips to be such as can be learned from" in found.says) is not is_well


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (
            exchanged_in(slice(-40, None), MANY),
            r"left out: 40 with an end outside the box of CITY=saint-denis \(\S+\); in 40 of 50,000 trips only, pickup "
            r"longitudes lie in the city's latitudes, and pickup latitudes in its longitudes: mend these rows in the "
            r"file; they are dropped$",
        ),
        (
            MANY.assign(
                dropoff_datetime=MANY["pickup_datetime"] + pd.to_timedelta(np.where(MANY.index < 49_990, 9, -9), "min")
            ),
            "in 10 of 50,000 trips dropoff_datetime is before pickup_datetime",
        ),
        (
            MANY.assign(passenger_count=MANY["passenger_count"].where(MANY.index != 49_999, 99)),
            r"left out: 1 whose passenger_count is not 1 to 8, or nothing \(max_passengers of CITY=saint-denis ",
        ),
        (
            MANY.assign(
                pickup_longitude=MANY["pickup_longitude"].where(MANY.index >= 80),
                dropoff_latitude=MANY["dropoff_latitude"].where(MANY.index != 90, 0),
                fare_amount=MANY["fare_amount"].where(MANY.index != 99, -1),
            ),
            r"left out: 80 without a value in column pickup_longitude, 1 with a coordinate of 0 in column "
            r"dropoff_latitude, 1 whose fare_amount is not more than 0 and less than 250 EUR \(highest_fare of CITY=",
        ),
    ],
)
@pytest.mark.parametrize("write", ["csv", "parquet"])
def test_a_few_rows_at_the_end_of_a_month_that_are_wrong_are_counted(
    folder: Path, write: str, spoiled: pd.DataFrame, said: str
) -> None:
    """They leave it a sound month, so nothing else would ever name them."""
    (folder / "trips" / "taxi_2024_02.csv").unlink()
    place = folder / "trips" / f"taxi_2024_02.{write}"
    spoiled.to_csv(place, index=False) if write == "csv" else spoiled.to_parquet(place, index=False)
    found = findings(settings_of(folder))["newest month"]
    assert found.is_well, found.says
    assert "of the 50,000 trips looked at" in found.says
    assert "can be learned from (all of the file)" in found.says
    assert re.search(said, found.says), found.says


def test_of_a_file_too_large_to_look_at_blocks_all_over_it_are_and_how_much_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows and the last among them; the three formats alike."""
    monkeypatch.setattr(files, "_ROWS_OF_A_BLOCK", 2**8)
    spoiled = exchanged_in(slice(-40, None), MANY)
    (folder / "trips" / "taxi_2024_02.csv").unlink()
    for ending in (".csv", ".csv.gz", ".parquet"):
        place = folder / "trips" / f"taxi_2024_02{ending}"
        spoiled.to_parquet(place, index=False) if ending == ".parquet" else spoiled.to_csv(place, index=False)
        found = findings(settings_of(folder))["newest month"]
        assert found.is_well, found.says
        (looked_at,) = re.findall(r"of the ([\d,]+) trips looked at, 2024-02-01 to 2024-02-29", found.says)
        (share,) = re.findall(r"can be learned from \((\d+\.\d)% of the file, in blocks spread over", found.says)
        assert 0.7 < int(looked_at.replace(",", "")) / 50_000 / (float(share) / 100) < 1.3
        assert f"in 40 of {looked_at} trips only, pickup longitudes lie in the city's latitudes" in found.says
        place.unlink()


@pytest.mark.parametrize("file", ["taxi_2024_02.csv", "taxi_base_2022.csv"])
def test_times_without_an_offset_beside_utc_are_said_wherever_in_the_file_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """A single row at its end, which is in no block that was looked at, would make all others doubtful."""
    monkeypatch.setattr(files, "_ROWS_OF_A_BLOCK", 2**5)
    trips = FEBRUARY if file == "taxi_2024_02.csv" else EARLIER
    times = trips["pickup_datetime"].astype(str)
    trips.assign(pickup_datetime=times.where(times.index != len(times) // 2 + 40, times + "Z")).to_csv(
        folder / "trips" / file, index=False
    )
    found = findings(settings_of(folder))["newest month" if file == "taxi_2024_02.csv" else "base years"]
    assert not found.is_well
    assert "all in UTC or all without an offset, received 1 in UTC and 1,499 without one" in found.says


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda times: times + " UTC", "its times say UTC and were taken for the clock of Saint-Denis"),
        (
            lambda times: (times + "+04:00").where(times.index > 0, "2022-01-02T10:00:00Z"),
            "1 time in UTC was converted from it, because 1,499 have another offset",
        ),
        (
            lambda times: (times + "+04:00").where(times.index > 0, times),
            "1 time without an offset was taken for the clock of Saint-Denis, and 1,499 with one were converted",
        ),
    ],
)
def test_how_times_were_taken_is_said_where_they_can_be_taken_in_another_way(
    folder: Path, write: Callable[[pd.Series], pd.Series], said: str
) -> None:
    times = EARLIER["pickup_datetime"].astype(str)
    EARLIER.assign(pickup_datetime=write(times)).to_csv(folder / "trips" / "taxi_base_2022.csv", index=False)
    found = findings(settings_of(folder))["base years"]
    assert found.is_well, found.says
    assert said in found.says


def test_how_times_were_taken_is_said_beside_what_is_wrong_too(folder: Path) -> None:
    in_cents = EARLIER.assign(
        pickup_datetime=EARLIER["pickup_datetime"].astype(str) + " UTC", fare_amount=EARLIER["fare_amount"] * 1_000
    )
    in_cents.to_csv(folder / "trips" / "taxi_base_2022.csv", index=False)
    found = findings(settings_of(folder))["base years"]
    assert not found.is_well
    assert "its times say UTC and were taken for the clock of Saint-Denis" in found.says


def test_a_month_of_which_the_source_cannot_tell_is_said_once(folder: Path) -> None:
    text = folder / "trips" / "taxi_2024_02.csv"
    text.rename(text.with_suffix(".xlsx"))
    found = findings(settings_of(folder))
    assert "taxi_2024_02.xlsx: expected a file with month 2024-02 that ends in .parquet, .csv" in found["trips"].says
    assert (found["newest month"].is_well, found["newest month"].says) == (None, "there is none to look at: see trips")


def test_a_mark_at_the_beginning_of_a_text_is_none_of_its_first_name(folder: Path) -> None:
    file = folder / "trips" / "taxi_2024_02.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert findings(settings_of(folder))["newest month"].is_well


def test_a_name_in_trip_columns_that_no_file_has_is_said_with_the_nearest(folder: Path) -> None:
    found = findings(settings_of(folder, trip_columns="fare_amount=fare_amonut"))
    for part in ("newest month", "base years"):
        assert not found[part].is_well
        assert "expected a column fare_amonut, which TRIP_COLUMNS names for fare_amount" in found[part].says
        assert "(did you mean fare_amount=fare_amount?)" in found[part].says


def test_where_trip_columns_names_one_column_the_others_are_proposed_beside_it(folder: Path) -> None:
    theirs = {"fare_amount": "price", "pickup_longitude": "longitud_pickup", "dropoff_latitude": "Dropoff_Latitude"}
    for file, trips in (("taxi_2024_02.csv", FEBRUARY), ("taxi_base_2022.csv", EARLIER)):
        trips.rename(columns=theirs).to_csv(folder / "trips" / file, index=False)
    found = findings(settings_of(folder, trip_columns="fare_amount=price"))["newest month"]
    assert (
        "missing columns pickup_longitude, dropoff_latitude; columns left out are longitud_pickup, Drop" in found.says
    )
    (line,) = re.findall(r"did you mean TRIP_COLUMNS=(\S+)\?", found.says)
    assert line.startswith("fare_amount=price,")
    assert findings(settings_of(folder, trip_columns=line))["newest month"].is_well
    for file, trips in (("taxi_2024_02.csv", FEBRUARY), ("taxi_base_2022.csv", EARLIER)):
        trips.rename(columns={"pickup_longitude": "lon", "fare_amount": "price"}).to_csv(
            folder / "trips" / file, index=False
        )
    found = findings(settings_of(folder, trip_columns="pickup_longitude=lon"))["newest month"]
    assert "add them, as in TRIP_COLUMNS=pickup_longitude=lon,fare_amount=price (" in found.says, "not a name of ours"


@pytest.mark.parametrize("others", ["", "basis.csv"])
def test_a_folder_without_base_years_is_said_with_the_pattern_and_what_is_there(folder: Path, others: str) -> None:
    base = folder / "trips" / "taxi_base_2022.csv"
    base.rename(base.with_name(others)) if others else base.unlink()
    found = findings(settings_of(folder))["base years"]
    assert not found.is_well
    assert "expected a file named taxi_base_* " in found.says
    assert "(TRIP_FOLDER_BASE=taxi_base_*)" in found.says
    assert ("named otherwise: basis.csv" in found.says) is bool(others)


def test_files_that_are_there_and_not_read_are_named_whatever_else_is_found(folder: Path) -> None:
    assert findings(settings_of(folder))["files not read"].says == "none: every file of trips in TRIP_FOLDER is read"
    FEBRUARY.to_parquet(folder / "trips" / "taxi_2024_02.parquet", index=False)
    FEBRUARY.head(700).to_csv(folder / "trips" / "taxi_2024_02 (1).csv", index=False)
    (folder / "trips" / "taxi_base_2022.csv").unlink()
    found = findings(settings_of(folder))
    assert (found["files not read"].is_well, found["base years"].is_well) == (True, False)
    assert "taxi_2024_02.csv: taxi_2024_02.parquet is read in its place" in found["files not read"].says
    assert "taxi_2024_02 (1).csv named as neither TRIP_FOLDER_MONTHS=" in found["files not read"].says
    missing = findings(settings_of(folder, trip_folder=str(folder / "nowhere")))
    assert (missing["trips"].is_well, missing["files not read"].is_well) == (False, None)


def test_base_years_that_are_all_later_are_said(folder: Path) -> None:
    found = findings(settings_of(folder, first_month="2021-01", last_month="2024-02"))["base years"]
    assert not found.is_well
    assert "expected trips of before FIRST_MONTH=2021-01, received 1,500 later ones, the first of 2022" in found.says


@pytest.mark.parametrize(("first", "last"), [("2015-01", "2015-06"), ("2024-03", "2024-03"), ("2025-01", "")])
def test_months_that_are_not_worked_on_are_no_months(folder: Path, first: str, last: str) -> None:
    found = findings(settings_of(folder, first_month=first, last_month=last))["trips"]
    assert not found.is_well
    assert "published: 1 month, 2024-02; worked on: none, by FIRST_MONTH=" in found.says
    assert f"LAST_MONTH={last}; set them to the months that you have" in found.says


def test_half_a_month_is_found_in_a_text_that_nobody_has_read(folder: Path) -> None:
    (folder / "trips" / "taxi_2024_02.csv").write_text(text(FEBRUARY[FEBRUARY["pickup_datetime"].dt.day <= 14]))
    found = findings(settings_of(folder))["trips"]
    assert not found.is_well
    assert "month 2024-02 is not whole yet: its last ride begins 2024-02-14" in found.says


def test_a_name_in_env_that_is_no_setting_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert findings(settings_of(folder))["settings"].is_well
    (folder / ".env").write_text("TRIP_SORCE=folder\n")
    found = findings(settings_of(folder))["settings"]
    assert not found.is_well
    assert ".env: TRIP_SORCE is no setting of taxifare and has no effect (did you mean TRIP_SOURCE?)" in found.says


def test_a_state_folder_that_is_open_to_others_is_said_to_hold_the_key_only_if_it_does(folder: Path) -> None:
    settings = settings_of(folder)
    settings.home.mkdir(mode=0o755)
    first = next(examine(settings, lambda _: None))
    assert first.part == "state folder"
    assert "will hold, once somebody is asked, the key" in first.says
    (settings.home / KEPT_IN).write_text("of a test, " * 3)
    assert "and holds the key" in next(examine(settings, lambda _: None)).says


@pytest.mark.parametrize("ends", [("pickup",), ("dropoff",), ("pickup", "dropoff")])
@pytest.mark.parametrize("names", [{}, {"pickup_longitude": "from_lon", "fare_amount": "price"}], ids=["ours", "own"])
def test_the_line_that_is_said_to_put_into_env_mends_exchanged_columns(
    folder: Path, names: dict[str, str], ends: tuple[str, ...]
) -> None:
    for name, trips in (("taxi_2024_02.csv", FEBRUARY), ("taxi_base_2022.csv", EARLIER)):
        (folder / "trips" / name).write_text(text(exchanged(trips, *ends).rename(columns=names)))
    columns = ",".join("=".join(pair) for pair in names.items())
    found = findings(settings_of(folder, trip_columns=columns))
    for part in ("newest month", "base years"):
        assert not found[part].is_well
        (line,) = re.findall(r"write TRIP_COLUMNS=(\S+) into \.env", found[part].says)
        assert findings(settings_of(folder, trip_columns=line))[part].is_well


def test_real_trips_in_the_documented_names_can_be_used(real_trips: Path, tmp_path: Path) -> None:
    """TRIP_COLUMNS as docs/your-city.md has it, on New York's real rides in files of a stranger."""
    (written,) = re.findall(r"^TRIP_COLUMNS=(.*)$", (REPOSITORY / "docs" / "your-city.md").read_text(), re.MULTILINE)
    names = dict(pair.split("=") for pair in written.split(","))
    (tmp_path / "trips").mkdir()
    for name, rides in (("taxi_base_2009_2014", 2_000), ("taxi_2015_01", None)):
        trips = pd.read_parquet(real_trips / f"{name}.parquet")[:rides]
        assert set(names) <= set(trips.columns)
        trips.rename(columns=names).assign(shift=1).to_csv(tmp_path / "trips" / f"{name}.csv", index=False)
    months = {"first_month": "2015-01", "last_month": "2015-01"}
    found = findings(settings_of(tmp_path, city="new-york", trip_columns=written, **months))
    assert [part for part, finding in found.items() if not finding.is_well] == ["state folder"]
