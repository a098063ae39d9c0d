"""Two machines on one installation, one of them killed in the middle of a month: the other goes on, nothing is lost.

The machines are two homes with processes of their own. They share PostgreSQL (ledger, Dagster's record of runs,
MLflow's database) and the lake. The second has Dagster's daemon, which asks for base model and months by itself.
January is executed on the first, which is killed by SIGKILL while it trains; February beside it on the second.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from taxifare.approval.ledger import address_of_database
from taxifare.approval.tables import COMPARISONS
from taxifare.approval.verification import verify
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings, settings_in_force
from taxifare_dagster.catalog import PRODUCTION_POOL
from tests.end_to_end.conftest import SMALL
from tests.support.machines import MACHINES
from tests.support.places import REPOSITORY
from tests.support.registry import all_versions
from tests.support.ui import eventually

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(1800)]

JANUARY, FEBRUARY = "2015-01", "2015-02"


@dataclass(frozen=True)
class Machine:
    """A home, and what its processes are told."""

    home: Path
    environment: Mapping[str, str]

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Dagster's daemon with its code server; gone at the end with all that it started, but for runs."""
        with (self.home / "daemon.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster._daemon", "run", "-m", "taxifare_dagster.definitions"],
                env=dict(self.environment),
                cwd=self.home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.die()

    def die(self) -> None:
        """Ensures that every run which is executed here is gone, without a word."""
        for pid in self.home.glob("*.pid"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pid.unlink()

    def taxifare(self, *words: str) -> str:
        """What `taxifare` prints, ended well."""
        ended = subprocess.run(
            [sys.executable, "-c", "from taxifare_dagster.command import main; main()", *words],
            env=dict(self.environment),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture
def machines(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    """Two machines whose servers are migrated and empty; this process is told what the second is told."""
    pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed (pip install -e '.[deploy]')")
    databases = [f"machines_{name}" for name in ("ledger", "runs", "mlflow")]
    engine = sa.create_engine(address_of_database(postgres), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in databases:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    ledger, runs, mlflow = (postgres.replace("/postgres?", f"/{name}?") for name in databases)
    shared = {
        **SMALL,
        "LAST_MONTH": FEBRUARY,
        "DATABASE_URL": ledger,
        "STORAGE_URI": str(tmp_path / "lake"),
        "MLFLOW_TRACKING_URI": mlflow,
        "MLFLOW_ARTIFACT_LOCATION": str(tmp_path / "models"),
        "APPROVAL_SECRET": "the same on both machines",
        "DAGSTER_DATABASE_URL": runs.replace("postgresql:", "postgresql+psycopg2:"),
        MACHINES: json.dumps({f"{JANUARY}-01": str(tmp_path / "first")}),
    }
    made = []
    for name in ("first", "second"):
        home = {"TAXIFARE_HOME": str(tmp_path / name), "DAGSTER_HOME": str(tmp_path / name / "dagster")}
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DAGSTER_"))}
        made.append(Machine(tmp_path / name, own | {"PYTHONPATH": str(REPOSITORY)} | shared | home))
        configure(tmp_path / name / "dagster")
    for name, value in (shared | home).items():
        monkeypatch.setenv(name, value)
    assert made[0].taxifare("migrate").splitlines()[-1] == "Dagster: migrated from schema none"
    return made[0], made[1]


def configure(home: Path) -> None:
    """Puts into Dagster's home what is shipped for a server's record of runs, with two months at once."""
    for folder in (home.parent, home):
        folder.mkdir(mode=0o700)
    shipped = (REPOSITORY / "deploy" / "dagster.yaml").read_text()
    for one, other in (
        ("value: monthly\n        limit: 1", "value: monthly\n        limit: 2"),
        ("default_limit: 1", "default_limit: 2"),
        ("module: taxifare_dagster.launcher", "module: tests.support.machines"),
        ("class: ProcessLauncher", "class: MachineLauncher"),
    ):
        assert one in shipped
        shipped = shipped.replace(one, other)
    (home / "dagster.yaml").write_text(shipped)


def runs_of(month: str, instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs of a month, oldest first."""
    found = instance.get_runs(dg.RunsFilter(job_name="monthly_job", tags={"dagster/partition": f"{month}-01"}))
    return found[::-1]


def trains(month: str, instance: dg.DagsterInstance) -> bool:
    """Whether a run of the month has its turn in the pool that training takes turns in."""
    at_work = {slot.run_id for slot in instance.event_log_storage.get_concurrency_info(PRODUCTION_POOL).claimed_slots}
    return any(run.run_id in at_work for run in runs_of(month, instance))


def ended_well(month: str, instance: dg.DagsterInstance) -> bool:
    return any(run.status is dg.DagsterRunStatus.SUCCESS for run in runs_of(month, instance))


def test_a_machine_that_dies_in_a_month_costs_the_other_nothing_but_time(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    settings: Settings = settings_in_force()
    approvals = approvals_of(settings)
    with second.daemon(), dg.DagsterInstance.from_config(str(second.home / "dagster")) as instance:
        eventually(approvals.record.comparisons, "the base model", 600, every_s=1)
        request = approvals.request(approvals.record.comparisons()["base"])
        approvals.decide(request.id, "approve", "Ada", "the first model")

        eventually(lambda: trains(JANUARY, instance), "January's training", 600, every_s=0.05)
        assert [*first.home.glob("*.pid")], "it is executed on the first machine"
        first.die()
        shutil.rmtree(first.home)  # nothing on it is needed any more
        eventually(lambda: ended_well(FEBRUARY, instance), "February, on the other machine", 900, every_s=1)
        eventually(lambda: ended_well(JANUARY, instance), "January, on the machine that is left", 900, every_s=1)

        killed, again = runs_of(JANUARY, instance)
        assert (killed.status, again.parent_run_id) == (dg.DagsterRunStatus.FAILURE, killed.run_id)
        assert [run.status for run in runs_of(FEBRUARY, instance)] == [dg.DagsterRunStatus.SUCCESS]

    verify(approvals.ledger, [])
    with approvals.ledger.reading() as entries:
        subjects = entries.connection.execute(sa.select(COMPARISONS.c.subject)).scalars().all()
        versions = [found.version for found in entries.contents()]
    assert sorted(subjects) == [JANUARY, FEBRUARY, "base"], "each is compared, and once"
    assert sorted(all_versions_of(settings)) == sorted(versions), "each version is on record"
    assert "any machine may execute them" in second.taxifare("doctor")


def all_versions_of(settings: Settings) -> list[str]:
    from taxifare.approval.versions import registry_of

    return [str(found.version) for found in all_versions(registry_of(settings))]
