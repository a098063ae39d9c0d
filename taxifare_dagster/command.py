"""The `taxifare` command, told what only the orchestration knows: what is in its lake. It starts without Dagster."""

from taxifare.cli.main import app
from taxifare.cli.shared import Surroundings
from taxifare_dagster.lake import editions

SURROUNDINGS = Surroundings(editions_in_lake=editions)


def main() -> None:
    """Runs the command."""
    app(obj=SURROUNDINGS)
