"""Servers' tables become those of this release by one command: told before, under load, and with nothing lost."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from typer.testing import CliRunner

from taxifare.approval import ledger as ledgers
from taxifare.approval.ledger import SCHEMA_REVISION, Ledger, LedgerError, address_of_database, upgrade
from taxifare.approval.records import Refusal
from taxifare.approval.verification import verify
from taxifare.cli.main import app
from taxifare.cli.shared import Surroundings
from taxifare.model.store import MlflowStore, RegistryError
from taxifare.operations.migrating import migrate
from taxifare.settings import Settings
from taxifare.studies.database import storage_of
from taxifare.studies.results import TuningError
from taxifare.studies.storage import latest_result, open_study, put_back
from tests.support.approvals import Clock
from tests.support.small import small_settings

pytestmark = pytest.mark.end_to_end

BEFORE = "0005"
"""The schema of the last release."""

_databases = count(1)


@pytest.fixture
def database(postgres: str) -> str:
    """The URL of an empty database on a server."""
    name = f"migrating{next(_databases)}"
    engine = sa.create_engine(address_of_database(postgres), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgres.replace("/postgres?", f"/{name}?")


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Settings:
    """Settings of a machine whose ledger is on the server."""
    return small_settings(tmp_path, database_url=database)


def run(settings: Settings, **surroundings: object) -> dict[str, str | None]:
    return {done.store: done.before for done in migrate(settings, surroundings)}  # type: ignore[arg-type]


@contextmanager
def the_last_release() -> Iterator[None]:
    """Ledgers that are opened meanwhile are the last release's, and stay so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "SCHEMA_REVISION", BEFORE)
        yield


def ledger_of_the_last_release(database: str) -> Ledger:
    ledger = Ledger(database, "USD")
    with the_last_release():
        with ledger._begin(exclusive=True) as connection:
            upgrade(connection, BEFORE)
        with ledger.reading():
            pass
    return ledger


def refusal(by: str, number: int) -> Refusal:
    return Refusal(f"request {number}", "approve", by, "no such request", Clock()())


def test_whoever_meets_other_tables_says_so_and_how(database: str, settings: Settings) -> None:
    with pytest.raises(
        LedgerError, match=f"no tables yet, this release works with {SCHEMA_REVISION}: taxifare migrate"
    ):
        Ledger(database, "USD").reading().__enter__()
    old = ledger_of_the_last_release(database)
    with pytest.raises(
        LedgerError, match=f"of schema {BEFORE}, this release works with {SCHEMA_REVISION}: taxifare mi"
    ):
        Ledger(database, "USD").writing().__enter__()

    assert run(settings)["ledger"] == BEFORE
    assert run(settings) == {"ledger": None, "studies": None, "MLflow": None}
    with old.writing() as entries:
        entries.add_refusal(refusal("a process that is at work", 1))
    with the_last_release(), pytest.raises(LedgerError, match=f"this release of taxifare is older and knows {BEFORE}"):
        Ledger(database, "USD").reading().__enter__()


def test_a_migration_under_load_loses_nothing_and_stops_nobody(database: str, settings: Settings) -> None:
    """Processes of the last release go on adding entries and reading them, before, meanwhile and afterwards."""
    workers, faults, enough = 3, [], threading.Event()
    added = dict.fromkeys(range(workers), 0)
    ledgers_at_work = [ledger_of_the_last_release(database) for _ in range(workers)]

    def work(worker: int) -> None:
        try:
            while not enough.is_set():
                with ledgers_at_work[worker].writing() as entries:
                    entries.add_refusal(refusal(f"worker {worker}", added[worker]))
                added[worker] += 1
                with ledgers_at_work[worker].reading() as entries:
                    mine = [found for found in entries.refusals() if found.by == f"worker {worker}"]
                assert len(mine) == added[worker]
        except Exception as error:  # noqa: BLE001 - whatever it is, the test says it
            faults.append(error)

    def more_than(before: dict[int, int]) -> bool:
        return all(added[worker] > before[worker] for worker in added)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: more_than(dict.fromkeys(added, 0)) or bool(faults))
        assert run(settings)["ledger"] == BEFORE
        at_the_end = dict(added)
        wait_until(lambda: more_than(at_the_end) or bool(faults))
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert faults == []
    verified = verify(Ledger(database, "USD"), [])
    assert verified.entries["refusals"] == sum(added.values())
    with Ledger(database, "USD").reading() as entries:
        told = [(found.by, found.request_id) for found in entries.refusals()]
        assert entries.alarms() == [], "what is new in this release is there"
    assert len(set(told)) == len(told)


def wait_until(condition: Callable[[], bool], within_s: float = 60) -> None:
    pause = threading.Event()
    for _ in range(int(within_s / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("nothing happened")


def test_studies_of_all_machines_are_beside_the_ledger(settings: Settings, tmp_path: Path) -> None:
    for use in (lambda: storage_of(settings), lambda: latest_result(settings)):
        with pytest.raises(TuningError, match="schema taxifare_studies: it has no tables yet: taxifare migrate"):
            use()
    assert run(settings)["studies"] == "none"
    first = [{"learning_rate": 0.01}]
    study = open_study("months", settings)
    put_back(study, first, settings)
    trial = study.ask()
    elsewhere = settings.model_copy(update={"taxifare_home": tmp_path / "elsewhere"})

    seen = open_study("months", elsewhere)
    assert [found.state.name for found in seen.get_trials()] == ["RUNNING"]
    study._storage.record_heartbeat(trial._trial_id)
    put_back(seen, first, elsewhere)
    assert [found.state.name for found in seen.get_trials()] == ["RUNNING"], "another machine's is not declared dead"
    with _session(settings) as connection:
        connection.exec_driver_sql("UPDATE taxifare_studies.trial_heartbeats SET heartbeat = now() - interval '61 s'")
    put_back(seen, first, elsewhere)
    assert [found.state.name for found in seen.get_trials()] == ["FAIL", "WAITING"], "once its heart has stopped"


@contextmanager
def _session(settings: Settings) -> Iterator[sa.Connection]:
    engine = sa.create_engine(address_of_database(settings.ledger_url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.slow
def test_a_database_of_mlflows_is_migrated_by_the_command_alone(database: str, tmp_path: Path) -> None:
    """Where MLFLOW_TRACKING_URI is a database, without MLflow's server before it; MLflow's own migrations take long."""
    settings = small_settings(tmp_path, mlflow_tracking_uri=database, mlflow_artifact_location=str(tmp_path / "files"))
    store = MlflowStore.from_settings(settings)
    with pytest.raises(RegistryError, match=r"it has no tables yet, this release works with .*: taxifare migrate"):
        _ = store.client
    assert run(settings)["MLflow"] == "none"
    assert run(settings)["MLflow"] is None
    assert store.client.get_experiment_by_name("taxifare") is not None
    engine = sa.create_engine(address_of_database(database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of tomorrow'")
    engine.dispose()
    with pytest.raises(RegistryError, match="of schema of tomorrow, this release is older"):
        _ = MlflowStore.from_settings(settings).client


@pytest.mark.slow
def test_a_migration_of_mlflows_that_fails_after_the_ledgers_is_run_again(
    database: str, settings: Settings, tmp_path: Path
) -> None:
    from mlflow.store.tracking.dbmodels.initial_models import Base

    # Given a ledger of the last release, and in MLflow's database, of its first, a table that a later one wants to make
    ledger_of_the_last_release(database)
    name = f"mlflow{next(_databases)}"
    engine = sa.create_engine(address_of_database(database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    mlflows = re.sub(r"/\w+\?", f"/{name}?", database)
    in_mlflows = sa.create_engine(address_of_database(mlflows), isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(in_mlflows)
    with in_mlflows.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE trace_info (somebody_elses int)")
    both = settings.model_copy(
        update={"mlflow_tracking_uri": SecretStr(mlflows), "mlflow_artifact_location": str(tmp_path / "files")}
    )
    # When all are migrated, MLflow's fails half-way, in words, after the ledger's
    migrated = migrate(both, {})
    assert [str(next(migrated)) for _ in range(2)] == [
        f"ledger: migrated from schema {BEFORE}",
        "studies: migrated from schema none",
    ]
    with pytest.raises(RegistryError, match=r'"trace_info" already exists.*: taxifare migrate, again'):
        next(migrated)
    # Then MLflow's tables are those from before, and once the reason is gone the same command does the rest
    with in_mlflows.connect() as connection:
        assert not sa.inspect(connection).has_table("alembic_version")
        connection.exec_driver_sql("DROP TABLE trace_info")
    in_mlflows.dispose()
    assert run(both) == {"ledger": None, "studies": None, "MLflow": "none"}
    assert run(both) == {"ledger": None, "studies": None, "MLflow": None}


@pytest.mark.slow
def test_a_file_of_mlflows_release_before_migrates_itself(tmp_path: Path) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    settings = small_settings(tmp_path)
    (tmp_path / "mlflow").mkdir()
    config = _get_alembic_config(settings.tracking_uri)
    latest, before = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][:2]
    engine = sa.create_engine(settings.tracking_uri)
    Base.metadata.create_all(engine)
    command.upgrade(config, before)
    with engine.begin() as connection:  # one without an experiment was never finished, and is made anew
        connection.exec_driver_sql(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES ('of before', 'there', 'active')"
        )
    engine.dispose()
    client = MlflowStore.from_settings(settings).client
    assert client.get_experiment_by_name("taxifare") is not None
    assert client.get_experiment_by_name("of before") is not None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == latest
    engine.dispose()


def test_the_command_says_what_became_of_each_store(
    settings: Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TAXIFARE_HOME", str(settings.home))
    asked: list[Settings] = []

    def runs(found: Settings) -> str:
        asked.append(found)
        return "0042"

    surroundings = Surroundings(
        editions_in_lake=lambda _: {},
        month_with=lambda *_: None,
        realised=lambda _: {},
        run_server=lambda _: None,
        migrations={"runs": runs},
    )
    said = CliRunner().invoke(app, ["migrate"], obj=surroundings)
    assert said.exit_code == 0, said.output
    assert said.output.splitlines() == [
        "ledger: migrated from schema none",
        "studies: migrated from schema none",
        "MLflow: nothing to do",
        "runs: migrated from schema 0042",
    ]
    assert asked[0].ledger_url == database
