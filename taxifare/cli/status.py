"""Where things stand, on one screen: `status`."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from textwrap import wrap

import typer

from taxifare.approval.versions import ledger_of
from taxifare.cli.shared import AsJson, Terminal, errors_told, show_json
from taxifare.cli.typed import typed
from taxifare.operations.status import OpenQuestion, Status, status_of
from taxifare.reports.months import ComparedMonth
from taxifare.settings import Settings, settings_in_force
from taxifare.sources import make_source
from taxifare.texts import counted, in_range, one_line

_WIDTH = 80
_MARGIN = 12

_MONTHS, _QUESTIONS, _ALARMS = 6, 2, 4
"""How many are shown of each: more than that is no screen any more."""


@errors_told()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where things stand, on one screen: production, the last months, what waits, and what to type next."""
    settings = settings_in_force()
    ledger, source = ledger_of(settings), partial(make_source, settings)
    found = status_of(settings, ledger, source, context.obj.realised, datetime.now(UTC))
    if as_json:
        show_json(record_of(found, settings))
        return
    screen = Terminal()
    for line in lines_of(found, settings):
        screen.print(line, soft_wrap=True, highlight=False)


def record_of(found: Status, settings: Settings) -> dict[str, object]:
    """Returns the screen for programs, complete: all months, questions and alarms; errors in the unit that it names."""
    last, quotes = found.promotion, found.quotes
    in_production = last is not None and last.version is not None
    return {
        "now": found.now.isoformat(timespec="seconds"),
        "city": settings.city_facts.name,
        "unit": settings.target_facts.unit,
        "production": None
        if last is None
        else {
            "version": last.version,
            "since": last.promoted_at.isoformat(timespec="seconds"),
            "by": last.by,
            "reason": last.reason,
            "promised_mae": found.promised_mae if in_production else None,
            "realised_month": None if quotes is None else quotes[0],
            "realised_mae": None if quotes is None else quotes[1].mae,
        },
        "still_good": None if found.still_good is None else asdict(found.still_good),
        "months": [
            {
                "subject": one.subject,
                "verdict": one.verdict,
                "production_mae": one.production_mae,
                "staging_mae": one.staging_mae,
                "decision": one.decision,
            }
            for one in found.months
        ],
        "questions": [asdict(question) for question in found.questions],
        "alarms": [asdict(alarm) for alarm in found.alarms],
        "next": list(found.next_commands),
    }


def lines_of(found: Status, settings: Settings) -> list[str]:
    """Returns the screen, line by line; no line but a command is longer than 80 characters."""
    target = settings.target_facts
    what = f"{settings.city_facts.name}, {target.name} in {target.unit}"
    lines = [f"{'taxifare':{_MARGIN}}{what}; {found.now:%Y-%m-%d %H:%M} UTC"]
    overall = None if found.still_good is None else found.still_good.overall
    is_good = [*_wrapped(_still_good(found), most=8), *([] if overall is None else _wrapped(overall, most=4))]
    lines += _part("Still good?", is_good)
    lines += _part("Production", _production(found, target.unit))
    if found.months:
        lines += _part("Months", _months(found, target.unit))
    lines += _part("Questions", _questions(found) or ["none waits for an answer"])
    alarms = [line for alarm in found.alarms[:_ALARMS] for line in _wrapped(f"{alarm.name}: {alarm.says}", most=3)]
    more = len(found.alarms) - _ALARMS
    alarms += [f"and {more} more: taxifare doctor"] if more > 0 else []
    lines += _part("Alarms", alarms or ["none; taxifare doctor examines every part"])
    return lines + _part("Next", list(found.next_commands) or ["nothing: no question, month or alarm waits for you"])


def _part(name: str, lines: list[str]) -> list[str]:
    """Returns the lines of a part, its name before the first."""
    return [f"{name if not place else '':{_MARGIN}}{line}".rstrip() for place, line in enumerate(lines)]


def _wrapped(text: str, most: int = 2) -> list[str]:
    """Returns a text in so many lines at most."""
    found = wrap(typed(one_line(text)), _WIDTH - _MARGIN, max_lines=most, placeholder=" …", break_on_hyphens=False)
    return found or [""]


def _still_good(found: Status) -> str:
    """Returns whether the model in production is still good, in a sentence or two."""
    if found.still_good is not None:
        good = found.still_good
        later = f"; {in_range(good.later)} compared with another version" if good.later else ""
        return f"{good.answer}, as of {good.month}{later}. {good.why}"
    if found.production is None:
        return "nothing is in production"
    return f"not known yet: no month was compared with version {found.production}"


def _production(found: Status, unit: str) -> list[str]:
    last = found.promotion
    if last is None:
        return ["nothing yet: no model was approved"]
    age = _ago(found.now - last.promoted_at)
    by = one_line(last.by)
    if last.version is None:
        lines = _wrapped(f"none since {last.promoted_at:%Y-%m-%d} ({age}): taken out by {by}")
    else:
        change = "back from" if last.kind == "rollback" else "in place of"
        before = "nothing" if last.replaced_version is None else f"version {last.replaced_version}"
        lines = _wrapped(
            f"version {last.version} since {last.promoted_at:%Y-%m-%d} ({age}), by {by}, {change} {before}"
        )
    lines += _wrapped(f"why: {last.reason}")
    if last.version is not None:
        lines += _errors(found, unit)
    return lines


def _errors(found: Status, unit: str) -> list[str]:
    """Returns the error that was promised, and what came of it."""
    promised = "not on record"
    if found.promised is not None and found.promised_mae is not None:
        promised = f"off by {found.promised_mae:.2f} {unit} a ride (as shown on {found.promised.subject})"
    return [f"promised: {promised}", *_wrapped(f"realised: {_realised(found, unit)}")]


def _realised(found: Status, unit: str) -> str:
    """Returns how far off quotes were of what was paid."""
    if found.quotes is None:
        return "no outcomes yet" if found.lost_quotes is None else "cannot be told"
    month, error = found.quotes
    expected = "" if error.expected is None else f"; promised at their difficulty: {error.expected.mean:.2f}"
    return f"off by {error.mae:.2f} {unit} a ride on {error.rides:,} rides quoted in {month}{expected}"


def _months(found: Status, unit: str) -> list[str]:
    """Returns the last months, a line each."""
    head = f"{'':9}{'verdict':12}{'production':>10}{'staging':>9}  decision"
    return [head, *map(_month, found.months[-_MONTHS:]), f"(errors in {unit} a ride, both on the same rides)"]


def _month(one: ComparedMonth) -> str:
    errors = ["–" if mae is None else f"{mae:.2f}" for mae in (one.production_mae, one.staging_mae)]
    line = f"{one.subject:9}{one.verdict:12}{errors[0]:>10}{errors[1]:>9}  {one.decision}"
    room = _WIDTH - _MARGIN
    return line if len(line) <= room else f"{line[: room - 1]}…"


def _questions(found: Status) -> list[str]:
    lines = []
    for question in found.questions[:_QUESTIONS]:
        lines += _wrapped(f"{question.about}; {_asked(question, found.now)}", most=3)
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
