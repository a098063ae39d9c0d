"""The record of what was asked, what was decided and which version was production when: append-only tables.

The database itself keeps the promises, so that no code path can break them. Triggers refuse UPDATE and DELETE. A
request has one outcome, because the outcome's primary key is the request. A promotion extends the last one and names
the version it replaces, and it is of the version that was shown and approved, because foreign keys say so.
SQLite by default, PostgreSQL by `DATABASE_URL`.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect, Engine, make_url

from taxifare.evaluation import Evidence, Verdict
from taxifare.targets import Unit

SCHEMA_REVISION = "0001"
LOCK_SECONDS = 30
# Any constant does, as long as nothing else in the same PostgreSQL database locks it: "taxi" in ASCII.
ADVISORY_LOCK = 0x74617869


class LedgerError(RuntimeError):
    """A ledger that cannot be opened, was written by another release, or decides about another target."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A moment, always aware and in UTC: SQLite forgets the zone, PostgreSQL answers in the session's."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; raises ValueError for one without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the ledger keeps moments")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The moment, aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = sa.MetaData()

REQUESTS = sa.Table(
    "requests",
    METADATA,
    # The order they were asked in, whatever the clock said.
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("staging_version", sa.Text, nullable=False),
    sa.Column("production_version", sa.Text),
    sa.Column("verdict", sa.Text, nullable=False),
    # Text, not JSON: kept exactly as it was shown, and PostgreSQL's JSON refuses the infinite bounds of an interval.
    sa.Column("evidence", sa.Text, nullable=False),
    # The digest covers subject, versions and numbers. A unique key over the versions themselves would let a cold start
    # be asked twice: NULL is never equal to NULL.
    sa.Column("evidence_digest", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("valid_until", UtcDateTime, nullable=False),
    sa.UniqueConstraint("evidence_digest", "round", name="asked_once"),
    sa.UniqueConstraint("id", "staging_version", "evidence_digest", name="what_was_shown"),
)

OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("override", sa.Boolean, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_state"),
    sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="decisions_are_signed"),
    sa.UniqueConstraint("request_id", "state", name="what_was_decided"),
)

PROMOTIONS = sa.Table(
    "promotions",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("replaced_version", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, unique=True),
    sa.Column("decision", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence_digest", sa.Text),
    sa.Column("promoted_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("sequence", "version", name="one_version_at_a_time"),
    # Compare-and-swap: entry n + 1 exists only on top of entry n, and only if that really was the version it replaces.
    sa.ForeignKeyConstraint(
        ["previous", "replaced_version"], ["promotions.sequence", "promotions.version"], name="extends_the_last"
    ),
    # What is promoted is what somebody approved, and what was approved is what was shown.
    sa.ForeignKeyConstraint(["request_id", "decision"], ["outcomes.request_id", "outcomes.state"], name="was_approved"),
    sa.ForeignKeyConstraint(
        ["request_id", "version", "evidence_digest"],
        ["requests.id", "requests.staging_version", "requests.evidence_digest"],
        name="was_shown",
    ),
    sa.CheckConstraint(
        "(sequence = 1 AND previous IS NULL AND replaced_version IS NULL)"
        " OR (sequence > 1 AND previous = sequence - 1 AND replaced_version IS NOT NULL)",
        name="no_gaps",
    ),
    sa.CheckConstraint(
        "(kind = 'promotion' AND request_id IS NOT NULL AND decision = 'approved' AND evidence_digest IS NOT NULL)"
        " OR (kind = 'rollback' AND request_id IS NULL)",
        name="promotions_have_a_decision",
    ),
)

REFUSALS = sa.Table(
    "refusals",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    # Not a foreign key: an attempt on a request that never existed is recorded too.
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

DELIVERIES = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("reminder", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("delivered_at", UtcDateTime, nullable=False),
)

PROJECTIONS = sa.Table(
    "projections",
    METADATA,
    sa.Column("event", sa.Text, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
)


class State(StrEnum):
    """Where a request stands; every state but the first is final."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    VOID = "void"


@dataclass(frozen=True)
class Request:
    """A durable question to a person: promote this version, given this evidence?

    Attributes:
        id: Readable and derived from the evidence: the same evidence is the same request.
        subject: The month `YYYY-MM`, or `base`.
        revision: Revision of the trips the evidence was gathered on.
        staging_version: The version asked about.
        production_version: What has to be in production for the question to make sense.
        verdict: What the evidence says.
        evidence_digest: SHA-256 of the evidence.
        round: 1, and more where somebody had the same question asked again after nobody answered it.
        requested_at: When it was asked.
        valid_until: When it expires.
        evidence_json: The evidence as it was shown.
    """

    id: str
    subject: str
    revision: str
    staging_version: str
    production_version: str | None
    verdict: Verdict
    evidence_digest: str
    round: int
    requested_at: datetime
    valid_until: datetime
    evidence_json: str = field(repr=False)

    @cached_property
    def evidence(self) -> Evidence:
        """The evidence; read only where it is needed, so that history outlives changes of its shape."""
        return Evidence.model_validate(json.loads(self.evidence_json))


@dataclass(frozen=True)
class Outcome:
    """How a request ended: decided by somebody, expired, or void because what it asked is no longer the question."""

    request_id: str
    state: State
    by: str | None
    reason: str
    override: bool
    at: datetime


@dataclass(frozen=True)
class Promotion:
    """From `promoted_at` on, `version` is production; `sequence` orders them, whatever the clock said."""

    sequence: int
    version: str
    replaced_version: str | None
    kind: Literal["promotion", "rollback"]
    request_id: str | None
    by: str
    reason: str
    evidence_digest: str | None
    promoted_at: datetime


@dataclass(frozen=True)
class Refusal:
    """An attempt to decide that was turned away."""

    request_id: str
    decision: str
    by: str
    why: str
    at: datetime


@dataclass(frozen=True)
class Delivery:
    """A message that reached a channel: the question itself (`reminder` 0) or its n-th reminder."""

    request_id: str
    channel: str
    reminder: int
    delivered_at: datetime


def _request(row: Mapping[str, Any]) -> Request:
    values = {name: value for name, value in row.items() if name != "number"}
    return Request(**values | {"verdict": Verdict(values["verdict"]), "evidence_json": values.pop("evidence")})


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(**{**row, "state": State(row["state"])})


def _promotion(row: Mapping[str, Any]) -> Promotion:
    return Promotion(**{name: value for name, value in row.items() if name not in {"previous", "decision"}})


class Book:
    """The ledger's entries as seen, and added to, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, select: sa.Select[Any]) -> list[Mapping[str, Any]]:
        return [dict(row) for row in self._connection.execute(select).mappings()]

    def _add(self, table: sa.Table, **values: object) -> None:
        self._connection.execute(table.insert().values(**values))

    def request(self, request_id: str) -> Request | None:
        """The request, None if there is none of that name."""
        rows = self._rows(sa.select(REQUESTS).where(REQUESTS.c.id == request_id))
        return _request(rows[0]) if rows else None

    def requests(self) -> list[Request]:
        """Every request, oldest first."""
        return [_request(row) for row in self._rows(sa.select(REQUESTS).order_by(REQUESTS.c.number))]

    def open_requests(self) -> list[Request]:
        """Requests without an outcome, oldest first."""
        settled = sa.select(OUTCOMES.c.request_id)
        select = sa.select(REQUESTS).where(REQUESTS.c.id.not_in(settled))
        return [_request(row) for row in self._rows(select.order_by(REQUESTS.c.number))]

    def outcome(self, request_id: str) -> Outcome | None:
        """How the request ended, None while it is open."""
        rows = self._rows(sa.select(OUTCOMES).where(OUTCOMES.c.request_id == request_id))
        return _outcome(rows[0]) if rows else None

    def outcomes(self) -> list[Outcome]:
        """Every outcome, oldest first."""
        return [_outcome(row) for row in self._rows(sa.select(OUTCOMES).order_by(OUTCOMES.c.at))]

    def promotions(self) -> list[Promotion]:
        """Every promotion and rollback, in their order."""
        return [_promotion(row) for row in self._rows(sa.select(PROMOTIONS).order_by(PROMOTIONS.c.sequence))]

    def last_promotion(self) -> Promotion | None:
        """The promotion in force, None where nothing was ever promoted."""
        rows = self._rows(sa.select(PROMOTIONS).order_by(PROMOTIONS.c.sequence.desc()).limit(1))
        return _promotion(rows[0]) if rows else None

    def refusals(self) -> list[Refusal]:
        """Every refused attempt, oldest first."""
        rows = self._rows(sa.select(REFUSALS).order_by(REFUSALS.c.id))
        return [Refusal(**{name: value for name, value in row.items() if name != "id"}) for row in rows]

    def deliveries(self, request_id: str | None = None) -> list[Delivery]:
        """Messages that arrived, of one request or of all, oldest first."""
        select = sa.select(DELIVERIES).order_by(DELIVERIES.c.delivered_at, DELIVERIES.c.reminder)
        if request_id is not None:
            select = select.where(DELIVERIES.c.request_id == request_id)
        return [Delivery(**row) for row in self._rows(select)]

    def pending(self) -> dict[str, tuple[str, ...]]:
        """Events whose effects are not known to be in the model registry, with the versions they are about."""
        versions: dict[str, tuple[str, ...]] = {}
        done = sa.select(PROJECTIONS.c.event)
        requests = sa.select(("request " + REQUESTS.c.id).label("event"), REQUESTS.c.staging_version)
        outcomes = sa.select(("outcome " + REQUESTS.c.id).label("event"), REQUESTS.c.staging_version).join(OUTCOMES)
        sequence = sa.cast(PROMOTIONS.c.sequence, sa.Text)
        promotions = sa.select(
            ("promotion " + sequence).label("event"), PROMOTIONS.c.version, PROMOTIONS.c.replaced_version
        )
        for select in (requests, outcomes, promotions):
            events = select.subquery()
            for event, *about in self._connection.execute(sa.select(events).where(events.c.event.not_in(done))):
                versions[event] = tuple(version for version in about if version is not None)
        return versions

    def add_request(self, request: Request) -> None:
        """Asks; IntegrityError if the same evidence was asked about before."""
        values = asdict(request)
        self._add(REQUESTS, evidence=values.pop("evidence_json"), **values)

    def settle(self, outcome: Outcome) -> None:
        """Ends a request; IntegrityError if it has ended already."""
        self._add(OUTCOMES, **asdict(outcome))

    def promote(self, promotion: Promotion) -> None:
        """Extends the history.

        Raises:
            sqlalchemy.exc.IntegrityError: The sequence is taken, the replaced version is not production, or the version
                is not the one that the request showed and somebody approved.
        """
        previous = promotion.sequence - 1 or None
        decision = State.APPROVED if promotion.request_id else None
        self._add(PROMOTIONS, previous=previous, decision=decision, **asdict(promotion))

    def add_refusal(self, refusal: Refusal) -> None:
        """Records an attempt that was turned away."""
        self._add(REFUSALS, **asdict(refusal))

    def add_delivery(self, delivery: Delivery) -> None:
        """Records that a message arrived; IntegrityError if it is recorded already."""
        self._add(DELIVERIES, **asdict(delivery))

    def add_projection(self, event: str, at: datetime) -> None:
        """Records that an event's effects are in the model registry."""
        self._add(PROJECTIONS, event=event, at=at)


class Ledger:
    """The ledger in a database. Making one connects to nothing; first use creates or migrates the tables.

    Args:
        url: SQLAlchemy URL, `sqlite:///…` or `postgresql://…`.
        unit: Of the target: a ledger says which version of one model is production.

    Raises:
        LedgerError: On use: the database cannot be reached, was written by a newer release, or is another target's.
    """

    def __init__(self, url: str, unit: Unit) -> None:
        self.unit: Unit = unit
        self._url = make_url(url)
        if self._url.drivername in {"postgres", "postgresql"}:
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._migrating = threading.Lock()
        self._migrated = False

    def __repr__(self) -> str:
        return f"Ledger({self._url.render_as_string(hide_password=True)!r})"

    @contextmanager
    def reading(self) -> Iterator[Book]:
        """A consistent view of the entries."""
        self._migrate()
        with self._begin(exclusive=False) as connection:
            yield Book(connection)

    @contextmanager
    def writing(self) -> Iterator[Book]:
        """A transaction that adds entries, all or none; one at a time, so that what it reads stays true to its end."""
        self._migrate()
        with self._begin(exclusive=True) as connection:
            yield Book(connection)

    @contextmanager
    def _begin(self, *, exclusive: bool) -> Iterator[Connection]:
        try:
            connection = self._engine.connect()
        except sa.exc.OperationalError as error:
            raise LedgerError(f"{self!r} cannot be opened: {error.orig}") from error
        with connection.execution_options(taxifare_exclusive=exclusive) as open_connection, open_connection.begin():
            if exclusive and self._engine.dialect.name == "postgresql":
                open_connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
                open_connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            yield open_connection

    @cached_property
    def _engine(self) -> Engine:
        # No pool: a connection kept across a fork or a restart of the server is a fault waiting; opening one is cheap.
        if not self._url.drivername.startswith("sqlite"):
            return sa.create_engine(self._url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 10})
        if self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool, connect_args={"timeout": LOCK_SECONDS})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _migrate(self) -> None:
        """Ensures that the tables are of this release; of several processes starting at once, one does the work."""
        with self._migrating:
            if self._migrated:
                return
            with self._begin(exclusive=False) as connection:
                found = _schema_revision(connection)
            if found != SCHEMA_REVISION:
                with self._begin(exclusive=True) as connection:
                    if _schema_revision(connection) != SCHEMA_REVISION:
                        self._upgrade(connection)
            self._ensure_target()
            self._migrated = True

    def _ensure_target(self) -> None:
        """Ensures that what has been asked so far was about this target."""
        last = sa.select(REQUESTS.c.evidence).order_by(REQUESTS.c.number.desc()).limit(1)
        with self._begin(exclusive=False) as connection:
            evidence = connection.execute(last).scalar()
        unit = self.unit if evidence is None else json.loads(evidence).get("unit", "no unit, of an earlier release")
        if unit != self.unit:
            raise LedgerError(
                f"{self!r} decides about another model: expected requests in {self.unit}, received one in {unit}. Set "
                "TARGET back, or use another TAXIFARE_HOME or DATABASE_URL"
            )

    def _upgrade(self, connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            command.upgrade(config, SCHEMA_REVISION)
        except CommandError as error:
            raise LedgerError(
                f"{self!r} was written by another release of taxifare; this one knows {SCHEMA_REVISION}: {error}"
            ) from error


def _schema_revision(connection: Connection) -> str | None:
    """The revision of the tables in the database, None where there are none; found without importing Alembic."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 starts transactions by its own rules; the ledger says itself when, see _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A plain BEGIN lets two writers read the same state first and only then find out about each other.
    exclusive = connection.get_execution_options().get("taxifare_exclusive", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")
