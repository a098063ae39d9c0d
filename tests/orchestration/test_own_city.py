"""A city that the project does not know: from its file and 20,000 trips to a decision, in its own currency."""

from pathlib import Path

import pandas as pd
import pytest

from taxifare.approval.ledger import LedgerError
from taxifare.serving import in_force
from taxifare.serving.publishing import LakePublisher
from taxifare.sources import make_source
from taxifare.trips.months import parse_month
from tests.support.cities import SAINT_DENIS
from tests.support.saint_denis import trips_between
from tests.support.world import World, checks_of, failures

pytestmark = pytest.mark.slow

FEBRUARY = parse_month("2024-02")


@pytest.fixture(scope="module")
def city(_empty: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The base model is in production, February has been run and asked about; fares rose with it."""
    folder = tmp_path_factory.mktemp("trips")
    trips_between("2022-01-01", "2024-02-01", 15_000).to_parquet(folder / "taxi_base_2022_2023.parquet")
    trips_between("2024-02-01", "2024-03-01", 5_000).to_csv(folder / "taxi_2024_02.csv", index=False)
    changes = {"first_month": "2024-02", "last_month": "2024-02", "trip_folder_quiet_s": 0, "challengers": ("warm",)}
    settings = {"city": str(SAINT_DENIS), "trip_source": "folder", "trip_folder": folder, **changes}
    world = _empty.copy(tmp_path_factory.mktemp("saint-denis") / "state", **settings)
    world.source = make_source(world.settings)
    assert failures(world.run("base_job")) == {}
    world.ask_and_approve("base")
    assert failures(world.run_month(FEBRUARY)) == {}
    assert world.ask(FEBRUARY).success
    return world


def test_all_that_is_measured_is_in_euros(city: World) -> None:
    evidence = city.evidence(FEBRUARY)
    assert (evidence.unit, evidence.city) == ("EUR", "saint-denis")
    assert evidence.slices[0].name == "RUN"
    for asset in ("production_eval_mae", "staging_model"):
        shown = city.metadata(asset, FEBRUARY)
        assert {"mae_eur", "rmse_eur", "difficulty_mae_eur"} <= set(shown)
        assert not [name for name in shown if name.endswith("_usd")]
    paid = {c.name: c.description for c in city.metadata("raw_new_data", FEBRUARY)["dagster/column_schema"].columns}
    assert paid["fare_amount"] == "Meter fare plus tolls (EUR)"


def test_the_message_speaks_of_euros(city: World) -> None:
    text = city.chat.messages[-1].text
    assert " EUR (95 % interval" in text
    assert "USD" not in text


def test_the_model_is_registered_under_the_city_s_name(city: World) -> None:
    assert city.registry.model_name == "taxifare-saint-denis"
    assert city.versions() == {"1": "base", "2": "2024-02"}


def test_its_approval_puts_it_in_force_and_it_prices_in_euros(city: World, tmp_path: Path) -> None:
    world = city.copy(tmp_path / "state", **settings_of(city))
    world.source = city.source
    assert world.answer(world.request(FEBRUARY)).success
    *_, promoted = world.approvals.record.history()
    publisher = LakePublisher(world.settings, world.registry)
    publisher.prepare("2")
    publisher.publish(promoted)
    promotion, bundle = in_force.model_in(world.settings.lake, world.settings.city, "fare")
    assert (promotion.city, bundle.manifest.city, bundle.manifest.unit) == ("saint-denis", "saint-denis", "EUR")
    assert bundle.manifest.rules == ("fares_2024_02",)
    assert failures(world.run("scoring_job", month=FEBRUARY)) == {}
    (file,) = (world.settings.home / "lake" / "scored_trips").rglob("*2024-02*.parquet")
    scored = pd.read_parquet(file)
    assert {"fare_eur", "upper_fare_eur", "corrected_fare_eur", "quoted_fare_eur"} <= set(scored)
    assert (scored["fare_eur"] - scored["fare_amount"]).abs().mean() < 3


def test_the_state_is_no_other_city_s(city: World) -> None:
    other = city.under(first_month="2015-01", last_month="2015-06")
    with pytest.raises(LedgerError, match="about new-york or chicago, received one about saint-denis"):
        other.tick("new_month_sensor")


def test_a_month_of_another_city_says_how_many_where_and_which_city_is_set(city: World, tmp_path: Path) -> None:
    settings = settings_of(city)
    world = city.copy(tmp_path / "state", **settings)
    elsewhere = trips_between("2024-02-01", "2024-03-01", 1_000).assign(pickup_longitude=2.35, pickup_latitude=48.85)
    folder = tmp_path / "trips"
    folder.mkdir()
    elsewhere.to_csv(folder / "taxi_2024_02.csv", index=False)
    result = world.reading(folder).run_month(FEBRUARY)
    assert "keeps_most_trips" in failures(result)["preprocessed_data_checks"]
    check = checks_of(result)["keeps_most_trips"]
    assert not check.passed
    assert str(check.description).startswith(
        f"1,000 of 1,000 trips have an end outside the box of CITY=saint-denis ({SAINT_DENIS}) (longitude 55.35 to "
    )
    assert "longitude 2.35 to 2.35, latitude 48.85 to 48.85" in str(check.description)


def settings_of(world: World) -> dict[str, object]:
    """What the world was made with."""
    named = ("city", "trip_source", "trip_folder", "first_month", "last_month", "trip_folder_quiet_s", "challengers")
    return {name: getattr(world.settings, name) for name in named}
