"""Files that are whole or not there: written aside, flushed to the disk, then moved into place.

Whoever reads meets the old file or the new one, never half of one, whatever is killed meanwhile. What must not replace
a file that is there (the approval secret, of which the first writer's counts) is linked by its owner instead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from upath import UPath

AnyPath = TypeVar("AnyPath", Path, UPath)


@contextmanager
def whole_file(path: AnyPath) -> Iterator[AnyPath]:
    """Yields where to write a file that takes the place of `path` when the block ends.

    If the block raises, what was written is gone and `path` is as it was. The place yielded is beside `path`, on the
    same disk or in the same bucket, and its name begins with a dot and ends as that of `path` does. Errors of that
    place name `path`, which is the file that somebody knows of.
    """
    unfinished = path.with_name(f".{uuid4().hex}.{path.name}")
    try:
        try:
            yield unfinished
            put_in_place(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        if error.filename in {str(unfinished), unfinished}:
            error.filename = str(path)
        raise


def put_in_place(unfinished: AnyPath, path: AnyPath) -> None:
    """Ensures that a file that was written aside is at `path`, and stays there when the machine loses power."""
    in_bucket = isinstance(unfinished, UPath) and unfinished.protocol not in {"", "file"}
    if not in_bucket:
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
    if isinstance(unfinished, UPath):
        unfinished.fs.mv(unfinished.path, path.path)
    else:
        unfinished.replace(path)
    if not in_bucket:
        # The move is an entry of the folder, which is on the disk once the folder is.
        folder = os.open(path.parent.path if isinstance(path, UPath) else path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
