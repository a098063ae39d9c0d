"""Results of asset checks are pictures: reported by hand, forged or wiped, they change nothing and break nothing."""

import logging

import dagster as dg
import pytest

from taxifare_dagster.resources import make_resources
from taxifare_dagster.takeover import take_over_comparisons
from tests.support.world import JANUARY, World

COMPARISON = "staging_beats_production"


def report(world: World, metadata: dict[str, object], *, passed: bool = True) -> None:
    """What `POST /report_asset_check/staging_model` does, from whoever reaches the webserver."""
    world.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("staging_model"), check_name=COMPARISON, passed=passed, metadata=metadata
        )
    )


def forged(world: World) -> dict[str, object]:
    """Evidence as it was found, but with another winner."""
    found = world.evidence(JANUARY).model_dump(mode="json")
    return {"evidence": dg.MetadataValue.json(found | {"verdict": "PROMOTE", "subject": "2015-05", "revision": "x"})}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"evidence": "nonsense"}, {"evidence": dg.MetadataValue.json({"verdict": "PROMOTE"})}, None],
    ids=["nothing", "text", "some fields", "forged"],
)
def test_a_reported_result_changes_nothing(compared_january: World, metadata: dict[str, object] | None) -> None:
    world = compared_january
    before, requests = world.approvals.record.comparisons(), world.approvals.record.requests()
    report(world, forged(world) if metadata is None else metadata)
    for sensor in ("new_month_sensor", "approval_sensor", "production_sensor"):
        world.tick(sensor)
    assert world.approvals.record.comparisons() == before
    assert world.approvals.record.requests() == requests
    assert take_over_comparisons(world.instance, world.approvals.ledger) == 0


def test_a_wiped_asset_is_still_compared(compared_january: World) -> None:
    world = compared_january
    before = world.approvals.record.comparisons()
    for asset in ("staging_model", "base_model"):
        world.instance.wipe_assets([dg.AssetKey(asset)])
    assert world.approvals.record.comparisons() == before
    assert world.ask(JANUARY).success
    assert world.request(JANUARY).evidence == before[str(JANUARY)].evidence


def test_what_an_earlier_release_left_in_the_log_is_taken_over(
    compared_january: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever uses the ledger first does it. The log holds what that release wrote, and what nobody can read."""
    world = compared_january
    before = world.approvals.record.comparisons()
    assert world.ask(JANUARY).success
    report(world, {"evidence": "nonsense"})
    with world.approvals.ledger._begin(exclusive=True) as connection:
        standing = ("standing_uses", "standing_ends", "standing_outcomes", "standing_requests")
        alarms = ("alarm_outcomes", "alarms")
        for made_since in ("comparisons", "chain", "versions", "spent_tokens", "notices", *standing, *alarms):
            connection.exec_driver_sql(f"DROP TABLE {made_since}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with caplog.at_level(logging.WARNING), dg.build_init_resource_context(instance=world.instance) as context:
        approvals = make_resources(world.settings)["approvals"].resource_fn(context)
    taken = approvals.record.comparisons()
    assert {subject: (found.evidence, found.evidence_digest) for subject, found in taken.items()} == {
        subject: (found.evidence, found.evidence_digest) for subject, found in before.items()
    }
    assert "is left where it is" in caplog.text
