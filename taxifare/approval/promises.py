"""What the database itself enforces: whether the triggers and keys that the migrations made are still there.

Whoever owns the tables can remove them, and put them back after a change; the chain shows that. This module shows that
they are gone.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.approval.ledger import upgrade
from taxifare.approval.tables import METADATA

_REFUSES = (
    "taxifare_refuse_change",
    " BEGIN RAISE EXCEPTION 'the ledger is append-only: % of % refused', TG_OP, TG_TABLE_NAME; END ",
)

_BEFORE_ANY_CHANGE = 58
"""PostgreSQL's bits for a statement-level trigger BEFORE UPDATE OR DELETE OR TRUNCATE: 2 + 8 + 16 + 32."""


def broken_promise(connection: Connection) -> str | None:
    """Returns what the database no longer enforces, in words; None where it is as the migrations made it."""
    if connection.dialect.name == "sqlite":
        return _broken_in_sqlite(connection)
    return _broken_in_postgresql(connection)


def _broken_in_sqlite(connection: Connection) -> str | None:
    damage = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
    if damage != "ok":
        return f"SQLite finds the file damaged: {damage}"
    found = _sqlite_schema(connection)
    with sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool).begin() as fresh:
        upgrade(fresh)
        made = _sqlite_schema(fresh)
    for (kind, name), as_made in made.items():
        if (kind, name) not in found:
            return f"{kind} {name} is missing"
        if found[kind, name] != as_made:
            return f"{kind} {name} is not as taxifare made it"
    return _first(
        f"trigger {name} is not of taxifare" for kind, name in found.keys() - made.keys() if kind == "trigger"
    )


def _sqlite_schema(connection: Connection) -> dict[tuple[str, str], str]:
    """Returns the SQL that made each table, index and trigger, by kind and name."""
    schema = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(kind, name): " ".join(sql.split()) for kind, name, sql in schema}


def _broken_in_postgresql(connection: Connection) -> str | None:
    triggers = connection.exec_driver_sql(
        "SELECT c.relname, t.tgname, t.tgenabled, t.tgtype, p.proname, p.prosrc FROM pg_trigger t "
        "JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal"
    ).all()
    found = {(table, name): tuple(rest) for table, name, *rest in triggers if table in METADATA.tables}
    for table in METADATA.tables:
        name = f"{table}_append_only"
        if (table, name) not in found:
            return f"trigger {name} is missing"
        if found.pop((table, name))[1:] != (_BEFORE_ANY_CHANGE, *_REFUSES):
            return f"trigger {name} is not as taxifare made it"
    others = _first(f"trigger {name} of {table} is not of taxifare" for table, name in found)
    return others or _disabled(connection) or _missing_constraint(connection)


def _disabled(connection: Connection) -> str | None:
    """Returns a trigger that is switched off, including those behind foreign keys."""
    off = connection.exec_driver_sql(
        "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE c.relnamespace = current_schema()::regnamespace AND t.tgenabled NOT IN ('O', 'A') ORDER BY 1, 2"
    ).all()
    return _first(f"trigger {name} of {table} is switched off" for table, name in off if table in METADATA.tables)


def _missing_constraint(connection: Connection) -> str | None:
    inspector = sa.inspect(connection)
    for table in METADATA.tables.values():
        keys = inspector.get_foreign_keys(table.name)
        found = {tuple(key["constrained_columns"]) for key in keys}
        found |= {tuple(key["column_names"]) for key in inspector.get_unique_constraints(table.name)}
        found |= {tuple(inspector.get_pk_constraint(table.name)["constrained_columns"])}
        checks = {check["name"] for check in inspector.get_check_constraints(table.name)}
        for constraint in table.constraints:
            if isinstance(constraint, sa.CheckConstraint):
                is_there, what = constraint.name in checks, constraint.name
            elif isinstance(constraint, sa.schema.ColumnCollectionConstraint):
                columns = tuple(column.name for column in constraint.columns)
                is_there, what = columns in found, constraint.name or ", ".join(columns)
            if not is_there:
                return f"constraint {what} of {table.name} is missing"
    return None


def _first(words: Iterable[str]) -> str | None:
    return min(words, default=None)
