"""What quotes came to: `outcomes`."""

from typing import Annotated

import typer

from taxifare.cli import records
from taxifare.cli.alone import NotThereError
from taxifare.cli.shared import AsJson, errors_told, month_of, say, show, show_json
from taxifare.gate.scores import describe_saving
from taxifare.monitoring.realised import RealisedMonth
from taxifare.reports import tables
from taxifare.settings import settings_in_force
from taxifare.trips.months import Month


@errors_told()
def outcomes(
    context: typer.Context,
    month: Annotated[
        Month | None,
        typer.Argument(
            parser=month_of, metavar="MONTH", help="YYYY-MM: show its weeks and slices. By default all months."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far quotes were from what was paid, beside the error promised for each version."""
    settings = settings_in_force()
    found = context.obj.realised(settings.lake)
    if month is not None and month not in found:
        raise NotThereError(
            f"{month} has not been joined with what its rides came to: materialize served_mae of that month "
            "(outcomes_job)"
        )
    shown = list(found.values()) if month is None else [found[month]]
    if as_json:
        show_json([records.realised(one) for one in shown])
        return
    if not shown:
        say("No quotes have been compared with what was paid yet: outcomes_job does that.")
        return
    show(tables.realised(shown, settings.target_facts.unit))
    if month is not None:
        _show_month(found[month])
    else:
        say(f"A month by week and kind of ride: taxifare outcomes {shown[-1].month}")


def _show_month(found: RealisedMonth) -> None:
    """Prints the weeks and slices of what customers were told, and what was in shadow beside it."""
    share = "–" if found.share_matched is None else f"{found.share_matched:.1%}"
    say(f"{found.rides:,} rides were quoted; of {share} it is known what they came to.")
    for beside in found.beside:
        saves = describe_saving(beside.gain, found.unit)
        told = f"Version {beside.shadow} in shadow {saves} against version {beside.production}, {beside.rides:,} rides."
        say(told)
    if found.production is not None:
        show(tables.parts(found.production.weeks, "week from", found.unit))
        show(tables.parts(found.production.slices, "slice", found.unit))
