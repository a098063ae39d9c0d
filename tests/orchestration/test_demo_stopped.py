"""`make demo` that cannot go on: it says why, and what to do."""

from pathlib import Path

import pandas as pd
import pytest

from taxifare.operations.doctor import examine
from taxifare.sources import NoBaseError
from taxifare_dagster import demo as demo_module
from taxifare_dagster.demo import Demo, StoppedByChecksError
from tests.support.cities import SAINT_DENIS
from tests.support.saint_denis import trips_between
from tests.support.small import small_settings
from tests.support.world import JANUARY, World


def demo_of(world: World) -> Demo:
    """The demo on a world's state folder, with its trips and its chat."""
    demo = Demo(world.settings, world.instance)
    demo._definitions = world.definitions
    return demo


def test_a_month_that_its_checks_stop_is_said_with_the_place_the_numbers_and_the_way_out(started: World) -> None:
    def repeat(trips: pd.DataFrame) -> pd.DataFrame:
        return trips.assign(key=trips["key"].where(trips.index >= 300, "twice"))

    started.publisher.restate(JANUARY, "repeats", repeat)
    origin = started.publisher.city.read_month(JANUARY).origin
    with pytest.raises(StoppedByChecksError) as stopped:
        demo_of(started).run(str(JANUARY))
    assert str(stopped.value).startswith(
        f"2015-01, {origin}: column key: expected each key once in 2015-01, received 299 trips whose key"
    )
    assert str(stopped.value).endswith(". Once that is done, make demo goes on from there")
    started.publisher.restate(JANUARY, "mended")
    assert not demo_of(started).run(str(JANUARY))
    assert started.request(JANUARY).subject == "2015-01"


def test_rows_that_cleaning_drops_are_said_with_what_is_wrong_with_them(started: World) -> None:
    def exchange(trips: pd.DataFrame) -> pd.DataFrame:
        third = trips.index % 3 == 0
        longitude, latitude = trips["pickup_longitude"], trips["pickup_latitude"]
        return trips.assign(
            pickup_longitude=longitude.where(~third, latitude), pickup_latitude=latitude.where(~third, longitude)
        )

    started.publisher.restate(JANUARY, "exchanged", exchange)
    with pytest.raises(StoppedByChecksError) as stopped:
        demo_of(started).run(str(JANUARY))
    assert str(stopped.value).startswith("2015-01, simulator (seed 42, fare-rise): in 481 of 1,485 trips only, pickup ")
    assert "of 1,485 trips have an end outside the box of CITY=new-york" in str(stopped.value)
    assert "expected at least 80% of the trips to be such as can be learned from, received 65.5%" in str(stopped.value)


def test_without_base_years_it_says_what_the_doctor_says_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips_between("2024-02-01", "2024-03-01", 1_500).to_csv(tmp_path / "taxi_2024_02.csv", index=False)
    settings = small_settings(
        tmp_path / "state",
        city=str(SAINT_DENIS),
        trip_source="folder",
        trip_folder=str(tmp_path),
        trip_folder_quiet_s=0,
        first_month="2024-02",
        last_month="2024-02",
    )
    monkeypatch.setattr(demo_module, "settings_in_force", lambda: settings)
    with pytest.raises(NoBaseError, match=r"\(make dev; make demo needs them\)$") as stopped:
        demo_module.main()
    assert not settings.home.exists()
    (doctor,) = [found.says for found in examine(settings, lambda _: None) if found.part == "base years"]
    assert doctor == f"DisorderError: {stopped.value}"


def test_other_trips_are_refused_with_the_command_that_forgets_this_folder(
    started: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = started.settings.home
    demo_of(started).check_trips(started.publisher.base_revision())
    with pytest.raises(SystemExit, match=rf"another folder, or forget this one: rm -rf {home}$"):
        demo_of(started).check_trips("others")
    assert home.name == "state"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"another folder, or forget this one: make clean$"):
        demo_of(started).check_trips("others")
