"""Servers on loopback that give away what they are sent: they repeat it, or send whoever asks on to another host."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Echo:
    """A running server.

    Attributes:
        host: Its host and port.
        status: What it answers: an error that repeats the request in its reason and body, or a redirect.
        onward: Host and port that a redirect leads to.
        received: The headers of each request, names in lower case.
    """

    host: str
    status: int = 404
    onward: str = ""
    received: list[dict[str, str]] = field(default_factory=list)

    @property
    def logins(self) -> set[str]:
        """What it was sent to let somebody in, as it was encoded."""
        return {headers["authorization"].split()[-1] for headers in self.received if "authorization" in headers}


@contextmanager
def echo_server(**attributes: Any) -> Iterator[Echo]:
    """A server that answers whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            echo.received.append(headers)
            sent = self.rfile.read(int(headers.get("content-length", 0))).decode()
            repeated = {"path": self.path, "headers": headers, "sent": sent, "message": f"no {self.path} for {headers}"}
            body = json.dumps(repeated).encode()
            self.send_response(echo.status, f"no {self.path} for {headers}")
            if echo.onward:
                self.send_header("Location", f"http://{echo.onward}/elsewhere")
                self.send_header("Set-Cookie", "session=sesame")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        echo = Echo(f"127.0.0.1:{server.server_address[1]}", **attributes)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield echo
        server.shutdown()
