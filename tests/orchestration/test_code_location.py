"""What Dagster loads: quickly, quietly, from nothing but the code; and what it then shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from taxifare.monitoring import outcomes
from taxifare_dagster import metadata
from taxifare_dagster.build import build_definitions
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
OUTCOMES = {"served_predictions", "served_outcomes", "served_mae", "input_drift"}
OUTCOME_CHECKS = {
    "served_predictions": {"knows_every_version", "predicts_again_the_same", "is_asked_in_time"},
    "served_outcomes": {"matches_rides", "clocks_agree"},
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


def dg_says(home: Path, *arguments: str) -> str:
    """What a command of dg that must succeed prints, told no more than pyproject.toml tells it, without a warning."""
    ended = subprocess.run(
        [Path(sys.executable).with_name("dg"), *arguments],
        env=bare_environment(home),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    return ended.stdout


@pytest.mark.end_to_end
def test_dg_finds_nothing_wrong_with_the_definitions(tmp_path: Path) -> None:
    assert "All definitions loaded successfully." in dg_says(tmp_path / "state", "check", "defs")


@pytest.mark.slow
@pytest.mark.end_to_end
def test_dg_lists_the_definitions(tmp_path: Path, definitions: dg.Definitions) -> None:
    listed = dg_says(tmp_path / "state", "list", "defs", "--json")
    found = {
        kind: {one.get("asset_key", one.get("name")) for one in entries}
        for kind, entries in json.loads(listed).items()
        if entries
    }
    repository = definitions.get_repository_def()
    graph = definitions.resolve_asset_graph()
    assert found["assets"] == {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert found["sensors"] == {sensor.name for sensor in repository.sensor_defs}
    assert found["schedules"] == {schedule.name for schedule in repository.schedule_defs}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(world_settings(tmp_path_factory.mktemp("unused") / "state"))


def months_in(definitions: dg.Definitions) -> dict[str, tuple[str, ...]]:
    """The partition keys of whatever is partitioned: assets, checks and jobs, by name."""
    graph = definitions.resolve_asset_graph()
    found: dict[str, dg.PartitionsDefinition | None] = {
        key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()
    }
    found |= {node.key.to_user_string(): node.partitions_def for node in graph.asset_check_nodes}
    found |= {
        job.name: job.partitions_def for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")
    }
    return {name: tuple(months.get_partition_keys()) for name, months in found.items() if months is not None}


def test_settings_say_which_months_there_are_and_two_locations_in_one_process_have_their_own(tmp_path: Path) -> None:
    autumn, february = (
        build_definitions(world_settings(tmp_path / first, first_month=first, last_month=last))
        for first, last in (("2012-11", "2013-01"), ("2015-02", "2015-02"))
    )
    partitioned = MONTHLY | OUTCOMES | {"monthly_job", "scored_trips", "scoring_job", "outcomes_job"}
    checks_of = DATA_CHECKS | COMPARISON_CHECKS | OUTCOME_CHECKS
    partitioned |= {f"{asset}:{check}" for asset, checks in checks_of.items() for check in checks}
    assert months_in(autumn) == dict.fromkeys(partitioned, ("2012-11-01", "2012-12-01", "2013-01-01"))
    assert months_in(february) == dict.fromkeys(partitioned, ("2015-02-01",))


def test_the_command_starts_without_dagster(tmp_path: Path) -> None:
    asked = "import sys, taxifare_dagster.command; sys.exit('dagster' in sys.modules)"
    started = subprocess.run([sys.executable, "-c", asked], env=bare_environment(tmp_path), cwd=tmp_path, check=False)
    assert started.returncode == 0


IMPORT_ALL_BUT_THE_ENTRY_POINT = """
import importlib, pkgutil
import taxifare.settings, taxifare_dagster
entry_point = "taxifare_dagster.definitions"
modules = {module.name for module in pkgutil.walk_packages(taxifare_dagster.__path__, "taxifare_dagster.")}
for module in sorted(modules - {entry_point}):
    importlib.import_module(module)
try:
    importlib.import_module(entry_point)
except taxifare.settings.SettingsError as error:
    print(len(str(error).split("; ")), "settings refused by the entry point alone")
"""


def test_only_the_entry_point_reads_the_environment(tmp_path: Path) -> None:
    wrong = {"FIRST_MONTH": "January", "TARGET": "tips", "EXECUTOR": "by hand", "REMINDER_DAYS": "never"}
    imported = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_BUT_THE_ENTRY_POINT],
        env=bare_environment(tmp_path) | wrong, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = (imported.returncode, imported.stdout, imported.stderr)
    assert said == (0, f"{len(wrong)} settings refused by the entry point alone\n", "")


def test_the_graph_is_that_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()

    def upstream(asset: str) -> set[str]:
        return {key.to_user_string() for key in graph.get(dg.AssetKey(asset)).parent_keys}

    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == MONTHLY | OUTCOMES | {
        "base_trips", "base_model", "production_model", "replayed_months", "replay_report",
        "scored_trips", "scored_files", "collected_predictions", "production_watch",
    }  # fmt: skip
    assert upstream("raw_new_data") == set()
    assert upstream("preprocessed_data") == {"raw_new_data"}
    # Scoring production and training staging are parallel branches from the same trips and the same production.
    assert upstream("production_eval_mae") == {"preprocessed_data", "production_model"}
    assert upstream("staging_model") == {"preprocessed_data", "rehearsal_trips", "production_model"}
    # What is rehearsed depends on what is published, not on which months have been run.
    assert upstream("rehearsal_trips") == set()
    assert upstream("served_outcomes") == {"served_predictions", "raw_new_data", "preprocessed_data"}
    assert upstream("base_model") == {"base_trips"}
    assert upstream("production_model") == set()


def test_only_months_are_partitioned_and_production_is_made_by_decisions_only(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    partitioned = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned}
    assert partitioned == MONTHLY | OUTCOMES | {"scored_trips"}
    assert not graph.get(dg.AssetKey("production_model")).is_materializable


def test_every_asset_says_what_it_is_and_whose(definitions: dg.Definitions) -> None:
    for spec in definitions.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.group_name in {"trips", "models", "serving", "monitoring", "replay"}, name
        assert spec.owners == ["team:taxifare"], name
        assert spec.kinds, name
        assert len(spec.description or "") > 60, name


def test_checks_of_data_block_and_comparisons_do_not(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found: dict[tuple[str, bool], set[str]] = {}
    for node in graph.asset_check_nodes:
        asset = node.key.asset_key.to_user_string()
        found.setdefault((asset, node.blocking), set()).add(node.key.name)
        assert node.description, node.key
    assert found == (
        {(asset, True): names for asset, names in DATA_CHECKS.items()}
        | {(asset, False): names for asset, names in (COMPARISON_CHECKS | OUTCOME_CHECKS).items()}
        | {("base_model", False): {"base_beats_reference"}, ("production_model", False): {"knows_the_rules"}}
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


def test_sensors_jobs_and_schedules_say_what_they_do(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    jobs = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for one in (*jobs, *repository.sensor_defs, *repository.schedule_defs):
        assert len(one.description or "") > 40, one.name


def test_columns_say_what_they_mean_and_in_which_unit(tmp_path: Path) -> None:
    schema = metadata.preprocessed_schema(world_settings(tmp_path))
    meanings = {column.name: column.description or "" for column in schema.columns}
    assert len(set(meanings.values())) >= len(meanings) - 2, "both ends of a ride have coordinates"
    for name, meaning in meanings.items():
        measured = {"_km": "(km", "_years": "(years)", "_amount": "(USD)", "itude": "(degrees)", "_datetime": "time)"}
        unit = next((unit for ending, unit in measured.items() if name.endswith(ending)), "")
        assert unit in meaning, name
        is_identity = name in {"key", "passenger_count", "passengers"}
        assert is_identity or meaning.endswith(")") or "(0 or 1)" in meaning or ":" in meaning, name


def test_columns_of_scored_quoted_and_rehearsed_rides_say_what_they_mean(tmp_path: Path) -> None:
    settings = world_settings(tmp_path)
    schemas = {
        "scored": metadata.scored_schema(settings),
        "served": metadata.served_schema(outcomes.OUTCOMES, "USD"),
        "rehearsed": metadata.rehearsal_schema(settings),
    }
    for name, schema in schemas.items():
        assert all(len(column.description or "") > 10 for column in schema.columns), name
    assert [column.name for column in schemas["served"].columns] == outcomes.OUTCOMES.names
    units = {column.name: column.description for column in schemas["scored"].columns}
    assert "(USD)" in str(units["quoted_fare_usd"])
    assert "fault" in units


def test_the_executor_is_a_setting(tmp_path: Path) -> None:
    for executor in ("in_process", "multiprocess"):
        job = build_definitions(world_settings(tmp_path, executor=executor)).resolve_job_def("monthly_job")
        assert job.executor_def.name.startswith(executor)


def test_secrets_are_not_shown_as_config(tmp_path: Path) -> None:
    definitions = build_definitions(world_settings(tmp_path, approval_secret="not for the eyes of a page"))
    for name, resource in definitions.get_repository_def().get_top_level_resources().items():
        assert "not for the eyes" not in repr(resource.config_schema.as_field().__dict__), name
