"""Real servers for tests, on loopback: MLflow, `make dev`, a chat that can be made to fail, a private PostgreSQL."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import requests


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
        slow_s: How long `slow` is.
    """

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    posts: int = 0
    faults: list[str] = field(default_factory=list)
    readable: bool = True
    slow_s: float = 1.0

    @property
    def port(self) -> int:
        """The port of its address."""
        return int(self.url.rpartition(":")[2])

    def contents(self, channel: str) -> list[str]:
        """The texts shown in a channel."""
        return [message["content"] for message in self.messages if message["channel"] == channel]


class _ChatServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, chat: Chat | None) -> None:
        super().__init__(("127.0.0.1", chat.port if chat else 0), _ChatHandler)
        self.chat = chat or Chat(f"http://127.0.0.1:{self.server_port}")


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
            time.sleep(chat.slow_s)
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
def chat_server(chat: Chat | None = None) -> Iterator[Chat]:
    """A chat on a free port of the loopback address, stopped at the end; a chat given is back at its old address."""
    server = _ChatServer(chat)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Webhook:
    """A running webhook that keeps the JSON posted to it.

    Attributes:
        url: Its address, which whoever knows may post to.
        posts: What was posted, in order.
        statuses: What it answers to the next POSTs, one each; 200 after that.
    """

    url: str
    secret: str
    posts: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@contextmanager
def webhook_server(port: int = 0) -> Iterator[Webhook]:
    """A webhook on loopback, gone at the end."""
    secret = "services/T0/not-to-be-told"

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = hook.statuses.pop(0) if hook.statuses else 200
            if status == 200:
                hook.posts.append(posted)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        hook = Webhook(f"http://127.0.0.1:{server.server_address[1]}/{secret}", secret)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hook
        server.shutdown()


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


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server_process(
    arguments: Sequence[str], url: str, log: Path, environment: Mapping[str, str], *, ready_within_s: float = 300
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at its URL, with all its children; gone at the end, whatever happened."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, env=dict(environment), cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + ready_within_s
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                state = f"did not answer within {ready_within_s:.0f} s" if process.poll() is None else "ended"
                raise RuntimeError(f"{url} {state}; the end of {log.name}:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield process
    finally:
        _end_group(process)


def _environment() -> dict[str, str]:
    """The environment without what tests and their libraries have put into it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DAGSTER_"))}


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _end_group(process: subprocess.Popen[bytes], patience_s: float = 20) -> None:
    """Ensures that the process and all of its group are gone: asked first, then killed."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(patience_s)


@dataclass(frozen=True)
class Login:
    """Who logs in at a server, and how."""

    user: str
    password: str = field(repr=False)


@contextmanager
def mlflow_server(folder: Path, *, login: Login | None = None) -> Iterator[str]:
    """A real MLflow server on SQLite with its artifacts in the folder; yields its URL.

    Args:
        folder: Its state.
        login: Its administrator. Whoever else has an account may read; nobody else gets in.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    arguments = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "files")),
    ]
    # Its background jobs, for features not used here, are four more processes.
    environment = {**_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if login is not None:
        arguments += ["--app-name", "basic-auth"]
        environment |= _login_environment(folder, login)
    with server_process(arguments, f"{url}/health", folder / "mlflow.log", environment):
        yield url


def _login_environment(folder: Path, login: Login) -> dict[str, str]:
    """What makes an MLflow server ask for a login; its accounts are in a database of their own in the folder."""
    path = folder / "basic_auth.ini"
    path.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = sqlite:///{folder / 'accounts.db'}\n"
        f"admin_username = {login.user}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Without it, the server hashes the password for every request: a second each on a busy machine.
        "auth_cache_ttl_seconds = 600\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(path),
        "MLFLOW_AUTH_ADMIN_PASSWORD": login.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs the forms of this server",
    }


@contextmanager
def dagster_dev(folder: Path, settings: Mapping[str, str], *, port: int | None = None) -> Iterator[str]:
    """What `make dev` starts, with these settings and its state in the folder; yields the URL of its UI."""
    url = f"http://127.0.0.1:{(port := port or free_port())}"
    environment = {**_environment(), "TAXIFARE_HOME": str(folder / "state"), **settings}
    arguments = [sys.executable, "-m", "taxifare_dagster.dev", "--port", str(port)]
    with server_process(arguments, f"{url}/server_info", folder / "dagster.log", environment):
        yield url
