"""`make demo` that cannot go on: it says why, and what to do."""

import pandas as pd
import pytest

from taxifare_dagster.demo import Demo, StoppedByChecksError
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
