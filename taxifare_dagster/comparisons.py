"""What the comparison checks recorded: the evidence, read back from Dagster's event log.

The one place that uses the log's check history, which is not part of Dagster's public interface.
"""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

from taxifare.gate.evidence import Evidence
from taxifare_dagster.checks import BASE_CHECK, COMPARISON_CHECK

_EVALUATIONS_READ = 1000


def compared(instance: dg.DagsterInstance) -> dict[str, Evidence]:
    """Returns the latest evidence of each subject, however its run was started: UI, backfill, sensor or command."""
    keys = (
        dg.AssetCheckKey(dg.AssetKey("base_model"), BASE_CHECK),
        dg.AssetCheckKey(dg.AssetKey("staging_model"), COMPARISON_CHECK),
    )
    latest: dict[str, Evidence] = {}
    for key in keys:
        for record in instance.event_log_storage.get_asset_check_execution_history(
            key, _EVALUATIONS_READ, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
        ):
            if record.event is None or record.event.dagster_event is None:
                continue
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            evidence = Evidence.model_validate(evaluation.metadata["evidence"].value)
            latest.setdefault(evidence.subject, evidence)
    return latest
