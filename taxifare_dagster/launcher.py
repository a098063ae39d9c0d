"""Where runs are executed when Dagster's configuration names no container: in processes of the code server's machine.

Launchers of containers (dagster-docker, dagster-k8s) ask who runs the containers whether a run's is alive. Dagster's
launcher of processes knows nobody to ask, so a run whose machine is gone would be at work for ever.
"""

import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._serdes import ConfigurableClassData

from taxifare.settings import Settings, settings_in_force
from taxifare_dagster.executors import is_alive
from taxifare_dagster.storage import StorageError, is_on_server

GRACE_S = 60
"""How long nobody may hold a run's lock before its process is dead: it starts, or the locks' server was restarted."""


class ProcessLauncher(dg.DefaultRunLauncher):
    """Dagster's, which tells by the lock of a run, on whatever machine it is, whether its process is alive."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._missing_since: dict[str, float] = {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Returns the launcher that Dagster's configuration describes."""
        del config_value
        return cls(inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster's monitoring asks, and fails runs that are dead."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Returns whether the run's process is alive.

        Raises:
            LedgerError: That cannot be told: the server that has the locks does not answer.
            StorageError: That cannot be told: locks of other machines are files of theirs.
        """
        if not self._settings.ledger_is_server and is_on_server(self._instance):
            raise StorageError(
                f"whether run {run.run_id} is alive cannot be told: Dagster's runs are on a server, DATABASE_URL names "
                "none, and so each machine has locks of its own; set DATABASE_URL for the daemon as for runs"
            )
        if is_alive(run.run_id, self._settings):
            self._missing_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        since = self._missing_since.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < GRACE_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missing_since[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone: it was killed, or its machine was")

    @cached_property
    def _settings(self) -> Settings:
        return settings_in_force()
