"""MLflow's pages: `mlflow` serves those of a store that has no server of its own."""

import os
import sys

import typer

from taxifare.addresses import ensure_free
from taxifare.approval.versions import registry_of
from taxifare.cli.shared import approvals_in_force, errors_told, ignore_warnings
from taxifare.model.runs import PAGES_ADDRESS
from taxifare.settings import settings_in_force


@errors_told()
def mlflow() -> None:
    """Serve MLflow's pages, with training runs and versions of the model, until interrupted."""
    approvals_in_force()
    settings = settings_in_force()
    registry = registry_of(settings)
    registry.prepare()
    if registry.store.is_server:
        typer.echo(f"MLflow is a server, see {registry.runs.pages()}")
        return
    host, port = PAGES_ADDRESS.removeprefix("http://").split(":")
    ensure_free(host, int(port), "does another `make mlflow` run? Stop it, or use it")
    typer.echo(f"Training runs: {registry.runs.pages()}\nStop with Ctrl-C.")
    # Its background jobs, for features not used here, are four more processes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    ignore_warnings("starlette.middleware.wsgi is deprecated")
    stores = ["--backend-store-uri", settings.tracking_uri, "--registry-store-uri", settings.tracking_uri]
    served = ["--host", host, "--port", port, "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "server", *stores, *served])  # noqa: S606 - the arguments are ours
