"""TARGET=duration: a month in minutes, from the trips to the message; and a state folder that is of one target."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from taxifare.approval.ledger import LedgerError
from taxifare.gate.evidence import Verdict
from taxifare.sources import make_source
from taxifare.training.challengers import RENEWAL
from tests.support.world import JANUARY, World, checks_of, failures


@pytest.fixture(scope="module")
def _minutes(_empty: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A city whose traffic slows down with January: the base model is in production, January has been run.

    In steps of 512 a renewal of 1,200 trips has two steps an epoch, and would not get past a rate per km.
    """
    changes = {"target": "duration", "simulator_scenario": "slow-traffic", "challengers": ("warm",)}
    world = _empty.copy(tmp_path_factory.mktemp("minutes") / "state", **changes)
    world.publisher.city = make_source(world.settings)
    assert failures(world.run("base_job")) == {}
    world.ask_and_approve("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taxifare.training.challengers.RENEWAL", replace(RENEWAL, batch_size=32))
        assert failures(world.run_month(JANUARY)) == {}
    assert world.ask(JANUARY).success
    return world


@pytest.fixture
def minutes(_minutes: World) -> World:
    """Not to be changed."""
    return _minutes


class TestJanuaryInMinutes:
    def test_trips_are_cleaned_for_it_and_carry_it(self, minutes: World) -> None:
        shown = minutes.metadata("preprocessed_data", JANUARY)
        rules = [record.data["rule"] for record in shown["dropped"].records]
        assert rules[-1] == "duration"
        assert "fare" not in rules
        trips = pd.read_parquet(minutes.settings.home / "lake" / "preprocessed_data" / "2015-01-01.parquet")
        took = (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() / 60
        assert trips["target"].tolist() == pytest.approx(took.tolist())
        column = next(column for column in shown["dagster/column_schema"].columns if column.name == "target")
        assert column.description == "The duration to be predicted (min)"

    def test_all_that_is_measured_is_in_minutes(self, minutes: World) -> None:
        evidence = minutes.evidence(JANUARY)
        assert evidence.unit == "min"
        assert evidence.production is not None
        for asset in ("production_eval_mae", "staging_model"):
            shown = minutes.metadata(asset, JANUARY)
            assert not [name for name in shown if name.endswith("_usd")]
            assert shown["difficulty_mae_min"] == round(evidence.difficulty_mae, 4)
            assert {"mae_min", "rmse_min", "bias_min", "corrected_mae_min"} <= set(shown)
        assert minutes.metadata("staging_model", JANUARY)["mae_min"] == round(evidence.staging.scores.mae, 4)
        columns = [column.name for column in minutes.metadata("staging_model", JANUARY)["challengers"].schema.columns]
        assert columns[-4:] == ["MAE, min", "gain, min", "from (95 %)", "to (95 %)"]

    def test_the_message_and_the_reasons_speak_of_minutes(self, minutes: World) -> None:
        evidence, text = minutes.evidence(JANUARY), minutes.chat.messages[-1].text
        assert evidence.verdict is Verdict.PROMOTE, evidence.reasons
        assert " min a trip (95 % interval" in evidence.reasons[0]
        first = text.splitlines()[0]
        assert first.startswith("Evaluation MAE: ")
        assert first.endswith(f" - New training MAE: {evidence.staging.scores.mae:.2f}")
        assert " min (95 % interval" in text
        assert "USD" not in text

    def test_the_model_is_one_of_its_own_and_beats_a_rate_per_km(self, minutes: World) -> None:
        assert minutes.registry.model_name == "taxifare-duration"
        assert minutes.versions() == {"1": "base", "2": "2015-01"}
        assert minutes.registry.store.client.search_model_versions("name = 'taxifare'") == []
        assert minutes.registry.production_version() == "1"
        evidence = minutes.evidence(JANUARY)
        assert evidence.staging.scores.mae < evidence.difficulty_mae

    def test_the_slower_month_is_said_in_minutes(self, minutes: World) -> None:
        world = minutes.under(target="duration", staleness_tolerance=0.0)
        result = world.run("monthly_job", month=JANUARY, assets=["production_eval_mae"])
        check = checks_of(result)["production_is_not_stale"]
        assert {"rise_min", "rise_by_a_harder_month_min", "rise_by_lost_skill_min"} <= set(check.metadata)
        assert " min a ride (" in str(check.metadata["why"].value)


class TestOneStateIsOneTarget:
    """Nothing is trained or asked where the state is another target's."""

    def test_a_ledger_of_fares_refuses_durations_before_a_month_is_run(self, started: World) -> None:
        lake = started.lake()
        world = started.under(target="duration")
        with pytest.raises(LedgerError, match="expected requests in min, received one in USD"):
            world.tick("new_month_sensor")
        result = world.run_month(JANUARY)
        told = "\n".join(failures(result).values())
        assert "TARGET=fare" in told or "Set TARGET back" in told
        assert {name for name in world.lake() if name not in lake} <= {
            "raw_new_data/2015-01-01.parquet",
            "preprocessed_data/2015-01-01.parquet",
            "whole_months/2015-01.seen.json",
        }
        assert started.versions() == {"1": "base"}
        assert world.versions() == {}

    def test_trips_that_were_made_ready_for_fares_train_no_durations(self, trained: World) -> None:
        """Nobody has been asked yet, so the ledger does not know; the lake does."""
        world = trained.under(target="duration")
        result = world.run("base_job", assets=["base_model"])
        assert "expected trips for TARGET=duration, received trips for TARGET=fare" in failures(result)["base_model"]
        asked = world.ask("base")
        assert "expected evidence in min, received it in USD" in "\n".join(failures(asked).values())
        assert world.versions() == {}

    def test_a_month_whose_file_lacks_the_times_is_named(self, empty: World, tmp_path: Path) -> None:
        files = tmp_path / "published"
        files.mkdir()
        january = empty.publisher.city.read_month(JANUARY).trips
        january.drop(columns="dropoff_datetime").to_parquet(files / "taxi_2015_01.parquet")
        world = empty.under(target="duration").reading(files)
        told = failures(world.run_month(JANUARY))["raw_new_data"]
        assert "taxi_2015_01.parquet: month 2015-01: column dropoff_datetime: expected values" in told
