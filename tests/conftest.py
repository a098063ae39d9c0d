"""What all tests share: an environment without settings, small months, an MLflow store, databases for the ledger."""

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from taxifare.approval.ledger import Ledger
from taxifare.approval.versions import registry_of
from taxifare.model.registry import ModelRegistry
from taxifare.secrets import private_folder
from taxifare.settings import Settings
from taxifare.trips.editions import Trips
from tests.support.approvals import Office
from tests.support.clouds import Cloud, Front, front_of, without_pauses
from tests.support.google_cloud import ENVIRONMENT, PROJECT, BigQueryServer, bigquery_server, storage_server
from tests.support.places import REAL_TRIPS
from tests.support.servers import postgres_programs, postgres_server
from tests.support.small import clean_month, plain_networks, small_settings

# The pauses of a machine that others use are not slowness of the code.
hypothesis_settings.register_profile("taxifare", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("taxifare")

_schemas = count(1)
_buckets = count(1)


def forget_settings() -> None:
    """Ensures that no setting comes from the environment; MLflow writes the store it used last into it."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)


def pytest_configure() -> None:
    forget_settings()
    # gcsfs asks Google, not the server that stands in for it, what kind of bucket one is.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    # A dead server is reported at once, and a live one on loopback needs no second try.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def _databases_of(item: pytest.Item) -> set[str]:
    """The database that this repeat of a test has: one or none."""
    case = getattr(item, "callspec", None)
    return {case.params["empty_database"]} if case and "empty_database" in case.params else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ensures the tests' order: what takes longest first, servers, then runs; some repeats are for `make test-all`."""
    for item in items:
        asked, databases = item.get_closest_marker("databases"), _databases_of(item)
        # Such a mark went without effect for weeks, at a hundred repeats a run: the fixture had another name by then.
        if asked in item.own_markers and not databases:
            raise pytest.UsageError(f"{item.nodeid}: marked with databases(…), but it has no empty_database")
        if asked and not databases <= {*asked.args}:
            item.add_marker("slow")
    first = ("end_to_end", "orchestration")
    items.sort(key=lambda item: [part not in item.path.parts for part in first])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Ensures that a million functions and classes are not looked through for garbage, now or again and again."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.fixture(scope="module")
def networks_without_tables() -> Iterator[None]:
    """What is done with a network does not depend on what it is made of."""
    with plain_networks():
        yield


@pytest.fixture(autouse=True)
def bare_environment() -> Iterator[None]:
    """No test sees a setting of the machine's or of another test's."""
    forget_settings()
    yield
    forget_settings()


@pytest.fixture(scope="session")
def real_trips() -> Path:
    """The folder of real New York trips in Kaggle's format."""
    if not REAL_TRIPS.is_dir():
        pytest.skip("the real trips are not here: expected ../shared/data/nyc_kaggle_format beside the repository")
    return REAL_TRIPS


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a small city with a state folder of the test's own."""
    return small_settings(tmp_path / "state")


@pytest.fixture(scope="session")
def january_trips(tmp_path_factory: pytest.TempPathFactory) -> Trips:
    """January 2015, clean and with features; not to be changed in place."""
    return clean_month(small_settings(tmp_path_factory.mktemp("january")), "2015-01")


@pytest.fixture(scope="session")
def january(january_trips: Trips) -> pd.DataFrame:
    """The frame of these trips."""
    return january_trips.frame


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store: migrating one takes two seconds, copying it none."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def migrated_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, likewise."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with Ledger(f"sqlite:///{path}", "USD").writing():
        pass
    return path


@pytest.fixture(scope="session")
def open_registry(migrated_store: Path, migrated_ledger: Path) -> Callable[[Settings], ModelRegistry]:
    """Opens the registry that settings name, on copies of the empty stores where they are SQLite and not there yet."""

    def opened(settings: Settings) -> ModelRegistry:
        registry = registry_of(settings)
        if not (settings.home / "ledger.db").exists() and settings.database_url is None:
            private_folder(settings.home)
            shutil.copy(migrated_ledger, settings.home / "ledger.db")
        path = settings.home / "mlflow" / "mlflow.db"
        if not registry.store.is_server and not path.exists():
            private_folder(path.parent)
            shutil.copy(migrated_store, path)
        registry.prepare()
        return registry

    return opened


@pytest.fixture
def registry(settings: Settings, open_registry: Callable[[Settings], ModelRegistry]) -> ModelRegistry:
    """An empty registry, real MLflow on SQLite."""
    return open_registry(settings)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgres_server(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.end_to_end)])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own for each test; in PostgreSQL a schema, which is made and dropped in milliseconds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres")
    schema = f"ledger{next(_schemas)}"
    engine = sa.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    return f"{url}&options=-csearch_path%3D{schema}"


@pytest.fixture
def ledger_url(empty_database: str) -> str:
    """A database that is ready to be used: a server's has the tables, a file gets them when it is opened."""
    ledger = Ledger(empty_database, "USD")
    if ledger.is_server:
        ledger.migrate()
    return empty_database


@pytest.fixture(scope="session")
def _bigquery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BigQueryServer, dict[str, str]]]:
    if not (ENVIRONMENT / "installed").exists():
        pytest.skip("the emulator of BigQuery is not installed (make .venv/emulators/installed)")
    folder = tmp_path_factory.mktemp("bigquery")
    with bigquery_server(folder) as server:
        yield server, server.settings(folder)


@pytest.fixture
def bigquery(
    _bigquery: tuple[BigQueryServer, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[BigQueryServer]:
    """A BigQuery that Google's clients find, with the key of a service account."""
    server, environment = _bigquery
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.faults.clear()
    server.queries.clear()
    server.bytes_read = 1_000_000


@pytest.fixture(scope="session")
def _storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with storage_server(tmp_path_factory.mktemp("storage")) as url, front_of("gs", url) as front:
        yield front


@pytest.fixture
def bucket(_storage: Front, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket of a Google Cloud Storage that Google's clients find."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", _storage.url)
    name = f"taxifare-{next(_buckets)}"
    storage.Client(PROJECT).create_bucket(name)
    return f"gs://{name}"


@pytest.fixture(scope="session")
def _s3() -> Iterator[Front]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with front_of("s3", f"http://{host}:{port}") as front:
        yield front
    server.stop()


@pytest.fixture
def s3_bucket(_s3: Front, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket of an S3 that Amazon's clients find."""
    import boto3

    login = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_DEFAULT_REGION": "us-east-1"}
    # A dead server on loopback needs no second try.
    for name, value in (login | {"AWS_ENDPOINT_URL": _s3.url, "AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    name = f"taxifare-{next(_buckets)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def front(cloud: Cloud, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """A cloud whose server can be made to refuse, with an empty bucket; its clients do not pause between tries."""
    bucket: str = request.getfixturevalue({"gs": "bucket", "s3": "s3_bucket"}[cloud])
    front: Front = request.getfixturevalue({"gs": "_storage", "s3": "_s3"}[cloud])
    without_pauses(monkeypatch)
    front.bucket = bucket
    front.asked.clear()
    yield front
    front.well_again()


@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Whose buckets."""
    return request.param


@pytest.fixture
def empty_ledger_url(ledger_url: str, migrated_ledger: Path) -> str:
    """The same, with the tables of a ledger: in SQLite copying one takes no time."""
    if ledger_url.startswith("sqlite"):
        shutil.copy(migrated_ledger, ledger_url.removeprefix("sqlite:///"))
    return ledger_url


@pytest.fixture
def office(empty_ledger_url: str) -> Office:
    """Approvals in which version 1 is production."""
    return Office.open(empty_ledger_url).with_first_model()
