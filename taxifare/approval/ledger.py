"""The record of what was asked, what was decided and which version was production when: append-only tables.

The database itself enforces the rules, so that no code path can break them. Triggers refuse UPDATE and DELETE. A
request has one outcome, because the outcome's primary key is the request. A promotion extends the last one and names
the version it replaces, and it is of the version that was shown and approved, because foreign keys demand it.
Every entry is sealed into a chain, which shows a change by whoever can drop the triggers.
SQLite by default, PostgreSQL by `DATABASE_URL`.

Why the database enforces them, and what makes a question the same: docs/decisions.md, under approval.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from taxifare.approval.chain import Head, Link, key_of, seal
from taxifare.approval.records import (
    Alarm,
    Comparison,
    Delivery,
    Notice,
    Outcome,
    Promotion,
    Refusal,
    Request,
    RequestState,
    SpentToken,
    StandingEnd,
    StandingRequest,
)
from taxifare.approval.tables import (
    ALARM_OUTCOMES,
    ALARMS,
    CHAIN,
    COMPARISONS,
    DELIVERIES,
    METADATA,
    NOTICES,
    OUTCOMES,
    PROJECTIONS,
    PROMOTIONS,
    REFUSALS,
    REQUESTS,
    SPENT_TOKENS,
    STANDING_ENDS,
    STANDING_OUTCOMES,
    STANDING_REQUESTS,
    STANDING_USES,
    VERSIONS,
)
from taxifare.errors import ToldError
from taxifare.gate.evidence import Verdict
from taxifare.model.contents import Content
from taxifare.rows import put
from taxifare.secrets import private_folder, shown
from taxifare.texts import counted
from taxifare.trips.city_files import MINUTES, SHIPPED
from taxifare.trips.targets import Unit

SCHEMA_REVISION = "0006"

NOTHING = "none"
"""In the promotions' table, what is in production once a person has taken the model out."""

LOCK_S = 30

NOT_PERMITTED = frozenset({"42501", "25006", "3F000"})
"""What PostgreSQL answers to a role that lacks a privilege, may only read, or may use no schema."""

# Any constant will do, as long as nothing else in the same PostgreSQL database locks it: "taxi" in ASCII.
ADVISORY_LOCK = 0x74617869


_LAST_COMPARISONS = sa.select(sa.func.max(COMPARISONS.c.number)).group_by(COMPARISONS.c.subject)

_REQUEST_COLUMNS, _OUTCOME_COLUMNS = tuple(REQUESTS.columns.keys()), tuple(OUTCOMES.columns.keys())

_BY_TIME = (DELIVERIES.c.delivered_at, DELIVERIES.c.reminder)


class LedgerError(ToldError, RuntimeError):
    """A ledger that cannot be opened, has tables of another release, or decides about another target."""


class _NotPermittedError(LedgerError):
    """The role in DATABASE_URL may not do what a command has to."""


class Entries:
    """The ledger's entries as seen, and added to, within one transaction.

    Attributes:
        connection: The connection that the transaction is on.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._last_link: Link | None = None

    def _rows(self, select: sa.Select[Any]) -> list[Mapping[str, Any]]:
        result = self.connection.execute(select)
        columns = tuple(result.keys())
        return [dict(zip(columns, row, strict=True)) for row in result]

    def _count(self, table: sa.Table) -> int:
        return int(self.connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    def _add(self, table: sa.Table, **values: object) -> None:
        """Ensures that the row is in the table, and sealed as it was stored."""
        insert = table.insert().values(**values).returning(*table.c)
        stored = dict(self.connection.execute(insert).mappings().one())
        # Nobody else adds a link before this transaction ends, so the last one is looked up only once.
        last = self._last_link or self._find_last_link()
        number, before = (1, "") if last is None else (last.number + 1, last.seal)
        key = key_of(stored, [column.name for column in table.primary_key])
        self._last_link = Link(number, table.name, key, seal(before, table.name, stored))
        self.connection.execute(CHAIN.insert().values(**asdict(self._last_link)))

    def _find_last_link(self) -> Link | None:
        rows = self._rows(sa.select(CHAIN).order_by(CHAIN.c.number.desc()).limit(1))
        return Link(**rows[0]) if rows else None

    def head(self) -> Head | None:
        """The head of the chain, None before the first entry."""
        last = self._find_last_link()
        return None if last is None else last.head

    def has_head(self, head: Head) -> bool:
        """Whether the chain has, or once had, that head."""
        found = self.connection.execute(sa.select(CHAIN.c.seal).where(CHAIN.c.number == head.number)).scalar()
        return found is not None and str(found).startswith(head.digits)

    def links(self) -> list[Link]:
        """The whole chain."""
        return [Link(*row) for row in self.connection.execute(sa.select(CHAIN).order_by(CHAIN.c.number))]

    def rows(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Every row of every table except the chain, by table and key."""
        found: dict[str, dict[str, Mapping[str, Any]]] = {}
        for table in METADATA.tables.values():
            if table is not CHAIN:
                columns = [column.name for column in table.primary_key]
                found[table.name] = {key_of(row, columns): row for row in self._rows(sa.select(table))}
        return found

    def at_hand(self) -> tuple[list[Request], list[Outcome], list[Delivery]]:
        """What decides what is due, not the whole past: it grows with the months, not with the questions.

        These are the requests that are open, those on the last comparison of a subject, those about the version in
        production, and for each edition the last that somebody decided; how these ended; and the deliveries of open
        ones.
        """
        ended = sa.select(OUTCOMES.c.request_id)
        last_decided = (
            sa.select(sa.func.max(REQUESTS.c.number))
            .join(OUTCOMES)
            .where(OUTCOMES.c.by.is_not(None))
            .group_by(REQUESTS.c.subject, REQUESTS.c.revision)
        )
        compared = sa.select(COMPARISONS.c.evidence_digest).where(COMPARISONS.c.number.in_(_LAST_COMPARISONS))
        production = sa.select(PROMOTIONS.c.version).order_by(PROMOTIONS.c.sequence.desc()).limit(1).scalar_subquery()
        is_at_hand = sa.or_(
            OUTCOMES.c.request_id.is_(None),
            REQUESTS.c.number.in_(last_decided),
            REQUESTS.c.evidence_digest.in_(compared),
            REQUESTS.c.staging_version == production,
        )
        select = sa.select(REQUESTS, OUTCOMES).join(OUTCOMES, isouter=True).where(is_at_hand)
        requests, outcomes = [], []
        for row in self.connection.execute(select.order_by(REQUESTS.c.number)):
            of_request, of_outcome = row[: len(REQUESTS.c)], row[len(REQUESTS.c) :]
            requests.append(_request(dict(zip(_REQUEST_COLUMNS, of_request, strict=True))))
            if of_outcome[0] is not None:
                outcomes.append(_outcome(dict(zip(_OUTCOME_COLUMNS, of_outcome, strict=True))))
        deliveries = sa.select(DELIVERIES).where(DELIVERIES.c.request_id.not_in(ended)).order_by(*_BY_TIME)
        return (
            requests,
            sorted(outcomes, key=attrgetter("at")),
            [Delivery(*row) for row in self.connection.execute(deliveries)],
        )

    def comparisons(self) -> dict[str, Comparison]:
        """The last comparison of each subject."""
        select = (
            sa.select(COMPARISONS).where(COMPARISONS.c.number.in_(_LAST_COMPARISONS)).order_by(COMPARISONS.c.number)
        )
        return {row["subject"]: _comparison(row) for row in self._rows(select)}

    def comparison(self, subject: str) -> Comparison | None:
        """The last comparison of the subject, None where there is none."""
        select = sa.select(COMPARISONS).where(COMPARISONS.c.subject == subject)
        rows = self._rows(select.order_by(COMPARISONS.c.number.desc()).limit(1))
        return _comparison(rows[0]) if rows else None

    def lacks_comparisons(self) -> bool:
        """Whether somebody was asked about comparisons that are not here: the state is of an earlier release."""
        was_asked = sa.exists(sa.select(REQUESTS.c.number))
        return bool(
            self.connection.execute(sa.select(was_asked & ~sa.exists(sa.select(COMPARISONS.c.number)))).scalar()
        )

    def request(self, request_id: str) -> Request | None:
        """The request, None if there is none of that name."""
        rows = self._rows(sa.select(REQUESTS).where(REQUESTS.c.id == request_id))
        return _request(rows[0]) if rows else None

    def requests(self) -> list[Request]:
        """Every request, oldest first."""
        return [_request(row) for row in self._rows(sa.select(REQUESTS).order_by(REQUESTS.c.number))]

    def counts(self) -> tuple[int, int]:
        """How many requests there are, and how many of them are open."""
        asked, ended = self._count(REQUESTS), self._count(OUTCOMES)
        return asked, asked - ended

    def last_request_of(self, version: str) -> Request | None:
        """The last request about a version, None where there is none."""
        select = sa.select(REQUESTS).where(REQUESTS.c.staging_version == version)
        rows = self._rows(select.order_by(REQUESTS.c.number.desc()).limit(1))
        return _request(rows[0]) if rows else None

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
        """Every promotion and rollback, in order."""
        return [_promotion(row) for row in self._rows(sa.select(PROMOTIONS).order_by(PROMOTIONS.c.sequence))]

    def last_promotion(self) -> Promotion | None:
        """The promotion in force, None where nothing was ever promoted."""
        rows = self._rows(sa.select(PROMOTIONS).order_by(PROMOTIONS.c.sequence.desc()).limit(1))
        return _promotion(rows[0]) if rows else None

    def standing_requests(self) -> list[StandingRequest]:
        """Every question about a standing approval, oldest first."""
        rows = self._rows(sa.select(STANDING_REQUESTS).order_by(STANDING_REQUESTS.c.number))
        return [StandingRequest(**_without(row, "number", "evidence"), evidence_json=row["evidence"]) for row in rows]

    def standing_outcomes(self) -> dict[str, Outcome]:
        """How each question about a standing approval that is no longer open ended."""
        return {
            row["standing_id"]: Outcome(
                row["standing_id"], RequestState(row["state"]), row["by"], row["reason"], override=False, at=row["at"]
            )
            for row in self._rows(sa.select(STANDING_OUTCOMES))
        }

    def standing_ends(self) -> dict[str, StandingEnd]:
        """How each standing approval ended that did not last until its last month."""
        rows = self._rows(sa.select(STANDING_ENDS))
        return {row["standing_id"]: StandingEnd(**_without(row, "agreed")) for row in rows}

    def standing_uses(self) -> dict[str, str]:
        """The standing approval of each request that was approved under one."""
        return {row["request_id"]: row["standing_id"] for row in self._rows(sa.select(STANDING_USES))}

    def alarms(self) -> list[Alarm]:
        """Every alarm, oldest first."""
        rows = self._rows(sa.select(ALARMS).order_by(ALARMS.c.number))
        return [Alarm(**_without(row, "number", "evidence"), evidence_json=row["evidence"]) for row in rows]

    def alarm_outcomes(self) -> dict[str, Outcome]:
        """How each alarm that is no longer open ended."""
        return {
            row["alarm_id"]: Outcome(
                row["alarm_id"], RequestState(row["state"]), row["by"], row["reason"], override=False, at=row["at"]
            )
            for row in self._rows(sa.select(ALARM_OUTCOMES))
        }

    def refusals(self) -> list[Refusal]:
        """Every refused attempt, oldest first."""
        rows = self._rows(sa.select(REFUSALS).order_by(REFUSALS.c.id))
        return [Refusal(**_without(row, "id")) for row in rows]

    def deliveries(self, request_id: str | None = None) -> list[Delivery]:
        """Messages that arrived, of one request or of all, oldest first."""
        select = sa.select(DELIVERIES).order_by(*_BY_TIME)
        if request_id is not None:
            select = select.where(DELIVERIES.c.request_id == request_id)
        return [Delivery(**row) for row in self._rows(select)]

    def content(self, version: str) -> Content | None:
        """The content of the version, None where it is not recorded."""
        rows = self._rows(sa.select(VERSIONS).where(VERSIONS.c.version == version))
        return _content(rows[0]) if rows else None

    def contents(self) -> list[Content]:
        """The content of each version that is recorded."""
        return [_content(row) for row in self._rows(sa.select(VERSIONS).order_by(VERSIONS.c.recorded_at))]

    def spent_tokens(self, about: str | None = None) -> list[SpentToken]:
        """Tokens that were spent, about one thing or all, oldest first."""
        select = sa.select(SPENT_TOKENS).order_by(SPENT_TOKENS.c.number)
        if about is not None:
            select = select.where(SPENT_TOKENS.c.about == about)
        return [SpentToken(**_without(row, "number")) for row in self._rows(select)]

    def notices(self, about: str | None = None) -> list[Notice]:
        """Notices that arrived, about one thing or all."""
        select = sa.select(NOTICES).order_by(NOTICES.c.delivered_at, NOTICES.c.message)
        if about is not None:
            select = select.where(NOTICES.c.about == about)
        return [Notice(**row) for row in self._rows(select)]

    def pending(self) -> dict[str, tuple[str, ...]]:
        """Events that are not known to be in the model registry, with the versions they are about.

        Requests first, then outcomes, then promotions, the oldest of each kind first.
        """
        # Each event is told once: if as many were told as there are, there is no need to look which.
        if sum(map(self._count, (REQUESTS, OUTCOMES, PROMOTIONS))) == self._count(PROJECTIONS):
            return {}
        versions: dict[str, tuple[str, ...]] = {}
        done = sa.select(PROJECTIONS.c.event)
        number = REQUESTS.c.number.label("place")
        requests = sa.select(("request " + REQUESTS.c.id).label("event"), number, REQUESTS.c.staging_version)
        outcomes = sa.select(("outcome " + REQUESTS.c.id).label("event"), number, REQUESTS.c.staging_version)
        sequence = sa.cast(PROMOTIONS.c.sequence, sa.Text)
        promotions = sa.select(
            ("promotion " + sequence).label("event"),
            PROMOTIONS.c.sequence.label("place"),
            PROMOTIONS.c.version,
            PROMOTIONS.c.replaced_version,
        )
        for select in (requests, outcomes.join(OUTCOMES), promotions):
            events = select.subquery()
            untold = sa.select(events).where(events.c.event.not_in(done)).order_by(events.c.place)
            for event, _, *about in self.connection.execute(untold):
                versions[event] = tuple(version for version in about if version not in {None, NOTHING})
        return versions

    def add_comparison(self, comparison: Comparison) -> None:
        """Records a comparison, the last of its subject from now on."""
        values = asdict(comparison)
        self._add(COMPARISONS, evidence=values.pop("evidence_json"), **values)

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
        decision = RequestState.APPROVED if promotion.request_id else None
        values = asdict(promotion) | {"version": promotion.version or NOTHING}
        if previous is not None:
            values["replaced_version"] = promotion.replaced_version or NOTHING
        self._add(PROMOTIONS, previous=previous, decision=decision, **values)

    def add_standing_request(self, request: StandingRequest) -> None:
        """Asks for a standing approval; IntegrityError if the same was asked before."""
        values = asdict(request)
        self._add(STANDING_REQUESTS, evidence=values.pop("evidence_json"), **values)

    def settle_standing(self, outcome: Outcome) -> None:
        """Ends a question about a standing approval; IntegrityError if it has ended already."""
        values = _without(asdict(outcome), "request_id", "override")
        self._add(STANDING_OUTCOMES, standing_id=outcome.request_id, **values)

    def end_standing(self, end: StandingEnd) -> None:
        """Ends a standing approval; IntegrityError if it was never given, or has ended already."""
        self._add(STANDING_ENDS, agreed=RequestState.APPROVED, **asdict(end))

    def add_standing_use(self, request_id: str, standing_id: str) -> None:
        """Records under which standing approval a request was approved; IntegrityError unless both were approved."""
        both = RequestState.APPROVED
        self._add(STANDING_USES, request_id=request_id, decision=both, standing_id=standing_id, agreed=both)

    def add_alarm(self, alarm: Alarm) -> None:
        """Raises an alarm; IntegrityError if the promotion has one already, or is of another version."""
        values = asdict(alarm)
        self._add(ALARMS, evidence=values.pop("evidence_json"), **values)

    def settle_alarm(self, outcome: Outcome) -> None:
        """Ends an alarm; IntegrityError if it has ended already."""
        values = _without(asdict(outcome), "request_id", "override")
        self._add(ALARM_OUTCOMES, alarm_id=outcome.request_id, **values)

    def add_refusal(self, refusal: Refusal) -> None:
        """Records an attempt that was not accepted."""
        self._add(REFUSALS, **asdict(refusal))

    def add_delivery(self, delivery: Delivery) -> None:
        """Records that a message arrived; IntegrityError if it is recorded already."""
        self._add(DELIVERIES, **asdict(delivery))

    def add_content(
        self, content: Content, at: datetime, *, adopted_by: str | None = None, reason: str | None = None
    ) -> None:
        """Records what a version is; IntegrityError if its number is recorded already."""
        self._add(VERSIONS, **asdict(content), adopted_by=adopted_by, reason=reason, recorded_at=at)

    def add_spent_token(self, spent: SpentToken) -> None:
        """Records that a token was spent."""
        self._add(SPENT_TOKENS, **asdict(spent))

    def add_notice(self, notice: Notice) -> None:
        """Records that a notice arrived; IntegrityError if it is recorded already."""
        self._add(NOTICES, **asdict(notice))

    def add_projection(self, event: str, at: datetime) -> None:
        """Records that an event's effects are in the model registry."""
        self._add(PROJECTIONS, event=event, at=at)


class Ledger:
    """The ledger in a database. Making one connects to nothing.

    The first use of a file creates or migrates its tables. Those of a server are migrated by `migrate` alone, because
    other machines may be using them.

    Args:
        url: SQLAlchemy URL, `sqlite:///…` or `postgresql://…`.
        unit: Of the target: a ledger is about the versions of one model.
        city: Whose rides that model prices, see `CityFile.on_record`.

    Raises:
        LedgerError: On use: the database cannot be reached, has tables of another release, or is another target's or
            city's.
    """

    def __init__(self, url: str, unit: Unit, city: str | None = None) -> None:
        self.unit: Unit = unit
        self.city = city
        self._url = address_of_database(url)
        self._examining = threading.Lock()
        self._examined = False

    def __repr__(self) -> str:
        return f"Ledger({shown(self._url.render_as_string(hide_password=False))!r})"

    @property
    def place(self) -> str:
        """Where it is, without user or driver options: the same for everybody who uses it."""
        url = self._url
        query = {name: value for name, value in url.query.items() if name in {"host", "port", "options"}}
        return sa.URL.create(
            url.drivername, host=url.host, port=url.port, database=url.database, query=query
        ).render_as_string()

    @contextmanager
    def reading(self) -> Iterator[Entries]:
        """A consistent view of the entries."""
        self._examine()
        with self._begin(exclusive=False) as connection:
            yield Entries(connection)

    @contextmanager
    def writing(self) -> Iterator[Entries]:
        """A transaction that adds entries, all or none; one at a time, so that what it reads stays true meanwhile."""
        self._examine()
        with self._begin(exclusive=True) as connection:
            yield Entries(connection)

    @contextmanager
    def filled(self, schema: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Entries]:
        """A transaction in which an empty ledger was given the rows of a backup; it keeps all of them, or none.

        Args:
            schema: Of the tables that the rows are from.
            rows: See `taxifare.rows.put`.

        Raises:
            LedgerError: There are entries, the schema is of a later release, or the role may not make tables.
        """
        self._ensure_known(schema)
        try:
            with self._begin(exclusive=True) as connection:
                self._ensure_known(_schema_revision(connection))
                upgrade(connection, schema)
                self._ensure_empty(connection)
                put(connection, METADATA.tables, rows)
                upgrade(connection)
                yield Entries(connection)
        except _NotPermittedError as error:
            raise LedgerError(
                f"its tables have to be made and filled: set DATABASE_URL to the owner's role ({error})"
            ) from None

    def ensure_empty(self) -> None:
        """Ensures that nothing is recorded.

        Raises:
            LedgerError: Something is.
        """
        with self._begin(exclusive=False) as connection:
            self._ensure_known(found := _schema_revision(connection))
            if found is not None:
                self._ensure_empty(connection)

    def _ensure_empty(self, connection: Connection) -> None:
        if (head := Entries(connection).head()) is not None:
            raise LedgerError(
                f"{self!r}: expected an empty ledger, received one with {counted(head.number, 'entries')}: set "
                "TAXIFARE_HOME or DATABASE_URL to that of a new installation"
            )

    @contextmanager
    def _begin(self, *, exclusive: bool) -> Iterator[Connection]:
        try:
            connection = self._engine.connect()
        except sa.exc.DBAPIError as error:
            is_held = isinstance(error.orig, sqlite3.OperationalError) and error.orig.sqlite_errorname == "SQLITE_BUSY"
            way_out = "another process holds it, try again" if is_held else "is DATABASE_URL, or TAXIFARE_HOME, right?"
            raise LedgerError(f"{self!r} cannot be opened: {error.orig}; {way_out}") from None
        except (sa.exc.ArgumentError, ImportError) as error:
            raise LedgerError(
                f"DATABASE_URL: expected postgresql://… or sqlite:///…, received an address of another kind ({error})"
            ) from None
        except OSError as error:
            raise LedgerError(
                f"{self!r} cannot be opened: {error}; expected TAXIFARE_HOME to be a folder of ours"
            ) from None
        try:
            with connection.execution_options(taxifare_exclusive=exclusive) as open_connection, open_connection.begin():
                if self._engine.dialect.name == "postgresql":
                    _begin_postgresql(open_connection, exclusive=exclusive)
                yield open_connection
        except UnicodeEncodeError as error:
            raise LedgerError(
                f"expected texts that can be stored, received {error.object[:100]!a}, which holds half a "
                "character: nothing of this was recorded; write it again without that"
            ) from None
        except sa.exc.DatabaseError as error:
            if getattr(error.orig, "sqlstate", None) in NOT_PERMITTED:
                raise _NotPermittedError(
                    f"{self!r}: {str(error.orig).splitlines()[0]}; nothing of this was recorded. DATABASE_URL: "
                    "expected the role that owns the tables, or a member of the application's"
                ) from None
            # The caller knows what it means that a row or a key is refused.
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.InternalError):
                raise
            # Locked by another process for longer than LOCK_S, a full disk, a server that went away.
            raise LedgerError(
                f"{self!r} does not answer: {error.orig}; nothing of this was recorded, try again"
            ) from None

    @cached_property
    def _engine(self) -> Engine:
        # No pool: a connection kept across a fork or a server restart is a fault waiting to happen; opening is cheap.
        if not self._url.drivername.startswith("sqlite"):
            return sa.create_engine(self._url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 10})
        if self._url.database:
            private_folder(Path(self._url.database).parent)
        engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool, connect_args={"timeout": LOCK_S})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @property
    def is_server(self) -> bool:
        """Whether other machines can use it, too."""
        return not self._url.drivername.startswith("sqlite")

    def migrate(self) -> str | None:
        """Returns the schema that the tables had before, `none` for no tables; None if there was nothing to do.

        Of several processes at once, one does the work; whoever writes meanwhile waits.

        Raises:
            LedgerError: The tables are of a later release, or another program's, or the role may not change them.
        """
        try:
            with self._begin(exclusive=True) as connection:
                found = _schema_revision(connection)
                self._ensure_known(found)
                if found == SCHEMA_REVISION:
                    return None
                upgrade(connection)
        except _NotPermittedError as error:
            raise LedgerError(
                f"its tables have to become those of schema {SCHEMA_REVISION}: set DATABASE_URL to the owner's role "
                f"for taxifare migrate ({error})"
            ) from None
        return found or "none"

    def _examine(self) -> None:
        """Ensures, once, that the tables are of this release, and about this target."""
        with self._examining:
            if self._examined:
                return
            with self._begin(exclusive=False) as connection:
                found = _schema_revision(connection)
            self._ensure_known(found)
            if found != SCHEMA_REVISION and self.is_server:
                tables = "it has no tables yet" if found is None else f"its tables are of schema {found}"
                raise LedgerError(
                    f"{self!r}: {tables}, this release works with {SCHEMA_REVISION}: taxifare migrate, with the role "
                    "that owns the tables in DATABASE_URL"
                )
            if found != SCHEMA_REVISION:
                self.migrate()
            self._ensure_target()
            self._examined = True

    def _ensure_known(self, found: str | None) -> None:
        """Ensures that the tables are of this release or an earlier one.

        Raises:
            LedgerError: They are not.
        """
        if found is None or (found.isdecimal() and len(found) == len(SCHEMA_REVISION) and found <= SCHEMA_REVISION):
            return
        if found.isdecimal() and len(found) == len(SCHEMA_REVISION):
            raise LedgerError(
                f"{self!r}: its tables are of schema {found}, this release of taxifare is older and knows "
                f"{SCHEMA_REVISION}: use the release that migrated them"
            )
        raise LedgerError(
            f"{self!r}: its tables are another program's (schema {found}): expected a database, or a schema in it, of "
            "the ledger's own in DATABASE_URL"
        )

    def _ensure_target(self) -> None:
        """Ensures that what has been asked so far was about this target, and this city."""
        last = sa.select(REQUESTS.c.evidence).order_by(REQUESTS.c.number.desc()).limit(1)
        with self._begin(exclusive=False) as connection:
            evidence = connection.execute(last).scalar()
        if evidence is None:
            return
        try:
            told = json.loads(evidence)
            unit, city = told.get("unit", "no unit, of an earlier release"), told.get("city")
        except (ValueError, AttributeError) as error:
            raise LedgerError(
                f"{self!r}: the evidence of its last request is not what taxifare wrote ({error}): restore a backup"
            ) from error
        if city != self.city:
            raise LedgerError(
                f"{self!r} decides about another city: expected requests about {city_in_words(self.city)}, received "
                f"one about {city_in_words(city)}. Set CITY back, or use another TAXIFARE_HOME or DATABASE_URL"
            )
        if unit != self.unit:
            what = "TARGET" if MINUTES in {unit, self.unit} else "the currency in CITY's file"
            raise LedgerError(
                f"{self!r} decides about another model: expected requests in {self.unit}, received one in {unit}. Set "
                f"{what} back, or use another TAXIFARE_HOME or DATABASE_URL"
            )


def address_of_database(url: str) -> sa.URL:
    """Returns the address in DATABASE_URL, with PostgreSQL's current driver.

    >>> address_of_database("postgresql://example.org/taxi").drivername
    'postgresql+psycopg'

    Raises:
        LedgerError: It is none.
    """
    try:
        address = make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise LedgerError(
            "DATABASE_URL: expected an SQLAlchemy URL such as postgresql://user:password@host/database, received "
            "something else"
        ) from None
    is_bare = address.drivername in {"postgres", "postgresql"}
    return address.set(drivername="postgresql+psycopg") if is_bare else address


def city_in_words(city: str | None) -> str:
    """Returns what records call a city, in words."""
    return " or ".join(SHIPPED) if city is None else city


def upgrade(connection: Connection, revision: str = SCHEMA_REVISION) -> None:
    """Ensures that the tables on a connection are those of a revision.

    Raises:
        alembic.util.CommandError: They are of a later one.
    """
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    command.upgrade(config, revision)


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _comparison(row: Mapping[str, Any]) -> Comparison:
    return Comparison(**_without(row, "number", "evidence"), evidence_json=row["evidence"])


def _request(row: Mapping[str, Any]) -> Request:
    values = _without(row, "number", "evidence", "verdict")
    return Request(**values, verdict=Verdict(row["verdict"]), evidence_json=row["evidence"])


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(**_without(row, "state"), state=RequestState(row["state"]))


def _promotion(row: Mapping[str, Any]) -> Promotion:
    values = _without(row, "previous", "decision")
    names = ("version", "replaced_version")
    return Promotion(**values | {name: None if values[name] == NOTHING else values[name] for name in names})


def _content(row: Mapping[str, Any]) -> Content:
    return Content(**_without(row, "adopted_by", "reason", "recorded_at"))


def _schema_revision(connection: Connection) -> str | None:
    """The revision of the tables in the database, None where there are none; found without importing Alembic."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 starts transactions by its own rules; the ledger starts them itself, see _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    _keep_a_log(cursor)
    cursor.close()


# SQLite waits for locks, but not for this one: of four processes that used a new file at once, one was told that it was
# locked.
@retry(
    retry=retry_if_exception_type(sqlite3.OperationalError),
    stop=stop_after_delay(LOCK_S),
    wait=wait_fixed(0.05),
    reraise=True,
)
def _keep_a_log(cursor: sqlite3.Cursor) -> None:
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")


def _begin_postgresql(connection: Connection, *, exclusive: bool) -> None:
    if exclusive:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_S}s'")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
    else:
        # By default each statement sees what was committed before it; SQLite's transactions see one moment.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _begin_sqlite(connection: Connection) -> None:
    # A plain BEGIN lets two writers read the same state first and only then find out about each other.
    exclusive = connection.get_execution_options().get("taxifare_exclusive", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")
