"""The state folder: made once, kept by every later command, put right after a crash.

Used by `make dev` and `make demo` before anything runs; what a run itself needs is made by `resources`.
"""

import os
import shutil
from pathlib import Path

import dagster as dg
import yaml

from taxifare.approval.versions import registry_of
from taxifare.environment import HomeSettings, SettingsError
from taxifare.secrets import private_folder
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings
from taxifare.texts import one_line
from taxifare.whole_files import whole_file
from taxifare_dagster import storage
from taxifare_dagster.executors import is_alive
from taxifare_dagster.takeover import take_over_comparisons

SHIPPED = Path(__file__).with_name("dagster.yaml")
"""Dagster's configuration as it is written into a new home."""

_BEGUN = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def prepare_home(settings: Settings) -> Path:
    """Ensures that Dagster's home, the MLflow store and the ledger exist, and returns Dagster's home.

    Stores in files are migrated here, once, rather than by the first of several runs that need them, and what a killed
    command left undone is put right: between ledger and registry, and runs that it left behind. Dagster's home gets the
    shipped `dagster.yaml` where it has none; an edited one stays. DAGSTER_HOME is set for this process and those it
    starts.

    Raises:
        SettingsError: TAXIFARE_HOME cannot be written to, or Dagster's configuration in it is no YAML.
        LedgerError: The ledger cannot be used as it is.
        StorageError: Dagster's storage cannot be used as it is.
    """
    try:
        home = private_folder(storage.home_of(settings))
        configuration = home / "dagster.yaml"
        if not configuration.exists():
            with whole_file(configuration) as unfinished:
                shutil.copy(SHIPPED, unfinished)
    except OSError as error:
        raise SettingsError(
            f"TAXIFARE_HOME: expected a folder that can be written, received {settings.home}: {error.strerror}"
        ) from None
    _parts(configuration)
    os.environ["DAGSTER_HOME"] = str(home)
    registry = registry_of(settings)
    registry.prepare()
    approvals = approvals_of(settings)
    approvals.repair()
    with storage.opened(settings) as instance:
        take_over_comparisons(instance, approvals.ledger)
        # Runs on a server may be of other machines, and have begun a moment ago: Dagster's daemon looks after those.
        if not storage.is_on_server(instance):
            fail_abandoned_runs(instance, settings)
    return home


def parts_left_out(home: Path) -> list[str]:
    """Returns the parts of the shipped configuration that Dagster's home does not have: an older one stays as it is."""
    kept = _parts(home / "dagster.yaml")
    return [part for part in _parts(SHIPPED) if part not in kept]


def _parts(configuration: Path) -> list[str]:
    """Returns the parts of a configuration of Dagster's; raises SettingsError where it is none."""
    try:
        parts = yaml.safe_load(configuration.read_text()) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{configuration}: expected YAML: {one_line(str(error))}") from None
    if not isinstance(parts, dict):
        raise SettingsError(f"{configuration}: expected parts with names, as in {SHIPPED}, received {parts!r:.40}")
    return list(parts)


def fail_abandoned_runs(instance: dg.DagsterInstance, settings: HomeSettings) -> list[str]:
    """Ensures that no run seems to be at work whose process is gone, and returns those that did.

    After a power cut a run would seem to be at work until Dagster's daemon looks, and so would hold the months behind
    it, and the pool that training takes turns in. `make demo` has no daemon.
    """
    begun = instance.get_runs(dg.RunsFilter(statuses=_BEGUN))
    abandoned = [run for run in begun if not is_alive(run.run_id, settings)]
    for run in abandoned:
        instance.report_run_failed(run, "The process that executed this run is gone: it was killed, or the machine was")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in abandoned]
