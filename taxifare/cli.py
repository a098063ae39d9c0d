"""The `taxifare` command: answer requests, read the history, go back."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from taxifare.approval import ApprovalError, Approvals, Decision
from taxifare.doctor import examine
from taxifare.evaluation import describe_gain
from taxifare.ledger import LedgerError, Promotion, Request, State
from taxifare.registry import ModelRegistry, RegistryError
from taxifare.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decide which model prices rides, and see who did.",
)

_MINIMUM_WIDTH = 110

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
            "–" if gain is None else describe_gain(gain),
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
def doctor() -> None:
    """Examine every outside part: state, lake, trips, ledger, MLflow, chat. Exit code 1 if one is not well."""
    terminal, well = _terminal(), True
    for finding in examine(_settings()):
        well &= finding.is_well
        mark = "[green]well[/green]" if finding.is_well else "[red]ill [/red]"
        terminal.print(f"{mark}  {finding.part:18} {escape(finding.says)}", highlight=False, soft_wrap=True)
    if not well:
        raise typer.Exit(1)


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
    except (ApprovalError, LedgerError, RegistryError) as error:
        said = f"[red]{type(error).__name__}[/red]: {escape(str(error))}"
        Console(stderr=True).print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _terminal() -> Console:
    """Returns the terminal, wide enough for a table when it is a pipe."""
    terminal = Console()
    terminal.width = max(terminal.width, _MINIMUM_WIDTH)
    return terminal


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
