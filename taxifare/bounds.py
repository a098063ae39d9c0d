"""Bounds of what comes from outside: how much of an answer is read, for how long, and how deep JSON may be nested.

The limits themselves stand where they are used, far above anything real.
"""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

DEEPEST = 64
"""How deep lists and objects in JSON may stand within each other; no answer that is used here goes beyond five."""


class TooMuchError(ValueError):
    """What arrives is more than could be meant."""


def within(chunks: Iterable[bytes], most_bytes: int, most_s: float | None = None) -> Iterator[bytes]:
    """Yields the chunks.

    Raises:
        TooMuchError: They are more bytes than that, or take longer.

    >>> list(within([b"ab", b"c"], 3))
    [b'ab', b'c']
    >>> list(within([b"ab", b"cd"], 3))
    Traceback (most recent call last):
    taxifare.bounds.TooMuchError: more than 3 bytes
    """
    received, began = 0, time.monotonic()
    for chunk in chunks:
        received += len(chunk)
        if received > most_bytes:
            raise TooMuchError(f"more than {most_bytes:,} bytes")
        if most_s is not None and time.monotonic() - began > most_s:
            raise TooMuchError(f"an answer that is not at its end after {most_s:,.0f} s")
        yield chunk


def beginning(chunks: Iterable[bytes], most_bytes: int) -> bytes:
    """Returns the first bytes and reads no more than the chunk in which they end."""
    begun = b""
    for chunk in chunks:
        begun += chunk
        if len(begun) >= most_bytes:
            break
    return begun[:most_bytes]


def parsed_json(content: bytes) -> Any:
    """Returns what JSON says.

    Raises:
        TooMuchError: It is nested deeper than `DEEPEST`.
        ValueError: It is no JSON.

    >>> parsed_json(b"[" * 100_000 + b"]" * 100_000)
    Traceback (most recent call last):
    taxifare.bounds.TooMuchError: JSON that is nested deeper than 64
    """
    too_deep = TooMuchError(f"JSON that is nested deeper than {DEEPEST}")
    try:
        found = json.loads(content)
    except RecursionError:
        raise too_deep from None
    level = [found]
    for _ in range(DEEPEST):
        level = [value for values in map(_within, level) for value in values]
        if not level:
            return found
    raise too_deep


def _within(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
