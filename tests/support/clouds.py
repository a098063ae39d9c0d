"""Buckets on loopback, reached through a front that can be made to refuse: whatever their owners' servers answer."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Literal
from urllib.parse import urlsplit

import pytest

Cloud = Literal["gs", "s3"]

S3_LOGIN = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_DEFAULT_REGION": "us-east-1"}

_HOP_BY_HOP = {"connection", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Refusal:
    """What a cloud answers instead: a status, and in S3 a code and headers."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


THROTTLED = {
    "gs": Refusal(429, "rateLimitExceeded", "The rate of requests is too high"),
    "s3": Refusal(503, "SlowDown", "Please reduce your request rate."),
}
FORBIDDEN = {
    "gs": Refusal(403, "forbidden", "taxifare@wagoncab does not have storage.objects.list access"),
    "s3": Refusal(403, "AccessDenied", "Access Denied"),
}
STRANGER = {
    "gs": Refusal(401, "authError", "Anonymous caller does not have access"),
    "s3": Refusal(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
}
ELSEWHERE = Refusal(
    301,
    "PermanentRedirect",
    "The bucket you are attempting to access must be addressed using the specified endpoint.",
    (("x-amz-bucket-region", "eu-west-3"),),
)


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensures that what passes is tried again at once."""
    from gcsfs import retry
    from s3fs import core

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setenv("NO_GCE_CHECK", "true")  # which takes seconds where there is none
    for module in (retry, core):
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))


@contextmanager
def new_clients() -> Iterator[None]:
    """Has clients read the environment anew, and once more at the end; they do so once."""
    from taxifare.buckets import amazon, google

    for client in (amazon.Bucket, google.Bucket):
        client.clear_instance_cache()
    yield
    for client in (amazon.Bucket, google.Bucket):
        client.clear_instance_cache()


@dataclass
class Front:
    """A cloud's server, as its clients find it.

    Attributes:
        cloud: Which.
        url: Its address.
        backend: The address of the server behind it.
        bucket: The address of a bucket that it has.
        asked: What reached it: method and path.
        refusals: What the next requests are answered, one each; None where all is well.
        refuses: What all further ones are answered, None if all is well.
        only: Which requests are refused: those in whose method and path this stands.
    """

    cloud: Cloud
    url: str
    backend: str
    bucket: str = ""
    asked: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    refuses: Refusal | None = None
    only: str = ""

    def refusal_of(self, request: str) -> Refusal | None:
        """What is wrong with a request."""
        self.asked.append(request)
        if self.only not in request:
            return None
        return self.refusals.pop(0) if self.refusals else self.refuses

    def well_again(self) -> None:
        """Ensures that nothing is refused any more."""
        self.refusals, self.refuses, self.only = [], None, ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    front: Front

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if (refusal := self.front.refusal_of(f"{self.command} {self.path}")) is not None:
            self._refuse(refusal)
            return
        connection = http.client.HTTPConnection(urlsplit(self.front.backend).netloc, timeout=60)
        try:
            connection.request(self.command, self.path, body=content, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self._send(answer.status, body, [*answer.headers.items()])

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _refuse(self, refusal: Refusal) -> None:
        if self.front.cloud == "gs":
            errors = [{"reason": refusal.code, "message": refusal.message}]
            body = json.dumps({"error": {"code": refusal.status, "message": refusal.message, "errors": errors}})
            kind = "application/json"
        else:
            body = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
            kind = "application/xml"
        self._send(refusal.status, body.encode(), [("Content-Type", kind), *refusal.headers])

    def _send(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        kept = {name: value for name, value in headers if name.lower() not in _HOP_BY_HOP}
        if self.command != "HEAD":
            kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
            kept["Content-Length"] = str(len(body))
        for name, value in kept.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")  # so that a front that is gone is gone
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that have heard enough close the connection."""


@contextmanager
def front_of(cloud: Cloud, backend: str) -> Iterator[Front]:
    """A front before a cloud's server."""

    class Handler(_Handler):
        pass

    with _Server(("127.0.0.1", 0), Handler) as listener:
        Handler.front = Front(cloud, f"http://127.0.0.1:{listener.server_port}", backend)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield Handler.front
        finally:
            listener.shutdown()
            thread.join()
