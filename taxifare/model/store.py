"""The MLflow store: making it ready, talking to it, and what it means when it does not answer.

What is kept there is the business of `registry` (versions of the model) and `runs` (how they came about).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxifare.errors import ToldError
from taxifare.secrets import private_folder, shown
from taxifare.settings import MlflowSettings

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


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
        """Returns the store the settings name, logged in; connects to nothing."""
        if settings.mlflow_login is not None:
            # In the environment MLflow does not show the login; in its address, which it repeats in errors, it would.
            os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.mlflow_login
        return cls(settings.tracking_uri, settings.mlflow_experiment, settings.mlflow_artifact_location)

    @property
    def is_server(self) -> bool:
        """Whether MLflow is a server with pages to link to."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def mlflow(self) -> Any:
        """MLflow's module, talking to this store: a global of MLflow's, which another store may have set since."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client of this store, with the experiment in place; migrates an SQLite store."""
        # The default is seven retries with doubling pauses: minutes of silence when a server is down.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with _one_process_at_a_time(self._sqlite_folder):
            client = mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)
            if client.get_experiment_by_name(self.experiment) is None:
                beside = None if self._sqlite_folder is None else (self._sqlite_folder / "artifacts").as_uri()
                with unless_it_exists():
                    client.create_experiment(self.experiment, artifact_location=self.artifact_location or beside)
        return client

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
    def _sqlite_folder(self) -> Path | None:
        """The folder of an SQLite store, None for any other."""
        prefix = "sqlite:///"
        uri = self.tracking_uri
        return Path(uri.removeprefix(prefix)).absolute().parent if uri.startswith(prefix) else None


@contextmanager
def attempting(attempt: str) -> Iterator[None]:
    """Turns what MLflow and its transport raise into `RegistryError` that says what was attempted."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, *bucket_faults()) as error:
        raise RegistryError(f"MLflow could not {attempt}: {error}") from None


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
    """Returns what Google's client raises where artifacts are in a bucket; nothing where it is not installed."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return ()
    return (GoogleAPIError, GoogleAuthError)


@contextmanager
def _one_process_at_a_time(folder: Path | None) -> Iterator[None]:
    """Holds a lock while the SQLite store in the folder may be migrated: two processes doing it at once break it."""
    if folder is None:
        yield
        return
    from filelock import FileLock

    with FileLock(private_folder(folder) / "migration.lock"):
        yield
