"""Locks: held by one process, seen by all, and gone with whoever held them; in files, and in PostgreSQL."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from taxifare.approval import locks
from taxifare.approval.ledger import LedgerError, address_of_database
from taxifare.approval.locks import HeldError, holding, is_held
from taxifare.secrets import shown
from taxifare.settings import Settings
from tests.support.places import REPOSITORY
from tests.support.small import small_settings

HOLDS = """
import sys, time
from pathlib import Path
from pydantic import SecretStr
from taxifare.approval.locks import holding
from taxifare.environment import HomeSettings

settings = HomeSettings(taxifare_home=Path(sys.argv[1]), database_url=sys.argv[2] or None)
with holding(settings, "month"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def settings(ledger_url: str, tmp_path: Path) -> Settings:
    """Settings of a machine whose ledger is a file, or on a server."""
    return small_settings(tmp_path, database_url=None if ledger_url.startswith("sqlite") else ledger_url)


@contextmanager
def another_process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock called `month`."""
    url = settings.ledger_url if settings.ledger_is_server else ""
    arguments = [sys.executable, "-c", HOLDS, str(settings.home), url]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def soon(said: bool, settings: Settings) -> bool:
    """Whether it is, within a few seconds, as said of the lock."""
    for _ in range(100):
        if is_held(settings, "month") is said:
            return True
        time.sleep(0.1)
    return False


def test_a_lock_is_held_by_one_and_is_gone_with_the_process_that_was_killed(settings: Settings) -> None:
    assert not is_held(settings, "month")
    with another_process(settings) as process:
        assert is_held(settings, "month")
        assert not is_held(settings, "another month")
        place = f"DATABASE_URL={shown(settings.ledger_url)}" if settings.ledger_is_server else f"in {settings.home}"
        told = rf"^another process is at work.* {re.escape(place)}: month; wait for it to end$"
        with pytest.raises(HeldError, match=told), holding(settings, "month"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        assert soon(False, settings)
    with holding(settings, "month"):
        assert is_held(settings, "month")
    assert not is_held(settings, "month")


def test_two_machines_that_share_no_server_have_locks_of_their_own(tmp_path: Path) -> None:
    first, second = (small_settings(tmp_path / name) for name in ("first", "second"))
    with holding(first, "month"), holding(second, "month"):
        assert is_held(first, "month")


def test_a_file_that_nobody_holds_stays_nowhere(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    with holding(settings, "run 1"):
        pass
    assert not is_held(settings, "run 2")
    assert not [*(settings.home / "locks").iterdir()]


@pytest.mark.end_to_end
def test_a_lock_that_a_restart_of_the_server_took_is_taken_again(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_LOOKED_AFTER_S", 0.1)
    settings = small_settings(tmp_path, database_url=postgres)
    engine = sa.create_engine(address_of_database(postgres), isolation_level="AUTOCOMMIT")
    with holding(settings, "month"), engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        assert soon(False, settings) or is_held(settings, "month"), "gone, or taken again already"
        assert soon(True, settings)
    engine.dispose()
    assert not is_held(settings, "month")


def test_a_server_that_does_not_answer_is_not_taken_for_a_lock_that_nobody_holds(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, database_url="postgresql://me:hush@127.0.0.1:1/x")
    for ask in (lambda: is_held(settings, "month"), lambda: holding(settings, "month").__enter__()):
        with pytest.raises(LedgerError, match=r"DATABASE_URL: .* does not answer") as caught:
            ask()
        assert "hush" not in str(caught.value)
