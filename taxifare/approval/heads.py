"""Heads of the chain that people were told of, kept outside the ledger: what a chain computed anew cannot change.

Each machine remembers in its TAXIFARE_HOME what it has delivered. Whoever can write to both the ledger and that folder
can change both; then the messages themselves are what remains: `taxifare history --verify --head`.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from taxifare.approval.chain import Head
from taxifare.approval.ledger import LedgerError
from taxifare.secrets import private_folder
from taxifare.whole_files import whole_file

FILE = "ledger-heads.jsonl"


@dataclass(frozen=True)
class ToldHead:
    """A head that stood in a message which arrived.

    Attributes:
        head: The head.
        message: Key of the message.
        told_at: When it was delivered.
    """

    head: Head
    message: str
    told_at: datetime


class ToldHeads:
    """What this machine has told of one ledger.

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
        }
        private_folder(self.path.parent)
        before = self.path.read_text() if self.path.exists() else ""
        with whole_file(self.path) as unfinished:
            unfinished.write_text(f"{before}{json.dumps(line)}\n")

    def read(self) -> list[ToldHead]:
        """Returns what was told of the ledger, oldest first.

        Raises:
            LedgerError: The file holds something else.
        """
        if not self.path.exists():
            return []
        try:
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
            return [
                ToldHead(Head.parse(line["head"]), line["message"], datetime.fromisoformat(line["told_at"]))
                for line in lines
                if line["ledger"] == self._ledger
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{self.path} is not as it was written: expected a head of the ledger in each line ({error}). Keep a "
                "copy, find out who changed it, then take the line out"
            ) from error
