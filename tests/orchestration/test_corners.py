"""Corners of real runs: what was deleted is trained, compared and asked about anew, and the months go on."""

import pytest

from taxifare.gate.evidence import Verdict
from tests.support.world import JANUARY, World


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
