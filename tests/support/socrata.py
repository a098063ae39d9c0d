"""A real data portal on loopback: the part of Socrata's API (SODA 2.0) that asks for trips, its limits and faults."""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd

NUMBERS = (
    *("trip_seconds", "trip_miles", "fare", "tips", "tolls", "extras"),
    *(f"{end}_centroid_{axis}" for end in ("pickup", "dropoff") for axis in ("latitude", "longitude")),
)
TEXTS = ("trip_id", "taxi_id", "payment_type", "trip_start_timestamp", "trip_end_timestamp")

DEFAULT_ROWS, MOST_ROWS = 1_000, 50_000


@dataclass
class Portal:
    """A running portal.

    Attributes:
        url: Address of its data sets.
        asked: The queries that reached it, and their headers in lower case, in order.
        faults: What happens to the next requests, one each: a status (`503`), a status with Retry-After in seconds
            (`429:0`), `slow` (no answer in time), `drop` (closed without an answer), `page` (HTML with status 200).
        missing: Data sets that it answers 404 for.
        most_rows: The most it gives at once.
        slow_s: How long `slow` is.
    """

    url: str
    data_sets: dict[str, pd.DataFrame] = field(default_factory=dict)
    asked: list[tuple[dict[str, str], dict[str, str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    most_rows: int = MOST_ROWS
    slow_s: float = 1.0
    _databases: dict[str, tuple[int, sqlite3.Connection]] = field(default_factory=dict, repr=False)
    # Two statements at once of a connection with a function of Python's wait for one another for ever: one holds
    # SQLite's lock and wants Python's, the other the other way round.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def answer(self, data_set: str, query: dict[str, str]) -> tuple[int, Any]:
        """Status and JSON for a query, which SQLite understands as it is: SoQL is a dialect of SQL."""
        if data_set not in self.data_sets or data_set in self.missing:
            return 404, {"code": "dataset.missing", "error": True, "message": "Not found"}
        unknown = set(query) - {"$select", "$where", "$group", "$order", "$limit", "$offset"}
        limit = int(query.get("$limit", DEFAULT_ROWS))
        if unknown or limit > MOST_ROWS:
            return 400, {"code": "query.soql", "error": True, "message": f"{unknown or 'Exceeded max limit of 50000'}"}
        with self._turn, self._database(data_set) as database:
            # Without $order rows come as they please, and differently each time.
            order = query.get("$order", "random()")
            grouped = f" GROUP BY {query['$group']}" if "$group" in query else ""
            statement = (
                f"SELECT {query.get('$select', '*')} FROM trips WHERE {query.get('$where', '1')}{grouped} "
                f"ORDER BY {order} LIMIT {min(limit, self.most_rows)} OFFSET {int(query.get('$offset', 0))}"
            )
            try:
                rows = [dict(row) for row in database.execute(statement)]
            except sqlite3.OperationalError as error:
                return 400, {"code": "query.soql.no-such-column", "error": True, "message": str(error)}
        # Numbers are text, and what is null is not there.
        return 200, [{name: str(value) for name, value in row.items() if value is not None} for row in rows]

    def _database(self, data_set: str) -> sqlite3.Connection:
        """A database with the data set's rows as they are now."""
        rows = self.data_sets[data_set]
        state = hash(b"".join(rows[name].to_numpy().tobytes() for name in rows))
        known, database = self._databases.get(data_set, (None, None))
        if database is None or known != state:
            database = sqlite3.connect(":memory:", check_same_thread=False)
            database.row_factory = sqlite3.Row
            database.create_function("date_trunc_ym", 1, lambda text: text and f"{text[:7]}-01T00:00:00.000")
            rows.to_sql("trips", database, index=False)
            self._databases[data_set] = (state, database)
        return database


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    portal: Portal

    def do_GET(self) -> None:
        portal = self.portal
        query = dict(parse_qsl(urlsplit(self.path).query))
        portal.asked.append((query, {name.lower(): value for name, value in self.headers.items()}))
        match portal.faults.pop(0) if portal.faults else "":
            case "slow":
                time.sleep(portal.slow_s)
                self.close_connection = True
            case "drop":
                self.close_connection = True
            case "page":
                self._send(200, b"<html>We are down for maintenance</html>", "text/html")
            case "":
                found = re.fullmatch(r"/resource/(.+)\.json", urlsplit(self.path).path)
                status, answer = portal.answer(found[1] if found else "", query)
                self._send(status, json.dumps(answer).encode(), "application/json")
            case fault:
                code, _, retry_after = fault.partition(":")
                headers = {"Retry-After": retry_after} if retry_after else {}
                said = {"code": "throttled", "error": True, "message": "Too many requests"}
                self._send(int(code), json.dumps(said).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def portal_server() -> Iterator[Portal]:
    """A portal without data sets."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.portal = Portal(f"http://127.0.0.1:{server.server_port}/resource")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield Handler.portal
        server.shutdown()


def published(rows: pd.DataFrame) -> pd.DataFrame:
    """Trips with the portal's columns, those that are not given being null."""
    return rows.reindex(columns=[*TEXTS, *NUMBERS])


def quarter_hours(times: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    """Times as the portal writes them, rounded to a quarter of an hour."""
    return times.dt.round("15min").dt.strftime("%Y-%m-%dT%H:%M:%S.000")


def from_trip_table(trips: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Trips of a trip table in the portal's form; a fare of 5 USD and more has 1 USD of tolls in it."""
    tolls = (trips["fare_amount"] >= 5).astype("float64")
    return published(
        pd.DataFrame(
            {
                "trip_id": prefix + trips["key"].astype(str),
                "trip_start_timestamp": quarter_hours(trips["pickup_datetime"].dt.floor("15min")),
                "trip_end_timestamp": quarter_hours(trips["dropoff_datetime"]),
                "trip_seconds": (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds(),
                "fare": trips["fare_amount"] - tolls,
                "tolls": tolls,
                **{
                    f"{end}_centroid_{axis}": trips[f"{end}_{axis}"]
                    for end in ("pickup", "dropoff")
                    for axis in ("latitude", "longitude")
                },
            }
        )
    )


def from_tfx(file: Path) -> pd.DataFrame:
    """The trips of the TFX example's file, which was taken from the portal, in the portal's form.

    The file has neither ids nor ends nor tolls: ids are made of the row's number, ends of the start and the seconds.
    """
    rows = pd.read_csv(file)
    start = pd.to_datetime(rows["trip_start_timestamp"], unit="s")
    end = start + pd.to_timedelta(rows["trip_seconds"], unit="s")
    return published(
        rows[["trip_seconds", "trip_miles", "fare", "tips", "payment_type"]].assign(
            trip_id=[f"{number * 2654435761 % 2**32:08x}" for number in range(len(rows))],
            trip_start_timestamp=quarter_hours(start),
            trip_end_timestamp=quarter_hours(end),
            **{
                f"{end}_centroid_{axis}": rows[f"{end}_{axis}"]
                for end in ("pickup", "dropoff")
                for axis in ("latitude", "longitude")
            },
        )
    )
