"""Where runs are executed is a matter of Dagster's configuration alone. Kubernetes: tests/domain/test_deployment.py."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef

from taxifare_dagster.launcher import ProcessLauncher
from tests.support.places import REPOSITORY

SHIPPED = REPOSITORY / "taxifare_dagster" / "dagster.yaml"

IMAGE = "registry.example.org/taxifare@sha256:" + "ab" * 32


def instance_with(home: Path, *configurations: Path) -> dg.DagsterInstance:
    """Dagster's instance as the configurations describe it, the latter in place of what the former say."""
    written: dict[str, object] = {}
    for configuration in configurations:
        written |= yaml.safe_load(configuration.read_text())
    (home / "dagster.yaml").write_text(yaml.safe_dump(written))
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))


def test_what_is_shipped_executes_runs_in_processes(tmp_path: Path) -> None:
    with instance_with(tmp_path, SHIPPED) as instance:
        assert isinstance(instance.run_launcher, ProcessLauncher)


def test_a_run_in_docker_has_the_settings_that_all_machines_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster_docker = pytest.importorskip("dagster_docker", reason="dagster-docker is not installed")
    monkeypatch.setenv("TAXIFARE_IMAGE", IMAGE)
    with instance_with(tmp_path, SHIPPED, REPOSITORY / "deploy" / "dagster-docker.yaml") as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, dagster_docker.DockerRunLauncher)
        assert launcher.supports_check_run_worker_health
        assert launcher.image == IMAGE
        assert {"DATABASE_URL", "STORAGE_URI", "MLFLOW_TRACKING_URI", "APPROVAL_SECRET"} <= set(launcher.env_vars)
        assert "volumes" not in launcher.container_kwargs, "it needs no file of another machine"
