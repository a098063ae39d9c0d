"""README as a newcomer reads it: `make demo`, what it leaves to them, and every further command that README names.

The demo is interrupted in the middle, and run again as README has it; `make test-all` runs it once more when nothing is
left to do. On the state that it leaves, README's commands are typed in their order.
"""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import requests

from taxifare.approval.ledger import Ledger
from taxifare.approval.records import RequestState
from taxifare.model.runs import PAGES_ADDRESS
from taxifare.sources import make_source
from taxifare.trips.months import parse_month
from taxifare_dagster.catalog import CODE_LOCATION, PRODUCTION_POOL
from tests.end_to_end.conftest import SMALL, Books
from tests.support import readme
from tests.support.publisher import lewagon_files, publisher_server
from tests.support.readme import Clone
from tests.support.servers import free_port
from tests.support.services import RIDE
from tests.support.small import small_settings
from tests.support.streams import broker, ride
from tests.support.ui import Ui, eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

COMMAND = [sys.executable, "-m", "taxifare_dagster.demo"]
SUBJECTS = ["base", "2015-02", "2015-03"]
MONTHS = [f"{subject}-01" for subject in SUBJECTS[1:]]
ROW = re.compile(
    r"^(base|[0-9]{4}-[0-9]{2}) +([0-9,]+) +(\S+) +(\S+) +(–|\S+ \[\S+ \S+\]) +(\S+) +([A-Z_]+) +(\S+) *$", re.MULTILINE
)
NUMBER = re.compile(r"[-+]?\d+\.\d+")
BETWEEN_PROCESSORS_USD, BOUNDS_BETWEEN_PROCESSORS_USD = 0.03, 0.05
"""How much an error or a gain of the demo, and a bound of an interval, may differ from README's on another processor.

Instructions limited to SSE 4.1, or four threads, move them by up to 0.006 and 0.018; AVX-512 by 0.018 and 0.034."""
IN_A_FOLDER = {"TRIP_SOURCE": "folder", "TRIP_FOLDER": "trips"}


@dataclass(frozen=True)
class Story:
    """The demo, twice on the same state folder.

    Attributes:
        clone: Where it was typed.
        interrupted: How the first ended, and what it said until then, in the middle of March.
        at_its_end: The ledger then.
        abandoned: The runs that were at work in Dagster then.
        second: What the second said.
        books: The ledger after the second.
    """

    clone: Clone
    interrupted: subprocess.CompletedProcess[str]
    at_its_end: Books
    abandoned: list[str]
    second: subprocess.CompletedProcess[str]
    books: Books


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The demo on a small city, twice."""
    clone = Clone(tmp_path_factory.mktemp("demo"), SMALL | {"FIRST_MONTH": "2015-02", "LAST_MONTH": "2015-03"})
    interrupted = interrupt(clone)
    at_its_end = read(clone.folder)
    with dagster_of(clone.folder) as instance:
        abandoned = [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))]
    second = clone.types("make demo")
    return Story(clone, interrupted, at_its_end, abandoned, second, read(clone.folder))


def interrupt(clone: Clone) -> subprocess.CompletedProcess[str]:
    """How the demo ended that was interrupted while it trained on March, by a terminal's Ctrl-C."""
    folder, environment = clone.folder, clone.environment | {"PYTHONUNBUFFERED": "1"}
    log = folder / "interrupted.log"
    with log.open("w") as output:
        demo = subprocess.Popen(
            COMMAND, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        eventually(lambda: "2015-03: " in log.read_text() or demo.poll() is not None, "March", 240, every_s=0.1)
        with dagster_of(folder) as instance:
            eventually(lambda: turns(instance) or demo.poll() is not None, "March's training", 60, every_s=0.02)
        assert demo.poll() is None, log.read_text()[-3000:]
        os.killpg(demo.pid, signal.SIGINT)  # whom it has started is interrupted as well
        demo.wait(30)
    finally:
        demo.kill()
        demo.wait()
    return subprocess.CompletedProcess(COMMAND, demo.returncode, log.read_text())


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


def printed(begin: str, story: Story) -> str:
    """What the demo has printed on the last line that begins so; the message has links of the same names."""
    lines = reversed(story.second.stdout.splitlines())
    return next(line.removeprefix(begin) for line in lines if line.startswith(begin))


def test_interrupted_amid_a_month_it_says_so_in_a_sentence(story: Story) -> None:
    """In place of an interrupt, too, that Dagster makes of one while a step is executed, and of its helpers' words."""
    assert story.interrupted.returncode == 130
    assert story.interrupted.stdout.endswith("asking\n\nInterrupted: make demo goes on from there.\n")
    assert "Traceback" not in story.interrupted.stdout


def test_an_interrupted_demo_goes_on_and_completes(story: Story) -> None:
    assert [request.subject for request in story.at_its_end.requests] == SUBJECTS[:-1]
    assert story.second.returncode == 0, story.second.stderr[-3000:]
    assert list(rows(story.second.stdout)) == SUBJECTS
    assert "\nbase: done before\n" in story.second.stdout
    assert "\n2015-02: done before\n" in story.second.stdout
    assert "\n2015-03: done before\n" not in story.second.stdout


def test_what_the_interrupted_demo_had_begun_is_closed(story: Story) -> None:
    assert len(story.abandoned) == 1
    with dagster_of(story.clone.folder) as instance:
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


@pytest.mark.slow
def test_run_again_it_repeats_nothing(story: Story) -> None:
    third = story.clone.types("make demo")
    assert third.returncode == 0, third.stderr[-3000:]
    assert [line for line in third.stdout.splitlines() if line.endswith(": done before")] == [
        f"{subject}: done before" for subject in SUBJECTS
    ]
    assert read(story.clone.folder) == story.books
    assert rows(third.stdout) == rows(story.second.stdout)


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
    with dagster_of(story.clone.folder) as instance:
        done = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        assert instance.get_materialized_partitions(dg.AssetKey("production_eval_mae")) == {*MONTHS}
    assert {run.job_name for run in done} == {"base_job", "monthly_job", "approval_job", "decision_job"}
    assert {run.remote_job_origin.location_name for run in done if run.remote_job_origin} == {CODE_LOCATION}
    assert all(run.remote_job_origin for run in done)
    about = Counter(run.tags.get("dagster/partition", run.tags.get("taxifare/subject", "")) for run in done)
    assert about == {"base": 2, "2015-02": 2, "2015-03": 1, "": 1} | dict.fromkeys(MONTHS, 1)


def test_readmes_table_has_the_form_of_the_demos(story: Story) -> None:
    table = readmes_table()
    assert table.splitlines()[0].split() in [line.split() for line in story.second.stdout.splitlines()]
    assert list(rows(table)) == ["base", *(f"2015-0{month}" for month in range(1, 7))]
    assert rows(table)["2015-06"][-1] == "open"


def readmes_table() -> str:
    """The table below `make demo`."""
    return next(block for block in readme.fences("") if "so far" in block)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_readmes_table_is_the_one_that_the_demo_prints(tmp_path: Path) -> None:
    """Verdicts and decisions are equal, and so is what is counted; errors and gains as processors differ."""
    demo = Clone(tmp_path).types("make demo")
    assert demo.returncode == 0, demo.stderr[-3000:]
    printed, promised = rows(demo.stdout), rows(readmes_table())
    assert list(printed) == list(promised)
    for subject, (trips, *numbers, verdict, decision) in promised.items():
        assert (trips, verdict, decision) == (printed[subject][0], *printed[subject][-2:]), subject
        for told, measured in zip(numbers, printed[subject][1:-2], strict=True):
            expected, *promised_bounds = (float(number) for number in NUMBER.findall(told) or ["nan"])
            found, *bounds = (float(number) for number in NUMBER.findall(measured) or ["nan"])
            assert found == pytest.approx(expected, abs=BETWEEN_PROCESSORS_USD, nan_ok=True), subject
            assert bounds == pytest.approx(promised_bounds, abs=BOUNDS_BETWEEN_PROCESSORS_USD), subject


# What README names besides: on the state that the demo has left, in the order in which one reads it


def asks(clone: Clone) -> None:
    """`requests` shows the question again, and both commands."""
    said = clone.printed(".venv/bin/taxifare requests")
    (request,) = open_requests(clone)
    for answer in ("Approve: ", "Reject:  "):
        command = next(line for line in said.splitlines() if line.startswith(answer))
        assert re.search(f"/taxifare decide {request} --{answer.strip(': ').lower()} .*--by YOU", command)


def decides(clone: Clone) -> None:
    """README's own command, with the request that waits."""
    (request,) = open_requests(clone)
    decide = next(command for command in readme.commands() if " decide REQUEST " in command)
    signed = decide.replace("REQUEST", request).replace("YOU", "Ada").replace("WHY", "a try")
    assert f"{request}: approved by Ada. In production: version " in clone.printed(signed)
    assert not open_requests(clone)


def open_requests(clone: Clone) -> list[str]:
    """The requests that wait for an answer, by id."""
    books = read(clone.folder)
    return [request.id for request in books.requests if request.id not in books.outcomes]


def prices(clone: Clone) -> None:
    """The model that was just approved prices the ride."""
    approved = read(clone.folder).promotions[-1].version
    priced = clone.printed(next(command for command in readme.commands() if " predict --at " in command))
    assert re.search(rf"^version +{approved}, promotion", priced, re.MULTILINE)
    assert re.search(r"^fare +[1-9][0-9.]+ USD$", priced, re.MULTILINE)


def shows_dagster(clone: Clone) -> None:
    """Its last line is the address of production_eval_mae, which has the months of the demo."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with clone.server(f'make dev ARGS="--port {port}"', f"{url}/server_info") as log:
        promised = f"\nDagster is at {url}/assets/production_eval_mae    Ctrl-C ends it.\n"
        eventually(lambda: promised in log.read_text(), "the address", 60)
        months = Ui(url).assets()["production_eval_mae"]["assetMaterializations"]
        assert {month["partition"] for month in months} == set(MONTHS)


def serves(clone: Clone) -> None:
    """The service prices a ride over HTTP, and `/docs` says how."""
    listens = f"127.0.0.1:{free_port()}"
    with clone.server("make serve", f"http://{listens}/health/ready", SERVICE_LISTEN=listens) as log:
        assert f"rides are priced at http://{listens}; /docs says how" in log.read_text()
        assert requests.get(f"http://{listens}/docs", timeout=30).ok
        told = requests.post(f"http://{listens}/predict", json={"ride_id": "r1", "ride": RIDE}, timeout=30)
        assert told.ok, told.text
        assert told.json()["model_version"] == read(clone.folder).promotions[-1].version


def prices_a_stream(clone: Clone) -> None:
    """A ride on the stream gets a quote."""
    metrics = f"127.0.0.1:{free_port()}"
    with broker(clone.folder / "nats") as nats:
        nats.send(ride("r1"))
        settings = {"STREAM_URL": nats.url, "STREAM_METRICS_LISTEN": metrics}
        with clone.server(".venv/bin/taxifare consume", f"http://{metrics}/metrics", **settings):
            (quote,) = eventually(nats.quotes, "the quote", 30)
    assert quote["ride_id"] == "r1"


def lacks(missing: str) -> Callable[[Clone], None]:
    """What README leaves to the reader, and the command says so; what it does is tested in tests/domain."""

    def says_what_is_missing(clone: Clone) -> None:
        ended = clone.types(next(command for command, how in TYPED.items() if how is says_what_is_missing))
        assert ended.returncode == 2
        assert missing in ended.stderr

    return says_what_is_missing


def shows_mlflow(clone: Clone) -> None:
    """MLflow's pages have the training runs of the demo."""
    with clone.server("make mlflow", f"{PAGES_ADDRESS}/health") as log:
        assert f"Training runs: {PAGES_ADDRESS}/#/experiments/" in log.read_text()
        asked = {"experiment_ids": [re.findall("experiments/([0-9]+)", log.read_text())[0]]}
        found = requests.post(f"{PAGES_ADDRESS}/api/2.0/mlflow/runs/search", json=asked, timeout=30).json()
        assert found["runs"]
        said = log.read_text()
    assert "INFO" not in said, "of its server and of each page"
    assert "deprecated" not in said, "what its libraries tell each other"


def dg_shows_dagster(clone: Clone) -> None:
    """`dg dev` shows the same assets."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with clone.server(f".venv/bin/dg dev --port {port}", f"{url}/server_info") as log:
        assert "production_eval_mae" in Ui(url).assets()
        assert "superseded" not in log.read_text()


def completes(clone: Clone) -> None:
    """The shell finds the commands."""
    assert "completion installed" in clone.printed(".venv/bin/taxifare --install-completion")
    completion = clone.folder / ".bash_completions" / "taxifare.sh"
    assert "_TAXIFARE_COMPLETE" in completion.read_text()


def has_new_data(clone: Clone) -> None:
    """A month of the course's files appears in the folder."""
    source = make_source(small_settings(clone.folder / "course"))
    files = lewagon_files({"jan": source.read_month(parse_month("2015-01")).trips}, source.read_base().whole().trips)
    with publisher_server(files) as publisher:
        clone.printed(".venv/bin/taxifare new-data 2015-01", **IN_A_FOLDER, LEWAGON_URL=publisher.url)
    assert (clone.folder / "trips" / "taxi_2015_01.parquet").exists()


def has_no_new_data(clone: Clone) -> None:
    """What was fetched is gone, and nothing else."""
    own = clone.folder / "trips" / "taxi_base_2009_2014.parquet"
    own.touch()
    assert "Deleted taxi_2015_01.parquet." in clone.printed(".venv/bin/taxifare delete-new-data", **IN_A_FOLDER)
    assert list(own.parent.iterdir()) == [own]


def forgets(clone: Clone) -> None:
    """`make clean` forgets the state; what else lies in the folder stays."""
    (clone.folder / "forgotten").mkdir()
    elsewhere = Clone(clone.folder / "forgotten")
    (elsewhere.folder / "state").mkdir()
    elsewhere.printed("make clean")
    assert not (elsewhere.folder / "state").exists()
    assert (elsewhere.folder / "Makefile").exists()


TYPED: dict[str, str | Callable[[Clone], None]] = {
    "make demo": r"\nYour turn: shall version",
    ".venv/bin/taxifare requests": asks,
    '.venv/bin/taxifare decide REQUEST --approve --override --by YOU --reason "WHY"': decides,
    '.venv/bin/taxifare predict --at "2015-07-01 18:05" --from -73.7781,40.6413 --to -74.00,40.70': prices,
    ".venv/bin/taxifare history --month 2015-03": r"demo policy(.|\n)*\nBack: ",
    ".venv/bin/taxifare status": r"^taxifare +New York(.|\n)*\nProduction +version .*by Ada(.|\n)*\nNext +\S",
    "make dev": shows_dagster,
    "make serve": serves,
    ".venv/bin/taxifare consume": prices_a_stream,
    ".venv/bin/taxifare outcomes": r"No quotes have been compared with what was paid yet",
    ".venv/bin/taxifare replay": lacks("Missing option '--from'"),
    ".venv/bin/taxifare backup": lacks("Missing argument"),
    ".venv/bin/taxifare restore": lacks("Missing argument"),
    "make mlflow": shows_mlflow,
    ".venv/bin/dg dev": dg_shows_dagster,
    ".venv/bin/taxifare doctor": r"^ok (?!(.|\n)*FAIL)(.|\n)*\nNext: ",
    ".venv/bin/taxifare settings": r"LAST_MONTH +2015-03 +environment(.|\n)*\nChanged from the default: ",
    ".venv/bin/taxifare settings --all": r"SIMULATOR_SEED(.|\n)*\nChanged from the default: ",
    ".venv/bin/taxifare --install-completion": completes,
    ".venv/bin/taxifare new-data 2015-01": has_new_data,
    ".venv/bin/taxifare delete-new-data": has_no_new_data,
    "make": r"^make help .*\n(make .+\n)+$",
    "make clean": forgets,
}
"""What a command of README prints, or what else is promised of it."""

NOT_TYPED = {
    "make run_workflow": "the course's, as make reset_local_files is: the table says what is here in their place",
    "make reset_local_files": "the course's",
    "make pictures": "takes the pictures anew, after a demo of its own: tests/orchestration checks that none is old",
    "make test": "this is it, as are make test-fast and make test-all",
    "make test-fast": "a part of this",
    "make test-all": "this, and more",
    "make lint": "it is about the code: .ci/run and the workflows run it",
    "make lint-deploy": "installs its checkers from a registry: the workflows run it",
    "make bench": "measures speeds, for an hour",
    "make lock": "needs uv and the registry that it resolves from",
}
"""README's commands that need the world, or that the tests are part of, and why they are not typed."""


def test_every_command_of_readme_is_typed_or_it_is_said_why_not() -> None:
    assert set(readme.commands()) == set(TYPED) | set(NOT_TYPED)


# test_lifecycle.py lives on what `make dev` starts and sees its last line, and what the demo leaves in Dagster is asked
# above; `dg dev` starts the same, and `make test` asks `dg` for its definitions in any case.
SLOW = {"make dev", ".venv/bin/dg dev"}


def test_make_dev_is_what_the_season_is_lived_on(story: Story) -> None:
    planned = story.clone.printed('make --dry-run dev ARGS="--port 3001"')
    assert planned.splitlines() == [".venv/bin/python -m taxifare_dagster.dev --port 3001"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] if command in SLOW else [])
        for command in readme.commands()
        if command in TYPED
    ],
)
def test_readme_s_command_does_what_is_promised(command: str, story: Story) -> None:
    """In README's order, each on what the one before has left."""
    promised = TYPED[command]
    if callable(promised):
        promised(story.clone)
    else:
        said = story.second.stdout if command == "make demo" else story.clone.printed(command)
        assert re.search(promised, said), said
