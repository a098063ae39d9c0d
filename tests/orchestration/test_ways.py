"""Six months in each way there is to run them, one of them broken at first: the same results as one at a time.

Months one at a time are run in this process, as the sensor requests them; every other way goes through `make dev`,
by the mutations that its UI sends.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taxifare.months import Month, months_between
from taxifare.sources import make_source
from taxifare_dagster.catalog import MONTHLY_ASSETS
from taxifare_dagster.comparisons import compared
from tests.end_to_end.ui import Run, Ui, eventually
from tests.orchestration.world import JANUARY, Publisher, World, _move_mlflow_store, failures, world_settings
from tests.servers import dagster_dev

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

MONTHS = tuple(months_between(JANUARY, JANUARY + 5))
KEYS = [f"{month}-01" for month in MONTHS]
APRIL = KEYS[3]
SETTINGS: dict[str, str] = {
    "trip_source": "folder",
    "max_epochs": "1",
    "batch_size": "32",
    "learning_rate": "0.003",
    "rehearsal_trips": "1000",
    "challengers": "warm",
    "approval_secret": "known to these tests only",
}


@dataclass(frozen=True)
class Site:
    """An installation whose base model is in production, with a folder of trips of its own."""

    folder: Path

    @property
    def trips(self) -> Path:
        return self.folder / "published"

    @property
    def world(self) -> World:
        settings = world_settings(self.folder / "state", **SETTINGS, trip_folder=self.trips)
        return World(settings, Publisher(make_source(settings), MONTHS))

    def copy(self, folder: Path) -> "Site":
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        _move_mlflow_store(folder / "state" / "mlflow" / "mlflow.db", str(self.folder), str(folder))
        return Site(folder)

    @contextmanager
    def dev(self) -> Iterator[Ui]:
        """`make dev`, with what would run months or ask about them by itself switched off."""
        variables = {name.upper(): value for name, value in SETTINGS.items()} | {"TRIP_FOLDER": str(self.trips)}
        with dagster_dev(self.folder, variables) as url:
            ui = Ui(url)
            for sensor in ("new_month_sensor", "approval_sensor", "production_sensor"):
                ui.stop_sensor(sensor)
            yield ui

    def results(self) -> dict[str, dict[str, Any]]:
        """What was found for each month: all of the evidence but the names that its version and runs happen to have."""
        unnamed: dict[str, Any] = {"staging": {"run_id", "version"}, "production": {"run_id"}}
        return {
            subject: evidence.model_dump(mode="json", exclude=unnamed)
            for subject, evidence in sorted(compared(self.world.instance).items())
        }

    def shown(self, key: str) -> dict[str, tuple[Any, ...]]:
        """What the assets of a month show of what they were made from."""
        world, month = self.world, MONTHS[KEYS.index(key)]
        wanted = {
            "rehearsal_trips": ("editions", "trips_by_year"),
            "production_eval_mae": ("production_version", "revision", "mae_usd"),
            "staging_model": ("production_version", "parent_version", "revision", "mae_usd"),
        }
        return {asset: tuple(world.metadata(asset, month)[name] for name in names) for asset, names in wanted.items()}


def publish(site: Site, city: Path, months: tuple[Month, ...] = MONTHS) -> None:
    """Puts months into the site's folder, or puts them right."""
    for month in months:
        shutil.copy(city / name_of(month), site.trips)


def name_of(month: Month) -> str:
    return f"taxi_{month.year}_{month.month:02}.parquet"


def ended(ui: Ui, within_s: float = 420, **tags: str) -> dict[str, Run]:
    """The last run of each month, once there are runs and all have ended."""
    runs = eventually(lambda: all_ended(ui.runs(**tags)), f"the end of the runs with {tags}", within_s, every_s=2)
    return {str(run.partition): run for run in runs}


def all_ended(runs: list[Run]) -> list[Run]:
    of_months = [run for run in runs if run.partition]
    return of_months if all(run.is_finished for run in runs) else []


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a small city."""
    folder = tmp_path_factory.mktemp("city")
    source = make_source(world_settings(folder, simulator_trips_per_month=1_000, simulator_base_trips=3_000))
    for month in MONTHS:
        source.read_month(month).trips.to_parquet(folder / name_of(month))
    source.read_base().whole().trips.to_parquet(folder / "taxi_base_2009_2014.parquet")
    return folder


@pytest.fixture(scope="module")
def base(city: Path, migrated_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The base model has been approved, and no month is out."""
    site = Site(tmp_path_factory.mktemp("base"))
    site.trips.mkdir()
    shutil.copy(city / "taxi_base_2009_2014.parquet", site.trips)
    World.create(site.folder / "state", migrated_store)
    assert failures(site.world.run("base_job")) == {}
    site.world.ask_and_approve("base")
    return site


@pytest.fixture(scope="module")
def one_at_a_time(base: Site, city: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Oldest month first, each when the sensor requests it."""
    site = base.copy(tmp_path_factory.mktemp("one_at_a_time"))
    publish(site, city)
    world = site.world
    for key in KEYS:
        (due,) = world.tick("new_month_sensor").run_requests
        assert due.partition_key == key
        assert failures(world.launch(due, "monthly_job")) == {}
    assert not world.tick("new_month_sensor").run_requests
    return site


@dataclass(frozen=True)
class Backfills:
    """A backfill of the assets while April's file is broken, then one of the job for what is missing.

    Attributes:
        first: The last run of each month of the first, and what it says where it failed.
        status: Where it ended.
        second: Those of the second.
        site: Where they were.
    """

    first: dict[str, Run]
    errors: dict[str, str]
    status: str
    second: dict[str, Run]
    site: Site


@pytest.fixture(scope="module")
def backfills(base: Site, city: Path, tmp_path_factory: pytest.TempPathFactory) -> Backfills:
    site = base.copy(tmp_path_factory.mktemp("backfills"))
    with site.dev() as ui:
        publish(site, city)
        april = site.trips / name_of(MONTHS[3])
        april.write_bytes(april.read_bytes()[:-500])
        launched = ui.backfill(MONTHLY_ASSETS, KEYS)
        eventually(lambda: len(ui.runs(**{"dagster/backfill": launched})) == len(KEYS), "a run a month", 120)
        first = ended(ui, **{"dagster/backfill": launched})
        errors = {key: ui.errors(run.id) for key, run in first.items() if run.status == "FAILURE"}
        is_over = "COMPLETED_SUCCESS", "COMPLETED_FAILED"
        status = eventually(
            lambda: found if (found := ui.backfill_status(launched)) in is_over else None, "the backfill's end", 120
        )
        publish(site, city, (MONTHS[3],))
        again = ui.backfill_job("monthly_job", sorted(errors))
        eventually(lambda: len(ui.runs(**{"dagster/backfill": again})) == len(errors), "a run for each of these", 120)
        second = ended(ui, **{"dagster/backfill": again})
    return Backfills(first, errors, status, second, site)


def test_a_broken_month_is_seen_and_so_are_those_that_would_learn_without_it(backfills: Backfills) -> None:
    assert {key: run.status for key, run in sorted(backfills.first.items())} == {
        key: "SUCCESS" if key < APRIL else "FAILURE" for key in KEYS
    }
    assert backfills.status == "COMPLETED_FAILED"
    assert all(name_of(MONTHS[3]) in said for said in backfills.errors.values())


def test_a_backfill_of_assets_mended_by_one_of_the_job_is_as_one_month_at_a_time(
    backfills: Backfills, one_at_a_time: Site
) -> None:
    assert {run.status for run in backfills.second.values()} == {"SUCCESS"}
    assert backfills.site.results() == one_at_a_time.results()
    for key in KEYS:
        assert backfills.site.shown(key) == one_at_a_time.shown(key)
    versions = backfills.site.world.versions()
    assert sorted(versions.values()) == sorted(["base", *map(str, MONTHS)]), "no month has two"


def test_months_of_a_backfill_take_turns(backfills: Backfills) -> None:
    for runs in (backfills.first, backfills.second):
        spans = sorted((run.started or 0.0, run.ended or 0.0) for run in runs.values())
        assert all(before[1] <= after[0] for before, after in pairwise(spans))


@dataclass(frozen=True)
class ByHand:
    """All six launched at once, the newest first, and a range as a single run before that.

    Attributes:
        refusal: What the single run says.
        runs: The run of each month.
        trained: When each trained.
        site: Where they were.
    """

    refusal: str
    runs: dict[str, Run]
    trained: list[tuple[float, float]]
    site: Site


@pytest.fixture(scope="module")
def by_hand(base: Site, city: Path, tmp_path_factory: pytest.TempPathFactory) -> ByHand:
    site = base.copy(tmp_path_factory.mktemp("by_hand"))
    with site.dev() as ui:
        publish(site, city)
        single = ui.finished(ui.materialize_range(MONTHLY_ASSETS, KEYS[0], KEYS[-1]))
        launched = [ui.materialize(MONTHLY_ASSETS, key) for key in reversed(KEYS)]
        runs = {str(run.partition): run for run in (ui.finished(run, 600) for run in launched)}
        trained = [span for run in runs.values() if (span := run.interval("staging_model")) is not None]
        return ByHand(ui.errors(single.id), runs, sorted(trained), site)


def test_a_range_as_a_single_run_is_refused_before_anything_is_done(by_hand: ByHand) -> None:
    assert f"this one is of {KEYS[0]} to {KEYS[-1]}: each month has its own comparison" in by_hand.refusal


def test_months_by_hand_and_newest_first_are_as_one_at_a_time(by_hand: ByHand, one_at_a_time: Site) -> None:
    assert {run.status for run in by_hand.runs.values()} == {"SUCCESS"}
    assert by_hand.site.results() == one_at_a_time.results()
    for key in KEYS:
        assert by_hand.site.shown(key) == one_at_a_time.shown(key)
    assert sorted(by_hand.site.world.versions().values()) == sorted(["base", *map(str, MONTHS)])


def test_two_months_by_hand_may_be_at_work_but_one_trains(by_hand: ByHand) -> None:
    assert len(by_hand.trained) == len(KEYS)
    assert all(before[1] <= after[0] for before, after in pairwise(by_hand.trained))
