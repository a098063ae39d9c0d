"""What the model registry left in MLflow, as somebody sees it who reads the store without this repository."""

from typing import Any

from taxifare.model.registry import ModelRegistry
from taxifare.model.store import MlflowStore


def registry_at(address: str, name: str = "taxifare") -> ModelRegistry:
    """The registry in the store at the address, experiment and model of one name; nothing is asked yet."""
    return ModelRegistry(MlflowStore(address, name), name)


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
