"""Buckets that settings name, and what it means that one does not answer as a folder would.

A bucket's client says "not found" of a bucket that is missing as of a file, and hides a refusal behind "there is no
such thing" where it is asked whether there is one. So the clients used here, one module each, raise `UnreachableError`
for whatever is no answer, from the one place where each sends its requests; that a file is not there is said by a
bucket that is. What passes they try again, with growing pauses, before that. Why: docs/decisions.md, under buckets.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fsspec import register_implementation
from fsspec.asyn import sync_wrapper
from upath import UPath

from taxifare.errors import ToldError

EXTRAS: Mapping[str, str] = {"gs": "gcp", "gcs": "gcp", "s3": "aws", "s3a": "aws"}
"""What to install for the buckets that are tested, by the beginning of their addresses."""

_CLIENTS = {"gcp": "taxifare.buckets.google", "aws": "taxifare.buckets.amazon"}


class UnreachableError(ToldError, RuntimeError):
    """A bucket does not answer, or does not let us in; it says nothing about what is there.

    No `OSError`: of those, clients of buckets make "there is nothing".
    """


Trouble: TypeAlias = Literal[
    "missing", "forbidden", "login", "throttled", "away", "region", "clock", "changed", "other"
]

_MEANINGS: Mapping[Trouble, str] = {
    "missing": "there is no such bucket ({said}): make it, or correct {setting}; {server}",
    "forbidden": (
        "the account may not do this ({said}): let it list, read, write and remove there, or use another one: {login}"
    ),
    "login": "who asks is not accepted ({said}): {login}",
    "throttled": "the bucket refuses for the moment, also after several tries ({said}): try again later",
    "away": "the bucket does not answer, also after several tries ({said}): try again when it does; {server}",
    "region": "the bucket is not asked where it is ({said}): {server}",
    "clock": "the clock of this machine is wrong, and the bucket refuses what is signed by it ({said}): set it",
    "changed": "it changed while it was read ({said}): try again",
    "other": "the bucket did not do what it was asked ({said})",
}


@dataclass(frozen=True)
class Hints:
    """What decides with whom a client talks, for messages.

    Attributes:
        login: As whom.
        server: Where.
    """

    login: str
    server: str


def unreachable(setting: str, address: str, trouble: Trouble, said: str, hints: Hints) -> UnreachableError:
    """Returns the error that says what is the matter with a bucket, and the way out.

    Args:
        setting: Which names the bucket, as `.env` has it.
        address: What was asked for.
        trouble: What is the matter.
        said: What the bucket or its client said, with the status.
        hints: What the client is told by.

    >>> hints = Hints("AWS_PROFILE says who asks", "AWS_DEFAULT_REGION says where it is")
    >>> print(unreachable("STORAGE_URI", "s3://taxi/lake", "missing", "404 NoSuchBucket", hints))
    STORAGE_URI: s3://taxi/lake: there is no such bucket (404 NoSuchBucket): make it, or correct STORAGE_URI;
    AWS_DEFAULT_REGION says where it is
    """
    meaning = _MEANINGS[trouble].format(said=said, setting=setting, login=hints.login, server=hints.server)
    return UnreachableError(f"{setting}: {address}: {meaning}")


class Looking:
    """What a client answers when it is asked whether there is something; what is no answer is raised."""

    _info: Callable[[str], Awaitable[Any]]

    async def _exists(self, path: str) -> bool:
        return await self._type(path) is not None

    async def _isdir(self, path: str) -> bool:
        return await self._type(path) == "directory"

    async def _isfile(self, path: str) -> bool:
        return await self._type(path) == "file"

    async def _type(self, path: str) -> str | None:
        try:
            found: str = (await self._info(path))["type"]
        except FileNotFoundError:
            return None
        return found

    exists, isdir, isfile = sync_wrapper(_exists), sync_wrapper(_isdir), sync_wrapper(_isfile)


def is_local(place: Path | UPath) -> bool:
    """Returns whether a place is on this machine's disks, or what is mounted there; others are in buckets.

    >>> is_local(Path("/tmp")), is_local(UPath("/tmp")), is_local(UPath("memory://tmp"))
    (True, True, False)
    """
    return not isinstance(place, UPath) or place.protocol in {"", "file"}


def ensure_client(protocol: str) -> None:
    """Ensures that addresses which begin so are opened by the client made here, where there is one.

    Raises:
        ImportError: What it takes is not installed.
    """
    if protocol in EXTRAS:
        module = import_module(_CLIENTS[EXTRAS[protocol]])
        register_implementation(protocol, module.Bucket, clobber=True)
