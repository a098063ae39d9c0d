"""Models whose files are in a bucket: they come back as they went, and a bucket's outage is no fault of theirs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from taxifare.environment import opened
from taxifare.model.network import build_network
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import RegistryError
from taxifare.settings import Settings
from taxifare.trips.features import feature_names
from tests.support.cities import NEW_YORK
from tests.support.clouds import FORBIDDEN, THROTTLED, Cloud, Front
from tests.support.small import PLAIN_NETWORK, small_settings

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def registry(front: Front, tmp_path: Path, open_registry: Callable[[Settings], ModelRegistry]) -> ModelRegistry:
    return open_registry(small_settings(tmp_path, mlflow_artifact_location=f"{front.bucket}/mlflow"))


def registered(registry: ModelRegistry, january: pd.DataFrame) -> str:
    """A registered version: random weights are enough to be stored."""
    names = feature_names(NEW_YORK)
    features = january[list(names)].to_numpy(np.float32)
    targets = january["fare_amount"].to_numpy(np.float32)
    network = build_network(features, targets, NEW_YORK, learning_rate=0.001, seed=1, architecture=PLAIN_NETWORK)
    with registry.runs.open("a test", {"asset": "staging_model"}) as run_id:
        registry.runs.log_predictions(run_id, pd.Series([7.5], index=["a"]))
        return registry.register(network, NEW_YORK, (), run_id=run_id, fingerprint="f", tags={})


def test_files_of_models_are_in_the_bucket_and_its_outage_is_no_fault_of_theirs(
    registry: ModelRegistry, front: Front, cloud: Cloud, january: pd.DataFrame, tmp_path: Path
) -> None:
    version = registered(registry, january)
    files = [path for path in opened("MLFLOW_ARTIFACT_LOCATION", f"{front.bucket}/mlflow").rglob("*") if path.is_file()]
    assert registry.store.artifacts().startswith(f"{front.bucket}/mlflow")
    assert {"MLmodel", "network.keras", "validation_predictions.parquet"} <= {path.name for path in files}
    assert list(tmp_path.rglob("*.keras")) == []
    assert np.isfinite(registry.load(version).predict(january[:10])).all()
    registry.verify(version)
    run_id = registry.describe(version).run_id
    assert registry.runs.read_predictions(run_id).to_dict() == {"a": 7.5}

    # Google's own client tries again for two minutes.
    for refusal in (FORBIDDEN[cloud], *([THROTTLED[cloud]] if cloud == "s3" else [])):
        front.refuses = refusal
        for ask in (registry.load, registry.verify, lambda _: registry.runs.read_predictions(run_id)):
            with pytest.raises(RegistryError, match=str(refusal.status)):
                ask(version)
    front.well_again()
    registry.verify(version)

    for path in files:
        path.unlink()
    with pytest.raises(VersionUnusableError, match=f"version {version} cannot be loaded"):
        registry.load(version)
