"""The MLflow store: making it ready, talking to it, and what it means when it does not answer.

What is kept there is the business of `registry` (versions of the model) and `runs` (how they came about).
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from taxifare.buckets import EXTRAS, UnreachableError
from taxifare.environment import SettingsError, opened
from taxifare.errors import ToldError
from taxifare.secrets import private_folder, shown
from taxifare.settings import MlflowSettings
from taxifare.whole_files import whole_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from sqlalchemy.engine import Engine

ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""Where a store keeps the absolute addresses of files: table and column."""


_ABOUT_EXPERIMENT = {
    # MLflow's pages are those of training where an experiment says so, and those of agents where it does not.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": (
        "A run for each asset of each month: `production_eval_mae` scores the model in production, `staging_model` "
        "trains the candidate. The tag `month` says of which month it is."
    ),
}

_BUCKET_CLIENTS = {"boto3": "aws", "google.cloud.storage": "gcp", "google.cloud": "gcp", "google": "gcp"}
"""What to install for the clients that MLflow has of buckets, by the module that is missing."""


class RegistryError(ToldError, RuntimeError):
    """MLflow did not answer, or refused: nothing is known about production, which is not the same as nothing in it."""


@dataclass(frozen=True)
class MlflowStore:
    """A tracking and registry store of MLflow's with one experiment in it. Making one connects to nothing.

    Attributes:
        tracking_uri: Address of a server, or `sqlite:///` and a path.
        experiment: Name of the experiment of every run.
        artifact_location: Folder or bucket of the files of a new experiment; None is the server's choice, or a folder
            beside the SQLite file.
    """

    tracking_uri: str = field(repr=False)
    experiment: str
    artifact_location: str | None = None

    @classmethod
    def from_settings(cls, settings: MlflowSettings) -> "MlflowStore":
        """Returns the store the settings name, logged in; connects to nothing.

        Raises:
            SettingsError: What it takes to open MLFLOW_ARTIFACT_LOCATION is not installed.
        """
        _ = settings.artifacts
        if settings.mlflow_login is not None:
            # In the environment MLflow does not show the login; in its address, which it repeats in errors, it would.
            os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.mlflow_login
        return cls(settings.tracking_uri, settings.mlflow_experiment, settings.mlflow_artifact_location)

    @property
    def is_server(self) -> bool:
        """Whether MLflow is a server with pages to link to."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def is_database_server(self) -> bool:
        """Whether it is a database of a server without MLflow's own before it; its tables are ours to migrate."""
        return not self.is_server and not self.tracking_uri.startswith("sqlite:")

    @property
    def mlflow(self) -> Any:
        """MLflow's module, talking to this store: a global of MLflow's, which another store may have set since."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client of this store, with the experiment in place; makes an SQLite store where there is none.

        Raises:
            RegistryError: The experiment cannot be used as it is; `mend` makes it usable.
        """
        with self._opened() as client:
            experiment = client.get_experiment_by_name(self.experiment)
            if experiment is None:
                with unless_it_exists():
                    client.create_experiment(self.experiment, artifact_location=self.artifact_location or self._beside)
            if (fault := self._fault_of(client)) is not None:
                raise RegistryError(f"{fault}: nothing can be run or decided until it is put right: taxifare mend")
        return client

    def describe_experiment(self) -> None:
        """Ensures that MLflow opens on its training runs and says what they are; what people wrote there stays."""
        with attempting("describe the experiment"):
            experiment = self.client.get_experiment_by_name(self.experiment)
            for name, value in _ABOUT_EXPERIMENT.items():
                if name not in experiment.tags:
                    self.client.set_experiment_tag(experiment.experiment_id, name, value)

    def mend(self) -> tuple[str, ...]:
        """Returns what was wrong with the experiment and is put right; nothing that a model is, or was, is changed.

        Raises:
            RegistryError: MLflow does not answer, or the experiment was deleted for good.
        """
        mended: list[str] = []
        with attempting("put the experiment right"), self._opened() as client:
            while (fault := self._fault_of(client)) is not None:
                experiment, moved = client.get_experiment_by_name(self.experiment), self._moved_from(client)
                if experiment is not None and experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment.experiment_id)
                elif self._sqlite_file is not None and moved is not None:
                    _readdress(self._sqlite_file, moved, str(self._beside))
                mended.append(fault)
        return tuple(mended)

    @contextmanager
    def _opened(self) -> Iterator["MlflowClient"]:
        """Yields MLflow's client, alone with an SQLite store, which is whole."""
        # The default is seven retries with doubling pauses: minutes of silence when a server is down.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with _one_process_at_a_time(self._sqlite_folder):
            if self._sqlite_file is not None and not _is_finished(self._sqlite_file):
                _make_store(self._sqlite_file)
            yield self._connected()

    def migrate(self) -> str | None:
        """Returns the schema that a database server's tables had and have no more, `none` for no tables; else None.

        Raises:
            RegistryError: They are of a later release of MLflow, the database does not answer, or MLflow's migration
                failed: PostgreSQL has undone what it had begun.
        """
        if not self.is_database_server:
            return None
        from sqlalchemy.exc import SQLAlchemyError

        engine, found, wanted = self.schema()
        if found == wanted:
            return None
        try:
            _migrate_tables(engine)
        except SQLAlchemyError as error:
            raise RegistryError(
                f"the MLflow store {shown(self.tracking_uri)}: its tables have to become those of schema {wanted}, and "
                f"did not ({getattr(error, 'orig', None) or error}); once that is mended: taxifare migrate, again"
            ) from None
        return found or "none"

    def _connected(self) -> "MlflowClient":
        """Returns MLflow's client of a store whose tables are of this release: a file's are migrated if they are not.

        Raises:
            RegistryError: A server's are not.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        if self.is_database_server:
            _, found, wanted = self.schema()
            if found != wanted:
                tables = "it has no tables yet" if found is None else f"its tables are of schema {found}"
                raise RegistryError(
                    f"the MLflow store {shown(self.tracking_uri)}: {tables}, this release works with {wanted}: "
                    "taxifare migrate"
                )
        try:
            return mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)
        except MlflowException as error:
            # To know MLflow's latest schema takes longer than to open the store.
            if self._sqlite_file is None or "out-of-date database schema" not in str(error):
                raise
        engine, *_ = self.schema()
        _migrate_tables(engine)
        return mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)

    def schema(self) -> tuple["Engine", str | None, str]:
        """Returns the database, the schema of its tables, None for no tables, and the one that is worked with.

        Raises:
            RegistryError: The tables are of a later release of MLflow, or the database does not answer.
        """
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory
        from mlflow.store.db.utils import _get_alembic_config
        from sqlalchemy import create_engine, pool
        from sqlalchemy.exc import SQLAlchemyError

        known = ScriptDirectory.from_config(_get_alembic_config(""))
        wanted = str(known.get_current_head())
        try:
            engine = create_engine(self.tracking_uri, poolclass=pool.NullPool)
            with engine.connect() as connection:
                found = MigrationContext.configure(connection).get_current_revision()
        except (SQLAlchemyError, ImportError) as error:
            raise RegistryError(
                f"the MLflow store {shown(self.tracking_uri)} cannot be opened: {error}; is MLFLOW_TRACKING_URI right?"
            ) from None
        if found is not None and found not in {script.revision for script in known.walk_revisions()}:
            raise RegistryError(
                f"the MLflow store {shown(self.tracking_uri)}: its tables are of schema {found}, this release is older "
                f"and knows {wanted}: use the release that migrated them; or they are another program's, and MLflow "
                "needs a database of its own"
            )
        return engine, found, wanted

    def _fault_of(self, client: "MlflowClient") -> str | None:
        """Returns why the store cannot be used, None if it can."""
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            return f"the experiment {self.experiment} was deleted in MLflow"
        if (moved := self._moved_from(client)) is not None:
            return (
                f"{self._sqlite_folder} was moved or copied: MLflow still looks for the files of its models in "
                f"{shown(moved)}"
            )
        return None

    def _moved_from(self, client: "MlflowClient") -> str | None:
        """Returns where an SQLite store in a folder that was moved still looks for files, None if nowhere.

        Versions may be of an experiment that had another name then: all of them count.
        """
        from mlflow.entities import ViewType

        if self._sqlite_folder is None:
            return None
        places = (experiment.artifact_location for experiment in client.search_experiments(ViewType.ALL))
        return next(filter(self._has_moved, places), None)

    def _has_moved(self, location: str) -> bool:
        """Whether the folder of an SQLite store is not where its experiment's files were put beside it."""
        folder = self._sqlite_folder
        if folder is None or self.artifact_location is not None or urlsplit(location).scheme not in {"", "file"}:
            return False
        here, there = folder / "artifacts", Path(url2pathname(urlsplit(location).path))
        if here == there or there.parts[-2:] != here.parts[-2:]:
            return False
        if there.exists():
            return here.exists() and not here.samefile(there)
        return True

    @property
    def experiment_id(self) -> str:
        """The experiment's number."""
        return str(self.client.get_experiment_by_name(self.experiment).experiment_id)

    def artifacts(self) -> str:
        """Returns where the files of runs and models go: an experiment keeps the place it was created with.

        Raises:
            RegistryError: MLflow does not answer.
        """
        with attempting("find the experiment"):
            return shown(self.client.get_experiment_by_name(self.experiment).artifact_location)

    @property
    def _sqlite_file(self) -> Path | None:
        """The file of an SQLite store, None for any other."""
        prefix = "sqlite:///"
        uri = self.tracking_uri
        return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None

    @property
    def _sqlite_folder(self) -> Path | None:
        """The folder of an SQLite store, None for any other."""
        return None if self._sqlite_file is None else self._sqlite_file.parent

    @property
    def _beside(self) -> str | None:
        """Where the files of an SQLite store are unless a setting says otherwise, None for any other."""
        return None if self._sqlite_folder is None else (self._sqlite_folder / "artifacts").as_uri()


@contextmanager
def attempting(attempt: str) -> Iterator[None]:
    """Turns what MLflow and its transport raise into `RegistryError` that says what was attempted."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, *bucket_faults()) as error:
        # Of a server that does not answer MLflow tells by an exception of its own, raised from the transport's.
        is_silent = any(isinstance(fault, requests.RequestException) for fault in (error, error.__context__))
        advice = "; is MLFLOW_TRACKING_URI right, and does the server run?" if is_silent else ""
        raise RegistryError(f"MLflow could not {attempt}: {error}{advice}") from None
    except ModuleNotFoundError as error:
        if error.name not in _BUCKET_CLIENTS:
            raise
        extra = f"pip install -e '.[{_BUCKET_CLIENTS[error.name]}]'"
        raise RegistryError(f"MLflow could not {attempt}: its files are in a bucket: {extra}") from None


@contextmanager
def unless_it_exists() -> Iterator[None]:
    """Lets another process be first: of two that create the same, one is told that it exists, and both have it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def bucket_faults() -> tuple[type[Exception], ...]:
    """Returns what clients raise where artifacts are in a bucket: Google's and Amazon's, those that are installed."""
    faults: tuple[type[Exception], ...] = ()
    with suppress(ImportError):
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        faults += (GoogleAPIError, GoogleAuthError)
    with suppress(ImportError):
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        faults += (Boto3Error, BotoCoreError, ClientError)
    return faults


def ensure_bucket_answers(address: str) -> None:
    """Ensures that a bucket lets us read whatever it has under an address; of other places nothing is known here.

    Raises:
        RegistryError: It does not: nothing is known about what is there.
    """
    if address.partition("://")[0] not in EXTRAS:
        return
    try:
        for path in opened("MLFLOW_ARTIFACT_LOCATION", address).rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    file.read(1)
    except (UnreachableError, SettingsError) as error:
        raise RegistryError(f"MLflow's files cannot be read: {error}") from None


@contextmanager
def _one_process_at_a_time(folder: Path | None) -> Iterator[None]:
    """Holds a lock while the SQLite store in the folder may be migrated: two processes doing it at once break it."""
    if folder is None:
        yield
        return
    from filelock import FileLock

    with FileLock(private_folder(folder) / "migration.lock"):
        yield


def _is_finished(path: Path) -> bool:
    """Whether the SQLite store is there, and whoever made it came to the end: then it has an experiment.

    Raises:
        RegistryError: The file is something else, or damaged.
    """
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT 1 FROM experiments").fetchone() is not None
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return False
        raise RegistryError(f"the MLflow store {path} cannot be opened: {error}") from None
    except sqlite3.DatabaseError as error:
        raise RegistryError(
            f"the MLflow store {path} is damaged, or no SQLite database ({error}): restore it from a backup"
        ) from None
    finally:
        connection.close()


def _make_store(path: Path) -> None:
    """Ensures that the SQLite store is there, empty: made aside, for one that is half made is of no use to MLflow."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in path.parent.glob(f".*.{path.name}*"):
        left.unlink()
    with whole_file(path) as unfinished:
        SqlAlchemyStore(f"sqlite:///{unfinished}", (path.parent / "artifacts").as_uri()).engine.dispose()


def _migrate_tables(engine: "Engine") -> None:
    """Ensures that a database has the tables of this release of MLflow."""
    from mlflow.store.db.utils import _initialize_tables, _is_empty_database, _upgrade_db

    if _is_empty_database(engine):
        _initialize_tables(engine)
    else:
        _upgrade_db(engine)


def _readdress(path: Path, old: str, new: str) -> None:
    """Ensures that an SQLite store looks for files that it had below one address below another; for all, or none."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            for table, column in ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 - names of ours
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    finally:
        connection.close()
