"""Google Cloud Storage: gcsfs, whose refusals are told. Needs the extra `gcp`."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from aiohttp import ClientError
from gcsfs.core import GCSFileSystem
from gcsfs.retry import ChecksumError, HttpError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError
from requests.exceptions import ProxyError, RequestException

from taxifare.buckets import Hints, Looking, Trouble, unreachable

# What it logs with its traceback, it raises as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)

HINTS = Hints(
    login=(
        "GOOGLE_APPLICATION_CREDENTIALS names the key file of the account, in the environment; .env is not enough; or: "
        "gcloud auth application-default login"
    ),
    server="STORAGE_EMULATOR_HOST names another server where it is set",
)


def trouble_of(error: BaseException) -> tuple[Trouble, str]:
    """Returns what an error of gcsfs means, other than that a file is not there, and what was said."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, HttpError):
        return _answer(int(error.code or 0), said.removesuffix(f", {error.code}"))
    if isinstance(error, OSError) and said.startswith("Forbidden: "):
        return "forbidden", f"403: {str(error).partition(chr(10))[2]}"
    if isinstance(error, FileExistsError):
        return "changed", f"412: {said}"
    if isinstance(error, ProxyError):
        return "throttled", "502"
    if isinstance(error, DefaultCredentialsError | RefreshError):
        return "login", said
    if isinstance(error, ClientError | RequestException | GoogleAuthError | ChecksumError | TimeoutError | OSError):
        return "away", said
    return "other", said


def _answer(status: int, message: str) -> tuple[Trouble, str]:
    said = f"{status}: {message}"
    if status == 401:
        return "login", said
    return "throttled" if status in {408, 429, 500, 502, 503, 504} else "other", said


class Bucket(Looking, GCSFileSystem):  # type: ignore[misc]  # gcsfs has no types
    """Buckets of Google Cloud Storage, opened for a setting.

    Args:
        setting: Which names the bucket, for messages.
        options: As gcsfs has them.
    """

    def __init__(self, *args: Any, setting: str = "", **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except GoogleAuthError as error:
            raise unreachable(setting, "gs://", "login", str(error), HINTS) from None
        self._setting = setting

    async def _request(self, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        """All requests go through here, those that pass several times; raises what is no answer as UnreachableError."""
        try:
            return await super()._request(method, path, *args, **kwargs)
        except FileNotFoundError:
            if await self._has_bucket(path, args):
                raise
            found: tuple[Trouble, str] = ("missing", "404")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            found = trouble_of(error)
        address = _address(path, (*args, kwargs["prefix"]) if kwargs.get("prefix") else args)
        raise unreachable(self._setting, address, *found, HINTS) from None

    async def _has_bucket(self, path: str, args: tuple[Any, ...]) -> bool:
        """Returns whether there is the bucket in which something is not: one that is there can be listed."""
        if path in {"b/{}/o", "b/{}"} or "/upload/" in path or not args:
            return False
        await self._request("GET", "b/{}/o", args[0], maxResults=1, fields="kind")
        return True

    async def _info(self, path: str, *args: Any, **kwargs: Any) -> Any:
        bucket, key, _ = self.split_path(path)
        if key:
            return await super()._info(path, *args, **kwargs)
        # To look at a bucket itself takes a right that few accounts have.
        await self._request("GET", "b/{}/o", bucket, maxResults=1, fields="kind")
        return {"name": bucket, "size": 0, "type": "directory"}

    async def _rm_files(self, paths: Sequence[str]) -> Sequence[str]:
        """One by one: of many in one request, each that is refused would be a text within an answer."""
        for path in paths:
            await self._rm_file(path)
        return paths


def _address(path: str, args: tuple[Any, ...]) -> str:
    """Returns what a request was about, as people write it.

    >>> _address("b/{}/o/{}", ("taxi", "lake/a b.json")), _address("https://host/upload/storage/v1/b/taxi/o?x=1", ())
    ('gs://taxi/lake/a b.json', 'gs://taxi')
    """
    if args:
        return f"gs://{'/'.join(str(part) for part in args[:2])}"
    found = re.search(r"\bb/([^/?]+)", path)
    return f"gs://{found[1]}" if found else "gs://"
