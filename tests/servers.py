"""Real servers for tests, on loopback: a chat that can be made to fail, and a private PostgreSQL."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Chat:
    """A running Wagon chat: `POST /{channel}/messages` keeps a message, `GET` lists them.

    Attributes:
        url: Its base address.
        messages: What it accepted, in order; each with channel, author, content and the request's headers.
        posts: How many POSTs reached it, accepted or not.
        faults: What happens to the next POSTs, one each: `500`, `429`, `404`, `slow` (no answer in time), `drop`
            (connection closed), `accept-500` (kept, then 500), `accept-slow` (kept, then no answer in time).
        readable: Whether messages can be listed.
        slow_seconds: How long `slow` is.
    """

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    posts: int = 0
    faults: list[str] = field(default_factory=list)
    readable: bool = True
    slow_seconds: float = 1.0

    def contents(self, channel: str) -> list[str]:
        """The texts shown in a channel."""
        return [message["content"] for message in self.messages if message["channel"] == channel]


class _ChatServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ChatHandler)
        self.chat = Chat(f"http://127.0.0.1:{self.server_port}")


class _ChatHandler(BaseHTTPRequestHandler):
    server: _ChatServer

    def do_GET(self) -> None:
        chat, channel = self.server.chat, self._channel()
        if channel is None or not chat.readable:
            self._answer(404 if channel is None else 405, {"error": "no"})
        else:
            self._answer(200, {"messages": [message for message in chat.messages if message["channel"] == channel]})

    def do_POST(self) -> None:
        chat, channel = self.server.chat, self._channel()
        chat.posts += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = chat.faults.pop(0) if chat.faults else ""
        if channel is None:
            self._answer(404, {"error": "no such address"})
            return
        if fault.startswith("accept") or not fault:
            chat.messages.append({"channel": channel, **body, "headers": dict(self.headers)})
        if fault.endswith("slow"):
            time.sleep(chat.slow_seconds)
        if fault == "drop":
            self.close_connection = True
            return
        status = fault.removeprefix("accept-")
        self._answer(int(status) if status.isdigit() else 201, {"status": fault or "ok"})

    def _channel(self) -> str | None:
        parts = self.path.strip("/").split("/")
        return unquote(parts[0]) if len(parts) == 2 and parts[1] == "messages" else None

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client did not wait for an answer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silence."""


@contextmanager
def chat_server() -> Iterator[Chat]:
    """A chat on a free port of the loopback address, stopped at the end."""
    server = _ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, None where it is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """A private PostgreSQL that listens on a socket in its own folder; yields its URL, and is gone afterwards."""
    # PostgreSQL refuses to run as root, and pytest's own folders are closed to everybody else.
    folder = Path(tempfile.mkdtemp(prefix="taxifare-postgres-"))
    user = _unprivileged_user()
    if user:
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120
        )

    data = folder / "data"
    try:
        run("initdb", "--pgdata", str(data), "--username", "postgres", "--auth", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c timezone=America/New_York"
        run("pg_ctl", "start", "--wait", "-D", str(data), "-l", str(folder / "log"), "-o", options)
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-D", str(data), "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
