"""`make demo`: the whole story in a few minutes, through Dagster, on the state folder that `make dev` opens.

The base model, its request and the decision; then every month in order: all assets and checks, the message, a decision.
The demo plays the person: it answers each message by its verdict, as `demo policy`. Run again, it goes on where it
stopped. What is done belongs to the jobs; here is the order in which a visitor sees them, and what the terminal shows.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from taxifare.approval.channels import notifiers
from taxifare.approval.decisions import BY_VERDICT, by_verdict
from taxifare.approval.message import message
from taxifare.approval.records import Outcome, Request
from taxifare.cli.pricing import price
from taxifare.cli.shared import Terminal, ending_told
from taxifare.gate.evidence import Verdict
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings, settings_in_force
from taxifare.sources import make_source
from taxifare.trips.editions import BASE
from taxifare.trips.months import parse_month
from taxifare_dagster.build import build_definitions
from taxifare_dagster.home import prepare_home
from taxifare_dagster.links import DagsterLinks
from taxifare_dagster.order import covered_months
from taxifare_dagster.partitions import partition_key

DECIDED_BY = "demo policy"
_TABLE_WIDTH = 126
_WORK_ON_BASE = "learning from the base years, asking, deciding"
_WORK_ON_MONTH = "fetching, scoring production, training staging, comparing, asking, deciding"


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

    def run(self, subject: str) -> float:
        """Returns the seconds that it took to compare the subject, ask and decide; 0 where all that was done before."""
        started = time.perf_counter()
        if self.is_settled(subject):
            return 0.0
        if subject == BASE:
            self._execute("base_job")
        else:
            self._execute("monthly_job", partition=partition_key(parse_month(subject)))
        if not self.is_settled(subject):
            self._execute("approval_job", {"send_approval_message": {"subject": subject}})
        if not self.is_settled(subject):
            self._answer(subject)
        return time.perf_counter() - started

    def _answer(self, subject: str) -> None:
        """Ensures that the open question about the subject is answered, as the policy has it."""
        request = next(asked for asked in self.approvals.record.open_requests() if asked.subject == subject)
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
                f"{base_revision}). Set TAXIFARE_HOME to another folder, or start anew with `make clean`."
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
        """Ensures that the job has run; its log goes to the instance, where the UI shows it."""
        self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            partition_key=partition,
            run_config={
                "ops": {op: {"config": values} for op, values in (config or {}).items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )


def main() -> None:
    """Runs the demo and prints its table."""
    settings, terminal = settings_in_force(), Terminal()
    links = DagsterLinks(settings.dagster_url, settings.lake)
    terminal.width = max(terminal.width, _TABLE_WIDTH)
    source = make_source(settings)
    subjects = [BASE, *map(str, covered_months(source, settings))]
    if len(subjects) == 1:
        raise SystemExit(f"the source has no month between {settings.first_month} and {settings.last_month}")
    terminal.print(f"Trips: {settings.trip_source}. Decisions: {BY_VERDICT}. State: {settings.home}\n")
    table = _table(settings)
    with _progress(terminal, len(subjects) + 2) as step:
        step("preparing the state folder (Dagster, MLflow, ledger)")
        prepare_home(settings)
        step("loading TensorFlow")
        _load_tensorflow_quietly()
        with dg.DagsterInstance.get() as instance:
            demo = Demo(settings, instance)
            demo.check_trips(source.base_revision())
            for subject in subjects:
                step(f"{subject}: {_WORK_ON_BASE if subject == BASE else _WORK_ON_MONTH}")
                seconds = demo.run(subject)
                _add_row(table, demo, subject, seconds)
            step("done")
            last, head = demo.approvals.record.requests()[-1], demo.approvals.record.head()
            text = message(last, demo.approvals.answer_tokens(last), links, head=head).text
            production = demo.approvals.production()
    terminal.rule("The last message, as the person gets it")
    terminal.print(text, soft_wrap=True, markup=False, highlight=False)
    terminal.rule()
    terminal.print(table)
    _show_price(terminal, settings, subjects[-1])
    terminal.print(
        f"\nIn production: version {production}. Open it all: make dev, then {links.asset('production_eval_mae')}"
    )


def _show_price(terminal: Terminal, settings: Settings, month: str) -> None:
    """Prints what a ride costs from the first airport, or a corner, to the city's middle, and the command that asks."""
    city, at = settings.city_facts, f"{parse_month(month) + 1}-01 18:05"
    middle = f"{sum(city.longitude_range_deg) / 2:.2f},{sum(city.latitude_range_deg) / 2:.2f}"
    corner = ("the south-west", f"{city.longitude_range_deg[0]},{city.latitude_range_deg[0]}")
    airports = [(airport.code, f"{airport.longitude_deg},{airport.latitude_deg}") for airport in city.airports]
    place, start = (*airports, corner)[0]
    terminal.print(f'\nA ride from {place}: taxifare predict --at "{at}" --from {start} --to {middle}')
    for line in price(at, start, middle, 1)[0]:
        terminal.print(line, highlight=False)


def _table(settings: Settings) -> Table:
    """Returns the empty table of months."""
    table = Table(
        title=(
            f"Errors in {settings.target_facts.unit} a ride. Gain: how much closer staging is on the last days; "
            "so far: on all rides since production came in"
        )
    )
    for name, justify in {
        "month": "left", "trips": "right", "production MAE": "right", "staging MAE": "right",
        "gain [95 % interval]": "left", "so far": "right", "verdict": "left", "decision": "left", "seconds": "right",
    }.items():  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    return table


def _add_row(table: Table, demo: Demo, subject: str, seconds: float) -> None:
    """Adds the subject's evidence and decision to the table: the evidence that was decided on, where it was."""
    answered = demo.answered(subject)
    evidence = (answered[0] if answered else demo.approvals.record.comparisons()[subject]).evidence
    gain = evidence.gain
    table.add_row(
        subject,
        f"{demo.trips_of(subject):,}",
        "–" if evidence.production is None else f"{evidence.production.scores.mae:.3f}",
        f"{evidence.staging.scores.mae:.3f}",
        "–" if gain is None else f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
        "–" if evidence.track_record is None else f"{evidence.track_record.gains.all.mean:+.3f}",
        evidence.verdict,
        "–" if answered is None else answered[1].state,
        f"{seconds:.1f}" if seconds else "before",
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


def _load_tensorflow_quietly() -> None:
    """Imports TensorFlow without the lines its native code writes about the processor before it reads any log level."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import keras  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    # It takes each newly loaded model for the same one compiled again, and warns of that.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with ending_told():
        main()
