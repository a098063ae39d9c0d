"""The service as clients meet it: a process of its own, asked over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from upath import UPath

from taxifare.monitoring.gathering import gather
from taxifare.monitoring.joining import join
from taxifare.serving.bundle import NETWORK
from taxifare.serving.collecting import collect_logs
from taxifare.serving.zones import zones_of
from taxifare.trips.months import parse_month
from tests.support.bundles import ABSENT_WHERE_SERVED
from tests.support.prometheus import prometheus
from tests.support.services import RIDE, Installation, fare_usd, installation, make_bundle
from tests.support.small import small_settings

pytestmark = pytest.mark.end_to_end

FOLLOWS_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service that has version 3 in production, for tests that change nothing."""
    with installation(tmp_path_factory.mktemp("service")) as made:
        made.promote("3")
        made.start()
        made.wait(lambda: made.get("/health/ready").ok)
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Installation]:
    """An installation of a test's own; its service is not started."""
    with installation(tmp_path) as made:
        yield made


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in RIDE.items() if key != name}


def test_a_ride_is_priced_with_the_version_in_production(running: Installation) -> None:
    answer = running.price("ride 7")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    fare = told.pop("fare")
    assert fare == pytest.approx(fare_usd("3"), abs=0.005)
    assert told == {
        "ride_id": "ride 7",
        "upper": pytest.approx(1.2 * fare, abs=0.005),
        "corrected": pytest.approx(1.1 * fare, abs=0.005),
        "quoted": round(2 * fare) / 2,
        "unit": "USD",
        "model_version": "3",
        "sequence": 1,
        "warnings": [],
    }


def test_a_ride_may_name_taxi_zones(running: Installation) -> None:
    ride = {"pickup_datetime": RIDE["pickup_datetime"], "passenger_count": 1, "PULocationID": 132, "DOLocationID": 230}
    told = running.post("/predict", {"ride_id": 256, "ride": ride}).json()
    jfk, times_square = (zones_of("new-york")[number] for number in (132, 230))
    ends = {"pickup_longitude": jfk[0], "pickup_latitude": jfk[1]}
    ends |= {"dropoff_longitude": times_square[0], "dropoff_latitude": times_square[1]}
    assert told["fare"] == pytest.approx(fare_usd("3", ends), abs=0.005)
    unknown = running.post("/predict", {"ride_id": 256, "ride": {**ride, "DOLocationID": 264}})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "DOLocationID")
    assert running.post("/predict", {"ride_id": 256, "ride": {**RIDE, "DOLocationID": 230}}).status_code == 422


def test_a_batch_is_answered_by_one_version_and_a_bad_ride_spoils_no_other(running: Installation) -> None:
    rides = [{"ride_id": number, "ride": RIDE} for number in range(400)]
    rides[7]["ride"] = {**RIDE, "pickup_longitude": 0}
    told = running.post("/predict/batch", {"rides": rides}).json()
    assert [answer["ride_id"] for answer in told["answers"]] == list(range(400))
    assert [number for number, answer in enumerate(told["answers"]) if "problem" in answer] == [7]
    assert told["answers"][7]["problem"]["errors"][0]["field"] == "pickup_longitude"
    assert {answer["fare"] for answer in told["answers"] if "fare" in answer} == {running.price().json()["fare"]}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": list(RIDE), "data": [list(RIDE.values())] * 2}},
        {"dataframe_records": [RIDE, RIDE]},
        {"instances": [RIDE, RIDE]},
        {"inputs": {name: [value, value] for name, value in RIDE.items()}},
        {"inputs": [RIDE, RIDE]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_clients_of_mlflow_go_on(running: Installation, body: dict[str, Any]) -> None:
    told = running.price().json()
    answer = running.post("/invocations", body)
    assert answer.json() == {"predictions": [told["fare"]] * 2}
    assert answer.headers["model-version"] == "3"
    corrected = running.post("/invocations", body | {"params": {"corrected": True}}).json()
    assert corrected == {"predictions": [told["corrected"]] * 2}


@pytest.mark.parametrize(
    ("ride", "field", "received"),
    [
        (without("pickup_latitude"), "pickup_latitude", "nothing"),
        ({**RIDE, "pickup_latitude": "40.75"}, "pickup_latitude", "'40.75'"),
        ({**RIDE, "pickup_longitude": 0}, "pickup_longitude", "0"),
        ({**RIDE, "dropoff_longitude": 1e9}, "dropoff_longitude", "1000000000.0"),
        ({**RIDE, "dropoff_latitude": None}, "dropoff_latitude", "None"),
        ({**RIDE, "passenger_count": 208}, "passenger_count", "208"),
        ({**RIDE, "passenger_count": True}, "passenger_count", "True"),
        ({**RIDE, "pickup_datetime": "2015-03-14 18:05:00+00:00"}, "pickup_datetime", "'2015-03-14 18:05:00+00:00'"),
        ({**RIDE, "pickup_datetime": "2015-02-30 18:05"}, "pickup_datetime", "'2015-02-30 18:05'"),
        ({**RIDE, "pickup_datetime": "1815-03-14 18:05"}, "pickup_datetime", "'1815-03-14 18:05'"),
        ({**RIDE, "pickup_datetime": 1426356300}, "pickup_datetime", "1426356300"),
        ({**RIDE, "fare_amount": 9.5}, "fare_amount", "9.5"),
        ({**RIDE, "dropoff_datetime": "2015-03-14 18:25"}, "dropoff_datetime", "'2015-03-14 18:25'"),
        ({**RIDE, "trip_distance": 3.1}, "trip_distance", "3.1"),
        ({**RIDE, "tip": 3.1}, "tip", "3.1"),
        ([RIDE], "ride", None),
        (None, "ride", "None"),
    ],
)
def test_a_ride_that_cannot_be_priced_is_told_which_field_what_was_expected_and_what_came(
    running: Installation, ride: Any, field: str, received: str | None
) -> None:
    answer = running.post("/predict", {"ride_id": 1, "ride": ride})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert error["expected"]
    assert received is None or error["received"] == received


def test_what_explains_a_ride_s_faults_is_told_over_http_as_well(running: Installation) -> None:
    swapped = {**RIDE, "pickup_longitude": RIDE["pickup_latitude"], "pickup_latitude": RIDE["pickup_longitude"]}
    answer = running.post("/predict", {"ride_id": 1, "ride": swapped})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["pickup_longitude", "pickup_latitude"]
    assert answer.json()["detail"].endswith("; pickup: longitude and latitude are swapped")


@pytest.mark.parametrize(
    ("method", "path", "body", "content_type", "status"),
    [
        ("POST", "/predict", b"{", "application/json", 400),
        ("POST", "/predict", b'{"ride_id": NaN}', "application/json", 400),
        ("POST", "/predict", b"\xff", "application/json", 400),
        ("POST", "/predict", b"[" * 100_000, "application/json", 400),
        ("POST", "/predict", b"", "application/json", 400),
        ("POST", "/predict", b"[]", "application/json", 422),
        ("POST", "/predict", b'{"ride_id": 1}', "application/json", 422),
        ("POST", "/predict", b'{"ride_id": "", "ride": {}}', "application/json", 422),
        ("POST", "/predict/batch", b'{"rides": []}', "application/json", 422),
        ("POST", "/invocations", b'{"rides": []}', "application/json", 422),
        ("POST", "/invocations", b'{"inputs": {"a": [1], "b": [1, 2]}}', "application/json", 422),
        ("POST", "/predict", b"{}" + b" " * (5 << 20), "application/json", 413),
        ("POST", "/predict/batch", json.dumps({"rides": [1] * 10_001}).encode(), "application/json", 413),
        ("POST", "/predict", b"{}", "text/csv", 415),
        ("POST", "/predict", b"{}", "application/json; charset=latin-1", 415),
        ("GET", "/predict", b"", "", 405),
        ("DELETE", "/model", b"", "", 405),
        ("GET", "/nothing", b"", "", 404),
        ("GET", "/%ff%00/..", b"", "", 404),
    ],
)
def test_what_is_no_request_for_a_price_is_answered_with_a_problem(
    running: Installation, method: str, path: str, body: bytes, content_type: str, status: int
) -> None:
    answer = requests.request(
        method,
        running.url + path,
        data=body,
        headers={"Content-Type": content_type} if content_type else {},
        timeout=10,
    )
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


def test_who_is_slow_is_not_waited_for_and_keeps_nobody_waiting(running: Installation) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n"
    with running.connection() as slow_body, running.connection() as slow_head:
        slow_body.sendall(head + b"\r\n{")
        slow_head.sendall(head)
        assert running.price().ok
        answers = slow_body.recv(1 << 16), slow_head.recv(1 << 16)
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer
        assert b"application/problem+json" in answer


def test_who_comes_when_too_many_are_waiting_is_told_when_to_come_again(running: Installation) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    with ExitStack() as waiting:
        for _ in range(512):
            waiting.enter_context(running.connection()).sendall(head)
        running.wait(lambda: running.price().status_code == 503)
        answer = running.price()
        assert (answer.headers["retry-after"], answer.json()["status"]) == ("1", 503)
        assert running.get("/health/ready").ok
    running.wait(lambda: running.price().ok)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /docs HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(100)), 431),
        (b"GET /docs HTTP/1.1\r\nX: " + b"a" * 100_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_request_is_ended_with_a_problem(running: Installation, sent: bytes, status: int) -> None:
    with running.connection() as connection:
        connection.sendall(sent)
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert b"application/problem+json" in answer
    assert running.price().ok


def test_answers_are_on_the_log_before_they_are_given(running: Installation) -> None:
    told = running.price("ride on the log").json()
    (line,) = [answer for answer in running.answers_logged() if answer.ride_id == "ride on the log"]
    assert (line.version, line.sequence, line.role, line.fare) == ("3", 1, "production", told["fare"])
    assert line.ride == RIDE
    assert line.received_at <= line.answered_at


def test_what_is_in_shadow_is_followed_logged_beside_production_and_given_to_nobody(running: Installation) -> None:
    def shadow() -> dict[str, Any]:
        found: dict[str, Any] = running.get("/model").json()["shadow"]
        return found

    running.put_in_shadow("5")
    running.wait(lambda: shadow()["bundle"] is not None, FOLLOWS_WITHIN_S)
    assert running.price("ride in shadow").json()["fare"] == pytest.approx(fare_usd("3"), abs=0.005)
    running.post("/predict/batch", {"rides": [{"ride_id": f"shadow {number}", "ride": RIDE} for number in range(3)]})
    running.wait(lambda: shadow()["priced"] == 4)
    lines = [answer for answer in running.answers_logged() if answer.role == "shadow"]
    assert {line.ride_id for line in lines} == {"ride in shadow", "shadow 0", "shadow 1", "shadow 2"}
    assert {(line.version, line.sequence) for line in lines} == {("5", 1)}
    assert lines[0].fare == pytest.approx(fare_usd("5"), abs=0.005)
    assert (shadow()["request_id"], shadow()["dropped"], shadow()["fault"]) == ("2015-02-v5", 0, None)
    assert 'taxifare_shadow_rides_priced_total{version="5"} 4.0' in running.get("/metrics").text
    damaged = make_bundle(running.bundles, "6")
    network = running.bundles / damaged / NETWORK
    network.write_bytes(network.read_bytes()[:-9])
    running.put_in_shadow("6", digest=damaged)
    running.wait(lambda: shadow()["fault"] is not None, FOLLOWS_WITHIN_S)
    assert "version 6 is refused" in shadow()["fault"]
    assert "shadow: version 6 is refused" in running.log_file.read_text()
    assert running.get("/model").json()["behind"] is None
    assert running.serves("3")
    running.put_in_shadow(None)
    running.wait(lambda: shadow()["version"] is None and shadow()["fault"] is None, FOLLOWS_WITHIN_S)
    assert shadow()["priced"] == 4


def test_what_rides_came_to_is_on_a_log_of_its_own_before_it_is_answered_for(running: Installation) -> None:
    told = [{"ride_id": ride_id, "truth": 12.5, "unit": "USD"} for ride_id in ("a", 7, "a")]
    answer = running.post("/outcomes", {"outcomes": told})
    assert (answer.status_code, answer.json()) == (200, {"kept": 3})
    lines = running.outcomes_logged()
    assert [(line.ride_id, line.truth, line.unit) for line in lines] == [(id_, 12.5, "USD") for id_ in ("a", 7, "a")]
    bad = {"ride_id": True, "truth": "12.5", "unit": "min"}
    refused = running.post("/outcomes", {"outcomes": [told[0], bad, {**told[0], "truth": 400}, {"ride_id": 1}]})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
    assert [error["field"] for error in refused.json()["errors"]] == [
        *(f"outcome 1: {name}" for name in ("ride_id", "truth", "unit")),
        *("outcome 2: truth", "outcome 3: truth", "outcome 3: unit"),
    ]
    assert len(running.outcomes_logged()) == 3, "all of it or none"
    for body in ({}, {"outcomes": []}, {"outcomes": told, "more": 1}, {"outcomes": "none"}, []):
        assert running.post("/outcomes", body).status_code == 422
    assert running.post("/outcomes", {"outcomes": told * 4000}).status_code == 413
    assert running.get("/outcomes").status_code == 405
    assert "taxifare_outcomes_told_total 3.0" in running.get("/metrics").text


def test_it_tells_what_it_serves_by_whom_and_how_it_is_asked(running: Installation) -> None:
    running.price()
    model = running.get("/model").json()
    assert (model["manifest"]["version"], model["promotion"]["by"], model["behind"]) == ("3", "ada", None)
    assert 'taxifare_rides_priced_total{version="3"}' in running.get("/metrics").text
    assert "/predict/batch" in running.get("/openapi.json").json()["paths"]
    page = running.get("/docs").text
    assert "/predict/batch" in page
    assert "http" not in page.replace("<!doctype html>", "")
    assert running.get("/model", headers={"Host": "elsewhere"}).ok
    head = requests.head(running.url + "/model", timeout=10)
    assert (head.status_code, head.content) == (200, b"")


def test_a_rule_in_force_that_the_version_has_not_learned_is_a_warning(fresh: Installation) -> None:
    digest = make_bundle(fresh.bundles, "3", rules=("tolls_2010_12", "fares_2012_09", "tolls_2013_03"))
    fresh.promote("3", digest=digest)
    fresh.start()
    fresh.wait(lambda: fresh.serves("3"))
    assert fresh.price(pickup_datetime="2015-03-21 23:59").json()["warnings"] == []
    (warning,) = fresh.price(pickup_datetime="2015-03-22 00:00").json()["warnings"]
    assert warning.startswith("tolls_2015_03 ")
    # What those rides came to is told before and after they are priced, twice, and of one that nobody has priced.
    told = [{"ride_id": ride_id, "truth": 12.5, "unit": "USD"} for ride_id in ("first told", "never priced")]
    for outcomes in (told, told, [told[0] | {"ride_id": "a ride"}]):
        assert fresh.post("/outcomes", {"outcomes": outcomes}).ok
    assert fresh.price("first told").ok
    assert fresh.price("never told").ok
    fresh.stop(signal.SIGTERM)
    settings = small_settings(fresh.home)
    for answers, outcomes in ((1, 1), (0, 0)):
        found = collect_logs(settings)
        assert (found[0].segments, found[1].segments) == (answers, outcomes)
        place, joined = (settings.lake / f"{name}.parquet" for name in ("predictions", "outcomes"))
        assert gather(place, parse_month("2015-03"), settings).rides == 3
        assert join(place, joined, None, settings).fates == {"told": 2, "waiting": 1}


def test_a_promotion_and_a_rollback_are_followed_within_seconds(fresh: Installation) -> None:
    fresh.start()
    assert fresh.price().status_code == 503
    assert "no model is in production" in fresh.price().json()["detail"]
    assert fresh.get("/health/ready").status_code == 503
    for version in ("1", "2", "1"):
        fresh.promote(version)
        fresh.wait(lambda version=version: fresh.serves(version), FOLLOWS_WITHIN_S)
        assert fresh.price().json()["sequence"] == fresh.sequence
    fresh.promote(None)
    fresh.wait(lambda: fresh.price().status_code == 503, FOLLOWS_WITHIN_S)
    assert 'taxifare rollback --to 1 --by YOU --reason "WHY" puts version 1 back' in fresh.price().json()["detail"]


_DAMAGE = ["a byte", *(pytest.param(each, marks=pytest.mark.slow) for each in ("cut", "absent", "another city"))]


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_bundle_that_is_not_fit_is_refused_and_the_old_one_goes_on(fresh: Installation, damage: str) -> None:
    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    digest = make_bundle(fresh.bundles, "2", city="chicago" if damage == "another city" else "new-york")
    network = fresh.bundles / digest / NETWORK
    content = bytearray(network.read_bytes())
    content[-9] ^= 1
    if damage == "a byte":
        network.write_bytes(content)
    elif damage == "cut":
        network.write_bytes(content[:-9])
    elif damage == "absent":
        network.unlink()
    fresh.promote("2", digest=digest)
    fresh.wait(lambda: fresh.get("/model").json()["behind"] is not None, FOLLOWS_WITHIN_S)
    assert "version 2 of promotion 2 is refused" in fresh.get("/model").json()["behind"]
    assert fresh.serves("1")
    assert "taxifare_behind 1.0" in fresh.get("/metrics").text
    fresh.promote("3")
    fresh.wait(lambda: fresh.serves("3"), FOLLOWS_WITHIN_S)
    assert fresh.get("/model").json()["behind"] is None


def test_prometheus_sees_that_it_does_not_price_with_what_is_in_production(fresh: Installation) -> None:
    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    with prometheus(fresh.home / "prometheus", taxifare_service=f"127.0.0.1:{fresh.port}") as watching:
        fresh.wait(watching.has_scraped, 60)
        assert watching.firing() == {}
        damaged = make_bundle(fresh.bundles, "2")
        (fresh.bundles / damaged / NETWORK).unlink()
        fresh.promote("2", digest=damaged)
        fresh.wait(lambda: "TaxifareServiceBehind" in watching.firing(), 60)
        told = watching.firing()["TaxifareServiceBehind"]
        assert told == f"The service at 127.0.0.1:{fresh.port} does not price with what is in production"
        fresh.promote("3")
        fresh.wait(lambda: "TaxifareServiceBehind" not in watching.firing(), 60)


def test_with_the_lake_away_the_last_good_one_goes_on_says_so_and_starts_again(fresh: Installation) -> None:
    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    fresh.bundles.parent.rename(fresh.home / "away")
    fresh.wait(lambda: fresh.get("/model").json()["behind"] is not None, FOLLOWS_WITHIN_S)
    assert fresh.serves("1")
    fresh.stop()
    fresh.start()
    fresh.wait(lambda: fresh.get("/health/ready").ok)
    assert fresh.serves("1")
    assert fresh.get("/model").json()["behind"] is not None
    (fresh.home / "away").rename(fresh.bundles.parent)
    fresh.promote("2")
    fresh.wait(lambda: fresh.serves("2"), FOLLOWS_WITHIN_S)


@pytest.mark.parametrize("kind", [pytest.param("bucket", marks=pytest.mark.slow), "s3_bucket"])
def test_a_bucket_is_followed_and_served_from(fresh: Installation, kind: str, request: pytest.FixtureRequest) -> None:
    bucket: str = request.getfixturevalue(kind)
    fresh.lake = UPath(bucket, use_listings_cache=False)
    fresh.start(STORAGE_URI=bucket)
    assert fresh.price().status_code == 503
    digest = fresh.promote("1")
    fresh.wait(lambda: fresh.serves("1"), FOLLOWS_WITHIN_S)
    fresh.promote("2")
    fresh.wait(lambda: fresh.serves("2"), FOLLOWS_WITHIN_S)
    fresh.stop()
    fresh.start(SERVICE_MODEL_PATH=f"{bucket}/bundles/{digest}")
    assert fresh.serves("1")


@pytest.mark.slow
def test_an_older_promotion_that_comes_back_is_not_followed(fresh: Installation) -> None:
    fresh.promote("1")
    published = fresh.bundles / "in-force.json"
    before = published.read_bytes()
    fresh.promote("2")
    fresh.start()
    fresh.wait(lambda: fresh.serves("2"))
    published.write_bytes(before)
    fresh.wait(lambda: fresh.get("/model").json()["behind"] is not None, FOLLOWS_WITHIN_S)
    assert fresh.serves("2")


def test_one_bundle_is_served_whatever_is_in_production(fresh: Installation) -> None:
    digest = make_bundle(fresh.home / "elsewhere", "7")
    fresh.start(SERVICE_MODEL_PATH=str(fresh.home / "elsewhere" / digest))
    fresh.promote("1")
    told = fresh.price().json()
    assert (told["model_version"], told["sequence"]) == ("7", None)


def test_a_bundle_that_is_not_there_ends_the_service_with_a_word(fresh: Installation) -> None:
    """With 1: what the setting names is missing; 2 is for a setting that is wrong as it is written."""
    fresh.launch(SERVICE_MODEL_PATH=str(fresh.home / "nowhere"))
    assert fresh.process is not None
    assert fresh.process.wait(20) == 1
    assert "SERVICE_MODEL_PATH" in fresh.log_file.read_text()
    assert "Traceback" not in fresh.log_file.read_text()


def test_beyond_loopback_a_token_is_required(fresh: Installation) -> None:
    fresh.launch(SERVICE_LISTEN=f"0.0.0.0:{fresh.port}")
    assert fresh.process is not None
    assert fresh.process.wait(20) == 2
    assert "SERVICE_TOKEN" in fresh.log_file.read_text()
    fresh.promote("1")
    fresh.start(SERVICE_LISTEN=f"0.0.0.0:{fresh.port}", SERVICE_TOKEN="open-sesame")
    fresh.wait(lambda: fresh.get("/health/ready").ok)
    for header in ({}, {"Authorization": "Bearer open"}, {"Authorization": "open-sesame"}):
        answer = fresh.post("/predict", {"ride_id": 1, "ride": RIDE}, headers=header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "open-sesame" not in answer.text
    assert fresh.get("/model").status_code == 401
    assert fresh.post("/predict", {"ride_id": 1, "ride": RIDE}, headers={"Authorization": "Bearer open-sesame"}).ok


def test_what_training_needs_is_not_there_and_rides_are_priced(fresh: Installation) -> None:
    blocked = [*ABSENT_WHERE_SERVED, "alembic", "matplotlib"]
    program = (
        "import runpy, sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "runpy.run_module('taxifare.serving', run_name='__main__')"
    )
    fresh.promote("1")
    fresh.launch("-c", program)
    fresh.wait(lambda: fresh.serves("1"))


def test_promotions_under_load_change_all_answers_and_fail_none(fresh: Installation) -> None:
    under_load(fresh, promotions=2, clients=4)


@pytest.mark.slow
def test_promotions_and_rollbacks_under_load_for_a_minute(fresh: Installation) -> None:
    under_load(fresh, promotions=50, clients=6)


def under_load(fresh: Installation, promotions: int, clients: int) -> None:
    """Promotes and rolls back while clients ask; each answer is that of the version it names, and none fails."""
    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    ended = False
    fares = {version: fare_usd(version) for version in ("1", "2")}

    def ask(client: int) -> tuple[int, list[str]]:
        wrong, asked = [], 0
        with requests.Session() as session:
            while not ended:
                asked += 1
                body = {"ride_id": f"{client}-{asked}", "ride": RIDE}
                answer = session.post(fresh.url + "/predict", json=body, timeout=10)
                told = answer.json()
                is_right = answer.ok and abs(told["fare"] - fares[told["model_version"]]) < 0.005
                if not is_right or (told["model_version"] == "1") != (told["sequence"] % 2 == 1):
                    wrong.append(answer.text)
        return asked, wrong

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, client) for client in range(clients)]
        for number in range(promotions):
            version = "1" if number % 2 else "2"
            fresh.promote(version)
            fresh.wait(lambda version=version: fresh.serves(version), FOLLOWS_WITHIN_S)
        ended = True
        results = [each.result() for each in asking]
    assert not [wrong for _, found in results for wrong in found]
    logged = [answer for answer in fresh.answers_logged() if answer.ride_id != "a ride"]
    assert len(logged) == sum(asked for asked, _ in results)


@pytest.mark.slow
def test_a_process_that_is_told_to_end_cuts_nobody_off(fresh: Installation) -> None:
    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    drained(fresh)


def test_several_processes_drain_as_one(fresh: Installation) -> None:
    fresh.promote("1")
    fresh.start(SERVICE_WORKERS="2")
    fresh.wait(lambda: fresh.serves("1"))
    drained(fresh)


def drained(fresh: Installation) -> None:
    """Ends the service while clients ask: each request is answered, or its connection refused before it is sent."""
    faults: list[str] = []
    saw_unready = False

    def ask(_: int) -> int:
        answered = 0
        with requests.Session() as session:
            while True:
                try:
                    answer = session.post(fresh.url + "/predict", json={"ride_id": 1, "ride": RIDE}, timeout=10)
                except requests.ConnectionError as error:
                    if "Connection refused" not in str(error):
                        faults.append(str(error))
                    return answered
                if not answer.ok:
                    faults.append(answer.text)
                answered += 1

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, client) for client in range(8)]
        time.sleep(0.5)
        assert fresh.process is not None
        fresh.process.terminate()
        time.sleep(1.0)
        unready = fresh.get("/health/ready")
        saw_unready = unready.status_code == 503 and unready.headers["connection"] == "close"
        assert fresh.process.wait(30) == 0
        answered = [each.result() for each in asking]
    fresh.process = None
    assert not faults
    assert min(answered) > 0
    assert saw_unready


def test_a_process_that_is_killed_is_started_anew_and_what_was_answered_is_on_the_log(fresh: Installation) -> None:
    fresh.promote("1")
    fresh.start(SERVICE_WORKERS="2")
    assert fresh.process is not None
    parent, ended = fresh.process.pid, False

    def ask(client: int) -> list[str]:
        answered: list[str] = []
        number = 0
        while not ended:
            number += 1
            with suppress(requests.ConnectionError):
                if fresh.price(f"{client}-{number}").ok:
                    answered.append(f"{client}-{number}")
        return answered

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, client) for client in range(4)]
        time.sleep(0.5)
        workers = children(parent)
        os.kill(workers[0], signal.SIGKILL)
        fresh.wait(lambda: len(children(parent)) == 2 and workers[0] not in children(parent))
        time.sleep(0.5)
        ended = True
        answered = {ride_id for each in asking for ride_id in each.result()}
    assert {answer.ride_id for answer in fresh.answers_logged()} >= answered
    fresh.wait(lambda: all(fresh.serves("1") for _ in range(20)))
    assert "taxifare_rides_priced_total" in fresh.get("/metrics").text


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return sorted(map(int, found.stdout.split()))


def test_a_full_disk_stops_the_log_and_not_the_prices(fresh: Installation) -> None:
    import resource

    fresh.promote("1")
    fresh.start()
    fresh.wait(lambda: fresh.serves("1"))
    assert fresh.process is not None
    resource.prlimit(fresh.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    assert all(fresh.price(number).ok for number in range(10))
    log = fresh.get("/model").json()["prediction_log"]
    assert log["lost"] >= 9
    assert log["fault"] == "File too large"
    assert "taxifare_log_lost_total" in fresh.get("/metrics").text
    assert "the prediction log is not written" in fresh.log_file.read_text()
    told = {"outcomes": [{"ride_id": f"ride {number}", "truth": 9.5, "unit": "USD"} for number in range(30)]}
    refused = fresh.post("/outcomes", told)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert not fresh.outcomes_logged()


def fuzzed(running: Installation, examples: int, phases: str = "coverage,fuzzing") -> None:
    """Asks whatever the schema allows and forbids, and fails for each answer that the document does not promise."""
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
        "response_schema_conformance,negative_data_rejection,unsupported_method"
    )
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}/openapi.json", "--checks", checks),
            *("--max-examples", str(examples), "--seed", "1", "--no-color", "--phases", phases),
        ],
        capture_output=True,
        text=True,
        cwd=running.home,
        check=False,
    )
    assert found.returncode == 0, re.sub(r"(?m)^.{2000,}$", "…", found.stdout)[-6000:] + found.stderr[-2000:]


def test_whatever_the_schema_allows_is_answered_as_it_promises(running: Installation) -> None:
    fuzzed(running, examples=8, phases="fuzzing")


@pytest.mark.slow
def test_whatever_the_schema_allows_is_answered_as_it_promises_for_long(running: Installation) -> None:
    fuzzed(running, examples=500)
