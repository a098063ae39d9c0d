"""What is in force: the promotion that whoever prices rides follows, published beside the bundles.

The ledger decides which one that is; this file is a projection of it, for servers that have no access to the ledger or
to MLflow. Promotions are numbered, and the highest number counts, whatever any clock says.
"""

from datetime import datetime
from typing import TypeVar

import msgspec
from upath import UPath

from taxifare.errors import ToldError
from taxifare.serving.bundle import Bundle
from taxifare.texts import named_version, one_line
from taxifare.trips.city_files import CityFile
from taxifare.whole_files import whole_file

_FILE = "in-force.json"

_Published = TypeVar("_Published", bound=msgspec.Struct)


class InForceError(ToldError, RuntimeError):
    """What is in force is unknown: the file is there but cannot be understood."""


class NothingInForceError(ToldError, RuntimeError):
    """No model is in production, so nothing prices rides."""


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A promotion.

    Attributes:
        sequence: Its number in the ledger; later promotions and rollbacks have greater ones.
        version: The version in production since then, None where there is none.
        digest: Digest of the version's bundle, None where nothing is in production.
        city: Whose rides it prices.
        target: What it predicts.
        by: Who decided it.
        reason: Why.
        promoted_at: When, UTC.
        replaced_version: What was in production before.
    """

    sequence: int
    version: str | None
    digest: str | None
    city: str
    target: str
    by: str
    reason: str
    promoted_at: datetime
    replaced_version: str | None


def bundles_in(lake: UPath) -> UPath:
    """Returns where the bundles of a lake are, each in a folder named by its digest."""
    return lake / "bundles"


def made_for(lake: UPath, files_digest: str) -> UPath:
    """Returns the file that names the bundle made of a version, by the digest of the version's registered files.

    It is written last: what it names is whole.
    """
    return bundles_in(lake) / "made" / files_digest


def made_of(lake: UPath, files_digest: str) -> str | None:
    """Returns the digest of the bundle made of a version's registered files, None where none was made.

    Raises:
        OSError, UnreachableError: The lake cannot be read.
    """
    try:
        return made_for(lake, files_digest).read_text().strip()
    except FileNotFoundError:
        return None


def read(lake: UPath) -> InForce | None:
    """Returns what is in force, None where nothing was ever promoted.

    Raises:
        InForceError: The file cannot be understood.
        OSError, UnreachableError: It is unknown whether there is one.
    """
    return published(lake, _FILE, InForce)


def model_in(lake: UPath, city: CityFile, target: str) -> tuple[InForce, Bundle]:
    """Returns what is in force in a lake, and its model, checked.

    Raises:
        NothingInForceError: Nothing is.
        InForceError: What is in force is unknown.
        BundleError: Its files are not what was promoted, or are of another city or target.
        OSError, UnreachableError: The lake cannot be read.
    """
    promotion = read(lake)
    if promotion is None:
        raise NothingInForceError(
            f"no model is in production, so nothing prices rides: expected one in {bundles_in(lake)}. Approve a "
            "request (taxifare requests); where a release before promoted one: taxifare bundle; where the state is "
            "elsewhere, set TAXIFARE_HOME"
        )
    if promotion.digest is None:
        raise NothingInForceError(taken_out(promotion))
    return promotion, Bundle.read(bundles_in(lake) / promotion.digest, city=city, target=target)


def taken_out(change: InForce) -> str:
    """Returns why nothing prices rides where the model was taken out of production, and the ways out."""
    return (
        f"no model is in production, so nothing prices rides, since {one_line(change.by)} took "
        f"{named_version(change.replaced_version)} out on {change.promoted_at:%Y-%m-%d %H:%M} UTC (promotion "
        f"{change.sequence}: {one_line(change.reason)}). {ways_out(change.replaced_version)}"
    )


def ways_out(version: str | None) -> str:
    """Returns how rides are priced again after a version was taken out."""
    return (
        f"{going_back(version)} puts {named_version(version)} back, or the next month's run makes a new start that is "
        "asked about"
    )


def going_back(version: str | None) -> str:
    """Returns the command that puts a version back into production; None: one that is yet to be named."""
    return f'taxifare rollback --to {version or "VERSION"} --by YOU --reason "WHY"'


def publish(lake: UPath, in_force: InForce) -> None:
    """Ensures that a promotion is published, unless a later one is: the sequence never goes down.

    A file that cannot be read is replaced.
    """
    try:
        before = read(lake)
    except InForceError:
        before = None
    if before is None or (before.sequence <= in_force.sequence and before != in_force):
        put(lake, _FILE, in_force)


def published(lake: UPath, name: str, kind: type[_Published]) -> _Published | None:
    """Returns what is published beside the bundles under this name, None where nothing is.

    Raises:
        InForceError: The file cannot be understood.
        OSError, UnreachableError: It is unknown whether there is one.
    """
    try:
        content = (bundles_in(lake) / name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InForceError(f"{name}: expected what is published there, received something else: {error}") from None


def put(lake: UPath, name: str, what: msgspec.Struct) -> None:
    """Ensures that this is published beside the bundles under a name, whatever was before."""
    folder = bundles_in(lake)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / name) as unfinished:
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(what), indent=1))
