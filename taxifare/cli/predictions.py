"""What was answered: `collect`."""

import typer

from taxifare.cli.shared import errors_told
from taxifare.serving import prediction_log
from taxifare.settings import settings_in_force


@errors_told()
def collect() -> None:
    """Move the finished parts of the prediction log into the lake, each answer once."""
    settings = settings_in_force()
    folder, lake = prediction_log.folder_in(settings.home), prediction_log.collected_in(settings.lake)
    found = prediction_log.collect(folder, lake, settings.prediction_log_days)
    torn = f", and {found.torn:,} lines that a process could not finish" if found.torn else ""
    typer.echo(f"Collected {found.lines:,} answers of {found.segments:,} segments{torn}: {lake}")
