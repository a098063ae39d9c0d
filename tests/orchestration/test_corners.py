"""Corners of real runs: what was deleted is trained, compared and asked about anew, and the months go on."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from taxifare.gate.evidence import Verdict
from taxifare.sources import make_source
from taxifare.trips.months import parse_month
from tests.support.approvals import in_processes
from tests.support.kills import moments_of
from tests.support.places import REPOSITORY
from tests.support.world import FEBRUARY, JANUARY, Publisher, World, failures, world_settings


def recorded(world: World) -> dict[str, Any]:
    """Everything on record that says what is due, open or in production."""
    record = world.approvals.record
    return {
        "compared": record.comparisons(),
        "asked": record.requests(),
        "ended": record.outcomes(),
        "history": record.history(),
        "told": len(world.chat.messages),
    }


def test_whatever_is_wiped_or_reported_in_dagster_asks_ends_and_runs_nothing(compared_january: World) -> None:
    world = compared_january
    assert world.ask(JANUARY).success
    before, instance = recorded(world), world.instance
    for key in instance.get_asset_keys():
        instance.wipe_assets([key])
    for month in (JANUARY, FEBRUARY):
        for asset in ("raw_new_data", "staging_model", "production_eval_mae"):
            forged = dg.AssetMaterialization(asset, partition=f"{month}-01", metadata={"version": "66", "mae_usd": 0.1})
            instance.report_runless_asset_event(forged)
    for check in ("better_than_production", "gate"):
        forged_check = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("staging_model"), check_name=check, passed=True, metadata={"verdict": "PROMOTE"}
        )
        instance.report_runless_asset_event(forged_check)
    for sensor in ("new_month_sensor", "approval_sensor"):
        assert not world.tick(sensor).run_requests
    (shown,) = world.tick("production_sensor").asset_events
    assert shown.metadata["version"].value == "1", "what is shown is put right from the record"
    assert recorded(world) == before
    assert failures(world.answer(world.request(JANUARY))) == {}
    assert world.approvals.production() == world.registry.production_version() == before["asked"][-1].staging_version


def test_what_was_not_approved_for_the_month_is_not_retrained_on_it(compared_january: World) -> None:
    """Launched by anybody, it would compete next month as the successor of what is in production."""
    world, before = compared_january, compared_january.versions()
    for version in ("1", "2", "\x1b[2J2"):
        forged = world.run("whole_month_job", ops={"retrain_on_whole_month": {"month": "2015-01", "version": version}})
        assert failures(forged)["retrain_on_whole_month"] == (
            f"nothing is retrained: version {version[-1]} was not approved for 2015-01"
        )
    assert world.versions() == before


@pytest.mark.parametrize("first_month", ["2014-11", "2015-02"])
def test_a_first_month_that_is_moved_runs_no_history_and_keeps_what_is_open(
    compared_january: World, first_month: str
) -> None:
    """What production has learned, or is older than that, is no news, whether or not it is a month now."""
    world = compared_january
    world.ask_and_approve(JANUARY)
    before = world.approvals.record.history()
    moved = world_settings(world.settings.home, first_month=first_month)
    out = tuple(parse_month(month) for month in ("2014-11", "2014-12", "2015-01") if month >= first_month)
    there = World(moved, Publisher(make_source(moved), out), world.chat)
    assert not there.tick("new_month_sensor").run_requests
    assert not [request for request in there.tick("approval_sensor").run_requests if request.job_name == "approval_job"]
    assert there.approvals.record.history() == before
    there.publisher.out = (*out, FEBRUARY)
    (due,) = there.tick("new_month_sensor").run_requests
    assert due.partition_key == "2015-02-01"


@pytest.mark.slow
def test_a_deleted_registered_model_is_taken_out_and_the_base_asked_about_anew(started: World) -> None:
    world = started
    registry = world.registry
    registry.store.client.delete_registered_model(registry.model_name)
    assert world.run_month(JANUARY).success
    assert world.evidence(JANUARY).verdict is Verdict.UNSCORABLE
    assert world.approvals.production() == "1"
    world.approvals.rollback("none", by="Ada", reason="deleted in MLflow")
    assert world.run("base_job").success
    again = world.ask_and_approve("base")
    assert again.staging_version != "1"
    assert world.approvals.production() == again.staging_version
    assert world.run_month(JANUARY).success
    assert world.evidence(JANUARY).production_version == again.staging_version


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"])
def test_stores_of_dagster_that_were_killed_while_they_were_made_are_made_anew(tmp_path: Path, every: int) -> None:
    home = tmp_path / "dagster"

    def begin() -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shutil.copy(REPOSITORY / "taxifare_dagster" / "dagster.yaml", home)

    def first_use() -> bool:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert not instance.get_runs()
            assert not instance.all_instigator_state()
            instance.report_runless_asset_event(dg.AssetMaterialization("production_model"))
            return instance.get_latest_materialization_event(dg.AssetKey("production_model")) is not None

    begin()
    moments = len(moments_of(home, first_use))
    for moment in range(1, moments + 1, every):
        begin()
        passed = moments_of(home, first_use, last=moment)
        (found,) = in_processes([first_use])
        assert found is True, f"killed at moment {moment} of {moments}, before {passed[-1]}: {found}"
