"""What if: `replay`."""

from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import TypeAdapter
from rich.progress import TextColumn

from taxifare.cli.alone import ensure_folder_of, misused
from taxifare.cli.shared import (
    download_bar,
    errors_told,
    month_of,
    option_of,
    progress_bar,
    say,
    say_next,
    show,
)
from taxifare.replay.policies import PolicyName, policies_of
from taxifare.replay.replaying import replay
from taxifare.reports import tables
from taxifare.reports.replay_page import headline, render
from taxifare.settings import ChallengerName, ChallengerNames, settings_in_force
from taxifare.sources import make_source
from taxifare.trips.months import Month

_POLICIES: TypeAdapter[list[PolicyName]] = TypeAdapter(list[PolicyName])

_CHALLENGERS: TypeAdapter[tuple[ChallengerName, ...]] = TypeAdapter(ChallengerNames)


@errors_told()
def show_replay(
    first: Annotated[Month, typer.Option("--from", parser=month_of, metavar="MONTH", help="First month, YYYY-MM.")],
    last: Annotated[Month, typer.Option("--to", parser=month_of, metavar="MONTH", help="Last month, YYYY-MM.")],
    policy: Annotated[
        list[str], typer.Option(help=f"Who decides: {', '.join(get_args(PolicyName))}. May be given several times.")
    ] = ["gate", "always", "never"],  # noqa: B006 - typer copies it
    challengers: Annotated[
        str, typer.Option(help="Ways to renew that compete each month, separated by commas.")
    ] = "warm",
    output: Annotated[Path, typer.Option(help="HTML file for the report.")] = Path("replay.html"),
) -> None:
    """Replay past months as if another policy had decided. If it is interrupted, run it again and it resumes."""
    policies, competing = (
        option_of("--policy", _POLICIES, policy),
        option_of("--challengers", _CHALLENGERS, challengers),
    )
    if last < first:
        raise misused("--to", f"expected a month not before that of --from, received --from {first} --to {last}")
    ensure_folder_of("--output", output)
    settings = settings_in_force().model_copy(update={"challengers": competing})
    with progress_bar(TextColumn("left: {task.fields[left]}")) as progress:
        task = progress.add_task("first model", total=None, left="–")
        found = replay(
            make_source(settings, on_download=download_bar),
            settings,
            first=first,
            last=last,
            policies=policies_of(policies),
            on_progress=lambda done: progress.update(
                task,
                description=str(done.month),
                completed=done.done,
                total=done.months,
                left=f"{done.left_s / 60:.0f} min",
            ),
        )
    output.write_text(render(found), encoding="utf-8")
    show(tables.policies(found))
    say(headline(found))
    say(f"The report is in {output}.")
    say_next("taxifare history")
