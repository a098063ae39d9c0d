"""Months of trips: `months` shows them, `take` takes one that waits, `new-data` makes the course's come and go."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from taxifare.approval.due import covered
from taxifare.cli import records
from taxifare.cli.shared import (
    AsJson,
    approvals_in_force,
    download_bar,
    errors_told,
    month_of,
    say,
    say_next,
    show,
    show_json,
    written,
)
from taxifare.operations.inventory import KnownMonth, known_months, nothing_to_work_on
from taxifare.reports.tables import Heading, Table
from taxifare.settings import settings_in_force
from taxifare.sources import CannotTellError, SourceError, course_month, make_source, whole_months
from taxifare.texts import one_line
from taxifare.trips.months import Month


@errors_told()
def months(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each month's status: published, fetched, decided. Exit code 1 if there is no month to work on."""
    settings = settings_in_force()
    in_lake = context.obj.editions_in_lake(settings.lake)
    approvals = approvals_in_force() if settings.has_ledger else None
    source, known, doubt = make_source(settings), list[KnownMonth](), None
    try:
        known.extend(known_months(source, approvals, in_lake, settings))
    except CannotTellError as error:
        doubt = error
    if as_json:
        show_json([records.month(entry) for entry in known])
    elif known or doubt is not None:
        show(_table(known))
    if doubt is not None:
        raise doubt
    published = {entry.month: entry.published for entry in known if entry.published is not None}
    if not covered(published, settings, datetime.now(UTC)):
        raise SourceError(f"{settings.trip_source}: {nothing_to_work_on(source, published, settings)}")
    if not as_json:
        for entry in known:
            if entry.waits:
                say(one_line(entry.waits))
        say_next("taxifare status" if settings.has_ledger else "taxifare doctor")


def _table(known: Sequence[KnownMonth]) -> Table:
    """Returns the months, a row each."""
    names = ("month", "at the source", "in the lake")
    headings = (*(Heading(name, is_unbroken=True) for name in names), Heading("state"), Heading("decided"))
    rows = (
        (
            str(entry.month),
            _beginning(entry.published),
            _beginning(entry.in_lake),
            entry.state,
            entry.decided or "not compared yet",
        )
        for entry in known
    )
    return Table(headings, tuple(rows))


def _beginning(revision: str | None) -> str | None:
    return None if revision is None else revision[:16]


@errors_told()
def take(
    month: Annotated[
        Month, typer.Argument(parser=month_of, metavar="MONTH", help="YYYY-MM, as `taxifare months` shows it.")
    ],
    by: Annotated[str, typer.Option("--by", help="Who takes it: a name.", callback=written)],
    reason: Annotated[str, typer.Option("--reason", help="Why, in a sentence.", callback=written)],
) -> None:
    """Use a month that is not complete yet as it is now; the lake keeps who decided so and why."""
    settings = settings_in_force()
    lacks = whole_months.take(make_source(settings), month, settings, settings.lake, by=by, reason=reason)
    say(one_line(f"{month} is taken as it is, though {lacks}."))


@errors_told()
def fetch_new_data(
    month: Annotated[Month, typer.Argument(parser=month_of, metavar="MONTH", help="YYYY-MM, 2015-01 to 2015-06.")],
) -> None:
    """Fetch a month of the Le Wagon course into TRIP_FOLDER, where the sensor finds it."""
    file = course_month.fetch(month, settings_in_force(), download_bar)
    say(f"{file} is there.")
    say_next("taxifare months")


@errors_told()
def delete_new_data() -> None:
    """Delete from TRIP_FOLDER what new-data fetched; the lake, models and decisions stay as they are."""
    files = course_month.withdraw(settings_in_force())
    deleted = (
        f"Deleted {', '.join(file.name for file in files)}" if files else "Nothing to delete: no month was fetched"
    )
    say(f"{deleted}.")
