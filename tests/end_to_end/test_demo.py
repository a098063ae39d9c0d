"""`make demo` as a command: killed in the middle, run again, and run once more when there is nothing left to do."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from taxifare.approval.ledger import Ledger
from taxifare.approval.records import RequestState
from taxifare_dagster.catalog import PRODUCTION_POOL
from tests.end_to_end.conftest import SMALL, Books
from tests.support.ui import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "taxifare_dagster.demo"]
SUBJECTS = ["base", "2015-01", "2015-02", "2015-03"]


@dataclass(frozen=True)
class Story:
    """The demo, three times on the same state folder.

    Attributes:
        folder: Where its state is.
        killed: What the first said until it was killed, in the middle of February.
        at_death: The ledger then.
        abandoned: The runs that were at work in Dagster then.
        second: What the second said.
        books: The ledger after the second.
        third: What the third said.
        at_the_end: The ledger after the third.
    """

    folder: Path
    killed: str
    at_death: Books
    abandoned: list[str]
    second: subprocess.CompletedProcess[str]
    books: Books
    third: subprocess.CompletedProcess[str]
    at_the_end: Books


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The demo on a small city, three times."""
    folder = tmp_path_factory.mktemp("demo")
    settings = {**os.environ, **SMALL, "LAST_MONTH": "2015-03", "TAXIFARE_HOME": str(folder / "state")}
    killed = run_until_killed(folder, settings)
    at_death = read(folder)
    with dagster_of(folder) as instance:
        abandoned = [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))]
    second = run(folder, settings)
    books = read(folder)
    third = run(folder, settings)
    return Story(folder, killed, at_death, abandoned, second, books, third, read(folder))


def run(folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The demo, ended."""
    return subprocess.run(
        COMMAND, env=dict(settings), cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def run_until_killed(folder: Path, settings: Mapping[str, str]) -> str:
    """What the demo said before it was killed while it trained on February."""
    log = folder / "killed.log"
    with log.open("w") as output:
        demo = subprocess.Popen(
            COMMAND, env={**settings, "PYTHONUNBUFFERED": "1"}, cwd=folder, stdout=output, stderr=output
        )
    try:
        eventually(lambda: "2015-02: " in log.read_text() or demo.poll() is not None, "February", 240, every_s=0.1)
        with dagster_of(folder) as instance:
            eventually(lambda: turns(instance) or demo.poll() is not None, "February's training", 60, every_s=0.02)
        assert demo.poll() is None, log.read_text()[-3000:]
    finally:
        demo.kill()
        demo.wait()
    return log.read_text()


def dagster_of(folder: Path) -> dg.DagsterInstance:
    """The demo's Dagster."""
    return dg.DagsterInstance.from_config(str(folder / "state" / "dagster"))


def turns(instance: dg.DagsterInstance) -> int:
    """How many steps have their turn in the pool that training takes turns in."""
    return instance.event_log_storage.get_concurrency_info(PRODUCTION_POOL).active_slot_count


def read(folder: Path) -> Books:
    """What the demo's ledger says now."""
    with Ledger(f"sqlite:///{folder / 'state' / 'ledger.db'}", "USD").reading() as entries:
        outcomes = {outcome.request_id: outcome for outcome in entries.outcomes()}
        return Books(entries.requests(), outcomes, entries.deliveries(), entries.promotions(), entries.refusals())


def rows(output: str) -> dict[str, list[str]]:
    """The cells of the table's rows by their first."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in cells}


def test_a_killed_demo_goes_on_and_completes(story: Story) -> None:
    assert [request.subject for request in story.at_death.requests] == ["base", "2015-01"]
    assert story.second.returncode == 0, story.second.stderr[-3000:]
    assert list(rows(story.second.stdout)) == SUBJECTS
    assert [row[-1] for row in rows(story.second.stdout).values()][:2] == ["before", "before"]


def test_what_the_killed_demo_had_begun_is_closed(story: Story) -> None:
    assert len(story.abandoned) == 1
    with dagster_of(story.folder) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert [run.run_id for run in failed] == story.abandoned
        assert turns(instance) == 0


def test_every_month_is_asked_about_and_decided_once_by_the_policy(story: Story) -> None:
    assert [request.subject for request in story.books.requests] == SUBJECTS
    for request in story.books.requests:
        outcome = story.books.outcomes[request.id]
        assert outcome.by == "demo policy"
        assert (outcome.state is RequestState.APPROVED) == (request.verdict in {"PROMOTE", "COLD_START"})


def test_the_table_tells_what_the_ledger_has(story: Story) -> None:
    for request in story.books.requests:
        _trips, production, staging, _gain, _so_far, verdict, decision, _seconds = rows(story.second.stdout)[
            request.subject
        ]
        evidence = request.evidence
        assert staging == f"{evidence.staging.scores.mae:.3f}"
        assert production == ("–" if evidence.production is None else f"{evidence.production.scores.mae:.3f}")
        assert (verdict, decision) == (request.verdict, story.books.outcomes[request.id].state)


def test_run_again_it_repeats_nothing(story: Story) -> None:
    assert story.third.returncode == 0, story.third.stderr[-3000:]
    assert {row[-1] for row in rows(story.third.stdout).values()} == {"before"}
    assert story.at_the_end == story.books


def test_it_prints_the_message_and_says_what_to_open_next(story: Story) -> None:
    assert "\nEvaluation MAE: " in story.second.stdout
    assert "A ride from JFK: taxifare predict --at" in story.second.stdout
    assert "make dev" in story.second.stdout
    assert "/assets/production_eval_mae" in story.second.stdout
