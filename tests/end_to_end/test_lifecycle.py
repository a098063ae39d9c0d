"""A season of the software, as its operator lives it: an empty state, months, decisions, pages, a chat that is down, a
killed run.

One `make dev` serves all of it. The acts are fixtures, each goes on where the one before stopped; the tests are what
must be true after them. What a person sees and does in Chromium is part of it: they decide on the first model there,
and follow the message and the tour through the pages; `-s` shows how long the person waits.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from taxifare.approval.records import RequestState
from taxifare.gate.evidence import Verdict
from tests.end_to_end.conftest import Books, Company, Question
from tests.support import pictures
from tests.support.pictures import Places
from tests.support.ui import Run, eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1500)]

ADA: dict[str, object] = {"decided_by": "Ada", "reason": "the numbers"}
WHO, WHY = "Ada Lovelace", "There has to be a first; every error is below a fare"
REPLACES_FIRST = "to replace 1,"
HALF_A_CENT = 0.0051
"""Messages round errors to cents, assets show four digits of them."""
SUBJECTS = [f"2015-{month:02}" for month in range(1, 4)]
LAST = SUBJECTS[-1]
MONTHLY_ASSETS = ("raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model")
GROUPS = {
    "trips": ("base_trips", "raw_new_data", "preprocessed_data", "rehearsal_trips"),
    "models": ("base_model", "production_model", "production_eval_mae", "staging_model"),
}
LONGEST_WAIT_S = 60
"""15 on an idle machine with two cores; a busy one takes longer."""


# The first act: nobody touches anything


@pytest.fixture(scope="module")
def first_question(company: Company) -> Question:
    """The first message, on the base model, without a click."""
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
    return base


def test_on_an_empty_state_the_base_model_is_trained_and_asked_about(first_question: Question) -> None:
    assert first_question.verdict == Verdict.COLD_START
    assert first_question.errors[0] == "none"
    assert "Versions: 1 to replace nothing" in first_question.text


def test_the_start_ends_with_the_address_of_the_asset_to_begin_with(company: Company, first_question: Question) -> None:
    promised = f"\nDagster is at {company.ui.url}/assets/production_eval_mae    Ctrl-C ends it.\n"
    assert promised in (company.folder / "dagster.log").read_text()


# The second act: the base model goes into production, from the message in the chat, through Dagster's launchpad


@dataclass(frozen=True)
class Start:
    """The run that approved the base model, and how long the person waited for the alias, seconds."""

    run: Run
    waited_s: float


@pytest.fixture(scope="module")
def start(
    company: Company, first_question: Question, chromium: Browser | None, request: pytest.FixtureRequest
) -> Start:
    """A person decides in Chromium; where it is not installed, as its pages do."""
    if chromium is None:
        decided = company.decide(first_question.config({"decided_by": WHO, "reason": WHY}))
        return Start(decided, 0.0)
    page: Page = request.getfixturevalue("page")
    is_launchable(page, first_question, "Approve")
    page.mouse.move(0, 0)
    page.screenshot(path=request.getfixturevalue("shots") / "decision-launchpad.png")
    page.get_by_role("button", name="Launch Run").click()
    clicked = time.monotonic()
    expect(page).to_have_url(re.compile(f"{company.ui.url}/runs/.+"))
    shown = page.url
    look_away(chromium)
    eventually(lambda: company.production() == "1", "the alias to move", 180)
    waited_s = time.monotonic() - clicked
    run = company.ui.runs("decision_job")[-1]
    assert shown == f"{company.ui.url}/runs/{run.id}"
    page.goto(shown)
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.screenshot(path=request.getfixturevalue("shots") / "decision-run.png")
    return Start(company.ui.finished(run.id), waited_s)


def is_launchable(page: Page, question: Question, link: str) -> None:
    """Follows a link of the message, writes who decides and why, and ensures that the run can be launched."""
    page.goto(question.link(link))
    editor = page.locator(".CodeMirror-code")
    expect(editor).to_contain_text(f'request: "{question.request}"')
    expect(editor).to_contain_text(f"decision: {link.lower()}")
    expect(editor).to_contain_text(question.config(link=link)["ops"]["decide"]["config"]["token"])
    expect(page.get_by_role("button", name="Launch Run")).to_be_disabled()
    fill_in(page, "decided_by", WHO)
    fill_in(page, "reason", WHY)
    expect(page.get_by_role("button", name="Launch Run")).to_be_enabled()


def look_away(chromium: Browser | None) -> None:
    """Ensures that no page of Dagster's is open: it asks its server all the time, for half a processor."""
    for page in [page for context in chromium.contexts for page in context.pages] if chromium else []:
        page.goto("about:blank")


def fill_in(page: Page, field: str, text: str) -> None:
    """Writes what a field of the launchpad's config lacks, as a person does with mouse and keyboard."""
    page.locator(".CodeMirror-line", has_text=f"{field}:").click()
    page.keyboard.press("End")
    page.keyboard.insert_text(f' "{text}"')
    page.keyboard.press("Escape")
    expect(page.locator(".CodeMirror-code")).to_contain_text(f'{field}: "{text}"')


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots go."""
    return tmp_path_factory.mktemp("shots")


@pytest.fixture
def faults(page: Page) -> Iterator[list[str]]:
    """What the page and the server complained about while the test looked at it."""
    found: list[str] = []

    def note(error: Any) -> None:
        found.append(str(error))

    page.on("pageerror", note)
    yield found
    page.remove_listener("pageerror", note)


def test_the_person_waits_a_moment_only(start: Start) -> None:
    print(f"\nfrom Launch Run to the alias: {start.waited_s:.1f} s")
    assert start.waited_s < LONGEST_WAIT_S


def test_approving_moves_the_alias_and_shows_on_the_asset(company: Company, start: Start) -> None:
    assert start.run.status == "SUCCESS"
    assert company.books().promotions[0].version == "1"
    shown = metadata_of(company, "production_model")
    assert (shown["version"], shown["decided_by"], shown["reason"]) == ("1", WHO, WHY)


def test_the_production_model_shows_who_decided_and_why(
    company: Company, start: Start, page: Page, shots: Path
) -> None:
    # A sensor that looks between the decision and its publication shows what is served then, and once more what is now.
    served = "version 1 since "
    eventually(lambda: served in str(metadata_of(company, "production_model").get("served")), "what is served", 120)
    page.goto(f"{company.ui.url}/assets/production_model?view=events")
    expect(page.get_by_text(f"version 1: promotion by {WHO}").first).to_be_visible()
    expect(page.get_by_text(WHY).first).to_be_visible()
    expect(page.get_by_text(served).first).to_be_visible()
    expect(page.get_by_text("served_as_in_the_ledger").first).to_be_visible()
    page.screenshot(path=shots / "production-model.png")


def test_the_version_s_page_in_mlflow_tells_the_same(
    company: Company, first_question: Question, start: Start, page: Page, shots: Path
) -> None:
    page.goto(f"{company.mlflow_url}/#/models/taxifare/versions/1")
    expect(page.get_by_text("production", exact=False).first).to_be_visible()
    for told in (first_question.request, WHO, WHY):
        expect(page.get_by_text(told, exact=False).first).to_be_attached()
    page.get_by_text("MLflow Assistant").locator("xpath=following::button[3]").click()
    page.mouse.move(0, 0)
    page.screenshot(path=shots / "mlflow-version.png")
    assert company.versions()["1"].items() >= {
        ("month", "base"),
        ("request", first_question.request),
        ("decision", "approved"),
        ("decided_by", WHO),
        ("decision_reason", WHY),
    }


# The third act: by sensor, by hand and by backfill at once, while the chat is down


@dataclass(frozen=True)
class Spring:
    """Three months and how they came about.

    Attributes:
        by_sensor: The run of January.
        by_hand: The run of February.
        backfill: The run of March.
        in_vain: A run that could not deliver its message.
        in_outage: The ledger when that run had failed.
        books: The ledger at the end.
    """

    by_sensor: Run
    by_hand: Run
    backfill: Run
    in_vain: Run
    in_outage: Books
    books: Books

    @property
    def runs(self) -> list[Run]:
        """All of them, oldest month first."""
        return [self.by_sensor, self.by_hand, self.backfill]


@pytest.fixture(scope="module")
def spring(company: Company, start: Start, chromium: Browser | None) -> Spring:
    """January by sensor; February by hand; March by backfill; a chat outage."""
    ui = company.ui
    look_away(chromium)
    company.chat.faults += ["500"] * 1000
    ui.start_sensor("new_month_sensor")
    january = eventually(lambda: ui.runs("monthly_job", "2015-01-01"), "the sensor to notice January", 90)[0]
    # Left on, it would wait for the others to end, then go on with April.
    ui.stop_sensor("new_month_sensor")
    by_hand = ui.materialize(MONTHLY_ASSETS, "2015-02-01")
    backfill = ui.backfill(MONTHLY_ASSETS, ["2015-03-01"])

    def unheard() -> list[Run]:
        return [run for run in ui.runs("approval_job") if run.status == "FAILURE"]

    in_vain = eventually(unheard, "a question that the chat answers with 500", 600)[0]
    company.hang_up()
    in_outage = company.books()
    company.chat.faults.clear()
    company.pick_up()

    subjects = {*SUBJECTS}
    eventually(
        lambda: (
            subjects <= {question.subject for question in company.all_questions() if REPLACES_FIRST in question.text}
        ),
        "a message about every month",
        within_s=600,
    )
    eventually(lambda: all(run.is_finished for run in ui.runs()), "the end of all runs")
    (march,) = [run for run in ui.runs(**{"dagster/backfill": backfill}) if run.partition]
    return Spring(
        by_sensor=ui.run(january.id),
        by_hand=ui.run(by_hand),
        backfill=march,
        in_vain=in_vain,
        in_outage=in_outage,
        books=company.books(),
    )


def test_every_month_is_run_and_compared_however_it_was_started(company: Company, spring: Spring) -> None:
    assert [run.partition for run in spring.runs] == [f"{subject}-01" for subject in SUBJECTS]
    assert {run.status for run in spring.runs} == {"SUCCESS"}
    assert spring.by_sensor.tags["taxifare/because"] == "2015-01 is due: new"
    assert spring.by_hand.job == "__ASSET_JOB"
    ranges = company.ui.checks("staging_model")["staging_beats_production"]
    judged = [entry for entry in ranges if entry["status"] in {"SUCCEEDED", "FAILED"}]
    assert min(entry["startKey"] for entry in judged) == "2015-01-01"
    assert max(entry["endKey"] for entry in judged) >= f"{LAST}-01"


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


# The fourth act: somebody looks at what has come of it


@pytest.fixture(scope="module")
def question(company: Company, spring: Spring) -> Question:
    """The last month's message."""
    return company.questions(LAST)[-1]


def test_the_asset_graph_shows_every_asset(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path
) -> None:
    groups = ",".join(f"global@global:{group}" for group in GROUPS)
    # The graph is as large as its window shows it; far away assets have no names.
    usual = page.viewport_size or {"width": 1280, "height": 720}
    page.set_viewport_size({"width": 3200, "height": 2000})
    page.goto(f"{company.ui.url}/asset-groups?{urlencode({'expanded': groups})}")
    for asset in (asset for assets in GROUPS.values() for asset in assets):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    page.screenshot(path=tmp_path / "asset-graph.png")
    page.set_viewport_size(usual)
    assert not faults


def test_the_picture_of_all_months_comes_first(
    company: Company, question: Question, page: Page, faults: list[str]
) -> None:
    page.goto(f"{company.ui.url}/assets/production_eval_mae")
    expect(page.get_by_text("mae_usd", exact=True)).to_be_visible()
    names = ["all_months", "all_numbers", "mae_usd", "production_version"]
    heights = [page.locator("td").get_by_text(name, exact=True).bounding_box() or {} for name in names]
    assert [place["y"] for place in heights] == sorted(place["y"] for place in heights)
    assert not faults


@pytest.mark.parametrize(
    "shows",
    [
        pictures.production_eval_mae,
        pictures.all_months,
        pictures.staging_beats_production,
        pictures.production_model,
    ],
)
def test_the_tour_s_pages_are_there(
    company: Company,
    question: Question,
    page: Page,
    faults: list[str],
    shows: Callable[[Page, Places], Page | Locator],
) -> None:
    """What `make pictures` waits for before it takes a page is there; the message's links are followed below."""
    usual = page.viewport_size or {"width": 1280, "height": 720}
    shown = shows(page, Places(company.ui.url, "", company.folder / "state" / "lake"))
    if isinstance(shown, Locator):
        expect(shown).to_be_visible()
    page.set_viewport_size(usual)
    assert not faults


def test_the_error_of_production_is_drawn_over_the_months(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path
) -> None:
    page.goto(f"{company.ui.url}/assets/production_eval_mae")
    expect(page.get_by_text("Mean absolute error of the production model")).to_be_visible()
    expect(page.get_by_text("mae_usd", exact=True)).to_be_visible()
    page.get_by_role("button", name="Plots").click()
    expect(page.get_by_text("mae_usd", exact=True)).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    page.screenshot(path=tmp_path / "plots.png")
    assert not faults


def test_each_month_has_its_page(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path
) -> None:
    month = f"{question.subject}-01"
    page.goto(f"{company.ui.url}/assets/production_eval_mae?view=partitions&partition={month}")
    expect(page.get_by_text("Partitions Selected")).to_be_visible()
    expect(page.get_by_text(month).first).to_be_visible()
    expect(page.get_by_text("mae_usd", exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "partitions.png")
    assert not faults


def test_the_message_leads_to_what_it_is_about(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path
) -> None:
    page.goto(question.link("See"))
    expect(page.get_by_text(f"{question.subject}: {question.verdict}, ").first).to_be_visible()
    expect(page.get_by_text("answer", exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "see.png")
    assert not faults


def test_the_message_leads_to_the_month_in_plain_words(question: Question, page: Page, faults: list[str]) -> None:
    def says_what_to_decide() -> bool:
        page.goto(question.link("In plain words"))
        return page.get_by_text("One question, until").is_visible()

    # The message leaves first, and the page is made anew right after it.
    eventually(says_what_to_decide, "the question on the page", 60)
    expect(page.get_by_role("heading", name=question.subject)).to_be_visible()
    size = page.viewport_size
    page.set_viewport_size({"width": 375, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.set_viewport_size(size or {"width": 1500, "height": 1100})
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0, "it fetches nothing"
    assert not faults


@pytest.mark.parametrize("link", ["Approve", "Reject"])
def test_the_message_leads_to_the_launchpad_with_the_answer_filled_in(
    question: Question, page: Page, faults: list[str], tmp_path: Path, link: str
) -> None:
    is_launchable(page, question, link)
    page.screenshot(path=tmp_path / "launchpad.png")
    assert not faults


# The fifth act: somebody who reaches the webserver; answers that do not count, and one that does


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
def raid(company: Company, spring: Spring, chromium: Browser | None) -> Raid:
    """The last month is made a promotion, another version is in production, and both are to be acted on."""
    look_away(chromium)
    ui, before = company.ui, company.books()
    evidence = json.loads(before.asked(LAST)[-1].evidence_json) | {"verdict": "PROMOTE"}
    check = {"check_name": "staging_beats_production", "passed": True, "metadata": {"evidence": evidence}}
    forged: dict[str, dict[str, object]] = {
        "report_asset_check/staging_model": check,
        "report_asset_materialization/staging_model": {"partition": f"{LAST}-01", "metadata": {"verdict": "PROMOTE"}},
        "report_asset_materialization/production_model": {"metadata": {"version": "66", "sequence": 99}},
    }
    answers = {path: requests.post(f"{ui.url}/{path}", json=body, timeout=60) for path, body in forged.items()}
    signed = {"token": "0" * 32, "decided_by": "Mallory", "reason": "a page in the operator's browser"}
    launched = {
        "rollback_job": {"roll_back": {"config": signed | {"to": "2"}}},
        "approval_job": {"send_approval_message": {"config": {"subject": "\x1b[2J../../2015-04"}}},
    }
    return Raid(
        before,
        {path: answer.status_code for path, answer in answers.items()},
        {job: ui.launch_job(job, {"ops": config}) for job, config in launched.items()},
    )


@dataclass(frozen=True)
class Vote:
    """The attempts on the last month's request.

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
    """What is tried on the last month's request."""
    last, before_it = company.questions(LAST)[-1], company.questions(SUBJECTS[-2])[-1]
    other = before_it.config()["ops"]["decide"]["config"]["token"]
    answer = ADA | {"override": last.verdict != Verdict.PROMOTE}
    attempts = [
        company.ui.launch_job("decision_job", last.config(answer | {"decided_by": "Mallory", "token": token}))
        for token in ("0" * 32, other)
    ]
    forged, borrowed = (company.ui.finished(attempt) for attempt in attempts)
    before = company.production()
    approved = company.decide(last.config(answer))
    attempts = [
        company.ui.launch_job("decision_job", last.config(answer)),
        company.ui.launch_job("decision_job", last.config({"decided_by": "Bob", "reason": "too late"}, "Reject")),
    ]
    repeated, late = (company.ui.finished(attempt) for attempt in attempts)
    return Vote(last, forged, borrowed, approved, repeated, late, before)


def test_what_anybody_may_send_to_dagster_asks_decides_and_moves_nothing(company: Company, raid: Raid) -> None:
    """Forged evidence asked a person, or promoted, before; a rollback took no token."""
    assert set(raid.reported.values()) == {200}, "Dagster takes them"
    without_token = {"request": raid.before.asked(LAST)[-1].id, "decision": "approve"} | ADA
    with pytest.raises(AssertionError, match="RunConfigValidationInvalid"):
        company.ui.launch_job("decision_job", {"ops": {"decide": {"config": without_token}}})
    ended = {job: company.ui.finished(run_id) for job, run_id in raid.launched.items()}
    assert {run.status for run in ended.values()} == {"FAILURE"}
    assert "never production" in company.ui.errors(ended["rollback_job"].id)
    assert "../../2015-04 has not been compared yet" in company.ui.errors(ended["approval_job"].id)
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
    asked = company.books().asked(LAST)[-1]
    assert vote.approved.status == "SUCCESS"
    assert company.books().promotions[-1].version == asked.staging_version
    assert company.versions()[asked.staging_version].items() >= {("decided_by", "Ada"), ("replaced", "1")}
    shown = metadata_of(company, "production_model")
    assert (shown["version"], shown["replaced_version"]) == (asked.staging_version, "1")


def test_an_answer_counts_once(company: Company, vote: Vote) -> None:
    assert vote.repeated.status == "SUCCESS"
    assert vote.late.status == "FAILURE"
    assert "is approved by Ada" in company.ui.errors(vote.late.id)
    books = company.books()
    assert [promotion.version for promotion in books.promotions] == ["1", books.asked(LAST)[-1].staging_version]
    assert company.production() == books.promotions[-1].version
    assert [refusal.decision for refusal in books.refusals if refusal.by == "Bob"] == ["reject"]


def test_the_other_open_questions_are_void_with_it(company: Company, vote: Vote) -> None:
    books = company.books()
    for subject in SUBJECTS[:-1]:
        assert books.outcomes[books.asked(subject)[-1].id].state is RequestState.VOID


# The sixth act: April, and its run is killed half-way


@dataclass(frozen=True)
class April:
    """The run that was killed, and the one that went on."""

    killed: Run
    resumed: Run
    question: Question


@pytest.fixture(scope="module")
def april(company: Company, vote: Vote) -> April:
    """The next month by sensor; its worker is killed while the model is trained."""
    ui = company.ui
    ui.start_sensor("new_month_sensor")
    run = eventually(lambda: ui.runs("monthly_job", "2015-04-01"), "the sensor to notice April", within_s=90)[0]
    eventually(lambda: "staging_model" in started(ui.run(run.id)), "April's training", every_s=0.1)
    worker = ui.worker(run.id)
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    question = company.question("2015-04", within_s=240)
    killed, resumed = (ui.finished(run.id) for run in ui.runs("monthly_job", "2015-04-01"))
    return April(killed, resumed, question)


def started(run: Run) -> set[str]:
    """The steps that have begun."""
    return {step for step, stats in run.steps.items() if stats["startTime"]}


@pytest.mark.slow
def test_a_killed_run_is_seen_and_goes_on_where_it_stopped(company: Company, april: April) -> None:
    assert april.killed.status == "FAILURE"
    assert any("SIGKILL" in event.get("message", "") for event in company.ui.events(april.killed.id))
    assert april.resumed.status == "SUCCESS"
    assert april.resumed.parent_id == april.killed.id
    assert "raw_new_data" not in started(april.resumed)


@pytest.mark.slow
def test_the_killed_month_has_one_version_one_question_and_is_not_lost(company: Company, april: April) -> None:
    production = company.books().promotions[-1].version
    assert [tags["parent_version"] for tags in company.versions().values() if tags["month"] == "2015-04"] == [
        production
    ]
    assert len(company.books().asked("2015-04")) == len(company.questions("2015-04")) == 1


@pytest.mark.slow
def test_the_following_month_is_compared_with_the_new_production(company: Company, april: April) -> None:
    production = company.books().promotions[-1].version
    scored = next(run for run in (april.killed, april.resumed) if "production_eval_mae" in started(run))
    assert metadata_of(company, "production_eval_mae", scored)["production_version"] == production
    assert f"to replace {production}," in april.question.text
    assert april.question.verdict != Verdict.COLD_START


@pytest.mark.slow
def test_then_there_is_nothing_left_to_do(company: Company, april: April) -> None:
    runs = len(company.ui.runs())
    tick = eventually(lambda: skipped(company, "new_month_sensor", "none is new"), "a tick with nothing to do", 60)
    assert tick == "4 months are published and none is new, restated or to be compared anew"
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
