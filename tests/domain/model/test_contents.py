"""A version is its content: what was registered is what is loaded, or nothing is."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.digests import digest_of_files
from taxifare.model.contents import NotOnRecordError
from taxifare.model.network import build_network
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.trips.features import feature_names
from tests.support.approvals import MemoryContents
from tests.support.cities import NEW_YORK
from tests.support.small import PLAIN_NETWORK

TAGS = {"asset": "staging_model", "month": "2015-01"}


@pytest.fixture
def two(registry: ModelRegistry, january: pd.DataFrame) -> ModelRegistry:
    """Two versions that price differently."""
    features = january[list(feature_names(NEW_YORK))].to_numpy("float32")
    fares = january["fare_amount"].to_numpy("float32")
    for number, dearer in enumerate((0.0, 100.0)):
        network = build_network(
            features,
            fares + dearer,
            NEW_YORK,
            learning_rate=0.001,
            seed=1,
            architecture=PLAIN_NETWORK,
        )
        with registry.runs.open("a test", {**TAGS, "number": str(number)}) as run_id:
            registry.register(network, NEW_YORK, (), run_id=run_id, fingerprint=f"f{number}", tags={})
    return registry


def files_of(registry: ModelRegistry, version: str) -> Path:
    """The folder in which MLflow keeps the version's files."""
    return Path(registry.store.mlflow.artifacts.download_artifacts(f"models:/{registry.model_name}/{version}"))


class Canary:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def dearer_network(registry: ModelRegistry, _trace: Path) -> None:
    shutil.copy(
        files_of(registry, "2") / "artifacts" / "network.keras", files_of(registry, "1") / "artifacts" / "network.keras"
    )


def code_that_runs(registry: ModelRegistry, trace: Path) -> None:
    (files_of(registry, "1") / "python_model.pkl").write_bytes(pickle.dumps(Canary(trace)))


def another_file(registry: ModelRegistry, _trace: Path) -> None:
    (files_of(registry, "1") / "code.py").write_text("print('hello')")


def a_file_under_another_name(registry: ModelRegistry, _trace: Path) -> None:
    path = files_of(registry, "1") / "requirements.txt"
    path.rename(path.with_name("requirements.old"))


@pytest.mark.parametrize("alter", [dearer_network, code_that_runs, another_file, a_file_under_another_name])
def test_files_that_were_altered_are_not_read(
    two: ModelRegistry, alter: Callable[[ModelRegistry, Path], None], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    alter(two, trace)
    for attempt in (two.load, two.verify):
        with pytest.raises(VersionUnusableError, match="its files in MLflow are not those that were registered"):
            attempt("1")
    assert not trace.exists(), "nothing is unpickled that was not registered"
    assert two.find("f0") is None, "its training is done anew"
    assert two.verify("2").version == "2"


def test_a_version_made_anew_under_its_number_is_another_one(two: ModelRegistry) -> None:
    """The registered model was deleted, and somebody counts from 1 again."""
    client, source = two.store.client, two.store.client.get_model_version(two.model_name, "2").source
    client.delete_registered_model(two.model_name)
    client.create_registered_model("fares-of-before")
    with pytest.raises(VersionUnusableError, match=rf"no model {two.model_name}, it has fares-of-before: MODEL_NAME"):
        two.load("1")
    client.create_registered_model(two.model_name)
    with pytest.raises(VersionUnusableError, match="MLflow has no such version"):
        two.load("1")
    client.create_model_version(two.model_name, source, run_id="another")
    with pytest.raises(VersionUnusableError, match="is another one"):
        two.load("1")
    assert two.newest_of("base") is None


def test_a_number_on_record_is_not_given_again(two: ModelRegistry) -> None:
    network = two.load("1").network
    client = two.store.client
    client.delete_registered_model(two.model_name)
    client.create_registered_model(two.model_name)
    with two.runs.open("a test", {**TAGS, "number": "3"}) as run_id:
        version = two.register(network, NEW_YORK, (), run_id=run_id, fingerprint="f3", tags={})
    assert version == "3"
    assert two.load("3").version == "3"
    assert [found.version for found in two.as_they_are()] == ["3"]


def test_a_version_that_nobody_recorded_is_not_read(two: ModelRegistry) -> None:
    stranger = ModelRegistry(two.store, two.model_name, MemoryContents())
    with pytest.raises(NotOnRecordError, match="taxifare adopt"):
        stranger.load("1")
    assert stranger.find("f0") is None
    assert {content.version for content in stranger.as_they_are()} == {"1", "2"}


def test_what_is_verified_is_a_copy(two: ModelRegistry) -> None:
    """Between the check and the reading, files in the store may change: the copy does not."""
    with two._verified_files_of("1") as (folder, content):
        assert urlsplit(str(folder)).path != str(files_of(two, "1"))
        code_that_runs(two, folder / "trace")
        assert digest_of_files(folder) == content.files_digest


NAMES = st.text("abc", min_size=1, max_size=3)


@given(st.dictionaries(NAMES, st.binary(max_size=4), min_size=1, max_size=4), st.data())
def test_the_digest_of_files_changes_with_names_and_contents(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    def digest(written: dict[str, bytes]) -> str:
        folder = tmp_path_factory.mktemp("files")
        for name, content in written.items():
            (folder / name).write_bytes(content)
        return digest_of_files(folder)

    assert digest(files) == digest(dict(reversed(files.items())))
    changed = data.draw(st.dictionaries(NAMES, st.binary(max_size=4), max_size=4).filter(lambda other: other != files))
    assert digest(changed) != digest(files)
