"""Standing approvals: whether one is in force, what was approved under it; to ask for one, and to end it."""

import typer
from rich.table import Column, Table

from taxifare.approval import standing as rules
from taxifare.cli.decisions import By, Reason
from taxifare.cli.shared import approvals_in_force, errors_told, terminal
from taxifare.settings import settings_in_force

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show standing approvals, ask for one, or end the one in force.",
)


@app.callback(invoke_without_command=True)
@errors_told()
def show(context: typer.Context) -> None:
    """Show standing approvals, ask for one, or end the one in force."""
    if context.invoked_subcommand is not None:
        return
    approvals = approvals_in_force()
    with approvals.ledger.reading() as entries:
        record, uses = rules.read(entries), entries.standing_uses()
        decides = rules.who_decides(entries, settings_in_force())
    if not record.requests:
        terminal().print("No standing approval was ever asked for.")
        return
    table = Table(Column("standing approval", overflow="fold"), "months", "state", "approved under it")
    for request in record.requests:
        used = sum(under == request.id for under in uses.values())
        table.add_row(request.id, f"{request.first_month} to {request.last_month}", record.state(request), str(used))
    terminal().print(table)
    terminal().print(f"Who decides: {decides}.", soft_wrap=True, highlight=False)
    if (waiting := record.open) is not None:
        how = f'Answer: taxifare decide {waiting.id} --approve (or --reject) --by YOU --reason "WHY"'
        terminal().print(how, soft_wrap=True, highlight=False)


@app.command()
@errors_told()
def ask() -> None:
    """Ask for a standing approval of the next months; its message follows."""
    waiting = approvals_in_force().ask_standing(settings_in_force())
    terminal().print(
        f"{waiting.id} waits for an answer until {waiting.valid_until:%Y-%m-%d %H:%M} UTC.", soft_wrap=True
    )


@app.command()
@errors_told()
def end(by: By, reason: Reason) -> None:
    """End the standing approval in force: from now on a person is asked about each month."""
    over = approvals_in_force().withdraw_standing(by=by, reason=reason)
    terminal().print(f"{over.standing_id} is over.", soft_wrap=True)
