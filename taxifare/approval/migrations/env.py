"""Runs the missing steps on the connection, and in the transaction, that `taxifare.approval.ledger` hands over."""

from alembic import context

from taxifare.approval.migrations.roles import grant
from taxifare.approval.tables import METADATA

# Alembic runs this file; tools that look at every module, pytest among them, merely import it.
if hasattr(context, "config"):
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
        if connection.dialect.name == "postgresql":
            grant(connection)
