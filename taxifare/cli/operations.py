"""Looking after an installation: `doctor`, `mend`, `migrate`, `backup`, `restore`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from taxifare.approval.versions import registry_of
from taxifare.cli.shared import (
    AsJson,
    Surroundings,
    Terminal,
    approvals_in_force,
    errors_told,
    say,
    say_next,
    show_json,
    working,
)
from taxifare.cli.typed import typed
from taxifare.operations import backups
from taxifare.operations.doctor import Finding, examine
from taxifare.operations.migrating import migrate as migrations
from taxifare.settings import settings_in_force
from taxifare.texts import counted, one_line


@errors_told()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check every part of the installation: state, lake, trips, ledger, MLflow, chat. Exit code 1 if one fails."""
    console, findings = Terminal(), list[Finding]()
    surroundings: Surroundings = context.obj
    settings = settings_in_force()
    for finding in examine(settings, surroundings.run_server):
        findings.append(finding)
        if as_json:
            continue
        told = Text.assemble(_MARKS[finding.is_well], f"  {finding.part:18} {typed(one_line(finding.says))}")
        console.print(told, highlight=False, soft_wrap=True)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        say_next(_next(findings, has_state=settings.has_ledger))
    if _failed(findings):
        raise typer.Exit(1)


_MARKS: dict[bool | None, tuple[str, str]] = {True: ("ok  ", "green"), False: ("FAIL", "red"), None: ("–   ", "dim")}


def _failed(findings: list[Finding]) -> list[str]:
    """Returns the parts that are not well."""
    return [finding.part for finding in findings if finding.is_well is False]


def _next(findings: list[Finding], *, has_state: bool) -> str:
    """Returns what to do after an examination; without a state, making one comes after the trips are right."""
    if failed := [part for part in _failed(findings) if has_state or part != "state folder"]:
        return f"put right what is said of {', '.join(failed)}; then taxifare doctor"
    return "taxifare status" if has_state else "make demo"


@errors_told()
def mend() -> None:
    """Repair MLflow where it was edited, its experiment deleted or the state folder moved; no decision is changed."""
    approvals = approvals_in_force()
    with working("putting MLflow right"):
        mended = [*registry_of(settings_in_force()).store.mend(), *approvals.repair(), *approvals.retell()]
    for what in mended:
        say(f"Put right: {one_line(what)}.")
    if not mended:
        say("There is nothing to put right; taxifare doctor checks every part.")


@errors_told()
def migrate(context: typer.Context) -> None:
    """Migrate tables on servers (ledger, studies, MLflow, Dagster) to this release; files migrate themselves."""
    surroundings: Surroundings = context.obj
    for migrated in migrations(settings_in_force(), surroundings.migrations):
        say(str(migrated))


@errors_told()
def backup(
    target: Annotated[str, typer.Argument(help="An empty folder, of this machine or in a bucket (gs://…, s3://…).")],
) -> None:
    """Back up ledger, registry and the lake's manifest, as of one moment, while others go on working.

    The lake itself is not copied: keep its bucket's earlier versions. Where MLflow is a server,
    MLFLOW_BACKEND_STORE_URI names its database.
    """
    approvals_in_force()
    with working("making a backup") as status:
        made = backups.back_up(settings_in_force(), target, status.update)
    for version, why in made.lost.items():
        say(f"Version {version} is left out: {why}.")
    files, of_lake = counted(len(made.files), "files"), counted(len(made.lake), "files")
    say(f"Kept in {target}: the ledger up to {made.head or 'no entry'}, {files}, and the SHA-256 of")
    say(f"{of_lake} of the lake.")
    say(f"Back from it, into an empty installation: taxifare restore {target}")


@errors_told()
def restore(
    source: Annotated[str, typer.Argument(help="The folder of a backup, as given to taxifare backup.")],
) -> None:
    """Restore an empty installation from a backup; the lake has to be there as it was then.

    Servers' tables are made and filled with the roles that own them, as by taxifare migrate. Where MLflow is a server,
    MLFLOW_BACKEND_STORE_URI names its database.
    """
    with working("restoring") as status:
        restored = backups.restore(settings_in_force(), source, status.update)
    say(
        f"Restored: the ledger up to {restored.head or 'no entry'}, as it was at {restored.made_at:%Y-%m-%d %H:%M} UTC."
    )
    say_next("taxifare doctor")
