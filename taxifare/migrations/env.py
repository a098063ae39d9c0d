"""Runs the missing steps on the connection, and in the transaction, that `taxifare.ledger` hands over."""

from alembic import context

from taxifare.ledger import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
