"""Bundles of small models, and ways to damage one."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pandas as pd
from upath import UPath

from taxifare.digests import digest_of_files
from taxifare.model.exposure import Exposure
from taxifare.model.packaging import LoadedModel
from taxifare.serving import in_force
from taxifare.serving.bundle import FORMAT, MANIFEST, Bundle, Learned, Manifest
from taxifare.serving.rides import Limits
from taxifare.settings import Settings
from taxifare.trips.features import feature_names
from tests.support.approvals import content_of

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


def put_in_force(settings: Settings, version: str, sequence: int, exposure: Sequence[Exposure]) -> None:
    """Ensures that a version is in force, as far as its manifest says; it has no network to price rides with.

    It is found by its files, too, which are those of `content_of`.
    """
    digest = f"{sequence:064x}"
    learned = tuple(Learned(**entry.model_dump()) for entry in exposure)
    city = settings.city_facts
    limits = Limits(
        longitude_range_deg=city.longitude_range_deg, latitude_range_deg=city.latitude_range_deg, most_passengers=7,
        earliest=learned[0].first_pickup, latest=datetime(2030, 1, 1),
    )  # fmt: skip
    manifest = Manifest(
        format=FORMAT, model_name="taxifare", version=version, run_id="r", files_digest="d", target=settings.target,
        unit=settings.target_facts.unit, city=settings.city.slug, facts=asdict(city), limits=limits,
        correction_share=0.0,
        features=feature_names(city), exposure=learned, rules=(), meter=settings.meter, libraries={}, files={},
    )  # fmt: skip
    folder = in_force.bundles_in(settings.lake) / digest
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    made = in_force.made_for(settings.lake, content_of(version).files_digest)
    made.parent.mkdir(exist_ok=True)
    made.write_text(digest)
    promoted = in_force.InForce(
        sequence=sequence, version=version, digest=digest, city=settings.city.slug, target=settings.target, by="Ada",
        reason="a test", promoted_at=datetime(2015, 1, 1, tzinfo=UTC), replaced_version=None,
    )  # fmt: skip
    in_force.publish(settings.lake, promoted)
