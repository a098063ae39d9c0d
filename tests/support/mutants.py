"""`make mutants`: which small changes of the gate and the approvals their tests do not notice (mutmut).

A mutant is the code with one change: a sign, a bound, a text. One that no test fails for has survived: either a test is
missing, or the change makes no difference. What is mutated, and by which tests, stands in `[tool.mutmut]`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mutmut.stats import status_by_exit_code

from tests.support.places import REPOSITORY

BUDGET_S = 3_600
MUTANTS = REPOSITORY / "mutants"
MUTMUT = Path(sys.executable).with_name("mutmut")


def run(patterns: list[str]) -> None:
    """Ensures that the mutants with such names were tried, or as many as the budget allows."""
    shutil.rmtree(MUTANTS, ignore_errors=True)
    process = subprocess.Popen([MUTMUT, "run", *patterns], cwd=REPOSITORY, start_new_session=True)
    try:
        process.wait(BUDGET_S)
    except subprocess.TimeoutExpired:
        print(f"\nstopped after {BUDGET_S / 60:.0f} minutes; ARGS='taxifare.gate.verdict*' tries a part")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def report() -> None:
    """Prints the survivors, and the share that was noticed in each module and in all."""
    all_seen, all_tried = 0, 0
    for file in sorted(MUTANTS.glob("taxifare/*/*.meta")):
        codes: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
        tried = {name: status_by_exit_code[code] for name, code in codes.items() if code is not None}
        survivors = [name for name, status in tried.items() if status in {"survived", "no tests"}]
        for name in survivors:
            print(f"survived: {name}")
        if tried:
            seen = len(tried) - len(survivors)
            print(
                f"{file.relative_to(MUTANTS).with_suffix('')}: {seen} of {len(tried)} noticed, {seen / len(tried):.0%}"
            )
            all_seen, all_tried = all_seen + seen, all_tried + len(tried)
    print(f"in all {all_seen} of {all_tried} noticed, {all_seen / max(all_tried, 1):.1%}")
    print(f"one of them: {MUTMUT.relative_to(REPOSITORY)} show NAME")


if __name__ == "__main__":
    run(sys.argv[1:])
    report()
