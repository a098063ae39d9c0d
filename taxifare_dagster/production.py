"""The production_model asset follows the ledger: a materialization for each promotion and rollback, whoever made it."""

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare_dagster import metadata

PRODUCTION_MODEL = dg.AssetKey("production_model")


def unshown_promotions(instance: dg.DagsterInstance, approvals: Approvals) -> list[dg.AssetMaterialization]:
    """Returns a materialization for each entry of the ledger's history that the asset does not show yet, in order.

    Decisions from the command line or from code reach the ledger without Dagster; a decision whose run was killed after
    the ledger had it, likewise.
    """
    entries = approvals.history()
    latest = instance.get_latest_materialization_event(PRODUCTION_MODEL)
    shown = 0
    if latest is not None and latest.asset_materialization is not None:
        shown = int(str(latest.asset_materialization.metadata["sequence"].value))
    return [
        dg.AssetMaterialization(
            PRODUCTION_MODEL,
            description=f"version {entry.version}: {entry.kind} by {entry.by}",
            metadata=dict(metadata.promotion(entry, entries[: entry.sequence])),
        )
        for entry in entries
        if entry.sequence > shown
    ]
