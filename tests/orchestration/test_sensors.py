"""What the sensors ask for: the right month, one at a time, and a person's answer to everything once."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import patch
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from taxifare.approval.channels import DeliveryError
from taxifare.gate.evidence import Verdict
from taxifare.model.exposure import Exposure
from taxifare.model.store import RegistryError
from taxifare.monitoring import calendar
from taxifare.sources.base import NoBaseError, SourceError
from taxifare.sources.whole_months import NotWholeError, take, whole_month
from taxifare_dagster import sensors
from tests.support.bundles import put_in_force
from tests.support.world import FEBRUARY, JANUARY, MARCH, World, failures

LEARNED_2014 = Exposure(
    subject="base", revision="r", first_pickup=datetime(2014, 1, 1), last_pickup=datetime(2014, 12, 31, 23, 59)
)


def days_until(day: date) -> int:
    """How far the clock is moved so that it is that day in New York, where it is another one than in UTC at night."""
    ahead = (day - datetime.now(UTC).date()).days
    there = (datetime.now(UTC) + timedelta(days=ahead)).astimezone(ZoneInfo("America/New_York")).date()
    return ahead + (day - there).days


class TestNewMonthSensor:
    def test_first_of_all_requests_the_base_model(self, empty: World) -> None:
        (requested,) = empty.tick("new_month_sensor").run_requests
        assert (requested.job_name, requested.partition_key) == ("base_job", None)
        assert requested.run_key == f"base:{empty.publisher.base_revision()}"

    def test_requests_the_oldest_month_that_is_new(self, started: World) -> None:
        started.publisher.out = (JANUARY, FEBRUARY)
        with patch.object(started.publisher, "months", wraps=started.publisher.months) as months:
            (requested,) = started.tick("new_month_sensor").run_requests
        assert months.call_count == 1, "the source is asked once a tick"
        assert (requested.job_name, requested.partition_key) == ("monthly_job", "2015-01-01")
        assert requested.run_key == f"2015-01:{started.publisher.months()[JANUARY]}"
        assert requested.tags["taxifare/because"] == "2015-01 is due: new"

    def test_then_the_next_one(self, compared_january: World) -> None:
        compared_january.publisher.out = (JANUARY, FEBRUARY)
        (requested,) = compared_january.tick("new_month_sensor").run_requests
        assert requested.partition_key == "2015-02-01"

    def test_requests_the_same_until_it_is_run(self, started: World) -> None:
        keys = {started.tick("new_month_sensor").run_requests[0].run_key for _ in range(2)}
        assert len(keys) == 1

    def test_without_base_years_the_first_month_is_a_cold_start(self, empty: World) -> None:
        empty.publisher.base_fault = NoBaseError("the folder has no base years")
        (requested,) = empty.tick("new_month_sensor").run_requests
        assert (requested.job_name, requested.partition_key) == ("monthly_job", "2015-01-01")

    def test_base_years_that_cannot_be_asked_for_are_no_cold_start(self, empty: World) -> None:
        empty.publisher.base_fault = SourceError("503 Service Unavailable; given up after 5 attempts")
        tick = empty.tick("new_month_sensor")
        assert not tick.run_requests
        assert tick.skip_message == (
            "the source of trips cannot tell: 503 Service Unavailable; given up after 5 attempts"
        )

    def test_nor_is_a_month_that_somebody_runs_by_hand_meanwhile(self, empty: World) -> None:
        empty.publisher.base_fault = SourceError("503 Service Unavailable; given up after 5 attempts")
        told = failures(empty.run_month(JANUARY))
        assert [step for step in told if "503 Service Unavailable" in told[step]] == [
            "production_eval_mae",
            "staging_model",
        ]

    def test_months_outside_the_partitions_are_left_alone(self, compared_january: World) -> None:
        compared_january.publisher.out = (JANUARY - 1, JANUARY, JANUARY + 6)
        compared_january.publisher.restate(JANUARY - 1, "before the first")
        compared_january.publisher.restate(JANUARY + 6, "after the last")
        assert not compared_january.tick("new_month_sensor").run_requests

    def test_a_month_that_is_not_whole_waits_until_somebody_takes_it(self, started: World) -> None:
        """It says why, without reading it again; taken, it is requested under a key of its own."""
        started.publisher.out = (JANUARY, FEBRUARY)
        started.publisher.restate(JANUARY, "half", lambda trips: trips.head(len(trips) // 2))
        settings, lake = started.settings, started.settings.lake
        (requested,) = started.tick("new_month_sensor").run_requests
        with pytest.raises(NotWholeError):
            whole_month(started.publisher, JANUARY, settings, lake)
        tick = started.tick("new_month_sensor")
        assert not tick.run_requests
        assert "2015-01 is due: new, but month 2015-01 is not whole yet: its last ride begins" in tick.skip_message
        assert tick.skip_message.endswith('taxifare take 2015-01 --by YOU --reason "WHY"; later months wait')
        take(started.publisher, JANUARY, settings, lake, by="Ada", reason="a strike")
        (taken,) = started.tick("new_month_sensor").run_requests
        assert taken.run_key == f"{requested.run_key}:taken"

    def test_says_when_nothing_is_new(self, compared_january: World) -> None:
        tick = compared_january.tick("new_month_sensor")
        assert not tick.run_requests
        assert tick.skip_message == "1 month is published and none is new, restated or to be compared anew"

    @pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
    @pytest.mark.parametrize("started_by", ["monthly_job", "base_job", "__ASSET_JOB"])
    def test_waits_for_the_run_at_work_whoever_started_it(
        self, started: World, status: dg.DagsterRunStatus, started_by: str
    ) -> None:
        selection = frozenset({dg.AssetKey("staging_model")}) if started_by == "__ASSET_JOB" else None
        run = create_run_for_test(started.instance, started_by, status=status, asset_selection=selection)
        tick = started.tick("new_month_sensor")
        assert not tick.run_requests
        assert tick.skip_message == f"run {run.run_id} is at work; one month is run at a time"

    def test_as_many_months_are_at_work_as_the_instance_lets_run_beside_each_other(self, started: World) -> None:
        """On machines enough for two, by `dagster.yaml` alone; a model that is retrained is waited for."""
        configuration = started.settings.home / "dagster" / "dagster.yaml"
        limit = "value: monthly\n        limit: {}"
        configuration.write_text(configuration.read_text().replace(limit.format(1), limit.format(2)))
        started.publisher.out = (JANUARY, FEBRUARY, MARCH)
        at_work = []
        for month in (JANUARY, FEBRUARY):
            (requested,) = started.tick("new_month_sensor").run_requests
            assert requested.partition_key == f"{month}-01"
            tags = {"dagster/partition": requested.partition_key, "dagster/run_key": str(requested.run_key)}
            waiting = dg.DagsterRunStatus.NOT_STARTED
            at_work.append(create_run_for_test(started.instance, "monthly_job", status=waiting, tags=tags))
        third = started.tick("new_month_sensor")
        assert not third.run_requests
        assert third.skip_message.endswith("is at work; 2 months are run at a time")
        started.instance.report_run_canceled(at_work[0])
        assert "for it ended CANCELED; re-execute it" in started.tick("new_month_sensor").skip_message
        create_run_for_test(started.instance, "whole_month_job", status=dg.DagsterRunStatus.STARTED)
        started.instance.delete_run(at_work[1].run_id)
        assert started.tick("new_month_sensor").skip_message.endswith("is at work; what comes next waits for its end")

    def test_where_the_policy_decides_months_follow_one_another_however_many_could_run(self, started: World) -> None:
        configuration = started.settings.home / "dagster" / "dagster.yaml"
        limit = "value: monthly\n        limit: {}"
        configuration.write_text(configuration.read_text().replace(limit.format(1), limit.format(2)))
        world = started.under(approval_policy="gate")
        world.publisher.out = (JANUARY, FEBRUARY)
        tags = {"dagster/partition": f"{JANUARY}-01"}
        create_run_for_test(world.instance, "monthly_job", status=dg.DagsterRunStatus.STARTED, tags=tags)
        tick = world.tick("new_month_sensor")
        assert not tick.run_requests
        assert tick.skip_message == "2015-02 is due: new, once the policy has decided on 2015-01"

    def test_a_message_being_sent_holds_nothing_back(self, started: World) -> None:
        create_run_for_test(started.instance, "approval_job", status=dg.DagsterRunStatus.STARTED)
        assert started.tick("new_month_sensor").run_requests

    def test_a_restated_month_is_run_again_under_a_key_of_its_own(self, compared_january: World) -> None:
        compared_january.publisher.restate(JANUARY, "r2")
        (again,) = compared_january.tick("new_month_sensor").run_requests
        assert again.partition_key == "2015-01-01"
        assert again.run_key.startswith("2015-01:r2:after ")
        assert again.tags["taxifare/because"] == "2015-01 is due: restated"

    def test_a_month_that_failed_holds_the_later_ones_back_and_says_what_to_do(self, started: World) -> None:
        started.publisher.out = (JANUARY, FEBRUARY)
        (requested,) = started.tick("new_month_sensor").run_requests
        started.publisher.restate(JANUARY, requested.run_key.removeprefix("2015-01:"), lambda trips: trips[::30])
        failed = started.launch(requested, "monthly_job")
        assert not failed.success
        tick = started.tick("new_month_sensor")
        assert not tick.run_requests
        assert tick.skip_message == (
            f"2015-01 is due: new, but run {failed.run_id} for it ended FAILURE; "
            "re-execute it from its page, later months wait"
        )
        started.publisher.restate(JANUARY, "mended")
        (mended,) = started.tick("new_month_sensor").run_requests
        assert (mended.run_key, mended.partition_key) == ("2015-01:mended", "2015-01-01"), "by itself"

    def test_a_source_out_of_reach_is_said_in_its_own_words(self, started: World) -> None:
        started.publisher.fault = SourceError("/published: expected a folder of trip files, received Stale file handle")
        tick = started.tick("new_month_sensor")
        assert not tick.run_requests
        assert str(tick.skip_message).endswith("Stale file handle")

    def test_nothing_behind_a_month_of_which_the_source_cannot_tell_is_run(self, compared_january: World) -> None:
        """February is a link to nothing, March is there: what is older goes on, nothing later does."""
        city, trips = compared_january.publisher.city, compared_january.settings.home / "trips"
        trips.mkdir()
        for month in (JANUARY, MARCH):
            city.read_month(month).trips.to_parquet(trips / f"taxi_{month.start_time:%Y_%m}.parquet")
        world = compared_january.reading(trips)
        (restated,) = world.tick("new_month_sensor").run_requests
        assert restated.partition_key == "2015-01-01", "a file is another edition than the city's own"
        assert failures(world.launch(restated, "monthly_job")) == {}, "March is no hindrance to January"

        hole = world.tick("new_month_sensor")
        assert not hole.run_requests
        assert "cannot tell whether month 2015-02 is published: 2015-03 is, and this is not" in str(hole.skip_message)
        (trips / "taxi_2015_02.csv").symlink_to(trips / "nowhere")
        assert "received a link to nothing" in str(world.tick("new_month_sensor").skip_message)
        assert "cannot tell" in failures(world.run_month(MARCH))["rehearsal_trips"], "nor by hand"

        (trips / "taxi_2015_02.csv").unlink()
        city.read_month(FEBRUARY).trips.to_parquet(trips / "taxi_2015_02.parquet")
        (requested,) = world.tick("new_month_sensor").run_requests
        assert requested.partition_key == "2015-02-01"

    def test_an_mlflow_out_of_reach_fails_the_tick_and_requests_no_base_model(
        self, empty: World, closed_port: int
    ) -> None:
        world = empty.under(mlflow_tracking_uri=f"http://127.0.0.1:{closed_port}")
        with pytest.raises(RegistryError, match="failed with exception"):
            world.tick("new_month_sensor")


class TestMonthlySchedule:
    """For those who want one run a month at a known hour: what the sensor would request, and never twice."""

    def test_is_off_by_default(self, empty: World) -> None:
        schedule = empty.definitions.get_repository_def().get_schedule_def("monthly_schedule")
        assert (schedule.default_status, schedule.job_name) == (dg.DefaultScheduleStatus.STOPPED, "monthly_job")

    def test_requests_what_the_sensor_would(self, started: World) -> None:
        started.publisher.out = (JANUARY, FEBRUARY)
        (by_date,) = started.tick_of("monthly_schedule").run_requests
        (by_sensor,) = started.tick("new_month_sensor").run_requests
        assert (by_date.run_key, by_date.partition_key) == (by_sensor.run_key, "2015-01-01")

    def test_the_base_model_comes_first(self, empty: World) -> None:
        assert empty.tick_of("monthly_schedule").skip_message == (
            "the base model comes before the first month: launch base_job"
        )

    def test_says_why_it_requests_nothing(self, started: World) -> None:
        started.publisher.fault = SourceError("503 Service Unavailable; given up after 5 attempts")
        assert started.tick_of("monthly_schedule").skip_message == (
            "the source of trips cannot tell: 503 Service Unavailable; given up after 5 attempts"
        )
        run = create_run_for_test(started.instance, "monthly_job", status=dg.DagsterRunStatus.STARTED)
        assert started.tick_of("monthly_schedule").skip_message == (
            f"run {run.run_id} is at work; one month is run at a time"
        )


class TestApprovalSensor:
    def test_asks_about_the_base_model_once(self, trained: World) -> None:
        (requested,) = trained.tick("approval_sensor").run_requests
        assert requested.run_config["ops"]["send_approval_message"]["config"] == {"subject": "base"}
        assert failures(trained.launch(requested, "approval_job")) == {}
        assert len(trained.chat.messages) == 1

        tick = trained.tick("approval_sensor")
        assert not tick.run_requests
        assert tick.skip_message == "everybody has been told"

    def test_asks_about_a_month_once(self, compared_january: World) -> None:
        (requested,) = compared_january.tick("approval_sensor").run_requests
        assert failures(compared_january.launch(requested, "approval_job")) == {}
        assert not compared_january.tick("approval_sensor").run_requests
        assert [message.key for message in compared_january.chat.messages] == [
            f"Request {compared_january.request(JANUARY).id}"
        ]

    def test_asks_about_a_month_run_from_the_ui(self, compared_january: World) -> None:
        """The UI runs assets through Dagster's implicit job, without the tags and the name of `monthly_job`."""
        assert compared_january.ask(JANUARY).success
        earlier = compared_january.request(JANUARY)
        world = compared_january.under(minimum_gain=100.0)
        ui = world.definitions.resolve_implicit_global_asset_job_def()
        result = ui.execute_in_process(
            instance=world.instance,
            partition_key="2015-01-01",
            asset_selection=[dg.AssetKey("staging_model")],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert failures(result) == {}
        assert world.evidence(JANUARY).verdict is Verdict.HOLD

        (requested,) = world.tick("approval_sensor").run_requests
        assert failures(world.launch(requested, "approval_job")) == {}
        outcome = world.approvals.record.outcome(earlier.id)
        assert outcome is not None
        assert outcome.state == "void"
        assert not world.tick("approval_sensor").run_requests

    def test_does_not_ask_while_a_message_is_on_its_way(self, compared_january: World) -> None:
        (requested,) = compared_january.tick("approval_sensor").run_requests
        create_run_for_test(
            compared_january.instance, "approval_job", status=dg.DagsterRunStatus.STARTING, tags=requested.tags
        )
        tick = compared_january.tick("approval_sensor")
        assert not tick.run_requests
        assert tick.skip_message == "1 message: being worked on, or waiting for another try"

    def test_tries_again_after_growing_pauses_until_it_arrives(
        self, compared_january: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(late_s=0.0)
        now = sensors.time.time
        monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: now() + clock.late_s))
        compared_january.chat.fault = DeliveryError("POST /chat answered 404 Not Found")

        run_keys = []
        for pause_s in (30.0, 60.0, 120.0):
            (requested,) = compared_january.tick("approval_sensor").run_requests
            run_keys.append(requested.run_key)
            assert (
                "404 Not Found" in failures(compared_january.launch(requested, "approval_job"))["send_approval_message"]
            )
            clock.late_s = pause_s - 10
            assert not compared_january.tick("approval_sensor").run_requests
            clock.late_s = pause_s + 10
        assert len(set(run_keys)) == 3
        requests = [request for request in compared_january.approvals.record.requests() if request.subject == "2015-01"]
        assert len(requests) == 1

        compared_january.chat.fault = None
        (requested,) = compared_january.tick("approval_sensor").run_requests
        assert failures(compared_january.launch(requested, "approval_job")) == {}
        clock.late_s = 7200
        assert not compared_january.tick("approval_sensor").run_requests
        assert len(compared_january.chat.messages) == 1

    def test_pauses_grow_to_an_hour_and_no_further(
        self, compared_january: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (requested,) = compared_january.tick("approval_sensor").run_requests
        for _ in range(12):
            run = create_run_for_test(compared_january.instance, "approval_job", tags=requested.tags)
            compared_january.instance.report_run_failed(run)
        now = sensors.time.time
        for minutes, is_asked in ((59, False), (61, True)):
            late = SimpleNamespace(time=lambda minutes=minutes: now() + 60 * minutes)
            monkeypatch.setattr(sensors, "time", late)
            assert bool(compared_january.tick("approval_sensor").run_requests) is is_asked


class TestProductionSensor:
    def test_shows_decisions_made_outside_dagster(self, compared_january: World) -> None:
        assert not compared_january.tick("production_sensor").asset_events
        assert compared_january.ask(JANUARY).success
        request = compared_january.request(JANUARY)
        token = compared_january.approvals.answer_tokens(request)["approve"]
        compared_january.approvals.decide(request.id, "approve", "Grace", "by command", token)
        (shown,) = compared_january.tick("production_sensor").asset_events
        assert shown.asset_key == dg.AssetKey("production_model")
        assert (shown.metadata["version"].value, shown.metadata["decided_by"].value) == ("2", "Grace")


def test_sensors_alone_carry_a_month_into_production(trained: World) -> None:
    """The base model's question; January, its question: each asked for by a sensor, each answered by Ada."""
    (question,) = trained.tick("approval_sensor").run_requests
    assert failures(trained.launch(question, "approval_job")) == {}
    assert failures(trained.answer(trained.request("base"))) == {}

    (notice,) = trained.tick("approval_sensor").run_requests
    assert failures(trained.launch(notice, "notice_job")) == {}

    (due,) = trained.tick("new_month_sensor").run_requests
    assert failures(trained.launch(due, "monthly_job")) == {}
    (question,) = trained.tick("approval_sensor").run_requests
    assert failures(trained.launch(question, "approval_job")) == {}
    assert failures(trained.answer(trained.request(JANUARY))) == {}
    (notice,) = trained.tick("approval_sensor").run_requests
    assert failures(trained.launch(notice, "notice_job")) == {}

    assert trained.approvals.production() == "2"
    base, january = trained.request("base").id, trained.request(JANUARY).id
    keys = [message.key for message in trained.chat.messages]
    assert keys == [f"Request {base}", "Promotion 1", f"Request {january}", "Promotion 2"]
    for sensor in ("new_month_sensor", "approval_sensor", "production_sensor"):
        tick = trained.tick(sensor)
        assert [*(tick.run_requests or ()), *(tick.asset_events or ())] == [], sensor


class TestCalendarSensor:
    def test_a_rule_that_production_has_not_learned_is_told_before_its_day_and_once(self, started: World) -> None:
        """The base model ends with 2014; bridge tolls rise on 22 March 2015."""
        put_in_force(started.settings, "1", 1, [LEARNED_2014])
        started.clock_ahead_days = days_until(date(2015, 3, 10))
        with patch.object(calendar, "read_manifest", wraps=calendar.read_manifest) as manifest:
            tick = started.tick("calendar_sensor")
        assert manifest.call_count == 1, "the lake is asked once a tick"
        (requested,), (shown,) = tick.run_requests, tick.asset_events
        assert (shown.check_name, shown.passed) == ("knows_the_rules", False)
        assert "tolls_2015_03, in 12 days, on 2015-03-22" in shown.description
        assert failures(started.launch(requested, "notice_job")) == {}
        (told,) = [message for message in started.chat.messages if message.text.startswith("Not learned")]
        assert told.key == "Rule tolls_2015_03 and version 1"
        assert (
            "does not account for rules" not in told.text
        )  # no month has been compared: nothing says how hard rides are
        again = started.tick("calendar_sensor")
        assert not again.run_requests

    def test_nothing_is_told_where_no_rule_is_near(self, started: World) -> None:
        put_in_force(started.settings, "1", 1, [LEARNED_2014])
        started.clock_ahead_days = days_until(date(2015, 2, 1))
        tick = started.tick("calendar_sensor")
        assert not tick.run_requests
        assert tick.skip_message == "version 1 has learned every dated rule in force by 2015-02-15"
