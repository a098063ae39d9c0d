"""Addresses at which processes listen: one that the system refuses is told alike by all of them, with exit code 1.

An address that is none is another matter: it is wrong as it is written, and ends with 2 before anything is tried.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from taxifare.errors import ToldError


class AddressError(ToldError, RuntimeError):
    """Nobody can listen at an address now: somebody else does, or this machine has no such address."""


@contextmanager
def listening_at(address: str, way_out: str) -> Iterator[None]:
    """Ensures that the system's refusal to listen is told.

    Args:
        address: Where; with the setting or option that says so, if there is one, before it.
        way_out: What to do where somebody else listens.

    Raises:
        AddressError: The system refuses.
    """
    try:
        yield
    except OSError as error:
        # Python adds the address to the system's words where it binds by itself.
        why = str(error) if isinstance(error, socket.gaierror) or error.errno is None else os.strerror(error.errno)
        raise AddressError(f"{address} cannot be listened on ({why}): {way_out}") from error


def ensure_free(host: str, port: int, way_out: str) -> None:
    """Ensures that somebody can listen there.

    Raises:
        AddressError: The system refuses.

    >>> with socket.create_server(("127.0.0.1", 0)) as taken:
    ...     ensure_free(*taken.getsockname(), "stop it")
    Traceback (most recent call last):
    ...
    taxifare.addresses.AddressError: 127.0.0.1:... cannot be listened on (Address already in use): stop it
    """
    with listening_at(f"{host}:{port}", way_out):
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
