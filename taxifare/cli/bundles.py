"""Bundles of versions: `bundle`."""

from typing import Annotated

import typer

from taxifare.approval.versions import registry_of
from taxifare.cli.shared import approvals_in_force, errors_told, terminal
from taxifare.serving.publishing import LakePublisher
from taxifare.settings import settings_in_force


@errors_told()
def bundle(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Versions; none: all that were ever production", show_default=False)
    ] = None,
) -> None:
    """Make the files that price rides, for versions that have none, and publish what is in production."""
    approvals, settings, out = approvals_in_force(), settings_in_force(), terminal()
    publisher = LakePublisher(settings, registry_of(settings))
    with approvals.ledger.reading() as entries:
        promoted = dict.fromkeys(entry.version for entry in entries.promotions() if entry.version is not None)
    for version in versions or promoted:
        digest = publisher.bundle_of(version, lambda: out.print("Converting; it takes some seconds."))
        out.print(f"Version {version}: {digest}", highlight=False, soft_wrap=True)
    approvals.repair()
    if not versions and not promoted:
        out.print("Nothing was ever production.")
