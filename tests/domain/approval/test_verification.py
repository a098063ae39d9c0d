"""Verification sees whatever was changed past the ledger, by whoever owns its tables, and names it."""

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.approval.approvals import Approvals
from taxifare.approval.chain import Head, Link, key_of, seal
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.ledger import Ledger, LedgerError, upgrade
from taxifare.approval.migrations.roles import APPLICATION_ROLE
from taxifare.approval.migrations.versions.v0003_chain import ADOPTED
from taxifare.approval.tables import CHAIN, METADATA
from taxifare.approval.verification import TamperedError, verify
from tests.support.approvals import SECRET, MemoryRegistry, Office

_roles = count(1)


@pytest.fixture
def busy(office: Office) -> Office:
    """An office with entries of every kind but deliveries: promotions, a rejection, a void request, a refusal."""
    office.approve(office.ask("2015-01", "2", "1"))
    office.reject(office.ask("2015-02", "3", "2"))
    with pytest.raises(Exception, match="no request"):
        office.approvals.decide("nonsense", "approve", "Eve", "why not", "TOKEN")
    office.ask("2015-03", "4", "1")
    return office


def head_of(ledger: Ledger) -> Head:
    with ledger.reading() as entries:
        head = entries.head()
    assert head is not None
    return head


def owner(ledger: Ledger) -> sa.engine.Connection:
    """A connection of whoever owns the tables, with the triggers out of the way."""
    connection = ledger._engine.connect()
    if connection.dialect.name == "sqlite":
        for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    else:
        connection.exec_driver_sql("SET session_replication_role = replica")
    return connection


def tamper(ledger: Ledger, *statements: str) -> None:
    """Ensures that the statements were run by the owner, and that the triggers are back as they were."""
    if ledger._engine.dialect.name == "postgresql":
        with owner(ledger) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.commit()
        return
    with sqlite3.connect(str(ledger._url.database)) as connection:
        made = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in made:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in made:
            connection.execute(sql)
    connection.close()


def test_what_was_done_by_the_commands_is_found_in_order(busy: Office) -> None:
    ledger = busy.approvals.ledger
    head = head_of(ledger)
    verified = verify(ledger, [], head)
    assert verified.head == head
    assert verified.entries["promotions"] == 2
    assert verified.evidence == 8, "four comparisons and four requests"
    assert sum(verified.entries.values()) == head.number
    assert f"head is {head}" in str(verified)


def test_nothing_at_all_is_in_order(ledger_url: str) -> None:
    assert "nothing is recorded" in str(verify(Ledger(ledger_url, "USD"), []))


CHANGES = {
    "who decided": ("UPDATE outcomes SET \"by\" = 'Eve' WHERE state = 'rejected'", "does not fit outcomes"),
    "what is in production": ("UPDATE promotions SET version = '9' WHERE sequence = 2", "does not fit promotions [2]"),
    "when it was": ("UPDATE promotions SET promoted_at = '2014-01-01 00:00:00' WHERE sequence = 1", "promotions [1]"),
    "what was shown": ("UPDATE requests SET evidence = '{}' WHERE number = 2", "does not fit requests [2]"),
    "a refusal that is gone": ("DELETE FROM refusals", "refusals [1], which is not there: it was deleted"),
    "a link that is gone": ("DELETE FROM chain WHERE number = 3", "entry 3 of the chain is missing"),
    "a link that is changed": ("UPDATE chain SET seal = 'abc' WHERE number = 3", "entry 3 of the chain does not fit"),
    "a comparison from nowhere": (
        "INSERT INTO comparisons SELECT number + 100, '2016-01', revision, staging_version, staging_run, "
        "production_version, evidence_digest, schema, evidence, compared_at FROM comparisons WHERE number = 1",
        "comparisons [101] is in no entry of the chain",
    ),
}


@pytest.mark.parametrize(("statement", "told"), CHANGES.values(), ids=CHANGES)
def test_a_change_by_the_owner_is_seen_though_the_triggers_are_back(busy: Office, statement: str, told: str) -> None:
    tamper(busy.approvals.ledger, statement)
    with pytest.raises(TamperedError) as caught:
        verify(busy.approvals.ledger, [])
    assert told in str(caught.value)


def chain_anew(connection: Connection) -> None:
    """Ensures that the chain is computed anew over what is in the tables."""
    connection.execute(CHAIN.delete())
    links: list[Link] = []
    for name in ADOPTED:
        table = METADATA.tables[name]
        keys = [column.name for column in table.primary_key]
        for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings():
            before = links[-1].seal if links else ""
            links.append(Link(len(links) + 1, name, key_of(dict(row), keys), seal(before, name, dict(row))))
    connection.execute(CHAIN.insert(), [asdict(link) for link in links])


def test_a_chain_computed_anew_is_seen_by_what_was_told(busy: Office, tmp_path: Path) -> None:
    ledger = busy.approvals.ledger
    head = head_of(ledger)
    told = ToldHeads(tmp_path, ledger.place)
    told.remember(ToldHead(head, "Request a to log", busy.clock()))
    assert verify(ledger, told.read()).told == 1

    tamper(ledger, "UPDATE outcomes SET \"by\" = 'Eve' WHERE state = 'rejected'")
    made = []
    with ledger._engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            made = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
            for name, _ in made:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        chain_anew(connection)
        for _, sql in made:
            connection.exec_driver_sql(sql)
        connection.commit()

    verify(ledger, [])
    with pytest.raises(
        TamperedError, match=r"2015-02-01 09:00 UTC \(Request a to log: .*cut off, computed anew, or rest"
    ):
        verify(ledger, told.read())
    with pytest.raises(TamperedError, match=f"the message that shows head {head}"):
        verify(ledger, [], head)


def test_an_older_copy_is_seen_by_what_was_told(office: Office, tmp_path: Path) -> None:
    ledger = office.approvals.ledger
    if ledger._engine.dialect.name != "sqlite":
        pytest.skip("a file")
    with ledger._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    file = Path(str(ledger._url.database))
    shutil.copy(file, tmp_path / "older.db")
    office.approve(office.ask("2015-01", "2", "1"))
    told = ToldHead(head_of(ledger), "Request a to log", office.clock())
    for part in tmp_path.glob("ledger.db*"):
        part.unlink()
    shutil.copy(tmp_path / "older.db", file)
    verify(ledger, [])
    with pytest.raises(TamperedError, match="restored from an older backup"):
        verify(ledger, [told])


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DROP TRIGGER outcomes_refuse_update", "trigger outcomes_refuse_update is missing"),
        (
            "CREATE TRIGGER more AFTER INSERT ON outcomes BEGIN SELECT 1; END",
            "trigger more is not of taxifare",
        ),
        ("DROP INDEX comparisons_by_subject", "index comparisons_by_subject is missing"),
        (
            "UPDATE sqlite_master SET sql = replace(sql, 'RAISE(ABORT', 'coalesce(1') "
            "WHERE name = 'promotions_refuse_delete'",
            "trigger promotions_refuse_delete is not as taxifare made it",
        ),
        (
            "UPDATE sqlite_master SET sql = replace(sql, 'approved', 'approvee') WHERE name = 'promotions'",
            "table promotions is not as taxifare made it",
        ),
    ],
)
def test_what_sqlite_no_longer_refuses_is_named(tmp_path: Path, statement: str, told: str) -> None:
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    head = office.approvals.record.head()
    assert head is None
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(statement)
    connection.close()
    with pytest.raises(TamperedError, match=told):
        verify(office.approvals.ledger, [])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE promotions SET promoted_at = 'yesterday'",
        "UPDATE promotions SET promoted_at = 7",
        "UPDATE outcomes SET reason = x'ff00'",
    ],
)
def test_what_no_release_could_have_written_is_no_traceback(tmp_path: Path, statement: str) -> None:
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    tamper(office.approvals.ledger, statement)
    with pytest.raises(TamperedError, match=r"did not write|does not fit"):
        verify(office.approvals.ledger, [])


def test_a_file_that_is_damaged_is_no_traceback(tmp_path: Path) -> None:
    office = Office.open(f"sqlite:///{tmp_path / 'ledger.db'}").with_first_model()
    with office.approvals.ledger._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray((tmp_path / "ledger.db").read_bytes())
    content[8192 : len(content) // 2] = bytes(len(content) // 2 - 8192)
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises((TamperedError, LedgerError)):
        verify(office.approvals.ledger, [])


# A ledger of before


def test_a_ledger_of_before_is_sealed_as_it_is_when_it_is_migrated(empty_database: str) -> None:
    ledger_url = empty_database
    ledger = Ledger(ledger_url, "USD")
    with ledger._begin(exclusive=True) as connection:
        upgrade(connection, "0002")
        for name, values in (
            ("refusals", {"request_id": "x", "decision": "approve", "by": "Eve", "why": "no"}),
            ("projections", {"event": "request x"}),
            ("projections", {"event": "request a"}),
        ):
            moment = sa.literal(Office.open(ledger_url).clock.moment)
            connection.execute(METADATA.tables[name].insert().values(**values, at=moment))
    assert ledger.migrate() == "0002"
    verified = verify(ledger, [])
    assert verified.head is not None
    assert verified.head.number == 3
    with ledger.reading() as entries:
        assert [link.entry_table for link in entries.links()] == ["refusals", "projections", "projections"]
        assert [link.entry_key for link in entries.links()] == ["[1]", '["request a"]', '["request x"]']
    with ledger.writing() as entries:
        entries.add_projection("request b", Office.open(ledger_url).clock())
    assert verify(ledger, []).entries["projections"] == 3


# Two roles in PostgreSQL

HARMLESS = (
    "CREATE OR REPLACE FUNCTION taxifare_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
)


@pytest.fixture
def two_roles(postgres: str) -> Iterator[tuple[str, str]]:
    """URLs of an owner of a database of its own and of the application, made as the README says."""
    admin = sa.create_engine(postgres.replace("postgresql", "postgresql+psycopg", 1), isolation_level="AUTOCOMMIT")
    name = f"taxifare{next(_roles)}"
    with admin.connect() as connection:
        known = connection.exec_driver_sql("SELECT rolname FROM pg_roles").scalars().all()
        if APPLICATION_ROLE not in known:
            connection.exec_driver_sql(f"CREATE ROLE {APPLICATION_ROLE} NOLOGIN")
        connection.exec_driver_sql(f"CREATE ROLE {name}_owner LOGIN")
        connection.exec_driver_sql(f"CREATE ROLE {name}_app LOGIN IN ROLE {APPLICATION_ROLE}")
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {name}_owner")
    folder = postgres.partition("host=")[2]
    try:
        yield tuple(f"postgresql://{name}_{who}@/{name}?host={folder}" for who in ("owner", "app"))  # type: ignore[misc]
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            connection.exec_driver_sql(f"DROP ROLE {name}_owner, {name}_app")
        admin.dispose()


@pytest.mark.end_to_end
def test_the_application_asks_and_decides_but_can_neither_rewrite_nor_disarm(two_roles: tuple[str, str]) -> None:
    owner_url, application_url = two_roles
    with pytest.raises(LedgerError, match=r"it has no tables yet, .*: taxifare migrate, with the role that owns"):
        Office.open(application_url).with_first_model()
    with pytest.raises(LedgerError, match="set DATABASE_URL to the owner's role for taxifare migrate"):
        Ledger(application_url, "USD").migrate()
    assert Ledger(owner_url, "USD").migrate() == "none"
    assert Ledger(application_url, "USD").migrate() is None

    office = Office.open(application_url).with_first_model()
    office.reject(office.ask("2015-01", "2", "1"))
    ledger = office.approvals.ledger
    assert verify(ledger, []).entries["outcomes"] == 2
    assert Ledger(owner_url, "USD").place == ledger.place

    forbidden = [
        *(f"UPDATE {table} SET {next(iter(METADATA.tables[table].c)).name} = NULL" for table in METADATA.tables),
        *(f"DELETE FROM {table}" for table in METADATA.tables),
        *(f"TRUNCATE {table} CASCADE" for table in METADATA.tables),
        *(f"DROP TRIGGER {table}_append_only ON {table}" for table in METADATA.tables),
        *(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in METADATA.tables),
        *(f"ALTER TABLE {table} OWNER TO CURRENT_USER" for table in METADATA.tables),
        *(f"DROP TABLE {table} CASCADE" for table in METADATA.tables),
        *(f"CREATE TRIGGER more BEFORE INSERT ON {table} EXECUTE FUNCTION f()" for table in METADATA.tables),
        HARMLESS,
        "DROP FUNCTION taxifare_refuse_change() CASCADE",
        "ALTER TABLE outcomes DROP CONSTRAINT decisions_are_signed",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM alembic_version",
        "INSERT INTO alembic_version VALUES ('x')",
        "SET session_replication_role = replica",
        "CREATE TABLE more (id int)",
    ]
    for statement in forbidden:
        with pytest.raises(sa.exc.DBAPIError) as caught, ledger._engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert getattr(caught.value.orig, "sqlstate", None) == "42501", statement
    verify(ledger, [], head_of(ledger))


@pytest.mark.end_to_end
def test_a_role_that_may_not_is_told_with_its_setting(two_roles: tuple[str, str]) -> None:
    """A session that only reads, as on a replica; a role that may read; and one that is let into nothing."""
    owner_url, stranger_url = two_roles
    Ledger(owner_url, "USD").migrate()
    Office.open(owner_url).with_first_model()
    read_only = Ledger(f"{owner_url}&options=-cdefault_transaction_read_only%3Don", "USD")
    verify(read_only, [])
    owner = Ledger(owner_url, "USD")
    with owner._engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM {APPLICATION_ROLE}")
    for ledger in (read_only, Ledger(stranger_url, "USD")):
        with pytest.raises(LedgerError, match=r"(read-only|denied).*recorded. DATABASE_URL: expected the role"):
            Approvals(ledger, MemoryRegistry(), lambda: SECRET).rollback(by="Ada", reason="fares look odd")
    with owner._engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE ALL ON SCHEMA public FROM PUBLIC, {APPLICATION_ROLE}")
    with pytest.raises(LedgerError, match=r"(has no tables yet|denied).*DATABASE_URL"):
        verify(Ledger(stranger_url, "USD"), [])


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DROP TRIGGER outcomes_append_only ON outcomes", "trigger outcomes_append_only is missing"),
        (
            "ALTER TABLE outcomes DISABLE TRIGGER outcomes_append_only",
            "append_only of outcomes is switched off",
        ),
        (HARMLESS, "is not as taxifare made it"),
        ("ALTER TABLE promotions DROP CONSTRAINT was_approved", "constraint was_approved of promotions is missing"),
        ("ALTER TABLE outcomes DROP CONSTRAINT known_state", "constraint known_state of outcomes is missing"),
    ],
)
def test_what_postgresql_no_longer_refuses_is_named(two_roles: tuple[str, str], statement: str, told: str) -> None:
    ledger = Ledger(two_roles[0], "USD")
    ledger.migrate()
    verify(ledger, [])
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql(statement)
    with pytest.raises(TamperedError, match=told):
        verify(ledger, [])
