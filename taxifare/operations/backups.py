"""Backups: the ledger, the model registry and the lake's manifest as they were at one moment, and back from there.

The ledger's rows are read in one transaction, and everything else is what they name: versions that are registered later
are not in it, and the files of those that are have the digests on record. The manifest is written last, and has the
digest of every file: a backup without one was cut off. Why it is made so: docs/decisions.md, under operations.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from upath import UPath

from taxifare.approval.chain import Head
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import SCHEMA_REVISION
from taxifare.approval.tables import METADATA, PROMOTIONS, VERSIONS
from taxifare.approval.verification import verified
from taxifare.approval.versions import ledger_of, registry_of
from taxifare.digests import digest_of_file, digest_of_files
from taxifare.environment import opened
from taxifare.errors import ToldError
from taxifare.model.copies import MlflowCopy, Row, copied, files_at, fill, put_files
from taxifare.rows import line_of, lines_of, parsed
from taxifare.secrets import shown
from taxifare.serving import in_force
from taxifare.serving.publishing import approvals_of
from taxifare.settings import Settings
from taxifare.whole_files import whole_file

FORMAT = 1

MANIFEST = "manifest.json"

_LEDGER, _MLFLOW = "ledger.jsonl", "mlflow.jsonl"

_OURS = frozenset({_LEDGER, _MLFLOW, "versions", "runs"})
"""What an unfinished backup may hold."""

_GOES_ON = ("quotes/", "outcomes/", "reports/", "bundles/in-force.json", "bundles/in-shadow.json")
"""In the lake: logs, which grow and expire, and what is made of the ledger at any time."""

OnStep = Callable[[str], None]
"""Is told what is being done."""


class BackupError(ToldError, RuntimeError):
    """A backup cannot be made, or is not restored: the message says what does not fit."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is.

    Attributes:
        format: Of the backup.
        made_at: When the ledger was read, UTC.
        city: Whose rides the models price, as the ledger has it on record; None for the shipped ones.
        target: What they predict.
        model: Name of the registered model.
        ledger_schema: Of the ledger's tables.
        head: Of the ledger's chain, None where nothing was recorded.
        mlflow_schema: Of MLflow's tables.
        files: SHA-256 of each file of the backup, by name.
        lake: SHA-256 of each file of the lake that stays as it is, by name.
        lost: Versions on record of which MLflow did not have what was registered, and why; none is in production.
    """

    format: int
    made_at: datetime
    city: str | None
    target: str
    model: str
    ledger_schema: str
    head: str | None
    mlflow_schema: str
    files: dict[str, str]
    lake: dict[str, str]
    lost: dict[str, str]


class _Sealed(msgspec.Struct, frozen=True):
    manifest: msgspec.Raw
    sha256: str


def back_up(settings: Settings, target: str, on_step: OnStep = lambda _: None) -> Manifest:
    """Returns what was kept in a folder or bucket, whole; others may work meanwhile.

    Args:
        settings: Name the installation.
        target: Empty, or with what was left of a backup that was cut off.
        on_step: Is told what is being done.

    Raises:
        BackupError: The target holds something else, or the registry is not what the ledger has on record.
        TamperedError: The ledger is not what was written into it.
        RegistryError, LedgerError, UnreachableError, SettingsError: A part does not answer, or is not named.
    """
    place = opened("TARGET", target)
    _ensure_free(place)
    ledger, store = ledger_of(settings), registry_of(settings).store
    on_step("reading the ledger")
    with ledger.reading() as entries:
        made_at = datetime.now(UTC)
        head = verified(entries, ledger, ToldHeads(settings.home, ledger.place).read()).head
        ledger_lines = list(lines_of(entries.connection, METADATA.sorted_tables))
        last, contents = entries.last_promotion(), {content.version: content for content in entries.contents()}
    on_step("reading MLflow")
    copy = copied(store).without(
        settings.registered_model, lambda version, run: version in contents and contents[version].run_id == run
    )
    files = {
        _LEDGER: _put(place / _LEDGER, _as_bytes(ledger_lines)),
        _MLFLOW: _put(place / _MLFLOW, _as_bytes(line_of(table, row) for table, row in copy.rows)),
    }
    lost = dict.fromkeys(contents.keys() - copy.versions(settings.registered_model).keys(), "MLflow does not have it")
    for name, address in copy.places(settings.registered_model):
        on_step(f"copying {name}")
        kind, _, version = name.partition("/")
        with files_at(store, address) as folder:
            if kind == "versions" and (folder is None or digest_of_files(folder) != contents[version].files_digest):
                lost[version] = f"its files, at {shown(address)}, are not those that were registered"
            elif folder is not None:
                files |= _copied(folder, place, name)
    if last is not None and last.version in lost:
        raise BackupError(
            f"version {last.version} is in production, and of it {lost[last.version]}: expected the ledger and MLflow "
            "to be of one moment. Bring MLflow to that of the ledger; taxifare doctor examines both"
        )
    manifest = Manifest(
        format=FORMAT,
        made_at=made_at,
        city=settings.city.on_record,
        target=settings.target,
        model=settings.registered_model,
        ledger_schema=SCHEMA_REVISION,
        head=None if head is None else str(head),
        mlflow_schema=copy.schema,
        files=files,
        lake=dict(_of_lake(settings.lake, on_step)),
        lost=lost,
    )
    raw = msgspec.json.encode(manifest)
    with whole_file(place / MANIFEST) as unfinished:
        unfinished.write_bytes(msgspec.json.encode(_Sealed(msgspec.Raw(raw), hashlib.sha256(raw).hexdigest())))
    return manifest


def restore(settings: Settings, source: str, on_step: OnStep = lambda _: None) -> Manifest:
    """Returns what an installation without entries, runs and versions has been given: the backup in a folder or bucket.

    The ledger comes last, so that one that was cut off is done again.

    Args:
        settings: Name the installation; its lake is there already.
        source: Where the backup is.
        on_step: Is told what is being done.

    Raises:
        BackupError: The backup is unfinished, changed, of another model, or its lake is not the one that is there.
        LedgerError, RegistryError: The installation is not empty, or a part does not answer.
        TamperedError: The ledger in the backup is not what was written into it.
        UnreachableError, SettingsError: A bucket does not answer, or a part is not named.
    """
    place = opened("SOURCE", source)
    manifest = read_manifest(place)
    _ensure_same_model(manifest, settings)
    for name, expected in manifest.files.items():
        on_step(f"checking {name}")
        _ensure_unchanged(place, name, expected)
    ledger, registry = ledger_of(settings), registry_of(settings)
    ledger.ensure_empty()
    rows = [parsed(line) for line in (place / _LEDGER).read_text().splitlines()]
    _ensure_lake_fits(manifest, rows, settings.lake, on_step)
    on_step("filling MLflow")
    mlflow_rows = [parsed(line) for line in (place / _MLFLOW).read_text().splitlines()]
    copy = fill(registry.store, MlflowCopy(manifest.mlflow_schema, mlflow_rows))
    contents = {row["version"]: row["files_digest"] for table, row in rows if table == VERSIONS.name}
    for name, address in copy.places(manifest.model):
        on_step(f"restoring {name}")
        inner = [file for file in manifest.files if file.startswith(f"{name}/")]
        if not inner:
            continue
        with TemporaryDirectory() as folder:
            for file in inner:
                path = Path(folder, file.removeprefix(f"{name}/"))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((place / file).read_bytes())
            kind, _, version = name.partition("/")
            if kind == "versions" and digest_of_files(Path(folder)) != contents.get(version):
                raise BackupError(f"{name} is not what the backup's ledger has on record: it is of another backup")
            put_files(registry.store, address, Path(folder))
    on_step("filling the ledger")
    with ledger.filled(manifest.ledger_schema, rows) as entries:
        verified(entries, ledger, (), None if manifest.head is None else Head.parse(manifest.head))
    on_step("putting in force what the ledger says")
    approvals_of(settings).repair()
    return manifest


def read_manifest(place: UPath) -> Manifest:
    """Returns the manifest of a backup.

    Raises:
        BackupError: There is none, it was changed, or another release wrote it.
    """
    try:
        sealed = msgspec.json.decode((place / MANIFEST).read_bytes(), type=_Sealed)
        if hashlib.sha256(sealed.manifest).hexdigest() != sealed.sha256:
            raise BackupError(f"{place / MANIFEST} was changed: it does not have its own SHA-256. Take another backup")
        manifest = msgspec.json.decode(sealed.manifest, type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise BackupError(
            f"{place} holds no finished backup: expected {MANIFEST}, which is written last. Take another backup"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupError(
            f"{place / MANIFEST}: expected the manifest of a backup, received something else: {error}. Was it made by "
            "another release? Then restore with that one"
        ) from None
    for name in manifest.files:
        if name.startswith("/") or ".." in name.split("/"):
            raise BackupError(f"{place / MANIFEST}: expected files of the backup's folder, received {name}")
    return manifest


def _ensure_free(place: UPath) -> None:
    """Ensures that a backup may be made there."""
    found = {path.name for path in place.iterdir()} if place.exists() else set()
    if MANIFEST in found:
        raise BackupError(f"{place} holds a backup: expected an empty folder, or a new one, for each")
    if strange := sorted(name for name in found - _OURS if not name.startswith(".")):
        raise BackupError(f"{place}: expected an empty folder, received one with {', '.join(strange[:3])}")


def _ensure_same_model(manifest: Manifest, settings: Settings) -> None:
    for setting, expected, received in (
        ("CITY", manifest.city, settings.city.on_record),
        ("TARGET", manifest.target, settings.target),
        ("MODEL_NAME", manifest.model, settings.registered_model),
    ):
        if expected != received:
            raise BackupError(f"{setting}: expected {expected}, of which the backup is, received {received}")


def _ensure_unchanged(place: UPath, name: str, expected: str) -> None:
    try:
        received = digest_of_file(place / name)
    except FileNotFoundError:
        raise BackupError(f"{place / name} is missing: its manifest names it. Take another backup") from None
    if received != expected:
        raise BackupError(
            f"{place / name} was changed, or is of another backup: expected SHA-256 {expected[:12]}…, received "
            f"{received[:12]}…. Take another backup"
        )


def _ensure_lake_fits(manifest: Manifest, rows: Sequence[Row], lake: UPath, on_step: OnStep) -> None:
    """Ensures that the lake is the backup's, and that nothing is in force there that its ledger does not know."""
    promotions = max((row["sequence"] for table, row in rows if table == PROMOTIONS.name), default=0)
    published = in_force.read(lake)
    if published is not None and published.sequence > promotions:
        raise BackupError(
            f"the lake has promotion {published.sequence} in force, the backup's ledger ends with {promotions}: it is "
            "older than the lake. Restore a later backup, or bring back the lake of "
            f"{manifest.made_at:%Y-%m-%d %H:%M} UTC"
        )
    others = []
    for name, expected in manifest.lake.items():
        on_step(f"checking the lake: {name}")
        try:
            if digest_of_file(lake / name) != expected:
                others.append(f"{name} is another one")
        except FileNotFoundError:
            others.append(f"{name} is missing")
    if others:
        raise BackupError(
            f"the lake is not of the backup's moment: {len(others)} of {len(manifest.lake)} files differ; "
            f"{'; '.join(others[:3])}. Bring back the lake of {manifest.made_at:%Y-%m-%d %H:%M} UTC (earlier versions "
            "of its bucket) first, or restore a backup of this lake"
        )


def _of_lake(lake: UPath, on_step: OnStep) -> Iterator[tuple[str, str]]:
    """Yields the files of the lake that stay as they are, and their SHA-256."""
    for path in sorted(lake.rglob("*")):
        name = path.path.removeprefix(lake.path).lstrip("/")
        if name.startswith(_GOES_ON) or any(part.startswith(".") for part in name.split("/")) or not path.is_file():
            continue
        on_step(f"reading the lake: {name}")
        # A month that is taken anew meanwhile is not there for a moment.
        with suppress(FileNotFoundError):
            yield name, digest_of_file(path)


def _copied(folder: Path, place: UPath, name: str) -> dict[str, str]:
    """Returns the SHA-256 of each file of a folder, by name; they are in the backup below a name."""
    paths = {f"{name}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob("*") if path.is_file()}
    return {inner: _put(place / inner, iter([path.read_bytes()])) for inner, path in sorted(paths.items())}


def _put(path: UPath, parts: Iterator[bytes]) -> str:
    """Returns the SHA-256 of a file that is made of parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            found.update(part)
    return found.hexdigest()


def _as_bytes(lines: Iterable[str]) -> Iterator[bytes]:
    return (f"{line}\n".encode() for line in lines)
