"""The chain: every entry of the ledger is sealed together with all before it, so that a change of the past shows.

A seal is a SHA-256 over the seal before it, the entry's table and the entry's row. Whoever owns the tables can drop
their triggers and change a row, but then the row no longer fits its seal; and a chain that was recomputed or cut off no
longer has the head that people were told in messages.

What the chain can and cannot show: docs/decisions.md, under approval.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Row = Mapping[str, Any]

HEAD_DIGITS = 16

# Made once: thousands of rows are sealed in one go.
_sorted_json = json.JSONEncoder(sort_keys=True, default=repr).encode
_readable_json = json.JSONEncoder(ensure_ascii=False, default=repr).encode


@dataclass(frozen=True)
class Head:
    """The number of the chain's last link at some moment, and the first digits of its seal.

    >>> str(Head(214, "9f3c0a1b2c3d4e5f"))
    '214:9f3c0a1b2c3d4e5f'
    """

    number: int
    digits: str

    def __str__(self) -> str:
        """Returns it as messages show it."""
        return f"{self.number}:{self.digits}"

    @classmethod
    def parse(cls, written: str) -> "Head":
        """Returns a head as a message shows it; a few digits are enough.

        Raises:
            ValueError: It is none.

        >>> Head.parse("214:9F3C0A1B…")
        Head(number=214, digits='9f3c0a1b')
        """
        found = re.fullmatch(rf"([1-9][0-9]*):([0-9a-f]{{8,{HEAD_DIGITS}}})…?", written.strip().lower())
        if found is None:
            raise ValueError(
                "a head is a number, a colon and 8 to 16 digits of its seal, as the message shows it: "
                f"expected 214:9f3c0a1b2c3d4e5f, received {written!r}"
            )
        return cls(int(found[1]), found[2])


@dataclass(frozen=True)
class Link:
    """A link of the chain.

    Attributes:
        number: 1 for the first entry; there are no gaps.
        entry_table: The entry's table.
        entry_key: Its primary key, see `key_of`.
        seal: What `seal` returned.
    """

    number: int
    entry_table: str
    entry_key: str
    seal: str

    @property
    def head(self) -> Head:
        """The head while this is the last link."""
        return Head(self.number, self.seal[:HEAD_DIGITS])


def seal(before: str, table: str, row: Row) -> str:
    """Returns the seal of a row; it is the same on every database, and must stay the same in every release.

    Empty columns are left out, so that a table may get further columns later.

    Args:
        before: The seal before it, empty before the first.
        table: The row's table.
        row: All its columns.

    >>> seal("", "outcomes", {"request_id": "a", "by": None}) == seal("", "outcomes", {"request_id": "a"})
    True
    """
    kept = {column: _plain(value) for column, value in row.items() if value is not None}
    return hashlib.sha256(_sorted_json([before, table, kept]).encode()).hexdigest()


def key_of(row: Row, columns: Sequence[str]) -> str:
    """Returns the primary key of a row as one text.

    >>> key_of({"request_id": "a", "channel": "log", "reminder": 0, "delivered_at": None}, ["request_id", "reminder"])
    '["a", 0]'
    """
    return _readable_json([_plain(row[column]) for column in columns])


def first_misfit(links: Sequence[Link], rows: Mapping[str, Mapping[str, Row]]) -> str | None:
    """Returns what is wrong with the first entry that does not fit, in words; None where all of them do.

    Args:
        links: The chain, in the order of its numbers.
        rows: Of each table the rows by their keys.
    """
    before, sealed = "", set()
    for number, link in enumerate(links, 1):
        if link.number != number:
            return f"entry {number} of the chain is missing, the next one is {link.number}"
        table, key = link.entry_table, link.entry_key
        row = rows.get(table, {}).get(key)
        if row is None:
            return f"entry {number} of the chain is about {table} {key}, which is not there: it was deleted"
        if seal(before, table, row) != link.seal:
            return (
                f"entry {number} of the chain does not fit {table} {key}: that row, or the chain up to it, was changed "
                "after it was written"
            )
        before = link.seal
        sealed.add((table, key))
    strays = (f"{table} {key}" for table, of_table in rows.items() for key in of_table if (table, key) not in sealed)
    stray = next(strays, None)
    return None if stray is None else f"{stray} is in no entry of the chain: something else than taxifare added it"


def is_told(head: Head, links: Sequence[Link]) -> bool:
    """Returns whether the chain still has a head that somebody was told."""
    return head.number <= len(links) and links[head.number - 1].seal.startswith(head.digits)


def _plain(value: object) -> object:
    """Returns a value as JSON can hold it: moments in UTC; one without a zone is in UTC already."""
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.isoformat(timespec="microseconds")
    return value
