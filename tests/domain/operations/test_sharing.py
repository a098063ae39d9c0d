"""What a shared installation lacks, each by the name of its setting; and what one machine alone may have."""

import pytest

from taxifare.operations.sharing import faults
from taxifare.settings import Settings

LEDGER = "postgresql://taxi@db/ledger"
RUNS = "postgresql+psycopg2://taxi@db/dagster"

SHARED = {
    "database_url": LEDGER,
    "storage_uri": "s3://taxi/lake",
    "mlflow_tracking_uri": "http://mlflow:5000",
    "approval_secret": "the same on every machine",
}


def lacking(run_server: str | None = RUNS, **changes: str | None) -> list[str]:
    """The settings that are named."""
    settings = Settings(_env_file=None, **SHARED | changes)
    return [fault.partition(": expected")[0] for fault in faults(settings, run_server)]


def test_one_that_has_all_of_it_lacks_nothing() -> None:
    assert lacking() == lacking(run_server=None) == []
    assert lacking(mlflow_tracking_uri="postgresql://taxi@db/mlflow", mlflow_artifact_location="s3://taxi/mlflow") == []


@pytest.mark.parametrize("changes", [{}, {"storage_uri": "s3://taxi/lake"}])
def test_what_is_one_machines_own_lacks_nothing(changes: dict[str, str]) -> None:
    assert not [*faults(Settings(_env_file=None, **changes), None)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"database_url": None}, "DATABASE_URL"),
        ({"storage_uri": None}, "STORAGE_URI"),
        ({"mlflow_tracking_uri": None}, "MLFLOW_TRACKING_URI"),
        ({"mlflow_tracking_uri": "postgresql://taxi@db/mlflow"}, "MLFLOW_ARTIFACT_LOCATION"),
        ({"approval_secret": None}, "APPROVAL_SECRET"),
        ({"run_server": "postgresql+psycopg2://dagster@db/ledger"}, "DATABASE_URL and Dagster's storage"),
        (
            {"mlflow_tracking_uri": "postgresql://m@db/ledger", "mlflow_artifact_location": "s3://taxi/mlflow"},
            "DATABASE_URL and MLFLOW_TRACKING_URI",
        ),
    ],
)
def test_what_is_lacking_is_named(changes: dict[str, str | None], named: str) -> None:
    assert lacking(**changes) == [named]


def test_a_ledger_on_a_server_is_shared_whoever_executes_the_runs() -> None:
    none: dict[str, str | None] = dict.fromkeys(SHARED)
    assert lacking(run_server=None, **none | {"database_url": LEDGER}) == [
        "STORAGE_URI",
        "APPROVAL_SECRET",
        "MLFLOW_TRACKING_URI",
    ]
    assert lacking(**none) == ["DATABASE_URL", "STORAGE_URI", "APPROVAL_SECRET", "MLFLOW_TRACKING_URI"]


def test_schemas_of_one_database_are_apart() -> None:
    ours = "postgresql://taxi@db/taxi?options=-csearch_path%3Dledger"
    assert lacking(database_url=ours, run_server="postgresql+psycopg2://taxi@db/taxi") == []
