"""Looking after an installation: `doctor`, `mend`, `migrate`."""

import typer
from rich.text import Text

from taxifare.approval.versions import registry_of
from taxifare.cli.shared import Surroundings, Terminal, approvals_in_force, errors_told, say, typed, working
from taxifare.operations.doctor import examine
from taxifare.operations.migrating import migrate as migrations
from taxifare.settings import settings_in_force
from taxifare.texts import one_line


@errors_told()
def doctor(context: typer.Context) -> None:
    """Check every part of the installation: state, lake, trips, ledger, MLflow, chat. Exit code 1 if one fails."""
    console, well = Terminal(), True
    surroundings: Surroundings = context.obj
    for finding in examine(settings_in_force(), surroundings.run_server):
        well &= finding.is_well
        mark = ("ok  ", "green") if finding.is_well else ("FAIL", "red")
        told = Text.assemble(mark, f"  {finding.part:18} {one_line(finding.says)}")
        console.print(told, highlight=False, soft_wrap=True)
    say(f"Next: {typed('taxifare status')}")
    if not well:
        raise typer.Exit(1)


@errors_told()
def mend() -> None:
    """Put MLflow right where its experiment was deleted or the state folder moved; decides nothing."""
    approvals = approvals_in_force()
    with working("putting MLflow right"):
        mended = registry_of(settings_in_force()).store.mend()
        approvals.repair()
    for what in mended:
        say(f"Put right: {one_line(what)}.")
    if not mended:
        say("There is nothing to put right; taxifare doctor examines every part.")


@errors_told()
def migrate(context: typer.Context) -> None:
    """Bring servers' tables (ledger, studies, MLflow's database, Dagster's) to this release; files do it themselves."""
    surroundings: Surroundings = context.obj
    for migrated in migrations(settings_in_force(), surroundings.migrations):
        say(str(migrated))
