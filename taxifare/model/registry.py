"""Models in MLflow: log, register, load, aliases, exposure. The one module that talks to MLflow.

A registered model is a pyfunc that takes raw trips and returns the target: fares in USD, or durations in minutes. Its
feature code is pickled by value, so a version always computes the features it was trained with, whatever this
repository has become since, and loads in a process that has no `taxifare` at all. The Keras network lies beside it with
its optimizer, so that training can go on.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pandas as pd

from taxifare.model.exposure import Exposure
from taxifare.model.packaging import (
    LoadedModel,
    VersionUnusableError,
    _pickled_by_value,
    _pyfunc_model,
    _quiet_mlflow,
    _requirements,
    _signature,
)
from taxifare.settings import Settings
from taxifare.trips.cities import City
from taxifare.trips.features import feature_names

if TYPE_CHECKING:
    import keras
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PRODUCTION_ALIAS = "production"

STAGING_ALIAS = "staging"

FINGERPRINT_TAG = "taxifare.fingerprint"

SUBJECT_TAG = "month"

WHOLE_MONTH_TAG = "whole_month_of"
"""On a version that was retrained on the whole of a month after approval: the version that was approved."""

_NETWORK_FILE = "network.keras"

_PREDICTIONS_FILE = "validation_predictions.parquet"


class RegistryError(RuntimeError):
    """MLflow did not answer, or refused: nothing is known about production, which is not the same as nothing in it."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the registered model as the registry describes it.

    Attributes:
        version: Its number, always text (MLflow gives an int or a str, depending on the store).
        run_id: The MLflow run that trained it.
        tags: Its tags.
    """

    version: str
    run_id: str
    tags: Mapping[str, str]


class ModelRegistry:
    """The registered model in one MLflow store. Making one connects to nothing.

    Raises (every method):
        RegistryError: MLflow cannot be reached or refuses.
    """

    def __init__(
        self, tracking_uri: str, experiment: str, model_name: str, artifact_location: str | None = None
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.model_name = model_name
        self.artifact_location = artifact_location

    @classmethod
    def from_settings(cls, settings: Settings) -> "ModelRegistry":
        """Returns the registry the settings name; connects to nothing."""
        registry = cls(
            settings.tracking_uri,
            settings.mlflow_experiment,
            settings.registered_model,
            settings.mlflow_artifact_location,
        )
        if settings.mlflow_tracking_username is not None and settings.mlflow_tracking_password is not None:
            # MLflow takes its login from the environment only; settings may come from .env, which it does not read.
            os.environ["MLFLOW_TRACKING_USERNAME"] = settings.mlflow_tracking_username
            os.environ["MLFLOW_TRACKING_PASSWORD"] = settings.mlflow_tracking_password.get_secret_value()
        return registry

    @property
    def is_server(self) -> bool:
        """Whether MLflow is a server with pages to link to."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def _mlflow(self) -> Any:
        """MLflow's module, talking to this store: a global of MLflow's, which another registry may have set since."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow

    @cached_property
    def _client(self) -> "MlflowClient":
        """The client, with the experiment and the registered model in place."""
        # The default is seven retries with doubling pauses: minutes of silence when a server is down.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        with _one_process_at_a_time(self.tracking_uri):
            client = mlflow.MlflowClient(self.tracking_uri, self.tracking_uri)
            if client.get_experiment_by_name(self.experiment) is None:
                folder = _sqlite_folder(self.tracking_uri)
                beside = None if folder is None else (folder / "artifacts").as_uri()
                location = self.artifact_location or beside
                with _unless_it_exists():
                    client.create_experiment(self.experiment, artifact_location=location)
            if not client.search_registered_models(f"name = '{self.model_name}'"):
                with _unless_it_exists():
                    client.create_registered_model(self.model_name)
        return client

    def prepare(self) -> None:
        """Ensures that the store, the experiment and the registered model exist; migrates an SQLite store."""
        with _as_registry_error("prepare the MLflow store"):
            _ = self._client

    # Versions and aliases

    def production_version(self) -> str | None:
        """Returns the version that the production alias points at, None where it points at none."""
        return self._aliases().get(PRODUCTION_ALIAS)

    def set_production(self, version: str) -> None:
        """Points the production alias at the version."""
        with _as_registry_error(f"set the production alias to version {version}"):
            self._client.set_registered_model_alias(self.model_name, PRODUCTION_ALIAS, version)

    def staging_version(self) -> str | None:
        """Returns the version that the staging alias points at: the newest challenger."""
        return self._aliases().get(STAGING_ALIAS)

    def set_staging(self, version: str) -> None:
        """Points the staging alias at the version."""
        with _as_registry_error(f"set the staging alias to version {version}"):
            self._client.set_registered_model_alias(self.model_name, STAGING_ALIAS, version)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Sets tags on the version: those it does not have yet, for a server with a login takes its time for each."""
        with _as_registry_error(f"tag version {version}"):
            known = self._client.get_model_version(self.model_name, version).tags
            for name, value in tags.items():
                if known.get(name) != value:
                    self._client.set_model_version_tag(self.model_name, version, name, value)

    def describe(self, version: str) -> RegisteredVersion:
        """Returns what the registry knows of the version."""
        with _as_registry_error(f"read version {version}"):
            found = self._client.get_model_version(self.model_name, version)
        return RegisteredVersion(str(found.version), str(found.run_id), dict(found.tags))

    def artifacts(self) -> str:
        """Returns where the files of runs and models go: an experiment keeps the place it was created with."""
        with _as_registry_error("find the experiment"):
            return str(self._client.get_experiment_by_name(self.experiment).artifact_location)

    def find(self, fingerprint: str) -> RegisteredVersion | None:
        """Returns the version that was trained from the same inputs, None where there is none.

        The fingerprint is set in the call that creates a version, so a run killed at any point and run again finds
        either its version or nothing, never half of one.
        """
        return self._newest({FINGERPRINT_TAG: fingerprint})

    def newest_of(self, subject: str) -> str | None:
        """Returns the version that was trained last on the subject (a month, or `base`), None where there is none."""
        newest = self._newest({SUBJECT_TAG: subject})
        return None if newest is None else newest.version

    def newest_whole_month_of(self, version: str) -> str | None:
        """Returns the version that continues the approved version on the whole of its month, None where none does."""
        newest = self._newest({WHOLE_MONTH_TAG: version})
        return None if newest is None else newest.version

    def _newest(self, tags: Mapping[str, str]) -> RegisteredVersion | None:
        """Returns the newest version with all the tags, None where there is none."""
        query = "".join(f" and tags.`{name}` = '{value}'" for name, value in tags.items())
        with _as_registry_error("search versions"):
            found = self._client.search_model_versions(f"name = '{self.model_name}'{query}")
        newest = max(found, key=lambda version: int(version.version), default=None)
        return None if newest is None else RegisteredVersion(str(newest.version), str(newest.run_id), dict(newest.tags))

    def _aliases(self) -> dict[str, str]:
        with _as_registry_error("read the aliases of the registered model"):
            # search_model_versions returns no aliases; the registered model itself does.
            aliases = self._client.get_registered_model(self.model_name).aliases
        return {name: str(version) for name, version in aliases.items()}

    # Models

    def register(
        self,
        network: "keras.Model",
        city: City,
        exposure: Sequence[Exposure],
        *,
        run_id: str,
        fingerprint: str,
        tags: Mapping[str, str],
        correction_share: float = 0.0,
    ) -> str:
        """Logs the network as a model that takes raw trips, registers it and returns its version.

        Args:
            network: A compiled network over the features of `taxifare.trips.features`.
            city: Whose facts its features use.
            exposure: What it has been trained on, its parents' exposure included.
            run_id: The active MLflow run that trained it.
            fingerprint: Identifies the inputs of the training, see `find`.
            tags: More tags of the version.
            correction_share: How far towards its upper predictions it goes when it is asked for corrected ones.
        """
        with _as_registry_error("log and register a model"), tempfile.TemporaryDirectory() as folder:
            network.save(Path(folder) / _NETWORK_FILE)
            with _quiet_mlflow(), _pickled_by_value():
                logged = self._mlflow.pyfunc.log_model(
                    name="model",
                    python_model=_pyfunc_model(city, correction_share),
                    artifacts={"network": str(Path(folder) / _NETWORK_FILE)},
                    signature=_signature(),
                    metadata={
                        "exposure": [entry.model_dump(mode="json") for entry in exposure],
                        "features": list(feature_names(city)),
                        "correction_share": correction_share,
                    },
                    # Inferring the requirements would import the model in a process of its own: 15 s.
                    pip_requirements=_requirements(),
                )
            version = self._client.create_model_version(
                self.model_name,
                logged.model_uri,
                run_id,
                tags={**tags, FINGERPRINT_TAG: fingerprint},
                # A server refuses a logged model as the source unless its id is named, too.
                model_id=logged.model_id,
            )
        return str(version.version)

    def load(self, version: str) -> "LoadedModel":
        """Returns the registered version, loaded from its saved weights.

        Raises:
            VersionUnusableError: The version exists but its files cannot be loaded.
        """
        # Asking for its address shows that the registry answers, before files are touched.
        uri = self._model_uri(version)
        # Whatever a damaged model raises while it is unpickled means the same: this version cannot be used.
        try:
            with tempfile.TemporaryDirectory() as folder:
                is_here = urlsplit(uri).scheme in {"", "file"}
                path = self._mlflow.artifacts.download_artifacts(uri, dst_path=None if is_here else folder)
                model = self._mlflow.pyfunc.load_model(path)
                metadata = model.metadata.metadata
                exposure = tuple(Exposure.model_validate(entry) for entry in metadata["exposure"])
                loaded = LoadedModel(
                    version, model, exposure, tuple(metadata["features"]), float(metadata["correction_share"])
                )
        except Exception as error:
            # Unless MLflow or the bucket has gone silent in between: an outage is no fault of the version.
            self._model_uri(version)
            if isinstance(error, _bucket_faults()) and not _is_absence(error):
                raise RegistryError(f"MLflow could not download version {version}: {error}") from error
            raise VersionUnusableError(f"version {version} cannot be loaded: {error}") from error
        return loaded

    def _model_uri(self, version: str) -> str:
        """Returns the version's address."""
        with _as_registry_error(f"find version {version}"):
            return str(self._client.get_model_version_download_uri(self.model_name, version))

    # Runs

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """Ensures one MLflow run for these tags and yields its id; a retry goes on in the run it began.

        The run ends FINISHED, or FAILED when the body raises. A run that is active in this process becomes its parent.
        """
        with _as_registry_error("start a run"):
            experiment = self._client.get_experiment_by_name(self.experiment)
            query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
            earlier: Sequence[Run] = self._client.search_runs([experiment.experiment_id], query, max_results=1)
            run = self._mlflow.start_run(
                run_id=earlier[0].info.run_id if earlier else None,
                experiment_id=None if earlier else experiment.experiment_id,
                run_name=None if earlier else name,
                nested=self._mlflow.active_run() is not None,
                tags=dict(tags),
            )
        try:
            yield str(run.info.run_id)
        except BaseException:
            # What went wrong is the news, not that MLflow cannot be told of it; a retry goes on in the run.
            with suppress(RegistryError), _as_registry_error(f"end run {run.info.run_id}"):
                self._mlflow.end_run("FAILED")
            raise
        with _as_registry_error(f"end run {run.info.run_id}"):
            self._mlflow.end_run("FINISHED")

    def finished(self, tags: Mapping[str, str]) -> Mapping[str, float] | None:
        """Returns the metrics of the newest run with all the tags that ended well, None where there is none."""
        query = " and ".join(
            ["attributes.status = 'FINISHED'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())]
        )
        with _as_registry_error("search runs"):
            experiment = self._client.get_experiment_by_name(self.experiment)
            found = self._client.search_runs([experiment.experiment_id], query, max_results=1)
        return dict(found[0].data.metrics) if found else None

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags on the run."""
        with _as_registry_error(f"tag run {run_id}"):
            for name, value in tags.items():
                self._client.set_tag(run_id, name, value)

    def log(
        self, run_id: str, *, params: Mapping[str, Any] | None = None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Adds params and metrics to the run; a param that a retry logs again keeps its value."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        with _as_registry_error(f"log to run {run_id}"):
            # MLflow refuses to change a param, and a retry that finds its version trained has another story to tell.
            known = self._client.get_run(run_id).data.params if params else {}
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, float(value), now_ms, 0) for key, value in (metrics or {}).items()],
                params=[Param(key, str(value)) for key, value in (params or {}).items() if key not in known],
            )

    def log_curve(self, run_id: str, metric: str, values: Sequence[float], *, first_epoch: int = 1) -> None:
        """Adds a metric with one value an epoch to the run."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        with _as_registry_error(f"log to run {run_id}"):
            self._client.log_batch(
                run_id,
                metrics=[
                    Metric(metric, float(value), now_ms, epoch) for epoch, value in enumerate(values, start=first_epoch)
                ],
            )

    def log_figure(self, run_id: str, name: str, png: bytes) -> None:
        """Keeps a figure with the run, as `name`.png."""
        with _as_registry_error(f"log a figure to run {run_id}"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            self._client.log_artifact(run_id, str(path))

    def log_predictions(self, run_id: str, predictions: pd.Series) -> None:
        """Keeps predictions, indexed by trip key, with the run, so that two models can be paired trip by trip."""
        with _as_registry_error(f"log predictions to run {run_id}"), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _PREDICTIONS_FILE
            predictions.rename("predicted").rename_axis("key").to_frame().to_parquet(path)
            self._client.log_artifact(run_id, str(path))

    def read_predictions(self, run_id: str) -> pd.Series:
        """Returns the predictions kept with the run, indexed by trip key."""
        with _as_registry_error(f"read the predictions of run {run_id}"), tempfile.TemporaryDirectory() as folder:
            path = self._client.download_artifacts(run_id, _PREDICTIONS_FILE, folder)
            return pd.read_parquet(path)["predicted"]

    # Pages

    def run_url(self, run_id: str) -> str | None:
        """Returns the address of the run's page, None without a server."""
        if not self.is_server:
            return None
        with _as_registry_error(f"read run {run_id}"):
            experiment_id = self._client.get_run(run_id).info.experiment_id
        return f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    def comparison_url(self, run_ids: Sequence[str]) -> str | None:
        """Returns the address of the page with the runs side by side, None without a server."""
        if not self.is_server:
            return None
        with _as_registry_error("find the experiment"):
            experiment = self._client.get_experiment_by_name(self.experiment)
        runs, experiments = (quote(json.dumps(ids)) for ids in (list(run_ids), [experiment.experiment_id]))
        return f"{self.tracking_uri.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def _sqlite_folder(tracking_uri: str) -> Path | None:
    """Returns the folder of an SQLite store, None for any other."""
    prefix = "sqlite:///"
    return Path(tracking_uri.removeprefix(prefix)).absolute().parent if tracking_uri.startswith(prefix) else None


@contextmanager
def _one_process_at_a_time(tracking_uri: str) -> Iterator[None]:
    """Holds a lock while an SQLite store may be migrated: two processes doing it at once break it."""
    folder = _sqlite_folder(tracking_uri)
    if folder is None:
        yield
        return
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "migration.lock"):
        yield


@contextmanager
def _unless_it_exists() -> Iterator[None]:
    """Lets another process be first: of two that create the same, one is told that it exists, and both have it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _as_registry_error(attempt: str) -> Iterator[None]:
    """Turns what MLflow and its transport raise into `RegistryError` that says what was attempted."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, requests.RequestException, SQLAlchemyError, *_bucket_faults()) as error:
        raise RegistryError(f"MLflow could not {attempt}: {error}") from error


def _bucket_faults() -> tuple[type[Exception], ...]:
    """Returns what Google's client raises where artifacts are in a bucket; nothing where it is not installed."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return ()
    return (GoogleAPIError, GoogleAuthError)


def _is_absence(error: Exception) -> bool:
    """Returns whether a bucket answered that there is no such file."""
    return getattr(error, "code", None) == HTTPStatus.NOT_FOUND
