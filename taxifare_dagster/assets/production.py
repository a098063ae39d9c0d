"""Production: the asset that follows the ledger, with a materialization for each promotion and rollback.

Nothing here decides. Decisions are made by `jobs`, by the command or by code; they reach the ledger, and what the asset
does not show of it yet is shown by whoever comes first.
"""

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare_dagster import metadata
from taxifare_dagster.catalog import MODEL_KINDS, MODELS_GROUP, OWNERS

production_model = dg.AssetSpec(
    "production_model",
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds=MODEL_KINDS,
    description=(
        "The model that prices rides: the version a person approved last. It is materialised by promotions and "
        "rollbacks only; each of its materialisations says which version, who decided and why."
    ),
)


def unshown_promotions(instance: dg.DagsterInstance, approvals: Approvals) -> list[dg.AssetMaterialization]:
    """Returns a materialization for each entry of the ledger's history that the asset does not show yet, in order.

    Decisions from the command line or from code reach the ledger without Dagster; a decision whose run was killed after
    the ledger had it, likewise.
    """
    entries = approvals.record.history()
    latest = instance.get_latest_materialization_event(production_model.key)
    shown = 0
    if latest is not None and latest.asset_materialization is not None:
        shown = int(str(latest.asset_materialization.metadata["sequence"].value))
    return [
        dg.AssetMaterialization(
            production_model.key,
            description=f"version {entry.version}: {entry.kind} by {entry.by}",
            metadata=dict(metadata.promotion(entry, entries[: entry.sequence])),
        )
        for entry in entries
        if entry.sequence > shown
    ]
