"""Requests, decisions and who was production when: `requests`, `decide`, `history`, `rollback`."""

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Column, Table

from taxifare.approval import alarms, standing, verification
from taxifare.approval.approvals import Approvals
from taxifare.approval.chain import Head
from taxifare.approval.decisions import APPROVABLE, Decision
from taxifare.approval.heads import ToldHeads
from taxifare.approval.records import EvidenceUnreadableError, Outcome, Request, RequestState
from taxifare.approval.requests import by_subject
from taxifare.cli.shared import approvals_in_force, drawn, errors_told, terminal
from taxifare.gate.scores import describe_gain
from taxifare.operations.month_pages import renew_pages
from taxifare.reports import tables
from taxifare.settings import settings_in_force

By = Annotated[str, typer.Option("--by", help="Who decides.")]

Reason = Annotated[str, typer.Option("--reason", help="Why.")]


@errors_told()
def requests(
    everything: Annotated[
        bool, typer.Option("--all", help="Show those that are answered, expired or void, too.")
    ] = False,
    newest: Annotated[int, typer.Option("--newest", min=1, help="With --all: how many, the newest ones.")] = 200,
) -> None:
    """Show the requests that wait for an answer."""
    approvals = approvals_in_force()
    found = approvals.record.requests() if everything else approvals.record.open_requests()
    shown = found[-newest:] if everything else found
    outcomes = approvals.record.outcomes() if everything else {}
    table = Table(Column("request", overflow="fold"), "verdict", "gain", "replaces", "state", "valid until")
    for request in shown:
        table.add_row(
            request.id,
            request.verdict,
            _gain(request),
            request.production_version or "nothing",
            _state(outcomes.get(request.id)),
            f"{request.valid_until:%Y-%m-%d}",
        )
    terminal().print(table if shown else "No request waits for an answer.")
    if len(shown) < len(found):
        earlier = len(found) - len(shown)
        terminal().print(f"{earlier:,} earlier ones are not shown: --newest {len(found)} shows them all.")
    waiting = [request for request in shown if request.id not in outcomes]
    if waiting:
        terminal().print(_how_to_answer(min(waiting, key=by_subject)), soft_wrap=True, highlight=False)
    with approvals.ledger.reading() as entries:
        agreement, alarm = standing.read(entries).open, alarms.read(entries).open
    if agreement is not None:
        told = f"A standing approval waits for an answer, {agreement.id}: taxifare standing"
        terminal().print(told, soft_wrap=True, highlight=False)
    if alarm is not None:
        told = (
            f"An alarm waits for an answer: retrain on the days of {alarm.month} so far? "
            f'taxifare decide {alarm.id} --approve (or --reject) --by YOU --reason "WHY"'
        )
        terminal().print(told, soft_wrap=True, highlight=False)


@errors_told()
def decide(
    context: typer.Context,
    request: Annotated[str, typer.Argument(help="The request, as the message or `taxifare requests` names it.")],
    by: By,
    reason: Reason,
    approve: Annotated[bool | None, typer.Option("--approve/--reject", help="The decision.")] = None,
    override: Annotated[bool, typer.Option("--override", help="Approve against the verdict.")] = False,
) -> None:
    """Approve or reject a request; approving makes exactly the version that was shown production."""
    if approve is None:
        raise typer.BadParameter("say --approve or --reject")
    approvals = approvals_in_force()
    decision: Decision = "approve" if approve else "reject"
    outcome = approvals.decide(request, decision, by, reason, override=override)
    renew_pages(approvals.ledger, settings_in_force(), context.obj.realised)
    terminal().print(f"{request}: {outcome.state} by {outcome.by}. In production: {_in_production(approvals)}.")


@errors_told()
def history(
    on: Annotated[
        datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="Only who was production then.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that the ledger is what was written into it; exit code 1 if not.")
    ] = False,
    head: Annotated[
        str | None, typer.Option("--head", help="With --verify: what a message shows after 'Ledger:', to be checked.")
    ] = None,
) -> None:
    """Show which version was production when, who decided it and why; or check the whole ledger."""
    approvals = approvals_in_force()
    if verify:
        told = ToldHeads(settings_in_force().home, approvals.ledger.place)
        verified = verification.verify(approvals.ledger, told.read(), _head(head))
        terminal().print(str(verified), soft_wrap=True, highlight=False)
        return
    if head is not None:
        raise typer.BadParameter("--head is checked with --verify")
    entries = approvals.record.history()
    if on is not None:
        entry = approvals.record.production_on(on.date())
        entries = () if entry is None else (entry,)
    terminal().print(drawn(tables.history(entries)) if entries else "Nothing was in production.")


@errors_told()
def rollback(
    context: typer.Context,
    by: By,
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Version; by default the one that was replaced last. none: take the model out."),
    ] = None,
) -> None:
    """Make an earlier production version production again, or take the model out of production."""
    approvals = approvals_in_force()
    promotion = approvals.rollback(to, by=by, reason=reason)
    renew_pages(approvals.ledger, settings_in_force(), context.obj.realised)
    terminal().print(f"In production: {_named(promotion.version)}, instead of {_named(promotion.replaced_version)}.")


@errors_told()
def ask_again(
    request: Annotated[str, typer.Argument(help="The request, as `taxifare requests --all` names it.")],
) -> None:
    """Ask again what nobody answered in time; of what is still open, the message is sent again with fresh links."""
    again = approvals_in_force().ask_again(request)
    terminal().print(f"{again.id} waits for an answer until {again.valid_until:%Y-%m-%d %H:%M} UTC.")


@errors_told()
def adopt(by: By, reason: Reason) -> None:
    """Put versions on record that an earlier release registered: from now on their files are checked against that."""
    approvals = approvals_in_force()
    table = Table("version", "MLflow run", "digest of its files")
    adopted = approvals.adopt(by=by, reason=reason)
    for content in adopted:
        table.add_row(content.version, content.run_id, content.files_digest[:12])
    terminal().print(table if adopted else "Every version that MLflow has is on record.")
    terminal().print(f"In production: {_in_production(approvals)}.")


def _head(written: str | None) -> Head | None:
    """Returns a head as it was written on the command line; one that is none ends the command."""
    try:
        return None if written is None else Head.parse(written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _how_to_answer(request: Request) -> str:
    """Returns the command that answers a request, and what approving against the verdict takes."""
    command = f'Answer: taxifare decide {request.id} --approve (or --reject) --by YOU --reason "WHY"'
    against = f"; approving is against {request.verdict}: it takes --override"
    return command if request.verdict in APPROVABLE else command + against


def _gain(request: Request) -> str:
    """Returns the gain in words; evidence of another release may be unreadable, the request is listed all the same."""
    try:
        evidence = request.evidence
    except EvidenceUnreadableError:
        return "written by another release"
    return "–" if evidence.gain is None else describe_gain(evidence.gain, evidence.unit)


def _state(outcome: Outcome | None) -> str:
    """Returns where the request stands, with the name of whoever answered it."""
    if outcome is None:
        return RequestState.REQUESTED
    return f"{outcome.state} by {outcome.by}" if outcome.by else f"{outcome.state}: {outcome.reason}"


def _in_production(approvals: Approvals) -> str:
    """Returns the production version in words."""
    return _named(approvals.production())


def _named(version: str | None) -> str:
    return "nothing" if version is None else f"version {version}"
