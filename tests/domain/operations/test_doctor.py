"""The doctor: each outside part that is set is really asked, and what is wrong with it is said in words."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from taxifare.model.registry import ModelRegistry
from taxifare.operations.doctor import Finding, examine
from taxifare.settings import Settings
from taxifare.sources import make_source, web
from taxifare.trips.months import parse_month
from tests.support.servers import free_port
from tests.support.small import small_settings
from tests.support.socrata import from_trip_table, portal_server, published

Open = Callable[[Settings], ModelRegistry]


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(settings, lambda _: None)}


def test_an_installation_in_buckets_is_well(bucket: str, tmp_path: Path, open_registry: Open) -> None:
    places = {"storage_uri": "lake", "mlflow_artifact_location": "mlflow", "scoring_inbox": "inbox"}
    settings = small_settings(tmp_path, **{setting: f"{bucket}/{place}" for setting, place in places.items()})
    open_registry(settings)
    found = findings(settings)
    assert [part for part, finding in found.items() if not finding.is_well] == []
    assert found["lake"].says == f"{bucket}/lake can be written to"
    assert found["MLflow's files"].says == f"{bucket}/mlflow can be written to"
    assert found["inbox"].says == f"{bucket}/inbox can be written to"


def test_a_bucket_that_is_not_there_is_found(bucket: str, tmp_path: Path, open_registry: Open) -> None:
    settings = small_settings(
        tmp_path, storage_uri=f"{bucket}-elsewhere/lake", mlflow_artifact_location=f"{bucket}-elsewhere/mlflow"
    )
    open_registry(settings)
    found = findings(settings)
    # Which months wait is on record in the lake, and so is the model whose rules the calendar looks at.
    ill = {part for part, finding in found.items() if not finding.is_well}
    assert ill == {"lake", "trips", "calendar", "MLflow's files"}
    assert f"STORAGE_URI: {bucket}-elsewhere: there is no such bucket (404)" in found["lake"].says
    assert f"MLFLOW_ARTIFACT_LOCATION: {bucket}-elsewhere: there is no such bucket" in found["MLflow's files"].says


def test_an_inbox_that_is_not_there_is_found_and_not_made(tmp_path: Path, open_registry: Open) -> None:
    settings = small_settings(tmp_path, scoring_inbox=str(tmp_path / "inbox"))
    open_registry(settings)
    found = findings(settings)["inbox"]
    assert not found.is_well
    assert f"SCORING_INBOX: expected a folder, received {tmp_path / 'inbox'}: make it" in found.says
    (tmp_path / "inbox").mkdir()
    assert findings(settings)["inbox"].is_well
    assert not [*(tmp_path / "inbox").iterdir()]


def test_a_lake_that_cannot_be_made_is_found_with_its_setting(tmp_path: Path, open_registry: Open) -> None:
    (tmp_path / "notes").write_text("no folder")
    settings = small_settings(tmp_path, storage_uri=str(tmp_path / "notes" / "lake"))
    open_registry(settings)
    found = findings(settings)["lake"]
    assert not found.is_well
    assert found.says == (
        "DisorderError: STORAGE_URI: expected a folder that is there or can be made, and can be written to, received "
        f"{tmp_path}/notes/lake: Not a directory. Set STORAGE_URI to another, or give whoever runs this the right to "
        "write there"
    )
    default = small_settings(tmp_path)
    (default.home / "lake").write_text("no folder")
    assert "TAXIFARE_HOME: expected a folder that is there or can be made" in findings(default)["lake"].says


def test_an_experiment_that_keeps_its_files_elsewhere_is_found(
    bucket: str, tmp_path: Path, open_registry: Open
) -> None:
    open_registry(small_settings(tmp_path))
    found = findings(small_settings(tmp_path, mlflow_artifact_location=f"{bucket}/mlflow"))
    assert not found["MLflow's files"].is_well
    assert "name a new one in MLFLOW_EXPERIMENT" in found["MLflow's files"].says


@pytest.mark.parametrize(("first_month", "base"), [("2015-01", "none: without"), ("2015-02", "as chicago has them")])
def test_a_source_may_have_no_base_years(tmp_path: Path, open_registry: Open, first_month: str, base: str) -> None:
    trips = pd.DataFrame(
        {
            "key": ["a", "b"],
            "pickup_datetime": pd.to_datetime(["2015-01-05 10:00", "2015-02-05 10:00"]),
            "dropoff_datetime": pd.to_datetime(["2015-01-05 10:15", "2015-02-05 10:15"]),
            "fare_amount": 7.5,
            **dict.fromkeys(("pickup_longitude", "dropoff_longitude"), -87.63),
            **dict.fromkeys(("pickup_latitude", "dropoff_latitude"), 41.88),
        }
    )
    with portal_server() as portal:
        portal.data_sets = {"wrvz-psew": from_trip_table(trips, ""), "ajtu-isnz": published(pd.DataFrame())}
        settings = small_settings(
            tmp_path, trip_source="chicago", city="chicago", chicago_url=portal.url, first_month=first_month
        )
        open_registry(settings)
        found = findings(settings)
    assert found["trips"].is_well, found["trips"].says
    assert found["base years"].is_well
    assert found["base years"].says.startswith(base)


@pytest.mark.parametrize("has_times", [True, False])
def test_for_durations_the_latest_month_is_asked_for_drop_off_times(
    tmp_path: Path, open_registry: Open, has_times: bool
) -> None:
    rides = make_source(small_settings(tmp_path)).read_month(parse_month("2015-01")).trips
    columns = rides.columns if has_times else rides.columns.drop("dropoff_datetime")
    rides[columns].to_parquet(tmp_path / "taxi_2015_01.parquet")
    settings = small_settings(
        tmp_path, target="duration", trip_source="folder", trip_folder=tmp_path, trip_folder_quiet_s=0
    )
    open_registry(settings)
    found = findings(settings)["drop-off times"]
    assert found.is_well is has_times
    expected = "100.0% of the trips of 2015-01 have one" if has_times else "column dropoff_datetime: expected values"
    assert expected in found.says
    assert "drop-off times" not in findings(settings.model_copy(update={"target": "fare"}))


def test_a_month_that_waits_until_it_is_whole_is_found(tmp_path: Path, open_registry: Open) -> None:
    folder, simulated = tmp_path / "trips", make_source(small_settings(tmp_path))
    folder.mkdir()
    for number, rides in ((1, 300), (2, 10)):
        trips = simulated.read_month(parse_month(f"2015-0{number}")).trips
        trips.tail(rides).to_parquet(folder / f"taxi_2015_0{number}.parquet")
    settings = small_settings(tmp_path, trip_source="folder", trip_folder=folder, trip_folder_quiet_s=0)
    open_registry(settings)
    found = findings(settings)["trips"]
    assert not found.is_well
    assert "month 2015-02 is not whole yet: it has 10 rides, expected at least 25 % of the 300" in found.says
    assert 'taxifare take 2015-02 --by YOU --reason "WHY"' in found.says


def test_a_month_of_which_the_source_cannot_tell_is_found(tmp_path: Path, open_registry: Open) -> None:
    folder = tmp_path / "trips"
    folder.mkdir()
    (folder / "taxi_2015_01.csv").symlink_to(tmp_path / "nowhere")
    settings = small_settings(tmp_path, trip_source="folder", trip_folder=folder)
    open_registry(settings)
    found = findings(settings)["trips"]
    assert not found.is_well
    assert "cannot tell whether month 2015-01 is published: " in found.says
    assert "received a link to nothing" in found.says


def test_a_folder_whose_files_are_named_otherwise_is_found_with_both_names(tmp_path: Path, open_registry: Open) -> None:
    folder = tmp_path / "trips"
    folder.mkdir()
    (folder / "rides-jan.csv").write_text("key")
    settings = small_settings(tmp_path, trip_source="folder", trip_folder=folder)
    open_registry(settings)
    found = findings(settings)["trips"]
    assert not found.is_well
    assert f"there is no month of trips: {folder}: no file for month 2015-01: expected a file named taxi" in found.says
    assert "TRIP_FOLDER_MONTHS=taxi_{month:%Y_%m}.*); named otherwise: rides-jan.csv" in found.says


def test_a_portal_that_refuses_is_found_with_what_to_do(
    tmp_path: Path, open_registry: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "LONGEST_PAUSE_S", 0.01)
    with portal_server() as portal:
        portal.faults = ["403"] * web.ATTEMPTS
        settings = small_settings(
            tmp_path, trip_source="chicago", city="chicago", chicago_url=portal.url, chicago_app_token="sesame"
        )
        open_registry(settings)
        found = findings(settings)["trips"]
    assert not found.is_well
    assert "check the address and the credentials in the settings" in found.says
    assert "sesame" not in found.says


def test_a_cluster_that_is_away_is_found(tmp_path: Path, open_registry: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxifare.workers.ANSWERS_WITHIN_S", 1)
    url = f"tcp://127.0.0.1:{free_port()}"
    settings = small_settings(tmp_path, cluster_url=url)
    open_registry(settings)
    found = findings(settings)["workers"]
    assert not found.is_well
    assert f"CLUSTER_URL: expected a dask scheduler at {url}, received no answer" in found.says
