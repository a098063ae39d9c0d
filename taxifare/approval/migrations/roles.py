"""What the application may do in PostgreSQL where the tables belong to another role: add entries and read them.

An owner can drop triggers and rewrite what they protect; the application's role, which runs every day, cannot.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from taxifare.approval.tables import METADATA

APPLICATION_ROLE = "taxifare_application"
"""Whoever has to write entries is made a member of it; where it does not exist, only the owner can use the ledger."""


def has_application_role(connection: Connection) -> bool:
    """Returns whether the server knows the application's role."""
    known = sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role")
    return connection.execute(known, {"role": APPLICATION_ROLE}).scalar() is not None


def granting(connection: Connection, schema: str) -> tuple[str, ...]:
    """Returns what lets the application's role, if there is one, work in a schema whose tables no record is in."""
    if not has_application_role(connection):
        return ()
    return (
        f"GRANT USAGE ON SCHEMA {schema} TO {APPLICATION_ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {APPLICATION_ROLE}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {APPLICATION_ROLE}",
    )


def grant(connection: Connection) -> None:
    """Ensures that the application's role, if there is one, can add entries and read them, and nothing more."""
    if not has_application_role(connection):
        return
    schema = connection.execute(sa.text("SELECT quote_ident(current_schema())")).scalar()
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {APPLICATION_ROLE}")
    connection.exec_driver_sql(f"GRANT SELECT ON alembic_version TO {APPLICATION_ROLE}")
    there = set(sa.inspect(connection).get_table_names())
    for table in METADATA.tables.values():
        if table.name not in there:
            continue
        connection.exec_driver_sql(f"GRANT SELECT, INSERT ON {table.name} TO {APPLICATION_ROLE}")
        if (numbered := table.autoincrement_column) is not None:
            sequence = f"{table.name}_{numbered.name}_seq"
            connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE {sequence} TO {APPLICATION_ROLE}")
