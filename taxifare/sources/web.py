"""HTTP for every source: what passes is tried again, what does not fails at once, and a file is whole or not there.

Passing faults (429, 500, 502, 503, 504 and their like, no connection, no answer in time, a connection cut off, a web
page in place of what was asked) are tried again, `ATTEMPTS` times in all, after pauses that double from a second, with
jitter; where the server says when to come back (Retry-After) it is believed, up to `LONGEST_PAUSE_S`. A refusal (403)
may be throttling, and is tried again as well, unless it may just as well mean that there is no such file
(`answers_of`). All else fails at once. What is raised names the address without its login and query, the status and
what to do; secrets belong into `secret_headers`, never shown and never sent to another host than the one that was
asked.

Why a loop of our own tries again, not urllib3's, and why what a server said is believed for a while:
docs/decisions.md, under sources.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from filelock import FileLock
from pydantic import SecretStr
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential_jitter,
)
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from taxifare.bounds import TooMuchError, beginning, parsed_json, within
from taxifare.digests import digest_of_file
from taxifare.secrets import private_folder, redacted, remember, shown
from taxifare.sources.base import Answer, MonthNotPublishedError, SourceError
from taxifare.trips.months import Month
from taxifare.trips.text_files import is_page
from taxifare.whole_files import put_in_place

_log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CONNECT_TIMEOUT_S = 5.0
"""Five attempts at a host that is not there have to end before Dagster gives a sensor up, after a minute."""

TIMEOUT_S = 30.0
BELIEVED_S = 300.0
"""How long a file is taken to be as it was when last looked at: a sensor asks every few seconds."""

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
ABSENT_STATUS = frozenset({404, 410})
REFUSED_STATUS = 403
"""Throttling, for some; credentials that are missing; and what buckets whose content may not be listed say of a file
that is not there."""

LOOKS_AT_ONCE = 8

MOST_JSON_BYTES = 1 << 28
"""A full page of the Chicago portal has 20 million."""

MOST_BYTES = 20 * 10**9
MOST_BYTES_UNANNOUNCED = 1 << 30
"""Of a file whose server does not say how long it is; a month of the TLC has 500 million, and says so."""

_CHUNK_BYTES = 1 << 16
_GLIMPSE_BYTES = 1 << 12
_SAID_CHARACTERS = 200
"""How much of a server's own words an error repeats."""

_LOG_EVERY_S = 10.0

_ADVICE = {
    400: "the query is not understood",
    401: "the server wants credentials: check the settings of the source",
    403: "the server refuses, perhaps for a while, or has no such file: check the address and the credentials in the "
    "settings",
    404: "there is no such file: check the address in the settings",
    410: "there is no such file any more: check the address in the settings",
}

Result = TypeVar("Result")


class WebError(SourceError):
    """An address that does not give what was asked, and will not by asking again.

    Attributes:
        status: The HTTP status, None where the fault is another.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_absence(self) -> bool:
        """Whether the server answered that there is no such file."""
        return self.status in ABSENT_STATUS

    @property
    def is_refusal(self) -> bool:
        """Whether the server refused, which may mean several things."""
        return self.status == REFUSED_STATUS


class PassingWebError(WebError):
    """An address that does not give what was asked now; asking later may help.

    Attributes:
        retry_after_s: When the server wants to be asked again, None where it does not say.
    """

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, status)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Remote:
    """A file as its server describes it.

    Attributes:
        revision: Identifies its content; None where the server gives nothing that does.
        etag: Its strong ETag, by which a download can be resumed.
        size_bytes: Its size.
    """

    revision: str | None
    etag: str | None
    size_bytes: int | None


@dataclass(frozen=True)
class Download:
    """A file that was received whole and checked, and what identifies its content."""

    path: Path
    revision: str


OnDownload: TypeAlias = Callable[[str, int, int | None], AbstractContextManager[Callable[[int], None]]]
"""Told of a file that is about to arrive: its address, how many bytes are there already, and how many it has (None:
nobody knows). What it yields is told how many more have arrived, until the file is whole or the connection fails."""


@contextmanager
def log_download(address: str, arrived_bytes: int, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Logs now and then how much of a file has arrived."""
    of_all = "" if total_bytes is None else f" of {total_bytes / 1e6:,.1f}"
    logged_at = time.monotonic()

    def advance(received_bytes: int) -> None:
        nonlocal arrived_bytes, logged_at
        arrived_bytes += received_bytes
        if time.monotonic() - logged_at >= _LOG_EVERY_S:
            logged_at = time.monotonic()
            _log.info("%s: %.1f%s MB", address, arrived_bytes / 1e6, of_all)

    yield advance
    _log.info("%s: %.1f%s MB, received", address, arrived_bytes / 1e6, of_all)


class _Session(requests.Session):
    """Sends secret headers to no other host than the one that was asked, and keeps no cookies.

    Args:
        secret_headers: Names of the headers that, like a login, no server may send elsewhere by a redirect.
    """

    def __init__(self, secret_headers: Collection[str]) -> None:
        super().__init__()
        self._secret_headers = secret_headers
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Ensures that a redirected request carries only what its new host may see."""
        super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
            for name in self._secret_headers:
                prepared_request.headers.pop(name, None)


@dataclass(frozen=True)
class Web:
    """Asks servers for files and JSON.

    Attributes:
        cache: Folder of downloaded files: of each address the latest whole file, and what has arrived of the next.
        secret_headers: Sent with every request, shown never.
        first_pause_s: The pause after the first passing fault.
        timeout_s: How long to wait for each part of an answer; for a connection, `CONNECT_TIMEOUT_S` at most.
        believed_s: How long `look` believes what it saw.
        on_download: Told how much of a file has arrived.
    """

    cache: Path
    secret_headers: Mapping[str, SecretStr] = field(default_factory=dict)
    first_pause_s: float = FIRST_PAUSE_S
    timeout_s: float = TIMEOUT_S
    believed_s: float = BELIEVED_S
    on_download: OnDownload = log_download
    _seen: dict[str, tuple[float, Remote | WebError]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for secret in self.secret_headers.values():
            remember(secret.get_secret_value())

    def json(self, url: str, params: Mapping[str, str | int] | None = None) -> Any:
        """Returns the JSON at an address.

        Raises:
            WebError: There is none; PassingWebError where there may be some later.
        """

        def ask() -> Any:
            with self._request("GET", url, params=params, stream=True) as response:
                content = b"".join(within(_chunks(url, response), MOST_JSON_BYTES))
            try:
                return parsed_json(content)
            except TooMuchError:
                raise
            except ValueError:
                glimpse = redacted(content[:_GLIMPSE_BYTES].decode("ascii", "backslashreplace"))[:40]
            if is_page(content):
                raise PassingWebError(_page(url))
            raise WebError(f"{shown(url)}: expected JSON, received {len(content):,} bytes that begin {glimpse!r}")

        with _bounded(url):
            return self._persist(ask)

    def look(self, url: str, *, insist: bool = True) -> Remote:
        """Returns what the server says of a file, without downloading it; believed for `believed_s`.

        Args:
            url: Its address.
            insist: Whether a refusal is tried again, and not believed.

        Raises:
            WebError: It does not have it (`is_absence`), or refuses; PassingWebError where it may answer later.
        """
        until, known = self._seen.get(url, (0.0, None))
        if known is None or time.monotonic() >= until or (insist and isinstance(known, WebError) and known.is_refusal):
            try:
                known = self._persist(lambda: self._head(url), insist=insist)
            except WebError as error:
                if not (error.is_absence or error.is_refusal):
                    raise
                known = error
            self._believe(url, known)
        if isinstance(known, WebError):
            raise known
        return known

    def revision(self, url: str, check: Callable[[Path], None], *, insist: bool = True) -> str:
        """Returns what identifies the content of a file; downloads it only where the server gives nothing that does.

        Raises:
            WebError: As `look` and `download`.
        """
        return self.look(url, insist=insist).revision or self.download(url, check, insist=insist).revision

    def download(self, url: str, check: Callable[[Path], None], *, insist: bool = True) -> Download:
        """Returns a file whole and checked: the one in the cache if it is still what the server has, else a new one.

        What has arrived of a file is kept and resumed, in this call after a passing fault, and in the next after a
        failure or kill, if the server's ETag is still the same. A new file takes the place of an old one only when its
        size is what the server said and its check has passed.

        Args:
            url: Its address.
            check: Raises a `SourceError` if the file at the path is not what it should be; then it is forgotten.
            insist: Whether a refusal is tried again.

        Raises:
            WebError: It cannot be had; PassingWebError where it may be later.
        """
        folder = self.cache / hashlib.sha256(url.encode()).hexdigest()[:16]
        with FileLock(private_folder(folder) / "lock"):
            with _bounded(url):
                received, file = self._persist(lambda: self._receive(url, folder), insist=insist)
            revision = received.revision or digest_of_file(file)
            if file == _part(folder, received):
                try:
                    check(file)
                except SourceError:
                    file.unlink()
                    raise
                part, file = file, _place(folder, url, revision)
                put_in_place(part, file)
                for old in set(folder.iterdir()) - {file, folder / "lock"}:
                    old.unlink()
        self._believe(url, received)
        return Download(file, revision)

    @cached_property
    def _session(self) -> requests.Session:
        session = _Session(self.secret_headers)
        # As it lies there: packed on the way, a file has neither its size nor its ETag, and cannot be resumed.
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "taxifare"})
        session.headers.update({name: value.get_secret_value() for name, value in self.secret_headers.items()})
        return session

    def _believe(self, url: str, seen: Remote | WebError) -> None:
        self._seen[url] = (time.monotonic() + self.believed_s, seen)

    def _persist(self, ask: Callable[[], Result], *, insist: bool = True) -> Result:
        """Returns what `ask` returns, asking again after passing faults, and after refusals for those who insist."""
        is_worth_waiting = _may_pass if insist else _passes
        return Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=self._pause_s,
            retry=retry_if_exception(is_worth_waiting),
            before_sleep=_say,
            retry_error_callback=_give_up,
        )(ask)

    def _pause_s(self, state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        wanted_s = fault.retry_after_s if isinstance(fault, PassingWebError) else None
        backoff = wait_exponential_jitter(multiplier=self.first_pause_s, max=LONGEST_PAUSE_S, jitter=self.first_pause_s)
        return max(wanted_s or 0.0, backoff(state))

    def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Returns a response that is not an error, in one attempt."""
        timeouts_s = (min(CONNECT_TIMEOUT_S, self.timeout_s), self.timeout_s)
        with _in_our_words(url):
            response = self._session.request(
                method, url, params=params, headers=headers, timeout=timeouts_s, stream=stream, allow_redirects=True
            )
        if response.status_code < requests.codes.bad_request and not _says_page(response):
            return response
        with response:
            if response.status_code < requests.codes.bad_request:
                raise PassingWebError(_page(url))
            raise self._refusal(url, response)

    def _refusal(self, url: str, response: requests.Response) -> WebError:
        """Returns the error that a response is, with the server's own words where they are JSON."""
        status = response.status_code
        said = redacted(str(response.reason))[:_SAID_CHARACTERS]
        if "json" in response.headers.get("Content-Type", ""):
            with _in_our_words(url):
                begun = beginning(response.iter_content(_GLIMPSE_BYTES), _GLIMPSE_BYTES)
                said += " " + redacted(begun.decode("utf-8", "replace"))[:_SAID_CHARACTERS]
        message = f"{shown(url)}: expected data, received {status} {said}".strip()
        if status in PASSING_STATUS:
            return PassingWebError(message, status, _retry_after_s(response))
        return WebError(f"{message}: {_ADVICE.get(status, 'check the address in the settings')}", status)

    def _head(self, url: str) -> Remote:
        try:
            with self._request("HEAD", url) as response:
                return _described(response)
        except WebError as error:
            if error.status in {requests.codes.not_allowed, requests.codes.not_implemented}:
                return Remote(None, None, None)
            raise

    def _receive(self, url: str, folder: Path) -> tuple[Remote, Path]:
        """Returns the file that the server has now, in one attempt: the cached one, or a new one as `_part`."""
        remote = self._head(url)
        if remote.revision is not None and (cached := _place(folder, url, remote.revision)).exists():
            return remote, cached
        part = _part(folder, remote)
        arrived_bytes = part.stat().st_size if remote.etag is not None and part.exists() else 0
        if arrived_bytes and arrived_bytes == remote.size_bytes:
            return remote, part
        headers = {"Range": f"bytes={arrived_bytes}-", "If-Range": str(remote.etag)} if arrived_bytes else {}
        with self._request("GET", url, headers=headers, stream=True) as response:
            if response.status_code == requests.codes.partial:
                mode, total_bytes = "ab", _total_bytes(url, response, arrived_bytes)
            else:  # the whole file, and perhaps another than the one that was asked for
                remote = _described(response)
                part, mode, arrived_bytes, total_bytes = _part(folder, remote), "wb", 0, remote.size_bytes
            most_bytes = MOST_BYTES_UNANNOUNCED if total_bytes is None else MOST_BYTES
            if total_bytes is not None and total_bytes > most_bytes:
                raise WebError(f"{shown(url)}: expected trips, received a file of {total_bytes:,} bytes")
            try:
                with part.open(mode) as file, self.on_download(shown(url), arrived_bytes, total_bytes) as advance:
                    for chunk in within(_chunks(url, response), most_bytes):
                        file.write(chunk)
                        advance(len(chunk))
            except TooMuchError:
                part.unlink(missing_ok=True)
                raise
        size_bytes = part.stat().st_size
        if total_bytes is not None and size_bytes != total_bytes:
            raise PassingWebError(f"{shown(url)}: expected {total_bytes:,} bytes, received {size_bytes:,}")
        with part.open("rb") as file:
            begun = file.read(_GLIMPSE_BYTES)
        if is_page(begun):
            part.unlink()
            raise PassingWebError(_page(url))
        return remote, part


def answers_of(
    revision: Callable[[Month, bool], str], months: Iterable[Month], *, later: Month | None = None
) -> dict[Month, Answer]:
    """Returns what servers answer of months that are files, oldest first, up to one of which they cannot tell.

    A refusal may be what a bucket says of a file that it does not have. It is taken for that behind the last month that
    is published, where there is one; anywhere else it is insisted that the server says more.

    Args:
        revision: Returns the revision of a month, or raises what the server said; insists on an answer where told to.
        months: Which to ask for. Where the first is surely published, it shows that the server does not refuse all.
        later: A later month that may be taken to be published.
    """
    asked, answers = list(months), dict[Month, Answer]()
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        found = pool.map(lambda month: _answer(revision, month, insist=False), asked)
        for month, answer in zip(asked, found, strict=True):
            answers[month] = answer
            if not (isinstance(answer, str | MonthNotPublishedError) or _is_refusal(answer)):
                return answers
    for month in [month for month, answer in answers.items() if _is_refusal(answer)]:
        newest = later or max((month for month, answer in answers.items() if isinstance(answer, str)), default=None)
        if newest is not None and month > newest:
            answers[month] = MonthNotPublishedError(str(answers[month]))
            continue
        answers[month] = _answer(revision, month, insist=True)
        if not isinstance(answers[month], str | MonthNotPublishedError):
            break
    return answers


def _answer(revision: Callable[[Month, bool], str], month: Month, *, insist: bool) -> Answer:
    """Returns what a server says of a month, as far as it can be understood without the other months."""
    try:
        return revision(month, insist)
    except WebError as error:
        return MonthNotPublishedError(str(error)) if error.is_absence else error
    except SourceError as error:
        return error


def _is_refusal(answer: Answer) -> bool:
    return isinstance(answer, WebError) and answer.is_refusal


def _passes(error: BaseException) -> bool:
    return isinstance(error, PassingWebError) and (error.retry_after_s or 0.0) <= LONGEST_PAUSE_S


def _may_pass(error: BaseException) -> bool:
    return _passes(error) or (isinstance(error, WebError) and error.is_refusal)


def _say(state: RetryCallState) -> None:
    fault = state.outcome.exception() if state.outcome else None
    _log.warning("%s; asking again in %.1f s", fault, state.next_action.sleep if state.next_action else 0.0)


def _give_up(state: RetryCallState) -> Any:
    """Raises the last fault, with the number of attempts."""
    fault = state.outcome.exception() if state.outcome else None
    status = fault.status if isinstance(fault, WebError) else None
    raise PassingWebError(f"{fault}; given up after {state.attempt_number} attempts: try again later", status)


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    """Turns what requests raises, whose texts and causes may hold the query, into a WebError that does not."""
    try:
        yield
    except requests.Timeout:
        fault: WebError = PassingWebError(f"{shown(url)}: no answer in time")
    except requests.exceptions.SSLError as error:
        fault = WebError(f"{shown(url)}: no secure connection: {_reason(error)}")
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        fault = PassingWebError(f"{shown(url)}: no connection, or cut off: {_reason(error)}")
    except requests.RequestException as error:
        fault = WebError(f"{shown(url)}: {type(error).__name__}: check the address in the settings")
    else:
        return
    raise fault from None


def _reason(error: requests.RequestException) -> str:
    """Returns why a connection failed; the reason alone, for the sentence around it holds the query."""
    cause = error.args[0] if error.args else None
    return str(getattr(cause, "reason", None) or type(cause).__name__)


@contextmanager
def _bounded(url: str) -> Iterator[None]:
    """Turns an answer that is more than could be meant into a WebError."""
    try:
        yield
    except TooMuchError as error:
        raise WebError(f"{shown(url)}: expected trips, received {error}: check the address in the settings") from None


def _chunks(url: str, response: requests.Response) -> Iterator[bytes]:
    """Yields the body of a response as it arrives."""
    with _in_our_words(url):
        yield from response.iter_content(_CHUNK_BYTES)


def _page(url: str) -> str:
    return f"{shown(url)}: expected trips, received a web page with status 200: open the address in a browser"


def _says_page(response: requests.Response) -> bool:
    return "text/html" in response.headers.get("Content-Type", "")


def _retry_after_s(response: requests.Response) -> float | None:
    """Returns how many seconds the server asks to wait, given as seconds or as a date."""
    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None


def _described(response: requests.Response) -> Remote:
    """Returns the file that a response is about: by its ETag if that is strong, else by its time and size."""
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    length = response.headers.get("Content-Length")
    size_bytes = (
        int(length)
        if length is not None and length.isdecimal() and "Content-Encoding" not in response.headers
        else None
    )
    if etag and not etag.startswith("W/"):
        return Remote(etag.strip('"'), etag, size_bytes)
    if modified and size_bytes is not None:
        with suppress(ValueError):  # a time that is none identifies nothing
            return Remote(f"{parsedate_to_datetime(modified):%Y%m%dT%H%M%SZ}-{size_bytes}", None, size_bytes)
    return Remote(None, None, size_bytes)


def _total_bytes(url: str, response: requests.Response, start: int) -> int | None:
    """Returns the size of the whole file of which a response is the rest.

    Raises:
        WebError: It is another part of the file.
    """
    given = response.headers.get("Content-Range", "")
    unit, _, total = given.partition("/")
    if not unit.startswith(f"bytes {start}-"):
        raise WebError(f"{shown(url)}: asked for the bytes from {start:,} on, received Content-Range {given!r}")
    return int(total) if total.isdigit() else None


def _place(folder: Path, url: str, revision: str) -> Path:
    """Returns where the file of a revision lies; its name ends as its address does."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return folder / f"{hashlib.sha256(revision.encode()).hexdigest()[:16]}-{name}"


def _part(folder: Path, remote: Remote) -> Path:
    """Returns where what has arrived of a file lies."""
    return folder / f"{hashlib.sha256(str(remote.etag).encode()).hexdigest()[:16]}.part"
