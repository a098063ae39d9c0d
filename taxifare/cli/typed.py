"""Commands as they can be typed here: in a clone without an activated environment, `taxifare` alone is not found."""

import re
import shlex
import shutil
import sys
from pathlib import Path

COMMANDS = (
    "adopt", "ask-again", "backup", "bundle", "collect", "consume", "decide", "delete-new-data", "doctor", "explain",
    "history", "learning-curve", "mend", "metrics", "migrate", "mlflow", "months", "new-data", "outcomes", "predict",
    "replay", "requests", "restore", "rollback", "settings", "shadow", "standing", "status", "take", "tuned",
)  # fmt: skip
"""Every command of `taxifare`."""

_NAMED = re.compile(rf"(?<![\w./-])taxifare(?= (?:{'|'.join(COMMANDS)})(?![\w-]))")


def typed(text: str) -> str:
    """Returns a text whose commands of `taxifare` stand there as the shell finds them from this folder.

    What is stored or sent names `taxifare` alone, for it is read elsewhere; what is printed here goes through this.

    >>> typed("somebody else's release of taxifare")
    "somebody else's release of taxifare"
    """
    return _NAMED.sub(lambda _found: _program(), text) if "taxifare " in text else text


def _program() -> str:
    """Returns `taxifare` where the shell finds this environment's by that name, else its place: below here relative."""
    program = Path(sys.executable).with_name("taxifare")
    found = shutil.which("taxifare")
    if not program.exists() or (found is not None and Path(found).resolve() == program.resolve()):
        return "taxifare"
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))
