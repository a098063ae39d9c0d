"""Messages as people get them: in a default installation, and when something has gone wrong."""

import dagster as dg

from taxifare_dagster.build import build_definitions
from tests.support.world import World


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


def log_of(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What a run's page shows."""
    return [entry.user_message for entry in instance.all_logs(run_id)]
