"""A folder of files on this machine or in a bucket: what is in it, and what is known of a file before it is read.

A bucket is listed in one request, which says size, time and mark of content of every file. What it takes to read a
file for – its digest, its number of rows – is noted on this machine, so that no process fetches it again for that.
"""

import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from upath import UPath

from taxifare.buckets import UnreachableError, is_local
from taxifare.digests import digest
from taxifare.secrets import private_folder
from taxifare.sources.base import SourceError
from taxifare.whole_files import whole_file

_MARKS = ("ETag", "md5Hash", "crc32c", "generation", "etag")
"""What clients call that which changes when the content of a file in a bucket does."""

_TIMES = ("LastModified", "updated", "mtime")

_Fact = TypeVar("_Fact")


@dataclass(frozen=True)
class Found:
    """What is in a folder under a name.

    Attributes:
        path: Where it is.
        oddity: What it is if it is no file, or why it cannot be looked at.
        size: In bytes.
        changed_s: When it was last changed, seconds since 1970.
        identity: What changes when the file does.
    """

    path: UPath
    oddity: str | None
    size: int = 0
    changed_s: float = 0.0
    identity: tuple[object, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the folder."""
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)


def listed(folder: UPath) -> list[Found]:
    """Returns what is in a folder, by name.

    Raises:
        SourceError: There is no such folder, or it cannot be looked into.
    """
    if is_local(folder):
        try:
            return [looked_at(path) for path in sorted(folder.iterdir())]
        except OSError as error:
            raise SourceError(f"{folder}: expected a folder of trip files, received {error.strerror}") from error
    with _told(folder):
        entries = _entries(folder)
    inside = [entry for entry in entries if _name(entry) != folder.path.rstrip("/")]
    if not inside and folder.path.rstrip("/") != folder.drive:
        raise SourceError(
            f"{folder}: expected a folder of trip files, received no file whose name begins so: correct TRIP_FOLDER, "
            "or put the files there"
        )
    return sorted((_in_bucket(folder, entry) for entry in inside), key=lambda found: found.name)


def looked_at(path: UPath) -> Found:
    """Returns what is there now.

    Raises:
        SourceError: It is in a bucket, which does not have it any more or does not say.
    """
    if not is_local(path):
        with _told(path):
            return _in_bucket(path.parent, path.fs.info(path.path))
    try:
        status = path.stat()
    except FileNotFoundError:
        return Found(path, "a link to nothing")
    except OSError as error:
        return Found(path, f"what cannot be looked at: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return Found(path, "a folder" if path.is_dir() else "what is no file")
    # The later of two: a copy that keeps the modification time sets it last, and a move changes only the other.
    identity = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return Found(path, None, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns) / 1e9, identity)


@contextmanager
def opening(file: Found) -> Iterator[BinaryIO]:
    """Yields the file, open at its beginning; what goes wrong while it is read is a SourceError.

    Raises:
        SourceError: It cannot be read.
    """
    with _told(file.path), file.path.open("rb") as opened:
        # Clients of buckets have files that lack something of a file.
        yield opened if is_local(file.path) else cast("BinaryIO", io.BufferedReader(opened, 2**16))


def noted(fact: Callable[..., _Fact], file: Found, notes: Path | None, *how: object) -> _Fact:
    """Returns what is found in a file, which is read again only when it has changed.

    Args:
        fact: Reads it.
        file: As it is now.
        notes: Folder of what was found in files of buckets; those here are read by each process.
        how: What it is told besides.

    Raises:
        SourceError: The file cannot be read.
    """
    return cast("_Fact", _noted(fact, file, None if is_local(file.path) else notes, *how))


@lru_cache(maxsize=4096)
def _noted(fact: Callable[..., _Fact], file: Found, notes: Path | None, *how: object) -> _Fact:
    if notes is None:
        return fact(file, *how)
    place = notes / f"{digest([fact.__name__, str(file), *map(str, (*file.identity, *how))])}.json"
    try:
        return cast("_Fact", json.loads(place.read_text()))
    except FileNotFoundError:
        known = fact(file, *how)
    private_folder(place.parent)
    with whole_file(place) as unfinished:
        unfinished.write_text(json.dumps(known))
    return known


@contextmanager
def _told(path: UPath) -> Iterator[None]:
    try:
        yield
    except UnreachableError as error:
        raise SourceError(str(error)) from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _entries(folder: UPath) -> list[Mapping[str, Any]]:
    try:
        found: list[Mapping[str, Any]] = folder.fs.ls(folder.path.rstrip("/"), detail=True, refresh=True)
    except FileNotFoundError:
        return []
    return found


def _name(entry: Mapping[str, Any]) -> str:
    """Returns the address of something in a bucket, as its folder's has it."""
    return str(entry["name"]).rstrip("/")


def _in_bucket(folder: UPath, entry: Mapping[str, Any]) -> Found:
    path = folder / os.path.basename(_name(entry))  # noqa: PTH119 - no path of this machine
    if entry["type"] != "file":
        return Found(path, "a folder")
    changed = next((entry[time] for time in _TIMES if time in entry), None)
    changed = datetime.fromisoformat(changed) if isinstance(changed, str) else changed
    marks = tuple(str(entry.get(mark)) for mark in (*_MARKS, *_TIMES))
    changed_s = changed.timestamp() if isinstance(changed, datetime) else 0.0
    return Found(path, None, int(entry["size"]), changed_s, (int(entry["size"]), *marks))
