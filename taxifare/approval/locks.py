"""Locks: they keep work to one process at a time, and are held where every process that could do it sees them.

Where the ledger is on a server, they are its advisory locks; otherwise files in TAXIFARE_HOME, which one machine has.
Both go with the process that holds them, however it ends: if nobody holds a lock, its holder is dead. Files of one
machine (downloads, logs, a replay's shelf) need no more than a lock beside them.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.approval.ledger import LedgerError, address_of_database
from taxifare.environment import HomeSettings
from taxifare.errors import ToldError
from taxifare.secrets import private_folder, shown

_PATIENCE_S = 1
"""How long to wait for a file's lock: somebody may be looking whether it is held."""

_LOOKED_AFTER_S = 10
"""How often to check that a server still has a lock: it loses all when it is restarted."""

_SILENT_S = 30
"""How long a machine may be silent before a server asks whether it is there; half a minute later its locks are gone."""

_HELD = sa.text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
    "WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND datname = current_database() "
    "AND classid::bigint = :high AND objid::bigint = :low)"
)


class HeldError(ToldError, RuntimeError):
    """Another process holds the lock."""


@contextmanager
def holding(settings: HomeSettings, name: str) -> Iterator[None]:
    """Ensures that no other process holds the lock of that name until the block ends.

    Raises:
        HeldError: Another one does.
        LedgerError: The ledger's server does not answer.
    """
    if not settings.ledger_is_server:
        with _in_home(settings, name, _PATIENCE_S):
            yield
        return
    lock = _ServerLock(settings.ledger_url, name)
    lock.take()
    try:
        yield
    finally:
        lock.release()


def is_held(settings: HomeSettings, name: str) -> bool:
    """Returns whether a process holds the lock of that name.

    Raises:
        LedgerError: The ledger's server does not answer.
    """
    if settings.ledger_is_server:
        return _ServerLock(settings.ledger_url, name).is_held()
    try:
        with _in_home(settings, name, 0):
            return False
    except HeldError:
        return True


@contextmanager
def _in_home(settings: HomeSettings, name: str, patience_s: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = private_folder(settings.home / "locks") / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"
    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(f"another process is at work in {settings.home}: {name}; wait for it to end") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # whoever waits for it notices
        lock.release()


class _ServerLock:
    """An advisory lock of a session, which is taken again after a restart of the server.

    Args:
        url: The ledger's.
        name: What is locked.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        self._session: Connection | None = None
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def take(self) -> None:
        """Ensures that this process has it.

        Raises:
            HeldError: Another one has.
            LedgerError: The server does not answer.
        """
        self._session = self._taken()
        if self._session is None:
            raise HeldError(
                f"another process is at work, on this machine or another that has DATABASE_URL={shown(self._url)}: "
                f"{self._name}; wait for it to end"
            )
        self._keeper.start()

    def release(self) -> None:
        """Ensures that this process no longer has it."""
        self._done.set()
        self._keeper.join()
        if self._session is not None:
            with suppress(sa.exc.DBAPIError):
                self._session.close()

    def is_held(self) -> bool:
        """Returns whether any process has it.

        Raises:
            LedgerError: The server does not answer.
        """
        parts = {"high": (self._key >> 32) & 0xFFFFFFFF, "low": self._key & 0xFFFFFFFF}
        with self._connect() as session:
            return bool(session.execute(_HELD, parts).scalar())

    def _keep(self) -> None:
        while not self._done.wait(_LOOKED_AFTER_S):
            try:
                if self._session is None:
                    self._session = self._taken()
                else:
                    self._session.exec_driver_sql("SELECT 1")
            except (LedgerError, sa.exc.DBAPIError):
                self._session = None

    def _taken(self) -> Connection | None:
        """Returns a session that has the lock, None where another process has it."""
        session = self._connect()
        if session.execute(sa.select(sa.func.pg_try_advisory_lock(self._key))).scalar():
            return session
        session.close()
        return None

    def _connect(self) -> Connection:
        asked = {"keepalives_idle": _SILENT_S, "keepalives_interval": 10, "keepalives_count": 3}
        engine = sa.create_engine(
            address_of_database(self._url),
            poolclass=sa.pool.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"connect_timeout": 10, **asked},
        )
        try:
            session = engine.connect()
            for name, value in asked.items():
                session.exec_driver_sql(f"SET tcp_{name} = {value}")
        except sa.exc.DBAPIError as error:
            raise LedgerError(f"DATABASE_URL: {shown(self._url)} does not answer: {error.orig}") from None
        return session
