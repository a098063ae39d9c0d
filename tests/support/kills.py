"""Processes killed at any of their moments: before a statement that writes to SQLite, or a change of a file."""

import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_WRITING = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP", "COMMIT")

_CHANGING = frozenset({"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile"})


class _Moments:
    """The moments of this process, which ends without any clean-up before one of them.

    Whichever library it is: Python's audit hooks see who changes a file, SQLite traces the statements it runs.
    """

    def __init__(self, below: Path, last: int | None, tell: Callable[[list[str]], None]) -> None:
        self._below = str(below)
        self._last = last
        self._tell = tell
        self.passed: list[str] = []

    def watch(self) -> None:
        """Ensures that every moment from now on is passed."""
        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self._hear_statement)
            return connection

        sqlite3.connect = sqlite3.dbapi2.connect = traced  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in _CHANGING or (event == "open" and _is_writing(*arguments[1:]))
        if is_change and self._is_ours(*arguments):
            self._pass(event)

    def _hear_statement(self, statement: str) -> None:
        word = statement.lstrip().partition(" ")[0].upper()
        if word in _WRITING:
            self._pass(word)

    def _is_ours(self, *paths: object) -> bool:
        return any(isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._below) for path in paths)

    def _pass(self, moment: str) -> None:
        self.passed.append(moment)
        if len(self.passed) == self._last:
            self._tell(self.passed)
            os.kill(os.getpid(), signal.SIGKILL)


def _is_writing(mode: object, flags: object) -> bool:
    """Whether a file is opened for writing; the mode is that of `open`, the flags are those of `os.open`."""
    if isinstance(mode, str):
        return not set(mode).isdisjoint("wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def moments_of(below: Path, work: Callable[[], object], last: int | None = None) -> list[str]:
    """The moments of a process that did the work, in their order, as they are called.

    Args:
        below: The folder whose files count.
        work: What it did.
        last: It was killed right before its n-th; None for a process that came to the end.
    """
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)

    def run(sending: Connection) -> None:
        moments = _Moments(below, last, sending.send)
        moments.watch()
        work()
        sending.send(moments.passed)
        os._exit(0)

    process = fork.Process(target=run, args=(sending,))
    process.start()
    process.join(120)
    assert process.exitcode == (0 if last is None else -signal.SIGKILL), process.exitcode
    return list(receiving.recv())
