"""What every source promises, held against each: the simulator, folders written from it, the folder of real trips."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from taxifare.months import bounds, parse_month
from taxifare.settings import Settings
from taxifare.sources import MonthNotPublishedError, TripSource, make_source
from taxifare.sources.folder import Folder
from taxifare.sources.simulator import Simulator
from taxifare.trips import COLUMN_NAMES, as_trip_table

REAL_TRIPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "nyc_kaggle_format"

CITY = Simulator(
    seed=7,
    trips_per_month=500,
    base_trips=1_000,
    first_month=parse_month("2015-01"),
    last_month=parse_month("2015-03"),
    scenario="as-it-was",
    scenario_from=parse_month("2015-03"),
)


@dataclass(frozen=True)
class Case:
    """A source, made anew at each call as another process would, and how its March is restated."""

    make: Callable[[], TripSource]
    restated: Callable[[], TripSource] | None = None


def written(folder: Path, city: Simulator, ending: str) -> Folder:
    """A folder of the simulated trips, in no order."""
    folder.mkdir(exist_ok=True)
    publications = {f"taxi_{month.start_time:%Y_%m}": city.read_month(month) for month in city.months()}
    publications["taxi_base_2009_2014"] = city.read_base()
    for name, publication in publications.items():
        rows, file = publication.trips.sample(frac=1, random_state=1), folder / f"{name}{ending}"
        if ending == ".parquet":
            rows.to_parquet(file, index=False)
        elif ending == ".csv":
            rows.to_csv(file, index=False)
        else:  # gzip notes the time of packing unless told otherwise, and the same rows would be another file
            rows.to_csv(file, index=False, compression={"method": "gzip", "mtime": 0})
    return Folder(folder)


@pytest.fixture(params=["simulator", ".parquet", ".csv", ".csv.gz", pytest.param("real", marks=pytest.mark.real_trips)])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    slower = replace(CITY, scenario="slow-traffic")
    match request.param:
        case "simulator":
            return Case(lambda: replace(CITY), lambda: slower)
        case "real":
            if not REAL_TRIPS.is_dir():
                pytest.skip(f"needs the real trips in {REAL_TRIPS}")
            return Case(lambda: Folder(REAL_TRIPS))
        case ending:
            written(tmp_path / "trips", CITY, ending)
            return Case(
                lambda: Folder(tmp_path / "trips"),
                lambda: written(tmp_path / "trips", slower, ending),
            )


def test_months_are_listed_oldest_first_with_the_revision_that_reading_gives(case: Case) -> None:
    months = case.make().months()
    assert list(months) == sorted(months)
    assert parse_month("2015-01") in months
    for month in list(months)[:3]:
        assert case.make().read_month(month).revision == months[month]


def test_a_month_is_a_trip_table_within_its_bounds(case: Case) -> None:
    source = case.make()
    for month in list(source.months())[:3]:
        publication = source.read_month(month)
        trips = publication.trips
        first, until = bounds(month)
        assert len(trips) > 0
        assert list(trips.columns) == list(COLUMN_NAMES)
        pd.testing.assert_frame_equal(as_trip_table(trips, "again"), trips)
        assert trips["pickup_datetime"].is_monotonic_increasing
        assert trips["pickup_datetime"].min() >= first
        assert trips["pickup_datetime"].max() < until
        assert trips["key"].is_unique
        assert publication.origin


def test_reading_again_reads_the_same(case: Case) -> None:
    month = parse_month("2015-02")
    once, again = case.make().read_month(month), case.make().read_month(month)
    pd.testing.assert_frame_equal(once.trips, again.trips)
    assert (once.revision, once.origin) == (again.revision, again.origin)


def test_a_restated_month_has_a_new_revision_and_the_others_keep_theirs(case: Case) -> None:
    if case.restated is None:
        pytest.skip("real trips are never restated: they are read where they lie")
    source = case.make()
    before, base, march = source.months(), source.base_revision(), source.read_month(parse_month("2015-03"))
    restated = case.restated()
    after = restated.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2015-03"]
    assert restated.base_revision() == base
    assert not restated.read_month(parse_month("2015-03")).trips.equals(march.trips)


def test_the_base_years_are_a_trip_table_of_before(case: Case) -> None:
    source = case.make()
    base = source.read_base()
    assert base.revision == source.base_revision()
    assert list(base.trips.columns) == list(COLUMN_NAMES)
    assert base.trips["pickup_datetime"].is_monotonic_increasing
    assert base.trips["pickup_datetime"].max() < pd.Timestamp("2015-01-01")
    assert base.trips["key"].is_unique


def test_a_month_that_is_not_there_is_not_published(case: Case) -> None:
    with pytest.raises(MonthNotPublishedError, match="month 1999-12"):
        case.make().read_month(parse_month("1999-12"))


def test_the_settings_choose_the_source(tmp_path: Path) -> None:
    simulator = make_source(Settings(simulator_trips_per_month=50, last_month=parse_month("2015-02")))
    assert isinstance(simulator, Simulator)
    assert [str(month) for month in simulator.months()] == ["2015-01", "2015-02"]
    folder = make_source(Settings(trip_source="folder", trip_folder=tmp_path))
    assert folder == Folder(tmp_path, months_pattern="taxi_{month:%Y_%m}.*", base_pattern="taxi_base_*")
