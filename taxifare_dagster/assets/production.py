"""Production: the asset that follows the ledger, with a materialization for each promotion and rollback.

Nothing here decides. Decisions are made by `jobs`, by the command or by code; they reach the ledger, and what the asset
does not show of it yet is shown by whoever comes first.
"""

from collections.abc import Sequence

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.projection import NotPublishedError
from taxifare.approval.records import Promotion
from taxifare.serving.publishing import LakePublisher
from taxifare.texts import named_version
from taxifare_dagster import metadata
from taxifare_dagster.catalog import MODEL_KINDS, MODELS_GROUP, OWNERS

_LOOKS_BACK = 100
"""Materializations that are looked through for the last one of ours: others may have been reported by hand."""

production_model = dg.AssetSpec(
    "production_model",
    group_name=MODELS_GROUP,
    owners=OWNERS,
    kinds=MODEL_KINDS,
    description=(
        "The model that prices rides: the version that was approved last. Only promotions and rollbacks materialize "
        "it; each materialization says which version, who decided and why. The latest one also says what is being "
        "served, and is repeated when that changes."
    ),
)


def unshown_promotions(
    instance: dg.DagsterInstance, approvals: Approvals, publisher: LakePublisher
) -> list[dg.AssetMaterialization]:
    """Returns a materialization for each entry of the ledger's history that the asset does not show yet, in order.

    Decisions from the command line or from code reach the ledger without Dagster; a decision whose run was killed after
    the ledger had it, likewise. The last one is shown once more where it says of what is served what is so no longer.
    """
    entries = approvals.record.history()
    if not entries:
        return []
    records = instance.fetch_materializations(production_model.key, limit=_LOOKS_BACK).records
    shown = [_entry_shown(record.asset_materialization, entries) for record in records]
    last, served = next(filter(None, shown), 0), _served(entries[-1], publisher)
    if shown and (shown[0] is None or (shown[0] == len(entries) and _says_otherwise(records[0], served))):
        # Somebody has reported one by hand, which says nothing, or what is served has changed since: the last entry is
        # shown once more, on top of it.
        last -= 1
    return [
        dg.AssetMaterialization(
            production_model.key,
            description=f"{named_version(entry.version)}: {entry.kind} by {entry.by}",
            metadata={
                **(served if entry is entries[-1] else {}),
                **metadata.promotion(entry, entries[: entry.sequence]),
            },
        )
        for entry in entries
        if entry.sequence > last
    ]


def _served(last: Promotion, publisher: LakePublisher) -> metadata.Metadata:
    """Returns what is served, and whether that is the ledger's last promotion."""
    try:
        found = publisher.found()
        return metadata.served(found, publisher.difference(found, last))
    except NotPublishedError as error:
        return {metadata.AGREES: f"cannot be told: {error}"}


def _says_otherwise(record: dg.EventLogRecord, served: metadata.Metadata) -> bool:
    """Returns whether something else is served than was shown; what cannot be told is not."""
    shown = {} if record.asset_materialization is None else record.asset_materialization.metadata
    return len(served) > 1 and any(name not in shown or shown[name].value != value for name, value in served.items())


def _entry_shown(materialization: dg.AssetMaterialization | None, entries: Sequence[Promotion]) -> int | None:
    """Returns which entry of the ledger a materialization shows, None where it shows none."""
    shown = {} if materialization is None else {name: found.value for name, found in materialization.metadata.items()}
    return next(
        (
            entry.sequence
            for entry in entries
            if (shown.get("sequence"), shown.get("version"), shown.get("promoted_at"))
            == (entry.sequence, entry.version or "none", entry.promoted_at.isoformat(timespec="seconds"))
        ),
        None,
    )
