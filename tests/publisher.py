"""A real web server on loopback that publishes files as buckets and open-data sites do, and can be made to fail."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass
class Publisher:
    """A running publisher: it answers HEAD and GET, whole or in ranges.

    Attributes:
        url: Its base address.
        files: What it has, by path.
        asked: What reached it, in order: method, path with query, and headers in lower case.
        faults: What happens to the next requests, one each, `""` being nothing: a status (`503`), a status with
            Retry-After in seconds (`429:0`), `slow` (no answer in time), `drop` (closed without an answer), `cut`
            (closed in the middle of the body), `stall` (silent in the middle of the body), `page` (HTML with
            status 200).
        tells: What it says to identify a file: a strong ETag, a weak one, the time of its last change, nothing.
        ranges: Whether it can send a part of a file.
        heads: Whether it answers HEAD.
        absent_status: What it answers where there is no file; buckets that may not be listed answer 403.
        changed_at: The time of the last change of every file, seconds since 1970.
        slow_s: How long `slow` and `stall` are.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    tells: Literal["etag", "weak etag", "time", "nothing"] = "etag"
    ranges: bool = True
    heads: bool = True
    absent_status: int = 404
    changed_at: float = 1_420_070_400
    slow_s: float = 1.0

    def methods(self) -> list[str]:
        """How it was asked, in order."""
        return [method for method, _, _ in self.asked]

    def validators(self, content: bytes) -> dict[str, str]:
        """The headers that identify a content."""
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        match self.tells:
            case "etag":
                return {"ETag": etag}
            case "weak etag":
                return {"ETag": f"W/{etag}"}
            case "time":
                return {"Last-Modified": formatdate(self.changed_at, usegmt=True)}
            case "nothing":
                return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        publisher = self.publisher
        publisher.asked.append((self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
        fault = publisher.faults.pop(0) if publisher.faults else ""
        content = publisher.files.get(urlsplit(self.path).path.lstrip("/"))
        if fault == "slow":
            time.sleep(publisher.slow_s)
        if fault in {"slow", "drop"}:
            self.close_connection = True
        elif fault[:3].isdigit():
            status, _, retry_after = fault.partition(":")
            said = json.dumps({"message": f"no, {self.headers.get('X-App-Token', 'whoever you are')}"}).encode()
            headers = {"Retry-After": retry_after} if retry_after else {}
            self._answer(int(status), said, {"Content-Type": "application/json"} | headers)
        elif fault == "page":
            self._answer(200, b"<!DOCTYPE html><title>Sign in</title>", {"Content-Type": "text/html"})
        elif self.command == "HEAD" and not publisher.heads:
            self._answer(405, b"", {})
        elif content is None:
            self._answer(publisher.absent_status, b"<Error>AccessDenied</Error>", {"Content-Type": "application/xml"})
        else:
            self._send_file(content, fault)

    def _send_file(self, content: bytes, fault: str) -> None:
        headers = self.publisher.validators(content) | {"Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in {None, headers.get("ETag")}
        start = int(wanted[1]) if wanted and unchanged and self.publisher.ranges else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:], headers, fault)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body[: len(body) // 2] if fault in {"cut", "stall"} else body)
            self.wfile.flush()
            if fault == "stall":
                time.sleep(self.publisher.slow_s)
            self.close_connection = self.close_connection or bool(fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client did not wait

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def publisher_server(files: dict[str, bytes] | None = None) -> Iterator[Publisher]:
    """A publisher on a free port of the loopback address, gone at the end."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        handler.publisher = Publisher(f"http://127.0.0.1:{server.server_port}", files or {})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield handler.publisher
        finally:
            server.shutdown()
            thread.join()
