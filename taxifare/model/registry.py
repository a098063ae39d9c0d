"""Versions of the registered model in MLflow: register, find, load, tag, aliases.

How a model is packed is the business of `packaging`, how MLflow is reached of `store`, how a version came about of
`runs`: no other module talks to MLflow.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taxifare.model.exposure import Exposure
from taxifare.model.packaging import LoadedModel, VersionUnusableError, log_packed, unpacked
from taxifare.model.runs import Runs
from taxifare.model.store import MlflowStore, RegistryError, attempting, bucket_faults, unless_it_exists
from taxifare.settings import MlflowSettings
from taxifare.trips.cities import City

if TYPE_CHECKING:
    import keras
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

PRODUCTION_ALIAS = "production"

STAGING_ALIAS = "staging"

FINGERPRINT_TAG = "taxifare.fingerprint"

SUBJECT_TAG = "month"

WHOLE_MONTH_TAG = "whole_month_of"
"""On a version that was retrained on the whole of a month after approval: the version that was approved."""


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
    """One registered model in an MLflow store, and the store's runs. Making one connects to nothing.

    Attributes:
        store: The store.
        model_name: Name of the registered model.
        runs: How its versions came about.

    Raises (every method):
        RegistryError: MLflow cannot be reached or refuses.
    """

    def __init__(self, store: MlflowStore, model_name: str) -> None:
        self.store = store
        self.model_name = model_name
        self.runs = Runs(store)

    @classmethod
    def from_settings(cls, settings: MlflowSettings) -> "ModelRegistry":
        """Returns the registry the settings name; connects to nothing."""
        return cls(MlflowStore.from_settings(settings), settings.registered_model)

    @cached_property
    def _client(self) -> "MlflowClient":
        """The store's client, with the registered model in place."""
        client = self.store.client
        if not client.search_registered_models(f"name = '{self.model_name}'"):
            with unless_it_exists():
                client.create_registered_model(self.model_name)
        return client

    def prepare(self) -> None:
        """Ensures that the store, the experiment and the registered model exist; migrates an SQLite store."""
        with attempting("prepare the MLflow store"):
            _ = self._client

    # Versions and aliases

    def production_version(self) -> str | None:
        """Returns the version that the production alias points at, None where it points at none."""
        return self._aliased(PRODUCTION_ALIAS)

    def set_production(self, version: str) -> None:
        """Points the production alias at the version."""
        with attempting(f"set the production alias to version {version}"):
            self._client.set_registered_model_alias(self.model_name, PRODUCTION_ALIAS, version)

    def staging_version(self) -> str | None:
        """Returns the version that the staging alias points at: the newest challenger."""
        return self._aliased(STAGING_ALIAS)

    def set_staging(self, version: str) -> None:
        """Points the staging alias at the version."""
        with attempting(f"set the staging alias to version {version}"):
            self._client.set_registered_model_alias(self.model_name, STAGING_ALIAS, version)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Sets tags on the version: those it does not have yet, for a server with a login takes its time for each."""
        with attempting(f"tag version {version}"):
            known = self._client.get_model_version(self.model_name, version).tags
            for name, value in tags.items():
                if known.get(name) != value:
                    self._client.set_model_version_tag(self.model_name, version, name, value)

    def describe(self, version: str) -> RegisteredVersion:
        """Returns what the registry knows of the version."""
        with attempting(f"read version {version}"):
            found = self._client.get_model_version(self.model_name, version)
        return _described(found)

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
        with attempting("search versions"):
            found = self._client.search_model_versions(f"name = '{self.model_name}'{query}")
        newest = max(found, key=lambda version: int(version.version), default=None)
        return None if newest is None else _described(newest)

    def _aliased(self, alias: str) -> str | None:
        """Returns the version that an alias points at, None where it points at none."""
        from mlflow.exceptions import MlflowException

        with attempting("read the aliases of the registered model"):
            client = self._client
            try:
                return str(client.get_model_version_by_alias(self.model_name, alias).version)
            except MlflowException:
                # Not set, says one store in these words and another in those; the registered model tells, but MLflow
                # reads all of its versions then.
                version = client.get_registered_model(self.model_name).aliases.get(alias)
        return None if version is None else str(version)

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
        with attempting("log and register a model"):
            logged = log_packed(self.store.mlflow, network, city, exposure, correction_share)
            version = self._client.create_model_version(
                self.model_name,
                logged.model_uri,
                run_id,
                tags={**tags, FINGERPRINT_TAG: fingerprint},
                # A server refuses a logged model as the source unless its id is named, too.
                model_id=logged.model_id,
            )
        return str(version.version)

    def load(self, version: str) -> LoadedModel:
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
                path = self.store.mlflow.artifacts.download_artifacts(uri, dst_path=None if is_here else folder)
                return unpacked(self.store.mlflow, path, version)
        except Exception as error:
            # Unless MLflow or the bucket has gone silent in between: an outage is no fault of the version.
            self._model_uri(version)
            if isinstance(error, bucket_faults()) and not _is_absence(error):
                raise RegistryError(f"MLflow could not download version {version}: {error}") from None
            raise VersionUnusableError(f"version {version} cannot be loaded: {error}") from error

    def _model_uri(self, version: str) -> str:
        """Returns the version's address."""
        with attempting(f"find version {version}"):
            return str(self._client.get_model_version_download_uri(self.model_name, version))


def _described(found: "ModelVersion") -> RegisteredVersion:
    return RegisteredVersion(str(found.version), str(found.run_id), dict(found.tags))


def _is_absence(error: Exception) -> bool:
    """Returns whether a bucket answered that there is no such file."""
    return getattr(error, "code", None) == HTTPStatus.NOT_FOUND
