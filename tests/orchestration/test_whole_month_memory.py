"""A month of millions in 2 GiB: all steps of a month in one process, as its operator runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "whole_month.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_month_of_three_million_rides_takes_less_than_two_gib() -> None:
    command = [sys.executable, str(BENCH), "--rides", "3000000"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "staging_model_checks" in done.stdout
