"""Several machines on one installation: which runs are alive, where Dagster's record of them is, and who may use it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from taxifare.approval.ledger import LedgerError, address_of_database
from taxifare.approval.locks import HeldError
from taxifare.settings import Settings
from taxifare_dagster import dev, launcher, storage
from taxifare_dagster.executors import executor_of, is_alive, while_alive
from taxifare_dagster.home import fail_abandoned_runs, prepare_home
from taxifare_dagster.launcher import ProcessLauncher
from taxifare_dagster.storage import StorageError
from tests.support.places import REPOSITORY
from tests.support.small import small_settings
from tests.support.world import World, world_settings

_databases = count(1)

STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE

EXECUTES = """
import sys, time
from pathlib import Path
from taxifare.environment import HomeSettings
from taxifare_dagster.executors import while_alive

with while_alive(sys.argv[2], HomeSettings(taxifare_home=Path(sys.argv[1]))):
    print("at work", flush=True)
    time.sleep(300)
"""


@contextmanager
def executing(run_id: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another process, in which the run is at work."""
    arguments = [sys.executable, "-c", EXECUTES, str(settings.home), run_id]
    with subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "at work\n"
            yield process
        finally:
            process.kill()


class TestRunsAtWork:
    """A run is dead when nobody holds its lock, and not because another process starts."""

    def test_a_start_closes_the_runs_of_the_dead_and_no_other(self, started: World) -> None:
        alive, dead = (create_run_for_test(started.instance, "monthly_job", status=STARTED) for _ in range(2))
        waiting = create_run_for_test(started.instance, "monthly_job", status=dg.DagsterRunStatus.NOT_STARTED)
        with executing(alive.run_id, started.settings) as process:
            assert fail_abandoned_runs(started.instance, started.settings) == [dead.run_id]
            assert fail_abandoned_runs(started.instance, started.settings) == []
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert fail_abandoned_runs(started.instance, started.settings) == [alive.run_id]
        statuses = {run.run_id: run.status for run in started.instance.get_runs()}
        assert (statuses[alive.run_id], statuses[dead.run_id]) == (FAILURE, FAILURE)
        assert statuses[waiting.run_id] == dg.DagsterRunStatus.NOT_STARTED

    def test_the_daemon_asks_the_launcher_which_waits_a_minute(
        self, started: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that starts has no lock yet, and the locks of a server that was restarted are taken again."""
        clock = [1000.0]
        monkeypatch.setattr(launcher.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(launcher, "settings_in_force", lambda: started.settings)
        asked = started.instance.run_launcher
        assert isinstance(asked, ProcessLauncher), "it is the one that dagster.yaml names"
        assert asked.supports_check_run_worker_health
        run = create_run_for_test(started.instance, "monthly_job", status=STARTED)

        def status_after(seconds: float) -> WorkerStatus:
            clock[0] += seconds
            return asked.check_run_worker_health(run).status

        assert status_after(0) is status_after(59) is WorkerStatus.RUNNING
        with while_alive(run.run_id, started.settings):
            assert status_after(600) is WorkerStatus.RUNNING
        assert status_after(0) is status_after(59) is WorkerStatus.RUNNING
        assert status_after(2) is WorkerStatus.FAILED

    def test_a_server_of_locks_that_is_away_says_nothing_about_runs(
        self, started: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = started.under(database_url="postgresql://127.0.0.1:1/x").settings
        monkeypatch.setattr(launcher, "settings_in_force", lambda: away)
        run = create_run_for_test(started.instance, "monthly_job", status=STARTED)
        with pytest.raises(LedgerError, match="does not answer"):
            ProcessLauncher().check_run_worker_health(run)

    def test_a_run_is_executed_by_one_process(self, tmp_path: Path) -> None:
        settings, seen = small_settings(tmp_path), []

        @dg.op
        def look(context: dg.OpExecutionContext) -> None:
            seen.append(is_alive(context.run_id, settings))
            with pytest.raises(HeldError), while_alive(context.run_id, settings):
                pass

        @dg.job(executor_def=executor_of(settings))
        def looking() -> None:
            look()

        with dg.DagsterInstance.ephemeral() as instance:
            run = instance.create_run_for_job(looking)
            events = list(_executed(looking, run, instance))
        assert any(event.event_type is dg.DagsterEventType.RUN_SUCCESS for event in events)
        assert seen == [True]
        assert not is_alive(run.run_id, settings)


def _executed(job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[dg.DagsterEvent]:
    """The events of a run, executed as a worker's process executes it."""
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    yield from execute_run_iterator(InMemoryJob(job), run, instance)


def dagster_yaml(home: Path, url: str) -> None:
    """The configuration of a machine whose record of runs is on a server, which a variable names."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / "taxifare_dagster" / "dagster.yaml", home / "dagster.yaml")
    with (home / "dagster.yaml").open("a") as file:
        file.write("storage:\n  postgres:\n    postgres_url:\n      env: DAGSTER_DATABASE_URL\n")
        file.write("    should_autocreate_tables: false\n")
    os.environ["DAGSTER_DATABASE_URL"] = url


@pytest.fixture
def server(postgres: str) -> Iterator[str]:
    """A database of its own for Dagster's record of runs."""
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed (pip install -e '.[deploy]')")
    name = f"dagster{next(_databases)}"
    engine = sa.create_engine(address_of_database(postgres), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    yield postgres.replace("postgresql://", f"{storage.DRIVER}://").replace("/postgres?", f"/{name}?")
    os.environ.pop("DAGSTER_DATABASE_URL", None)


@pytest.mark.end_to_end
class TestRecordOfRunsOnAServer:
    """Its schema is migrated by one command; runs on it are nobody's to close."""

    def test_tables_are_made_and_migrated_by_the_command_alone(self, server: str, tmp_path: Path) -> None:
        settings = small_settings(tmp_path)
        dagster_yaml(storage.home_of(settings), server)
        with pytest.raises(StorageError, match=r"it has no tables yet, this release works with .*: taxifare migrate"):
            storage.usable_server(settings)
        assert storage.migrate(settings) == "none"
        assert storage.migrate(settings) is None
        assert storage.usable_server(settings) == server

        engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            head = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '7e2f3204cf8e'")
            with pytest.raises(StorageError, match=r"its tables are of schema 7e2f3204cf8e, .*: taxifare migrate"):
                prepare_home(settings)
            assert storage.migrate(settings) == "7e2f3204cf8e"
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == head
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of tomorrow'")
            for use in (storage.usable_server, storage.migrate):
                with pytest.raises(StorageError, match="of schema of tomorrow, this release is older"):
                    use(settings)
        engine.dispose()

    def test_a_run_is_made_now_whatever_the_servers_clock_is(self, server: str, tmp_path: Path) -> None:
        """A server in New York made Dagster's daemon fail runs at their start: for it they were five hours old."""
        settings = small_settings(tmp_path)
        dagster_yaml(storage.home_of(settings), server)
        storage.migrate(settings)
        with storage.opened(settings) as instance:
            run = create_run_for_test(instance, "monthly_job")
            (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
            assert abs(time.time() - record.create_timestamp.timestamp()) < 60

        engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            name = connection.exec_driver_sql("SELECT current_database()").scalar()
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET timezone TO 'Asia/Tokyo'")
        engine.dispose()
        with pytest.raises(StorageError, match=r"time zone is UTC, received Asia/Tokyo, .*: taxifare migrate"):
            storage.usable_server(settings)
        storage.migrate(settings)
        assert storage.usable_server(settings) == server

    def test_a_second_machine_that_starts_closes_no_run_of_the_first(
        self, server: str, tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DAGSTER_HOME", "")  # set by what prepares a home
        machines = [world_settings(tmp_path / name) for name in ("first", "second")]
        for settings in machines:
            dagster_yaml(storage.home_of(settings), server)
            (settings.home / "mlflow").mkdir()
            shutil.copy(migrated_store, settings.home / "mlflow" / "mlflow.db")
        storage.migrate(machines[0])
        prepare_home(machines[0])
        with storage.opened(machines[0]) as instance:
            run = create_run_for_test(instance, "monthly_job", status=STARTED)
            prepare_home(machines[1])
            assert instance.get_run_by_id(run.run_id).status is STARTED
            # Nor does its daemon, which looks for locks in files of its own.
            monkeypatch.setattr(launcher, "settings_in_force", lambda: machines[1])
            with pytest.raises(StorageError, match=r"cannot be told: .* set DATABASE_URL for the daemon as for runs"):
                instance.run_launcher.check_run_worker_health(run)

            self.beat(instance, ago_s=0)
            with pytest.raises(
                StorageError, match=r"another machine's daemon was alive \d+ s ago, and Dagster has one"
            ):
                dev.ensure_no_other_daemon(machines[1])
            self.beat(instance, ago_s=60)
            dev.ensure_no_other_daemon(machines[1])

    def beat(self, instance: dg.DagsterInstance, ago_s: float) -> None:
        """What another machine's daemon says."""
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago_s, "SENSOR", "of the first", []))

    @pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
    def test_a_driver_with_which_dagster_fails_is_refused(self, server: str, tmp_path: Path, scheme: str) -> None:
        settings = small_settings(tmp_path)
        dagster_yaml(storage.home_of(settings), server.replace(storage.DRIVER, scheme))
        told = r"dagster.yaml: expected postgresql\+psycopg2://… in postgres_url .*, received " + scheme.replace(
            "+", r"\+"
        )
        for use in (storage.usable_server, storage.migrate):
            with pytest.raises(StorageError, match=told):
                use(settings)

    def test_a_server_that_does_not_answer_is_told_without_its_password(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("dagster_postgres")
        monkeypatch.setattr("dagster_postgres.utils.calculate_delay", lambda *_args, **_kwargs: 0)
        settings = small_settings(tmp_path)
        dagster_yaml(storage.home_of(settings), f"{storage.DRIVER}://me:hush-hush@127.0.0.1:1/x")
        with pytest.raises(StorageError, match="Dagster's storage cannot be used") as caught:
            storage.usable_server(settings)
        assert "hush-hush" not in str(caught.value)
        monkeypatch.delenv("DAGSTER_DATABASE_URL")
