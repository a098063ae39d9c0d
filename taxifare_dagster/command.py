"""The `taxifare` command, told what only the orchestration knows: what is in its lake. It starts without Dagster."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taxifare.cli.shared import Surroundings
    from taxifare.settings import Settings


def surroundings() -> "Surroundings":
    """Returns what the command is told."""
    from taxifare.cli.shared import Surroundings
    from taxifare_dagster.lake import editions, month_with, realised

    return Surroundings(
        editions_in_lake=editions,
        month_with=month_with,
        realised=realised,
        run_server=_run_server,
        migrations={"Dagster": _migrate_dagster},
    )


def _run_server(settings: "Settings") -> str | None:
    from taxifare_dagster.storage import usable_server

    return usable_server(settings)


def _migrate_dagster(settings: "Settings") -> str | None:
    from taxifare_dagster.storage import migrate

    return migrate(settings)


def main() -> None:
    """Runs the command; those that price rides alone, for loading all the others takes seconds."""
    light = {"predict": "taxifare.cli.pricing", "consume": "taxifare.cli.streams"}
    module = light.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if module is not None:
        sys.argv[:2] = [f"taxifare {sys.argv[1]}"]
        import_module(module).app()
    else:
        from taxifare.cli.main import app

        app(obj=surroundings())
