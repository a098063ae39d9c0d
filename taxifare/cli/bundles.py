"""Bundles of versions: `bundle`."""

from typing import Annotated

import typer

from taxifare.approval.promotions import in_use
from taxifare.approval.versions import registry_of
from taxifare.cli.shared import Terminal, approvals_in_force, errors_told
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import settings_in_force


@errors_told()
def bundle(
    versions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Versions; by default all that ever were production, and the one in question.", show_default=False
        ),
    ] = None,
) -> None:
    """Make the missing bundles, the files that price rides, and publish which are in production and in shadow."""
    approvals, settings, out = approvals_in_force(), settings_in_force(), Terminal()
    publisher = LakePublisher(settings, registry_of(settings))
    with approvals.ledger.reading() as entries:
        promoted = dict.fromkeys(entry.version for entry in entries.promotions() if entry.version is not None)
        _, asked = in_use(entries, approvals.now())
    about = () if asked is None else (asked.staging_version,)
    for version in versions or (*promoted, *about):
        digest = publisher.bundle_of(version, lambda: out.print("Converting; it takes some seconds."))
        out.print(f"Version {version}: {digest}", highlight=False, soft_wrap=True)
    approvals.repair()
    if not versions and not promoted:
        out.print("Nothing was ever production.")
