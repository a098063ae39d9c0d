"""Heads of the chain that people were told, kept outside the ledger, where recomputing the chain cannot change them.

Each machine remembers in its TAXIFARE_HOME what it has delivered. Whoever can write to both the ledger and that folder
can change both; then only the messages themselves remain: `taxifare history --verify --head`.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from taxifare.approval.chain import Head
from taxifare.approval.ledger import Entries, LedgerError
from taxifare.secrets import private_folder
from taxifare.whole_files import whole_file

FILE = "ledger-heads.jsonl"


@dataclass(frozen=True)
class ToldHead:
    """A head in a message that was delivered.

    Attributes:
        head: The head.
        message: Key of the message.
        told_at: When it was delivered.
        key: Fingerprint of the key of its tokens, see `Tokens.fingerprint`; None in messages of an earlier release.
    """

    head: Head
    message: str
    told_at: datetime
    key: str | None = None

    def is_about(self, key: str) -> bool:
        """Whether the message, or a reminder of it, has that key."""
        return self.message.startswith((f"{key} to ", f"{key}, "))


class ToldHeads:
    """The heads of one ledger that this machine has told.

    Args:
        home: The folder of all state.
        ledger: Which ledger, see `Ledger.place`.

    Attributes:
        path: The file, a line a message.
    """

    def __init__(self, home: Path, ledger: str) -> None:
        self.path = home / FILE
        # A home that was moved, with the ledger in it, is the same.
        self._ledger = ledger.replace(str(home), "TAXIFARE_HOME")

    def remember(self, told: ToldHead) -> None:
        """Ensures that the head is remembered, after all that were told before."""
        line = {
            "ledger": self._ledger,
            "head": str(told.head),
            "message": told.message,
            "told_at": told.told_at.isoformat(),
            "key": told.key,
        }
        self._write([*self._lines(), json.dumps(line)])

    def read(self) -> list[ToldHead]:
        """Returns what was told of the ledger, oldest first, without what was given up.

        Raises:
            LedgerError: The file holds something else.
        """
        return [told for line in self._lines() if (told := self._told(line)) is not None]

    def missing(self, entries: Entries) -> ToldHead | None:
        """Returns what was told last if the ledger does not have it, None if the ledger is as people know it.

        Raises:
            LedgerError: The file holds something else.
        """
        last = next(filter(None, map(self._told, reversed(self._lines()))), None)
        return None if last is None or entries.has_head(last.head) else last

    def give_up(self, entries: Entries, why: str) -> None:
        """Ensures that heads which the ledger does not have are no longer looked for; they stay in the file.

        Args:
            entries: The ledger's.
            why: For whoever reads the file.
        """
        lines = self._lines()
        for place, line in enumerate(lines):
            told = self._told(line)
            if told is not None and not entries.has_head(told.head):
                lines[place] = json.dumps(self._parsed(line) | {"given_up": why})
        self._write(lines)

    def _lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    def _write(self, lines: list[str]) -> None:
        private_folder(self.path.parent)
        with whole_file(self.path) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in lines))

    def _told(self, line: str) -> ToldHead | None:
        """Returns what a line says was told, None if it is of another ledger, or was given up."""
        parsed = self._parsed(line)
        try:
            told_at = datetime.fromisoformat(parsed["told_at"])
            told = ToldHead(Head.parse(parsed["head"]), parsed["message"], told_at, parsed.get("key"))
            return told if parsed["ledger"] == self._ledger and "given_up" not in parsed else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def _parsed(self, line: str) -> dict[str, Any]:
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> LedgerError:
        return LedgerError(
            f"{self.path} is not as it was written: expected a head of the ledger in each line ({error}). Keep a copy, "
            "find out who changed it, then take the line out"
        )
