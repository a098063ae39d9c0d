"""`make demo` as a command: killed in the middle, run again, and run once more when there is nothing left to do."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from taxifare.approval.ledger import Ledger
from taxifare.approval.records import RequestState
from taxifare_dagster.catalog import CODE_LOCATION, PRODUCTION_POOL
from tests.end_to_end.conftest import SMALL, Books
from tests.support.places import REPOSITORY
from tests.support.ui import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "taxifare_dagster.demo"]
MONTHS = ["2015-01-01", "2015-02-01", "2015-03-01"]
SUBJECTS = ["base", "2015-01", "2015-02", "2015-03"]
ROW = re.compile(
    r"^(base|[0-9]{4}-[0-9]{2}) +([0-9,]+) +(\S+) +(\S+) +(–|\S+ \[\S+ \S+\]) +(\S+) +([A-Z_]+) +(\S+) *$", re.MULTILINE
)


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


def rows(output: str) -> dict[str, tuple[str, ...]]:
    """The cells of the table's rows by their first."""
    return {found[0]: found[1:] for found in ROW.findall(output)}


def typed(command: str, story: Story) -> str:
    """What a command that the demo has printed prints, typed as it stands."""
    environment = {**os.environ, "TAXIFARE_HOME": str(story.folder / "state")}
    ended = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        cwd=story.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def printed(begin: str, story: Story) -> str:
    """What the demo has printed on the last line that begins so; the message has links of the same names."""
    lines = reversed(story.second.stdout.splitlines())
    return next(line.removeprefix(begin) for line in lines if line.startswith(begin))


def test_a_killed_demo_goes_on_and_completes(story: Story) -> None:
    assert [request.subject for request in story.at_death.requests] == ["base", "2015-01"]
    assert story.second.returncode == 0, story.second.stderr[-3000:]
    assert list(rows(story.second.stdout)) == SUBJECTS
    assert "\nbase: done before\n" in story.second.stdout
    assert "\n2015-01: done before\n" in story.second.stdout
    assert "\n2015-02: done before\n" not in story.second.stdout


def test_what_the_killed_demo_had_begun_is_closed(story: Story) -> None:
    assert len(story.abandoned) == 1
    with dagster_of(story.folder) as instance:
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert [run.run_id for run in failed] == story.abandoned
        assert turns(instance) == 0


def test_every_month_but_the_last_is_decided_once_by_the_policy(story: Story) -> None:
    assert [request.subject for request in story.books.requests] == SUBJECTS
    *decided, left = story.books.requests
    for request in decided:
        outcome = story.books.outcomes[request.id]
        assert outcome.by == "demo policy"
        assert (outcome.state is RequestState.APPROVED) == (request.verdict in {"PROMOTE", "COLD_START"})
    assert left.id not in story.books.outcomes


def test_the_table_tells_what_the_ledger_has(story: Story) -> None:
    for request in story.books.requests:
        _trips, production, staging, _gain, _so_far, verdict, decision = rows(story.second.stdout)[request.subject]
        evidence, outcome = request.evidence, story.books.outcomes.get(request.id)
        assert staging == f"{evidence.staging.scores.mae:.3f}"
        assert production == ("–" if evidence.production is None else f"{evidence.production.scores.mae:.3f}")
        assert (verdict, decision) == (request.verdict, "open" if outcome is None else outcome.state)


def test_what_it_prints_fits_a_terminal_but_for_what_is_copied(story: Story) -> None:
    copied = ("Trips: ", "In another terminal", "Approve: ", "Reject: ", "A ride from ", "Open it all: ")
    before, _, rest = story.second.stdout.partition("The last message")
    lines = [*before.splitlines()[:-1], *rest.rpartition("─\n")[2].splitlines()]
    assert len(lines) > 20
    assert not [line for line in lines if len(line) > 80 and not line.startswith(copied)]


def test_run_again_it_repeats_nothing(story: Story) -> None:
    assert story.third.returncode == 0, story.third.stderr[-3000:]
    assert [line for line in story.third.stdout.splitlines() if line.endswith(": done before")] == [
        f"{subject}: done before" for subject in SUBJECTS
    ]
    assert story.at_the_end == story.books
    assert rows(story.third.stdout) == rows(story.second.stdout)


def test_it_ends_with_the_message_the_commands_that_answer_it_and_what_to_open(story: Story) -> None:
    request = story.books.requests[-1]
    table, message, end = (
        story.second.stdout.index(f"\n{begin}") for begin in ("base ", "Evaluation MAE: ", "Your turn")
    )
    assert table < message < end
    assert f"Your turn: shall version {request.staging_version} price rides?" in story.second.stdout
    assert f"taxifare decide {request.id} --approve" in printed("Approve: ", story)
    assert f"taxifare decide {request.id} --reject" in printed("Reject:  ", story)
    assert story.second.stdout.splitlines()[-1].endswith("/assets/production_eval_mae")


def test_every_run_says_where_it_belongs_and_what_it_is_about(story: Story) -> None:
    """Dagster's timeline shows runs of a code location; the list of runs shows their tags."""
    with dagster_of(story.folder) as instance:
        done = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    assert {run.job_name for run in done} == {"base_job", "monthly_job", "approval_job", "decision_job"}
    assert {run.remote_job_origin.location_name for run in done if run.remote_job_origin} == {CODE_LOCATION}
    assert all(run.remote_job_origin for run in done)
    about = Counter(run.tags.get("dagster/partition", run.tags.get("taxifare/subject", "")) for run in done)
    assert about == {"base": 2, "2015-01": 2, "2015-02": 2, "2015-03": 1, "": 1} | dict.fromkeys(MONTHS, 1)


def test_readmes_table_has_the_form_of_the_demos(story: Story) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    table = next(block for language, block in blocks if not language and "so far" in block)
    assert table.splitlines()[0].split() in [line.split() for line in story.second.stdout.splitlines()]
    assert list(rows(table)) == ["base", *(f"2015-0{month}" for month in range(1, 7))]
    assert rows(table)["2015-06"][-1] == "open"


@pytest.fixture(scope="module")
def answered(story: Story) -> Story:
    """The same, after the person has typed what the demo prints."""
    typed(printed("Approve: ", story), story)
    return story


def test_after_the_answer_the_model_just_approved_prices_the_ride(answered: Story) -> None:
    left = answered.books.requests[-1]
    assert f"version             {answered.books.promotions[-1].version}, promotion" in answered.second.stdout
    priced = typed(printed("A ride from JFK: ", answered), answered)
    assert re.search(rf"^version +{left.staging_version}, promotion", priced, re.MULTILINE)
    assert read(answered.folder).outcomes[left.id].by == "YOU"
