"""A real month through all four assets with everything in Google Cloud, and one of Chicago's: by settings alone."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from tests.support.google_cloud import PROJECT, TOKEN, BigQueryServer
from tests.support.places import DATA
from tests.support.socrata import from_tfx, portal_server

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.real_trips,
    pytest.mark.timeout(900),
]

CHICAGO_TRIPS = DATA / "chicago" / "tfx_chicago_taxi_data.csv"


@dataclass(frozen=True)
class Installation:
    """A state folder, and the settings in force there.

    Attributes:
        folder: Where commands are run.
        settings: As environment variables.
    """

    folder: Path
    settings: Mapping[str, str]

    def command(self, *words: str) -> str:
        """What a command says; that it ends well is ensured."""
        ended = subprocess.run(
            words,
            env={**os.environ, "TAXIFARE_HOME": str(self.folder / "state"), **self.settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def taxifare(self, *words: str) -> str:
        return self.command(str(Path(sys.executable).with_name("taxifare")), *words)

    def demo(self) -> str:
        return self.command(sys.executable, "-m", "taxifare_dagster.demo")

    def shown(self, asset: str, month: str) -> dict[str, Any]:
        """What the latest materialization of an asset's month shows."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[f"{month}-01"])
        with dg.DagsterInstance.from_config(str(self.folder / "state" / "dagster")) as instance:
            materialization = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
        assert materialization is not None
        return {name: entry.value for name, entry in materialization.metadata.items()}

    def files(self) -> list[Path]:
        """What is in the state folder."""
        return [path for path in (self.folder / "state").rglob("*") if path.is_file()]


def dropped(shown: Mapping[str, Any]) -> dict[str, int]:
    """Which rule dropped how many trips, rules that dropped none left out."""
    records = (record.data for record in shown["dropped"].records)
    return {record["rule"]: record["trips dropped"] for record in records if record["trips dropped"]}


def report(name: str, installation: Installation, month: str, seconds: float) -> None:
    """Prints the measurements of a month, for whoever runs this with -s."""
    raw, clean = installation.shown("raw_new_data", month), installation.shown("preprocessed_data", month)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"\n{name} {month}: {raw['dagster/partition_row_count']:,} trips, {dropped(clean)} dropped, MAE production "
        f"{installation.shown('production_eval_mae', month)['mae_usd']}, staging "
        f"{installation.shown('staging_model', month)['mae_usd']} USD, {seconds:.0f} s, at most {peak_mib:.0f} MiB"
    )


@pytest.mark.slow
def test_trips_in_bigquery_and_everything_made_of_them_in_buckets(
    bigquery: BigQueryServer, bucket: str, real_trips: Path, tmp_path: Path
) -> None:
    base = pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet").sample(6_000, random_state=1)
    january = pd.read_parquet(real_trips / "taxi_2015_01.parquet")
    table = bigquery.fill("raw_all", pd.concat([base, january]).drop(columns="key"))
    installation = Installation(
        tmp_path,
        {
            **{name: os.environ[name] for name in ("BIGQUERY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")},
            "TRIP_SOURCE": "bigquery",
            "BIGQUERY_TABLE": table,
            "STORAGE_URI": f"{bucket}/lake",
            "MLFLOW_ARTIFACT_LOCATION": f"{bucket}/mlflow",
            "FIRST_MONTH": "2015-01",
            "LAST_MONTH": "2015-01",
            "DATASET_SIZE": "5k",
            "BATCH_SIZE": "256",
            "CHALLENGERS": "warm",
        },
    )
    started = time.monotonic()
    told = installation.demo()
    report("BigQuery and GCS", installation, "2015-01", time.monotonic() - started)

    raw = installation.shown("raw_new_data", "2015-01")
    assert raw["dagster/partition_row_count"] == len(january)
    assert installation.shown("production_eval_mae", "2015-01")["mae_usd"] < 5
    assert installation.shown("staging_model", "2015-01")["mae_usd"] < 5

    from google.cloud import storage

    names = {blob.name for blob in storage.Client(PROJECT).list_blobs(bucket.removeprefix("gs://"))}
    assets = ("raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model")
    assert {name.split("/")[1] for name in names if name.startswith("lake/") and "2015-01-01" in name} == set(assets)
    assert any(name.startswith("mlflow/") and name.endswith("network.keras") for name in names)
    assert not any(Path(name).name.startswith(".") for name in names), "nothing unfinished is left"
    assert [path for path in installation.files() if path.suffix in {".parquet", ".keras"}] == []

    listed = installation.taxifare("months")
    assert "2015-01" in listed
    assert raw["revision"][:8] in listed
    doctor = installation.taxifare("doctor")
    assert "bigquery: 1 month, 2015-01" in doctor
    assert "trips looked at" in doctor
    assert f"{bucket}/lake can be written to" in doctor
    assert f"{bucket}/mlflow can be written to" in doctor
    key = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).read_text()
    secrets = [TOKEN, key.split('"private_key": "')[1][30:80]]
    said = [told, listed, doctor, *(path.read_bytes().decode("latin-1") for path in installation.files())]
    assert not any(secret in text for text in said for secret in secrets)


@pytest.mark.slow
def test_a_month_of_chicago(tmp_path: Path) -> None:
    if not CHICAGO_TRIPS.exists():
        pytest.skip("the real trips are not here: expected ../shared/data/chicago beside the repository")
    with portal_server() as portal:
        rows = from_tfx(CHICAGO_TRIPS)
        portal.data_sets = {"wrvz-psew": rows, "ajtu-isnz": rows[:0]}
        portal.faults = ["429:0", "", "503"]
        installation = Installation(
            tmp_path,
            {
                "TRIP_SOURCE": "chicago",
                "CITY": "chicago",
                "CHICAGO_URL": portal.url,
                "CHICAGO_APP_TOKEN": "sesame-that-must-not-be-shown",
                "FIRST_MONTH": "2015-10",
                "LAST_MONTH": "2015-10",
                "BATCH_SIZE": "128",
            },
        )
        started = time.monotonic()
        told = installation.demo()
        report("Chicago", installation, "2015-10", time.monotonic() - started)
        doctor = installation.taxifare("doctor")
    raw = installation.shown("raw_new_data", "2015-10")
    october = rows[rows["trip_start_timestamp"].str.startswith("2015-10")]
    places = [name for name in rows.columns if "centroid" in name]
    assert raw["dagster/partition_row_count"] == len(october.dropna(subset=places))
    left_out = {record.data["rule"]: record.data["trips dropped"] for record in raw["left_out"].records}
    assert left_out == {"not_drawn": 0, "no_centroid": int(october[places].isna().any(axis=1).sum())}
    features = installation.shown("preprocessed_data", "2015-10")["dagster/column_schema"].columns
    assert {"pickup_ord_km", "fares_2016_01"} <= {column.name for column in features}
    assert installation.shown("production_eval_mae", "2015-10")["mae_usd"] < 6
    assert "as chicago has them" in doctor
    said = [told, doctor, *(path.read_bytes().decode("latin-1") for path in installation.files())]
    assert not any("sesame-that-must-not-be-shown" in text for text in said)
