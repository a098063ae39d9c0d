"""Where things stand, for Prometheus: `metrics`."""

import threading
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from pydantic import TypeAdapter

from taxifare.addresses import listening_at
from taxifare.approval.versions import ledger_of
from taxifare.cli.shared import errors_told, option_of
from taxifare.environment import HostAndPort
from taxifare.operations.exposition import StatusCollector, registry_of, told
from taxifare.operations.status import Status, status_of
from taxifare.secrets import redacted
from taxifare.serving.metrics import serve
from taxifare.settings import settings_in_force
from taxifare.sources import make_source


def _address(written: str | None) -> str | None:
    """Returns an address as it was written on the command line; one that is none ends the command."""
    return None if written is None else option_of("--listen", _HOST_AND_PORT, written)


_HOST_AND_PORT: TypeAdapter[str] = TypeAdapter(HostAndPort)


@errors_told()
def metrics(
    context: typer.Context,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            callback=_address,
            help="HOST:PORT at which to serve it until interrupted, such as 127.0.0.1:9108.",
        ),
    ] = None,
) -> None:
    """Print the status in Prometheus' format once (for a textfile collector), or serve it with --listen."""
    settings = settings_in_force()
    ledger, source = ledger_of(settings), partial(make_source, settings)

    def look() -> Status:
        return status_of(settings, ledger, source, context.obj.realised, datetime.now(UTC))

    def say(error: Exception) -> None:
        typer.echo(redacted(f"{type(error).__name__}: {error}"), err=True)

    collector = StatusCollector(look, settings.target_facts.unit, say)
    if listen is None:
        typer.echo(told(collector), nl=False)
        return
    with listening_at(f"--listen: {listen}", "stop what listens there, or take another port"):
        serve(registry_of(collector), listen)
    typer.echo(f"http://{listen}/metrics", err=True)
    threading.Event().wait()
