"""What the service counts, for Prometheus to read.

A scrape reaches one process; where there are several, they count in files of a folder that all of them read. The client
does so where PROMETHEUS_MULTIPROC_DIR names one (`server.Supervisor` sets it).
"""

import os
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    start_http_server,
)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_REQUEST_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5)

_TURN_RIDES = (1, 2, 4, 8, 16, 32, 64, 128, 1024)


class Metrics:
    """The counters of this process, and what all processes have counted."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("taxifare_requests", "Requests answered", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            *("taxifare_request_seconds", "From a request's headers to its answer", ["path"]),
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._rides = Counter("taxifare_rides_priced", "Rides priced", ["version"], registry=registry)
        self._turns = Histogram("taxifare_turn_rides", "Rides priced together", buckets=_TURN_RIDES, registry=registry)
        self._shadow = Counter("taxifare_shadow_rides_priced", "Rides priced in shadow", ["version"], registry=registry)
        self._dropped = Counter(
            *("taxifare_shadow_rides_dropped", "Rides to be priced in shadow that were not"), registry=registry
        )
        self._lost = Counter("taxifare_log_lost", "Answers that the prediction log could not take", registry=registry)
        self._outcomes = Counter("taxifare_outcomes_told", "Outcomes of rides that were told", registry=registry)
        self._refused = Counter("taxifare_bundles_refused", "Bundles in force not fit to serve", registry=registry)
        self._sequence = Gauge(
            *("taxifare_sequence", "The promotion that is served, the lowest of all processes"),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._behind = Gauge(
            *("taxifare_behind", "1 where what is in force cannot be told or served"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._again = Counter("taxifare_rides_again", "Rides that were delivered and quoted again", registry=registry)
        self._messages_refused = Counter(
            "taxifare_messages_refused", "Messages of a stream that cannot be priced or kept", registry=registry
        )
        self._stream_waiting = Gauge(
            *("taxifare_stream_waiting_rides", "Rides in the stream that nobody has taken yet"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._by_request: dict[tuple[str, int], Counter] = {}
        self._by_path: dict[str, Histogram] = {}

    def request(self, path: str, status: int, began_s: float) -> None:
        """Counts a request that was just answered; `began_s` is from `perf_counter`."""
        counter = self._by_request.get((path, status))
        if counter is None:
            counter = self._by_request[path, status] = self._requests.labels(path, str(status))
            self._by_path.setdefault(path, self._seconds.labels(path))
        counter.inc()
        self._by_path[path].observe(perf_counter() - began_s)

    def priced(self, rides: int, version: str, lost: int) -> None:
        """Counts rides that were priced together, and those that are not on the log."""
        self._rides.labels(version).inc(rides)
        self._turns.observe(rides)
        if lost:
            self._lost.inc(lost)

    def priced_in_shadow(self, rides: int, version: str) -> None:
        """Counts rides that were priced in shadow."""
        self._shadow.labels(version).inc(rides)

    def dropped(self, rides: int) -> None:
        """Counts rides that should have been priced in shadow but were not."""
        self._dropped.inc(rides)

    def told_outcomes(self, rides: int) -> None:
        """Counts rides whose outcome was reported and is on the log."""
        self._outcomes.inc(rides)

    def came_again(self, rides: int) -> None:
        """Counts rides of a stream that had been quoted before."""
        self._again.inc(rides)

    def refused_messages(self, messages: int) -> None:
        """Counts messages of a stream that were refused."""
        self._messages_refused.inc(messages)

    def left_in_stream(self, rides: int) -> None:
        """Sets how many rides nobody has taken yet."""
        self._stream_waiting.set(rides)

    def follows(self, sequence: int | None, *, is_behind: bool) -> None:
        """Sets which promotion is served, and whether, as far as is known, it is the one in force."""
        self._sequence.set(-1 if sequence is None else sequence)
        self._behind.set(is_behind)

    def refused(self) -> None:
        """Counts a bundle that was not fit to be served."""
        self._refused.inc()

    def serve(self, host_and_port: str) -> None:
        """Ensures that this process serves its counters at an address, on a thread of its own; raises OSError."""
        serve(self._registry, host_and_port)

    def told(self) -> bytes:
        """Returns what all processes have counted, in Prometheus's text format."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        multiprocess.MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)


def serve(registry: CollectorRegistry, host_and_port: str) -> None:
    """Ensures that a registry is served at an address, on a thread of its own.

    Raises:
        OSError: The address is not available.
    """
    host, _, port = host_and_port.rpartition(":")
    start_http_server(int(port), host.strip("[]"), registry)
