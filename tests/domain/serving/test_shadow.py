"""What is in shadow prices what production has priced, when nobody waits, and nobody is given it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from taxifare.environment import ServiceSettings
from taxifare.serving import in_shadow
from taxifare.serving.apart import apart
from taxifare.serving.app import Service
from taxifare.serving.asking import asked_of
from taxifare.serving.following import Follower
from taxifare.serving.metrics import Metrics
from taxifare.serving.outcome_log import OutcomeLog
from taxifare.serving.outcome_log import folder_in as outcomes_in
from taxifare.serving.prediction_log import Answer, PredictionLog, Role, folder_in
from taxifare.serving.shadow import Shadow, StagingFollower
from taxifare.trips.city_files import shipped
from taxifare.trips.targets import FARE
from tests.support.services import RIDE, Installation, base_fare_usd, fare_usd, installation, make_bundle

SCOPE = {"type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"application/json")]}

ROUND_TRIP = {"dropoff_longitude": RIDE["pickup_longitude"], "dropoff_latitude": RIDE["pickup_latitude"]}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    """An installation with version 1 in production and 2 in shadow; no service runs on it."""
    with installation(tmp_path) as made:
        made.promote("1")
        made.put_in_shadow("2")
        yield made


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rides gather for less than a second."""
    monkeypatch.setattr("taxifare.serving.shadow._EVERY_S", 0.02)


class Serving:
    """What a serving process has, in this one."""

    def __init__(self, home: Installation) -> None:
        settings = ServiceSettings(taxifare_home=home.home)
        self.metrics = Metrics()
        self.follower, self.staging = Follower(settings, self.metrics), StagingFollower(settings)
        self.follower.start()
        self.staging.start()
        home.wait(lambda: self.follower.current is not None and self.staging.facts()["version"] is not None)
        home.wait(lambda: self.staging.current is not None or self.staging.fault is not None)
        self.log = PredictionLog(folder_in(home.home), 1)
        self.outcomes = OutcomeLog(outcomes_in(home.home), 1)
        self.service = Service(self.follower, self.log, self.outcomes, FARE, self.metrics, None, self.staging)

    async def price(self, ride_id: str, **changes: Any) -> dict[str, Any]:
        """What a client is answered."""
        body = json.dumps({"ride_id": ride_id, "ride": {**RIDE, **changes}}).encode()
        told = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await self.service(dict(SCOPE), receive, send)
        assert told[0]["status"] == 200
        answer: dict[str, Any] = json.loads(told[1]["body"])
        return answer

    async def told(self) -> dict[str, Any]:
        """What /model says of the shadow."""
        told: list[Any] = []

        async def send(message: Any) -> None:
            told.append(message)

        async def receive() -> dict[str, Any]:
            return {}

        await self.service({**SCOPE, "method": "GET", "path": "/model"}, receive, send)
        found: dict[str, Any] = json.loads(told[1]["body"])["shadow"]
        return found


@contextmanager
def serving(home: Installation) -> Iterator[Serving]:
    made = Serving(home)
    try:
        yield made
    finally:
        made.follower.stop()
        made.staging.stop()
        made.log.close()


async def comes_true(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def logged(home: Installation, role: Role) -> list[Answer]:
    return [answer for answer in home.answers_logged() if answer.role == role]


def test_it_is_written_beside_productions_answers_and_given_to_nobody(home: Installation) -> None:
    async def ask(made: Serving) -> None:
        answers = await asyncio.gather(*(made.price(f"ride {number}") for number in range(5)))
        assert {answer["model_version"] for answer in answers} == {"1"}
        assert [answer["fare"] for answer in answers] == pytest.approx([fare_usd("1")] * 5, abs=0.005)
        await comes_true(lambda: len(logged(home, "shadow")) == 5)
        found = await made.told()
        assert (found["version"], found["sequence"], found["fault"]) == ("2", 1, None)
        assert (found["priced"], found["dropped"]) == (5, 0)
        assert 'taxifare_shadow_rides_priced_total{version="2"} 5.0' in made.metrics.told().decode()

    with serving(home) as made:
        asyncio.run(ask(made))
    assert [line.role for line in home.answers_logged()] == ["production"] * 5 + ["shadow"] * 5
    lines = logged(home, "shadow")
    assert {line.key for line in lines} == {(f"ride {number}", "2", "shadow") for number in range(5)}
    assert {(line.sequence, line.unit) for line in lines} == {(1, "USD")}
    assert [line.fare for line in lines] == pytest.approx([fare_usd("2")] * 5, abs=0.005)
    assert lines[0].ride == RIDE


def test_it_waits_while_anybody_does_and_what_finds_no_room_is_dropped(home: Installation) -> None:
    is_busy = True

    async def ask(made: Serving) -> None:
        nonlocal is_busy
        shadow = Shadow(made.staging, made.log, made.metrics, lambda: is_busy)
        served = made.follower.served()
        rides = [asked_of({"ride_id": n, "ride": RIDE}, datetime.now(UTC), served) for n in range(5_000)]
        shadow.offer(rides, served)
        assert (shadow.priced, shadow.dropped) == (0, 5_000 - 4_096)
        await asyncio.sleep(0.1)
        shadow.offer(rides[:10], served)
        assert (shadow.priced, shadow.dropped) == (0, 5_010 - 4_096)
        is_busy = False
        await comes_true(lambda: shadow.priced == 4_096)
        shadow.offer(rides[:10], served)
        shadow.end()
        await asyncio.sleep(0.05)
        assert (shadow.priced, shadow.dropped) == (4_096, 5_020 - 4_096)
        assert f"taxifare_shadow_rides_dropped_total {shadow.dropped:.1f}" in made.metrics.told().decode()

    with serving(home) as made:
        asyncio.run(ask(made))
    assert len(logged(home, "shadow")) == 4_096


def test_a_version_that_answers_no_price_is_used_no_more_and_nobody_notices(
    home: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    home.put_in_shadow("2", digest=make_bundle(home.bundles, "2", prices_round_trips=False))

    async def ask(made: Serving) -> None:
        await made.price("one")
        await comes_true(lambda: len(logged(home, "shadow")) == 1)
        answer = await made.price("a round trip", **ROUND_TRIP)
        assert answer["fare"] == pytest.approx(base_fare_usd("1"), abs=0.005)
        await comes_true(lambda: made.staging.fault is not None)
        await made.price("another")
        await asyncio.sleep(0.1)
        found = await made.told()
        assert (found["bundle"], found["priced"], found["dropped"]) == (None, 1, 1)
        assert "version 2 is refused: it does not price rides" in found["fault"]
        # Until another is asked about.
        home.put_in_shadow("3")
        await comes_true(lambda: made.staging.current is not None and made.staging.fault is None)
        await made.price("a round trip", **ROUND_TRIP)
        await comes_true(lambda: len(logged(home, "shadow")) == 2)

    with serving(home) as made:
        asyncio.run(ask(made))
    assert {line.key for line in logged(home, "shadow")} == {("one", "2", "shadow"), ("a round trip", "3", "shadow")}
    assert "shadow: version 2 is refused" in caplog.text


def test_rides_beyond_its_own_limits_are_not_priced(home: Installation) -> None:
    home.put_in_shadow("2", digest=make_bundle(home.bundles, "2", latest=datetime(2015, 1, 1)))

    async def ask(made: Serving) -> None:
        await asyncio.gather(made.price("late"), made.price("early", pickup_datetime="2014-12-31 23:00"))
        await comes_true(lambda: len(logged(home, "shadow")) == 1)
        assert (await made.told())["dropped"] == 1

    with serving(home) as made:
        asyncio.run(ask(made))
    assert [line.ride_id for line in logged(home, "shadow")] == ["early"]


def test_beside_another_promotion_it_is_nobodys_question(home: Installation) -> None:
    home.put_in_shadow("2", sequence=7)

    async def ask(made: Serving) -> None:
        await made.price("a ride")
        await asyncio.sleep(0.1)
        assert ((await made.told())["priced"], (await made.told())["dropped"]) == (0, 0)

    with serving(home) as made:
        asyncio.run(ask(made))
    assert logged(home, "shadow") == []


def answer(ride_id: int, role: Role, version: str, fare: float, pickup: str, sequence: int = 1) -> Answer:
    now = datetime.now(UTC)
    return Answer(
        ride_id=ride_id,
        ride={**RIDE, "pickup_datetime": pickup},
        role=role,
        version=version,
        bundle="d" * 64,
        sequence=sequence,
        fare=fare,
        upper=fare,
        corrected=fare,
        quoted=fare,
        unit="USD",
        received_at=now,
        answered_at=now,
    )


def test_how_far_apart_the_prices_lie_is_told_of_rides_that_both_have_priced(home: Installation) -> None:
    found = in_shadow.read(UPath(home.home / "lake"))
    assert found is not None
    answers = [
        *(answer(n, "production", "1", 10.0, "2015-03-14 18:05") for n in range(4)),
        answer(1, "shadow", "2", 10.4, "2015-03-14 18:05"),
        answer(2, "shadow", "2", 9.0, "2015-03-14 18:05"),
        answer(3, "shadow", "9", 99.0, "2015-03-14 18:05"),
        answer(3, "shadow", "2", 99.0, "2015-03-14 18:05", sequence=2),
        answer(7, "shadow", "2", 99.0, "2015-03-14 18:05"),
    ]
    told = apart(answers, found, shipped("new-york").meter)
    assert str(told) == "2 rides: 0.30 USD less than production, on average; 50.0% more than a meter's step apart"
    assert str(apart(answers, found, ())) == "2 rides: 0.30 USD less than production, on average"
    assert apart(answers[:4], found, ()) is None
