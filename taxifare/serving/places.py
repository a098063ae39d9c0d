"""Places that others write: a folder or a bucket, whose client has errors of its own."""

from upath import UPath

from taxifare.errors import ToldError


class UnreachableError(ToldError, OSError):
    """A bucket does not answer, or does not let us in; it says nothing about what is there."""


def content_of(path: UPath) -> bytes:
    """Returns the content of a file.

    Raises:
        FileNotFoundError: There is none.
        UnreachableError: A bucket's client raises an error of its own.
        OSError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - clients of buckets raise what they like
        raise UnreachableError(f"{path} cannot be read: {error}") from None
