"""A copy of what MLflow has, and MLflow filled from one: rows of its database, files of its runs and versions.

MLflow's interface gives a run another id in another store, and the ledger has the ids on record; so rows go from
database to database. Where MLflow is a server, `MLFLOW_BACKEND_STORE_URI` names its database here as it does to the
server, and files go through the server.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.environment import SettingsError
from taxifare.model.store import ADDRESSES, MlflowStore, RegistryError, attempting
from taxifare.rows import lines_of, parsed, put
from taxifare.secrets import remember_address, shown

DATABASE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"

_TABLES = (
    "experiments",
    "experiment_tags",
    "runs",
    "tags",
    "params",
    "metrics",
    "latest_metrics",
    "logged_models",
    "logged_model_tags",
    "logged_model_params",
    "logged_model_metrics",
    "inputs",
    "registered_models",
    "registered_model_tags",
    "model_versions",
    "model_version_tags",
    "registered_model_aliases",
)
"""What trainings and versions are written into; those that others refer to first."""

Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class MlflowCopy:
    """Rows of MLflow's database.

    Attributes:
        schema: Of its tables.
        rows: The table of each and its columns.
    """

    schema: str
    rows: Sequence[Row]

    def of(self, table: str) -> Iterator[Mapping[str, Any]]:
        """Yields the rows of a table."""
        return (row for name, row in self.rows if name == table)

    def versions(self, model: str) -> Mapping[str, Mapping[str, Any]]:
        """Returns the versions of a model, by number."""
        return {str(row["version"]): row for row in self.of("model_versions") if row["name"] == model}

    def without(self, model: str, is_on_record: Callable[[str, str], bool]) -> "MlflowCopy":
        """Returns it without the versions of a model that are not on record: they were registered since.

        Args:
            model: Its name.
            is_on_record: Returns whether a version, of a run, is.
        """
        left_out = {
            number for number, row in self.versions(model).items() if not is_on_record(number, str(row["run_id"]))
        }

        def stays(table: str, row: Mapping[str, Any]) -> bool:
            about_version = table in {"model_versions", "model_version_tags", "registered_model_aliases"}
            return not (about_version and row["name"] == model and str(row["version"]) in left_out)

        return replace(self, rows=[(table, row) for table, row in self.rows if stays(table, row)])

    def places(self, model: str) -> Iterator[tuple[str, str]]:
        """Yields where files are that belong to it: what a backup calls them, and their address."""
        for number, row in self.versions(model).items():
            yield f"versions/{number}", str(row["storage_location"] or row["source"])
        for row in self.of("runs"):
            if row["lifecycle_stage"] == "active":
                yield f"runs/{row['run_uuid']}", str(row["artifact_uri"])


def copied(store: MlflowStore) -> MlflowCopy:
    """Returns what an MLflow store has, at one moment.

    Raises:
        RegistryError: Its database does not answer, or is of another release.
        SettingsError: It is a server, and nothing names its database.
    """
    with _database(store) as (connection, schema):
        lines = lines_of(connection, _reflected(connection))
        return MlflowCopy(schema, [parsed(line) for line in lines])


def fill(store: MlflowStore, copy: MlflowCopy) -> MlflowCopy:
    """Returns what an empty store has been given, all or nothing: the copy, with its files where this store keeps them.

    A store that has the copy already is as it should be: whoever filled it was killed.

    Raises:
        RegistryError: The store has other runs or versions, or tables of another release; or its database does not
            answer.
        SettingsError: It is a server, and nothing names its database.
    """
    _ = store.client  # which makes the experiment
    with _database(store) as (connection, schema):
        if schema != copy.schema:
            raise RegistryError(
                f"expected MLflow's tables to be of schema {copy.schema}, as the backup's, received {schema}: restore "
                "with the release of taxifare that made the backup, then upgrade"
            )
        tables = _reflected(connection)
        found = [parsed(line) for line in lines_of(connection, tables)]
        there, here = (_location(rows, store.experiment) for rows in (copy.rows, found))
        rows = [(table, _readdressed(table, row, there, here)) for table, row in copy.rows]
        if there_are := _runs_and_versions(found):
            if there_are != _runs_and_versions(rows):
                raise RegistryError(
                    f"{shown(store.tracking_uri)}: expected an MLflow store without runs and versions, received one "
                    f"with {len(there_are)}: set TAXIFARE_HOME or MLFLOW_TRACKING_URI to that of a new installation"
                )
            return replace(copy, rows=rows)
        for table in reversed(tables):
            connection.execute(table.delete())
        put(connection, {table.name: table for table in tables}, rows)
    return replace(copy, rows=rows)


@contextmanager
def files_at(store: MlflowStore, address: str) -> Iterator[Path | None]:
    """Yields a copy of the files at an address of MLflow's, None where there are none.

    Raises:
        RegistryError: They cannot be read.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as folder:
        with attempting(f"read the files at {shown(address)}"):
            repository = get_artifact_repository(address, tracking_uri=store.tracking_uri)
            has_files = bool(repository.list_artifacts(None))
            if has_files:
                repository.download_artifacts("", folder)
        yield Path(folder) if has_files else None


def put_files(store: MlflowStore, address: str, folder: Path) -> None:
    """Ensures that the files of a folder are at an address of MLflow's.

    Raises:
        RegistryError: They cannot be written.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with attempting(f"write the files at {shown(address)}"):
        get_artifact_repository(address, tracking_uri=store.tracking_uri).log_artifacts(str(folder))


@contextmanager
def _database(store: MlflowStore) -> Iterator[tuple[Connection, str]]:
    """Yields a transaction on the database of a store, which sees one moment, and the schema of its tables."""
    if store.is_server:
        address = os.environ.get(DATABASE_VARIABLE)
        if not address:
            raise SettingsError(
                f"{DATABASE_VARIABLE}: expected the address of MLflow's database, as its server has it, for "
                "MLFLOW_TRACKING_URI is a server, received nothing"
            )
        remember_address(address)
        store = replace(store, tracking_uri=address)
    else:
        _ = store.client  # makes the file where there is none
    engine, found, wanted = store.schema()
    if found != wanted:
        raise RegistryError(f"expected MLflow's tables to be of schema {wanted}, received {found}: taxifare migrate")
    with attempting("open its database"), engine.connect() as connection, connection.begin():
        begin = "BEGIN" if engine.dialect.name == "sqlite" else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        connection.exec_driver_sql(begin)
        yield connection, wanted


def _reflected(connection: Connection) -> list[sa.Table]:
    metadata = sa.MetaData()
    metadata.reflect(connection, only=_TABLES, resolve_fks=False)
    return [metadata.tables[name] for name in _TABLES]


def _runs_and_versions(rows: Iterable[Row]) -> set[tuple[str, ...]]:
    names = {"runs": ("run_uuid",), "model_versions": ("name", "version", "run_id")}
    return {tuple(str(row[name]) for name in names[table]) for table, row in rows if table in names}


def _location(rows: Iterable[Row], experiment: str) -> str:
    """Returns where an experiment has its files."""
    (row,) = (row for table, row in rows if table == "experiments" and row["name"] == experiment)
    return str(row["artifact_location"]).rstrip("/")


def _readdressed(table: str, row: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Returns a row whose files are below one address, and were below another one."""

    def moved(address: Any) -> Any:
        is_below = isinstance(address, str) and (address == old or address.startswith(f"{old}/"))
        return f"{new}{address[len(old) :]}" if is_below else address

    columns = {column for of_table, column in ADDRESSES if of_table == table}
    return {column: moved(value) if column in columns else value for column, value in row.items()}
