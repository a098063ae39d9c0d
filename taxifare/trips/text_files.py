"""What is wrong with a text that should be CSV with trips or rides, in the same words wherever one is read."""

import codecs
import re
from collections.abc import Collection, Iterable, Mapping

from taxifare.texts import nearest

NUMBERS_AS_IN = "numbers are written as in 12.5, with a point before decimals"


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
    if plain.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "expected CSV in UTF-8, received UTF-16"
    header = plain[: 2**20].partition(b"\n")[0].rstrip(b"\r")
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


def meant(missing: Iterable[str], present: Iterable[object], known: Collection[str]) -> Mapping[str, str]:
    """Returns which columns that are there may be those that are missing.

    >>> meant(["pickup_longitude"], ["longitud_pickup", "fare_amount"], ["pickup_longitude", "fare_amount"])
    {'pickup_longitude': 'longitud_pickup'}

    Args:
        missing: Columns that are wanted.
        present: The columns that are there.
        known: Columns that have a meaning of their own, and so are not meant for another.
    """
    free = unknown(present, known)
    return {name: near for name in missing if (near := nearest(name, free)) is not None}


def unknown(present: Iterable[object], known: Collection[str]) -> list[str]:
    """Returns the columns that mean nothing known, and are not called so by a blank around the name alone."""
    return [name for name in map(str, present) if name not in known and name == name.strip()]
