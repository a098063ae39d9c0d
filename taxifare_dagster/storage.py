"""Dagster's own storage: where it is, whether its schema is that of this release, and how it becomes so.

A server's schema is migrated by `taxifare migrate` alone, for other machines may be at work on it; the files in
Dagster's home are migrated when they are opened. What the lake holds does not belong here.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._config import process_config
from dagster._core import storage as dagster_storage
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.config import pg_config
from dagster._daemon.controller import DEFAULT_HEARTBEAT_INTERVAL_SECONDS
from dotenv import dotenv_values
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from taxifare.approval.locks import holding
from taxifare.environment import ENV_FILE
from taxifare.errors import ToldError
from taxifare.secrets import remember_address, shown
from taxifare.settings import Settings

DRIVER = "postgresql+psycopg2"
"""With psycopg 3, which `postgresql://` means, dagster-postgres fails (its issues #33958, #33959)."""


_UTC = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT"})
"""Names of the zone that Dagster takes a server's times to be in. Where it is another, it may fail a run that was made
a moment ago, "taking longer than 180 seconds to start"."""

_SILENT_DAEMON_S = 1.5 * DEFAULT_HEARTBEAT_INTERVAL_SECONDS


class StorageError(ToldError, RuntimeError):
    """Dagster's storage cannot be used as it is; the message says what to do."""


def home_of(settings: Settings) -> Path:
    """Returns Dagster's home, DAGSTER_HOME."""
    return settings.home / "dagster"


def server_of(settings: Settings) -> str | None:
    """Returns the address of the server that Dagster's configuration names for its runs, None for files.

    Raises:
        StorageError: The configuration cannot be read, or Dagster fails with the driver that it names.
    """
    if not _configuration_in(settings).exists():
        return None
    with _told(settings):
        reference = _reference(settings)
        named = reference.storage_data or reference.run_storage_data
        if named is None or not named.module_name.startswith("dagster_postgres"):
            return None
        found = process_config(pg_config(), named.config_dict)
        if not found.success:
            errors = "; ".join(error.message for error in found.errors or ())
            raise StorageError(f"{_configuration_in(settings)}: storage: {errors}")
        from dagster_postgres.utils import pg_url_from_config

        url = str(pg_url_from_config(found.value or {}))
    remember_address(url)
    if (received := make_url(url).drivername) != DRIVER:
        raise StorageError(
            f"{_configuration_in(settings)}: expected {DRIVER}://… in postgres_url (or scheme: {DRIVER} in "
            f"postgres_db), received {received}://…, with whose driver Dagster's storage fails"
        )
    return url


def is_on_server(instance: dg.DagsterInstance) -> bool:
    """Returns whether the runs of an instance are on a server, and not in files."""
    return type(instance.run_storage).__module__.startswith("dagster_postgres")


def usable_server(settings: Settings) -> str | None:
    """Returns the address of the server that has Dagster's runs, None for files; that it can be used was looked at.

    Raises:
        StorageError: It cannot, as it is.
    """
    url = server_of(settings)
    if url is not None:
        with opened(settings):
            pass
    return url


def other_daemon(instance: dg.DagsterInstance) -> float | None:
    """Returns how many seconds ago a Dagster daemon said that it lives, None where that is too long ago to live still.

    Dagster has one daemon; a second one would ask for the same runs.
    """
    said = max((beat.timestamp for beat in instance.get_daemon_heartbeats().values()), default=0.0)
    ago_s = time.time() - said
    return ago_s if ago_s < _SILENT_DAEMON_S else None


@contextmanager
def opened(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Yields Dagster's instance, whose storage has the schema of this release: files are migrated if they have not.

    Raises:
        StorageError: Its storage cannot be used as it is.
    """
    with _instance(settings) as instance:
        found, wanted = _schema_of(instance)
        url = server_of(settings)
        if found != wanted:
            if url is not None:
                tables = "it has no tables yet" if found is None else f"its tables are of schema {found}"
                raise StorageError(
                    f"Dagster's storage {shown(url)}: {tables}, this release works with {wanted}: taxifare migrate"
                )
            instance.upgrade()
        if url is not None and (zone := _time_zone(settings, url)) not in _UTC:
            raise StorageError(
                f"Dagster's storage {shown(url)}: expected a database whose time zone is UTC, received {zone}, and "
                "Dagster reads its times as UTC: taxifare migrate, with the role that owns the database"
            )
        yield instance


def migrate(settings: Settings) -> str | None:
    """Returns the schema that Dagster's server had and has no more, `none` for no tables; None if nothing was to do.

    The time zone of the database is made UTC.

    Raises:
        StorageError: It has that of a later release, or cannot be used.
    """
    url = server_of(settings)
    if url is None:
        return None
    with holding(settings, "migration of Dagster's storage"), _instance(settings) as instance:
        if _time_zone(settings, url) not in _UTC:
            with _connected(settings, url) as connection:
                name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
                quoted = connection.dialect.identifier_preparer.quote(name)
                connection.exec_driver_sql(f"ALTER DATABASE {quoted} SET timezone TO 'UTC'")
        found, wanted = _schema_of(instance)
        if found == wanted:
            return None
        if found is None:
            from dagster_postgres import DagsterPostgresStorage

            DagsterPostgresStorage(url, should_autocreate_tables=True)
        instance.upgrade()
        return found or "none"


def _configuration_in(settings: Settings) -> Path:
    return home_of(settings) / "dagster.yaml"


@contextmanager
def _instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Yields the instance that the configuration in Dagster's home describes.

    Raises:
        StorageError: It cannot be opened.
    """
    _ = server_of(settings)
    with _told(settings), dg.DagsterInstance.from_ref(_reference(settings)) as instance:
        yield instance


@contextmanager
def _connected(settings: Settings, url: str) -> Iterator[Connection]:
    """Yields a connection to the server; each statement is a transaction.

    Raises:
        StorageError: The server does not answer, or the role may not do what is asked.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with _told(settings), engine.connect() as connection:
        yield connection


def _time_zone(settings: Settings, url: str) -> str:
    with _connected(settings, url) as connection:
        return str(connection.exec_driver_sql("SHOW timezone").scalar_one())


def _schema_of(instance: dg.DagsterInstance) -> tuple[str | None, str]:
    """Returns the schema that the storage has, None for no tables, and the one that this release works with.

    Raises:
        StorageError: It has that of a later release.
    """
    found, wanted = instance.event_log_storage.alembic_version() or (None, "")
    if found is not None and found not in _schemas():
        raise StorageError(
            f"Dagster's storage: its tables are of schema {found}, this release is older and knows {wanted}: use the "
            "release that migrated them; or they are another program's, and Dagster needs a database of its own"
        )
    return found, str(wanted)


def _schemas() -> set[str]:
    """Returns the schemas that this release of Dagster knows."""
    from alembic.script import ScriptDirectory

    folder = Path(dagster_storage.__file__).parent / "alembic"
    return {script.revision for script in ScriptDirectory(str(folder)).walk_revisions()}


def _reference(settings: Settings) -> InstanceRef:
    """Returns what the configuration says; connects to nothing."""
    return InstanceRef.from_dir(str(home_of(settings)))


@contextmanager
def _told(settings: Settings) -> Iterator[None]:
    """Turns what Dagster and its driver raise about the storage into `StorageError`.

    The configuration may take from the environment what `.env` says, as under `dagster dev`.
    """
    more = {name: value for name, value in dotenv_values(ENV_FILE).items() if value and name not in os.environ}
    os.environ.update(more)
    try:
        yield
    except (dg.DagsterError, SQLAlchemyError, ImportError, _gives_up()) as error:
        where = _configuration_in(settings)
        extra = "; pip install -e '.[deploy]'" if isinstance(error, ImportError) else ""
        raise StorageError(f"{where}: Dagster's storage cannot be used: {error}{extra}") from None
    finally:
        for name in more:
            os.environ.pop(name, None)


def _gives_up() -> type[Exception]:
    """Returns what dagster-postgres raises of a server that does not answer, where it is installed."""
    try:
        from dagster_postgres.utils import DagsterPostgresException
    except ImportError:
        return dg.DagsterError
    return DagsterPostgresException
