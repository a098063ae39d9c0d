"""Short texts that change when what they are about does: facts, files, or the code of a package."""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from upath import UPath

if TYPE_CHECKING:
    from io import BufferedReader

_PROJECT = __name__.partition(".")[0]

_FOLDER = Path(__file__).parent

_ADDED_BY_MLFLOW = "registered_model_meta"
"""A file that MLflow adds to what is downloaded of a version; it is no part of it and is not read."""


def digest(facts: object) -> str:
    """Returns a short text that changes when one of the facts does, which are what JSON can hold.

    The order of a mapping's keys plays no part. Stored revisions of trips are made by this.

    >>> digest([1, "2015-01"])
    'ba8ac91e56ce3c97'
    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def digest_of_file(file: Path | UPath) -> str:
    """Returns the SHA-256 of a file, here or in a bucket, which is read in pieces.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     digest_of_file(Path(file.name))[:16]
    'e3b0c44298fc1c14'
    """
    with file.open("rb") as opened:
        # Buckets' files have `readinto` as well; the type that UPath declares does not say so.
        return hashlib.file_digest(cast("BufferedReader", opened), "sha256").hexdigest()


def digest_of_files(folder: Path) -> str:
    """Returns a SHA-256 over all files below a folder, their names included; links are followed, order plays no part.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a").write_text("b")
    ...     digest_of_files(Path(folder))[:16]
    'f8642f77c14f808e'
    """
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != _ADDED_BY_MLFLOW:
            digests[name] = digest_of_file(path)
    return digest_of_digests(digests)


def digest_of_digests(digests: Mapping[str, str]) -> str:
    """Returns what `digest_of_files` does, of files whose SHA-256 are known by name, in the order of their paths.

    >>> digest_of_digests({"a": hashlib.sha256(b"b").hexdigest()})[:16]
    'f8642f77c14f808e'
    """
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def code_digest(package: str) -> str:
    """Returns a short text that changes when a line does that the package is made of, see `modules_behind`."""
    return digest({name: digest_of_file(file) for name, file in modules_behind(package).items()})


def digest_of_code() -> str:
    """Returns a short text that changes when a line of this project does."""
    return digest({str(file.relative_to(_FOLDER)): digest_of_file(file) for file in _FOLDER.rglob("*.py")})


def modules_behind(package: str) -> Mapping[str, Path]:
    """Returns the modules of a package, and those of this project that they import, directly or not, with their files.

    They are read, not imported: what a function imports when it is called counts as well.

    >>> "taxifare.trips.cities" in modules_behind("taxifare.trips.features")
    True
    """
    found: dict[str, Path] = {}
    waiting = [package]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or name in found:
            continue
        found[name] = file
        waiting += _imports_of(file)
        if name == package and file.stem == "__init__":
            waiting += [f"{name}.{inner.stem}" for inner in file.parent.glob("*.py") if inner != file]
    return dict(sorted(found.items()))


@cache
def _imports_of(file: Path) -> tuple[str, ...]:
    """Returns what a module imports: modules, and names in them that may be modules."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def _file_of(name: str) -> Path | None:
    """Returns the file of a module of this project, None where it is something else."""
    project, *inner = name.split(".")
    if project != _PROJECT:
        return None
    place = _FOLDER.joinpath(*inner)
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
