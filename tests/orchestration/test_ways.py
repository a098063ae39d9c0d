"""Six months in each way there is to run them, one of them broken at first: the same results as one at a time.

Months one at a time are run in this process, as the sensor requests them, and newest first as well; every other way
goes through `make dev`, by the mutations that its UI sends.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taxifare.sources import make_source
from taxifare.trips.months import Month, months_between
from taxifare_dagster.catalog import MONTHLY_ASSETS
from tests.support.servers import dagster_dev
from tests.support.ui import Run, Ui, eventually
from tests.support.world import JANUARY, Publisher, World, _move_mlflow_store, failures, world_settings

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(900)]

MONTHS = tuple(months_between(JANUARY, JANUARY + 5))
KEYS = [f"{month}-01" for month in MONTHS]
APRIL = KEYS[3]
SETTINGS: dict[str, str] = {
    "trip_source": "folder",
    "trip_folder_quiet_s": "0",
    "max_epochs": "1",
    "batch_size": "32",
    "learning_rate": "0.003",
    "rehearsal_trips": "1000",
    "challengers": "warm",
    "approval_secret": "known to these tests only",
}


@pytest.fixture(scope="module")
def networks_without_tables() -> None:
    """Networks are those of an installation, for one goes on with them here, and what both find is the same."""


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
                eventually(lambda: "STARTED" not in {tick["status"] for tick in ui.ticks(sensor)}, "the end of a tick")  # noqa: B023
            yield ui

    def results(self) -> dict[str, dict[str, Any]]:
        """What was found for each month: all of the evidence but the names that its version and runs happen to have."""
        # Files hold the names of their runs, so their digests are no finding either.
        unnamed: dict[str, Any] = {
            "staging": {"run_id", "version", "files_digest"},
            "production": {"run_id"},
            "track_record": {"months": {"__all__": {"candidate"}}},
        }
        return {
            subject: comparison.evidence.model_dump(mode="json", exclude=unnamed)
            for subject, comparison in sorted(self.world.approvals.record.comparisons().items())
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


def ended(ui: Ui, months: int, within_s: float = 600, **tags: str) -> dict[str, Run]:
    """The run of each month, oldest first, once there are so many and all have ended."""

    def found() -> dict[str, Run]:
        runs = {str(run.partition): run for run in ui.runs(**tags) if run.partition and run.is_finished}
        return dict(sorted(runs.items())) if len(runs) == months else {}

    return eventually(found, f"the end of {months} runs with {tags}", within_s, every_s=2)


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


@pytest.fixture(scope="module")
def newest_first(base: Site, city: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Newest month first, as if somebody materialized one after the other by hand."""
    site = base.copy(tmp_path_factory.mktemp("newest_first"))
    publish(site, city)
    for month in reversed(MONTHS):
        assert failures(site.world.run_month(month)) == {}
    return site


def test_newest_month_first_is_as_oldest_first(newest_first: Site, one_at_a_time: Site) -> None:
    assert newest_first.results() == one_at_a_time.results()
    for key in KEYS:
        assert newest_first.shown(key) == one_at_a_time.shown(key)


@dataclass(frozen=True)
class Season:
    """Six months in a real installation, in every way its UI offers.

    Attributes:
        backfill: The runs of a backfill of the assets, by month; April's file is broken.
        errors: What those say that failed.
        status: Where that backfill ended.
        refusal: What a single run over all six says.
        by_hand: The run of June, launched when April was mended.
        job_backfill: The runs of a backfill of `monthly_job` over April and May, launched at the same time.
        trained: When each month was trained.
        site: Where all this was.
    """

    backfill: dict[str, Run]
    errors: dict[str, str]
    status: str
    refusal: str
    by_hand: Run
    job_backfill: dict[str, Run]
    trained: list[tuple[float, float]]
    site: Site


@pytest.fixture(scope="module")
def season(base: Site, city: Path, tmp_path_factory: pytest.TempPathFactory) -> Season:
    site = base.copy(tmp_path_factory.mktemp("season"))
    with site.dev() as ui:
        publish(site, city)
        april = site.trips / name_of(MONTHS[3])
        april.write_bytes(april.read_bytes()[:-500])
        launched = ui.backfill(MONTHLY_ASSETS, KEYS)
        backfill = ended(ui, len(KEYS), **{"dagster/backfill": launched})
        errors = {key: ui.errors(run.id) for key, run in backfill.items() if run.status == "FAILURE"}
        single = ui.materialize_range(MONTHLY_ASSETS, KEYS[0], KEYS[-1])
        over = {"COMPLETED_SUCCESS", "COMPLETED_FAILED"}
        status = eventually(lambda: {ui.backfill_status(launched)} & over, "the end of the backfill").pop()
        refusal = ui.errors(ui.finished(single).id)

        publish(site, city, MONTHS[3:4])
        by_hand = ui.materialize(MONTHLY_ASSETS, KEYS[5])
        again = ui.backfill_job("monthly_job", KEYS[3:5])
        job_backfill = ended(ui, 2, **{"dagster/backfill": again})
        june = ui.finished(by_hand, 300)
        trained = [ui.run(run.id).interval("staging_model") for run in ui.runs()]
    return Season(backfill, errors, status, refusal, june, job_backfill, sorted(span for span in trained if span), site)


def test_a_broken_month_is_seen_and_so_are_those_that_would_learn_without_it(season: Season) -> None:
    statuses = {key: run.status for key, run in season.backfill.items()}
    assert statuses == {key: "SUCCESS" if key < APRIL else "FAILURE" for key in KEYS}
    assert season.status == "COMPLETED_FAILED"
    assert all(name_of(MONTHS[3]) in said for said in season.errors.values())


def test_a_range_as_a_single_run_is_refused_before_anything_is_done(season: Season) -> None:
    assert f"this one is of {KEYS[0]} to {KEYS[-1]}: each month has its own comparison" in season.refusal


def test_after_mending_everything_is_as_one_month_at_a_time(season: Season, one_at_a_time: Site) -> None:
    assert {run.status for run in (season.by_hand, *season.job_backfill.values())} == {"SUCCESS"}
    assert season.site.results() == one_at_a_time.results()
    for key in KEYS:
        assert season.site.shown(key) == one_at_a_time.shown(key)
    assert sorted(season.site.world.versions().values()) == sorted(["base", *map(str, MONTHS)]), "no month has two"


def test_months_of_a_backfill_take_turns_and_never_do_two_train(season: Season) -> None:
    for runs in (season.backfill, season.job_backfill):
        spans = sorted((run.started or 0.0, run.ended or 0.0) for run in runs.values())
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert len(season.trained) >= len(KEYS)
    assert all(before[1] <= after[0] for before, after in pairwise(season.trained))
