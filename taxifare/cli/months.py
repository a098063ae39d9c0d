"""Months of trips: `months` shows them, `take` takes one that waits, `new-data` makes the course's come and go."""

from typing import Annotated

import typer
from rich.table import Table

from taxifare.cli.shared import approvals_in_force, download_bar, errors_told, month_of, terminal
from taxifare.operations.inventory import known_months
from taxifare.settings import settings_in_force
from taxifare.sources import CannotTellError, course_month, make_source, whole_months
from taxifare.sources.base import nothing_published
from taxifare.texts import one_line


@errors_told()
def months(context: typer.Context) -> None:
    """Show what the source has of each month, and what has become of it here."""
    settings = settings_in_force()
    table = Table("month", "at the source", "in the lake", "state", "decided")
    in_lake = context.obj.editions_in_lake(settings.lake)
    approvals = approvals_in_force() if settings.has_ledger else None
    source, waiting = make_source(settings), []
    try:
        for entry in known_months(source, approvals, in_lake, settings):
            waiting += [entry.waits] if entry.waits else []
            revisions = [(revision or "–")[:16] for revision in (entry.published, entry.in_lake)]
            table.add_row(str(entry.month), *revisions, entry.state, entry.decided or "–")
    except CannotTellError:
        terminal().print(table)
        raise
    if not table.rows:
        told = nothing_published(source, settings.first_month)
        terminal().print(f"{settings.trip_source} has no month of trips: {told}.", soft_wrap=True)
        return
    terminal().print(table)
    for why in waiting:
        terminal().print(one_line(why), highlight=False, markup=False, soft_wrap=True)


@errors_told()
def take(
    month: Annotated[str, typer.Argument(help="YYYY-MM, as `taxifare months` shows it.")],
    by: Annotated[str, typer.Option("--by", help="Who takes it.")],
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
) -> None:
    """Take a month that is not whole yet as it is now; who did and why is kept in the lake."""
    settings = settings_in_force()
    taken = month_of(month)
    lacks = whole_months.take(make_source(settings), taken, settings, settings.lake, by=by, reason=reason)
    terminal().print(one_line(f"{taken} is taken as it is, though {lacks}."), highlight=False, soft_wrap=True)


@errors_told()
def fetch_new_data(month: Annotated[str, typer.Argument(help="YYYY-MM, 2015-01 to 2015-06.")]) -> None:
    """Fetch a month of the Le Wagon course into TRIP_FOLDER, where the workflow finds it."""
    file = course_month.fetch(month_of(month), settings_in_force(), download_bar)
    terminal().print(f"{file} is there.", soft_wrap=True)


@errors_told()
def delete_new_data() -> None:
    """Take away from TRIP_FOLDER what new-data fetched; the lake, models and decisions stay as they are."""
    files = course_month.withdraw(settings_in_force())
    terminal().print(f"{len(files)} files are gone: {', '.join(file.name for file in files) or 'none was fetched'}.")
