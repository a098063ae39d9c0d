"""Models whose files are in a bucket: they come back as they went, and a bucket's outage is no fault of theirs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.model.network import Architecture, build_network
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import RegistryError
from taxifare.settings import Settings
from taxifare.trips.features import feature_names
from tests.support.cities import NEW_YORK
from tests.support.small import small_settings

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def registry(bucket: str, tmp_path: Path, open_registry: Callable[[Settings], ModelRegistry]) -> ModelRegistry:
    return open_registry(small_settings(tmp_path, mlflow_artifact_location=f"{bucket}/mlflow"))


@pytest.fixture
def version(registry: ModelRegistry, january: pd.DataFrame) -> str:
    """A registered version: random weights are enough to be stored."""
    names = feature_names(NEW_YORK)
    features = january[list(names)].to_numpy(np.float32)
    targets = january["fare_amount"].to_numpy(np.float32)
    network = build_network(
        features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=Architecture(dense_widths=(4,))
    )
    with registry.runs.open("a test", {"asset": "staging_model"}) as run_id:
        registry.runs.log_predictions(run_id, pd.Series([7.5], index=["a"]))
        return registry.register(network, NEW_YORK, (), run_id=run_id, fingerprint="f", tags={})


def files_in(bucket: str) -> list[str]:
    from google.cloud import storage

    return [blob.name for blob in storage.Client("wagoncab").list_blobs(bucket.removeprefix("gs://"))]


@contextmanager
def refusing_storage() -> Iterator[str]:
    """A Google Cloud Storage at which this account has no rights any more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_of_models_and_runs_are_in_the_bucket(
    registry: ModelRegistry, version: str, bucket: str, january: pd.DataFrame, tmp_path: Path
) -> None:
    assert registry.store.artifacts().startswith(f"{bucket}/mlflow")
    names = {Path(name).name for name in files_in(bucket)}
    assert {"MLmodel", "network.keras", "validation_predictions.parquet"} <= names
    assert list(tmp_path.rglob("*.keras")) == []
    loaded = registry.load(version)
    assert np.isfinite(loaded.predict(january[:10])).all()
    assert registry.runs.read_predictions(registry.describe(version).run_id).to_dict() == {"a": 7.5}


def test_a_version_whose_files_are_gone_from_the_bucket_is_unusable(
    registry: ModelRegistry, version: str, bucket: str
) -> None:
    from google.cloud import storage

    for blob in storage.Client("wagoncab").list_blobs(bucket.removeprefix("gs://")):
        blob.delete()
    with pytest.raises(VersionUnusableError, match=f"version {version} cannot be loaded"):
        registry.load(version)


def test_a_bucket_that_refuses_is_no_fault_of_the_version(
    registry: ModelRegistry, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing_storage() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        with pytest.raises(RegistryError, match=f"could not download version {version}: 403"):
            registry.load(version)
        with pytest.raises(RegistryError, match="could not read the predictions"):
            registry.runs.read_predictions(registry.describe(version).run_id)
