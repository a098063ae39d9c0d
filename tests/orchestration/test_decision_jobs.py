"""From the message to production: answers that count, answers that do not, and the way back."""

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.test_utils import create_run_for_test

from taxifare.approval.channels import DeliveryError
from taxifare.approval.records import RequestState
from tests.support.ui import config_of
from tests.support.world import FEBRUARY, JANUARY, Chat, World, failures


@pytest.fixture
def asked(compared_january: World) -> World:
    """A person has been asked about January."""
    assert failures(compared_january.ask(JANUARY)) == {}
    return compared_january


def test_approving_makes_exactly_the_shown_version_production(asked: World) -> None:
    request = asked.request(JANUARY)
    result = asked.answer(request)
    assert failures(result) == {}
    assert asked.approvals.production() == asked.registry.production_version() == request.staging_version == "2"

    (materialization,) = result.get_asset_materialization_events()
    assert materialization.asset_key == dg.AssetKey("production_model")
    shown = asked.metadata("production_model")
    assert (shown["version"], shown["replaced_version"], shown["kind"]) == ("2", "1", "promotion")
    assert (shown["decided_by"], shown["reason"]) == ("Ada", "I looked at the slices")
    assert shown["request"] == request.id


def test_rejecting_leaves_production_alone(asked: World) -> None:
    request = asked.request(JANUARY)
    result = asked.answer(request, "reject")
    assert failures(result) == {}
    assert asked.approvals.production() == "1"
    assert not result.get_asset_materialization_events()
    outcome = asked.approvals.record.outcome(request.id)
    assert outcome is not None
    assert (outcome.state, outcome.by) == ("rejected", "Ada")


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"token": "0" * 32}, "the token does not permit to approve"),
        ({"decided_by": " "}, "expected who decides and why, received nothing for who decides"),
        ({"reason": ""}, "expected who decides and why, received nothing for why"),
        ({"decided_by": "YOU", "reason": "WHY"}, "received YOU for who decides and WHY for why"),
        ({"request": "2015-01-v2-0000"}, "there is no request '2015-01-v2-0000'"),
    ],
)
def test_an_answer_that_does_not_count_fails_and_is_on_record(
    asked: World, changes: dict[str, object], refusal: str
) -> None:
    request = asked.request(JANUARY)
    result = asked.answer(request, **changes)
    assert refusal in failures(result)["decide"]
    assert asked.approvals.production() == asked.registry.production_version() == "1"
    assert asked.approvals.record.outcome(request.id) is None
    with asked.approvals.ledger.reading() as entries:
        (recorded,) = entries.refusals()
    assert refusal in recorded.why
    assert recorded.decision == "approve"


def test_approving_against_the_verdict_takes_an_override(compared_january: World) -> None:
    world = compared_january.under(minimum_gain=100.0)
    assert failures(world.run("monthly_job", month=JANUARY, assets=["staging_model"])) == {}
    assert failures(world.ask(JANUARY)) == {}
    request = world.request(JANUARY)
    assert "takes an override" in failures(world.answer(request))["decide"]
    assert world.registry.production_version() == "1"
    assert failures(world.answer(request, override=True)) == {}
    assert world.registry.production_version() == "2"


def test_an_answer_twice_is_one_answer_and_a_second_opinion_is_refused(asked: World) -> None:
    request = asked.request(JANUARY)
    assert failures(asked.answer(request)) == {}
    assert failures(asked.answer(request)) == {}
    assert "is approved by Ada" in failures(asked.answer(request, "reject", decided_by="Bob"))["decide"]
    assert [promotion.version for promotion in asked.approvals.record.history()] == ["1", "2"]


def test_a_decision_must_be_one_of_two_words(asked: World) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="approve"):
        asked.answer(asked.request(JANUARY), decision="perhaps")


def test_rolling_back_is_on_record_and_shown(asked: World) -> None:
    assert failures(asked.answer(asked.request(JANUARY))) == {}
    assert failures(asked.run("notice_job")) == {}
    link = dict(asked.chat.messages[-1].links)["Back to version 1"]
    way_back = yaml.safe_load(config_of(link))["ops"]["roll_back"]["config"]
    unlinked = way_back | {"token": "0" * 32, "decided_by": "Eve", "reason": "a page in the operator's browser"}
    assert "the token does not permit" in failures(asked.run("rollback_job", ops={"roll_back": unlinked}))["roll_back"]
    assert asked.registry.production_version() == "2"
    answer = way_back | {"decided_by": "Ada", "reason": "drivers complain"}
    assert failures(asked.run("rollback_job", ops={"roll_back": answer})) == {}
    assert asked.registry.production_version() == "1"
    shown = asked.metadata("production_model")
    assert (shown["version"], shown["replaced_version"], shown["kind"]) == ("1", "2", "rollback")
    assert (shown["decided_by"], shown["reason"]) == ("Ada", "drivers complain")
    # The month that is compared again offers the same version.
    compared = asked.run_month(JANUARY)
    checks = compared.get_asset_check_evaluations()
    (says,) = [check.description for check in checks if check.check_name == "staging_beats_production"]
    assert says is not None
    assert "; version 2 was in production until 20" in says
    assert says.endswith(", when Ada went back to version 1: drivers complain")


def test_rolling_back_to_what_never_was_production_fails(asked: World) -> None:
    answer = {"to": "2", "decided_by": "Ada", "reason": "a mistake", "token": "0" * 32}
    result = asked.run("rollback_job", ops={"roll_back": answer})
    assert "never production" in failures(result)["roll_back"]
    assert asked.registry.production_version() == "1"


def test_a_decision_from_the_command_line_is_shown_by_the_sensor_once(compared_january: World) -> None:
    """The ledger is where decisions are made; the asset follows, however they were made."""
    world = compared_january
    assert world.ask(JANUARY).success
    request = world.request(JANUARY)
    world.approvals.decide(
        request.id, "approve", "Ben", "from a terminal", world.approvals.answer_tokens(request)["approve"]
    )
    world.approvals.rollback(by="Ada", reason="complaints")
    shown = world.tick("production_sensor").asset_events
    assert [event.description for event in shown] == ["version 2: promotion by Ben", "version 1: rollback by Ada"]
    for event in shown:
        world.instance.report_runless_asset_event(event)
    assert not world.tick("production_sensor").asset_events
    assert world.metadata("production_model")["history"].records[0].data["why"] == "complaints"


def test_a_message_reaches_the_other_channels_where_one_is_down(compared_january: World) -> None:
    """And the one that was down gets it later, once."""
    world, down = compared_january, Chat("webhook", fault=DeliveryError("webhook is gone"))
    world.more_chats.append(down)
    assert failures(world.ask(JANUARY)) == {"send_approval_message": "webhook is gone"}
    assert len(world.chat.messages) == 1
    down.fault = None
    assert failures(world.ask(JANUARY)) == {}
    assert (len(world.chat.messages), len(down.messages)) == (1, 1)


def test_a_request_is_reminded_of_and_expires(compared_january: World) -> None:
    """The schedule's job, on the days that matter: a clock that is late by eight days, then by forty."""
    world = compared_january.under(reminder_days=7, request_valid_days=30)
    world.chat = compared_january.chat
    assert world.ask(JANUARY).success
    assert failures(world.run("reminder_job")) == {}
    assert len(world.chat.messages) == 1
    world.clock_ahead_days = 8
    assert failures(world.run("reminder_job")) == {}
    assert [message.text.splitlines()[-1].rpartition(", ")[2] for message in world.chat.messages[1:]] == ["reminder 1"]
    world.clock_ahead_days = 40
    assert failures(world.run("reminder_job")) == {}
    assert world.approvals.record.open_requests() == ()
    outcome = world.approvals.record.outcome(world.request(JANUARY).id)
    assert outcome is not None
    assert outcome.state is RequestState.EXPIRED
    assert len(world.chat.messages) == 2

    (notice,) = world.tick("approval_sensor").run_requests
    assert failures(world.launch(notice, "notice_job")) == {}
    link = dict(world.chat.messages[-1].links)["Ask again"]
    again = yaml.safe_load(config_of(link))["ops"]["ask_again"]["config"]
    unlinked = world.run("ask_again_job", ops={"ask_again": again | {"token": "0" * 32}})
    assert "the token does not permit to ask again" in failures(unlinked)["ask_again"]
    assert failures(world.run("ask_again_job", ops={"ask_again": again})) == {}
    (open_request,) = world.approvals.record.open_requests()
    assert open_request.round == 2
    (asks,) = world.tick("approval_sensor").run_requests
    assert failures(world.launch(asks, "approval_job")) == {}
    assert world.chat.messages[-1].key == f"Request {open_request.id}"
    assert not world.tick("approval_sensor").run_requests


def test_an_answer_in_vain_spends_its_link_and_the_question_comes_with_fresh_ones(asked: World) -> None:
    """The run's config, token included, is shown to whoever opens Dagster."""
    request = asked.request(JANUARY)
    used = asked.approvals.answer_tokens(request)["approve"]
    assert "received nothing for who decides" in failures(asked.answer(request, decided_by=""))["decide"]
    stolen = {"request": request.id, "token": used, "decision": "approve", "decided_by": "Eve", "reason": "found it"}
    assert "the token does not permit" in failures(asked.run("decision_job", ops={"decide": stolen}))["decide"]

    before = len(asked.chat.messages)
    (again,) = asked.tick("approval_sensor").run_requests
    assert failures(asked.launch(again, "approval_job")) == {}
    (message,) = asked.chat.messages[before:]
    assert "The links in earlier messages about this no longer work: a decision on" in message.text
    assert not asked.tick("approval_sensor").run_requests
    fresh = yaml.safe_load(config_of(dict(message.links)["Approve"]))["ops"]["decide"]["config"]
    signed = fresh | {"decided_by": "Ada", "reason": "I looked"}
    assert failures(asked.run("decision_job", ops={"decide": signed})) == {}
    assert asked.registry.production_version() == "2"


def test_a_link_that_rejects_does_not_approve(asked: World) -> None:
    request = asked.request(JANUARY)
    rejecting = asked.approvals.answer_tokens(request)["reject"]
    assert "the token does not permit to approve" in failures(asked.answer(request, token=rejecting))["decide"]
    assert asked.registry.production_version() == "1"


def test_a_materialization_reported_by_hand_breaks_nothing_and_is_put_right(asked: World) -> None:
    """ "Report materialization" in Dagster's UI, or a POST of anybody's."""
    for metadata in ({}, {"sequence": 999}, {"sequence": "one", "version": "66"}):
        key = dg.AssetKey("production_model")
        asked.instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
        (shown,) = asked.tick("production_sensor").asset_events
        assert shown.metadata["version"].value == "1"
        asked.instance.report_runless_asset_event(shown)
        assert not asked.tick("production_sensor").asset_events
    assert failures(asked.answer(asked.request(JANUARY))) == {}


def test_asking_about_a_month_that_was_not_compared_says_so(started: World) -> None:
    assert failures(started.ask(FEBRUARY))["send_approval_message"] == (
        "2015-02 has not been compared yet: materialize its assets first"
    )
    assert not started.chat.messages


def test_checks_without_a_month_say_which_button_to_press(compared_january: World) -> None:
    """The UI's "Execute all" on the Checks tab launches them without a partition."""
    before = compared_january.approvals.record.comparisons()
    everything = compared_january.definitions.resolve_implicit_global_asset_job_def()
    for asset in ("raw_new_data", "preprocessed_data", "production_eval_mae", "staging_model"):
        keys = {
            key
            for key in compared_january.definitions.resolve_asset_graph().asset_check_keys
            if key.asset_key == dg.AssetKey(asset)
        }
        job = everything.get_subset(asset_selection=set(), asset_check_selection=keys)
        run = create_run_for_test(
            compared_january.instance,
            job.name,
            asset_selection=frozenset(),
            asset_check_selection=frozenset(keys),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert not execute_run(InMemoryJob(job), run, compared_january.instance).success
        (failed,) = compared_january.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert failed.dagster_event is not None
        assert "choose a month" in str(failed.dagster_event.job_failure_data.error)
    assert compared_january.approvals.record.comparisons() == before
