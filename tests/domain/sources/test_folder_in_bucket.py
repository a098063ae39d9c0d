"""A folder of trips in a bucket: what holds of one on this machine holds of it, and what refuses is never empty."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from upath import UPath

from taxifare.environment import opened
from taxifare.settings import Settings
from taxifare.sources import CannotTellError, MonthNotPublishedError, NoBaseError, SourceError, make_source
from taxifare.sources.folder import Folder
from taxifare.sources.simulator.source import Simulator
from taxifare.trips.months import parse_month
from tests.support.clouds import FORBIDDEN, STRANGER, THROTTLED, Cloud, Front

JANUARY, FEBRUARY, MARCH = map(parse_month, ("2015-01", "2015-02", "2015-03"))
CITY = Simulator(
    seed=3,
    trips_per_month=60,
    base_trips=80,
    first_month=JANUARY,
    last_month=MARCH,
    scenario="as-it-was",
    scenario_from=MARCH,
)


@pytest.fixture
def here(tmp_path: Path) -> Folder:
    """The folder on this machine; its base years reach into January."""
    trips = tmp_path / "trips"
    trips.mkdir()
    january = CITY.read_month(JANUARY).trips
    base = pd.concat([CITY.read_base().whole().trips, january[:9]])
    base.to_csv(trips / "taxi_base_2009_2014.csv", index=False)
    january.to_csv(trips / "taxi_2015_01.csv", index=False)
    CITY.read_month(FEBRUARY).trips.to_parquet(trips / "taxi_2015_02.parquet", index=False)
    CITY.read_month(MARCH).trips.to_csv(trips / "taxi_2015_03.csv.gz", index=False)
    return Folder(trips, first_month=JANUARY)


@pytest.fixture
def there(here: Folder, front: Front, tmp_path: Path) -> Folder:
    """The same in a bucket."""
    settings = Settings(
        trip_source="folder", trip_folder=f"{front.bucket}/trips", trip_folder_quiet_s=0, taxifare_home=tmp_path
    )
    folder = make_source(settings)
    assert isinstance(folder, Folder)
    for path in here.path.iterdir():
        (folder.path / path.name).write_bytes(path.read_bytes())
    return folder


def fetched(front: Front) -> list[str]:
    """What was read of files since this was asked last, listings left out."""
    asked = [one for one in front.asked if "taxi_2015" in one.partition("?")[0] or "taxi_base" in one.partition("?")[0]]
    front.asked.clear()
    return [
        one for one in asked if one.startswith("GET") and ("/download/" in one or "alt=media" in one or "?" not in one)
    ]


def test_a_bucket_publishes_what_the_folder_does(here: Folder, there: Folder, front: Front) -> None:
    assert there.months() == here.months()
    assert there.rides() == here.rides()
    assert there.base_revision() == here.base_revision()
    assert fetched(front) != []
    for month in (JANUARY, FEBRUARY, MARCH):
        one, other = there.read_month(month), here.read_month(month)
        pd.testing.assert_frame_equal(one.trips, other.trips)
        assert (one.revision, one.origin) == (other.revision, f"{there.path}/{Path(other.origin).name}")
    one_base, other_base = there.read_base().whole(), here.read_base().whole()
    pd.testing.assert_frame_equal(one_base.trips, other_base.trips)
    assert (one_base.revision, one_base.dropped) == (other_base.revision, other_base.dropped)
    assert other_base.dropped == {"not_before_first_month": 9}

    fetched(front)
    another_process = replace(there, quiet_s=0.0)
    from taxifare.sources import places

    places._noted.cache_clear()
    assert another_process.months() == here.months()
    assert another_process.base_revision() == here.base_revision()
    assert all("csv" in one for one in fetched(front)), "no more is read than whether a text ends its last line"
    with pytest.raises(MonthNotPublishedError, match="no file for month 2015-04"):
        there.read_month(parse_month("2015-04"))


def test_a_month_in_a_bucket_waits_while_it_grows_and_is_restated_by_its_content(there: Folder) -> None:
    before = there.months()
    with pytest.raises(CannotTellError, match=r"taxi_2015_01\.csv: changed \d+ s ago .*\(TRIP_FOLDER_QUIET_S\)"):
        replace(there, quiet_s=600).months()
    january, march = there.path / "taxi_2015_01.csv", there.path / "taxi_2015_03.csv.gz"
    march.write_bytes(march.read_bytes())
    assert there.months() == before, "the same content put there again"
    text = january.read_bytes()
    january.write_bytes(text[:-3])
    with pytest.raises(CannotTellError, match="its last line does not end"):
        there.months()
    january.write_bytes(text + text.splitlines(keepends=True)[-1].replace(b"2015", b"x2015", 1))
    after = there.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2015-01"]
    january.write_bytes(text)
    assert there.months() == before


ODD = {
    "TAXI_2015_02.CSV": "in other letters",
    "taxi_2015_02.csv/part-0": "received a folder",
    "taxi_2015_02.\u200bparquet": "a name that cannot be read",
}


def test_an_odd_name_in_a_bucket_is_told(there: Folder) -> None:
    for name, said in ODD.items():
        odd = UPath(there.path.joinpath(*name.split("/")))
        odd.write_bytes(b"x")
        with pytest.raises(CannotTellError, match=said) as told:
            there.months()
        assert list(told.value.before) == [JANUARY]
        odd.unlink()
    (there.path / "taxi_base_more.csv").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"expected one file for the base years"):
        there.base_revision()
    (there.path / "taxi_base_more.csv").unlink()
    (there.path / "taxi_2015_02.parquet").unlink()
    with pytest.raises(CannotTellError, match="2015-03 is, and this is not"):
        there.months()
    (there.path / "taxi_base_2009_2014.csv").unlink()
    with pytest.raises(NoBaseError, match="no file of the base years"):
        there.base_revision()


def test_a_bucket_that_refuses_publishes_no_less_than_it_has(there: Folder, front: Front, cloud: Cloud) -> None:
    asks = (there.months, there.rides, there.base_revision, there.read_base, lambda: there.read_month(FEBRUARY))

    def assert_told(folder: Folder, said: str) -> None:
        for ask in (folder.months, folder.rides, folder.base_revision, lambda: folder.read_month(FEBRUARY)):
            with pytest.raises(SourceError, match=said) as told:
                ask()
            assert not isinstance(told.value, MonthNotPublishedError | NoBaseError)

    for refusal in (FORBIDDEN[cloud], STRANGER[cloud], THROTTLED[cloud]):
        front.refuses = refusal
        assert_told(there, rf"^TRIP_FOLDER: {front.bucket}/trips.*{refusal.status}")
    front.well_again()
    missing = opened("TRIP_FOLDER", f"{front.bucket}-not-made/trips")
    assert_told(replace(there, path=missing), r"TRIP_FOLDER: .*there is no such bucket \(404.*correct TRIP_FOLDER")
    nothing = opened("TRIP_FOLDER", f"{front.bucket}/nothing")
    assert_told(replace(there, path=nothing), "received no file whose name begins so: correct TRIP_FOLDER")
    file = there.path / "taxi_2015_01.csv"
    assert_told(replace(there, path=file), "received no file whose name begins so")
    assert [ask() for ask in asks]

    front.refuses, front.only = FORBIDDEN[cloud], "taxi_2015_02"
    from taxifare.sources import places

    places._noted.cache_clear()
    with pytest.raises(CannotTellError, match=r"2015-02 is published: TRIP_FOLDER: .*403") as told:
        replace(there, notes=there.notes and there.notes / "none").months()
    assert list(told.value.before) == [JANUARY]
