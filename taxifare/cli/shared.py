"""What the commands have in common: their surroundings, the settings in force, the terminal, and errors told to people.

What concerns one subject only is in the module of that subject.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath
from textwrap import wrap
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text
from upath import UPath

from taxifare.approval.approvals import Approvals
from taxifare.approval.errors import NoStateError
from taxifare.approval.records import EvidenceUnreadableError
from taxifare.cli import alone
from taxifare.cli.typed import typed
from taxifare.environment import SettingsError
from taxifare.errors import ToldError, exit_code_of
from taxifare.gate.scores import EvaluationError
from taxifare.model.fitting import TrainingError
from taxifare.monitoring.realised import RealisedMonth
from taxifare.operations.migrating import Migration
from taxifare.replay.errors import ReplayError
from taxifare.reports import tables
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings, read_as, settings_in_force
from taxifare.studies.learning_curve import LearningCurveError
from taxifare.texts import one_line, plain, unsaid
from taxifare.trips.months import Month, parse_month
from taxifare.trips.splitting import SplitError
from taxifare.trips.table import TripTableError

_MENDABLE = (
    ToldError,
    EvaluationError,
    EvidenceUnreadableError,
    LearningCurveError,
    ReplayError,
    SplitError,
    TrainingError,
    TripTableError,
)


_Kind = TypeVar("_Kind")

INTERRUPTED = 130
"""Exit code of what was interrupted."""


@dataclass(frozen=True)
class Surroundings:
    """What the command is told by the orchestration, which the domain does not know.

    Attributes:
        editions_in_lake: Returns the months of which trips are in a lake, and their revisions.
        month_with: Returns the month in which there is a clean trip with a key, and its trips; None where none has it.
        realised: Returns what quotes came to, by month, oldest first.
        run_server: Returns the address of the server that has the record of runs, None where that is files.
        migrations: Migrate the orchestration's stores, by name.
    """

    editions_in_lake: Callable[[UPath], Mapping[Month, str]]
    month_with: Callable[[str, UPath], tuple[Month, pd.DataFrame] | None]
    realised: Callable[[UPath], Mapping[Month, RealisedMonth]]
    run_server: Callable[[Settings], str | None]
    migrations: Mapping[str, Migration]


@contextmanager
def errors_told() -> Iterator[None]:
    """Ensures that what a person can mend ends the command with a message, see `alone.errors_told`.

    Decorates the commands.
    """
    with alone.errors_told(_MENDABLE):
        yield


@contextmanager
def ending_told() -> Iterator[None]:
    """Ensures the same of a program that is no command of `taxifare`; interrupted, it ends with `INTERRUPTED`."""
    try:
        yield
    except _MENDABLE as error:
        alone.tell(error)
        raise SystemExit(exit_code_of(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


class Terminal(Console):
    """A terminal that prints texts as they are: never as markup, without what would command it; commands as typed here.

    Args:
        to_stderr: Whether what is printed is no part of the output.
    """

    def __init__(self, *, to_stderr: bool = False) -> None:
        super().__init__(stderr=to_stderr, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text as it is printed, also one that an earlier release stored as it came."""
        return super().render_str(typed(plain(text)), **options)


USUAL_WIDTH, _WIDE, _WIDEST = 80, 100, 1_000
"""Characters of a line from which on rows are rows, below that a line a value; from which on tables have details, too;
and of the longest line."""

_BETWEEN = 2
"""Characters between columns."""

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]


def drawn(table: tables.Table, width: int) -> Table:
    """Returns a table for a terminal of so many characters; what can be copied, and numbers, are never folded."""
    places = [place for place, heading in enumerate(table.headings) if width >= _WIDE or not heading.is_detail]
    headings = [table.headings[place] for place in places]
    rows = [[row[place] for place in places] for row in table.texts()]
    names = [heading.name for heading in headings]
    columns = list(zip(names, *rows, strict=True))
    if sum(max(map(len, column)) + _BETWEEN for column in columns) - _BETWEEN > width:
        # Rich takes from all columns that may be folded, beyond a word's length too, so that numbers would be cut.
        names = [
            _heading(*column) if heading.is_number else heading.name
            for heading, column in zip(headings, columns, strict=True)
        ]
    shown = Table(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    for heading, name in zip(headings, names, strict=True):
        justify: Literal["left", "right"] = "right" if heading.is_number else "left"
        word = max(map(len, name.split()), default=0)
        is_kept = heading.is_unbroken or heading.is_number
        shown.add_column(Text(name), justify=justify, no_wrap=is_kept, overflow="fold", min_width=word)
    for row in rows:
        shown.add_row(*row)
    return shown


def _heading(name: str, *cells: str) -> str:
    """Returns a heading in lines that are no longer than its longest word or the longest of its cells."""
    return "\n".join(wrap(name, max(map(len, (*name.split(), *cells))), break_on_hyphens=False))


def show(table: tables.Table) -> None:
    """Prints a table; in a narrow terminal a block of lines for each row, with all that it has."""
    out = Terminal()
    if out.width < USUAL_WIDTH:
        for row in table.texts():
            show_facts([(heading.name, text) for heading, text in zip(table.headings, row, strict=True) if text])
            out.print()
        return
    shown = drawn(table, out.width)
    least = Measurement.get(out, out.options.update(max_width=_WIDEST), shown).minimum
    out.width = max(out.width, least)
    out.print(shown, highlight=False)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Prints names and what belongs to them, a line each: one below the other, or in a narrow terminal beside them."""
    out = Terminal()
    for name, words in facts:
        if out.width < USUAL_WIDTH:
            for line in folded(f"{name}: {words}", out.width, indent="  "):
                out.print(line, soft_wrap=True, highlight=False)
        else:
            out.print(f"{name:24}{words}", highlight=False)


def folded(text: str, width: int, *, indent: str = "", most: int | None = None) -> list[str]:
    """Returns a text in lines of so many characters, for the terminal; no word is broken, for it may be an id.

    Args:
        text: In one line.
        width: Characters of a line.
        indent: Before every line but the first.
        most: How many lines at most, None for any number.

    >>> folded("request: 2015-06-v7-acc7d7df5b2b waits for an answer", 24, indent="  ")
    ['request:', '  2015-06-v7-acc7d7df5b2b', '  waits for an answer']
    """
    return wrap(
        typed(one_line(text)),
        width,
        subsequent_indent=indent,
        max_lines=most,
        placeholder=" …",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def show_json(value: object) -> None:
    """Prints a value for programs; moments as ISO 8601 in UTC, to the second."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_moment))


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    raise TypeError(f"expected what JSON knows, or a moment, received {value!r}")


def say(line: str) -> None:
    """Prints a line that can be copied as a whole, however narrow the terminal is."""
    Terminal().print(line, highlight=False, soft_wrap=True)


def say_next(command: str) -> None:
    """Prints what to type next: the last line of every listing."""
    say(f"Next: {command}")


def working(what: str) -> Status:
    """Shows, while its context lasts, that something is being done; where nobody looks, nothing."""
    return Console(stderr=True).status(what)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Returns a bar for work that takes minutes, with further columns at its end; it is no part of the output."""
    usual = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*usual, *columns, console=Console(stderr=True))


@contextmanager
def download_bar(address: str, arrived_bytes: int, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how much of a file has arrived, where there is a terminal; see `taxifare.sources.web.OnDownload`."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(PurePosixPath(address).name, total=total_bytes, completed=arrived_bytes)
        yield partial(bar.advance, task)


def ignore_warnings(*beginnings: str) -> None:
    """Ensures that Python processes begun from here print no warnings that begin so: libraries' talk to each other."""
    given = os.environ.get("PYTHONWARNINGS")
    filters = [given] if given else []
    os.environ["PYTHONWARNINGS"] = ",".join([*filters, *(f"ignore:{beginning}" for beginning in beginnings)])


def approvals_in_force() -> Approvals:
    """Returns the approvals of the settings in force; makes no state where there is none.

    Raises:
        SettingsError: A setting is not as expected.
        NoStateError: There is no ledger.
    """
    settings = settings_in_force()
    if not settings.has_ledger:
        raise NoStateError(
            f"there is no state in {settings.home}: expected the ledger of an installation. `make demo` or `make dev` "
            "makes one; where it is elsewhere, set TAXIFARE_HOME"
        )
    return approvals_of(settings)


_WRITTEN = {
    "by": "the name of whoever decides",
    "reason": "why, in a sentence",
    "request": "the request's name, as in taxifare requests",
}


def written(option: typer.CallbackParam, text: str | None) -> str | None:
    """Returns what was written; what says nothing ends the command, before anything is asked or told."""
    if text is not None and (received := unsaid(text)) is not None:
        what = _WRITTEN[str(option.name)]
        raise typer.BadParameter(f"expected {what}, received {received}")
    return text


def option_of(name: str, kind: TypeAdapter[_Kind], written: object) -> _Kind:
    """Returns an option read as a setting of that kind is read; one that cannot be ends the command."""
    try:
        return read_as(kind, written)
    except SettingsError as error:
        raise alone.misused(name, error) from None


def month_of(written: str) -> Month:
    """Returns a month as it was written on the command line; parses options, which click names if it is none."""
    try:
        return parse_month(written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
