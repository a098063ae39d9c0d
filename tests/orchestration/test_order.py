"""Order: who decides on months, whose turn it is, and what a month's result depends on – never on who ran it when."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.plan import active

from taxifare.approval.channels import DeliveryError
from taxifare.gate.evidence import Evidence
from taxifare_dagster import order
from taxifare_dagster.catalog import MONTHLY_ASSETS, PRODUCTION_POOL
from tests.support.world import FEBRUARY, JANUARY, MARCH, World, failures


@pytest.fixture
def gate(started: World) -> World:
    """The base model is in production, three months are out, and the policy decides."""
    started.publisher.out = (JANUARY, FEBRUARY, MARCH)
    return started.under(approval_policy="gate")


@dataclass
class Clock:
    """The clock that Dagster goes by between steps: a pause is over at once, and noted.

    Attributes:
        pauses: The seconds of each pause.
        at_pause: What happens during a pause, by its number.
    """

    pauses: list[float] = field(default_factory=list)
    at_pause: dict[int, Callable[[], None]] = field(default_factory=dict)

    def time(self) -> float:
        return 1_000_000.0 + sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at_pause.get(len(self.pauses), lambda: None)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(active, "time", made)
    return made


class TestGate:
    """APPROVAL_POLICY=gate: months strictly one after another, each against what the one before it left."""

    @pytest.mark.slow
    def test_sensors_alone_carry_the_months_through(self, trained: World) -> None:
        trained.publisher.out = (JANUARY, FEBRUARY)
        world = trained.under(approval_policy="gate")
        tick = world.tick("new_month_sensor")
        assert tick.skip_message == "the start with base waits for its answer; no other is prepared meanwhile"
        for subject in ("base", "2015-01", "2015-02"):
            if subject != "base":
                (due,) = world.tick("new_month_sensor").run_requests
                assert due.partition_key == f"{subject}-01"
                assert failures(world.launch(due, "monthly_job")) == {}
            if subject == "2015-01":
                waits = world.tick("new_month_sensor")
                assert waits.skip_message == "2015-02 is due: new, once the policy has decided on 2015-01"
            requested = world.tick("approval_sensor").run_requests
            # What the last promotion was is told beside it.
            assert {run.job_name for run in requested} <= {"approval_job", "notice_job"}
            for run in requested:
                assert failures(world.launch(run, "approval_job")) == {}
        outcomes = [world.approvals.record.outcome(request.id) for request in world.approvals.record.requests()]
        assert [outcome and (outcome.by, outcome.state) for outcome in outcomes] == [
            ("policy gate", "approved"),
            ("policy gate", "approved"),
            ("policy gate", {"PROMOTE": "approved"}.get(world.evidence(FEBRUARY).verdict, "rejected")),
        ]
        assert world.evidence(FEBRUARY).production_version == "2", "compared with what January left"
        assert world.metadata("production_model")["decided_by"] == "policy gate"
        assert not any("Approve: " in message.text for message in world.chat.messages)

    def test_it_decides_although_the_chat_is_down(self, compared_january: World) -> None:
        world = compared_january.under(approval_policy="gate")
        world.chat.fault = DeliveryError("POST /chat answered 404 Not Found")
        assert "404" in failures(world.ask(JANUARY))["send_approval_message"]
        outcome = world.approvals.record.outcome(world.request(JANUARY).id)
        assert outcome is not None
        assert outcome.by == "policy gate"

    def test_a_month_out_of_turn_fails_at_once_and_says_which_is_first(self, gate: World) -> None:
        result = gate.run_month(MARCH)
        said = failures(result)
        assert set(said) == {"production_eval_mae", "staging_model"}
        assert said["staging_model"].startswith(
            "2015-03 comes after 2015-02, which has not been compared with the present production: "
            "APPROVAL_POLICY=gate takes months strictly one after another"
        )
        assert gate.versions() == {"1": "base"}

    def test_a_failed_month_stops_those_behind_it_visibly(self, gate: World) -> None:
        (january,) = gate.tick("new_month_sensor").run_requests
        gate.publisher.restate(JANUARY, january.run_key.removeprefix("2015-01:"), lambda trips: trips[::30])
        failed = gate.launch(january, "monthly_job")
        assert not failed.success
        assert f"run {failed.run_id} for it ended FAILURE" in str(gate.tick("new_month_sensor").skip_message)
        assert "2015-02 comes after 2015-01" in failures(gate.run_month(FEBRUARY))["staging_model"]

    def test_a_month_of_a_backfill_waits_for_the_decision_on_the_one_before(self, gate: World, clock: Clock) -> None:
        """The decision falls while February waits: in its second pause. No step is at work meanwhile."""
        assert failures(gate.run_month(JANUARY)) == {}

        def decide() -> None:
            asked = gate.approvals.request(gate.approvals.record.comparisons()["2015-01"])
            token = gate.approvals.answer_tokens(asked)["approve"]
            gate.approvals.decide(asked.id, "approve", "policy gate", "PROMOTE", token, override=True)

        clock.at_pause[2] = decide
        february = gate.run_month(FEBRUARY)
        assert failures(february) == {}
        assert clock.pauses == [order.PAUSE_S, order.PAUSE_S]
        retried = [event for event in february.all_events if event.is_step_up_for_retry]
        assert sorted(str(event.step_key) for event in retried) == 2 * ["production_eval_mae"] + 2 * ["staging_model"]
        assert "2015-02 waits for the decision on 2015-01" in str(retried[0].step_retry_data.error)
        assert gate.evidence(FEBRUARY).production_version == "2"

    @pytest.mark.slow
    def test_it_does_not_wait_for_ever(self, gate: World, clock: Clock) -> None:
        assert failures(gate.run_month(JANUARY)) == {}
        said = failures(gate.run_month(FEBRUARY))
        assert set(said) == {"production_eval_mae", "staging_model"}
        assert (
            "2015-02 waits for the decision on 2015-01, 300 s at most: is approval_sensor on" in said["staging_model"]
        )
        assert sum(clock.pauses) == 300

    @pytest.mark.slow
    def test_a_person_may_decide_in_any_order(self, started: World) -> None:
        started.publisher.out = (JANUARY, FEBRUARY, MARCH)
        assert failures(started.run_month(MARCH)) == {}


def whatever_the_files(found: Evidence) -> str:
    """The digest of evidence but for the files of versions, which name the MLflow run that wrote them."""
    scored = {name: contender for name in ("staging", "production") if (contender := getattr(found, name)) is not None}
    without = {name: contender.model_copy(update={"files_digest": None}) for name, contender in scored.items()}
    return found.model_copy(update=without).digest


@pytest.mark.slow
def test_a_month_has_the_same_challengers_whether_or_not_the_sensor_has_been_there(
    compared_january: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """January is approved; February by the sensor comes after January's whole-month retraining, by hand before it."""
    compared_january.publisher.out = (JANUARY, FEBRUARY)
    compared_january.ask_and_approve(JANUARY)
    both: dict[str, object] = {"challengers": ("warm", "whole month")}
    by_sensor, by_hand = (compared_january.copy(tmp_path_factory.mktemp("copy") / "state", **both) for _ in range(2))
    (whole,) = by_sensor.tick("new_month_sensor").run_requests
    assert failures(by_sensor.launch(whole, "whole_month_job")) == {}
    for world in (by_sensor, by_hand):
        world.publisher.out = (JANUARY, FEBRUARY)
        assert failures(world.run_month(FEBRUARY)) == {}
    assert whatever_the_files(by_hand.evidence(FEBRUARY)) == whatever_the_files(by_sensor.evidence(FEBRUARY))
    assert by_hand.versions() == by_sensor.versions()
    (late,) = by_hand.tick("new_month_sensor").run_requests
    assert failures(by_hand.launch(late, "whole_month_job")) == {}
    assert by_hand.versions() == by_sensor.versions(), "it is there already"


@pytest.mark.parametrize("assets", [MONTHLY_ASSETS, ("staging_model",)])
def test_several_months_in_one_run_are_refused(compared_january: World, assets: tuple[str, ...]) -> None:
    """The UI's "Single run" over a range."""
    compared_january.publisher.out = (JANUARY, FEBRUARY)
    before = compared_january.lake()
    result = compared_january.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=compared_january.instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        tags={
            "dagster/asset_partition_range_start": "2015-01-01",
            "dagster/asset_partition_range_end": "2015-02-01",
        },
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert not result.success
    said = "\n".join(failures(result).values())
    why = "this one is of 2015-01-01 to 2015-02-01: each month has its own comparison"
    assert why in said
    assert compared_january.lake() == before

    # Nobody has to wait for a second try, and the notice says what to do instead.
    run = compared_january.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["dagster/max_retries"] == "0"
    asked = compared_january.tick("approval_sensor").run_requests
    (notice,) = [one for one in asked if one.job_name == "notice_job"]
    assert failures(compared_january.launch(notice, "notice_job")) == {}
    (told,) = [message.text for message in compared_january.chat.messages if why in message.text]
    assert "What to do: run what it says instead" in told


def test_a_month_says_what_it_was_compared_with_and_what_it_rehearsed(compared_january: World) -> None:
    assert compared_january.metadata("production_eval_mae", JANUARY)["production_version"] == "1"
    assert compared_january.metadata("staging_model", JANUARY)["production_version"] == "1"
    assert set(compared_january.metadata("rehearsal_trips", JANUARY)["editions"]) == {"base"}
    assert compared_january.evidence(JANUARY).production_version == "1"


def test_whatever_trains_takes_turns(started: World) -> None:
    """Two cores: one month, one study, one step that trains from production; each job says which it is."""
    limits = yaml.safe_load((Path(order.__file__).parent / "dagster.yaml").read_text())["concurrency"]
    limited = {(limit["key"], limit.get("value")): limit["limit"] for limit in limits["runs"]["tag_concurrency_limits"]}
    assert set(limited.values()) == {1}
    assert ("dagster/backfill", None) in limited
    jobs = {"base_job": "monthly", "monthly_job": "monthly", "whole_month_job": "monthly"}
    jobs |= {"tuning_job": "study", "replay_job": "study"}
    for job, kind in jobs.items():
        assert started.definitions.resolve_job_def(job).tags["taxifare/pipeline"] == kind
        assert ("taxifare/pipeline", kind) in limited
    for asset in ("base_model", "staging_model"):
        assert started.definitions.resolve_assets_def(asset).op.pool == PRODUCTION_POOL
    assert limits["pools"] == {"default_limit": 1, "granularity": "op"}


def test_under_a_standing_approval_a_person_agrees_once_and_months_follow(compared_january: World) -> None:
    world = compared_january.under(approval_policy="standing")
    world.publisher.out = (JANUARY, FEBRUARY)
    for run in world.tick("approval_sensor").run_requests:
        assert failures(world.launch(run, "approval_job")) == {}
    asked = next(sent for sent in world.chat.messages if sent.key.startswith("Standing approval"))
    with world.approvals.ledger.reading() as entries:
        (waiting,) = entries.standing_requests()
    token = world.approvals.answer_tokens(waiting)["approve"]
    assert token in dict(asked.links)["Approve"]
    answer = {"request": waiting.id, "token": token, "decision": "approve", "decided_by": "Ada", "reason": "fair terms"}
    assert failures(world.run("decision_job", ops={"decide": answer})) == {}
    assert world.answer(world.request(JANUARY)).success

    assert failures(world.run_month(FEBRUARY)) == {}
    hindsight = world.evidence(FEBRUARY).hindsight
    assert hindsight is not None
    assert (hindsight.replaced_version, hindsight.gain.low > 0) == ("1", True), "January's fares rose"
    for run in world.tick("approval_sensor").run_requests:
        assert failures(world.launch(run, "approval_job")) == {}
    outcome = world.approvals.record.outcome(world.request(FEBRUARY).id)
    assert outcome is not None
    assert outcome.by == f"standing approval {waiting.id}"
    question = next(sent.text for sent in world.chat.messages if sent.text.splitlines()[1].startswith("2015-02: "))
    assert "Looking back: version 2 saves 0." in question
    assert "Approve: " not in question
