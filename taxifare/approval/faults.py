"""Faults that are reported to people: a run that failed or was stopped, a production version that is not what it was.

They are noticed elsewhere; this module words them. Each is told once, under `about`, see `delivery.send_notice`.
"""

from dataclasses import dataclass

from taxifare.secrets import redacted
from taxifare.texts import one_line

MOST_CHARACTERS = 500
"""Of an error; all of it is on the run's page."""

_MEND = "fix the cause: a mended file is run by itself, after anything else re-execute the run from its page"
"""A file that has changed is another edition, which is due of its own."""


@dataclass(frozen=True)
class FaultNotice:
    """Something that waits for a person.

    Attributes:
        about: Key of the message.
        lines: What has happened, and the way out.
        page: Where to look.
    """

    about: str
    lines: tuple[str, ...]
    page: str


def about_failure(name: str) -> str:
    """Returns what messages call the failure of a run, or of the runs of one backfill."""
    return f"failure {name}"


def is_about_failure(about: str) -> bool:
    """Returns whether a message is about the failure of a run.

    >>> is_about_failure(about_failure("of run 4f")), is_about_failure(about_damage("7"))
    (True, False)
    """
    return about.startswith(about_failure(""))


def about_damage(version: str) -> str:
    """Returns what messages call the damage of a version in production."""
    return f"damage {version}"


def failure(
    name: str, what: str, ending: str, why: str, page: str, *, holds_back: bool, is_refused: bool = False
) -> FaultNotice:
    r"""Returns what is told of a run that did not do its work.

    Args:
        name: Of the run, or of its backfill.
        what: What was run.
        ending: How it ended.
        why: What the error says, foreign words included.
        page: Of the run.
        holds_back: Whether other months wait for it.
        is_refused: Whether it would be refused again, and says itself what to run instead.

    >>> told = failure("of run 4f", "monthly_job, 2015-03", "failed", "no\ntrips", "http://d/runs/4f", holds_back=True)
    >>> print("\n".join(told.lines))
    Failed: monthly_job, 2015-03
    Why: no trips
    What to do: fix the cause: a mended file is run by itself, after anything else re-execute ...; later months wait ...
    """
    said = one_line(redacted(why))
    cut = said if len(said) <= MOST_CHARACTERS else f"{said[:MOST_CHARACTERS]}…"
    wait = "; later months wait until then" if holds_back else ""
    mend = "run what it says instead" if is_refused else _MEND
    way_out = f"What to do: {mend}{wait}"
    return FaultNotice(
        about_failure(name), (f"{ending.capitalize()}: {what}", f"Why: {cut or 'unknown'}", way_out), page
    )


def damage(version: str, why: str, page: str) -> FaultNotice:
    """Returns what is told of a production version that is not what was approved, or cannot be found."""
    way_out = (
        "What to do: restore it from a backup, or roll back: taxifare rollback --to VERSION (or none) --by YOU "
        '--reason "WHY"; taxifare doctor says more'
    )
    lines = (f"Damaged: version {version}, which is in production", f"Why: {one_line(redacted(why))}", way_out)
    return FaultNotice(about_damage(version), lines, page)
