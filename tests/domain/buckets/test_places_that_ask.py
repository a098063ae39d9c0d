"""Whatever asks whether there is something in the lake: where a bucket does not say, it is not taken for "nothing"."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from upath import UPath

from taxifare.buckets import UnreachableError
from taxifare.environment import SettingsError, opened
from taxifare.gate.evidence import Appraisal
from taxifare.serving import batches, in_force, in_shadow, prediction_log
from taxifare.serving.bundle import Bundle
from taxifare.settings import Settings
from taxifare.sources import make_source
from taxifare.sources.whole_months import taken, why_waiting
from taxifare.trips.months import parse_month
from taxifare_dagster.io_managers import BaseTripsIOManager, JsonIOManager, ParquetIOManager
from taxifare_dagster.lake import editions, month_with
from tests.support.clouds import FORBIDDEN, Cloud, Front

JANUARY = parse_month("2015-01")

ASKS: dict[str, Callable[[UPath], object]] = {
    "trips of an asset": lambda lake: ParquetIOManager(lake, "fare").stored("raw_new_data", "2015-01-01"),
    "a frame": lambda lake: ParquetIOManager(lake, "fare").stored_frame("rehearsal_trips", "2015-01-01"),
    "base years": lambda lake: BaseTripsIOManager(lake, "fare").stored(),
    "an appraisal": lambda lake: JsonIOManager(lake, "fare").stored("staging_model", "2015-01-01", Appraisal),
    "months of which there are trips": editions,
    "the month of a trip": lambda lake: month_with("a key", lake),
    "who took a month": lambda lake: taken(JANUARY, "revision", lake),
    "why a month waits": lambda lake: why_waiting(make_source(Settings()), JANUARY, "revision", {}, Settings(), lake),
    "what is in force": in_force.read,
    "what is in shadow": in_shadow.read,
    "a model": lambda lake: in_force.model_in(lake, "new-york", "fare"),
    "a bundle": lambda lake: Bundle.read(in_force.bundles_in(lake) / "digest"),
    "answers that were collected": lambda lake: list(prediction_log.read(prediction_log.collected_in(lake))),
    "what is old of them": lambda lake: list(
        prediction_log.read(prediction_log.collected_in(lake), datetime(2015, 1, 1, tzinfo=UTC))
    ),
    "files of rides that wait": lambda lake: batches.waiting(lake / "inbox"),
}


def test_where_a_bucket_does_not_say_nobody_takes_it_for_nothing(front: Front, cloud: Cloud) -> None:
    lake = opened("STORAGE_URI", f"{front.bucket}/lake")
    need_one = {"a model", "a bundle", "files of rides that wait"}
    answers = {name: ask(lake) for name, ask in ASKS.items() if name not in need_one}
    assert [answer for answer in answers.values() if answer] == [], "a new lake has nothing"
    missing = opened("STORAGE_URI", f"{front.bucket}-not-made/lake")
    for place, said in ((missing, "there is no such bucket"), (lake, "403")):
        front.refuses = FORBIDDEN[cloud] if place is lake else None
        for name, ask in ASKS.items():
            try:
                words = f"answered: {ask(place)}"
            except UnreachableError as told:
                words = str(told)
            assert words.startswith("STORAGE_URI: "), f"{name}: {words}"
            assert said in words, f"{name}: {words}"


@pytest.mark.parametrize("setting", ["STORAGE_URI", "TRIP_FOLDER", "MLFLOW_ARTIFACT_LOCATION"])
@pytest.mark.parametrize(("address", "extra"), [("s3://taxi/a", "aws"), ("gs://taxi/a", "gcp")])
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    setting: str, address: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [*sys.modules]:
        if name.partition(".")[0] in {"s3fs", "gcsfs"} or name.startswith("taxifare.buckets."):
            monkeypatch.delitem(sys.modules, name)
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = Settings(taxifare_home=tmp_path, **{setting.lower(): address})
    open_it = {
        "STORAGE_URI": lambda: settings.lake,
        "TRIP_FOLDER": lambda: settings.trips,
        "MLFLOW_ARTIFACT_LOCATION": lambda: settings.artifacts,
    }[setting]
    with pytest.raises(SettingsError, match=rf"^{setting}: .*pip install -e '\.\[{extra}\]'"):
        open_it()


@pytest.mark.parametrize("address", ["s3:/taxi/lake", "s3:taxi/lake", "s3a:///taxi/lake", "gs:/taxi", "gcs:", "gs://"])
def test_an_address_without_a_bucket_is_no_folder(address: str, tmp_path: Path) -> None:
    settings = Settings(taxifare_home=tmp_path, storage_uri=address)
    with pytest.raises(SettingsError, match=rf"^STORAGE_URI: expected \w+://bucket/…, received {address}$"):
        _ = settings.lake


def test_mlflow_takes_a_client_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    settings = Settings(taxifare_home=tmp_path, mlflow_artifact_location="s3://taxi/mlflow")
    with pytest.raises(SettingsError, match=r"^MLFLOW_ARTIFACT_LOCATION: .*pip install -e '\.\[aws\]'.*no boto3"):
        _ = settings.artifacts
