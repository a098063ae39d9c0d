"""The processes of the service: one, or several behind one socket, which end without cutting anybody off.

On SIGTERM a process reports that it is not ready and asks each client to close its connection, goes on answering for
`DRAIN_S`, accepts what still waits at the socket, and ends. A filter at the socket then holds off new connections,
because a connection still waiting there when the socket is closed would be reset.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

import msgspec
import uvicorn
from prometheus_client import multiprocess
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taxifare.serving import metrics
from taxifare.serving.problems import MEDIA_TYPE, ProblemError

DRAIN_S = 3.0
"""How long a process goes on answering after it was told to end: load balancers notice within seconds."""

_HOLD_OFF_S = 0.3
"""How long before the end new connections are held off."""

_LONGEST_ANSWER_S = 15
_KEEP_ALIVE_S = 75
_HEAD_S = 5.0
_MOST_HEAD_BYTES = 1 << 16
_BACKLOG = 2048
_RESTART_S = 1.0

# Classic BPF: a TCP segment with SYN in its flags is dropped, every other passes. The client asks again a second
# later, and is refused by then.
_SO_ATTACH_FILTER = 26
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF))

_log = logging.getLogger(__name__)


def listening(host_and_port: str) -> socket.socket:
    """Returns a socket listening at an address, to be passed to processes.

    Raises:
        OSError: The system refuses.
    """
    host, _, port = host_and_port.rpartition(":")
    family, kind, protocol, _, address = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Small answers are sent at once.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class _OneWrite:
    """A transport that sends everything written in one turn of the loop together.

    uvicorn writes headers and body of an answer separately, which is half of the cost of sending a short one.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held += data

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, over a transport that sends an answer in one piece; request heads are bounded.

    Attributes:
        head_began_s: When the request head now arriving began, None where none is.
    """

    head_began_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.head_began_s is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES:
                self.end_with(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"expected {_MOST_HEAD_BYTES:,} bytes at most"
                )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_began_s, self._head_bytes = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        self.head_began_s = None
        super().on_headers_complete()

    def end_with(self, status: HTTPStatus, detail: str) -> None:
        """Tells a client whose request never reached the application what is wrong, and ends the connection."""
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(ProblemError(status, detail).problem)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {MEDIA_TYPE.decode()}\r\nconnection: close\r\n"
        )
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Tells a client that it does not speak HTTP."""
        self.end_with(HTTPStatus.BAD_REQUEST, msg)


class Server(uvicorn.Server):
    """A process that drains before it ends.

    Args:
        app: The service; it has an attribute `draining`.
        owns_socket: Whether it is the only process at its socket.
    """

    def __init__(self, app: Any, *, owns_socket: bool) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LONGEST_ANSWER_S,
        )
        super().__init__(config)
        self._app, self._owns_socket, self._parent = app, owns_socket, os.getppid()
        self._ends_at_s: float | None = None
        self._listener: socket.socket | None = None

    def serve_on(self, listener: socket.socket) -> None:
        """Answers until a signal ends it."""
        self._listener = listener
        self.run(sockets=[listener])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains on the first SIGTERM; on another, or on an interrupt, ends as soon as it can."""
        del frame  # part of the signature of signal handlers
        if sig == signal.SIGTERM and self._ends_at_s is None and self.started:
            self._app.draining = True
            self._ends_at_s = time.monotonic() + DRAIN_S
            return
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Returns whether it is time to end; a process whose supervisor has died ends as well."""
        if not self._owns_socket and os.getppid() != self._parent:
            self.handle_exit(signal.SIGTERM, None)
        if counter % 10 == 0:
            self._end_slow_heads()
        if self._ends_at_s is not None:
            left_s = self._ends_at_s - time.monotonic()
            if left_s <= _HOLD_OFF_S and self._owns_socket and self._listener is not None:
                hold_off(self._listener)
            self.should_exit = self.should_exit or left_s <= 0
        return await super().on_tick(counter)

    def _end_slow_heads(self) -> None:
        oldest_s = asyncio.get_running_loop().time() - _HEAD_S
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Protocol) and (connection.head_began_s or oldest_s) < oldest_s:
                connection.end_with(HTTPStatus.REQUEST_TIMEOUT, f"expected the head within {_HEAD_S:.0f} s")


def hold_off(listener: socket.socket) -> None:
    """Ensures that no new client connects; connected ones stay. Where the system cannot do that, nothing changes."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(buffer))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class Supervisor:
    """Keeps several processes at one socket: one that dies is restarted; told to end, all drain first."""

    def __init__(self, workers: int, listener: socket.socket) -> None:
        self._listener = listener
        self._told: int | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._count = workers

    def run(self) -> int:
        """Returns the exit code once all processes have ended: that of one that could not start, or 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        self._workers = [self._started() for _ in range(self._count)]
        while self._told is None:
            time.sleep(0.1)
            if (code := self._tend()) is not None:
                self._end(signal.SIGTERM)
                return code
        self._end(self._told)
        return 0

    def _tell(self, sig: int, frame: FrameType | None) -> None:
        del frame
        self._told = sig

    def _started(self) -> subprocess.Popen[bytes]:
        self._listener.set_inheritable(True)
        number = str(self._listener.fileno())
        # A session of its own: an interrupt from the terminal reaches it only through here.
        return subprocess.Popen(  # noqa: S603 - the arguments are ours
            [sys.executable, "-m", "taxifare.serving", "--socket", number],
            pass_fds=[self._listener.fileno()],
            start_new_session=True,
        )

    def _tend(self) -> int | None:
        """Returns None while the service can go on, else its exit code: a process that could not start ends all."""
        for place, worker in enumerate(self._workers):
            code = worker.poll()
            if code is None:
                continue
            if code > CANNOT_START:
                return code - CANNOT_START
            _log.error("process %s of the service ended with %s; another is started", worker.pid, code)
            if metrics.FOLDER_VARIABLE in os.environ:
                multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            time.sleep(_RESTART_S)
            self._workers[place] = self._started()
        return None

    def _end(self, sig: int) -> None:
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, sig)
        if sig == signal.SIGTERM:
            time.sleep(DRAIN_S - _HOLD_OFF_S)
        hold_off(self._listener)
        for worker in self._workers:
            worker.wait()


CANNOT_START = 100
"""Added to the exit code of one of several processes that told why it cannot start, and would not another time either;
one that an error of ours ends is started again, and its exit code is 1 as well."""
