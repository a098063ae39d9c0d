"""What is wrong with a text that should be CSV with trips or rides, in the same words wherever one is read."""

import codecs
import re
from collections.abc import Collection, Iterable, Sequence

from taxifare.texts import nearest, same_words

NUMBERS_AS_IN = "numbers are written as in 12.5, with a point before decimals"


_INSTEAD = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "a gzip file: end its name in .csv.gz",
    b"PK\x03\x04": "a zip archive, which spreadsheets are, too: unpack it, or export it as CSV",
    b"PAR1": "a parquet file: end its name in .parquet",
    b"%PDF": "a PDF",
}
"""What files begin with that are no CSV, whatever their names say."""


def instead_of_csv(plain: bytes) -> str | None:
    r"""Returns what a text is instead of CSV in UTF-8 with commas between fields; None where nothing speaks for that.

    >>> instead_of_csv(b"start;from_lon;price\n2024-02-01 10:00:00;55,5;12,50\n")
    "expected fields separated by commas, received the header 'start;from_lon;price', separated by ';': write it with
    commas between fields, and points before decimals"
    >>> instead_of_csv("start,price\n".encode("utf-16"))
    'expected CSV in UTF-8, received UTF-16'

    Args:
        plain: The text, or its beginning with the whole header.
    """
    for magic, received in _INSTEAD.items():
        if plain.startswith(magic):
            return f"expected CSV in UTF-8, received {received}"
    header = plain[: 2**20].partition(b"\n")[0].rstrip(b"\r")
    if b"\0" in header:
        return "expected CSV in UTF-8, received UTF-16, or no text at all"
    separator = max(b";", b"\t", b"|", key=header.count)
    if header.count(separator) <= header.count(b","):
        return None
    shown = header[:200].decode("utf-8-sig", "backslashreplace")
    return (
        f"expected fields separated by commas, received the header {shown!r}, separated by {separator.decode()!r}: "
        "write it with commas between fields, and points before decimals"
    )


def too_many_fields(said: str) -> str:
    """Returns what to do where Arrow says that a line has more fields than the header; nothing where it does not.

    >>> too_many_fields("CSV parse error: Expected 7 columns, got 8: 55,5,")
    ': decimals have points, and a field with a comma in it stands in quotes'
    """
    counts = re.search(r"Expected ([0-9]+) columns, got ([0-9]+)", said)
    is_more = counts is not None and int(counts[2]) > int(counts[1])
    return ": decimals have points, and a field with a comma in it stands in quotes" if is_more else ""


OWN_NAMES = "if your columns have other names, map them in TRIP_COLUMNS, as in fare_amount=price"


def mapping(missing: Iterable[str], present: Iterable[object], known: Sequence[str]) -> str | None:
    """Returns the line TRIP_COLUMNS=… that maps columns that are there to those that they may be; None if none may be.

    A column that is wanted may be any that is called much like it; every other one of the trip table only one that
    has the same words in its name. None is meant twice.

    >>> known = ["key", "pickup_longitude", "dropoff_longitude", "fare_amount"]
    >>> mapping(["pickup_longitude", "dropoff_longitude"], ["Key", "longitud_pickup", "fare_amount"], known)
    'TRIP_COLUMNS=key=Key,pickup_longitude=longitud_pickup'

    Args:
        missing: Columns that are wanted and not there.
        present: The columns that are there.
        known: The columns of the trip table, in its order; they are not meant for others.
    """
    present = list(present)
    free, found, wanted = unknown(present, known), dict[str, str](), list(missing)
    for is_meant in (same_words, lambda name, free: nearest(name, free) if name in wanted else None):
        for name in known:
            if name not in present and name not in found and (theirs := is_meant(name, free)) is not None:
                found[name] = theirs
                free.remove(theirs)
    pairs = ",".join(f"{name}={found[name]}" for name in known if name in found)
    return f"TRIP_COLUMNS={pairs}" if pairs else None


def unknown(present: Iterable[object], known: Collection[str]) -> list[str]:
    """Returns the columns that mean nothing known, and are not called so by a blank around the name alone."""
    return [name for name in map(str, present) if name not in known and name == name.strip()]
