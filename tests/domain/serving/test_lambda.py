"""The service as a function of AWS Lambda: events as API Gateway publishes them, the lake in S3."""

import json
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from taxifare.environment import ServiceSettings
from taxifare.serving import prediction_log
from taxifare.serving.aws import Event, function_of
from tests.support.clouds import FORBIDDEN, Front, without_pauses
from tests.support.lambda_events import event
from tests.support.services import RIDE, Installation, fare_usd


def settings_for(home: Path, bucket: str, **changes: Any) -> ServiceSettings:
    """The settings of a function whose disk is `home`."""
    return ServiceSettings(taxifare_home=home, storage_uri=f"{bucket}/lake", **changes)


def said(answer: Event) -> Any:
    """What an answer holds."""
    assert answer["headers"]["content-type"].startswith("application/")
    return json.loads(answer["body"])


def test_a_promotion_is_priced_by_from_the_next_event_on(s3_bucket: str, tmp_path: Path) -> None:
    # Given a function, and a lake in which nothing is in force
    lake = UPath(f"{s3_bucket}/lake", use_listings_cache=False)
    approvals = Installation(tmp_path / "elsewhere", 0, lake=lake)
    function = function_of(settings_for(tmp_path / "disk", s3_bucket))
    asked = event("POST", "/predict", {"ride_id": "a7", "ride": RIDE})
    # Then it says so, as the service does
    assert function(asked, None)["statusCode"] == 503
    # When version 1 is promoted, and later version 2
    for version in ("1", "2"):
        approvals.promote(version)
        # Then the next ride is priced by it, however API Gateway wraps what was sent
        for encoded in (False, True):
            answer = function(event("POST", "/predict", {"ride_id": version, "ride": RIDE}, encoded=encoded), None)
            assert answer["statusCode"] == 200, answer
            assert (said(answer)["model_version"], said(answer)["fare"]) == (
                version,
                pytest.approx(fare_usd(version), abs=1e-4),
            )


def test_what_was_answered_is_in_the_lake_before_it_leaves(
    s3_bucket: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # Given a function that prices by version 1
    s3: Front = request.getfixturevalue("_s3")
    lake = UPath(f"{s3_bucket}/lake", use_listings_cache=False)
    Installation(tmp_path / "elsewhere", 0, lake=lake).promote("1")
    function, collected = function_of(settings_for(tmp_path / "disk", s3_bucket)), prediction_log.collected_in(lake)
    # When a ride is priced
    function(event("POST", "/predict", {"ride_id": "a7", "ride": RIDE}), None)
    # Then its line is in the lake, and nothing is left on a disk that goes with the function
    assert [line.ride_id for line in prediction_log.read(collected)] == ["a7"]
    assert not list((tmp_path / "disk" / "prediction-log").glob("*.jsonl*"))
    # When the bucket takes nothing for a while
    without_pauses(monkeypatch)
    s3.refuses, s3.only = FORBIDDEN["s3"], "PUT"
    assert function(event("POST", "/predict", {"ride_id": "a8", "ride": RIDE}), None)["statusCode"] == 200
    assert "not in the lake yet" in caplog.text
    s3.well_again()
    # Then the line follows with the next event
    function(event("GET", "/health/ready"), None)
    assert {line.ride_id for line in prediction_log.read(collected)} == {"a7", "a8"}


def test_what_cannot_be_priced_is_told_as_the_service_tells_it(s3_bucket: str, tmp_path: Path) -> None:
    lake = UPath(f"{s3_bucket}/lake", use_listings_cache=False)
    Installation(tmp_path / "elsewhere", 0, lake=lake).promote("1")
    function = function_of(settings_for(tmp_path / "disk", s3_bucket, service_token="sesame"))
    bearer = {"authorization": "Bearer sesame"}
    body = {"ride_id": 1, "ride": {**RIDE, "pickup_latitude": 51.5}}
    assert function(event("POST", "/predict", body), None)["statusCode"] == 401
    answer = function(event("POST", "/predict", body, **bearer), None)
    assert answer["statusCode"] == 422
    assert [fault["field"] for fault in said(answer)["errors"]] == ["pickup_latitude"]
    assert function(event("GET", "/nothing", **bearer), None)["statusCode"] == 404
    assert function(event("GET", "/predict", **bearer), None)["headers"]["allow"] == "POST"


def test_one_bundle_can_be_served_whatever_is_in_force(s3_bucket: str, tmp_path: Path) -> None:
    lake = UPath(f"{s3_bucket}/lake", use_listings_cache=False)
    approvals = Installation(tmp_path / "elsewhere", 0, lake=lake)
    digest = approvals.promote("1")
    approvals.promote("2")
    pinned = {"service_model_path": f"{s3_bucket}/lake/bundles/{digest}"}
    function = function_of(settings_for(tmp_path / "disk", s3_bucket, **pinned))
    answer = function(event("POST", "/predict", {"ride_id": 1, "ride": RIDE}), None)
    assert (said(answer)["model_version"], said(answer)["sequence"]) == ("1", None)
