"""Verification: whether the ledger is what was written into it, and what people were told it was.

It finds the traces of a change; it cannot prevent one, and whoever can write to everything – tables, this machine's
memory of what it told, and the chats that hold the messages – can hide it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from taxifare.approval.chain import Head, Link, Row, first_misfit, is_told
from taxifare.approval.comparisons import KEEPS_ITS_DIGEST
from taxifare.approval.errors import ApprovalError
from taxifare.approval.heads import ToldHead
from taxifare.approval.ledger import Entries, Ledger
from taxifare.approval.promises import broken_promise
from taxifare.approval.records import EvidenceUnreadableError, digest_of, read_evidence
from taxifare.approval.tables import ALARMS, COMPARISONS, METADATA, PROMOTIONS, REQUESTS, STANDING_REQUESTS
from taxifare.gate.evidence import Evidence
from taxifare.texts import counted

RowsByTable = Mapping[str, Mapping[str, Row]]


class TamperedError(ApprovalError):
    """The ledger is not what was written into it, or not what people were told; the message says where."""


@dataclass(frozen=True)
class Verified:
    """What was found in order.

    Attributes:
        entries: How many entries of each table are in the chain.
        evidence: How many pieces of evidence have the digest that they were shown under.
        told: How many of the heads that people were told are in the chain.
        head: Of the chain, None where nothing is recorded.
    """

    entries: Mapping[str, int]
    evidence: int
    told: int
    head: Head | None

    def __str__(self) -> str:
        """Returns it in words."""
        if self.head is None:
            return "nothing is recorded; triggers and keys are as they were made"
        of_each = ", ".join(counted(count, _called(table)) for table, count in self.entries.items() if count)
        fit = f"{counted(self.head.number, 'entries')} {'fits' if self.head.number == 1 else 'fit'} the chain"
        return (
            f"{fit} ({of_each}), foreign keys hold, each piece of evidence has its digest ({self.evidence}), triggers "
            f"and keys are as they were made, each head told is in the chain ({self.told}); its head is {self.head}"
        )


def _called(table: str) -> str:
    """Returns what the entries of a table are; rollbacks stand beside promotions."""
    return "production changes" if table == PROMOTIONS.name else table.replace("_", " ")


def verify(ledger: Ledger, told: Iterable[ToldHead], shown: Head | None = None) -> Verified:
    """Returns what was found in order, which is everything.

    Args:
        ledger: The ledger.
        told: The heads that this machine told.
        shown: A head that somebody read in a message.

    Raises:
        TamperedError: Something is not in order; it names the first such thing.
        LedgerError: The ledger cannot be opened.
    """
    with ledger.reading() as entries:
        return verified(entries, ledger, told, shown)


def verified(entries: Entries, ledger: Ledger, told: Iterable[ToldHead], shown: Head | None = None) -> Verified:
    """Returns, as `verify` does, what was found in order within a transaction."""
    try:
        links, rows = entries.links(), entries.rows()
        broken = broken_promise(entries.connection)
    # For an invalid time or text, or a damaged file, the drivers raise what they please.
    except (ValueError, TypeError, sa.exc.DBAPIError) as error:
        raise TamperedError(f"{ledger!r} holds something that taxifare did not write: {error}") from error
    told = list(told)
    evidence, others = _evidence(rows), (STANDING_REQUESTS.name, ALARMS.name)
    misfit = (
        first_misfit(links, rows)
        or _orphan(rows)
        or _wrong_digest(evidence)
        or next(filter(None, (_wrong_as_kept(table, rows[table]) for table in others)), None)
        or broken
        or _untold(links, told)
        or _unshown(links, shown)
    )
    if misfit is not None:
        raise TamperedError(f"{ledger!r}: {misfit}")
    counts = {table: len(of_table) for table, of_table in rows.items()}
    return Verified(
        counts,
        len(evidence) + sum(counts[table] for table in others),
        len(told) + (shown is not None),
        links[-1].head if links else None,
    )


def _orphan(rows: RowsByTable) -> str | None:
    """Returns a row whose foreign key leads nowhere."""
    for table in METADATA.tables.values():
        for constraint in table.foreign_key_constraints:
            columns = constraint.column_keys
            parents = [element.column for element in constraint.elements]
            of_parent = rows[parents[0].table.name].values()
            there = {tuple(row[column.name] for column in parents) for row in of_parent}
            for key, row in rows[table.name].items():
                reference = tuple(row[column] for column in columns)
                if None not in reference and reference not in there:
                    return f"{table.name} {key} refers to {reference} of {parents[0].table.name}, which is not there"
    return None


def _evidence(rows: RowsByTable) -> list[tuple[str, str, str]]:
    """Returns the evidence whose digest follows the rule of this release: what it is about, the digest, the JSON."""
    compared = [
        (f"{COMPARISONS.name} {key}", row["evidence_digest"], row["evidence"])
        for key, row in rows[COMPARISONS.name].items()
        if row["schema"] >= KEEPS_ITS_DIGEST
    ]
    known = {digest for _, digest, _ in compared}
    asked = [
        (f"{REQUESTS.name} {key}", row["evidence_digest"], row["evidence"])
        for key, row in rows[REQUESTS.name].items()
        if row["evidence_digest"] in known
    ]
    return compared + asked


def _wrong_digest(evidence: Sequence[tuple[str, str, str]]) -> str | None:
    """Returns evidence that does not have the digest under which it was shown."""
    digests: dict[str, str] = {}  # what was asked about is word for word what was compared
    for about, digest, as_json in evidence:
        try:
            found = digests.get(as_json) or read_evidence(Evidence, as_json, about).digest
        except EvidenceUnreadableError as error:
            return str(error)
        digests[as_json] = found
        if found != digest:
            return f"the evidence of {about} {_NOT_AS_SHOWN.format(digest[:12])}"
    return None


def _wrong_as_kept(table: str, asked: Mapping[str, Row]) -> str | None:
    """Returns the question about a standing approval, or the alarm, whose evidence is not as it was shown."""
    for key, row in asked.items():
        try:
            found = digest_of(row["evidence"])
        except ValueError as error:
            return f"the evidence of {table} {key} is no JSON: {error}"
        if found != row["evidence_digest"]:
            return f"the evidence of {table} {key} {_NOT_AS_SHOWN.format(row['evidence_digest'][:12])}"
    return None


_NOT_AS_SHOWN = "does not have the digest {} under which it was shown"


def _untold(links: Sequence[Link], told: Iterable[ToldHead]) -> str | None:
    """Returns, in words, a head that was told and is not in the chain."""
    for one in told:
        if not is_told(one.head, links):
            return (
                f"it lacks or differs from what was told on {one.told_at:%Y-%m-%d %H:%M} UTC ({one.message}: head "
                f"{one.head}): it was cut off, computed anew, or restored from an older backup. Restore the newer one; "
                'where that is lost: taxifare adopt --by YOU --reason "WHY"'
            )
    return None


def _unshown(links: Sequence[Link], shown: Head | None) -> str | None:
    if shown is None or is_told(shown, links):
        return None
    return (
        f"it lacks or differs from the message that shows head {shown}: it was cut off, computed anew, or restored "
        "from an older backup; or the message is of another ledger"
    )
