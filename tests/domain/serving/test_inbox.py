"""Files of an inbox: on a cluster they come to what they come to in this process."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from upath import UPath

from taxifare.serving import in_force
from taxifare.serving.batches import Receipt, answers_of
from taxifare.serving.inbox import price_files
from taxifare.serving.rides import FIELDS
from taxifare.settings import Settings
from tests.support.bundles import Made
from tests.support.clusters import dask_cluster
from tests.support.small import small_settings

NAMES = ["april.csv", "gone.csv", "may.parquet", "no-rides.csv"]
NEVER = datetime(2015, 1, 1, tzinfo=UTC)


def put_in_force(made: Made, settings: Settings) -> None:
    shutil.copytree(made.folder.path, (in_force.bundles_in(settings.lake) / made.folder.name).path)
    promoted = in_force.InForce(
        sequence=1, version=made.model.version, digest=made.folder.name, city=settings.city.slug,
        target=settings.target, by="Ada", reason="a test", promoted_at=NEVER, replaced_version=None,
    )  # fmt: skip
    in_force.publish(settings.lake, promoted)


def priced(made: Made, home: Path, cluster_url: str | None) -> tuple[dict[str, object], dict[str, bytes]]:
    """What is told of each file, and the answers."""
    settings = small_settings(home / "state", cluster_url=cluster_url)
    put_in_force(made, settings)
    inbox = UPath(home / "inbox")
    inbox.mkdir()
    made.trips[list(FIELDS)].head(40).to_csv(inbox / "april.csv", index=False)
    made.trips[list(FIELDS)].tail(30).to_parquet(inbox / "may.parquet", index=False)
    (inbox / "no-rides.csv").write_text("a,b\n1,2\n")
    told: dict[str, object] = {}
    for name, found in price_files(inbox, NAMES, settings):
        if isinstance(found, Receipt):
            told[name] = (found.version, found.sequence, found.rides, found.refused, found.fault)
        else:
            told[name] = type(found)
    paths = [answers_of(inbox / name) for name in NAMES]
    return told, {path.name: path.read_bytes() for path in paths if path.exists()}


@pytest.mark.slow
def test_files_come_to_the_same_on_a_cluster(made: Made, tmp_path: Path) -> None:
    with dask_cluster(tmp_path, workers=2) as cluster:
        (tmp_path / "shared").mkdir()
        shared = priced(made, tmp_path / "shared", cluster.url)
    (tmp_path / "alone").mkdir()
    told, answers = priced(made, tmp_path / "alone", None)
    assert shared == (told, answers)
    assert told["april.csv"] == (made.model.version, 1, 40, 0, None)
    assert told["gone.csv"] is FileNotFoundError
    assert set(answers) == {"april.quotes.csv", "may.quotes.parquet"}
