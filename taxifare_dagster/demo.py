"""`make demo`: the whole story in a few minutes, through Dagster, on the state folder that `make dev` opens.

The base model, its request and the decision; then every month in order: all assets and checks, the message, a decision.
The demo plays the person, but for the last month: it answers each message by its verdict, as `demo policy`, and leaves
the last one open, for whoever ran it. Run again, it goes on where it stopped. What is done belongs to the jobs; here is
the order in which a visitor sees them, and what the terminal shows.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shlex import quote
from typing import Literal

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.utils import make_new_run_id
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from taxifare.approval import promotions
from taxifare.approval.approvals import Approvals
from taxifare.approval.channels import notifiers
from taxifare.approval.decisions import BY_VERDICT, by_verdict, command
from taxifare.approval.locks import holding
from taxifare.approval.message import message
from taxifare.approval.records import Outcome, Request
from taxifare.approval.requests import overtaken
from taxifare.cli.pricing import price
from taxifare.cli.shared import Terminal, ending_told
from taxifare.environment import is_secret
from taxifare.errors import ToldError
from taxifare.gate.evidence import Verdict
from taxifare.model.quiet import load_tensorflow
from taxifare.monitoring.calendar import rules_not_learned
from taxifare.operations.doctor import IF_NO_BASE_YEARS
from taxifare.operations.status import NO_STATE
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings, settings_in_force
from taxifare.sources import NoBaseError, TripSource, make_source
from taxifare.trips.editions import BASE
from taxifare.trips.months import parse_month
from taxifare_dagster.build import build_definitions
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.executors import while_alive
from taxifare_dagster.failures import why_blocked
from taxifare_dagster.home import prepare_home
from taxifare_dagster.interrupts import ending_at_once
from taxifare_dagster.links import DagsterLinks
from taxifare_dagster.order import covered_months
from taxifare_dagster.partitions import partition_key

DECIDED_BY = "demo policy"
_COLUMNS: Mapping[str, Literal["left", "right"]] = {
    "month": "left",
    "trips": "right",
    "prod.": "right",
    "staging": "right",
    "gain [95 % interval]": "left",
    "so far": "right",
    "verdict": "left",
    "decision": "left",
}
_WORK_ON_BASE = "learning from the base years, asking"
_WORK_ON_MONTH = "fetching, scoring, training, comparing, asking"


class StoppedByChecksError(ToldError, RuntimeError):
    """What was published is no month of trips; says what is wrong with it, and what to do."""


class Demo:
    """The lifecycle, driven in one process.

    Args:
        settings: The settings in force.
        instance: The persistent Dagster instance.
    """

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self._settings = settings
        self._instance = instance
        # Without a channel nobody is told: the demo answers by itself, and what it leaves open `make dev` asks.
        self._definitions = build_definitions(settings, notifiers=notifiers(settings))
        self.approvals = approvals_of(settings)

    def run(self, subject: str, *, is_answered: bool = True) -> bool:
        """Ensures that the subject is compared and asked about, and returns whether that was done before.

        Args:
            subject: A month, or `base`.
            is_answered: Whether the question is answered as well, as the policy has it.
        """
        asked = self.open_question(subject)
        was_compared = self.is_settled(subject) or asked is not None
        if not was_compared:
            self._compare(subject)
            if not self.is_settled(subject):
                self._execute("approval_job", {"send_approval_message": {"subject": subject}})
                asked = self.open_question(subject)
        if is_answered and asked is not None:
            self._answer(asked)
        return was_compared

    def open_question(self, subject: str) -> Request | None:
        """Returns the question about the subject that can be answered, None where there is none."""
        with self.approvals.ledger.reading() as entries:
            production, now = promotions.production(entries), self.approvals.now()
            waiting = (asked for asked in entries.open_requests() if asked.subject == subject)
            return next((asked for asked in waiting if overtaken(asked, production, now) is None), None)

    def _compare(self, subject: str) -> None:
        if subject == BASE:
            self._execute("base_job")
        else:
            self._execute("monthly_job", partition=partition_key(parse_month(subject)))

    def _answer(self, request: Request) -> None:
        """Ensures that the question is answered, as the policy has it."""
        decision = by_verdict(request.verdict)
        self._execute(
            "decision_job",
            {
                "decide": {
                    "request": request.id,
                    "token": self.approvals.answer_tokens(request)[decision],
                    "decision": decision,
                    "decided_by": DECIDED_BY,
                    "reason": f"policy: {BY_VERDICT}",
                }
            },
        )

    def check_trips(self, base_revision: str) -> None:
        """Ensures that the state folder's base model was made from this source's base trips.

        Raises:
            SystemExit: It holds the story of other trips.
        """
        base = self.approvals.record.comparisons().get(BASE)
        if base is not None and base.revision != base_revision:
            raise SystemExit(
                f"{self._settings.home} holds the story of other trips (revision {base.revision}, this source has "
                f"{base_revision}). Set TAXIFARE_HOME to another folder, or forget this one: "
                f"{_forgetting(self._settings)}"
            )

    def trips_of(self, subject: str) -> int:
        """Returns how many clean trips the subject has, from the asset's metadata."""
        partition = None if subject == BASE else partition_key(parse_month(subject))
        records = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey("base_trips" if partition is None else "preprocessed_data"),
                asset_partitions=None if partition is None else [partition],
            ),
            limit=1,
        ).records
        materialization = records[0].asset_materialization
        if materialization is None:
            raise LookupError(f"the trips of {subject} were not materialised")
        name = "dagster/row_count" if partition is None else "dagster/partition_row_count"
        return int(str(materialization.metadata[name].value))

    def answered(self, subject: str) -> tuple[Request, Outcome] | None:
        """Returns the subject's last request that somebody has answered, with the answer; None where there is none."""
        with self.approvals.ledger.reading() as entries:
            requests, outcomes = entries.requests(), {outcome.request_id: outcome for outcome in entries.outcomes()}
        return next(
            (
                (request, outcome)
                for request in reversed(requests)
                if request.subject == subject
                and (outcome := outcomes.get(request.id)) is not None
                and outcome.by is not None
            ),
            None,
        )

    def is_settled(self, subject: str) -> bool:
        """Returns whether somebody has decided on the subject, or there is nothing to decide on."""
        comparison = self.approvals.record.comparisons().get(subject)
        is_unchanged = comparison is not None and comparison.evidence.verdict is Verdict.UNCHANGED
        return is_unchanged or self.answered(subject) is not None

    def _execute(self, job: str, config: dict[str, object] | None = None, partition: str | None = None) -> None:
        """Ensures that the job has run; its log goes to the instance, where the UI shows it.

        Raises:
            StoppedByChecksError: Checks of its trips have stopped it.
        """
        run_id = make_new_run_id()
        with while_alive(run_id, self._settings):
            try:
                done = self._definitions.resolve_job_def(job).execute_in_process(
                    instance=self._instance,
                    partition_key=partition,
                    run_id=run_id,
                    run_config={
                        "ops": {op: {"config": values} for op, values in (config or {}).items()},
                        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                    },
                )
            except DagsterAssetCheckFailedError:
                why = why_blocked(run_id, self._instance)
                raise StoppedByChecksError(f"{why}. Once that is done, {NO_STATE} goes on from there") from None
        # A run in this process has no code location, and the UI's timeline shows only those of one.
        origin = RemoteRepositoryOrigin(
            RegisteredCodeLocationOrigin(CODE_LOCATION), self._definitions.get_repository_def().name
        )
        self._instance.run_storage.replace_job_origin(done.dagster_run, origin.get_job_origin(job))


def main() -> None:
    """Runs the demo, prints its table, and leaves the last question to whoever runs it."""
    settings, terminal = settings_in_force(), Terminal()
    # Before MLflow, which sets a variable of its own.
    given = {name.upper(): os.environ[name.upper()] for name in Settings.model_fields if name.upper() in os.environ}
    links = DagsterLinks(settings.dagster_url, settings.lake)
    source = make_source(settings)
    subjects = [BASE, *map(str, covered_months(source, settings))]
    if len(subjects) == 1:
        raise SystemExit(f"the source has no month between {settings.first_month} and {settings.last_month}")
    last, base_revision = subjects[-1], _base_revision(source)
    terminal.print(f"Trips: {settings.trip_source}. State: {settings.home}", soft_wrap=True, highlight=False)
    terminal.print(f"Decisions: {BY_VERDICT};\n{last} is left to you.\n", highlight=False)
    with _progress(terminal, len(subjects) + 2) as step, ExitStack() as work:
        step("preparing the state folder (Dagster, MLflow, ledger)")
        prepare_home(settings)
        work.enter_context(holding(settings, NO_STATE))
        step("loading TensorFlow")
        load_tensorflow()
        with dg.DagsterInstance.get() as instance:
            demo = Demo(settings, instance)
            demo.check_trips(base_revision)
            for subject in subjects:
                step(f"{subject}: {_WORK_ON_BASE if subject == BASE else _WORK_ON_MONTH}")
                if demo.run(subject, is_answered=subject != last):
                    terminal.print(f"{subject}: done before")
            step("done")
            rows = [_row(demo, subject) for subject in subjects]
            asked, production = demo.open_question(last), demo.approvals.production()
            text = None if asked is None else _message(demo.approvals, asked, links, settings)
    _show_table(terminal, rows, settings)
    _show_price(terminal, settings, last, production)
    if asked is not None and text is not None:
        terminal.rule("The last message, as the person gets it: you")
        terminal.print(text, soft_wrap=True, highlight=False)
        terminal.rule()
        _show_question(terminal, asked, given)
    else:
        terminal.print(f"No question about {last} is open: it is answered, or nothing was learned.")
    terminal.print(f"Open it all: make dev, then {links.asset('production_eval_mae')}", soft_wrap=True, highlight=False)


def _base_revision(source: TripSource) -> str:
    """Returns the revision of the base years, which the demo begins with.

    Raises:
        NoBaseError: There are none; says what goes without them.
    """
    try:
        return source.base_revision()
    except NoBaseError as error:
        raise NoBaseError(f"{error}. {IF_NO_BASE_YEARS}") from None


def _forgetting(settings: Settings) -> str:
    """Returns the command that removes the state folder: `make clean` knows of the usual one only."""
    usual = Path(str(Settings.model_fields["taxifare_home"].default)).absolute()
    return "make clean" if settings.home == usual else f"rm -rf {quote(str(settings.home))}"


def _message(approvals: Approvals, asked: Request, links: DagsterLinks, settings: Settings) -> str:
    """Returns the message that asks the question."""
    rules = rules_not_learned(asked.evidence, settings)
    return message(asked, approvals.answer_tokens(asked), links, head=approvals.record.head(), rules=rules).text


def _show_question(terminal: Terminal, asked: Request, given: Mapping[str, str]) -> None:
    """Prints how to answer what was left open; given are the settings that the environment has."""
    lines = [f"Your turn: shall version {asked.staging_version} price rides? {asked.subject} says {asked.verdict}."]
    if given:
        shown = (f"{name}={'…' if is_secret(Settings, name) else quote(value)}" for name, value in given.items())
        lines.append(f"In another terminal first: export {' '.join(shown)}")
    lines += [
        f"Approve: {command(asked, 'approve')}",
        f"Reject:  {command(asked, 'reject')}",
        "Or use the message's links while make dev runs. Then ask for the price again.",
    ]
    for line in lines:
        terminal.print(line, soft_wrap=True, highlight=False)


def _show_price(terminal: Terminal, settings: Settings, month: str, production: str | None) -> None:
    """Prints what a ride costs from the first airport, or a corner, to the city's middle, and the command that asks."""
    city, at = settings.city_facts, f"{parse_month(month) + 1}-01 18:05"
    middle = f"{sum(city.longitude_range_deg) / 2:.2f},{sum(city.latitude_range_deg) / 2:.2f}"
    corner = ("the south-west", f"{city.longitude_range_deg[0]},{city.latitude_range_deg[0]}")
    airports = [(airport.code, f"{airport.longitude_deg},{airport.latitude_deg}") for airport in city.airports]
    place, start = (*airports, corner)[0]
    if production is None:
        terminal.print("\nNothing is in production yet: no ride has a price.\n")
        return
    asks = f'taxifare predict --at "{at}" --from {start} --to {middle}'
    terminal.print(f"\nA ride from {place}: {asks}", soft_wrap=True, highlight=False)
    for line in price(at, start, middle, 1)[0]:
        terminal.print(line, highlight=False)
    terminal.print()


def _show_table(terminal: Terminal, rows: Sequence[Sequence[str]], settings: Settings) -> None:
    """Prints the table of months; it fits 80 columns."""
    unit = settings.target_facts.unit
    terminal.print(f"Errors (MAE) in {unit} a ride. Gain: how much closer staging is on the last days;")
    terminal.print("so far: on all rides since production came in.")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, justify in _COLUMNS.items():
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    terminal.width = max(terminal.width, 80)
    terminal.print(table, highlight=False)


def _row(demo: Demo, subject: str) -> tuple[str, ...]:
    """Returns the subject's evidence and decision, a cell a column: the evidence that was decided on, where it was."""
    answered = demo.answered(subject)
    evidence = (answered[0] if answered else demo.approvals.record.comparisons()[subject]).evidence
    gain = evidence.gain
    open_or_none = "–" if demo.open_question(subject) is None else "open"
    return (
        subject,
        f"{demo.trips_of(subject):,}",
        "–" if evidence.production is None else f"{evidence.production.scores.mae:.3f}",
        f"{evidence.staging.scores.mae:.3f}",
        "–" if gain is None else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
        "–" if evidence.track_record is None else f"{evidence.track_record.gains.all.mean:+.3f}",
        evidence.verdict,
        open_or_none if answered is None else answered[1].state,
    )


@contextmanager
def _progress(terminal: Terminal, steps: int) -> Iterator[Callable[[str], None]]:
    """Shows a bar, what is being done and for how long; yields the function that begins a step."""
    columns = (
        SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=terminal) as progress:
        task = progress.add_task("starting", total=steps)
        begun = False

        def step(description: str) -> None:
            nonlocal begun
            progress.update(task, advance=1 if begun else 0, description=description)
            begun = True
            if not terminal.is_terminal:
                terminal.print(description)

        yield step


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with ending_told():
        ending_at_once(main, f"Interrupted: {NO_STATE} goes on from there.")
