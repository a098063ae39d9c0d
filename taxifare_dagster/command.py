"""The `taxifare` command, told what only the orchestration knows: what is in its lake. It starts without Dagster."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taxifare.cli.shared import Surroundings


def surroundings() -> "Surroundings":
    """Returns what the command is told."""
    from taxifare.cli.shared import Surroundings
    from taxifare_dagster.lake import editions, month_with

    return Surroundings(editions_in_lake=editions, month_with=month_with)


def main() -> None:
    """Runs the command; `predict` alone, for loading all the others takes seconds."""
    if sys.argv[1:2] == ["predict"]:
        from taxifare.cli.pricing import app

        sys.argv[:2] = ["taxifare predict"]
        app()
    else:
        from taxifare.cli.main import app

        app(obj=surroundings())
