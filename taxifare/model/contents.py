"""What a version is: its number, the MLflow run that registered it, and a digest over all its files – all three.

MLflow's store can be written by others, and a model is code that runs when it is loaded. So what a version was when it
was registered is kept elsewhere (`Contents`, in the ledger), and nothing is loaded whose files are not those.

Why a number is never given twice: docs/decisions.md, under model.
"""

from dataclasses import dataclass
from typing import Protocol

from taxifare.model.store import RegistryError


class NotOnRecordError(RegistryError):
    """A version of which nobody has recorded what it is: an earlier release registered it, or somebody else did."""


@dataclass(frozen=True)
class Content:
    """What a version is.

    Attributes:
        version: Its number, as text.
        run_id: The MLflow run that registered it.
        files_digest: SHA-256 over all its files, see `taxifare.digests.digest_of_files`.
    """

    version: str
    run_id: str
    files_digest: str


class Contents(Protocol):
    """The record of what versions were when they were registered, out of reach of whoever writes to MLflow."""

    def of(self, version: str) -> Content | None:
        """Returns what the version is, None where nobody has recorded it."""

    def record(self, content: Content) -> None:
        """Ensures that the version is on record; a number is recorded once, as one content."""
