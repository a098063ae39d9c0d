"""What was answered: `collect`, and `shadow`."""

import typer
from upath import UPath

from taxifare.cli.shared import errors_told, say_next
from taxifare.serving import in_shadow, outcome_log, prediction_log
from taxifare.serving.apart import apart
from taxifare.serving.collecting import collect_logs
from taxifare.serving.segments import Collected
from taxifare.settings import settings_in_force
from taxifare.texts import counted


@errors_told()
def collect() -> None:
    """Move finished parts of the logs of predictions and outcomes into the lake, each line once."""
    settings = settings_in_force()
    answers, outcomes = collect_logs(settings)
    _tell("answers", answers, prediction_log.collected_in(settings.lake))
    if outcomes.segments:
        _tell("outcomes", outcomes, outcome_log.collected_in(settings.lake))


def _tell(what: str, found: Collected, lake: UPath) -> None:
    torn = f", and {counted(found.torn, 'lines')} that a process could not finish" if found.torn else ""
    typer.echo(f"Collected {counted(found.lines, what)} of {counted(found.segments, 'segments')}{torn}: {lake}")


@errors_told()
def shadow() -> None:
    """Show how far the prices of the version in question are from production's, on the rides collected so far."""
    settings = settings_in_force()
    found = in_shadow.read(settings.lake)
    if found is None:
        typer.echo("Nothing is in shadow: nobody is asked about a version that has a bundle.")
        say_next("taxifare status")
        return
    answers = prediction_log.read(prediction_log.collected_in(settings.lake), found.since)
    says = apart(answers, found, settings.meter)
    told = says or "no ride yet among those collected"
    typer.echo(f"Version {found.version} in shadow since {found.since:%Y-%m-%d %H:%M} UTC: {told}")
    say_next("taxifare requests" if says else "taxifare collect")
