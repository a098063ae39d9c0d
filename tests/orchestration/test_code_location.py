"""What Dagster loads: quickly, quietly, from nothing but the code; and what it then shows."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from taxifare_dagster import partitions
from taxifare_dagster.definitions import build_definitions
from tests.support.places import REPOSITORY
from tests.support.world import world_settings

MONTHLY = {"raw_new_data", "preprocessed_data", "rehearsal_trips", "production_eval_mae", "staging_model"}
DATA_CHECKS = {
    "raw_new_data": {"has_trip_columns", "is_within_month", "has_enough_trips", "has_unique_keys"},
    "preprocessed_data": {"keeps_most_trips", "has_no_nulls"},
}
COMPARISON_CHECKS = {
    "production_eval_mae": {"production_is_not_stale"},
    "staging_model": {"staging_beats_production", "keeps_every_slice", "keeps_bias", "has_no_leak"},
}

LOAD_OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("loading the code location opened a socket")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import taxifare_dagster.definitions
taxifare_dagster.definitions.defs.resolve_all_job_defs()
heavy = {
    "tensorflow", "keras", "mlflow", "dagster_mlflow", "matplotlib", "scipy", "optuna", "apprise", "pyproj", "shapely",
    "shapefile", "geopandas", "google.cloud", "google.auth", "dagster_gcp", "gcsfs",
} & set(sys.modules)
assert not heavy, f"loading the code location imported {sorted(heavy)}"
"""


def bare_environment(home: Path) -> dict[str, str]:
    """The environment of a process that starts from nothing, with its state in a folder."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"TAXIFARE_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}


def test_the_code_location_loads_from_nothing(tmp_path: Path) -> None:
    home = tmp_path / "state"
    home.mkdir()
    # A warning from our own modules is an error; one from somebody else's must not be printed either.
    warnings = ["-W", "error:::taxifare", "-W", "error:::taxifare_dagster"]
    loaded = subprocess.run(
        [sys.executable, *warnings, "-c", LOAD_OFFLINE],
        env=bare_environment(home), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


@pytest.mark.end_to_end
def test_dagster_finds_nothing_wrong_with_the_definitions(tmp_path: Path) -> None:
    validated = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "taxifare_dagster.definitions"],
        env=bare_environment(tmp_path / "state"), cwd=tmp_path, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert validated.returncode == 0, validated.stderr
    assert "Validation successful" in validated.stdout + validated.stderr


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(world_settings(tmp_path_factory.mktemp("unused") / "state"))


@pytest.mark.parametrize(
    ("variables", "first", "last"),
    [
        ({}, "2015-01-01", "2015-06-01"),
        ({"FIRST_MONTH": "2012-09", "LAST_MONTH": "2013-01"}, "2012-09-01", "2013-01-01"),
        ({"FIRST_MONTH": "2015-02", "LAST_MONTH": "2015-02"}, "2015-02-01", "2015-02-01"),
    ],
)
def test_settings_say_which_months_there_are(
    variables: dict[str, str], first: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    keys = runpy.run_path(partitions.__file__)["months"].get_partition_keys()
    assert (keys[0], keys[-1]) == (first, last)


def test_without_a_last_month_every_past_month_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAST_MONTH", "")
    months: dg.MonthlyPartitionsDefinition = runpy.run_path(partitions.__file__)["months"]
    assert months.end is None
    assert {"2015-07-01", "2025-12-01"} <= set(months.get_partition_keys())


def test_the_graph_is_that_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()

    def upstream(asset: str) -> set[str]:
        return {key.to_user_string() for key in graph.get(dg.AssetKey(asset)).parent_keys}

    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == MONTHLY | {
        "base_trips", "base_model", "production_model", "replayed_months", "replay_report",
    }  # fmt: skip
    assert upstream("raw_new_data") == set()
    assert upstream("preprocessed_data") == {"raw_new_data"}
    # Scoring production and training staging are parallel branches from the same trips and the same production.
    assert upstream("production_eval_mae") == {"preprocessed_data", "production_model"}
    assert upstream("staging_model") == {"preprocessed_data", "rehearsal_trips", "production_model"}
    # What is rehearsed depends on what is published, not on which months have been run.
    assert upstream("rehearsal_trips") == set()
    assert upstream("base_model") == {"base_trips"}
    assert upstream("production_model") == set()


def test_only_months_are_partitioned_and_production_is_made_by_decisions_only(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    partitioned = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned}
    assert partitioned == MONTHLY
    assert all(graph.get(dg.AssetKey(name)).partitions_def == partitions.months for name in MONTHLY)
    assert not graph.get(dg.AssetKey("production_model")).is_materializable


def test_every_asset_says_what_it_is_and_whose(definitions: dg.Definitions) -> None:
    for spec in definitions.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.group_name in {"trips", "models", "replay"}, name
        assert spec.owners == ["team:taxifare"], name
        assert spec.kinds, name
        assert len(spec.description or "") > 60, name


def test_checks_of_data_block_and_comparisons_do_not(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found: dict[tuple[str, bool], set[str]] = {}
    for node in graph.asset_check_nodes:
        asset = node.key.asset_key.to_user_string()
        found.setdefault((asset, node.blocking), set()).add(node.key.name)
        if asset in MONTHLY:
            assert node.partitions_def == partitions.months, node.key
        assert node.description, node.key
    assert found == (
        {(asset, True): names for asset, names in DATA_CHECKS.items()}
        | {(asset, False): names for asset, names in COMPARISON_CHECKS.items()}
        | {("base_model", False): {"base_beats_reference"}}
    )


def test_jobs_and_sensors_are_there_and_sensors_run_by_default(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = {"base_job", "monthly_job", "approval_job", "decision_job", "rollback_job"}
    assert jobs <= set(repository.job_names)
    sensors = {sensor.name: sensor.default_status for sensor in repository.sensor_defs}
    running = dg.DefaultSensorStatus.RUNNING
    assert {"new_month_sensor", "approval_sensor"} <= set(sensors)
    assert set(sensors.values()) == {running}
    assert all(definitions.resolve_job_def(job).description for job in jobs)


def test_the_executor_is_a_setting(tmp_path: Path) -> None:
    for executor in ("in_process", "multiprocess"):
        job = build_definitions(world_settings(tmp_path, executor=executor)).resolve_job_def("monthly_job")
        assert job.executor_def.name.startswith(executor)


def test_secrets_are_not_shown_as_config(tmp_path: Path) -> None:
    definitions = build_definitions(world_settings(tmp_path, approval_secret="not for the eyes of a page"))
    for name, resource in definitions.get_repository_def().get_top_level_resources().items():
        assert "not for the eyes" not in repr(resource.config_schema.as_field().__dict__), name
