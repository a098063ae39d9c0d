"""Rows of a database as lines of JSON, and back: what SQLite had PostgreSQL takes, and the other way round."""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping


def lines_of(connection: Connection, tables: Iterable[sa.Table]) -> Iterator[str]:
    """Yields every row, a line each: the table's name and its columns; table by table, in the order of primary keys."""
    for table in tables:
        for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings():
            yield line_of(table.name, row)


def line_of(table: str, row: Mapping[str, Any] | RowMapping) -> str:
    """Returns the line of a row, see `parsed`."""
    return json.dumps([table, dict(row)], default=_written)


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """Returns the table's name and the row in a line.

    >>> parsed('["outcomes", {"state": "void", "at": {"moment": "2015-02-01T09:00:00+00:00"}}]')[1]["at"].year
    2015

    Raises:
        ValueError: It is no such line.
    """
    table, row = json.loads(line)
    return table, {column: _read(value) for column, value in row.items()}


def put(connection: Connection, tables: Mapping[str, sa.Table], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Ensures that the rows are in their tables, and that what numbers them goes on behind the last.

    Args:
        connection: In a transaction.
        tables: By their names.
        rows: The table of each and its columns, those that others refer to first.
    """
    filled = set()
    for table, row in rows:
        connection.execute(tables[table].insert(), dict(row))
        filled.add(table)
    if connection.dialect.name == "postgresql":
        for table in sorted(filled):
            _count_on(connection, tables[table])


def _count_on(connection: Connection, table: sa.Table) -> None:
    """Ensures that PostgreSQL gives the next row a number that none has; SQLite does by itself."""
    for column in table.primary_key:
        sequence = connection.execute(
            sa.select(sa.func.pg_get_serial_sequence(table.name, column.name))
        ).scalar_one_or_none()
        if sequence is not None:
            connection.execute(sa.select(sa.func.setval(sequence, sa.select(sa.func.max(column)).scalar_subquery())))


def _written(value: object) -> Mapping[str, str]:
    if isinstance(value, datetime):
        return {"moment": value.isoformat()}
    if isinstance(value, bytes):
        return {"bytes": b64encode(value).decode()}
    raise TypeError(f"expected what a row may hold, received {type(value).__name__}")


def _read(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, written),) = value.items()
    return datetime.fromisoformat(written) if kind == "moment" else b64decode(written)
