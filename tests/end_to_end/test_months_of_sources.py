"""A real month from each publisher through all four assets, by settings alone: the demo, and what it leaves behind."""

import gzip
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from tests.support.places import DATA
from tests.support.publisher import Publisher, publisher_server
from tests.support.socrata import from_tfx, portal_server, published

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.real_trips, pytest.mark.timeout(600)]

PARTS = ("train", "val")


@dataclass(frozen=True)
class Told:
    """What a month looks like after the demo.

    Attributes:
        month: The month.
        rows: Its rows in the lake.
        raw: What the page of `raw_new_data` shows.
        staging: What the page of `staging_model` shows.
        production: What the page of `production_eval_mae` shows.
        listed: What `taxifare months` says.
    """

    month: str
    rows: pd.DataFrame
    raw: Mapping[str, Any]
    staging: Mapping[str, Any]
    production: Mapping[str, Any]
    listed: str


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publisher_server() as running:
        running.absent_status = 403
        yield running


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., Told]:
    """Runs the demo for one month under settings; quickly, for it is not the model that is looked at."""

    def run(month: str, **settings: str) -> Told:
        quick = {"MAX_EPOCHS": "2", "DATASET_SIZE": "30000", "BATCH_SIZE": "256", "CHALLENGERS": "warm"}
        state = {"TAXIFARE_HOME": str(tmp_path / "state"), "FIRST_MONTH": month, "LAST_MONTH": month}
        environment = {**os.environ, **quick, **state, **settings}

        def command(*words: str) -> str:
            ended = subprocess.run(
                words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            return ended.stdout

        told = command(sys.executable, "-m", "taxifare_dagster.demo")
        assert f"\n{month} " in told
        with dg.DagsterInstance.from_config(str(tmp_path / "state" / "dagster")) as instance:
            pages = [
                shown(instance, asset, month) for asset in ("raw_new_data", "staging_model", "production_eval_mae")
            ]
        listed = command(str(Path(sys.executable).with_name("taxifare")), "months")
        rows = pd.read_parquet(tmp_path / "state" / "lake" / "raw_new_data" / f"{month}-01.parquet")
        return Told(month, rows, *pages, listed)

    return run


def shown(instance: dg.DagsterInstance, asset: str, month: str) -> dict[str, Any]:
    """What the latest materialization of an asset's month shows."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[f"{month}-01"])
    materialization = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert materialization is not None
    return {name: entry.value for name, entry in materialization.metadata.items()}


def table(value: Any) -> dict[str, int]:
    """A table of rules and trips as a mapping."""
    return {record.data["rule"]: record.data["trips dropped"] for record in value.records}


def peak_mib_of_children() -> float:
    """The most memory that a process started and ended here has had."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def test_green_taxis_of_january_2024(publisher: Publisher, demo: Callable[..., Told]) -> None:
    folder = DATA / "tlc"
    if not folder.is_dir():
        pytest.skip("the real trips are not here: expected ../shared/data/tlc beside the repository")
    publisher.files = {f"trip-data/{file.name}": file.read_bytes() for file in folder.glob("*.parquet")}
    publisher.files["misc/taxi_zones.zip"] = (folder / "taxi_zones.zip").read_bytes()
    told = demo("2024-01", TRIP_SOURCE="tlc", TLC_URL=publisher.url, TLC_COLOR="green", TLC_BASE_MONTHS="1")
    assert len(told.rows) == 55_906
    assert table(told.raw["left_out"]) == {"outside_month": 2, "unknown_zone": 643, "not_drawn": 0}
    assert told.rows["dropoff_datetime"].notna().all()
    assert told.staging["mae_usd"] < told.production["mae_usd"], "the base is one December; a January teaches much"
    assert "in the lake" in told.listed
    assert peak_mib_of_children() < 2_048
    assert publisher.methods().count("GET") == 3, "two months and the zones, each downloaded once"


def test_how_long_chicagos_rides_of_june_2014_took(demo: Callable[..., Told]) -> None:
    """The same assets in minutes: by TARGET alone, from rides that say how many seconds they took."""
    file = DATA / "chicago" / "tfx_chicago_taxi_data.csv"
    if not file.exists():
        pytest.skip("the real trips are not here: expected ../shared/data/chicago beside the repository")
    with portal_server() as portal:
        portal.data_sets = {"wrvz-psew": from_tfx(file), "ajtu-isnz": published(pd.DataFrame())}
        city = {"CITY": "chicago", "TRIP_SOURCE": "chicago", "CHICAGO_URL": portal.url}
        told = demo("2014-06", TARGET="duration", **city)
    took_min = (told.rows["dropoff_datetime"] - told.rows["pickup_datetime"]).dt.total_seconds() / 60
    assert (took_min % 15 != 0).mean() > 0.8, "by the second, not by the rounded ends"
    assert {"mae_min", "difficulty_mae_min"} <= set(told.staging)
    assert not [name for name in told.staging if name.endswith("_usd")]
    assert "in the lake" in told.listed


def test_the_courses_january_2015(publisher: Publisher, demo: Callable[..., Told], real_trips: Path) -> None:
    head, *rows = gzip.decompress((real_trips / "taxi_2015_01.csv.gz").read_bytes()).splitlines(keepends=True)
    cut = len(rows) * 7 // 10
    for part, some in zip(PARTS, (rows[:cut], rows[cut:]), strict=True):
        publisher.files[f"{part}_jan.csv"] = head + b"".join(some)
    base = pd.read_parquet(real_trips / "taxi_base_2009_2014.parquet").sample(40_000, random_state=1).sort_index()
    for part, frame in zip(PARTS, (base[:30_000], base[30_000:]), strict=True):
        publisher.files[f"{part}_100k.csv"] = frame.to_csv(index=False).encode()
    told = demo("2015-01", TRIP_SOURCE="lewagon", LEWAGON_URL=publisher.url)
    assert len(told.rows) == len(rows)
    assert told.rows["is_validation"].sum() == len(rows) - cut, "the published split, not a fifth"
    assert told.raw["validation_trips"] == len(rows) - cut
    assert told.staging["mae_usd"] < told.staging["difficulty_mae_usd"]
    assert "in the lake" in told.listed
