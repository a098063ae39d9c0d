"""A season of the software, as its operator lives it: an empty state, six months, decisions, a chat that is down, a
killed run.

One `make dev` serves all of it. The acts are fixtures, each goes on where the one before stopped; the tests are what
must be true after them.
"""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import pytest
import requests

from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from tests.end_to_end.conftest import Books, Company, Question
from tests.support.ui import Run, eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]

ADA: dict[str, object] = {"decided_by": "Ada", "reason": "the numbers"}
REPLACES_FIRST = "to replace 1,"
HALF_A_CENT = 0.0051
"""Messages round errors to cents, assets show four digits of them."""
SUBJECTS = [f"2015-{month:02}" for month in range(1, 6)]
MONTHLY_ASSETS = ("raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model")


# The first act: nobody touches anything


@pytest.fixture(scope="module")
def first_questions(company: Company) -> dict[str, Question]:
    """The first message, on the base model, without a click; and a second start, on January, that somebody launches."""
    base = company.question("base", within_s=240)
    waits = "the start with base waits for its answer"
    eventually(
        lambda: any(waits in (tick["skipReason"] or "") for tick in company.ui.ticks("new_month_sensor")),
        "the sensor to say that it waits",
        within_s=120,
    )
    assert company.ui.runs("monthly_job") == [], "no second start is prepared by itself"
    # From here on the test says when months are looked for.
    company.ui.stop_sensor("new_month_sensor")
    company.ui.launch_job("monthly_job", **{"dagster/partition": "2015-01-01"})
    return {"base": base, "2015-01": company.question("2015-01", within_s=180)}


def test_on_an_empty_state_the_base_model_is_trained_and_asked_about(first_questions: dict[str, Question]) -> None:
    question = first_questions["base"]
    assert question.verdict == Verdict.COLD_START
    assert question.errors[0] == "none"
    assert "Versions: 1 to replace nothing" in question.text


def test_a_second_start_says_which_to_take_first(company: Company, first_questions: dict[str, Question]) -> None:
    question = first_questions["2015-01"]
    # The question may come before the run that it is about has ended.
    run = company.ui.finished(company.ui.runs("monthly_job", "2015-01-01")[0].id)
    assert run.status == "SUCCESS"
    assert question.verdict == Verdict.COLD_START
    assert "2 first models are waiting for an answer: 2015-01, base. Decide on base first" in question.text
    assert "first models are waiting" not in first_questions["base"].text
    assert float(question.errors[1]) == pytest.approx(
        metadata_of(company, "staging_model", run)["mae_usd"], abs=HALF_A_CENT
    )


# The second act: the base model goes into production


@pytest.fixture(scope="module")
def start(company: Company, first_questions: dict[str, Question]) -> Run:
    """The run that approved the base model."""
    return company.decide(first_questions["base"].config(ADA | {"reason": "there has to be a first"}))


def test_approving_moves_the_alias_and_shows_on_the_asset(company: Company, start: Run) -> None:
    assert start.status == "SUCCESS"
    assert company.books().promotions[0].version == "1"
    shown = metadata_of(company, "production_model")
    assert (shown["version"], shown["decided_by"], shown["reason"]) == ("1", "Ada", "there has to be a first")


def test_a_question_that_expected_nothing_in_production_is_void(company: Company, start: Run) -> None:
    books = company.books()
    outcome = books.outcomes[books.asked("2015-01")[0].id]
    assert outcome.state is RequestState.VOID
    assert "production moved from nothing to version 1" in outcome.reason


# The third act: by sensor, by hand and by backfill at once, while the chat is down


@dataclass(frozen=True)
class Spring:
    """Five months and how they came about.

    Attributes:
        by_sensor: The run of January.
        by_hand: The run of February.
        backfill: The runs of March to May.
        in_vain: A run that could not deliver its message.
        in_outage: The ledger when that run had failed.
        books: The ledger at the end.
    """

    by_sensor: Run
    by_hand: Run
    backfill: list[Run]
    in_vain: Run
    in_outage: Books
    books: Books

    @property
    def runs(self) -> list[Run]:
        """All of them, oldest month first."""
        return [self.by_sensor, self.by_hand, *self.backfill]


@pytest.fixture(scope="module")
def spring(company: Company, start: Run) -> Spring:
    """January again, for production changed, by sensor; February by hand; March to May by backfill; a chat outage."""
    ui = company.ui
    company.chat.faults += ["500"] * 1000
    ui.start_sensor("new_month_sensor")
    january = eventually(lambda: ui.runs("monthly_job", "2015-01-01")[1:], "the sensor to notice January again", 90)[0]
    # Left on, it would wait for the others to end, then go on with June.
    ui.stop_sensor("new_month_sensor")
    by_hand = ui.materialize(MONTHLY_ASSETS, "2015-02-01")
    backfill = ui.backfill(MONTHLY_ASSETS, ["2015-03-01", "2015-04-01", "2015-05-01"])

    def unheard() -> list[Run]:
        return [run for run in ui.runs("approval_job") if run.status == "FAILURE"]

    in_vain = eventually(unheard, "a question that the chat answers with 500", 400)[0]
    company.hang_up()
    in_outage = company.books()
    company.chat.faults.clear()
    company.pick_up()

    subjects = {f"2015-{month:02}" for month in range(1, 6)}
    eventually(
        lambda: (
            subjects <= {question.subject for question in company.all_questions() if REPLACES_FIRST in question.text}
        ),
        "a message about every month",
        within_s=600,
    )
    eventually(lambda: all(run.is_finished for run in ui.runs()), "the end of all runs")
    runs = [run for run in ui.runs(**{"dagster/backfill": backfill}) if run.partition]
    return Spring(
        by_sensor=ui.run(january.id),
        by_hand=ui.run(by_hand),
        backfill=sorted(runs, key=lambda run: run.partition or ""),
        in_vain=in_vain,
        in_outage=in_outage,
        books=company.books(),
    )


def test_every_month_is_run_and_compared_however_it_was_started(company: Company, spring: Spring) -> None:
    assert [run.partition for run in spring.runs] == [f"{subject}-01" for subject in SUBJECTS]
    assert {run.status for run in spring.runs} == {"SUCCESS"}
    assert spring.by_sensor.tags["taxifare/because"] == "2015-01 is due: production changed"
    assert spring.by_hand.job == "__ASSET_JOB"
    ranges = company.ui.checks("staging_model")["staging_beats_production"]
    judged = [entry for entry in ranges if entry["status"] in {"SUCCEEDED", "FAILED"}]
    assert min(entry["startKey"] for entry in judged) == "2015-01-01"
    assert max(entry["endKey"] for entry in judged) >= "2015-05-01"


def test_every_month_is_asked_about_once(company: Company, spring: Spring) -> None:
    for subject in SUBJECTS:
        asked = [request for request in spring.books.asked(subject) if request.production_version == "1"]
        messages = [question.request for question in company.questions(subject, REPLACES_FIRST)]
        assert messages == [request.id for request in asked], subject
        assert len(asked) == 1, subject


def test_messages_begin_as_in_the_course_with_the_errors_that_the_assets_show(company: Company, spring: Spring) -> None:
    for run in spring.runs:
        production, staging = company.questions((run.partition or "")[:7])[-1].errors
        shown = [metadata_of(company, asset, run)["mae_usd"] for asset in ("production_eval_mae", "staging_model")]
        assert [float(production), float(staging)] == pytest.approx(shown, abs=HALF_A_CENT)


def test_each_month_is_learned_once_on_top_of_what_was_known(company: Company, spring: Spring) -> None:
    """However the months were started: the first one from production, each other from an earlier month's candidate."""
    month_of = {version: tags["month"] for version, tags in company.versions().items()}
    trained = [(tags["month"], tags.get("parent_version")) for tags in company.versions().values()]
    assert {month for month, _ in trained} >= set(SUBJECTS)
    assert len(set(trained)) == len(trained)
    assert (min(SUBJECTS), "1") in trained
    for month, parent in trained:
        assert parent is None or month_of[parent] == "base" or month_of[parent] < month


def test_no_two_months_train_at_the_same_time(company: Company, spring: Spring) -> None:
    assert not overlapping(company.ui.run(run.id).interval("staging_model") for run in company.ui.runs())
    assert not overlapping((run.started, run.ended) for run in spring.backfill)
    assert not overlapping((run.started, run.ended) for run in company.ui.runs("monthly_job"))


def test_a_chat_that_is_down_costs_neither_the_month_nor_the_question(company: Company, spring: Spring) -> None:
    subject = spring.in_vain.tags["taxifare/asks"].partition(":")[0]
    asked = [request for request in spring.in_outage.asked(subject) if request.production_version == "1"]
    assert len(asked) == 1
    assert asked[0].id not in {delivery.request_id for delivery in spring.in_outage.deliveries}
    assert f"POST {company.chat.url}" in company.ui.errors(spring.in_vain.id)
    assert [run.status for run in spring.runs if run.partition == f"{subject}-01"] == ["SUCCESS"]
    # Delivered since, by a later run of the same question, and only once.
    told = [delivery for delivery in spring.books.deliveries if delivery.request_id == asked[0].id]
    assert len(told) == 1
    tries = company.ui.runs("approval_job", **{"taxifare/asks": spring.in_vain.tags["taxifare/asks"]})
    assert [run.status for run in tries][-1] == "SUCCESS"
    assert "SUCCESS" not in [run.status for run in tries][:-1]


# The fourth act: somebody who reaches the webserver; answers that do not count, and one that does


@dataclass(frozen=True)
class Raid:
    """What Dagster's webserver, which has no login, takes from anybody.

    Attributes:
        before: The books before it.
        reported: What it answers to events that nobody found, by their addresses.
        launched: Runs with a token that somebody made up, and on a subject that is none.
    """

    before: Books
    reported: dict[str, int]
    launched: dict[str, str]


@pytest.fixture(scope="module")
def raid(company: Company, spring: Spring) -> Raid:
    """May is made a promotion, another version is in production, and both are to be acted on."""
    ui, before = company.ui, company.books()
    evidence = json.loads(before.asked("2015-05")[-1].evidence_json) | {"verdict": "PROMOTE"}
    check = {"check_name": "staging_beats_production", "passed": True, "metadata": {"evidence": evidence}}
    forged: dict[str, dict[str, object]] = {
        "report_asset_check/staging_model": check,
        "report_asset_materialization/staging_model": {"partition": "2015-05-01", "metadata": {"verdict": "PROMOTE"}},
        "report_asset_materialization/production_model": {"metadata": {"version": "66", "sequence": 99}},
    }
    answers = {path: requests.post(f"{ui.url}/{path}", json=body, timeout=60) for path, body in forged.items()}
    signed = {"token": "0" * 32, "decided_by": "Mallory", "reason": "a page in the operator's browser"}
    launched = {
        "rollback_job": {"roll_back": {"config": signed | {"to": "2"}}},
        "approval_job": {"send_approval_message": {"config": {"subject": "\x1b[2J../../2015-05"}}},
    }
    return Raid(
        before,
        {path: answer.status_code for path, answer in answers.items()},
        {job: ui.launch_job(job, {"ops": config}) for job, config in launched.items()},
    )


@dataclass(frozen=True)
class Vote:
    """The attempts on May's request.

    Attributes:
        forged: With a token that somebody made up.
        borrowed: With the token of another version's request.
        approved: With the one from the message.
        repeated: The same answer by the same person, again.
        late: The contrary answer by somebody else, afterwards.
        before: MLflow's production version after the first two.
    """

    question: Question
    forged: Run
    borrowed: Run
    approved: Run
    repeated: Run
    late: Run
    before: str | None


@pytest.fixture(scope="module")
def vote(company: Company, raid: Raid) -> Vote:
    """What is tried on May's request."""
    may, april = company.questions("2015-05")[-1], company.questions("2015-04")[-1]
    other = april.config()["ops"]["decide"]["config"]["token"]
    answer = ADA | {"override": may.verdict != Verdict.PROMOTE}
    attempts = [
        company.ui.launch_job("decision_job", may.config(answer | {"decided_by": "Mallory", "token": token}))
        for token in ("0" * 32, other)
    ]
    forged, borrowed = (company.ui.finished(attempt) for attempt in attempts)
    before = company.production()
    approved = company.decide(may.config(answer))
    attempts = [
        company.ui.launch_job("decision_job", may.config(answer)),
        company.ui.launch_job("decision_job", may.config({"decided_by": "Bob", "reason": "too late"}, "Reject")),
    ]
    repeated, late = (company.ui.finished(attempt) for attempt in attempts)
    return Vote(may, forged, borrowed, approved, repeated, late, before)


def test_what_anybody_may_send_to_dagster_asks_decides_and_moves_nothing(company: Company, raid: Raid) -> None:
    """Forged evidence asked a person, or promoted, before; a rollback took no token."""
    assert set(raid.reported.values()) == {200}, "Dagster takes them"
    without_token = {"request": raid.before.asked("2015-05")[-1].id, "decision": "approve"} | ADA
    with pytest.raises(AssertionError, match="RunConfigValidationInvalid"):
        company.ui.launch_job("decision_job", {"ops": {"decide": {"config": without_token}}})
    ended = {job: company.ui.finished(run_id) for job, run_id in raid.launched.items()}
    assert {run.status for run in ended.values()} == {"FAILURE"}
    assert "never production" in company.ui.errors(ended["rollback_job"].id)
    assert "../../2015-05 has not been compared yet" in company.ui.errors(ended["approval_job"].id)
    assert "\x1b" not in company.ui.errors(ended["approval_job"].id)
    eventually(
        lambda: metadata_of(company, "production_model")["version"] == "1", "the sensor to put right what it shows"
    )
    books = company.books()
    assert (books.requests, books.outcomes, books.promotions) == (
        raid.before.requests,
        raid.before.outcomes,
        raid.before.promotions,
    )
    assert company.production() == "1"


def test_forged_and_borrowed_tokens_are_refused_on_record(company: Company, vote: Vote) -> None:
    for run in (vote.forged, vote.borrowed):
        assert run.status == "FAILURE"
        assert f"the token does not permit to approve (request {vote.question.request})" in company.ui.errors(run.id)
    refused = [refusal for refusal in company.books().refusals if refusal.by == "Mallory"]
    assert [refusal.request_id for refusal in refused] == ["promotion 1", *[vote.question.request] * 2]
    assert vote.before == "1"


def test_exactly_the_version_that_was_shown_becomes_production(company: Company, vote: Vote) -> None:
    asked = company.books().asked("2015-05")[-1]
    assert vote.approved.status == "SUCCESS"
    assert company.books().promotions[-1].version == asked.staging_version
    assert company.versions()[asked.staging_version]["decided_by"] == "Ada"
    shown = metadata_of(company, "production_model")
    assert (shown["version"], shown["replaced_version"]) == (asked.staging_version, "1")


def test_an_answer_counts_once(company: Company, vote: Vote) -> None:
    assert vote.repeated.status == "SUCCESS"
    assert vote.late.status == "FAILURE"
    assert "is approved by Ada" in company.ui.errors(vote.late.id)
    books = company.books()
    assert [promotion.version for promotion in books.promotions] == ["1", books.asked("2015-05")[-1].staging_version]
    assert company.production() == books.promotions[-1].version
    assert [refusal.decision for refusal in books.refusals if refusal.by == "Bob"] == ["reject"]


def test_the_other_open_questions_are_void_with_it(company: Company, vote: Vote) -> None:
    books = company.books()
    for subject in SUBJECTS[:-1]:
        assert books.outcomes[books.asked(subject)[-1].id].state is RequestState.VOID


# The fifth act: June, and its run is killed half-way


@dataclass(frozen=True)
class June:
    """The run that was killed, and the one that went on."""

    killed: Run
    resumed: Run
    question: Question


@pytest.fixture(scope="module")
def june(company: Company, vote: Vote) -> June:
    """The next month by sensor; its worker is killed while the model is trained."""
    ui = company.ui
    ui.start_sensor("new_month_sensor")
    run = eventually(lambda: ui.runs("monthly_job", "2015-06-01"), "the sensor to notice June", within_s=90)[0]
    eventually(lambda: "staging_model" in started(ui.run(run.id)), "June's training", every_s=0.1)
    worker = ui.worker(run.id)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    question = company.question("2015-06", within_s=240)
    killed, resumed = (ui.finished(run.id) for run in ui.runs("monthly_job", "2015-06-01"))
    return June(killed, resumed, question)


def started(run: Run) -> set[str]:
    """The steps that have begun."""
    return {step for step, stats in run.steps.items() if stats["startTime"]}


@pytest.mark.slow
def test_a_killed_run_is_seen_and_goes_on_where_it_stopped(company: Company, june: June) -> None:
    assert june.killed.status == "FAILURE"
    assert any("SIGKILL" in event.get("message", "") for event in company.ui.events(june.killed.id))
    assert june.resumed.status == "SUCCESS"
    assert june.resumed.parent_id == june.killed.id
    assert "raw_new_data" not in started(june.resumed)


@pytest.mark.slow
def test_the_killed_month_has_one_version_one_question_and_is_not_lost(company: Company, june: June) -> None:
    production = company.books().promotions[-1].version
    assert [tags["parent_version"] for tags in company.versions().values() if tags["month"] == "2015-06"] == [
        production
    ]
    assert len(company.books().asked("2015-06")) == len(company.questions("2015-06")) == 1


@pytest.mark.slow
def test_the_following_month_is_compared_with_the_new_production(company: Company, june: June) -> None:
    production = company.books().promotions[-1].version
    scored = next(run for run in (june.killed, june.resumed) if "production_eval_mae" in started(run))
    assert metadata_of(company, "production_eval_mae", scored)["production_version"] == production
    assert f"to replace {production}," in june.question.text
    assert june.question.verdict != Verdict.COLD_START


@pytest.mark.slow
def test_then_there_is_nothing_left_to_do(company: Company, june: June) -> None:
    runs = len(company.ui.runs())
    tick = eventually(lambda: skipped(company, "new_month_sensor", "none is new"), "a tick with nothing to do", 60)
    assert tick == "6 months are published and none is new, restated or to be compared anew"
    assert len(company.ui.runs()) == runs


def skipped(company: Company, sensor: str, words: str) -> str | None:
    """The reason of the sensor's last tick, if it did nothing for a reason with these words."""
    reason: str | None = company.ui.ticks(sensor)[0]["skipReason"]
    return reason if reason and words in reason else None


def metadata_of(company: Company, asset: str, run: Run | None = None) -> dict[str, object]:
    """The texts and numbers shown on the asset's materialization by the run, by default on the last one."""
    for materialization in company.ui.assets()[asset]["assetMaterializations"]:
        if run is None or materialization["runOrError"].get("runId") == run.id:
            return {
                entry["label"]: next((entry[key] for key in ("text", "intRepr", "floatValue") if key in entry), None)
                for entry in materialization["metadataEntries"]
            }
    raise AssertionError(f"{asset} was not materialized{f' by run {run.id}' if run else ''}")


def overlapping(intervals: Iterable[tuple[float | None, float | None] | None]) -> list[object]:
    """The pairs of intervals that overlap; those without beginning or end are left out."""
    whole = [(begun, ended) for begun, ended in filter(None, intervals) if begun is not None and ended is not None]
    return [(one, other) for one, other in combinations(sorted(whole), 2) if other[0] < one[1]]
