"""What a person sees: Chromium on the pages that the message and the README send them to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from taxifare.gate.evidence import Verdict
from tests.end_to_end.conftest import Company, Question
from tests.support.ui import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

GROUPS = {
    "trips": ("base_trips", "raw_new_data", "preprocessed_data", "rehearsal_trips"),
    "models": ("base_model", "production_model", "production_eval_mae", "staging_model"),
}


@pytest.fixture(scope="module")
def question(company: Company) -> Question:
    """The message about a month that was compared with a production model."""
    if company.production() is None:
        first = company.question("base", within_s=240)
        company.decide(first.config({"decided_by": "Ada", "reason": "there has to be a first"}))
    return eventually(lambda: [q for q in company.all_questions() if q.verdict != Verdict.COLD_START], "it", 300)[-1]


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
    page.goto(f"{company.ui.url}/asset-groups?{urlencode({'expanded': groups})}")
    for asset in (asset for assets in GROUPS.values() for asset in assets):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    page.screenshot(path=tmp_path / "asset-graph.png")
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
    expect(page.get_by_text("2015-06-01").first).to_be_visible()
    expect(page.get_by_text("mae_usd", exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "partitions.png")
    assert not faults


def test_the_message_leads_to_what_it_is_about(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path
) -> None:
    page.goto(question.link("See"))
    expect(page.get_by_text(f"{question.subject}-01").first).to_be_visible()
    expect(page.get_by_text("parent_version", exact=True)).to_be_visible()
    page.screenshot(path=tmp_path / "see.png")
    assert not faults


@pytest.mark.parametrize(("link", "decision"), [("Approve", "approve"), ("Reject", "reject")])
def test_the_message_leads_to_the_launchpad_with_the_answer_filled_in(
    company: Company, question: Question, page: Page, faults: list[str], tmp_path: Path, link: str, decision: str
) -> None:
    page.goto(question.link(link))
    editor = page.locator(".CodeMirror-code")
    expect(editor).to_contain_text(f'request: "{question.request}"')
    expect(editor).to_contain_text(f"decision: {decision}")
    expect(editor).to_contain_text('decided_by: ""')
    expect(page.get_by_role("button", name="Launch Run")).to_be_enabled()
    page.screenshot(path=tmp_path / "launchpad.png")
    assert not faults
