"""`make dev`: Dagster's UI and daemon on the persistent state folder."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from taxifare.approval.channels import notifiers
from taxifare.cli.shared import ending_told
from taxifare.errors import ToldError
from taxifare.settings import settings_in_force
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.home import prepare_home


class AddressError(ToldError, RuntimeError):
    """The address of the UI is taken, or cannot be one."""


def main() -> None:
    """Prepares the state folder and becomes `dagster dev`; further arguments go to it, such as `--port 3001`."""
    settings = settings_in_force()
    host, port = listening(sys.argv[1:])
    ensure_free(host, port)
    home = prepare_home(settings)
    asked = "in the channels that are set" if notifiers(settings) else "here"
    print(f"State: {home.parent}. Sensors start by themselves; questions appear {asked}.", flush=True)
    if urlsplit(settings.dagster_url).port != port and urlsplit(settings.dagster_url).hostname in {host, "localhost"}:
        print(f"Links in messages lead to {settings.dagster_url}: set DAGSTER_URL=http://{host}:{port}", flush=True)
    arguments = [sys.executable, "-m", "dagster", "dev", "-m", CODE_LOCATION, *sys.argv[1:]]
    os.execv(sys.executable, arguments)  # noqa: S606 - the arguments are ours


def listening(arguments: Sequence[str]) -> tuple[str, int]:
    """Returns the host and port that `dagster dev` listens on with these arguments.

    Raises:
        AddressError: The port is none.

    >>> listening(["--port", "3001", "--log-level", "debug"])
    ('127.0.0.1', 3001)
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", default="3000")
    known, _ = parser.parse_known_args(arguments)
    if not known.port.isdecimal() or int(known.port) >= 2**16:
        raise AddressError(f"--port: expected a number below {2**16}, received {known.port!r}")
    return known.host, int(known.port)


def ensure_free(host: str, port: int) -> None:
    """Ensures that somebody can listen there: Dagster would take another port, and links in messages lead nowhere.

    Raises:
        AddressError: Somebody listens there already, or this machine has no such address.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise AddressError(
            f"{host}:{port} cannot be listened on ({error.strerror}): does another `make dev` run? Stop it, or take "
            f'another port: make dev ARGS="--port {port + 1}", with DAGSTER_URL=http://{host}:{port + 1} for the links'
        ) from error


if __name__ == "__main__":
    with ending_told():
        main()
