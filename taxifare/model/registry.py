"""Versions of the registered model in MLflow: register, find, load, tag, aliases.

How a model is packed is the business of `packaging`, how MLflow is reached of `store`, how a version came about of
`runs`: no other module talks to MLflow. What MLflow says of a version counts where it is what `contents` has on record.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxifare.buckets import EXTRAS
from taxifare.digests import digest_of_files
from taxifare.model.contents import Content, Contents, NotOnRecordError
from taxifare.model.exposure import Exposure
from taxifare.model.packaging import LoadedModel, Packed, VersionUnusableError, log_packed, unpacked, unpacked_once
from taxifare.model.runs import Runs
from taxifare.model.store import (
    MlflowStore,
    attempting,
    bucket_faults,
    ensure_bucket_answers,
    unless_it_exists,
)
from taxifare.model.story import story
from taxifare.settings import MlflowSettings
from taxifare.texts import named_version
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

_DESCRIPTION = (
    "Prices taxi rides. The alias `production` is the version that a person, or a stated policy, approved; `staging` "
    "is the newest candidate. The description of a version says what it learned and what was decided about it. The "
    "ledger is what counts: `taxifare history`."
)

_log = logging.getLogger(__name__)


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
        contents: What its versions were when they were registered.
        runs: How they came about.

    Raises (every method):
        RegistryError: MLflow cannot be reached or refuses.
    """

    def __init__(self, store: MlflowStore, model_name: str, contents: Contents) -> None:
        self.store = store
        self.model_name = model_name
        self.contents = contents
        self.runs = Runs(store)

    @classmethod
    def from_settings(cls, settings: MlflowSettings, contents: Contents) -> "ModelRegistry":
        """Returns the registry the settings name; connects to nothing."""
        return cls(MlflowStore.from_settings(settings), settings.registered_model, contents)

    @cached_property
    def _client(self) -> "MlflowClient":
        """The store's client, with the registered model in place."""
        client = self.store.client
        if not client.search_registered_models(f"name = '{self.model_name}'"):
            with unless_it_exists():
                client.create_registered_model(self.model_name)
        return client

    def prepare(self) -> None:
        """Ensures that the store, the experiment and the registered model exist and say what they are.

        Migrates an SQLite store.
        """
        with attempting("prepare the MLflow store"):
            self.store.describe_experiment()
            (model,) = self._client.search_registered_models(f"name = '{self.model_name}'")
            if not model.description:
                self._client.update_registered_model(self.model_name, _DESCRIPTION)
            # An earlier release described those alone about which somebody was asked.
            for found in self._client.search_model_versions(f"name = '{self.model_name}'"):
                if not found.description:
                    self._client.update_model_version(self.model_name, found.version, story(found.tags))

    # Versions and aliases

    def production_version(self) -> str | None:
        """Returns the version that the production alias points at, None where it points at none."""
        return self._aliased(PRODUCTION_ALIAS)

    def set_production(self, version: str | None) -> None:
        """Points the production alias at the version, None for none."""
        with attempting(f"set the production alias to {named_version(version)}"):
            if version is None:
                self._client.delete_registered_model_alias(self.model_name, PRODUCTION_ALIAS)
            else:
                self._client.set_registered_model_alias(self.model_name, PRODUCTION_ALIAS, version)

    def staging_version(self) -> str | None:
        """Returns the version that the staging alias points at: the newest challenger."""
        return self._aliased(STAGING_ALIAS)

    def set_staging(self, version: str) -> None:
        """Points the staging alias at the version."""
        with attempting(f"set the staging alias to version {version}"):
            self._client.set_registered_model_alias(self.model_name, STAGING_ALIAS, version)

    def tag(self, version: str, tags: Mapping[str, str]) -> bool:
        """Sets tags on the version, and the description that they come to; returns whether any of it was otherwise.

        Only what it does not have yet, for a server with a login takes its time for each.
        """
        with attempting(f"tag version {version}"):
            found = self._client.get_model_version(self.model_name, version)
            missing = {name: value for name, value in tags.items() if found.tags.get(name) != value}
            for name, value in missing.items():
                self._client.set_model_version_tag(self.model_name, version, name, value)
            if (told := story({**found.tags, **tags})) == found.description:
                return bool(missing)
            self._client.update_model_version(self.model_name, version, told)
            return True

    def describe(self, version: str) -> RegisteredVersion:
        """Returns what the registry knows of the version."""
        with attempting(f"read version {version}"):
            found = self._client.get_model_version(self.model_name, version)
        return _described(found)

    def find(self, fingerprint: str) -> RegisteredVersion | None:
        """Returns the version that was trained from the same inputs, None where there is none or it was altered since.

        The fingerprint is set in the call that creates a version, and what it is is recorded after that; so a run
        killed at any point and run again finds either its version or nothing, never half of one.
        """
        found = self._newest({FINGERPRINT_TAG: fingerprint})
        if found is None:
            return None
        try:
            self.verify(found.version)
        except VersionUnusableError as error:
            _log.warning("%s: its training is done anew", error)
            return None
        return found

    def newest_of(self, subject: str) -> str | None:
        """Returns the version that was trained last on the subject (a month, or `base`), None where there is none."""
        newest = self._newest({SUBJECT_TAG: subject})
        return None if newest is None else newest.version

    def newest_whole_month_of(self, version: str) -> str | None:
        """Returns the version that continues the approved version on the whole of its month, None where none does."""
        newest = self._newest({WHOLE_MONTH_TAG: version})
        return None if newest is None else newest.version

    def _newest(self, tags: Mapping[str, str]) -> RegisteredVersion | None:
        """Returns the newest version with all the tags that is on record, None where there is none."""
        newest_first = sorted(self._search(tags), key=lambda found: int(found.version), reverse=True)
        return next(filter(self._is_on_record, newest_first), None)

    def _search(self, tags: Mapping[str, str]) -> list[RegisteredVersion]:
        """Returns every version with all the tags."""
        query = "".join(f" and tags.`{name}` = '{value}'" for name, value in tags.items())
        with attempting("search versions"):
            found = list(self._client.search_model_versions(f"name = '{self.model_name}'{query}"))
        return [_described(version) for version in found]

    def _is_on_record(self, found: RegisteredVersion) -> bool:
        """Whether a version that MLflow has is the one that was registered under its number."""
        content = self.contents.of(found.version)
        return content is not None and content.run_id == found.run_id

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
            version = self._new_version(logged, run_id, {**tags, FINGERPRINT_TAG: fingerprint})
        self.contents.record(Content(version, run_id, self._digest_of(version)))
        return version

    def _new_version(self, logged: Any, run_id: str, tags: Mapping[str, str]) -> str:
        """Returns a new version of what was logged, under a number that was never given before."""
        while True:
            # A server refuses a logged model as the source unless its id is named, too.
            created = self._client.create_model_version(
                self.model_name,
                logged.model_uri,
                run_id,
                tags=dict(tags),
                model_id=logged.model_id,
                description=story(tags),
            )
            version = str(created.version)
            if self.contents.of(version) is None:
                return version
            # The registered model was deleted and made again, or MLflow restored from a backup: it counts anew.
            _log.warning("MLflow gives number %s again, which is on record as another version; it is left out", version)
            self._client.delete_model_version(self.model_name, version)

    def names_of(self, run_id: str) -> list[str]:
        """Returns the other registered models that have a version of the run: the model was renamed, or copied."""
        with attempting(f"search versions of run {run_id}"):
            found = self._client.search_model_versions(f"run_id = '{run_id}'")
        return sorted({str(version.name) for version in found} - {self.model_name})

    def as_they_are(self) -> list[Content]:
        """Returns every version whose files MLflow has, as they are now; says nothing about what they should be."""
        found = []
        for version in sorted(self._search({}), key=lambda version: int(version.version)):
            try:
                found.append(Content(version.version, version.run_id, self._digest_of(version.version)))
            except VersionUnusableError as error:
                _log.warning("%s", error)
        return found

    def _digest_of(self, version: str) -> str:
        """Returns the digest of the version's files as they are now; raises VersionUnusableError without any."""
        with self._files_of(version) as folder:
            return digest_of_files(folder)

    def verify(self, version: str) -> Content:
        """Returns what the version is, which MLflow has unchanged.

        Raises:
            NotOnRecordError: Nobody has recorded what it is.
            VersionUnusableError: MLflow does not have it, or has another one under its number, or other files.
        """
        with self._verified_files_of(version) as (_, content):
            return content

    def load(self, version: str) -> LoadedModel:
        """Returns a copy of the registered version, loaded from its saved weights, which the caller may train.

        Its files are verified before they are read.

        Raises:
            NotOnRecordError: Nobody has recorded what it is.
            VersionUnusableError: The version exists but its files are others, or cannot be loaded.
        """
        return self._unpacked(version, unpacked)

    def load_once(self, version: str) -> LoadedModel:
        """Returns the registered version, for whoever only asks it: all of this process share it, and what is traced.

        Its files are verified each time; raises what `load` does.
        """
        return self._unpacked(version, unpacked_once)

    def _unpacked(self, version: str, unpack: Callable[[Packed], LoadedModel]) -> LoadedModel:
        with self._verified_files_of(version) as (folder, content):
            # Whatever a damaged model raises while it is unpickled means the same: this version cannot be used.
            try:
                return unpack(Packed(content, str(folder), self.store.mlflow))
            except Exception as error:
                raise VersionUnusableError(f"version {version} cannot be loaded: {error}") from error

    @contextmanager
    def _verified_files_of(self, version: str) -> Iterator[tuple[Path, Content]]:
        """Yields a copy of the version's files, which are those that were registered, and what it is."""
        content = self.contents.of(version)
        if content is None:
            raise NotOnRecordError(
                f"version {version} of {self.model_name} is not on record: an earlier release registered it, or "
                'somebody else did. Where it is yours: taxifare adopt --by YOU --reason "WHY"'
            )
        with self._files_of(version, content.run_id) as folder:
            if (found := digest_of_files(folder)) != content.files_digest:
                raise VersionUnusableError(
                    f"version {version} cannot be loaded: its files in MLflow are not those that were registered "
                    f"(expected digest {content.files_digest[:12]}, received {found[:12]}); restore them from a backup"
                )
            yield folder, content

    @contextmanager
    def _files_of(self, version: str, run_id: str | None = None) -> Iterator[Path]:
        """Yields a copy of the version's files: what is verified cannot change before it is read.

        Args:
            version: Its number.
            run_id: The MLflow run that registered it, where that is known.
        """
        uri = self._model_uri(version, run_id)
        with tempfile.TemporaryDirectory() as folder:
            with attempting(f"download version {version}"):
                path = self._downloaded(version, uri, folder, lambda: self._model_uri(version, run_id))
            yield path

    def _downloaded(self, version: str, uri: str, folder: str, ensure_registry_answers: Callable[[], object]) -> Path:
        """Returns where the version's files have been downloaded into a folder.

        Raises:
            RegistryError: The bucket, or MLflow, does not answer: an outage is no fault of the version.
            VersionUnusableError: They answer, and do not have its files.
        """
        download = self.store.mlflow.artifacts.download_artifacts
        try:
            return Path(download(uri, dst_path=folder))
        except Exception as error:
            ensure_registry_answers()
            if isinstance(error, bucket_faults()) and not _is_absence(error):
                raise
            ensure_bucket_answers(uri)
            if uri.partition("://")[0] not in EXTRAS:
                raise VersionUnusableError(f"version {version} cannot be loaded: {error}") from error
        try:  # what MLflow says of a bucket's refusal does not tell it from a file that is not there
            return Path(download(uri, dst_path=folder))
        except Exception as error:
            raise VersionUnusableError(f"version {version} cannot be loaded: {error}") from error

    def _what_is_missing(self) -> str:
        """Returns what MLflow does not have of a version that it cannot find: the version, or the whole model."""
        names = [model.name for model in self._client.search_registered_models()]
        if self.model_name in names:
            return f"MLflow has no such version of {self.model_name}: somebody deleted it; restore it from a backup"
        return (
            f"MLflow has no model {self.model_name}, it has {', '.join(names) or 'none'}: MODEL_NAME names the model; "
            "set it back, or restore MLflow from a backup"
        )

    def _model_uri(self, version: str, run_id: str | None) -> str:
        """Returns the version's address; asking for it shows that the registry answers, before files are touched."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        with attempting(f"find version {version}"):
            try:
                found = _described(self._client.get_model_version(self.model_name, version))
                uri = str(self._client.get_model_version_download_uri(self.model_name, version))
            except MlflowException as error:
                if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise VersionUnusableError(
                        f"version {version} cannot be loaded: {self._what_is_missing()}"
                    ) from error
                raise
        if run_id not in {None, found.run_id}:
            raise VersionUnusableError(
                f"version {version} cannot be loaded: what MLflow has under this number is another one (expected that "
                f"of run {run_id}, received that of run {found.run_id}): {self.model_name} was deleted and made again"
            )
        return uri


def _described(found: "ModelVersion") -> RegisteredVersion:
    return RegisteredVersion(str(found.version), str(found.run_id), dict(found.tags))


def _is_absence(error: Exception) -> bool:
    """Returns whether a bucket answered that there is no such file; one that is not there itself says so, too."""
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return HTTPStatus.NOT_FOUND in {status, getattr(error, "code", None)}
