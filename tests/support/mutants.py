"""`make mutants`: which small changes of the gate and the approvals their tests do not notice (mutmut).

A mutant is the code with one change: a sign, a bound, a text. One that no test fails for has survived: either a test is
missing, or the change makes no difference. What is mutated, and by which tests, stands in `[tool.mutmut]`.

Of the thousands there are, a sample is tried, drawn anew each time: mutmut begins with those whose tests are quickest,
so what it reaches within an hour says little of the rest.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mutmut.stats import status_by_exit_code

from tests.support.places import REPOSITORY

BUDGET_S = 3_600

SAMPLE = 300
"""About as many as the budget allows on two cores; the share of those noticed is then known to within five percent."""

ANY = "taxifare.approval.errors*"
"""The quickest to try."""

MUTANTS = REPOSITORY / "mutants"
MUTMUT = Path(sys.executable).with_name("mutmut")


def run(patterns: Sequence[str]) -> dict[Path, dict[str, str]]:
    """Returns what became of the mutants with such names, or of a sample of all, by file and name.

    Those that the budget does not allow are left out.
    """
    ends_s = time.monotonic() + BUDGET_S
    shutil.rmtree(MUTANTS, ignore_errors=True)
    if patterns:
        _try(patterns, ends_s)
        return _tried()
    # Trying any makes all of them, and finds out which tests reach which.
    _try([ANY], ends_s)
    sample = random.sample(sorted(name for codes in _codes().values() for name in codes), SAMPLE)
    _try(sample, ends_s)
    return {file: {name: state[name] for name in sample if name in state} for file, state in _tried().items()}


def report(tried: Mapping[Path, Mapping[str, str]]) -> None:
    """Prints the survivors, and the share that was noticed in each file and in all."""
    all_seen, all_tried = 0, 0
    for file, states in tried.items():
        survivors = [name for name, state in states.items() if state in {"survived", "no tests"}]
        for name in survivors:
            print(f"survived: {name}")
        if states:
            seen = len(states) - len(survivors)
            print(f"{file}: {seen} of {len(states)} noticed, {seen / len(states):.0%}")
            all_seen, all_tried = all_seen + seen, all_tried + len(states)
    print(f"in all {all_seen} of {all_tried} noticed, {all_seen / max(all_tried, 1):.1%}")
    print(f"one of them: {MUTMUT.relative_to(REPOSITORY)} show NAME")


def _try(names: Sequence[str], ends_s: float) -> None:
    """Ensures that mutants were tried, or as many as can be before a moment of the monotonic clock."""
    process = subprocess.Popen([MUTMUT, "run", *names], cwd=REPOSITORY, start_new_session=True)
    try:
        process.wait(max(0.0, ends_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        print(f"\nstopped after {BUDGET_S / 60:.0f} minutes; ARGS='taxifare.gate.verdict*' tries a part")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _codes() -> dict[Path, dict[str, int | None]]:
    """Returns the exit codes of the mutants' tests by file and name, None for those not tried."""
    return {
        file.relative_to(MUTANTS).with_suffix(""): json.loads(file.read_text())["exit_code_by_key"]
        for file in sorted(MUTANTS.glob("taxifare/*/*.meta"))
    }


def _tried() -> dict[Path, dict[str, str]]:
    """Returns what became of the mutants that were tried, by file and name."""
    return {
        file: {name: status_by_exit_code[code] for name, code in codes.items() if code is not None}
        for file, codes in _codes().items()
    }


if __name__ == "__main__":
    report(run(sys.argv[1:]))
