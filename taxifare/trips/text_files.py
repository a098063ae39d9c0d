"""What is wrong with a text that should be CSV with trips or rides, in the same words wherever one is read."""

import codecs
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from taxifare.texts import nearest, same_words
from taxifare.trips.columns import COLUMN_NAMES

NUMBERS_AS_IN = "numbers are written as in 12.5, with a point before decimals"


Wanted = Literal["CSV", "gzip", "parquet"]

_EXPECTED: Mapping[Wanted, str] = {"CSV": "CSV in UTF-8", "gzip": "gzip", "parquet": "parquet"}

_BEGINS: Mapping[Wanted, bytes] = {"gzip": b"\x1f\x8b", "parquet": b"PAR1"}

_INSTEAD = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    _BEGINS["gzip"]: "a gzip file: unpack it, or end its name in .csv.gz",
    b"PK\x03\x04": "a zip archive, which spreadsheets are, too: unpack it, or export it as CSV",
    _BEGINS["parquet"]: "a parquet file: end its name in .parquet, and do not pack it",
    b"%PDF": "a PDF",
    b"[{": "JSON",
    b'{"': "JSON",
}
"""What files begin with that are something else, whatever their names say."""

BEGINNING_BYTES = 2**13
"""So much of a file says what it is, the whole header of a CSV with it."""


def is_page(content: bytes) -> bool:
    r"""Returns whether content that should be trips begins as web pages and errors of buckets do.

    >>> is_page(b"\n<!DOCTYPE html><html>"), is_page(b"key,pickup_datetime")
    (True, False)
    """
    return content[:1024].lstrip()[:20].lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def instead_of(wanted: Wanted, beginning: bytes) -> str | None:
    r"""Returns what a file is instead of what its name says; None where nothing speaks for that.

    Of CSV it is also told what it is in place of UTF-8 with commas between fields.

    >>> instead_of("CSV", b"start;from_lon;price\n2024-02-01 10:00:00;55,5;12,50\n")
    "expected fields separated by commas, received the header 'start;from_lon;price', separated by ';': write it with
    commas between fields, and points before decimals"
    >>> instead_of("CSV", "start,price\n".encode("utf-16"))
    'expected CSV in UTF-8, received UTF-16'
    >>> instead_of("CSV", "départ,prix\n".encode("latin-1"))
    "expected CSV in UTF-8, received the byte 0xe9 after 'd': write it in UTF-8"
    >>> instead_of("parquet", b"start,price\n2024-02-01 10:00:00,12.50\n")
    "expected parquet, received a text that begins 'start,price': if it is CSV, end its name in .csv"

    Args:
        wanted: What its name says.
        beginning: The file, or its first `BEGINNING_BYTES`.
    """
    begins = _BEGINS.get(wanted)
    if begins is not None and beginning.startswith(begins):
        return None
    expected, received = _EXPECTED[wanted], _recognized(beginning)
    if received is None and begins is not None:
        received = _text(beginning)
    if received is not None:
        return f"expected {expected}, received {received}"
    return _instead_of_text(beginning) if begins is None else None


def _recognized(beginning: bytes) -> str | None:
    """Returns what a file is that says so in its first bytes."""
    if is_page(beginning):
        return f"a web page that begins {_shown(beginning)}"
    return next((received for magic, received in _INSTEAD.items() if beginning.startswith(magic)), None)


def _text(beginning: bytes) -> str | None:
    """Returns that a file is a text, None where it is none."""
    some = beginning[:BEGINNING_BYTES]
    if not some or b"\0" in some or b"\n" not in some:
        return None
    return f"a text that begins {_shown(some)}: if it is CSV, end its name in .csv"


def _shown(beginning: bytes) -> str:
    return repr(beginning.lstrip()[:40].partition(b"\n")[0].rstrip(b"\r").decode("ascii", "backslashreplace"))


def _instead_of_text(beginning: bytes) -> str | None:
    """Returns in what a text is no CSV in UTF-8 with commas between fields."""
    header = beginning[: 2**20].partition(b"\n")[0].rstrip(b"\r")
    if b"\0" in header:
        return "expected CSV in UTF-8, received UTF-16, or no text at all"
    if b"\r" in header:
        return "expected lines that end with LF or CRLF, received lines that end with CR alone"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning[:BEGINNING_BYTES])  # it may end within a character
    except UnicodeDecodeError as error:
        return f"expected CSV in UTF-8, {undecoded(error)}: write it in UTF-8"
    separator = max(b";", b"\t", b"|", key=header.count)
    if header.count(separator) <= header.count(b","):
        return None
    shown = header[:200].decode("utf-8-sig", "backslashreplace")
    return (
        f"expected fields separated by commas, received the header {shown!r}, separated by {separator.decode()!r}: "
        "write it with commas between fields, and points before decimals"
    )


def undecoded(error: UnicodeDecodeError) -> str:
    """Returns which byte a text has that is none of UTF-8, and what stands before it."""
    before = error.object[max(0, error.start - 20) : error.start].decode("ascii", "backslashreplace")
    return f"received the byte {error.object[error.start]:#x} after {before!r}"


def way_out(said: str) -> str:
    """Returns what to do about what Arrow says of a text; nothing where that is not known.

    >>> way_out("CSV parse error: Expected 7 columns, got 8: 55,5,")
    ': decimals have points, and a field with a comma in it stands in quotes'
    >>> way_out("CSV conversion error to string: invalid UTF8 data")
    ': write it in UTF-8'
    """
    counts = re.search(r"Expected ([0-9]+) columns, got ([0-9]+)", said)
    if counts is not None and int(counts[2]) > int(counts[1]):
        return ": decimals have points, and a field with a comma in it stands in quotes"
    return ": write it in UTF-8" if "invalid UTF8" in said else ""


def as_named(name: object) -> str:
    """Returns a column's name for a message; the names that pandas gives to an index, or to none, say so.

    >>> as_named("tip"), as_named(""), as_named("__index_level_0__")
    ('tip', "'' (an index? write without it)", "'__index_level_0__' (an index? write without it)")
    >>> as_named(" key")
    "' key' (write without blanks around it)"
    """
    text = str(name)
    if text.strip() and text != text.strip():
        return f"{text!r} (write without blanks around it)"
    is_index = not text.strip() or text.startswith(("__index_level_", "Unnamed: "))
    return f"{text!r} (an index? write without it)" if is_index else text


def own_names(missing: Sequence[str], present: Iterable[object], in_force: Mapping[str, str]) -> str | None:
    """Returns how columns that are there may be those that are missing, as TRIP_COLUMNS says it; None if none may be.

    >>> own_names(["pickup_longitude"], ["longitud_pickup", "price"], {"fare_amount": "price"})
    'did you mean TRIP_COLUMNS=fare_amount=price,pickup_longitude=longitud_pickup?'
    >>> own_names(["pickup_datetime"], ["tpep_pickup_datetime", "tpep_dropoff_datetime"], {})
    'did you mean TRIP_COLUMNS=pickup_datetime=tpep_pickup_datetime,dropoff_datetime=tpep_dropoff_datetime?'
    >>> own_names(["pickup_longitude"], ["start", "price"], {"fare_amount": "price"})
    'if other columns have other names, too, add them, as in TRIP_COLUMNS=fare_amount=price,pickup_longitude=start'
    >>> own_names(["pickup_longitude"], ["start"], {})
    'if your columns have other names, map them in TRIP_COLUMNS, as in fare_amount=price'
    >>> own_names(["pickup_longitude"], ["fare_amount"], {})

    Args:
        missing: Columns that are wanted and not there, by our names.
        present: The columns that are there, by their names.
        in_force: What TRIP_COLUMNS says.
    """
    free = [name for name in map(str, present) if name not in in_force.values()]
    kept = {ours: theirs for ours, theirs in in_force.items() if ours not in missing}
    known = [name for name in COLUMN_NAMES if name not in kept]
    if meant := _mapping(missing, free, known):
        return f"did you mean TRIP_COLUMNS={_pairs(kept | meant)}?"
    if not missing or not (others := _unknown(free, known)):
        return None
    if not kept:
        return "if your columns have other names, map them in TRIP_COLUMNS, as in fare_amount=price"
    example = _pairs(kept | {missing[0]: others[0]})
    return f"if other columns have other names, too, add them, as in TRIP_COLUMNS={example}"


def _pairs(names: Mapping[str, str]) -> str:
    return ",".join(f"{ours}={theirs}" for ours, theirs in names.items())


def _mapping(missing: Iterable[str], present: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Returns which columns that are there may be which of the trip table, by our names.

    A column that is wanted may be any that is called much like it; every other one of the trip table only one that
    has the same words in its name. Where something is wanted, so are drop-off times, for TARGET=duration. None is meant
    twice.

    >>> known = ["key", "pickup_longitude", "dropoff_longitude", "fare_amount"]
    >>> _mapping(["pickup_longitude", "dropoff_longitude"], ["Key", "longitud_pickup", "fare_amount"], known)
    {'key': 'Key', 'pickup_longitude': 'longitud_pickup'}

    Args:
        missing: Columns that are wanted and not there.
        present: The columns that are there.
        known: The columns of the trip table, in its order; they are not meant for others.
    """
    free, found, wanted = _unknown(present, known), dict[str, str](), list(missing)
    wanted += ["dropoff_datetime"] if wanted else []
    for is_meant in (same_words, lambda name, free: nearest(name, free) if name in wanted else None):
        for name in known:
            if name not in present and name not in found and (theirs := is_meant(name, free)) is not None:
                found[name] = theirs
                free.remove(theirs)
    return {name: found[name] for name in known if name in found}


def _unknown(present: Iterable[object], known: Collection[str]) -> list[str]:
    """Returns the columns that mean nothing known, and are not called so by a blank around the name alone.

    What TRIP_COLUMNS cannot name is not among them: it has commas between names, and `#` begins a comment.
    """
    names = [str(name) for name in present if not {",", "#"} & set(str(name))]
    return [name for name in names if name not in known and name == name.strip()]
