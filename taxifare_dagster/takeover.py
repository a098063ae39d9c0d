"""States of before: earlier releases left comparisons as results of asset checks, in Dagster's event log.

They go into the ledger once, from states that have asked somebody about comparisons which the ledger does not have.
Nothing else reads check results: one that is reported by hand, forged or wiped changes nothing.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from pydantic import ValidationError

from taxifare.approval.comparisons import take_over
from taxifare.approval.ledger import Ledger
from taxifare.gate.evidence import Evidence

_log = logging.getLogger(__name__)

_CHECKS = (
    dg.AssetCheckKey(dg.AssetKey("base_model"), "base_beats_reference"),
    dg.AssetCheckKey(dg.AssetKey("staging_model"), "staging_beats_production"),
)
_PAGE = 200


def take_over_comparisons(instance: dg.DagsterInstance, ledger: Ledger) -> int:
    """Returns how many comparisons of earlier releases were put into the ledger just now."""
    with ledger.reading() as entries:
        if not entries.lacks_comparisons():
            return 0
    taken = take_over(ledger, sorted(_left_in(instance), key=lambda found: found[1]))
    _log.warning("%d comparisons of an earlier release are in the ledger now", taken)
    return taken


def _left_in(instance: dg.DagsterInstance) -> Iterator[tuple[Evidence, datetime]]:
    """Yields the evidence in the event log and when it was found; what cannot be read is skipped with a warning."""
    for key in _CHECKS:
        cursor: int | None = None
        while records := instance.event_log_storage.get_asset_check_execution_history(key, _PAGE, cursor):
            cursor = records[-1].id
            for record in records:
                event = record.event.dagster_event if record.event else None
                if record.event is None or event is None:
                    continue
                shown = event.asset_check_evaluation_data.metadata.get("evidence")
                try:
                    evidence = Evidence.model_validate(None if shown is None else shown.value)
                except ValidationError as error:
                    _log.warning("a result of %s in run %s is left where it is: %s", key, record.run_id, error)
                else:
                    yield evidence, datetime.fromtimestamp(record.event.timestamp, UTC)
