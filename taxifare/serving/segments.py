"""Segments: lines that processes log, append-only and whole, collected in the lake, each segment once.

A process writes its own segments, so that none waits for another, and seals each by renaming it. It holds a lock on the
segment it is writing, which its death releases: a segment that nobody holds is sealed by whoever comes next. Lines are
handed to the operating system before the answer is sent, so they outlive the process; a machine that loses power may
lose its last seconds. What lines contain is defined in `prediction_log` and `outcome_log`.
"""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, TypeVar
from uuid import uuid4

import msgspec
from upath import UPath

from taxifare.secrets import private_folder
from taxifare.whole_files import whole_file

_SEALED = ".jsonl"

_OPEN = ".jsonl.open"

_SEGMENT_BYTES = 1 << 26

_SEGMENT_S = 3600.0

_RETRY_S = 10.0
"""Time after a failure until writing is tried again."""

_TIDY_EVERY_S = 3600.0

_DAY_S = 86_400.0

_Line = TypeVar("_Line", bound=msgspec.Struct)

_log = logging.getLogger(__name__)


class SegmentLog:
    """What one process logs. When the disk is full it says so, counts what is lost, and tries again.

    Args:
        folder: Where segments are; it is created.
        keep_days: How long they are kept.

    Attributes:
        written: Lines written.
        lost: Lines that could not be written.
        fault: Why the last lines were not written, None where they were.
        name: What the log is called.
        without_it: What happens to requests while it cannot be written.
    """

    name: ClassVar[str]
    without_it: ClassVar[str]

    def __init__(self, folder: Path, keep_days: int) -> None:
        self.written, self.lost = 0, 0
        self.fault: str | None = None
        self._folder, self._keep_days = folder, keep_days
        self._file: int | None = None
        self._path = folder
        self._bytes, self._opened_s, self._tried_s = 0, 0.0, 0.0
        self._encoder = msgspec.json.Encoder()

    def append(self, lines: Sequence[msgspec.Struct]) -> None:
        """Ensures that the lines are on the log, or counts them as lost; never raises because of a disk."""
        now_s = time.monotonic()
        if self.fault is not None and now_s - self._tried_s < _RETRY_S:
            self.lost += len(lines)
            return
        try:
            file = self._file
            if file is None or self._bytes >= _SEGMENT_BYTES or now_s - self._opened_s >= _SEGMENT_S:
                file = self._next_segment(now_s)
            self._write(file, self._encoder.encode_lines(lines))
        except OSError as error:
            self.lost += len(lines)
            self._tried_s = now_s
            self._tell(error)
        else:
            self.written += len(lines)
            if self.fault is not None:
                self.fault = None
                told = "the %s is written again in %s; %s lines are not on it"
                _log.warning(told, self.name, self._folder, self.lost)

    def close(self) -> None:
        """Ensures that the segment is sealed, or removed if it has no line."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with suppress(OSError):
            if self._bytes:
                _seal(self._path)
            else:
                self._path.unlink(missing_ok=True)
        os.close(file)

    def tidy(self) -> None:
        """Ensures that what dead processes left is sealed, and that no segment is kept too long."""
        tidy(self._folder, self._keep_days)

    async def keep_tidy(self) -> None:
        """Tidies every hour until cancelled; a disk that does not answer is reported, and tried again."""
        while True:
            try:
                await asyncio.to_thread(self.tidy)
            except OSError as error:
                _log.warning("segments of the %s are not tidied: %s", self.name, error)
            await asyncio.sleep(_TIDY_EVERY_S)

    def _next_segment(self, now_s: float) -> int:
        self.close()
        private_folder(self._folder)
        name = f"{_moment(time.time())}-{uuid4().hex}"
        unlocked = self._folder / f".{name}"
        file = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it gets the name by which others look for abandoned segments.
            fcntl.flock(file, fcntl.LOCK_EX)
            self._path = unlocked.rename(self._folder / f"{name}{_OPEN}")
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._bytes, self._opened_s = 0, now_s
        return file

    def _write(self, file: int, lines: bytes) -> None:
        """Ensures that either all is written or nothing."""
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(file, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, self._bytes)
            raise
        self._bytes += len(lines)

    def _tell(self, error: OSError) -> None:
        if self.fault is None:
            _log.error(
                "the %s is not written: expected room in %s, received: %s. %s; make room, or lower PREDICTION_LOG_DAYS",
                self.name,
                self._folder,
                error.strerror or error,
                self.without_it,
            )
        self.fault = error.strerror or str(error)


@dataclass(frozen=True)
class Tidied:
    """What was tidied: segments that their processes left and were sealed, and segments removed for their age."""

    sealed: int
    removed: int


def tidy(folder: Path, keep_days: int) -> Tidied:
    """Ensures that what dead processes left is sealed, and that no segment is older than `keep_days`."""
    sealed = sum(map(_seal_abandoned, folder.glob(f"*{_OPEN}")))
    return Tidied(sealed, _remove_old(folder, keep_days))


@dataclass(frozen=True)
class Collected:
    """What a collection found: segments moved, their lines, and those lines that a dying process left torn."""

    segments: int
    lines: int
    torn: int


def collect(folder: Path, collected: UPath, keep_days: int, kind: type[msgspec.Struct]) -> Collected:
    """Ensures that sealed segments are in the lake, whole, each once, and that none there is older than `keep_days`.

    A segment keeps its name, so one that was copied before a kill is copied again and is there once. Of two collections
    at the same time one waits, and takes what the other has left.

    Args:
        folder: Where the processes of an installation write.
        collected: Where the segments of all machines are collected.
        keep_days: How long they are kept.
        kind: Type of the lines.
    """
    with _alone_in(folder):
        tidy(folder, keep_days)
        found = move(folder, collected, kind)
        _remove_old(collected, keep_days)
    return found


def move(folder: Path, collected: UPath, kind: type[msgspec.Struct]) -> Collected:
    """Ensures that sealed segments are in the lake, whole, each once; nobody else may move those of the folder."""
    segments, lines, torn = 0, 0, 0
    collected.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob(f"*{_SEALED}")):
        content = path.read_bytes()
        found = list(lines_of(content, kind))
        with whole_file(collected / path.name) as unfinished:
            unfinished.write_bytes(content)
        path.unlink(missing_ok=True)
        segments += 1
        lines += len(found)
        torn += sum(line is None for line in found)
    return Collected(segments, lines - torn, torn)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Ensures that nobody else is in the block with the same folder; a process that dies has left it."""
    private_folder(folder)
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def segments_in(collected: UPath, since: datetime | None = None) -> list[UPath]:
    """Returns the collected segments, oldest first, without those finished before a given moment."""
    oldest = "" if since is None else _moment(since.timestamp() - _SEGMENT_S)
    segments = (path for path in collected.glob(f"*{_SEALED}") if path.name >= oldest)
    return sorted(segments, key=lambda path: path.name)


def lines_of(content: bytes, kind: type[_Line]) -> Iterator[_Line | None]:
    """Yields the lines of a segment; None for a torn one."""
    decoder = msgspec.json.Decoder(kind)
    for line in content.splitlines():
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield None


def _seal(path: Path) -> None:
    path.rename(path.with_name(path.name.removesuffix(_OPEN) + _SEALED))


def _seal_abandoned(path: Path) -> bool:
    """Returns whether a segment that nobody was writing was sealed."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # sealed in the meantime
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _seal(path)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(file)
    return True


def _moment(epoch_s: float) -> str:
    """Returns a moment in the form with which names of segments begin: when they were opened, UTC."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(epoch_s))


def _remove_old(folder: Path | UPath, keep_days: int) -> int:
    """Returns how many segments were removed because, by their names, they are older than `keep_days`."""
    oldest = _moment(time.time() - keep_days * _DAY_S)
    old: Iterable[Path | UPath] = [path for path in folder.glob(f"*{_SEALED}") if path.name < oldest]
    return sum(path.unlink(missing_ok=True) is None for path in old)
