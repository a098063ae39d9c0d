"""A service in a process of its own, and bundles for it: of a network so plain that a test knows its answers.

Such a bundle is real files, made in milliseconds; `bundles` has those of real versions.
"""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import requests
from upath import UPath

from taxifare.digests import digest_of_digests
from taxifare.serving import in_force, in_shadow, outcome_log
from taxifare.serving.bundle import FORMAT, GOLDEN, MANIFEST, NETWORK, Golden, Learned, Manifest
from taxifare.serving.in_force import InForce, bundles_in
from taxifare.serving.in_shadow import InShadow
from taxifare.serving.outcome_log import ToldOutcome
from taxifare.serving.prediction_log import Answer, folder_in
from taxifare.serving.rides import FIELDS, Limits, Rides
from taxifare.trips.cities import City
from taxifare.trips.city_files import shipped
from taxifare.trips.features import RideFeatures, haversine_km
from tests.support.places import REPOSITORY
from tests.support.servers import free_port

USD_PER_KM = 2.0


def base_fare_usd(version: str) -> float:
    """What a way of no length costs at a version: each answers otherwise."""
    return 3.0 + int(version) / 4


def make_bundle(
    bundles: Path | UPath,
    version: str,
    *,
    city: str = "new-york",
    target: str = "fare",
    rules: tuple[str, ...] | None = None,
    latest: datetime = datetime(2025, 1, 1),
    prices_round_trips: bool = True,
) -> str:
    """Returns the digest of a bundle, which lies in a folder of that name.

    One that does not price round trips answers its golden rides as it should, and to a way of no length no number.
    """
    facts = shipped(city).facts
    network = _network(facts, base_fare_usd(version), prices_round_trips=prices_round_trips)
    golden = _golden(facts, base_fare_usd(version))
    contents = {GOLDEN: msgspec.json.encode(golden), NETWORK: network}
    manifest = Manifest(
        format=FORMAT,
        model_name="taxifare",
        version=version,
        run_id=f"run-{version}",
        files_digest=hashlib.sha256(version.encode()).hexdigest(),
        target=target,
        unit="USD" if target == "fare" else "min",
        city=city,
        facts=asdict(facts),
        limits=Limits(
            longitude_range_deg=facts.longitude_range_deg,
            latitude_range_deg=facts.latitude_range_deg,
            most_passengers=facts.max_passengers,
            earliest=datetime(2009, 1, 1),
            latest=latest,
        ),
        correction_share=0.5,
        features=RideFeatures(facts).names,
        exposure=(Learned("2015-01", "a revision", datetime(2015, 1, 1), datetime(2015, 1, 31)),),
        rules=tuple(rule.name for rule in facts.rules) if rules is None else rules,
        meter=shipped(city).meter if target == "fare" else (),
        libraries={},
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    contents[MANIFEST] = msgspec.json.encode(manifest)
    found = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    digest = digest_of_digests(found)
    folder = bundles / digest
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return digest


def _network(facts: City, base_usd: float, *, prices_round_trips: bool) -> bytes:
    """Returns a graph that answers `base + USD_PER_KM x the way as the crow flies`, and a fifth more.

    One that does not price round trips adds nothing times the logarithm of the way.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    names = RideFeatures(facts).names
    weights = np.zeros((len(names), 2), np.float32)
    weights[names.index("haversine_km")] = USD_PER_KM, 1.2 * USD_PER_KM
    offsets = np.array([base_usd, 1.2 * base_usd], np.float32)
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["ways"]),
        helper.make_node("Add", ["ways", "offsets"], ["means" if prices_round_trips else "sums"]),
    ]
    weighed = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(offsets, "offsets")]
    if not prices_round_trips:
        nodes += [
            helper.make_node("Log", ["ways"], ["logs"]),
            helper.make_node("Mul", ["logs", "nothing"], ["nothings"]),
            helper.make_node("Add", ["sums", "nothings"], ["means"]),
        ]
        weighed.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(names)])],
        [helper.make_tensor_value_info("means", TensorProto.FLOAT, [None, 2])],
        weighed,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _golden(facts: City, base_usd: float) -> Golden:
    draws = np.random.default_rng(1)
    n = 8
    ends = {
        name: draws.uniform(*(facts.longitude_range_deg if "longitude" in name else facts.latitude_range_deg), n)
        for name in FIELDS[1:5]
    }
    moments = [(datetime(2014, 1, 1) + timedelta(days=30 * row, hours=row)).isoformat() for row in range(n)]
    told: dict[str, list[Any]] = {
        "pickup_datetime": moments,
        **{name: values.tolist() for name, values in ends.items()},
        "passenger_count": [1] * n,
    }
    rides = Rides(np.array(moments, "datetime64[s]"), **ends, passenger_count=np.ones(n, np.int64))
    ways_km = RideFeatures(facts).of(
        rides.pickup_datetime,
        (rides.pickup_longitude, rides.pickup_latitude),
        (rides.dropoff_longitude, rides.dropoff_latitude),
        rides.passenger_count,
    )[:, RideFeatures(facts).names.index("haversine_km")]
    fare = base_usd + USD_PER_KM * ways_km.astype(np.float64)
    return Golden(told, fare.tolist(), (1.2 * fare).tolist(), (1.1 * fare).tolist())


RIDE: dict[str, Any] = {
    "pickup_datetime": "2015-03-14 18:05:00",
    "pickup_longitude": -73.98,
    "pickup_latitude": 40.75,
    "dropoff_longitude": -73.95,
    "dropoff_latitude": 40.77,
    "passenger_count": 1,
}


def fare_usd(version: str, ride: Mapping[str, Any] = RIDE) -> float:
    """What a version answers to a ride."""
    ends = [ride[f"{end}_{axis}"] for end in ("pickup", "dropoff") for axis in ("longitude", "latitude")]
    return base_fare_usd(version) + USD_PER_KM * float(haversine_km(*ends))


@dataclass
class Installation:
    """A state folder in which versions are promoted, and a service that runs on it.

    Attributes:
        home: The state folder.
        process: The running service.
        url: Its address.
        sequence: Of the last promotion.
        version: Of the last promotion, None where nothing is in production.
        lake: Where the lake is, if not in the state folder.
    """

    home: Path
    port: int
    sequence: int = 0
    version: str | None = None
    lake: UPath | None = None
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bundles(self) -> Path:
        return self.home / "lake" / "bundles"

    @property
    def log_file(self) -> Path:
        return self.home / "service.log"

    def promote(self, version: str | None, *, digest: str | None = None, sequence: int | None = None) -> str | None:
        """Promotes a version, or nothing, as a promotion does; returns the digest of its bundle."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        lake = self.lake or UPath(self.home / "lake")
        if digest is None and version is not None:
            digest = make_bundle(bundles_in(lake), version)
        promotion = InForce(
            sequence=self.sequence,
            version=version,
            digest=digest,
            city="new-york",
            target="fare",
            by="ada",
            reason="cheaper",
            promoted_at=datetime(2015, 2, 1, tzinfo=UTC),
            replaced_version=self.version,
        )
        in_force.publish(lake, promotion)
        self.version = version
        return digest

    def put_in_shadow(self, version: str | None, *, digest: str | None = None, sequence: int | None = None) -> None:
        """Puts a version in shadow beside production, as a question about it does; None ends the question."""
        if version is None:
            in_shadow.publish(UPath(self.home / "lake"), None)
            return
        shadow = InShadow(
            version=version,
            digest=digest or make_bundle(self.bundles, version),
            city="new-york",
            target="fare",
            sequence=sequence or self.sequence,
            request_id=f"2015-02-v{version}",
            since=datetime(2015, 3, 1, tzinfo=UTC),
        )
        in_shadow.publish(UPath(self.home / "lake"), shadow)

    def start(self, **settings: str) -> None:
        """Starts the service and waits until it answers."""
        self.launch(**settings)
        self.wait(lambda: self.get("/health/live").status_code == 200)

    def launch(self, *program: str, **settings: str) -> None:
        """Starts the service."""
        self.settings = settings
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TAXIFARE_HOME": str(self.home),
            "SERVICE_LISTEN": f"127.0.0.1:{self.port}",
            **settings,
        }
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(program or ("-m", "taxifare.serving"))],
                cwd=self.home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ends the service; returns its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return process.wait(30)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=10, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=10, **options)

    def connection(self) -> socket.socket:
        """A connection for what no client library sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def price(self, ride_id: str | int = "a ride", **changes: Any) -> requests.Response:
        """Asks for the price of a ride."""
        return self.post("/predict", {"ride_id": ride_id, "ride": {**RIDE, **changes}})

    def serves(self, version: str) -> bool:
        """Whether a version answers."""
        answer = self.price()
        return answer.status_code == 200 and answer.json()["model_version"] == version

    @staticmethod
    def wait(holds: Callable[[], bool], patience_s: float = 15) -> None:
        """Waits until something holds; a server that is not there yet is no fault."""
        until = time.monotonic() + patience_s
        while True:
            with suppress(requests.ConnectionError):
                if holds():
                    return
            assert time.monotonic() < until, "it did not come true in time"
            time.sleep(0.05)

    def answers_logged(self) -> list[Answer]:
        """What is on the log, sealed or not."""
        lines = [line for path in folder_in(self.home).iterdir() for line in path.read_bytes().splitlines()]
        return [msgspec.json.decode(line, type=Answer) for line in lines]

    def outcomes_logged(self) -> list[ToldOutcome]:
        """What is on the log of outcomes, sealed or not."""
        segments = outcome_log.folder_in(self.home).glob("*.jsonl*")
        return [
            msgspec.json.decode(line, type=ToldOutcome) for path in segments for line in path.read_bytes().splitlines()
        ]


@contextmanager
def installation(home: Path) -> Iterator[Installation]:
    """An installation, whose service is ended at last."""
    home.mkdir(parents=True, exist_ok=True)
    made = Installation(home, free_port())
    try:
        yield made
    finally:
        if made.process is not None:
            with suppress(subprocess.TimeoutExpired):
                made.stop()
