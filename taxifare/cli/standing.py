"""Standing approvals: whether one is in force, what was approved under it; to ask for one, and to end it."""

from collections import Counter

import typer

from taxifare.approval import standing as rules
from taxifare.cli import records, shared
from taxifare.cli.decisions import By, Reason, say_how_to_answer
from taxifare.cli.shared import AsJson, approvals_in_force, errors_told, say, say_next
from taxifare.reports.tables import Heading, Table
from taxifare.settings import settings_in_force

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show standing approvals, ask for one, or end the one in force.",
)


@app.callback(invoke_without_command=True)
@errors_told()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show standing approvals, ask for one, or end the one in force."""
    if context.invoked_subcommand is not None:
        return
    approvals = approvals_in_force()
    with approvals.ledger.reading() as entries:
        record, uses = rules.read(entries), entries.standing_uses()
        decides = rules.who_decides(entries, settings_in_force())
    approved = Counter(uses.values())
    if as_json:
        found = record.requests
        shared.show_json([records.standing(one, str(record.state(one)), approved[one.id]) for one in found])
        return
    names = ("standing approval", "months", "state")
    headings = (*(Heading(name, is_unbroken=True) for name in names), Heading("approved under it", "int"))
    rows = (
        (
            request.id,
            f"{request.first_month} to {request.last_month}",
            record.state(request),
            approved[request.id],
        )
        for request in record.requests
    )
    if record.requests:
        shared.show(Table(headings, tuple(rows)))
    else:
        say("No standing approval was ever asked for.")
    say(f"Who decides: {decides}.")
    if record.open is not None:
        say_how_to_answer(record.open)
    else:
        say_next("taxifare status")


@app.command()
@errors_told()
def ask() -> None:
    """Ask a person for a standing approval of the next months; the message follows."""
    waiting = approvals_in_force().ask_standing(settings_in_force())
    say(f"{waiting.id} waits for an answer until {waiting.valid_until:%Y-%m-%d %H:%M} UTC.")


@app.command()
@errors_told()
def end(by: By, reason: Reason) -> None:
    """End the standing approval in force: from now on a person is asked about each month."""
    over = approvals_in_force().withdraw_standing(by=by, reason=reason)
    say(f"{over.standing_id} is over.")
