"""Streams as a dispatcher meets them: a real NATS server, and `taxifare consume` in processes of its own."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from upath import UPath

from taxifare.serving import in_force
from taxifare.serving.prediction_log import Answer, PredictionLog, folder_in
from tests.support.places import REPOSITORY
from tests.support.servers import free_port
from tests.support.services import RIDE, Installation, fare_usd, installation, make_bundle
from tests.support.streams import Broker, broker, consumers, ride, wait

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "home") as made:
        made.promote("3")
        yield made


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path / "nats") as made:
        yield made


def ids(answers: list[dict[str, Any]]) -> Counter[str | int]:
    return Counter(answer["ride_id"] for answer in answers)


def ensure_each_has_one_price(quotes: list[dict[str, Any]]) -> None:
    by_ride = defaultdict(set)
    for quote in quotes:
        by_ride[quote["ride_id"]].add(json.dumps(quote, sort_keys=True))
    assert {ride_id: found for ride_id, found in by_ride.items() if len(found) > 1} == {}


def a_shadow_of(ride_id: str) -> Answer:
    now = datetime.now(UTC)
    told = {"version": "9", "bundle": "d" * 64, "sequence": 1, "unit": "USD", "ride": RIDE}
    prices = dict.fromkeys(("fare", "upper", "corrected", "quoted"), 99.0)
    return Answer(ride_id=ride_id, role="shadow", received_at=now, answered_at=now, **told, **prices)


OUTCOMES = "taxifare.outcomes"


def outcome(ride_id: str | int, unit: str = "USD") -> bytes:
    return json.dumps({"ride_id": ride_id, "truth": 12.5, "unit": unit}).encode()


def log_of(home: Installation) -> str:
    return (home.home / "consumer.log").read_text()


def test_a_ride_gets_its_first_quote_whatever_was_promoted_meanwhile(home: Installation, nats: Broker) -> None:
    # What a version in shadow has answered is nobody's quote, and the stream has none priced by it.
    home.put_in_shadow("9")
    shadow = PredictionLog(folder_in(home.home), 30)
    shadow.append([a_shadow_of("a"), a_shadow_of("b")])
    shadow.close()
    metrics = f"127.0.0.1:{free_port()}"
    with consumers(home.home, nats.url, STREAM_METRICS_LISTEN=metrics) as (consumer,):
        nats.send(ride("a"), ride(7))
        wait(lambda: len(nats.quotes()) == 2)
        first = nats.quotes()[0]
        assert first["fare"] == pytest.approx(fare_usd("3"), abs=0.005)
        assert (first["ride_id"], first["model_version"], first["sequence"], first["unit"]) == ("a", "3", 1, "USD")
        home.promote("4")
        wait(lambda: "version 4 is served" in log_of(home))
        nats.send(ride("a"), ride(7), ride("b"))
        wait(lambda: "b" in ids(nats.quotes()))
        home.promote("5", digest=make_bundle(home.bundles, "5", latest=datetime(2015, 1, 1)))
        wait(lambda: "version 5 is served" in log_of(home))
        nats.send(ride("b"), ride("too late for version 5"))
        wait(lambda: len(nats.refused()) == 1)
        told = requests.get(f"http://{metrics}/metrics", timeout=10).text
        for line in ("rides_again_total 3.0", "messages_refused_total 1.0", "stream_waiting_rides 0.0"):
            assert f"taxifare_{line}" in told
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(20) == 0
    assert "6 quoted, 3 of them again; 1 refused" in log_of(home)
    quotes = nats.quotes()
    ensure_each_has_one_price(quotes)
    assert ids(quotes) == {"a": 2, 7: 2, "b": 2}
    assert {quote["ride_id"]: quote["model_version"] for quote in quotes} == {"a": "3", 7: "3", "b": "4"}
    # On the log stands what was quoted, and nothing that was not.
    given = [answer for answer in home.answers_logged() if answer.role == "production"]
    assert {(answer.ride_id, answer.version) for answer in given} == {("a", "3"), (7, "3"), ("b", "4")}
    assert len(home.answers_logged()) == len(given) + 2


def test_what_cannot_be_priced_goes_to_a_subject_of_its_own_and_holds_nothing_up(
    home: Installation, nats: Broker
) -> None:
    poison = [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'{"ride_id": "\\ud800", "ride": {}}',
        json.dumps({"ride_id": "", "ride": {}}).encode(),
        json.dumps({"ride": {}}).encode(),
        ride("far away", pickup_longitude=0),
        ride("late", pickup_datetime="2015-03-14T18:05:00Z"),
        b"x" * 900_000,
    ]
    with consumers(home.home, nats.url):
        nats.send(*poison, ride("good"))
        wait(lambda: len(nats.refused()) == len(poison) and len(nats.quotes()) == 1)
        nats.send(ride("good", passenger_count=2))
        wait(lambda: len(nats.refused()) == len(poison) + 1)
        # What rides came to, on its subject: what is none is refused, what another target is told is its own business.
        nats.send(b"[", b'{"ride_id": 1}', outcome("good"), outcome("good"), outcome(7, "min"), subject=OUTCOMES)
        wait(lambda: len(home.outcomes_logged()) == 2 and len(nats.refused()) == len(poison) + 3)
    assert {(told.ride_id, told.truth, told.unit) for told in home.outcomes_logged()} == {("good", 12.5, "USD")}
    refused = nats.refused()[:-2]
    assert ids(nats.quotes()) == {"good": 1}
    assert [each["sequence"] for each in refused[:-1]] == list(range(1, len(poison) + 1))
    by_id = {each["ride_id"]: each["problem"] for each in refused if each["ride_id"]}
    assert by_id["far away"]["errors"] == [
        {"field": "pickup_longitude", "expected": "degrees from -74.3 to -73.7", "received": "0"}
    ]
    assert by_id["late"]["errors"][0]["field"] == "pickup_datetime"
    assert by_id["good"]["detail"].startswith("ride_id: expected an id of its own")
    assert json.loads(refused[7]["received"])["ride_id"] == "far away"
    assert all(len(each["received"]) <= 10_000 for each in refused)


_DIES = "os.kill(os.getpid(), 9)"

KILLS = {
    "before anything is kept": f"import os, nats.js.kv as kv; kv.KeyValue.create = lambda *_: {_DIES}",
    "when kept, before it is sent": (
        "import os, nats.js as js; send = js.JetStreamContext.publish\n"
        "def publish(self, subject, *rest, **options):\n"
        f"    return {_DIES} if subject.startswith('taxifare.quotes') else send(self, subject, *rest, **options)\n"
        "js.JetStreamContext.publish = publish"
    ),
    "when sent, before it is acknowledged": f"import os, nats.aio.msg as msg; msg.Msg.ack = lambda *_: {_DIES}",
}


@pytest.mark.parametrize(
    "moment",
    [pytest.param(moment, marks=[pytest.mark.slow] * (moment == "before anything is kept")) for moment in KILLS],
)
def test_killed_at_any_moment_across_a_promotion(home: Installation, nats: Broker, moment: str) -> None:
    rides = [f"ride {number}" for number in range(300)]
    nats.send(*map(ride, rides))
    with consumers(home.home, nats.url, prelude=KILLS[moment]) as (consumer,):
        assert consumer.wait(20) == -signal.SIGKILL
    before = nats.quotes()
    assert bool(before) == (moment == "when sent, before it is acknowledged")
    home.promote("4")
    with consumers(home.home, nats.url):
        wait(lambda: len(ids(nats.quotes())) == len(rides))
    quotes = nats.quotes()
    ensure_each_has_one_price(quotes)
    versions = {quote["ride_id"]: quote["model_version"] for quote in quotes}
    assert set(versions) == set(rides)
    assert set(versions.values()) == ({"4"} if moment == "before anything is kept" else {"3", "4"})
    assert {(answer.ride_id, answer.version) for answer in home.answers_logged()} == set(versions.items())


@pytest.mark.slow
def test_killed_again_and_again_across_promotions(home: Installation, nats: Broker) -> None:
    rides = [f"ride {number}" for number in range(3000)]
    nats.send(*map(ride, rides))
    for kill in range(8):
        with consumers(home.home, nats.url, 2):
            before = len(nats.quotes())
            wait(lambda before=before: len(nats.quotes()) > before or len(ids(nats.quotes())) == len(rides))
        home.promote(str(4 + kill))
    with consumers(home.home, nats.url):
        wait(lambda: len(ids(nats.quotes())) == len(rides), patience_s=60)
    ensure_each_has_one_price(nats.quotes())
    assert set(ids(nats.quotes())) == set(rides)


def test_the_broker_restarts_and_several_consumers_share_the_work(home: Installation, nats: Broker) -> None:
    rides = [f"ride {number}" for number in range(900)]
    with consumers(home.home, nats.url, 2):
        wait(lambda: log_of(home).count("are priced") == 2)
        nats.send(*map(ride, rides[:300]))
        nats.stop(signal.SIGKILL)
        home.promote("4")
        nats.start()
        nats.send(*map(ride, rides[300:600]))
        nats.stop()
        nats.start()
        nats.send(*map(ride, rides[600:]))
        wait(lambda: len(ids(nats.quotes())) == len(rides), patience_s=60)
    ensure_each_has_one_price(nats.quotes())
    writers = {path for path in (home.home / "prediction-log").iterdir() if path.stat().st_size}
    assert len(writers) == 2


def test_fare_and_duration_have_every_ride(home: Installation, nats: Broker, tmp_path: Path) -> None:
    minutes = tmp_path / "bundles"
    digest = make_bundle(minutes, "2", target="duration")
    rides = [f"ride {number}" for number in range(20)]
    duration = {"TARGET": "duration", "SERVICE_MODEL_PATH": str(minutes / digest)}
    with consumers(home.home, nats.url), consumers(tmp_path / "other", nats.url, **duration):
        nats.send(*map(ride, rides))
        wait(lambda: len(nats.quotes()) == len(nats.quotes("duration")) == len(rides))
    assert set(ids(nats.quotes())) == set(ids(nats.quotes("duration"))) == set(rides)
    assert {quote["unit"] for quote in nats.quotes("duration")} == {"min"}


@pytest.mark.slow
def test_rides_wait_for_a_model_and_for_the_broker(tmp_path: Path) -> None:
    with installation(tmp_path / "home") as home, broker(tmp_path / "nats") as nats:
        nats.send(ride("early"))
        nats.stop()
        with consumers(home.home, nats.url) as (consumer,):
            wait(lambda: "STREAM_URL" in log_of(home))
            nats.start()
            wait(lambda: "rides wait: no model is in production" in log_of(home))
            home.promote("3")
            wait(lambda: len(nats.quotes()) == 1)
            nats.stop()
            consumer.send_signal(signal.SIGTERM)
            assert consumer.wait(20) == 0


def test_a_login_is_needed_and_not_told(home: Installation, tmp_path: Path) -> None:
    with broker(tmp_path / "nats", ("dispatch", "pass/word 1")) as nats:
        place = nats.url.removeprefix("nats://")
        with consumers(home.home, f"nats://dispatch:wrong-password@{place}") as (consumer,):
            assert consumer.wait(20) == 1
        assert "expected a login that the server takes" in log_of(home)
        assert "wrong-password" not in log_of(home)
        assert "Traceback" not in log_of(home)
        with consumers(home.home, f"nats://dispatch:pass%2Fword%201@{place}") as (consumer,):
            nats.send(ride("a"))
            wait(lambda: len(nats.quotes()) == 1)
            nats.stop()
            nats.login = ("dispatch", "another")
            nats.start()
            assert consumer.wait(20) == 1
        assert "Traceback" not in log_of(home)


@pytest.mark.slow
def test_a_stream_that_gives_each_ride_once_is_told(home: Installation, tmp_path: Path) -> None:
    with broker(tmp_path / "nats") as nats:

        async def make_queue(stream: Any) -> None:
            await stream.delete_stream("rides")
            await stream.add_stream(name="rides", subjects=["taxifare.rides"], retention="workqueue")
            await stream.add_consumer("rides", durable_name="somebody")

        nats.do(make_queue)
        with consumers(home.home, nats.url) as (consumer,):
            assert consumer.wait(20) == 1
    assert "that keep their messages for each consumer" in log_of(home)


def test_what_was_deleted_is_made_again(home: Installation, nats: Broker) -> None:
    async def delete(stream: Any) -> None:
        await stream.delete_consumer("rides", "taxifare-new-york-fare")
        await stream.delete_key_value("taxifare-new-york-fare")
        await stream.delete_stream("taxifare-quotes")

    with consumers(home.home, nats.url):
        nats.send(ride("a"))
        wait(lambda: len(nats.quotes()) == 1)
        nats.do(delete)
        nats.send(ride("b"))
        wait(lambda: set(ids(nats.quotes())) == {"a", "b"})
    ensure_each_has_one_price(nats.quotes())


@pytest.mark.slow
def test_the_demo_shows_a_day_with_a_promotion(home: Installation) -> None:
    nothing = demo(home.home)
    assert (nothing.returncode, "run `make demo` first" in nothing.stderr) == (1, True)
    promoted = in_force.read(UPath(home.home / "lake"))
    assert promoted is not None
    digest = make_bundle(home.bundles, "4")
    later = msgspec.structs.replace(promoted, sequence=2, version="4", digest=digest, replaced_version="3")
    in_force.publish(UPath(home.home / "lake"), later)
    shown = demo(home.home)
    assert shown.returncode == 0, shown.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines() if "│" in line]
    counts = {row[0]: int(row[1]) for row in rows}
    assert min(counts["quoted by version 3"], counts["quoted by version 4"]) > 100
    assert counts["quoted again, as at first"] > 5
    assert counts["quoted again, otherwise"] == 0
    assert sum(count for name, count in counts.items() if name.startswith("refused")) > 0


def demo(home: Path) -> subprocess.CompletedProcess[str]:
    """What `make stream-demo` runs."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TAXIFARE_HOME": str(home), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "taxifare_dagster.stream_demo"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
