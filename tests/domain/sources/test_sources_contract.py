"""What every source promises, held against each: the simulator, folders and publishers of its trips, real trips."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from pydantic import ValidationError
from upath import UPath

from taxifare.environment import opened
from taxifare.settings import Settings, SourceSettings
from taxifare.sources import (
    CannotTellError,
    MonthNotPublishedError,
    NoBaseError,
    SourceError,
    TripSource,
    chicago,
    make_source,
    web,
)
from taxifare.sources.folder import Folder
from taxifare.sources.simulator.source import Simulator
from taxifare.sources.whole_months import NotWholeError, whole_month
from taxifare.trips.columns import COLUMN_NAMES
from taxifare.trips.months import bounds, parse_month
from taxifare.trips.table import as_trip_table
from tests.support.cities import SAINT_DENIS
from tests.support.clouds import FORBIDDEN, THROTTLED, Cloud, Front
from tests.support.google_cloud import PROJECT, BigQueryServer
from tests.support.places import REAL_TRIPS
from tests.support.publisher import Publisher, lewagon_files, publisher_server, tlc_files
from tests.support.socrata import Portal, from_trip_table, portal_server
from tests.support.socrata import published as published_rows

CITY = Simulator(
    seed=7,
    trips_per_month=500,
    base_trips=1_000,
    first_month=parse_month("2015-01"),
    last_month=parse_month("2015-03"),
    scenario="as-it-was",
    scenario_from=parse_month("2015-03"),
)


TABLE = f"{PROJECT}.taxifare.contract"


@cache
def trips_of(city: Simulator) -> dict[str, pd.DataFrame]:
    """The city's trips of `base` and each month; not to be changed."""
    return {"base": city.read_base().whole().trips} | {str(m): city.read_month(m).trips for m in city.months()}


@dataclass(frozen=True)
class Case:
    """A source, made anew at each call as another process would, and how its March is restated."""

    make: Callable[[], TripSource]
    restated: Callable[[], TripSource] | None = None


def written(folder: Path, city: Simulator, ending: str) -> Folder:
    """A folder of the simulated trips, in no order."""
    folder.mkdir(exist_ok=True)
    for subject, trips in trips_of(city).items():
        name = "taxi_base_2009_2014" if subject == "base" else f"taxi_{subject.replace('-', '_')}"
        rows, file = trips.sample(frac=1, random_state=1), folder / f"{name}{ending}"
        if ending == ".parquet":
            rows.to_parquet(file, index=False)
        elif ending == ".csv":
            rows.to_csv(file, index=False)
        else:  # gzip notes the time of packing unless told otherwise, and the same rows would be another file
            rows.to_csv(file, index=False, compression={"method": "gzip", "mtime": 0})
    return Folder(folder)


@cache
def published(city: Simulator, source: str) -> dict[str, bytes]:
    """The simulated trips as the Le Wagon course or the Taxi and Limousine Commission would publish them."""
    months = {month: city.read_month(month).trips for month in city.months()}
    if source == "lewagon":
        return lewagon_files(
            {month.strftime("%b").lower(): trips for month, trips in months.items()}, trips_of(city)["base"]
        )
    before = replace(city, first_month=parse_month("2014-11")).read_month
    return tlc_files(
        {month: before(month).trips for month in (parse_month("2014-11"), parse_month("2014-12"))} | months
    )


def asked(publisher: Publisher, source: str, downloads: Path) -> TripSource:
    """The source that asks the publisher."""
    settings = Settings(
        trip_source=source,
        lewagon_url=publisher.url,
        tlc_url=publisher.url,
        tlc_color="green",
        tlc_base_months=2,
        tlc_trips_per_month=300,
        dataset_size="1k",
        taxifare_home=downloads,
    )
    return make_source(settings)


def on_portal(portal: Portal, city: Simulator) -> TripSource:
    """The source that asks Chicago's portal, which has the simulated trips from now on."""
    portal.data_sets = {
        "wrvz-psew": pd.concat([from_trip_table(trips, prefix) for prefix, trips in trips_of(city).items()]),
        "ajtu-isnz": published_rows(pd.DataFrame({"trip_id": []})),
    }
    return asked_of_portal(portal)


def asked_of_portal(portal: Portal) -> TripSource:
    return make_source(
        Settings(trip_source="chicago", city="chicago", chicago_url=portal.url, chicago_trips_per_month=400)
    )


def in_bigquery(server: BigQueryServer, city: Simulator) -> TripSource:
    """The source that asks BigQuery, which has the simulated trips from now on: without keys, as the course's table."""
    rows = pd.concat(trips_of(city).values(), ignore_index=True).drop(columns=["key", "dropoff_datetime"])
    rows["pickup_datetime"] = rows["pickup_datetime"].dt.tz_localize("UTC")
    assert server.fill("contract", rows) == TABLE
    return asked_of_bigquery(TABLE)


def asked_of_bigquery(table: str) -> TripSource:
    return make_source(Settings(trip_source="bigquery", bigquery_table=table, dataset_size=600))


@pytest.fixture
def portal() -> Iterator[Portal]:
    with portal_server() as running:
        yield running


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server() as running:
        yield running


@pytest.fixture(
    params=[
        *("simulator", ".parquet", ".csv", ".csv.gz", "lewagon", "tlc", "chicago"),
        pytest.param("bigquery", marks=pytest.mark.end_to_end),
        *(pytest.param(f"real {source}", marks=pytest.mark.real_trips) for source in ("folder", "lewagon")),
    ]
)
def case(request: pytest.FixtureRequest, tmp_path: Path, publisher: Publisher) -> Case:
    slower = replace(CITY, scenario="slow-traffic")

    def restated(source: str) -> TripSource:
        publisher.files = published(slower, source)
        return asked(publisher, source, tmp_path)

    match request.param:
        case "simulator":
            return Case(lambda: replace(CITY), lambda: slower)
        case "lewagon" | "tlc" as source:
            publisher.files = published(CITY, source)
            return Case(lambda: asked(publisher, source, tmp_path), lambda: restated(source))
        case "chicago":
            portal: Portal = request.getfixturevalue("portal")
            on_portal(portal, CITY)
            return Case(lambda: asked_of_portal(portal), lambda: on_portal(portal, slower))
        case "bigquery":
            server: BigQueryServer = request.getfixturevalue("bigquery")
            in_bigquery(server, CITY)
            return Case(lambda: asked_of_bigquery(TABLE), lambda: in_bigquery(server, slower))
        case "real folder" | "real lewagon":
            if not REAL_TRIPS.is_dir():
                pytest.skip(f"needs the real trips in {REAL_TRIPS}")
            folder = Folder(REAL_TRIPS)
            if request.param == "real folder":
                return Case(lambda: folder)
            months = {month.strftime("%b").lower(): folder.read_month(month).trips for month in CITY.months()}
            publisher.files = lewagon_files(months, CITY.read_base().whole().trips)
            return Case(lambda: asked(publisher, "lewagon", tmp_path))
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
        assert case.make().months() == case.make().months(), "real trips are read where they lie, and never restated"
        return
    source = case.make()
    before, base, march = source.months(), source.base_revision(), source.read_month(parse_month("2015-03"))
    restated = case.restated()
    after = restated.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2015-03"]
    assert restated.base_revision() == base
    assert not restated.read_month(parse_month("2015-03")).trips.equals(march.trips)


def test_the_base_years_are_a_trip_table_of_before(case: Case) -> None:
    source = case.make()
    base = source.read_base().whole()
    assert base.revision == source.base_revision()
    assert list(base.trips.columns) == list(COLUMN_NAMES)
    assert base.trips["pickup_datetime"].is_monotonic_increasing
    assert base.trips["pickup_datetime"].max() < pd.Timestamp("2015-01-01")
    assert base.trips["key"].is_unique


def test_a_month_that_is_not_there_is_not_published(case: Case) -> None:
    with pytest.raises(MonthNotPublishedError, match="month 1999-12"):
        case.make().read_month(parse_month("1999-12"))


# What a source that is in trouble may answer: that it cannot tell, and never that there is nothing


@dataclass(frozen=True)
class Troubled:
    """A source that has January to March and base years, and what brings it into trouble.

    Attributes:
        source: As it is set up; it has not been asked yet.
        throttled: Makes it refuse for a moment.
        forbidden: Makes it refuse February, or everything, for good.
        holed: Takes February away.
        partial: Takes a part of the base years away, or what they are under.
        page: Puts a web page in place of February, or of everything; a folder, where nobody serves pages.
        february: Publishes February anew, with these trips.
        all_at_once: Whether it refuses everything where it refuses something.
        cut: What it says of trips of the base years that are not from before the first month.
    """

    source: TripSource
    throttled: Callable[[], object]
    forbidden: Callable[[], object]
    holed: Callable[[], object]
    partial: Callable[[], object]
    page: Callable[[], object]
    february: Callable[[pd.DataFrame], object] = lambda _: None
    all_at_once: bool = False
    cut: Mapping[str, int] = field(default_factory=dict)


FEBRUARY = parse_month("2015-02")


@pytest.fixture
def beyond() -> pd.DataFrame:
    """Base years that reach into January."""
    return pd.concat([trips_of(CITY)["base"], trips_of(CITY)["2015-01"][:9]])


def folder_in_trouble(folder: Path, beyond: pd.DataFrame) -> Troubled:
    written(folder, CITY, ".csv")
    base, february = folder / "taxi_base_2009_2014.csv", folder / "taxi_2015_02.csv"
    beyond.to_csv(base, index=False)

    def replaced(file: Path, make: Callable[[], object]) -> None:
        file.unlink()
        make()

    return Troubled(
        Folder(folder, first_month=parse_month("2015-01")),
        throttled=lambda: None,  # nobody stands between
        forbidden=lambda: replaced(february, lambda: february.symlink_to(february)),
        holed=february.unlink,
        partial=lambda: replaced(base, lambda: base.symlink_to("/nowhere")),
        page=lambda: replaced(february, february.mkdir),
        february=lambda trips: trips.to_csv(february, index=False),
        cut={"not_before_first_month": 9},
    )


def bucket_in_trouble(front: Front, folder: Path, beyond: pd.DataFrame) -> Troubled:
    """The folder in a bucket, of which a file may be refused, or all."""
    written(folder, CITY, ".csv")
    beyond.to_csv(folder / "taxi_base_2009_2014.csv", index=False)
    place = opened("TRIP_FOLDER", f"{front.bucket}/trips")
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    february = place / "taxi_2015_02.csv"

    def throttle() -> None:
        front.refusals = [THROTTLED["s3"]] if front.cloud == "s3" else [THROTTLED["gs"]] * 2
        front.only = "GET"  # of which Amazon's answers say that they throttle

    def refuse(only: str) -> None:
        front.refuses, front.only = FORBIDDEN[front.cloud], only

    def folder_in_place() -> None:
        february.unlink()
        (february / "part-0").write_bytes(b"x")

    return Troubled(
        Folder(place, first_month=parse_month("2015-01")),
        throttled=throttle,
        forbidden=lambda: refuse("taxi_2015_02"),
        holed=february.unlink,
        partial=lambda: refuse("taxi_base"),
        page=folder_in_place,
        february=lambda trips: february.write_bytes(trips.to_csv(index=False).encode()),
        cut={"not_before_first_month": 9},
    )


def files_in_trouble(publisher: Publisher, source: str, downloads: Path, beyond: pd.DataFrame) -> Troubled:
    """The course or the commission, whose servers refuse single files."""
    publisher.files = dict(published(CITY, source))
    first = parse_month("2014-12")
    if source == "lewagon":
        february, base = ["train_feb.csv", "val_feb.csv"], "val_1k.csv"
        publisher.files |= lewagon_files({}, beyond)
        cut = {"not_before_first_month": 9}
    else:
        february, base = ["trip-data/green_tripdata_2015-02.parquet"], "trip-data/green_tripdata_2014-11.parquet"
        december = replace(CITY, first_month=first).read_month(first).trips
        publisher.files |= tlc_files({first: pd.concat([december, beyond[-9:]])})
        cut = {"outside_month": 9}

    def publish(trips: pd.DataFrame) -> None:
        made = lewagon_files({"feb": trips}, beyond) if source == "lewagon" else tlc_files({FEBRUARY: trips})
        publisher.files |= {file: made[file] for file in february}

    def always(*faults: str) -> None:
        publisher.in_trouble = {file: list(faults) for file in february}

    return Troubled(
        asked(publisher, source, downloads),
        throttled=lambda: always("403", "403", ""),
        forbidden=lambda: always("403"),
        holed=lambda: [publisher.files.pop(file) for file in february],
        partial=lambda: publisher.files.pop(base),
        page=lambda: always("page"),
        february=publish,
        cut=cut,
    )


def by_the_portal(trips: pd.DataFrame, subject: str) -> pd.DataFrame:
    """The trips in the portal's form; their ids, in the order of which trips are drawn, tell nothing of their times."""
    ids = trips["key"].map(lambda key: hashlib.sha256(f"{subject}{key}".encode()).hexdigest())
    return from_trip_table(trips.assign(key=ids), "")


def portal_in_trouble(portal: Portal, beyond: pd.DataFrame) -> Troubled:
    on_portal(portal, CITY)
    rows = pd.concat([by_the_portal(trips, subject) for subject, trips in trips_of(CITY).items()])
    portal.data_sets["wrvz-psew"] = rows

    def fault(kind: str, times: int) -> None:
        portal.faults = [kind] * times

    def without_february() -> None:
        is_february = rows["trip_start_timestamp"].str.startswith("2015-02")
        portal.data_sets["wrvz-psew"] = rows[~is_february]

    def publish(trips: pd.DataFrame) -> None:
        without_february()
        others = portal.data_sets["wrvz-psew"]
        portal.data_sets["wrvz-psew"] = pd.concat([others, by_the_portal(trips, "2015-02")])

    return Troubled(
        asked_of_portal(portal),
        throttled=lambda: fault("403", 2),
        forbidden=lambda: fault("403", 99),
        holed=without_february,
        partial=lambda: portal.missing.add("wrvz-psew"),
        february=publish,
        page=lambda: fault("page", 99),
        all_at_once=True,
    )


def table_in_trouble(server: BigQueryServer) -> Troubled:
    source = in_bigquery(server, CITY)

    def fault(status: int, reason: str, times: int) -> None:
        server.faults[:] = [(status, reason)] * times

    def without_february() -> None:
        publish(trips_of(CITY)[str(FEBRUARY)][:0])

    def publish(february: pd.DataFrame) -> None:
        others = [trips for subject, trips in trips_of(CITY).items() if subject != str(FEBRUARY)]
        rows = pd.concat([*others, february], ignore_index=True).drop(columns=["key", "dropoff_datetime"])
        server.fill("contract", rows.assign(pickup_datetime=rows["pickup_datetime"].dt.tz_localize("UTC")))

    return Troubled(
        replace(source, patience_s=1.5),  # type: ignore[type-var]
        throttled=lambda: fault(403, "rateLimitExceeded", 1),
        forbidden=lambda: fault(403, "accessDenied", 99),
        holed=without_february,
        partial=lambda: fault(503, "backendError", 99),
        february=publish,
        page=lambda: fault(200, "page", 99),
        all_at_once=True,
    )


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Whose bucket the folder is in."""
    name: Cloud = request.node.callspec.params["troubled"]
    return name


@pytest.fixture(
    params=[
        *("simulator", "folder", "s3", "lewagon", "tlc", "chicago"),
        pytest.param("gs", marks=pytest.mark.slow),
        pytest.param("bigquery", marks=pytest.mark.end_to_end),
    ]
)
def troubled(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    publisher: Publisher,
    beyond: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Troubled]:
    monkeypatch.setattr(web, "LONGEST_PAUSE_S", 0.01)
    match request.param:
        case "simulator":  # nothing is ever between it and its trips
            yield Troubled(CITY, *[lambda: None] * 5)
        case "folder":
            yield folder_in_trouble(tmp_path / "trips", beyond)
        case "gs" | "s3":
            yield bucket_in_trouble(request.getfixturevalue("front"), tmp_path / "trips", beyond)
        case "chicago":
            monkeypatch.setattr(chicago, "BELIEVED_S", 0.0)
            yield portal_in_trouble(request.getfixturevalue("portal"), beyond)
        case "bigquery":
            server: BigQueryServer = request.getfixturevalue("bigquery")
            yield table_in_trouble(server)
            server.faults.clear()
        case source:
            yield files_in_trouble(publisher, source, tmp_path, beyond)


def assert_untold(troubled: Troubled, told: str) -> None:
    """Ensures that February, or everything, is what the source cannot tell of, in words that say what was received."""
    source = troubled.source
    if isinstance(source, Simulator):
        assert len(source.months()) == 3
        return
    with pytest.raises(SourceError, match=told) as refused:
        source.months()
    if troubled.all_at_once:
        assert not isinstance(refused.value, CannotTellError | MonthNotPublishedError)
        with pytest.raises(SourceError, match=told) as no_base:
            source.base_revision()
        assert not isinstance(no_base.value, NoBaseError)
    else:
        assert isinstance(refused.value, CannotTellError)
        assert (refused.value.month, [str(month) for month in refused.value.before]) == (FEBRUARY, ["2015-01"])
        assert source.base_revision()
    with pytest.raises(SourceError, match=told) as unread:
        source.read_month(FEBRUARY)
    assert not isinstance(unread.value, MonthNotPublishedError)


def test_throttled_it_is_asked_again_until_it_answers(troubled: Troubled) -> None:
    troubled.throttled()
    assert [str(month) for month in troubled.source.months()] == ["2015-01", "2015-02", "2015-03"]
    troubled.throttled()
    assert len(troubled.source.read_month(FEBRUARY).trips) > 0
    troubled.throttled()
    assert troubled.source.base_revision()


def test_forbidden_is_not_missing(troubled: Troubled) -> None:
    troubled.forbidden()
    assert_untold(troubled, r"403|symbolic links")


def test_a_hole_before_a_later_month_is_not_a_month_that_is_not_out_yet(troubled: Troubled) -> None:
    troubled.holed()
    source = troubled.source
    if isinstance(source, Simulator):
        assert len(source.months()) == 3
        return
    for ask in (source.months, lambda: source.read_month(FEBRUARY)):
        with pytest.raises(CannotTellError, match=r"2015-02 is published: 2015-03 is, and this is not") as hole:
            ask()
        assert [str(month) for month in hole.value.before] == ["2015-01"]


def test_base_years_of_which_a_part_cannot_be_had_are_not_no_base(troubled: Troubled) -> None:
    troubled.partial()
    source = troubled.source
    if isinstance(source, Simulator):
        assert source.base_revision()
        return
    for ask in (source.base_revision, lambda: source.read_base().whole()):
        with pytest.raises(SourceError, match=r"404|403|link to nothing|backendError") as refused:
            ask()
        assert not isinstance(refused.value, NoBaseError)


def test_a_page_with_status_200_is_not_what_was_asked_for(troubled: Troubled) -> None:
    troubled.page()
    assert_untold(troubled, r"web page|received a folder")


def test_the_base_ends_before_the_first_month_and_what_is_cut_is_said(troubled: Troubled) -> None:
    base = troubled.source.read_base()
    whole = base.whole()
    assert whole.trips["pickup_datetime"].max() < pd.Timestamp("2015-01-01")
    assert base.revision == troubled.source.base_revision()
    assert whole.dropped.items() >= troubled.cut.items()


def as_spilled(trips: pd.DataFrame) -> pd.DataFrame:
    """What the last update of January has spilled into February."""
    return trips.head(6).assign(pickup_datetime=pd.Timestamp("2015-02-01") + pd.to_timedelta(range(6), "min"))


def test_what_was_spilled_over_into_a_month_is_no_month(troubled: Troubled, tmp_path: Path) -> None:
    troubled.february(as_spilled(trips_of(CITY)[str(FEBRUARY)]))
    source, settings, lake = troubled.source, Settings(taxifare_home=tmp_path), UPath(tmp_path / "lake")
    assert len(whole_month(source, parse_month("2015-01"), settings, lake).trips) > 100
    if isinstance(source, Simulator):
        assert len(whole_month(source, FEBRUARY, settings, lake).trips) > 100
        return
    with pytest.raises(NotWholeError, match="2015-02 is not whole yet"):
        whole_month(source, FEBRUARY, settings, lake)


def test_a_month_that_grows_waits_until_it_is_whole(troubled: Troubled, tmp_path: Path) -> None:
    trips = trips_of(CITY)[str(FEBRUARY)]
    troubled.february(trips[trips["pickup_datetime"].dt.day <= 14])
    source, settings, lake = troubled.source, Settings(taxifare_home=tmp_path), UPath(tmp_path / "lake")
    before = source.months()
    if isinstance(source, Simulator):
        assert len(whole_month(source, FEBRUARY, settings, lake).trips) == len(trips)
        return
    with pytest.raises(NotWholeError, match="2015-02 is not whole yet"):
        whole_month(source, FEBRUARY, settings, lake)
    if isinstance(source, Folder):
        with pytest.raises(CannotTellError, match="may still be written"):
            replace(source, quiet_s=3_600).months()
    troubled.february(trips)
    grown = whole_month(source, FEBRUARY, settings, lake)
    after = source.months()
    assert [str(month) for month in after if after[month] != before[month]] == ["2015-02"]
    assert grown.revision == after[FEBRUARY]
    assert len(grown.trips) + grown.dropped.get("not_drawn", 0) == len(trips)
    assert grown.trips["pickup_datetime"].max().day == 28


def test_a_month_that_was_restated_is_another_edition_and_no_other_is(troubled: Troubled) -> None:
    source, before = troubled.source, troubled.source.months()
    earlier = source.read_month(FEBRUARY)
    dearer = trips_of(CITY)[str(FEBRUARY)].assign(fare_amount=lambda trips: trips["fare_amount"] + 1)
    troubled.february(dearer)
    later, after = source.read_month(FEBRUARY), source.months()  # what is known of a file is believed for a while
    changed = [] if isinstance(source, Simulator) else ["2015-02"]
    assert [str(month) for month in after if after[month] != before[month]] == changed
    assert later.revision == after[FEBRUARY]
    risen = later.trips["fare_amount"].sum() - earlier.trips["fare_amount"].sum()
    assert risen == pytest.approx(len(later.trips) if changed else 0, abs=0.01 * len(later.trips))


@pytest.mark.parametrize("name", ["simulator", "lewagon", "tlc", "chicago"])
def test_a_source_of_one_city_is_asked_for_no_other(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=rf"TRIP_SOURCE={name} (has trips of|needs) CITY="):
        Settings(trip_source=name, city=str(SAINT_DENIS), taxifare_home=tmp_path)


@pytest.mark.parametrize("troubled", ["folder", "gs", "s3"], indirect=True)
def test_trips_of_another_city_are_by_its_clock(troubled: Troubled, tmp_path: Path) -> None:
    """Half past three by a clock that is five hours ahead of UTC is half past two on La Réunion."""
    trips = trips_of(CITY)[str(FEBRUARY)][:1].assign(pickup_datetime="2015-02-01T03:30:00+05:00", dropoff_datetime=None)
    troubled.february(trips)
    assert isinstance(troubled.source, Folder)
    settings = Settings(trip_source="folder", trip_folder=str(troubled.source.path), city=str(SAINT_DENIS))
    read = make_source(settings).read_month(FEBRUARY).trips
    assert read["pickup_datetime"].tolist() == [pd.Timestamp("2015-02-01 02:30")]


@pytest.mark.end_to_end
def test_a_table_may_have_the_trips_of_another_city(bigquery: BigQueryServer, tmp_path: Path) -> None:
    """Without zones, its times are by the city's clock."""
    in_bigquery(bigquery, CITY)
    settings = Settings(trip_source="bigquery", bigquery_table=TABLE, city=str(SAINT_DENIS), taxifare_home=tmp_path)
    read = make_source(settings).read_month(FEBRUARY).trips
    expected = trips_of(CITY)[str(FEBRUARY)]["pickup_datetime"]
    assert read["pickup_datetime"].tolist() == expected.sort_values().tolist()


def test_the_settings_choose_the_source(tmp_path: Path) -> None:
    simulator = make_source(Settings(simulator_trips_per_month=50, last_month=parse_month("2015-02")))
    assert isinstance(simulator, Simulator)
    assert [str(month) for month in simulator.months()] == ["2015-01", "2015-02"]
    folder = make_source(Settings(trip_source="folder", trip_folder=tmp_path))
    assert isinstance(folder, Folder)
    first, last = parse_month("2015-01"), parse_month("2015-06")
    assert folder == Folder(
        tmp_path, "taxi_{month:%Y_%m}.*", "taxi_base_*", first, last, quiet_s=10, notes=folder.notes
    )


@pytest.mark.parametrize("source", get_args(SourceSettings.model_fields["trip_source"].annotation))
def test_every_source_that_can_be_set_can_be_made(source: str, tmp_path: Path) -> None:
    city = "chicago" if source == "chicago" else "new-york"
    made = make_source(Settings(trip_source=source, city=city, trip_folder=tmp_path, taxifare_home=tmp_path))
    assert type(made).__name__.lower() == source
    assert list(tmp_path.iterdir()) == [], "to make a source reads and writes nothing"
