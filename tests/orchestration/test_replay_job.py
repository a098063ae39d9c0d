"""Replay as assets, and replay against the lifecycle itself: the same months, run and approved one after another."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from taxifare.gate.evidence import Evidence, Verdict
from taxifare.replay.policies import policies_of
from taxifare.replay.replaying import replay
from tests.support.world import FEBRUARY, JANUARY, World, failures

MONTHS = (JANUARY, FEBRUARY)


def lived(world: World) -> list[Evidence]:
    """The months as the assets judge them, and a person who follows the verdict."""
    found = []
    for month in MONTHS:
        assert failures(world.run_month(month)) == {}
        found.append(world.evidence(month))
        if found[-1].verdict is Verdict.PROMOTE:
            world.ask_and_approve(month)
    return found


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has TensorFlow, and its networks are plain, as the lifecycle's; work in others is tested in tests/domain.

    All in one thread: a process keeps one network of a lineage, and two fits of it at once would be one of neither.
    """
    only = ThreadPoolExecutor(1)
    monkeypatch.setattr("taxifare.workers._started", lambda: only)


@pytest.mark.slow
def test_the_gate_replayed_is_the_lifecycle(started: World) -> None:
    world = started.under(challengers=("warm", "whole month"))
    world.publisher.out = MONTHS
    evidences = lived(world)
    found = replay(world.publisher, world.settings, first=JANUARY, last=FEBRUARY, policies=policies_of(["gate"]))
    assert any(decision.is_promoted for decision in found.decisions)
    for decision, evidence, facts in zip(found.decisions, evidences, found.months, strict=True):
        assert evidence.production is not None
        assert decision.verdict is evidence.verdict
        assert decision.production_mae == pytest.approx(evidence.production.scores.mae, rel=1e-5)
        assert decision.staging_mae == pytest.approx(evidence.staging.scores.mae, rel=1e-5)
        assert facts.difficulty_mae == pytest.approx(evidence.difficulty_mae, rel=1e-9)
        assert facts.validation_trips == evidence.staging.scores.trips
    for (before, after), (earlier, later) in zip(pairwise(evidences), pairwise(found.decisions), strict=True):
        has_moved = before.production_version != after.production_version
        assert has_moved == earlier.is_promoted == (earlier.production != later.production)


def test_the_job_replays_and_writes_the_report(empty: World) -> None:
    empty.publisher.out = MONTHS
    config = {"first": "2015-01", "last": "2015-02", "policies": ["gate", "never"]}
    result = empty.run("replay_job", ops={"replayed_months": config})
    assert failures(result) == {}
    months = empty.metadata("replayed_months")
    assert months["months"] == 2
    assert [record.data["policy"] for record in months["summary"].records] == ["gate", "never"]
    shown = empty.metadata("replay_report")
    assert "under the policy “gate”" in shown["headline"].replace("Under", "under")
    report = empty.settings.lake / "reports" / "replay.html"
    assert shown["report"] == Path(report.path).as_uri()
    assert shown["headline"] in report.read_text()
    assert all(shown[name].startswith("![plot](data:image/png") for name in ("errors", "staleness", "matrix"))
    log = [record.user_message for record in empty.instance.all_logs(result.run_id)]
    assert any("2015-02: 2 of 2 months" in line for line in log)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"first": "2015-1"}, "expected a month written YYYY-MM, received '2015-1'"),
        (
            {"policies": ["sometimes"]},
            "'naive' or 'threshold', received 'sometimes'",
        ),
        ({"challengers": ["cold"]}, "expected 'warm', 'whole month', 'recent' or 'since rule', received 'cold'"),
    ],
)
def test_a_question_that_makes_no_sense_fails_with_its_reason(
    empty: World, asked: dict[str, object], said: str
) -> None:
    assert said in failures(empty.run("replay_job", ops={"replayed_months": asked}))["replayed_months"]
