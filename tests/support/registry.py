"""What the model registry left in MLflow, as somebody sees it who reads the store without this repository."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from taxifare.approval.approvals import Approvals
from taxifare.approval.comparisons import record
from taxifare.model.contents import Content
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import MlflowStore
from tests.support.approvals import MemoryContents, by_recorded_files, evidence


def registry_at(address: str, name: str = "taxifare") -> ModelRegistry:
    """The registry in the store at the address, experiment and model of one name; nothing is asked yet."""
    return ModelRegistry(MlflowStore(address, name), name, MemoryContents())


def put_files(registry: ModelRegistry, count: int, folder: Path) -> None:
    """Registers versions whose files are no models, and records what they are: enough to be decided on."""
    folder.mkdir(parents=True)
    for number in range(count):
        files = folder / str(number)
        files.mkdir()
        (files / "weights").write_text(f"of {number}")
        registry.store.client.create_model_version(registry.model_name, str(files))
    for content in registry.as_they_are():
        if registry.contents.of(content.version) is None:
            registry.contents.record(content)


def all_runs(registry: ModelRegistry, query: str = "") -> list[Any]:
    """The runs of the experiment, the newest first."""
    return list(registry.store.client.search_runs([registry.store.experiment_id], query))


def runs_by_name(registry: ModelRegistry) -> dict[str, Any]:
    """The runs by name, where each name stands once."""
    runs = all_runs(registry)
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def all_versions(registry: ModelRegistry) -> list[Any]:
    """The versions of the model."""
    return list(registry.store.client.search_model_versions(f"name = '{registry.model_name}'"))


def add_version(registry: ModelRegistry) -> str:
    """Registers a version whose files are in MLflow's run but are no model: enough to be decided on."""
    with registry.runs.open("a version", {"asset": "test"}) as run_id:
        registry.store.client.log_text(run_id, f"of {run_id}", "model/weights")
        source = f"{registry.store.client.get_run(run_id).info.artifact_uri}/model"
    version = registry._new_version(SimpleNamespace(model_uri=source, model_id=None), run_id, {})
    found = {content.version: content for content in registry.as_they_are()}[version]
    registry.contents.record(Content(version, run_id, found.files_digest))
    return version


def promote(approvals: Approvals, version: str) -> None:
    """Goes through a question and its answer."""
    with approvals.ledger.reading() as entries:
        history = entries.promotions()
    production = history[-1].version if history else None
    found = evidence(f"2015-{len(history) + 1:02}", version, production)
    found = by_recorded_files(found, approvals.ledger)
    asked = approvals.request(record(approvals.ledger, found, approvals.now()))
    approvals.decide(asked.id, "approve", "Ada", "I looked at the slices")
    assert approvals.production() == version
