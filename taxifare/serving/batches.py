"""Batches: files of rides priced by the model in force, once each; answers are written whole, beside a receipt.

The receipt, `rides.csv.receipt.json` beside `rides.csv`, says which promotion priced which edition of the file. It is
written last: a file without one, or changed since, still has to be priced, whatever was killed in between.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import msgspec
from upath import UPath

from taxifare.serving.bundle import Bundle
from taxifare.serving.files import (
    KINDS,
    OURS,
    Form,
    RideFileError,
    Scored,
    ending_of,
    kind_of,
    packing,
    score,
    unpacking,
)
from taxifare.serving.in_force import InForce
from taxifare.whole_files import whole_file

ANSWERS = ".quotes"
"""Comes before the ending in the name of a file of answers."""

_THREADS = 2

_RECEIPT = ".receipt.json"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What priced a file.

    Attributes:
        edition: Of the file, see `edition_of`.
        version: Of the model.
        sequence: Of its promotion.
        rides: Rows of the file.
        refused: How many of them are not rides that can be priced.
        examples: The first of those: row and reason.
        scored_at: When, UTC.
        fault: Why it is not a file of rides, None if it is one.
        remark: How its times were taken where they can be taken in another way too.
    """

    edition: str
    version: str
    sequence: int
    rides: int
    refused: int
    examples: tuple[tuple[int, str], ...]
    scored_at: datetime
    fault: str | None = None
    remark: str | None = None


def score_file(rides: UPath, answers: UPath, bundle: Bundle, form: Form = OURS) -> Scored:
    """Returns the result of pricing a file of rides; its answers are in place, whole, or unchanged if it fails.

    Raises:
        RideFileError: It is not a file of rides.
        FileNotFoundError: It does not exist.
    """
    with (
        whole_file(answers) as unfinished,
        rides.open("rb") as stored,
        unpacking(stored, rides.name) as read,
        unfinished.open("wb") as kept,
        packing(kept, answers.name) as written,
    ):
        return score(read, written, kind_of(rides.name), bundle, form, threads=_THREADS)


def answers_of(rides: UPath) -> UPath:
    """Returns where the answers to a file of rides are.

    >>> answers_of(UPath("inbox/march.csv")).name
    'march.quotes.csv'

    Raises:
        RideFileError: It has the name of no file of rides.
    """
    place = len(rides.name) - len(ending_of(rides.name))
    return rides.with_name(f"{rides.name[:place]}{ANSWERS}{rides.name[place:]}")


def edition_of(rides: UPath) -> str:
    """Returns what tells this content of a file from another: its size, and the time or tag of its last change.

    Raises:
        FileNotFoundError: It does not exist, or is a folder.
    """
    facts = rides.fs.info(rides.path)
    if facts["type"] != "file":
        raise FileNotFoundError(f"{rides.name}: expected a file, received a {facts['type']}")
    stored = next((facts[name] for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified") if name in facts), "")
    return f"{facts['size']}:{stored}"


def waiting(inbox: UPath) -> dict[str, str]:
    """Returns the files of an inbox that still have to be priced: their editions by name.

    Files whose name begins with a dot are still being written and are left alone.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    names = {path.name for path in inbox.iterdir()}
    found = {}
    for name in sorted(filter(_is_of_rides, names)):
        with suppress(FileNotFoundError):  # removed in the meantime, or a folder
            edition = edition_of(inbox / name)
            if not _is_done(inbox / name, edition, names):
                found[name] = edition
    return found


def priced_files(inbox: UPath) -> Iterator[tuple[UPath, Receipt]]:
    """Yields the files of answers in an inbox with their receipts, by name; files without rides have no answers.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    names = {path.name for path in inbox.iterdir()}
    for name in sorted(filter(_is_of_rides, names)):
        receipt = _found(inbox / name) if _receipt_of(inbox / name).name in names else None
        if receipt is not None and receipt.fault is None and answers_of(inbox / name).name in names:
            yield answers_of(inbox / name), receipt


def score_in_inbox(rides: UPath, promotion: InForce, bundle: Bundle, now: datetime, form: Form = OURS) -> Receipt:
    """Returns the receipt of a file, which is priced now, or holds no rides, as the receipt then says.

    Args:
        rides: The file.
        promotion: The promotion in force.
        bundle: Its model.
        now: When.
        form: How the file is written.

    Raises:
        FileNotFoundError: It no longer exists.
    """
    edition = edition_of(rides)
    try:
        scored, fault = score_file(rides, answers_of(rides), bundle, form), None
    except RideFileError as error:
        scored, fault = Scored(0, 0, ()), str(error)
        # Answers to a previous file of this name are not answers to this one.
        answers_of(rides).unlink(missing_ok=True)
    receipt = Receipt(
        edition=edition,
        version=bundle.manifest.version,
        sequence=promotion.sequence,
        rides=scored.rides,
        refused=scored.refused,
        examples=scored.examples,
        scored_at=now,
        fault=fault,
        remark=scored.offsets.remark(bundle.manifest.city_facts.name),
    )
    with whole_file(_receipt_of(rides)) as unfinished:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(receipt), indent=1))
    return receipt


def _is_of_rides(name: str) -> bool:
    is_answers = any(name.lower().endswith(f"{ANSWERS}{ending}") for ending in KINDS)
    return not name.startswith(".") and name.lower().endswith(tuple(KINDS)) and not is_answers


def _receipt_of(rides: UPath) -> UPath:
    return rides.with_name(f"{rides.name}{_RECEIPT}")


def _is_done(rides: UPath, edition: str, names: set[str]) -> bool:
    if _receipt_of(rides).name not in names:
        return False
    receipt = _found(rides)
    if receipt is None:
        return False
    return receipt.edition == edition and (receipt.fault is not None or answers_of(rides).name in names)


def _found(rides: UPath) -> Receipt | None:
    """Returns the receipt of a file, None where it cannot be read."""
    try:
        return msgspec.json.decode(_receipt_of(rides).read_bytes(), type=Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
