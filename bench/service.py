"""What a price costs over HTTP, against `mlflow models serve` and Flask + gunicorn on the same model.

    .venv/bin/python bench/service.py [--seconds 5]

One worker each, one ride a request, validation and prediction log on, shadow off; the three take turns. CPU is that of
all processes of a server, so that what else runs on the machine plays little part. The model is trained on simulated
trips and has two members.
"""

import argparse
import asyncio
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np

from taxifare.approval.versions import registry_of
from taxifare.environment import ServiceSettings
from taxifare.serving.app import Service
from taxifare.serving.following import Follower
from taxifare.serving.in_force import InForce, bundles_in, publish
from taxifare.serving.making import make_bundle
from taxifare.serving.metrics import Metrics
from taxifare.serving.outcome_log import OutcomeLog
from taxifare.serving.prediction_log import Answer, PredictionLog
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.training.renewal import renew
from taxifare.trips.months import parse_month
from taxifare.trips.preparation import preprocess, split_month

MONTH = parse_month("2015-01")
TRIPS = 160_000
"""Enough for a network of two members."""

CONNECTIONS = (1, 8, 64)
LEAST_RATIO = {8: 20.0, 64: 40.0}
MOST_P99_CPU_MS = 2.0
MOST_MEMORY_SHARE, MOST_START_SHARE, MOST_LOG_SHARE = 1 / 5, 1 / 8, 1 / 10

RIDE = {
    "pickup_datetime": "2015-03-14 18:05:00",
    "pickup_longitude": -73.98,
    "pickup_latitude": 40.75,
    "dropoff_longitude": -73.95,
    "dropoff_latitude": 40.77,
    "passenger_count": 1,
}

FLASK = """
import mlflow, pandas as pd
from flask import Flask, jsonify, request

model = mlflow.pyfunc.load_model({model!r})
app = Flask("duration-prediction")

@app.route("/predict", methods=["POST"])
def predict():
    asked = request.get_json()
    ride = pd.DataFrame([asked["ride"]])
    ride["pickup_datetime"] = pd.to_datetime(ride["pickup_datetime"])
    return jsonify({{"ride_id": asked["ride_id"], "fare": float(model.predict(ride)[0])}})
"""


@dataclass
class Contestant:
    """A server, and what was measured of it.

    Attributes:
        name: What it is.
        command: Starts it at a port.
        path: Where it is asked.
        body: With what.
        cpu_ms: Per request, by the number of connections.
        p99_ms: Wall-clock, of one connection.
        memory_mib: Of its largest process.
        start_cpu_s: Until its first answer.
    """

    name: str
    command: Sequence[str]
    path: str
    body: bytes
    environment: Mapping[str, str]
    cpu_ms: dict[int, float] = field(default_factory=dict)
    p99_ms: float = 0.0
    memory_mib: float = 0.0
    start_cpu_s: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model = trained(home)
        contestants = line_up(home, model)
        for contestant in contestants:
            measure(contestant, seconds)
        tell(contestants)
        failed = [*unkept(contestants), *within(home, contestants[-1])]
    if failed:
        sys.exit("promised and not kept: " + "; ".join(failed))


def trained(home: Path) -> Path:
    """Returns the files of a registered version, whose bundle is in force in the state folder."""
    settings = Settings(
        taxifare_home=home, max_epochs=1, challengers=("warm",), simulator_trips_per_month=TRIPS, simulator_base_trips=1
    )
    registry = registry_of(settings)
    registry.prepare()
    raw = split_month(make_source(settings).read_month(MONTH), MONTH, settings.validation_share)
    trips = preprocess(raw, settings.city_facts, settings.target_facts)
    tags = {"asset": "staging_model", "month": str(MONTH), "dagster_run": "bench"}
    version = str(renew(trips.trips, None, None, registry, settings, run_tags=tags).appraisal.version)
    digest = make_bundle(registry.load(version), settings, bundles_in(settings.lake))
    promotion = InForce(
        sequence=1,
        version=version,
        digest=digest,
        city=settings.city.slug,
        target=settings.target,
        by="bench",
        reason="to be measured",
        promoted_at=datetime.now(UTC),
        replaced_version=None,
    )
    publish(settings.lake, promotion)
    uri = str(registry.store.client.get_model_version_download_uri(registry.model_name, version))
    files = home / "model"
    shutil.copytree(registry.store.mlflow.artifacts.download_artifacts(uri), files)
    return files


def line_up(home: Path, model: Path) -> list[Contestant]:
    """Returns the servers, each with a port of its own in its command."""
    (home / "flask_app.py").write_text(FLASK.format(model=str(model)))
    split = {"dataframe_split": {"columns": list(RIDE), "data": [list(RIDE.values())]}}
    asked = json.dumps({"ride_id": "bench", "ride": RIDE}).encode()
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parents[1]}:{home}",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    ports = [free_port() for _ in range(3)]
    return [
        Contestant(
            "mlflow models serve",
            (
                str(programs / "mlflow"),
                "models",
                "serve",
                "-m",
                str(model),
                "--env-manager",
                "local",
                "-p",
                str(ports[0]),
            ),
            f"http://127.0.0.1:{ports[0]}/invocations",
            json.dumps(split).encode(),
            environment,
        ),
        Contestant(
            "Flask + gunicorn",
            ("gunicorn", "--bind", f"127.0.0.1:{ports[1]}", "flask_app:app", "--log-level", "error"),
            f"http://127.0.0.1:{ports[1]}/predict",
            asked,
            environment,
        ),
        Contestant(
            "make serve",
            (sys.executable, "-m", "taxifare.serving"),
            f"http://127.0.0.1:{ports[2]}/predict",
            asked,
            environment
            | {"TAXIFARE_HOME": str(home), "SERVICE_LISTEN": f"127.0.0.1:{ports[2]}", "SERVICE_SHADOW": "off"},
        ),
    ]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(contestant: Contestant) -> Iterator[int]:
    """Yields the process group of a server."""
    process = subprocess.Popen(
        contestant.command,
        env=dict(contestant.environment),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tempfile.gettempdir(),
    )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure(contestant: Contestant, seconds: float) -> None:
    port, path = contestant.path.removeprefix("http://127.0.0.1:").split("/", 1)
    request = (
        f"POST /{path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(contestant.body)}\r\n\r\n"
    ).encode() + contestant.body
    with running(contestant) as group:
        first_answer(int(port), request)
        contestant.start_cpu_s = cpu_s(group)
        for connections in CONNECTIONS:
            load(int(port), connections, seconds / 5, request)
            before = cpu_s(group)
            took_s = load(int(port), connections, seconds, request)
            contestant.cpu_ms[connections] = (cpu_s(group) - before) / len(took_s) * 1000
            if connections == 1:
                contestant.p99_ms = float(np.quantile(took_s, 0.99)) * 1000
        contestant.memory_mib = memory_mib(group)


def first_answer(port: int, request: bytes) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            if load(port, 1, 0.0, request):
                return
        except (ConnectionError, RuntimeError):
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def load(port: int, connections: int, seconds: float, request: bytes) -> list[float]:
    """Returns how long each answer took; each connection asks again when it is answered."""
    selector, took_s, until = selectors.DefaultSelector(), list[float](), time.perf_counter() + seconds

    def ask(connection: socket.socket | None) -> None:
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, [b"", time.perf_counter()])

    for _ in range(connections):
        ask(None)
    while selector.get_map():
        for key, _ in selector.select(30):
            connection: Any = key.fileobj
            received, began_s = key.data
            chunk = connection.recv(1 << 16)
            received += chunk
            key.data[0] = received
            head, separator, body = received.partition(b"\r\n\r\n")
            if chunk and (not separator or len(body) < length_of(head)):
                continue
            selector.unregister(connection)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"expected an answer, received {received[:500]!r}")
            took_s.append(time.perf_counter() - began_s)
            is_over = b"connection: close" in head.lower()
            if is_over or time.perf_counter() >= until:
                connection.close()
            if time.perf_counter() < until:
                ask(None if is_over else connection)
    return took_s


def length_of(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def of_group(group: int) -> list[Path]:
    """Returns the processes of a group."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found.append(place)
    return found


def cpu_s(group: int) -> float:
    """Returns the CPU time of a group's processes so far, and of those of them that have ended."""
    ticks = 0
    for place in of_group(group):
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mib(group: int) -> float:
    sizes = []
    for place in of_group(group):
        status = (place / "status").read_text()
        sizes.append(int(status.partition("VmRSS:")[2].split()[0]) / 1024)
    return max(sizes)


def tell(contestants: Sequence[Contestant]) -> None:
    baseline = contestants[0]
    columns = "".join(f"{f'CPU ms, {number}':>12} {'ratio':>6}" for number in CONNECTIONS)
    print(f"{'one ride a request':<22}{columns} {'p99 ms':>8} {'MiB':>6} {'start, CPU s':>13}")
    for one in contestants:
        cells = "".join(
            f"{one.cpu_ms[number]:>12.3f} {baseline.cpu_ms[number] / one.cpu_ms[number]:>6.1f}"
            for number in CONNECTIONS
        )
        print(f"{one.name:<22}{cells} {one.p99_ms:>8.2f} {one.memory_mib:>6.0f} {one.start_cpu_s:>13.2f}")
    print(
        "requests per CPU second of make serve:",
        ", ".join(f"{1000 / contestants[-1].cpu_ms[n]:,.0f} at {n}" for n in CONNECTIONS),
    )


def unkept(contestants: Sequence[Contestant]) -> Iterator[str]:
    """Yields the promises that were not kept."""
    baseline, ours = contestants[0], contestants[-1]
    for number, least in LEAST_RATIO.items():
        if baseline.cpu_ms[number] < least * ours.cpu_ms[number]:
            yield f"{least:.0f} times the requests per CPU second of {baseline.name} at {number} connections"
    if ours.memory_mib > MOST_MEMORY_SHARE * baseline.memory_mib:
        yield f"a fifth of the memory of {baseline.name}"
    if ours.start_cpu_s > MOST_START_SHARE * baseline.start_cpu_s:
        yield f"an eighth of the start of {baseline.name}"


def within(home: Path, ours: Contestant) -> Iterator[str]:
    """Yields the promises about what is beyond HTTP that were not kept, measured in this process."""
    settings = ServiceSettings(taxifare_home=home)
    metrics = Metrics()
    follower = Follower(settings, metrics)
    follower.start()
    while follower.current is None:
        time.sleep(0.05)
    log = PredictionLog(home / "prediction-log", settings.prediction_log_days)
    gc.freeze()  # as a serving process does, which has no TensorFlow to look through besides
    outcomes = OutcomeLog(home / "outcome-log", settings.prediction_log_days)
    service = Service(follower, log, outcomes, settings.target_facts, metrics, None)
    p50_ms, p99_ms = asyncio.run(alone(service, ours.body))
    print(f"a ride beyond HTTP: {p50_ms:.3f} ms of CPU, {p99_ms:.3f} at p99")
    if p99_ms > MOST_P99_CPU_MS:
        yield f"{MOST_P99_CPU_MS} ms of CPU at p99"
    for number in CONNECTIONS:
        share = logging_ms(home, number) / ours.cpu_ms[number]
        print(f"logging, {number} together: {share:.1%} of a request")
        if share > MOST_LOG_SHARE:
            yield f"logging at most a tenth of a request at {number} connections"
    follower.stop()
    log.close()


async def alone(service: Service, body: bytes) -> tuple[float, float]:
    """Returns the median and the 99th percentile of the CPU time of a request without a server, ms."""
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"application/json")]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    took_ms = []
    for _ in range(3_000):
        began = time.thread_time_ns()
        await service(dict(scope), receive, send)
        took_ms.append((time.thread_time_ns() - began) / 1e6)
    return float(np.median(took_ms[500:])), float(np.quantile(took_ms[500:], 0.99))


def logging_ms(home: Path, together: int) -> float:
    """Returns the CPU time of an answer's line, written with so many others."""
    log, now, turns = PredictionLog(home / "log", 1), datetime.now(UTC), 2_000
    began = time.thread_time_ns()
    for _ in range(turns):
        log.append(
            [
                Answer(
                    ride_id="bench",
                    ride=RIDE,
                    role="production",
                    version="1",
                    bundle="0" * 64,
                    sequence=1,
                    fare=9.5,
                    upper=12.0,
                    corrected=10.0,
                    quoted=9.5,
                    unit="USD",
                    received_at=now,
                    answered_at=now,
                )
                for _ in range(together)
            ]
        )
    took_ms = (time.thread_time_ns() - began) / 1e6
    log.close()
    return took_ms / turns / together


if __name__ == "__main__":
    main()
