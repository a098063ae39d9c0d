"""Studies: `tuned` shows and adopts what a search found, `learning-curve` measures what more trips bring."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.progress import TextColumn, TimeRemainingColumn

from taxifare.approval.versions import registry_of
from taxifare.cli.alone import NotThereError, ensure_folder_of, misused
from taxifare.cli.shared import (
    Terminal,
    download_bar,
    errors_told,
    option_of,
    progress_bar,
    say,
    say_next,
    show,
    written,
)
from taxifare.environment import SettingsError
from taxifare.gate.scores import describe_gain
from taxifare.reports import figures
from taxifare.reports.tables import Heading, Table
from taxifare.settings import RowCount, Settings, settings_in_force
from taxifare.sources import make_source
from taxifare.studies.adopting import adopt
from taxifare.studies.learning_curve import LearningCurve, learning_curve
from taxifare.studies.results import TuningResult
from taxifare.studies.storage import latest_result
from taxifare.studies.trials import searched_settings
from taxifare.training.gathering import gather_base
from taxifare.trips.targets import Unit

_ENV_FILE = Path(".env")

_SIZES: TypeAdapter[list[int | None]] = TypeAdapter(list[RowCount])


@errors_told()
def tuned(
    write: Annotated[bool, typer.Option("--write", help="Write the settings into .env; its other lines stay.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who decides, with --write.", callback=written)] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, with --write.", callback=written)] = None,
) -> None:
    """Show which settings the latest search found, and on what evidence; --write puts them into .env."""
    if write and (by is None or reason is None):
        raise misused("--write", "expected --by and --reason beside it, received --write without them")
    settings, console = settings_in_force(), Terminal()
    result = latest_result(settings)
    if result is None:
        raise NotThereError("nothing has been tuned yet: run make dev, and launch tuning_job in Dagster")
    show(_tuning_table(result, settings))
    console.print(_tuning_evidence(result), highlight=False)
    if by is None or reason is None or not write:
        console.print("\nAs lines of .env:\n")
        console.print("\n".join(result.env_lines), highlight=False, markup=False)
        adopting = 'taxifare tuned --write --by YOU --reason "WHY"'
        say(f"\nAdopt them: {adopting}")
        return
    adopt(result, registry_of(settings), _ENV_FILE, by=by, reason=reason)
    in_force = searched_settings(settings_in_force())
    overridden = [name.upper() for name, value in result.winner.items() if in_force[name] != value]
    if overridden:
        raise SettingsError(
            f"{_ENV_FILE} is written, but the environment goes before it: unset {', '.join(overridden)}"
        )
    console.print(
        f"{_ENV_FILE} is written; a Dagster that runs takes its settings from there when it is started again."
    )
    say_next("taxifare settings")


@errors_told()
def show_learning_curve(
    sizes: Annotated[
        str,
        typer.Option(
            help="Numbers of training trips, separated by commas; larger ones than there are trips are left out."
        ),
    ] = "1k,3k,10k,30k,100k,300k,all",
    repeats: Annotated[
        int, typer.Option(min=1, help="Fits of each size, each on other trips and from other weights.")
    ] = 3,
    output: Annotated[Path | None, typer.Option(help="PNG file for the curve; it is in MLflow in any case.")] = None,
) -> None:
    """Measure by how much additional base trips lower the error. If it is interrupted, run it again and it resumes."""
    settings, numbers = settings_in_force(), option_of("--sizes", _SIZES, sizes.split(","))
    if output is not None:
        ensure_folder_of("--output", output)
    whole = settings.model_copy(update={"dataset_size": None})
    published = make_source(settings, on_download=download_bar).read_base()
    trips = gather_base(published, whole).trips.preprocessed(settings.city_facts, None)
    registry = registry_of(settings)
    with progress_bar(TextColumn("left:"), TimeRemainingColumn()) as progress:
        task = progress.add_task("learning curve", total=1.0)
        curve = learning_curve(
            trips,
            registry,
            settings,
            sizes=numbers,
            repeats=repeats,
            on_progress=lambda share: progress.update(task, completed=share),
        )
    unit = settings.target_facts.unit
    png = figures.learning_curve(curve.levels, unit)
    registry.runs.log_figure(curve.run_id, "learning_curve", png)
    show(_curve_table(curve, unit))
    if output is not None:
        output.write_bytes(png)
        say(f"The curve is in {output}.")
    say("How many trips the base model learns from is DATASET_SIZE.")
    say_next("taxifare settings --all")


def _curve_table(curve: LearningCurve, unit: Unit) -> Table:
    """Returns the sizes and the errors that they leave."""
    headings = (
        Heading("training trips", "int"),
        Heading(f"MAE, {unit}", "float", 3),
        Heading("95 % interval", is_unbroken=True),
        Heading(f"linear on distance, {unit}", "float", 3),
    )
    rows = (
        (
            level.trips,
            level.interval.mean,
            f"{level.interval.low:.3f} to {level.interval.high:.3f}" if len(level.maes) > 1 else None,
            level.reference_mae,
        )
        for level in curve.levels
    )
    return Table(headings, tuple(rows))


def _tuning_table(result: TuningResult, settings: Settings) -> Table:
    """Returns the settings that were searched: now in force, at the time of the search, and the winner's."""
    headings = (Heading("setting", is_unbroken=True), *map(Heading, ("in force", "when searched", "tuned")))
    rows = (
        (
            name.upper(),
            "the network's own" if value is None else f"{value:.5g}",
            f"{result.present[name]:.5g}",
            f"{result.winner[name]:.5g}",
        )
        for name, value in searched_settings(settings).items()
    )
    return Table(headings, tuple(rows))


def _tuning_evidence(result: TuningResult) -> str:
    """Returns what speaks for the winner, in words."""
    counts = ", ".join(f"{count} {end}" for end, count in result.trials.items() if count)
    found = f"{result.subject}, {result.found_at:%Y-%m-%d %H:%M} UTC, trials: {counts}. "
    if result.winner == result.present:
        return f"{found}No trial was better than the settings of the time: {result.winner_mae:.3f} {result.unit}."
    if result.gain is None:
        return f"{found}MAE {result.winner_mae:.3f} {result.unit}; the settings of the time gave no usable network."
    advice = "" if result.gain.low > 0 else " That is no more than chance: better keep the settings."
    return f"{found}Gain on held-out trips that chose nothing: {describe_gain(result.gain, result.unit)}.{advice}"
