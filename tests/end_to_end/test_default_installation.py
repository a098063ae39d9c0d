"""`make dev` with no channel set: whoever sits at its terminal is asked, and can answer."""

import re
from pathlib import Path

import pytest

from taxifare.approval.ledger import Ledger
from tests.end_to_end.conftest import SMALL
from tests.support.servers import dagster_dev
from tests.support.ui import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_terminal_shows_the_question_with_its_links_and_token(tmp_path: Path) -> None:
    terminal = tmp_path / "dagster.log"
    with dagster_dev(tmp_path, SMALL) as url:
        sent = "sent just now to run log"
        eventually(lambda: sent in terminal.read_text(), "the question in the terminal", within_s=300)
    shown = terminal.read_text()
    assert "Sensors start by themselves; questions appear here." in shown
    assert "- DEBUG -" not in shown
    question = shown[shown.index("\nEvaluation MAE: none - New training MAE: ") : shown.index(sent)]
    approve = next(line for line in question.splitlines() if line.startswith("Approve: "))
    assert approve.startswith(f"Approve: {url}/locations/taxifare_dagster.definitions/jobs/decision_job/")
    with Ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}", "USD").reading() as entries:
        (request,) = entries.requests()
        assert f"\nRequest {request.id}\n" in question
        assert [delivery.channel for delivery in entries.deliveries(request.id)] == ["run log"]
    assert re.search("token%3A%20%22[0-9a-f]{32}%22", approve)
