"""What comes from outside has an end: bodies, packed files, nested JSON; each refusal says what was expected."""

import gzip
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from taxifare.approval import channels
from taxifare.approval.channels import DeliveryError, Message, WagonChat
from taxifare.sources import SourceError, files, tlc, web
from taxifare.sources.files import read_parts, read_rows
from taxifare.sources.tlc import Zones
from taxifare.sources.web import Web, WebError


@contextmanager
def endless_server(beginning: bytes, status: int = 200) -> Iterator[str]:
    """A server whose answers never end; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                while True:
                    self.wfile.write(beginning)
            except OSError:
                self.close_connection = True

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST_BYTES_UNANNOUNCED", 1 << 20)
    monkeypatch.setattr(web, "MOST_JSON_BYTES", 1 << 20)
    monkeypatch.setattr(channels, "MOST_BYTES_OF_CHANNEL", 1 << 20)
    monkeypatch.setattr(files, "_UNPACKED_AT_LEAST", 1 << 16)


@pytest.mark.usefixtures("low_limits")
def test_an_endless_body_is_cut_off_and_nothing_of_it_kept(tmp_path: Path) -> None:
    with endless_server(b"key,fare_amount\n" * 1000) as url:
        for ask in (lambda: Web(tmp_path).download(f"{url}/trips.csv", print), lambda: Web(tmp_path).json(url)):
            with pytest.raises(WebError, match="expected trips, received more than 1,048,576 bytes"):
                ask()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("status", [200, 404])
def test_an_endless_chat_does_not_hold_a_message_up(status: int) -> None:
    with endless_server(b'{"content": "x"}' * 1000, status) as url:
        chat = WagonChat(url, "batch", "taxifare")
        if status == 200:
            chat.deliver(Message("key", "text\nkey"))
        else:
            with pytest.raises(DeliveryError, match="answered 404"):
                chat.deliver(Message("key", "text\nkey"))


@pytest.mark.usefixtures("low_limits")
def test_an_endless_refusal_is_a_refusal(tmp_path: Path) -> None:
    with endless_server(b'{"why": "no"}' * 1000, 400) as url, pytest.raises(WebError, match="received 400"):
        Web(tmp_path).json(url)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_json_that_is_nested_too_deep_is_refused(
    opening: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = b"]" if opening == b"[" else b"}"
    for depth in (100, 900, 200_000):
        content = opening * depth + b"1" + closing * depth
        monkeypatch.setattr(web, "_chunks", lambda *_, content=content: iter([content]))
        with endless_server(b"x") as url, pytest.raises(WebError, match="nested deeper than 64"):
            Web(tmp_path).json(url)


@pytest.mark.usefixtures("low_limits")
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"key,fare_amount\n" + b"0," + b"0" * 2**24)
    assert len(packed) < 2**15
    with pytest.raises(SourceError, match=r"bomb\.csv\.gz: expected trips, received a file that unpacks to more than"):
        read_rows(packed, "bomb.csv.gz")
    file = tmp_path / "bomb.csv.gz"
    rows = gzip.compress(b"k\n" + b"1\n" * 2**24)
    for content, said in ((packed, "unpacks"), (rows, "unpacks")):
        file.write_bytes(content)
        with file.open("rb") as opened, pytest.raises(SourceError, match=said):
            list(read_parts(opened, "bomb.csv.gz"))


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trips.csv"
    file.write_bytes(b"key,fare_amount\r" + b"a,7.5\r" * 2**18)
    with (
        file.open("rb") as opened,
        pytest.raises(SourceError, match="more than 1,048,576 bytes: lines end"),
    ):
        list(read_parts(opened, str(file)))


@pytest.mark.usefixtures("low_limits")
def test_parquet_that_claims_more_rows_than_its_size_can_hold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.parquet"
    pd.DataFrame({"fare_amount": [1.0]}).reindex([0] * 5_000_000).to_parquet(file, index=False)
    assert file.stat().st_size < 50_000
    with pytest.raises(SourceError, match="unpacks to more than"):
        read_rows(file.read_bytes(), str(file))
    with file.open("rb") as opened, pytest.raises(SourceError, match="unpacks to more than"):
        list(read_parts(opened, str(file)))


def test_zones_that_unpack_to_a_gigabyte_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tlc, "_MOST_BYTES_OF_ZONES", 1 << 20)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zones.dbf", b"0" * 2**22)
    file = tmp_path / "zones.zip"
    file.write_bytes(content.getvalue())
    with pytest.raises(SourceError, match="received a zip that unpacks to 4,194,304 bytes"):
        Zones.read(file, "zones.zip")


def test_what_is_real_is_within_the_limits() -> None:
    trips = pd.DataFrame({"key": [f"{n}" for n in range(100_000)], "fare_amount": 7.5})
    text = trips.to_csv(index=False).encode()
    assert len(read_rows(gzip.compress(text), "trips.csv.gz")) == len(trips)
