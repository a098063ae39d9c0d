"""The `taxifare` command: answer requests, read the history, go back; tuned settings, learning curve, replay."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from upath import UPath

from taxifare.approval.approvals import Approvals, Decision
from taxifare.approval.errors import ApprovalError
from taxifare.approval.ledger import LedgerError
from taxifare.approval.records import Promotion, Request, State
from taxifare.gate.scores import describe_gain
from taxifare.model.fitting import TrainingError
from taxifare.model.registry import ModelRegistry, RegistryError
from taxifare.operations.doctor import examine
from taxifare.operations.inventory import take_stock
from taxifare.replay.policies import PolicyName, ReplayError
from taxifare.replay.replaying import replay
from taxifare.replay.results import Replay
from taxifare.reports import figures
from taxifare.reports.replay_page import headline, render
from taxifare.settings import ChallengerNames, RowCount, Settings
from taxifare.sources import SourceError, course_month, make_source
from taxifare.studies.learning_curve import LearningCurveError, learning_curve
from taxifare.studies.tuning import Finding, adopt, latest_finding, searched_settings
from taxifare.training.base_trips import gather_base
from taxifare.trips.months import Month, parse_month
from taxifare.trips.targets import TARGETS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decide which model prices rides, and see who did.",
)


@dataclass(frozen=True)
class Surroundings:
    """What the command is told by the orchestration, which the domain does not know.

    Attributes:
        editions_in_lake: Returns the months of which trips are in a lake, and their revisions.
    """

    editions_in_lake: Callable[[UPath], Mapping[Month, str]]


_MINIMUM_WIDTH = 110

_ENV_FILE = Path(".env")

By = Annotated[str, typer.Option("--by", help="Who decides.")]

Reason = Annotated[str, typer.Option("--reason", help="Why.")]


@app.command()
def requests(
    everything: Annotated[
        bool, typer.Option("--all", help="Show those that are answered, expired or void, too.")
    ] = False,
) -> None:
    """Show the requests that wait for an answer."""
    approvals = _approvals()
    shown = approvals.requests() if everything else approvals.open_requests()
    table = Table(Column("request", overflow="fold"), "verdict", "gain", "replaces", "state", "valid until")
    for request in shown:
        gain = request.evidence.gain
        table.add_row(
            request.id,
            request.verdict,
            "–" if gain is None else describe_gain(gain, request.evidence.unit),
            request.production_version or "nothing",
            _state(approvals, request),
            f"{request.valid_until:%Y-%m-%d}",
        )
    _terminal().print(table if shown else "No request waits for an answer.")


@app.command()
def decide(
    request: Annotated[str, typer.Argument(help="The request, as the message or `taxifare requests` names it.")],
    by: By,
    reason: Reason,
    approve: Annotated[bool | None, typer.Option("--approve/--reject", help="The decision.")] = None,
    override: Annotated[bool, typer.Option("--override", help="Approve against the verdict.")] = False,
) -> None:
    """Approve or reject a request; approving makes exactly the version that was shown production."""
    if approve is None:
        raise typer.BadParameter("say --approve or --reject")
    approvals = _approvals()
    decision: Decision = "approve" if approve else "reject"
    with _told():
        # Whoever can run this command can read the secret that the token is made from; it is no further protection.
        token = approvals.token(approvals.find(request))
        outcome = approvals.decide(request, decision, by, reason, token, override=override)
        _terminal().print(f"{request}: {outcome.state} by {outcome.by}. In production: {_in_production(approvals)}.")


@app.command()
def history(
    on: Annotated[
        datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="Only who was production then.")
    ] = None,
) -> None:
    """Show which version was production when, who decided it and why."""
    approvals = _approvals()
    entries = approvals.history()
    if on is not None:
        entry = approvals.production_on(on.date())
        entries = () if entry is None else (entry,)
    table = Table("since (UTC)", "version", "replaced", "how", "by", "why", Column("request", no_wrap=True))
    for entry in entries:
        table.add_row(*_row(entry))
    _terminal().print(table if entries else "Nothing was in production.")


@app.command()
def rollback(
    by: By,
    reason: Reason,
    to: Annotated[str | None, typer.Option("--to", help="Version; by default the one that was replaced last.")] = None,
) -> None:
    """Make an earlier production version production again."""
    approvals = _approvals()
    with _told():
        promotion = approvals.rollback(to, by=by, reason=reason)
        _terminal().print(f"In production: version {promotion.version}, instead of {promotion.replaced_version}.")


@app.command()
def tuned(
    write: Annotated[bool, typer.Option("--write", help="Put the settings into .env, all else as it is.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who decides, with --write.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, with --write.")] = None,
) -> None:
    """Show what the latest tuning found, and on what evidence; --write makes it the settings of the next fit."""
    settings, terminal = _settings(), _terminal()
    finding = latest_finding(settings)
    if finding is None:
        raise typer.BadParameter("nothing has been tuned yet: launch tuning_job in Dagster's UI")
    terminal.print(_tuning_table(finding, settings), _tuning_evidence(finding), highlight=False)
    if not write:
        terminal.print("\nTo adopt them: --write --by … --reason …, or these lines in .env:\n")
        terminal.print("\n".join(finding.env_lines), highlight=False, markup=False)
        return
    if by is None or reason is None:
        raise typer.BadParameter("--write needs --by and --reason")
    with _told():
        adopt(finding, ModelRegistry.from_settings(settings), _ENV_FILE, by=by, reason=reason)
    in_force = searched_settings(_settings())
    overridden = [name.upper() for name, value in finding.winner.items() if in_force[name] != value]
    if overridden:
        raise typer.BadParameter(
            f"{_ENV_FILE} is written, but the environment goes before it: unset {', '.join(overridden)}"
        )
    terminal.print(
        f"{_ENV_FILE} is written; a Dagster that runs takes its settings from there when it is started again."
    )


@app.command("learning-curve")
def show_learning_curve(
    sizes: Annotated[
        str, typer.Option(help="Training trips, by commas; those beyond all are left out.")
    ] = "1k,3k,10k,30k,100k,300k,all",
    repeats: Annotated[int, typer.Option(min=1, help="Fits of each size: other trips, other weights.")] = 3,
    output: Annotated[Path | None, typer.Option(help="PNG file for the curve; MLflow has it in any case.")] = None,
) -> None:
    """Measure how much error more base trips remove. Interrupted, it goes on where it was."""
    settings, terminal = _settings(), _terminal()
    try:
        numbers: list[int | None] = TypeAdapter(list[RowCount]).validate_python(sizes.split(","))
    except ValidationError as error:
        raise typer.BadParameter(f"expected sizes such as 1k,3k,all, received {sizes!r}") from error
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with _told():
        whole = settings.model_copy(update={"dataset_size": None})
        trips = gather_base(make_source(settings).read_base(), whole).trips.preprocessed(settings.city_facts, None)
        registry = ModelRegistry.from_settings(settings)
        with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
            task = progress.add_task("learning curve", total=1.0)
            curve = learning_curve(
                trips,
                registry,
                settings,
                sizes=numbers,
                repeats=repeats,
                on_progress=lambda share: progress.update(task, completed=share),
            )
        unit = settings.target_facts.unit
        png = figures.learning_curve(curve.levels, unit)
        registry.log_figure(curve.run_id, "learning_curve", png)
    table = Table("training trips", f"MAE, {unit}", "95 % interval", f"linear on distance, {unit}")
    for level in curve.levels:
        table.add_row(
            f"{level.trips:,}",
            f"{level.interval.mean:.3f}",
            f"{level.interval.low:.3f} to {level.interval.high:.3f}" if repeats > 1 else "–",
            f"{level.reference_mae:.3f}",
        )
    terminal.print(table)
    if output is not None:
        output.write_bytes(png)
        terminal.print(f"The curve is in {output}.")


@app.command("replay")
def show_replay(
    first: Annotated[str, typer.Option("--from", help="First month, YYYY-MM.")],
    last: Annotated[str, typer.Option("--to", help="Last month, YYYY-MM.")],
    policy: Annotated[
        list[str], typer.Option(help=f"Who decides: {', '.join(get_args(PolicyName))}. May be given several times.")
    ] = ["gate", "always", "never"],  # noqa: B006 - typer copies it
    challengers: Annotated[str, typer.Option(help="Ways to renew that compete each month, by commas.")] = "warm",
    output: Annotated[Path, typer.Option(help="HTML file for the report.")] = Path("replay.html"),
) -> None:
    """What if another policy had decided? Replay the months in order. Interrupted, it goes on where it was."""
    try:
        policies = TypeAdapter(list[PolicyName]).validate_python(policy)
        ways = TypeAdapter(ChallengerNames).validate_python(challengers)
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from error
    settings = _settings().model_copy(update={"challengers": ways})
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with _told():
        with Progress(*columns, TextColumn("left: {task.fields[left]}"), console=Console(stderr=True)) as progress:
            task = progress.add_task("first model", total=None, left="–")
            found = replay(
                make_source(settings),
                settings,
                first=_month(first),
                last=_month(last),
                policies=list(dict.fromkeys(policies)),
                on_progress=lambda done: progress.update(
                    task,
                    description=str(done.month),
                    completed=done.done,
                    total=done.months,
                    left=f"{done.seconds_left / 60:.0f} min",
                ),
            )
        output.write_text(render(found), encoding="utf-8")
    _terminal().print(_summary_table(found), headline(found), f"The report is in {output}.", highlight=False)


@app.command()
def months(context: typer.Context) -> None:
    """Show what the source has of each month, and what has become of it here."""
    settings = _settings()
    table = Table("month", "at the source", "in the lake", "state", "decided")
    with _told():
        for entry in take_stock(make_source(settings), _approvals(), context.obj.editions_in_lake(settings.lake)):
            revisions = [(revision or "–")[:16] for revision in (entry.published, entry.in_lake)]
            table.add_row(str(entry.month), *revisions, entry.state, entry.decided or "–")
    _terminal().print(table if table.rows else f"{settings.trip_source} has no month of trips.")


@app.command("new-data")
def fetch_new_data(
    month: Annotated[str, typer.Argument(help="YYYY-MM, 2015-01 to 2015-06.")],
) -> None:
    """Fetch a month of the Le Wagon course into TRIP_FOLDER, where the workflow finds it."""
    with _told():
        _terminal().print(f"{course_month.fetch(_month(month), _settings())} is there.", soft_wrap=True)


@app.command("delete-new-data")
def delete_new_data() -> None:
    """Take away from TRIP_FOLDER what new-data fetched; the lake, models and decisions stay as they are."""
    with _told():
        files = course_month.withdraw(_settings())
    _terminal().print(f"{len(files)} files are gone: {', '.join(file.name for file in files) or 'none was fetched'}.")


@app.command()
def doctor() -> None:
    """Examine every outside part: state, lake, trips, ledger, MLflow, chat. Exit code 1 if one is not well."""
    terminal, well = _terminal(), True
    for finding in examine(_settings()):
        well &= finding.is_well
        mark = "[green]well[/green]" if finding.is_well else "[red]ill [/red]"
        terminal.print(f"{mark}  {finding.part:18} {escape(finding.says)}", highlight=False, soft_wrap=True)
    if not well:
        raise typer.Exit(1)


def _month(written: str) -> Month:
    """Returns a month as it was written on the command line."""
    try:
        return parse_month(written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _settings() -> Settings:
    """Returns the settings in force; a faulty one ends the command with its name and value."""
    try:
        return Settings()
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from error


def _approvals() -> Approvals:
    """Returns the approvals of the settings in force."""
    settings = _settings()
    return Approvals.from_settings(settings, ModelRegistry.from_settings(settings))


@contextmanager
def _told() -> Iterator[None]:
    """Turns what a person can mend into a message and exit code 1."""
    try:
        yield
    except (
        *(ApprovalError, LearningCurveError, LedgerError, RegistryError, ReplayError, SourceError, TrainingError),
    ) as error:
        said = f"[red]{type(error).__name__}[/red]: {escape(str(error))}"
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _terminal() -> Console:
    """Returns the terminal, wide enough for a table when it is a pipe."""
    terminal = Console()
    terminal.width = max(terminal.width, _MINIMUM_WIDTH)
    return terminal


def _summary_table(found: Replay) -> Table:
    """Returns the policies of a replay."""
    unit = TARGETS[found.target].unit
    errors = (f"mean MAE, {unit}", f"off in all, {unit}")
    numbers = (*errors, "promotions", "regretted", f"above the best, {unit}", "training, s")
    table = Table("policy", *(Column(name, justify="right") for name in numbers))
    for one in map(found.summary, found.policies):
        table.add_row(
            one.policy,
            f"{one.mean_mae:.3f}",
            f"{one.total:,.0f}",
            str(one.promotions),
            str(one.regretted),
            f"{one.mean_regret:.3f}",
            f"{one.training_seconds:,.0f}",
        )
    return table


def _tuning_table(finding: Finding, settings: Settings) -> Table:
    """Returns the settings that were searched: now in force, at the time of the search, and the winner's."""
    table = Table("setting", "in force", "when searched", "tuned")
    for name, value in searched_settings(settings).items():
        table.add_row(name.upper(), f"{value:.5g}", f"{finding.present[name]:.5g}", f"{finding.winner[name]:.5g}")
    return table


def _tuning_evidence(finding: Finding) -> str:
    """Returns what speaks for the winner, in words."""
    counts = ", ".join(f"{count} {state}" for state, count in finding.trials.items() if count)
    found = f"{finding.subject}, {finding.found_at:%Y-%m-%d %H:%M} UTC, trials: {counts}. "
    if finding.winner == finding.present:
        return f"{found}No trial was better than the settings of the time: {finding.winner_mae:.3f} {finding.unit}."
    if finding.gain is None:
        return f"{found}MAE {finding.winner_mae:.3f} {finding.unit}; the settings of the time gave no usable network."
    advice = "" if finding.gain.low > 0 else " That is no more than chance: better keep the settings."
    return f"{found}Gain on held trips that chose nothing: {describe_gain(finding.gain, finding.unit)}.{advice}"


def _state(approvals: Approvals, request: Request) -> str:
    """Returns where the request stands, with the name of whoever answered it."""
    outcome = approvals.outcome(request.id)
    if outcome is None:
        return State.REQUESTED
    return f"{outcome.state} by {outcome.by}" if outcome.by else f"{outcome.state}: {outcome.reason}"


def _in_production(approvals: Approvals) -> str:
    """Returns the production version in words."""
    version = approvals.production()
    return "nothing" if version is None else f"version {version}"


def _row(entry: Promotion) -> tuple[str, ...]:
    """Returns a promotion as a row of the history."""
    return (
        f"{entry.promoted_at:%Y-%m-%d %H:%M}",
        entry.version,
        entry.replaced_version or "nothing",
        entry.kind,
        entry.by,
        entry.reason,
        entry.request_id or "–",
    )
