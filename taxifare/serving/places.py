"""Places that others write: a folder or a bucket, whose client has errors of its own."""

import logging

from upath import UPath

from taxifare.errors import ToldError

# What it logs with its traceback, it raises as well.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class UnreachableError(ToldError, OSError):
    """A bucket does not answer, or does not let us in; it says nothing about what is there."""


def content_of(path: UPath) -> bytes:
    """Returns the content of a file.

    Raises:
        FileNotFoundError: There is none.
        UnreachableError: It is in a bucket, whose client raises anything else.
        OSError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except Exception as error:
        if path.protocol in {"", "file"}:
            raise
        raise UnreachableError(f"{path} cannot be read: {error}") from None
