"""The settings in force: `settings`."""

import os
from dataclasses import asdict
from typing import Annotated

import typer
from dotenv import dotenv_values

from taxifare.cli.shared import AsJson, errors_told, say, say_next, show, show_json
from taxifare.environment import ENV_FILE
from taxifare.operations.origins import KnownSetting, known_settings
from taxifare.reports.tables import Heading, Table
from taxifare.settings import MATTER_FIRST, settings_in_force, unknown_names


@errors_told()
def show_settings(
    everything: Annotated[bool, typer.Option("--all", help="Also show settings at their defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which settings differ from their defaults, and where they are set; secrets are never shown.

    Without --all: the ten settings that matter first, and whatever is set.
    """
    found = known_settings(settings_in_force(), os.environ, dotenv_values(ENV_FILE))
    if as_json:
        show_json([asdict(setting) for setting in found])
        return
    shown = [one for one in found if everything or one.origin != "default" or one.name.lower() in MATTER_FIRST]
    show(_table(shown))
    changed = sum(one.differs for one in found)
    for fault in unknown_names(dotenv_values(ENV_FILE)):
        say(fault)
    say(f"Changed from the default: {changed} of {len(found)}. What each is for: .env.sample")
    if not everything:
        say_next("taxifare settings --all")


def _table(shown: list[KnownSetting]) -> Table:
    headings = (Heading("setting", is_unbroken=True), Heading("in force"), Heading("from"), Heading("default"))
    rows = ((one.name, one.value or None, one.origin, _default(one)) for one in shown)
    return Table(headings, tuple(rows))


def _default(one: KnownSetting) -> str:
    """Returns the default where another value is in force."""
    return (one.default or "empty") if one.differs else ""
