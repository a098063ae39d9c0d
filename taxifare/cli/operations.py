"""Looking after an installation: `doctor`."""

import typer
from rich.markup import escape

from taxifare.cli.shared import errors_told, terminal
from taxifare.operations.doctor import examine
from taxifare.settings import settings_in_force


@errors_told()
def doctor() -> None:
    """Examine every outside part: state, lake, trips, ledger, MLflow, chat. Exit code 1 if one is not well."""
    console, well = terminal(), True
    for finding in examine(settings_in_force()):
        well &= finding.is_well
        mark = "[green]well[/green]" if finding.is_well else "[red]ill [/red]"
        console.print(f"{mark}  {finding.part:18} {escape(finding.says)}", highlight=False, soft_wrap=True)
    if not well:
        raise typer.Exit(1)
