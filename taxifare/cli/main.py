"""The `taxifare` command, put together; what each of its commands does is in the module of its subject."""

from typing import Annotated

import typer

from taxifare.cli.bundles import bundle
from taxifare.cli.decisions import adopt, ask_again, decide, history, requests, rollback
from taxifare.cli.explaining import explain_ride
from taxifare.cli.metrics import metrics
from taxifare.cli.mlflow_pages import mlflow
from taxifare.cli.monitoring import outcomes
from taxifare.cli.months import delete_new_data, fetch_new_data, months, take
from taxifare.cli.operations import backup, doctor, mend, migrate, restore
from taxifare.cli.predictions import collect, shadow
from taxifare.cli.pricing import predict
from taxifare.cli.replay import show_replay
from taxifare.cli.settings import show_settings
from taxifare.cli.standing import app as standing
from taxifare.cli.status import status
from taxifare.cli.streams import consume
from taxifare.cli.studies import show_learning_curve, tuned
from taxifare.model.provenance import version_in_words

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"taxifare {version_in_words()}")
        raise typer.Exit


_EXIT_CODES = (
    "Exit codes: 0 done; 1 refused, or something failed; 2 the command or a setting is not as expected; 3 some "
    "rides of a file have no price; 130 interrupted."
)


@app.callback(epilog=_EXIT_CODES)
def taxifare(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Decide which model prices rides, and see who did."""


app.command()(status)
app.command()(metrics)
app.command()(requests)
app.command()(decide)
app.command()(history)
app.command()(rollback)
app.command("ask-again")(ask_again)
app.command()(adopt)
app.add_typer(standing, name="standing")
app.command()(tuned)
app.command("learning-curve")(show_learning_curve)
app.command("replay")(show_replay)
app.command()(months)
app.command()(take)
app.command("new-data")(fetch_new_data)
app.command("delete-new-data")(delete_new_data)
app.command()(predict)
app.command()(consume)
app.command("explain")(explain_ride)
app.command()(bundle)
app.command()(collect)
app.command()(shadow)
app.command()(outcomes)
app.command()(mlflow)
app.command("settings")(show_settings)
app.command()(doctor)
app.command()(mend)
app.command()(migrate)
app.command()(backup)
app.command()(restore)
