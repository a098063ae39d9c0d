"""The database of studies: Optuna's tables, in a file of TAXIFARE_HOME or beside a ledger that is on a server.

There they are in a schema of their own: Optuna and the ledger both name a table `alembic_version`. What is kept in
them is the business of `storage`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.approval.ledger import address_of_database
from taxifare.approval.migrations.roles import granting
from taxifare.environment import HomeSettings
from taxifare.secrets import private_folder, shown
from taxifare.studies.results import TuningError

if TYPE_CHECKING:
    import optuna

_SCHEMA = "taxifare_studies"

_HEARTBEAT_S = 30
"""How often a trial on a server says that it lives; one that has not for twice as long is dead."""


def may_have_studies(settings: HomeSettings) -> bool:
    """Returns whether there is something to open: a file that is there, or whatever a server says."""
    return settings.ledger_is_server or _file(settings).exists()


def migrate(settings: HomeSettings) -> str | None:
    """Returns the schema that a server's tables had and have no more, `none` for no tables; None if nothing was to do.

    Raises:
        TuningError: The tables are of a later release of Optuna, or the server does not answer.
    """
    if not settings.ledger_is_server:
        return None
    with _told(settings):
        before = _schema_on(settings)
        with _session(settings) as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
        storage = _opened(settings, makes_tables=before is None)
        _ensure_known(storage, settings)
        if before == (wanted := storage.get_head_version()):
            return None
        if storage.get_current_version() != wanted:
            storage.upgrade()
        with _session(settings) as connection:
            for statement in granting(connection, _SCHEMA):
                connection.exec_driver_sql(statement)
    return before or "none"


def storage_of(settings: HomeSettings) -> "optuna.storages.RDBStorage":
    """Returns Optuna's storage with the tables of this release: a file's are migrated, a server's have to be.

    Raises:
        TuningError: They are not.
    """
    if not settings.ledger_is_server:
        private_folder(settings.home)
        storage = _opened(settings, makes_tables=True)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
        return storage
    with _told(settings):
        if (found := _schema_on(settings)) is None:
            raise TuningError(f"{_place(settings)}: it has no tables yet: taxifare migrate")
        storage = _opened(settings, makes_tables=False)
        _ensure_known(storage, settings)
        if found != (wanted := storage.get_head_version()):
            raise TuningError(
                f"{_place(settings)}: its tables are of {found}, this release works with {wanted}: taxifare migrate"
            )
        return storage


def _opened(settings: HomeSettings, *, makes_tables: bool) -> "optuna.storages.RDBStorage":
    """Returns Optuna's storage, whatever release its tables are of."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what fails is told by the trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats
    is_server = settings.ledger_is_server
    return optuna.storages.RDBStorage(
        _url(settings).render_as_string(hide_password=False),
        engine_kwargs={"pool_pre_ping": True} if is_server else None,
        heartbeat_interval=_HEARTBEAT_S if is_server else None,
        skip_compatibility_check=True,
        skip_table_creation=not makes_tables,
    )


def _ensure_known(storage: "optuna.storages.RDBStorage", settings: HomeSettings) -> None:
    """Ensures that the tables are of this release of Optuna or one before."""
    if (found := storage.get_current_version()) not in storage.get_all_versions():
        raise TuningError(
            f"{_place(settings)}: its tables are of {found}, this release is older: use the one that migrated them"
        )


def _schema_on(settings: HomeSettings) -> str | None:
    """Returns the schema of a server's tables, None for no tables."""
    with _session(settings) as connection:
        if not sa.inspect(connection).has_table("alembic_version", schema=_SCHEMA):
            return None
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


@contextmanager
def _session(settings: HomeSettings) -> Iterator[Connection]:
    engine = sa.create_engine(_url(settings), poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        yield connection


@contextmanager
def _told(settings: HomeSettings) -> Iterator[None]:
    """Turns what the server's driver raises into `TuningError`."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise TuningError(f"{_place(settings)} cannot be used: {getattr(error, 'orig', None) or error}") from None


def _place(settings: HomeSettings) -> str:
    return f"DATABASE_URL: the studies in {shown(settings.ledger_url)}, schema {_SCHEMA}"


def _url(settings: HomeSettings) -> sa.URL:
    """Returns where studies are."""
    if not settings.ledger_is_server:
        return sa.URL.create("sqlite", database=str(_file(settings)))
    url = address_of_database(settings.ledger_url)
    given = url.query.get("options", "")
    return url.update_query_dict({"options": f"{given} -csearch_path={_SCHEMA}".strip()})


def _file(settings: HomeSettings) -> Path:
    return settings.home / "tuning.db"
