"""Messages as people get them: in a default installation, and when something has gone wrong."""

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from taxifare.approval.channels import DeliveryError
from taxifare_dagster.build import build_definitions
from tests.support.world import JANUARY, Chat, World, failures


class TestWithoutAnyChannel:
    def test_the_runs_log_shows_the_question_with_its_links_and_that_is_on_record(self, trained: World) -> None:
        job = build_definitions(trained.settings, source=trained.publisher).resolve_job_def("approval_job")
        result = job.execute_in_process(
            instance=trained.instance,
            run_config={"ops": {"send_approval_message": {"config": {"subject": "base"}}}},
        )
        assert result.success
        asked = trained.request("base")
        (shown,) = [entry for entry in log_of(trained.instance, result.run_id) if f"Request {asked.id}" in entry]
        assert "Evaluation MAE: none - New training MAE: " in shown
        for token in trained.approvals.answer_tokens(asked).values():
            assert token in shown
        with trained.approvals.ledger.reading() as entries:
            assert [delivery.channel for delivery in entries.deliveries(asked.id)] == ["run log"]

    def test_with_a_channel_the_log_shows_no_token(self, trained: World) -> None:
        result = trained.ask("base")
        tokens = trained.approvals.answer_tokens(trained.request("base")).values()
        assert not any(token in entry for token in tokens for entry in log_of(trained.instance, result.run_id))


class TestFaults:
    def test_a_failed_month_is_told_once_with_its_error_and_what_to_do(self, started: World) -> None:
        (due,) = started.tick("new_month_sensor").run_requests
        revision = str(due.run_key).removeprefix("2015-01:")
        started.publisher.restate(JANUARY, revision, lambda trips: trips[::30])
        failed = started.launch(due, "monthly_job")
        assert not failed.success

        tell_what_is_due(started)
        lines = started.chat.messages[-1].text.splitlines()
        assert lines[0] == "Failed: monthly_job, 2015-01"
        origin = started.publisher.city.read_month(JANUARY).origin
        assert lines[1] == (
            f"Why: raw_new_data_checks: 2015-01, {origin}: expected at least 100 trips in 2015-01 (MINIMUM_TRIPS=100), "
            "received 50: add those that are missing, or set a lower MINIMUM_TRIPS"
        )
        assert lines[2] == (
            "What to do: fix the cause: a mended file is run by itself, after anything else re-execute the run from "
            "its page; later months wait until then"
        )
        assert f"See: {started.settings.dagster_url}/runs/{failed.run_id}" in lines
        assert lines[-1] == f"Failure of run {failed.run_id}"
        assert not started.tick("approval_sensor").run_requests
        assert failures(started.run("notice_job")) == {}
        assert len(started.chat.messages) == 1

    def test_a_dead_channel_hides_no_other_and_its_own_failures_are_not_told(self, started: World) -> None:
        fail(started, "__ASSET_JOB", assets=("staging_model",), tags={"dagster/partition": "2015-01-01"})
        other = Chat("other")
        started.more_chats.append(other)
        started.chat.fault = DeliveryError("POST /chat answered 404 Not Found")
        (requested,) = [run for run in started.tick("approval_sensor").run_requests if run.job_name == "notice_job"]
        assert "404 Not Found" in failures(started.launch(requested, "notice_job"))["send_notices"]
        told = [message.text for message in other.messages if message.key.startswith("Failure")]
        assert [text.splitlines()[0] for text in told] == ["Failed: staging_model, 2015-01"]

        started.chat.fault = None
        assert failures(started.run("notice_job")) == {}
        for chat in (started.chat, other):
            assert len([message for message in chat.messages if message.key.startswith("Failure")]) == 1

    def test_a_stopped_run_stops_the_chain_which_is_told(self, started: World) -> None:
        (due,) = started.tick("new_month_sensor").run_requests
        run = create_run_for_test(started.instance, "monthly_job", tags={"dagster/run_key": str(due.run_key)})
        started.instance.report_run_canceled(run)
        assert not started.tick("new_month_sensor").run_requests
        tell_what_is_due(started)
        assert started.chat.messages[-1].text.startswith("Stopped: monthly_job\n")
        assert "later months wait until then" in started.chat.messages[-1].text

    def test_a_backfill_that_fails_is_told_once(self, started: World) -> None:
        for month in ("2015-01-01", "2015-02-01", "2015-03-01"):
            fail(started, "monthly_job", tags={"dagster/backfill": "abcd", "dagster/partition": month})
        tell_what_is_due(started)
        (told,) = started.chat.messages
        assert told.key == "Failure of backfill abcd"

    @pytest.mark.parametrize("job", ["approval_job", "notice_job", "decision_job"])
    def test_messages_and_answers_that_failed_are_not_told_besides(self, started: World, job: str) -> None:
        fail(started, job)
        assert not started.tick("approval_sensor").run_requests

    def test_what_dagster_runs_again_by_itself_is_not_told(self, started: World) -> None:
        fail(started, "monthly_job", tags={"dagster/max_retries": "1"})
        assert not started.tick("approval_sensor").run_requests

    def test_a_damaged_production_is_told_once_with_the_way_out(self, started: World) -> None:
        assert started.tick("damage_sensor").skip_message == "the files of production are those that were registered"
        for file in (started.settings.home / "mlflow").rglob("*.keras"):
            file.write_bytes(b"somebody else's")
        (requested,) = started.tick("damage_sensor").run_requests
        assert failures(started.launch(requested, "notice_job")) == {}
        (told,) = started.chat.messages
        assert told.text.startswith(
            "Damaged: version 1, which is in production\nWhy: version 1 cannot be loaded: its files"
        )
        assert "taxifare rollback --to VERSION (or none)" in told.text
        assert started.tick("damage_sensor").skip_message == "the message has been sent, or is being sent"


def tell_what_is_due(world: World) -> None:
    """Runs what the sensor requests for messages that need no answer."""
    (requested,) = world.tick("approval_sensor").run_requests
    assert failures(world.launch(requested, "notice_job")) == {}


def fail(world: World, job: str, assets: tuple[str, ...] = (), tags: dict[str, str] | None = None) -> None:
    """Leaves a run that has failed."""
    selection = frozenset(map(dg.AssetKey, assets)) or None
    # What is killed is run again by Dagster, once: this was the last time.
    tags = {"dagster/max_retries": "0"} | (tags or {})
    run = create_run_for_test(world.instance, job, asset_selection=selection, tags=tags)
    world.instance.report_run_failed(run, "The process that executed this run is gone")


def log_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What a run's page shows."""
    return [entry.user_message for entry in instance.all_logs(run_id)]
