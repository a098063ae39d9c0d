"""The state folder: made once, kept by every later command, put right after a crash.

Used by `make dev` and `make demo` before anything runs; what a run itself needs is made by `resources`.
"""

import fcntl
import os
import shutil
from pathlib import Path

import dagster as dg

from taxifare.approval.versions import registry_of
from taxifare.environment import SettingsError
from taxifare.secrets import private_folder
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings
from taxifare.whole_files import whole_file
from taxifare_dagster.takeover import take_over_comparisons

_AT_WORK = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def prepare_home(settings: Settings) -> Path:
    """Ensures that Dagster's home, the MLflow store and the ledger exist, and returns Dagster's home.

    Stores are migrated here, once, rather than by the first of several runs that need them, and what a killed command
    left undone is put right: between ledger and registry, and runs that it left behind. Dagster's home gets the shipped
    `dagster.yaml` where it has none; an edited one stays. DAGSTER_HOME is set for this process and those it starts.
    """
    try:
        home = private_folder(settings.home / "dagster")
        configuration = home / "dagster.yaml"
        if not configuration.exists():
            with whole_file(configuration) as unfinished:
                shutil.copy(Path(__file__).with_name("dagster.yaml"), unfinished)
    except OSError as error:
        raise SettingsError(
            f"TAXIFARE_HOME: expected a folder that can be written, received {settings.home}: {error.strerror}"
        ) from None
    os.environ["DAGSTER_HOME"] = str(home)
    registry = registry_of(settings)
    registry.prepare()
    approvals = approvals_of(settings)
    approvals.repair()
    with dg.DagsterInstance.get() as instance:
        take_over_comparisons(instance, approvals.ledger)
        if _is_only_user(home):
            fail_abandoned_runs(instance)
    return home


def fail_abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ensures that no run seems to be at work, and returns those that did.

    Dagster notices the death of a worker only while its code server lives. After a power cut a run would seem to be at
    work for ever, and so would hold the months behind it, and the pool that training takes turns in.
    """
    abandoned = instance.get_runs(dg.RunsFilter(statuses=_AT_WORK))
    for run in abandoned:
        instance.report_run_failed(run, "The process that executed this run is gone: it was killed, or the machine was")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in abandoned]


def _is_only_user(home: Path) -> bool:
    """Returns whether no other `make dev` or `make demo` uses the home; if so, this process is its user until it ends.

    The lock goes with the process, however it ends, and stays when the process becomes `dagster dev`.
    """
    descriptor = os.open(home / "in-use", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.set_inheritable(descriptor, True)
    return True
