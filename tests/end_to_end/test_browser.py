"""What a person sees and does in Chromium: the pages that message and README send them to, and a decision.

The decision goes from the message in the chat, through Dagster's launchpad, to MLflow's page; its tests go on where the
one before stopped, and `-s` shows how long the person waits.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from taxifare.gate.evidence import Verdict
from tests.end_to_end.conftest import CHANNEL, SMALL, Company, Question
from tests.support import pictures
from tests.support.pictures import Places
from tests.support.servers import chat_server, dagster_dev, mlflow_server
from tests.support.ui import Ui, eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

FARES_RISE = {
    "SIMULATOR_SCENARIO": "fare-rise",
    "SIMULATOR_SCENARIO_FROM": "2015-01",
    "LAST_MONTH": "2015-01",
    "MAX_EPOCHS": "2",
    "BATCH_SIZE": "32",
}
"""One month after which a new model is better beyond doubt."""

WHO, WHY = "Ada Lovelace", "Fares rose in January; every slice gains"
GROUPS = {
    "trips": ("base_trips", "raw_new_data", "preprocessed_data", "rehearsal_trips"),
    "models": ("base_model", "production_model", "production_eval_mae", "staging_model"),
}

LONGEST_WAIT_S = 60
"""15 on an idle machine with two cores; a busy one takes longer."""


@pytest.fixture(scope="module")
def company(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """`make dev`, an MLflow server and a chat of this module's own; the base model is in production."""
    folder = tmp_path_factory.mktemp("decision")
    with ExitStack() as servers:
        mlflow_url = servers.enter_context(mlflow_server(folder))
        chat = servers.enter_context(chat_server())
        settings = {"MLFLOW_TRACKING_URI": mlflow_url, "CHAT_BASE_URL": chat.url, "CHAT_CHANNEL": CHANNEL}
        url = servers.enter_context(dagster_dev(folder, SMALL | FARES_RISE | settings))
        company = Company(Ui(url), chat, mlflow_url, folder)
        base = company.question("base", within_s=300)
        # January is of no interest before there is something to replace.
        company.ui.stop_sensor("new_month_sensor")
        assert company.decide(base.config({"decided_by": "Ada", "reason": "The first"})).status == "SUCCESS"
        company.ui.start_sensor("new_month_sensor")
        yield company


@pytest.fixture(scope="module")
def question(company: Company) -> Question:
    """The message that asks whether January's model shall replace the base model."""
    return eventually(lambda: company.questions("2015-01", "to replace 1,"), "January's message", 300)[-1]


@pytest.fixture(scope="module")
def staging(question: Question) -> str:
    """The version that the message asks about."""
    line = next(line for line in question.text.splitlines() if line.startswith("Versions: "))
    return line.split()[1]


@pytest.fixture(scope="module")
def launched(company: Company, question: Question, staging: str, page: Page, shots: Path) -> float:
    """Seconds from the click on Launch Run until MLflow's alias had moved."""
    page.goto(question.link("Approve"))
    editor = page.locator(".CodeMirror-code")
    expect(editor).to_contain_text(f'request: "{question.request}"')
    expect(editor).to_contain_text(question.config()["ops"]["decide"]["config"]["token"])
    fill_in(page, "decided_by", WHO)
    fill_in(page, "reason", WHY)
    if question.verdict != Verdict.PROMOTE:
        page.locator(".CodeMirror-line", has_text="override: false").click()
        page.keyboard.press("End")
        for _ in "false":
            page.keyboard.press("Backspace")
        page.keyboard.insert_text("true")
    launch = page.get_by_role("button", name="Launch Run")
    expect(launch).to_be_enabled()
    page.mouse.move(0, 0)
    page.screenshot(path=shots / "decision-launchpad.png")
    launch.click()
    clicked = time.monotonic()
    eventually(lambda: company.production() == staging, "the alias to move", 180, every_s=0.1)
    return time.monotonic() - clicked


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the screenshots go."""
    return tmp_path_factory.mktemp("shots")


def fill_in(page: Page, field: str, text: str) -> None:
    """Writes what a field of the launchpad's config lacks, as a person does with mouse and keyboard."""
    page.locator(".CodeMirror-line", has_text=f"{field}:").click()
    page.keyboard.press("End")
    page.keyboard.insert_text(f' "{text}"')
    page.keyboard.press("Escape")
    expect(page.locator(".CodeMirror-code")).to_contain_text(f'{field}: "{text}"')


@pytest.fixture
def faults(page: Page) -> Iterator[list[str]]:
    """What the page and the server complained about while the test looked at it."""
    found: list[str] = []

    def note(error: Any) -> None:
        found.append(str(error))

    page.on("pageerror", note)
    yield found
    page.remove_listener("pageerror", note)


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


@pytest.mark.parametrize(("link", "decision"), [("Approve", "approve"), ("Reject", "reject")])
def test_the_message_leads_to_the_launchpad_with_the_answer_filled_in(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path, link: str, decision: str
) -> None:
    page.goto(question.link(link))
    editor = page.locator(".CodeMirror-code")
    expect(editor).to_contain_text(f'request: "{question.request}"')
    expect(editor).to_contain_text(f"decision: {decision}")
    expect(page.get_by_role("button", name="Launch Run")).to_be_disabled()
    fill_in(page, "decided_by", WHO)
    fill_in(page, "reason", WHY)
    expect(page.get_by_role("button", name="Launch Run")).to_be_enabled()
    page.screenshot(path=tmp_path / "launchpad.png")
    assert not faults


def test_the_person_waits_a_moment_only(launched: float) -> None:
    print(f"\nfrom Launch Run to the alias: {launched:.1f} s")
    assert launched < LONGEST_WAIT_S


def test_the_run_succeeds_before_their_eyes(company: Company, launched: float, page: Page, shots: Path) -> None:
    run = company.ui.runs("decision_job")[-1]
    expect(page).to_have_url(f"{company.ui.url}/runs/{run.id}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    page.screenshot(path=shots / "decision-run.png")
    assert company.ui.finished(run.id).status == "SUCCESS"


def test_the_production_model_shows_who_decided_and_why(
    company: Company, launched: float, staging: str, page: Page, shots: Path
) -> None:
    page.goto(f"{company.ui.url}/assets/production_model?view=events")
    expect(page.get_by_text(f"version {staging}: promotion by {WHO}").first).to_be_visible()
    expect(page.get_by_text(WHY).first).to_be_visible()
    expect(page.get_by_text(f"version {staging} since ").first).to_be_visible()
    expect(page.get_by_text("served_as_in_the_ledger").first).to_be_visible()
    page.screenshot(path=shots / "production-model.png")


def test_the_version_s_page_in_mlflow_tells_the_same(
    company: Company, question: Question, launched: float, staging: str, page: Page, shots: Path
) -> None:
    page.goto(f"{company.mlflow_url}/#/models/taxifare/versions/{staging}")
    expect(page.get_by_text("production", exact=False).first).to_be_visible()
    for told in (question.request, WHO, WHY):
        expect(page.get_by_text(told, exact=False).first).to_be_attached()
    page.get_by_text("MLflow Assistant").locator("xpath=following::button[3]").click()
    page.mouse.move(0, 0)
    page.screenshot(path=shots / "mlflow-version.png")
    assert company.versions()[staging].items() >= {
        ("month", "2015-01"),
        ("request", question.request),
        ("decision", "approved"),
        ("decided_by", WHO),
        ("decision_reason", WHY),
        ("replaced", "1"),
    }
