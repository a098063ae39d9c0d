"""Where things stand, on one screen: `status`."""

from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from typing import Protocol

import typer

from taxifare.approval.versions import ledger_of
from taxifare.cli import records
from taxifare.cli.shared import USUAL_WIDTH, AsJson, Terminal, errors_told, folded, show_json
from taxifare.operations.status import OpenQuestion, Status, StillGood, status_of
from taxifare.reports.months import ComparedMonth
from taxifare.settings import Settings, settings_in_force
from taxifare.sources import make_source
from taxifare.texts import counted, in_range, named_version, one_line

_MARGIN, _INDENT = 12, 2
"""Characters before what belongs to a part: beside its name, and below it where the terminal is narrow."""

_NO_ALARM = "none; taxifare doctor checks every part"

_MONTHS, _QUESTIONS, _ALARMS = 6, 2, 4
"""How many are shown of each: more than that is no screen any more."""


@errors_told()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where things stand, on one screen: production, the last months, what waits, and what to type next."""
    settings = settings_in_force()
    ledger, source = ledger_of(settings), partial(make_source, settings)
    found = status_of(settings, ledger, source, context.obj.realised, datetime.now(UTC))
    if as_json:
        show_json(records.status(found, settings))
        return
    screen = Terminal()
    for line in lines_of(found, settings, screen.width):
        screen.print(line, soft_wrap=True, highlight=False)


def lines_of(found: Status, settings: Settings, width: int = USUAL_WIDTH) -> list[str]:
    """Returns the screen, line by line; no line but commands and paths is longer than the terminal, or than 80.

    Args:
        found: What is shown.
        settings: Name city and target.
        width: Of the terminal, in characters.
    """
    is_narrow, target = width < USUAL_WIDTH, settings.target_facts
    room = width - _INDENT if is_narrow else USUAL_WIDTH - _MARGIN
    fold = partial(_folded, room=room)
    good = [*fold(_still_good(found), most=8), *([] if found.still_good is None else _overall(found.still_good, fold))]
    alarms = [line for alarm in found.alarms[:_ALARMS] for line in fold(f"{alarm.name}: {alarm.says}", most=3)]
    more = len(found.alarms) - _ALARMS
    alarms += [f"and {more} more: taxifare doctor"] if more > 0 else []
    about = f"{settings.city_facts.name}, {target.name} in {target.unit}; {found.now:%Y-%m-%d %H:%M} UTC"
    parts = {
        "taxifare": fold(about),
        "Still good?": good,
        "Production": _production(found, target.unit, fold) if settings.has_ledger else [_no_state(settings)],
        "Months": _months(found, target.unit, fold, is_narrow=is_narrow) if found.months else [],
        "Questions": _questions(found, fold) or fold("none waits for an answer"),
        "Alarms": alarms or (fold(_NO_ALARM) if is_narrow else [_NO_ALARM]),
        "Next": list(found.next_commands) or fold("nothing: no question, month or alarm waits for you"),
    }
    return [line for name, lines in parts.items() for line in _part(name, lines, is_narrow=is_narrow)]


def _part(name: str, lines: list[str], *, is_narrow: bool) -> list[str]:
    """Returns the lines of a part, its name before the first; above it where the terminal is narrow."""
    if is_narrow:
        return [name, *(f"{'':{_INDENT}}{line}" for line in lines)] if lines else []
    return [f"{name if not place else '':{_MARGIN}}{line}".rstrip() for place, line in enumerate(lines)]


class _Fold(Protocol):
    """Returns a text in lines that there is room for, so many at most; more where the room is narrow."""

    def __call__(self, text: str, most: int = 2) -> list[str]: ...


def _folded(text: str, most: int = 2, *, room: int) -> list[str]:
    usual = USUAL_WIDTH - _MARGIN
    return folded(text, room, most=most if room >= usual else ceil(most * usual / room) + 1)


def _still_good(found: Status) -> str:
    """Returns whether the model in production is still good, in a sentence or two."""
    if found.still_good is not None:
        good = found.still_good
        later = f"; {in_range(good.later)} compared with another version" if good.later else ""
        return f"{good.answer}, as of {good.month}{later}. {good.why}"
    if found.promotion is None:
        return "nothing is in production yet"
    if found.production is None:
        return "No: nothing is in production, so nothing prices rides"
    return f"not known yet: no month was compared with version {found.production}"


def _overall(good: StillGood, fold: _Fold) -> list[str]:
    return [] if good.overall is None else fold(good.overall, most=4)


def _no_state(settings: Settings) -> str:
    """Returns where a state was looked for: a typing error in its place would look like a new installation."""
    return f"nothing yet: there is no state in {settings.home} (TAXIFARE_HOME)"


def _production(found: Status, unit: str, fold: _Fold) -> list[str]:
    last = found.promotion
    if last is None:
        return fold("nothing yet: no model was approved")
    age = _ago(found.now - last.promoted_at)
    by = one_line(last.by)
    if last.version is None:
        out = f"{by} took {named_version(last.replaced_version)} out"
        lines = fold(f"nothing since {last.promoted_at:%Y-%m-%d} ({age}): {out}")
    else:
        who = f"put back by {by}" if last.kind == "rollback" else f"by {by}"
        before = named_version(last.replaced_version)
        lines = fold(f"version {last.version} since {last.promoted_at:%Y-%m-%d} ({age}), {who}, in place of {before}")
    lines += fold(f"why: {last.reason}")
    if last.version is not None:
        lines += _errors(found, unit, fold)
    return lines


def _errors(found: Status, unit: str, fold: _Fold) -> list[str]:
    """Returns the error that was promised, and what came of it."""
    promised = "not on record"
    if found.promised is not None and found.promised_mae is not None:
        promised = f"off by {found.promised_mae:.2f} {unit} a ride (measured on {found.promised.subject})"
    return [*fold(f"promised: {promised}"), *fold(f"realised: {_realised(found, unit)}")]


def _realised(found: Status, unit: str) -> str:
    """Returns how far off quotes were of what was paid."""
    if found.quotes is None:
        return "no outcomes yet" if found.lost_quotes is None else "cannot be told"
    month, error = found.quotes
    expected = "" if error.expected is None else f"; promised at their difficulty: {error.expected.mean:.2f}"
    return f"off by {error.mae:.2f} {unit} a ride on {error.rides:,} rides quoted in {month}{expected}"


def _months(found: Status, unit: str, fold: _Fold, *, is_narrow: bool) -> list[str]:
    """Returns the last months, a line each, or in words where a line is too short."""
    last = found.months[-_MONTHS:]
    note = fold(f"(errors in {unit} a ride, both on the same rides)")
    if is_narrow:
        return [line for one in last for line in fold(_in_words(one))] + note
    return [f"{'':9}{'verdict':12}{'production':>10}{'staging':>9}  decision", *map(_month, last), *note]


def _in_words(one: ComparedMonth) -> str:
    production, staging = _maes(one)
    return f"{one.subject}: {one.verdict}, production {production}, staging {staging}; {one.decision}"


def _month(one: ComparedMonth) -> str:
    production, staging = _maes(one)
    line = f"{one.subject:9}{one.verdict:12}{production:>10}{staging:>9}  {one.decision}"
    room = USUAL_WIDTH - _MARGIN
    return line if len(line) <= room else f"{line[: room - 1]}…"


def _maes(one: ComparedMonth) -> tuple[str, str]:
    production, staging = ("–" if mae is None else f"{mae:.3f}" for mae in (one.production_mae, one.staging_mae))
    return production, staging


def _questions(found: Status, fold: _Fold) -> list[str]:
    lines = []
    for question in found.questions[:_QUESTIONS]:
        lines += fold(f"{question.about}; {_asked(question, found.now)}", most=3)
    more = len(found.questions) - _QUESTIONS
    return [*lines, f"and {more} more: taxifare requests"] if more > 0 else lines


def _asked(question: OpenQuestion, now: datetime) -> str:
    return f"asked {_ago(now - question.asked_at)} ago, until {question.valid_until:%Y-%m-%d}"


def _ago(age: timedelta) -> str:
    """Returns an age as people say it.

    >>> _ago(timedelta(days=1, hours=5)), _ago(timedelta(hours=3)), _ago(timedelta(seconds=20))
    ('1 day', '3 hours', '0 minutes')
    """
    days, seconds = max(age, timedelta()).days, max(age, timedelta()).seconds
    count, what = (days, "day") if days else (seconds // 3600, "hour") if seconds >= 3600 else (seconds // 60, "minute")
    return counted(count, f"{what}s")
