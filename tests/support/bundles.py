"""Bundles of small models, and ways to damage one."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pandas as pd
from upath import UPath

from taxifare.digests import digest_of_files
from taxifare.model.packaging import LoadedModel
from taxifare.serving.bundle import MANIFEST, Bundle
from taxifare.settings import Settings

MODULES_THAT_SERVE = (
    "taxifare.cli.pricing",
    "taxifare.serving.__main__",
    "taxifare.serving.app",
    "taxifare.serving.bundle",
    "taxifare.serving.rides",
)
"""What a process imports that prices rides; `test_bundle` holds that it needs none of what is absent."""

ABSENT_WHERE_SERVED = (
    "tensorflow",
    "keras",
    "mlflow",
    "pandas",
    "pyarrow",
    "dagster",
    "sqlalchemy",
    "scipy",
    "tf2onnx",
)


@dataclass(frozen=True)
class Made:
    """A registered version and its bundle, which tests read and do not change.

    Attributes:
        settings: Of the city it was trained in.
        model: The version as the registry loads it.
        folder: Its bundle.
        trips: Trips to ask prices of.
    """

    settings: Settings
    model: LoadedModel
    folder: UPath
    trips: pd.DataFrame

    @property
    def bundle(self) -> Bundle:
        return Bundle.read(self.folder)


def copied(folder: UPath, to: Path, changes: Mapping[str, bytes], *, forged: bool = False) -> UPath:
    """A copy of a bundle with some files changed.

    Args:
        folder: The bundle.
        to: Where copies go.
        changes: New contents by name.
        forged: Whether whoever changed it has put the digests right, in the manifest and as the folder's name.
    """
    copy = to / folder.name
    shutil.copytree(folder.path, copy)
    for name, content in changes.items():
        (copy / name).write_bytes(content)
    if not forged:
        return UPath(copy)
    manifest = msgspec.json.decode((copy / MANIFEST).read_bytes())
    manifest["files"] = {name: hashlib.sha256((copy / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return UPath(copy.rename(to / digest_of_files(copy)))
