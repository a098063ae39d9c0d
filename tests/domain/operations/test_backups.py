"""A backup is one moment of an installation: it comes back as it was, or is refused by what does not fit."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner
from upath import UPath

from taxifare.approval.ledger import LedgerError
from taxifare.approval.versions import registry_of
from taxifare.cli.main import app
from taxifare.errors import ToldError
from taxifare.model.registry import ModelRegistry
from taxifare.model.store import RegistryError
from taxifare.operations.backups import MANIFEST, BackupError, back_up, read_manifest, restore
from taxifare.serving.in_force import bundles_in
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings
from taxifare_dagster.command import surroundings
from tests.support.kills import moments_of
from tests.support.registry import add_version, promote
from tests.support.services import make_bundle
from tests.support.small import small_settings

RIDE = ("predict", "--at", "2015-07-01 18:05", "--from", "-73.7781,40.6413", "--to", "-74.00,40.70")

Open = Callable[[Settings], ModelRegistry]


def new_version(settings: Settings) -> str:
    """A version that can be decided on, and priced with: its bundle is a plain network."""
    registry = registry_of(settings)
    version = add_version(registry)
    content = registry.contents.of(version)
    assert content is not None
    made = bundles_in(settings.lake) / "made"
    made.mkdir(parents=True, exist_ok=True)
    (made / content.files_digest).write_text(make_bundle(bundles_in(settings.lake), version))
    return version


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, open_registry: Open) -> Settings:
    """An installation in which three versions became production, and the second is it again."""
    settings = small_settings(tmp_path_factory.mktemp("backups") / "state", mlflow_tracking_uri=None)
    open_registry(settings)
    for _ in range(3):
        promote(approvals_of(settings), new_version(settings))
    approvals_of(settings).rollback(by="Ada", reason="the third was too dear")
    for month in ("2015-01", "2015-02"):
        path = settings.lake / "preprocessed_data" / f"{month}-01.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"rides of {month}")
    return settings


@pytest.fixture(scope="module")
def backup(installation: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it, not to be changed."""
    place = tmp_path_factory.mktemp("backup") / "first"
    back_up(installation, str(place))
    return place


@pytest.fixture
def empty(installation: Settings, migrated_store: Path, tmp_path: Path) -> Settings:
    """An installation that has nothing but a copy of the lake."""
    settings = small_settings(tmp_path / "new", mlflow_tracking_uri=None)
    shutil.copytree(installation.home / "lake", settings.home / "lake")
    (settings.home / "mlflow").mkdir()
    shutil.copy(migrated_store, settings.home / "mlflow" / "mlflow.db")
    return settings


@pytest.fixture
def copy(backup: Path, tmp_path: Path) -> Path:
    """The backup in a folder of the test's own."""
    return Path(shutil.copytree(backup, tmp_path / "copy"))


def command(settings: Settings, *line: str) -> str:
    """What a command prints that ends well."""
    # MLflow writes the store it used last into the environment.
    ledger = settings.database_url.get_secret_value() if settings.database_url else ""
    environment = {"TAXIFARE_HOME": str(settings.home), "DATABASE_URL": ledger, "MLFLOW_TRACKING_URI": ""}
    result = CliRunner().invoke(app, line, obj=surroundings(), env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def says(settings: Settings) -> dict[str, object]:
    """What an installation says of itself; the time of day is no part of it."""
    return {
        "history": json.loads(command(settings, "history", "--json")),
        "status": command(settings, "status").splitlines()[1:],
        "price": command(settings, *RIDE),
        "ledger": command(settings, "history", "--verify").rpartition("triggers")[2],
        "alias": registry_of(settings).production_version(),
        "versions": registry_of(settings).as_they_are(),
    }


def test_an_empty_installation_goes_on_where_the_other_was(
    installation: Settings, empty: Settings, empty_database: str, tmp_path: Path
) -> None:
    # Given a backup, and an installation whose ledger may be on a server
    assert "ledger up to" in command(installation, "backup", str(tmp_path / "backup"))
    server = empty_database if empty_database.startswith("postgresql") else None
    there = small_settings(empty.home, mlflow_tracking_uri=None, database_url=server)
    # When it is filled from it
    assert "Restored: the ledger up to" in command(there, "restore", str(tmp_path / "backup"))
    # Then it says the same
    expected = says(installation)
    assert expected["alias"] == "2"
    assert says(there) == expected
    # And goes on: a rollback finds the version before, new versions have the next numbers, questions are asked
    command(there, "rollback", "--to", "1", "--by", "Grace", "--reason", "a drill")
    assert registry_of(there).production_version() == "1"
    assert "version             1, promotion 5" in command(there, *RIDE)
    assert new_version(there) == "4"
    promote(approvals_of(there), "4")
    # And a backup of that leads back to a file
    again = small_settings(tmp_path / "again", mlflow_tracking_uri=None)
    back_up(there, str(tmp_path / "second"))
    shutil.copytree(there.home / "lake", again.home / "lake")
    restore(again, str(tmp_path / "second"))
    assert approvals_of(again).production() == "4"


def test_a_promotion_that_happens_meanwhile_is_in_it_as_a_whole_or_not_at_all(
    installation: Settings, tmp_path: Path
) -> None:
    # Given an installation that goes on while a backup of it is made
    busy = small_settings(tmp_path / "busy", mlflow_tracking_uri=None)
    shutil.copytree(installation.home, busy.home)
    registry_of(busy).store.mend()

    def go_on(step: str) -> None:
        if step == "reading MLflow":
            promote(approvals_of(busy), new_version(busy))

    # When the ledger has been read, another version is registered and promoted
    manifest = back_up(busy, str(tmp_path / "backup"), go_on)
    assert approvals_of(busy).production() == "4"
    # Then the backup is the moment before
    assert not any(name.startswith("versions/4/") for name in manifest.files)
    new = small_settings(tmp_path / "new", mlflow_tracking_uri=None)
    shutil.copytree(busy.home / "lake", new.home / "lake")
    # And where the lake has gone on to the promotion, that is said; the lake of that moment is well
    with pytest.raises(BackupError, match="the lake has promotion 5 in force, the backup's ledger ends with 4"):
        restore(new, str(tmp_path / "backup"))
    shutil.copy(installation.home / "lake" / "bundles" / "in-force.json", new.home / "lake" / "bundles")
    restore(new, str(tmp_path / "backup"))
    assert approvals_of(new).production() == "2"
    assert [found.version for found in registry_of(new).as_they_are()] == ["1", "2", "3"]


def test_a_registry_that_is_older_than_the_ledger_is_not_kept(installation: Settings, tmp_path: Path) -> None:
    shutil.copytree(installation.home, tmp_path / "state")
    behind = small_settings(tmp_path / "state", mlflow_tracking_uri=None)
    registry = registry_of(behind)
    registry.store.mend()
    # A version that is no more in production may be lost, and is named
    registry.store.client.delete_model_version(registry.model_name, "3")
    assert back_up(behind, str(tmp_path / "first")).lost == {"3": "MLflow does not have it"}
    registry.store.client.delete_model_version(registry.model_name, "2")
    with pytest.raises(BackupError, match="version 2 is in production, and of it MLflow does not have it"):
        back_up(behind, str(tmp_path / "second"))
    assert not (tmp_path / "second" / MANIFEST).exists()


def change_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_a_file(copy: Path) -> None:
    next(path for path in sorted(copy.glob("versions/2/**/*")) if path.is_file()).unlink()


def mix(copy: Path) -> None:
    """Puts the ledger of another moment there."""
    lines = (copy / "ledger.jsonl").read_text().splitlines()
    (copy / "ledger.jsonl").write_text("\n".join(lines[:-1]) + "\n")


def reach_outside(copy: Path) -> None:
    """Names a file beside the backup, under a seal that is right: whoever can write there can make one."""
    manifest = read_manifest(UPath(copy))
    (copy.parent / "outside").write_text("of nobody's business")
    raw = msgspec.json.encode(
        msgspec.structs.replace(manifest, files=manifest.files | {"versions/2/../../../outside": ""})
    )
    sealed = {"manifest": msgspec.Raw(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (copy / MANIFEST).write_bytes(msgspec.json.encode(sealed))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda copy: change_byte(copy / "ledger.jsonl"), r"ledger\.jsonl was changed, or is of another backup"),
        (lambda copy: change_byte(copy / "mlflow.jsonl"), r"mlflow\.jsonl was changed, or is of another backup"),
        (lambda copy: change_byte(copy / MANIFEST), "manifest"),
        (lambda copy: (copy / MANIFEST).unlink(), "holds no finished backup"),
        (lose_a_file, r"versions/2/weights is missing"),
        (reach_outside, r"expected files of the backup's folder, received versions/2/\.\./"),
        (mix, r"ledger\.jsonl was changed, or is of another backup"),
    ],
)
def test_a_torn_changed_or_mixed_backup_is_refused_by_name(
    copy: Path, empty: Settings, damage: Callable[[Path], None], told: str
) -> None:
    damage(copy)
    with pytest.raises(BackupError, match=told):
        restore(empty, str(copy))
    assert not (empty.home / "ledger.db").exists()


def test_a_lake_of_another_moment_is_refused_by_name(backup: Path, empty: Settings) -> None:
    (empty.lake / "preprocessed_data" / "2015-02-01.parquet").write_text("restated")
    (empty.lake / "preprocessed_data" / "2015-01-01.parquet").unlink()
    with pytest.raises(BackupError) as refused:
        restore(empty, str(backup))
    assert "2015-01-01.parquet is missing; preprocessed_data/2015-02-01.parquet is another one" in str(refused.value)


def test_what_is_not_empty_is_not_filled(backup: Path, installation: Settings, empty: Settings) -> None:
    # A ledger with entries
    with pytest.raises(LedgerError, match=r"expected an empty ledger, received one with \d+ entries"):
        restore(installation, str(backup))
    # MLflow with runs of somebody else's
    registry = registry_of(empty)
    with registry.runs.open("a run", {"asset": "test"}):
        pass
    with pytest.raises(RegistryError, match="expected an MLflow store without runs and versions"):
        restore(empty, str(backup))
    # A folder with something else, and another backup
    with pytest.raises(BackupError, match=r"expected an empty folder, received one with .*ledger\.db"):
        back_up(installation, str(installation.home))
    with pytest.raises(BackupError, match="holds a backup"):
        back_up(installation, str(backup))
    # Another model's installation
    minutes = small_settings(empty.home, mlflow_tracking_uri=None, target="duration")
    with pytest.raises(BackupError, match="TARGET: expected fare, of which the backup is, received duration"):
        restore(minutes, str(backup))


def test_a_backup_that_was_killed_is_unfinished_and_is_done_again(
    installation: Settings, empty: Settings, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    moments = len(moments_of(target, lambda: back_up(installation, str(target))))
    shutil.rmtree(target)
    for last in (2, moments // 2, moments - 1):
        moments_of(target, lambda: back_up(installation, str(target)), last)
        with pytest.raises(BackupError, match="holds no finished backup"):
            read_manifest(UPath(target))
    back_up(installation, str(target))
    restore(empty, str(target))
    assert approvals_of(empty).production() == "2"


def test_a_restore_that_was_killed_has_decided_nothing_and_is_done_again(
    backup: Path, empty: Settings, tmp_path: Path
) -> None:
    moments = len(moments_of(tmp_path, lambda: restore(small_copy(empty, tmp_path / "counted"), str(backup))))
    for number, last in enumerate((moments // 3, 3 * moments // 4)):
        settings = small_copy(empty, tmp_path / str(number))
        moments_of(tmp_path, lambda settings=settings: restore(settings, str(backup)), last)
        # Where it came to its end but for what follows from the ledger, any command sees to that.
        with suppress(LedgerError):
            restore(settings, str(backup))
        assert approvals_of(settings).production() == "2"
        assert registry_of(settings).production_version() == "2"


def small_copy(empty: Settings, home: Path) -> Settings:
    shutil.copytree(empty.home, home)
    return small_settings(home, mlflow_tracking_uri=None)


@pytest.mark.end_to_end
def test_a_bucket_keeps_a_backup(installation: Settings, empty: Settings, s3_bucket: str) -> None:
    back_up(installation, f"{s3_bucket}/backups/monday")
    with pytest.raises(ToldError, match="holds a backup"):
        back_up(installation, f"{s3_bucket}/backups/monday")
    restore(empty, f"{s3_bucket}/backups/monday")
    assert approvals_of(empty).production() == "2"
