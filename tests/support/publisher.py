"""A real web server on loopback that publishes files as buckets and open-data sites do, and can be made to fail."""

import hashlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapefile


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
            status 200), `short` (half of the rest that was asked for, well announced).
        tells: What it says to identify a file: a strong ETag, a weak one, the time of its last change, nothing.
        ranges: Whether it can send a part of a file.
        heads: Whether it answers HEAD.
        absent_status: What it answers where there is no file; buckets that may not be listed answer 403.
        in_trouble: What happens to the next requests for a path, as `faults`; the last of them happens ever after.
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
    in_trouble: dict[str, list[str]] = field(default_factory=dict)
    changed_at: float = 1_420_070_400
    slow_s: float = 1.0

    def methods(self) -> list[str]:
        """How it was asked, in order."""
        return [method for method, _, _ in self.asked]

    def trouble_with(self, path: str) -> str:
        """What happens to this request for a path."""
        troubles = self.in_trouble.get(path.lstrip("/"), [""])
        return troubles.pop(0) if len(troubles) > 1 else troubles[0]

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
        fault = publisher.faults.pop(0) if publisher.faults else publisher.trouble_with(urlsplit(self.path).path)
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
        end = (start + len(content)) // 2 if start and fault == "short" else len(content)
        if start:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:end], headers, fault)

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

    class Handler(_Handler):
        pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        Handler.publisher = Publisher(f"http://127.0.0.1:{server.server_port}", files or {})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield Handler.publisher
        finally:
            server.shutdown()
            thread.join()


# What the Le Wagon course and the Taxi and Limousine Commission publish


def lewagon_files(months: Mapping[str, pd.DataFrame], base: pd.DataFrame, size: str = "1k") -> dict[str, bytes]:
    """The course's files: of each month (`jan`) and of the base years the first four fifths, and the rest."""
    files = {}
    for name, trips in {**months, size: base}.items():
        cut = len(trips) * 4 // 5
        for part, rows in (("train", trips[:cut]), ("val", trips[cut:])):
            columns = rows.drop(columns="dropoff_datetime", errors="ignore")
            text = columns.to_csv(index=False, date_format="%Y-%m-%d %H:%M:%S UTC")
            files[f"{part}_{name}.csv"] = text.encode()
    return files


def tlc_month(trips: pd.DataFrame, color: str = "green", **changes: Any) -> bytes:
    """A month as the commission publishes it: the trips with zones for places, and columns that nobody needs."""
    meter, zones = {"yellow": "tpep", "green": "lpep"}[color], len(ZONES)
    columns = {
        "VendorID": 2,
        f"{meter}_pickup_datetime": trips["pickup_datetime"],
        f"{meter}_dropoff_datetime": trips["dropoff_datetime"],
        "PULocationID": (np.arange(len(trips)) % zones + 1).astype(np.int32),
        "DOLocationID": (np.arange(len(trips)) // zones % zones + 1).astype(np.int32),
        "passenger_count": trips["passenger_count"].astype("Int64"),
        "trip_distance": 1.5,
        "fare_amount": trips["fare_amount"],
        "tolls_amount": np.where(np.arange(len(trips)) % 10, 0.0, 5.54),
    }
    table = pa.Table.from_pandas(pd.DataFrame(columns | changes), preserve_index=False)
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=100)
    return content.getvalue()


ZONES = {1: (-74.1740, 40.6918), 2: (-73.9857, 40.7484), 3: (-73.7860, 40.6470), 4: (-73.9500, 40.8000)}
"""Centres of made taxi zones, longitude and latitude."""


@cache
def zones_zip(shift_ft: float = 0.0, epsg: int = 2263, lacks: str = "", column: str = "LocationID") -> bytes:
    """A shapefile of square zones, zipped in a folder as the commission does it."""
    members = {ending: io.BytesIO() for ending in ("shp", "shx", "dbf")}
    project = pyproj.Transformer.from_crs("EPSG:4326", epsg, always_xy=True)
    with shapefile.Writer(**members) as writer:
        for name in ("OBJECTID", column):
            writer.field(name, "N")
        for number, centre in ZONES.items():
            x, y = project.transform(*centre)
            side = (0.01 if epsg == 4326 else 1000.0) * number
            x, y = x + shift_ft - side, y - side
            writer.poly([[(x, y), (x, y + 2 * side), (x + 2 * side, y + 2 * side), (x + 2 * side, y), (x, y)]])
            writer.record(number, number)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        contents = {ending: member.getvalue() for ending, member in members.items()}
        contents["prj"] = pyproj.CRS.from_epsg(epsg).to_wkt("WKT1_ESRI").encode()
        for ending in contents.keys() - {lacks}:
            archive.writestr(zipfile.ZipInfo(f"taxi_zones/taxi_zones.{ending}"), contents[ending])
        archive.writestr(zipfile.ZipInfo("__MACOSX/._taxi_zones.shp"), b"of another system")
    return content.getvalue()


def tlc_files(months: Mapping[object, pd.DataFrame], color: str = "green") -> dict[str, bytes]:
    """What the commission publishes for the months."""
    files = {f"trip-data/{color}_tripdata_{month}.parquet": tlc_month(trips, color) for month, trips in months.items()}
    return files | {"misc/taxi_zones.zip": zones_zip()}
