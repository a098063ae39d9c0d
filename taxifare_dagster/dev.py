"""`make dev`: Dagster's UI and daemon on the persistent state folder."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from taxifare.addresses import ensure_free
from taxifare.approval.channels import notifiers
from taxifare.cli.shared import ending_told, ignore_warnings
from taxifare.errors import MiswrittenError
from taxifare.secrets import shown
from taxifare.settings import Settings, settings_in_force
from taxifare_dagster import storage
from taxifare_dagster.catalog import CODE_LOCATION
from taxifare_dagster.home import SHIPPED, parts_left_out, prepare_home

_FIRST_PAGE = "/assets/production_eval_mae"
_NO_NEWS = "Function `dev_command` is superseded"
"""`dg dev` is the same with a project file of its own; whoever types `make dev` chose neither."""


def main() -> None:
    """Prepares the state folder and becomes `dagster dev`; further arguments go to it, such as `--port 3001`."""
    settings = settings_in_force()
    host, port = listening(sys.argv[1:])
    # Dagster would take another port, and links in messages would lead nowhere.
    ensure_free(
        host, port, f'does another `make dev` run? Stop it, or take another port: make dev ARGS="--port {port + 1}"'
    )
    home = prepare_home(settings)
    ensure_no_other_daemon(settings)
    if left_out := parts_left_out(home):
        print(
            f"{home / 'dagster.yaml'} is of an earlier release and lacks {', '.join(left_out)}: see {SHIPPED}",
            flush=True,
        )
    asked = "in the channels that are set" if notifiers(settings) else "here"
    print(f"State: {home.parent}. Sensors start by themselves; questions appear {asked}.", flush=True)
    here = address(host, port)
    if "dagster_url" not in settings.model_fields_set:
        os.environ["DAGSTER_URL"] = here
    elif urlsplit(settings.dagster_url).port != port and urlsplit(settings.dagster_url).hostname in {host, "localhost"}:
        print(f"Links in messages lead to {settings.dagster_url}: set DAGSTER_URL={here}", flush=True)
    ignore_warnings(_NO_NEWS)
    announce_once_ready(here)
    heed_interrupts()
    arguments = [sys.executable, "-m", "dagster", "dev", "-m", CODE_LOCATION, "--log-level", "error", *sys.argv[1:]]
    os.execv(sys.executable, arguments)  # noqa: S606 - the arguments are ours


def heed_interrupts() -> None:
    """Ensures that what this process becomes ends when it is told to.

    Begun in the background by a script, it ignores interrupts, and Dagster takes TERM for one.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def address(host: str, port: int) -> str:
    """Returns the address at which a browser on this machine finds what listens there.

    >>> address("0.0.0.0", 3001), address("::1", 3000)
    ('http://127.0.0.1:3001', 'http://[::1]:3000')
    """
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing listens here
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"


def announce_once_ready(url: str) -> None:
    """Ensures that the address is the last that is printed of the start: once it answers, while this process lives.

    A process of its own waits for that, for this one becomes `dagster dev`; it is nobody's child, so nobody has to reap
    it.
    """
    waited_for, place = os.getpid(), urlsplit(url).netloc
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        return
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while _is_alive(waited_for):
            with suppress(OSError, HTTPException):
                asked = HTTPConnection(place, timeout=5)
                asked.request("GET", "/server_info")
                asked.getresponse().read()
                print(f"\nDagster is at {url}{_FIRST_PAGE}    Ctrl-C ends it.", flush=True)
                break
            time.sleep(0.5)
    os._exit(0)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def listening(arguments: Sequence[str]) -> tuple[str, int]:
    """Returns the host and port that `dagster dev` listens on with these arguments.

    Raises:
        MiswrittenError: The port is none.

    >>> listening(["--port", "3001", "--log-level", "debug"])
    ('127.0.0.1', 3001)
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", default="3000")
    known, _ = parser.parse_known_args(arguments)
    if not known.port.isdecimal() or int(known.port) >= 2**16:
        raise MiswrittenError(f"--port: expected a number below {2**16}, received {known.port!r}")
    return known.host, int(known.port)


def ensure_no_other_daemon(settings: Settings) -> None:
    """Ensures that no other machine's `make dev` works on the same server of Dagster's.

    Raises:
        StorageError: One does.
    """
    if (server := storage.server_of(settings)) is None:
        return
    with storage.opened(settings) as instance:
        if (ago_s := storage.other_daemon(instance)) is not None:
            raise storage.StorageError(
                f"Dagster's storage {shown(server)}: another machine's daemon was alive {ago_s:.0f} s ago, and Dagster "
                "has one: use its UI, DAGSTER_URL. If it was ended just now, try again in a minute"
            )


if __name__ == "__main__":
    with ending_told():
        main()
