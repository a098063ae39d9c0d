"""`make dev`: Dagster's UI and daemon on the persistent state folder."""

import os
import sys

from taxifare.approval.channels import notifiers
from taxifare.cli.shared import ending_told
from taxifare.settings import settings_in_force
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.home import prepare_home


def main() -> None:
    """Prepares the state folder and becomes `dagster dev`; further arguments go to it, such as `--port 3001`."""
    settings = settings_in_force()
    home = prepare_home(settings)
    asked = "in the channels that are set" if notifiers(settings) else "here"
    print(f"State: {home.parent}. Sensors start by themselves; questions appear {asked}.", flush=True)
    arguments = [sys.executable, "-m", "dagster", "dev", "-m", CODE_LOCATION, *sys.argv[1:]]
    os.execv(sys.executable, arguments)  # noqa: S606 - the arguments are ours


if __name__ == "__main__":
    with ending_told():
        main()
