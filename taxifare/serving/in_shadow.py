"""What is in shadow: the version that a person is asked about, published beside the bundles for whoever prices rides.

The ledger's open questions decide which one that is; the file is a projection of them, as `in_force` is of promotions,
and is removed when the question has ended. It stands beside one promotion: once production has changed, nobody is
asked about it any more.
"""

from datetime import datetime

import msgspec
from upath import UPath

from taxifare.serving import in_force
from taxifare.serving.in_force import bundles_in

_FILE = "in-shadow.json"


class InShadow(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is asked about.

    Attributes:
        version: Which.
        digest: Of its bundle.
        city: Whose rides it prices.
        target: What it predicts.
        sequence: Of the promotion that it stands beside.
        request_id: The question.
        since: When it was asked, UTC.
    """

    version: str
    digest: str
    city: str
    target: str
    sequence: int
    request_id: str
    since: datetime


def read(lake: UPath) -> InShadow | None:
    """Returns what is in shadow, None where nobody is being asked, or the version has no bundle yet.

    Raises:
        InForceError: The file cannot be understood.
        OSError, UnreachableError: It is unknown whether there is one.
    """
    return in_force.published(lake, _FILE, InShadow)


def publish(lake: UPath, in_shadow: InShadow | None) -> None:
    """Ensures that this is in shadow and nothing else; None for nothing at all."""
    if in_shadow is None:
        (bundles_in(lake) / _FILE).unlink(missing_ok=True)
    else:
        in_force.put(lake, _FILE, in_shadow)
