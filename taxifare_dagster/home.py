"""The state folder: made once, kept by every later command."""

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path

from taxifare.approval import Approvals
from taxifare.registry import ModelRegistry
from taxifare.settings import Settings


def prepare_home(settings: Settings) -> Path:
    """Ensures that Dagster's home, the MLflow store and the ledger exist, and returns Dagster's home.

    Stores are migrated here, once, rather than by the first of several runs that need them, and what a killed command
    left undone between ledger and registry is put right. Dagster's home gets the
    shipped `dagster.yaml` where it has none; an edited one stays. DAGSTER_HOME is set for this process and those it
    starts.
    """
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        with as_file(files("taxifare_dagster") / "dagster.yaml") as shipped:
            shutil.copy(shipped, configuration)
    os.environ["DAGSTER_HOME"] = str(home)
    registry = ModelRegistry.from_settings(settings)
    registry.prepare()
    Approvals.from_settings(settings, registry).repair()
    return home
