"""What makes a table of the ledger append-only in either database; for the steps after the first, which has its own."""

from alembic import op


def forbid_changes(table: str, *keys: str) -> None:
    """Ensures that the database refuses to change or delete rows of a table.

    Args:
        table: Its name.
        keys: Each key that is unique in it, columns separated by commas: SQLite's INSERT OR REPLACE deletes without
            firing the DELETE trigger, so it has to be stopped before it begins.
    """
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION taxifare_refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {change} of {table} refused'); END"
        )
    for number, key in enumerate(keys):
        new = ", ".join(f"NEW.{column}" for column in key.split(", "))
        op.execute(
            f"CREATE TRIGGER {table}_refuse_replace_{number} BEFORE INSERT ON {table} "  # noqa: S608 - names of ours
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE ({key}) = ({new})) "
            f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {table} ({key}) exists'); END"
        )
