"""The candidate's track record before a month, as far as the ledger has it.

Each comparison has the record up to its month. It still holds if its months, and their revisions, are exactly those
published since production's; if none holds, the candidate's way is retraced from production on.
"""

from collections.abc import Mapping

from taxifare.approval.due import Known, last_learned
from taxifare.approval.records import Comparison, readable
from taxifare.gate.track_record import TrackRecord
from taxifare.trips.months import Month


def record_before(month: Month, published: Mapping[Month, str], known: Known) -> TrackRecord | None:
    """Returns the longest track record that still holds before a month, an empty one if none does.

    None where nothing is in production.

    Args:
        month: The month to be learned.
        published: Revision of each month that is `due.covered`.
        known: What is on record.
    """
    if known.production is None:
        return None
    learned = last_learned(known)
    since = [earlier for earlier in sorted(published) if earlier < month and (learned is None or earlier > learned)]
    for number in range(len(since), 0, -1):
        expected = [(str(earlier), published[earlier]) for earlier in since[:number]]
        record = _record_of(known.comparisons.get(str(since[number - 1])), known.production)
        if record is not None and [(entry.month, entry.revision) for entry in record.months] == expected:
            return record
    return TrackRecord(production=known.production)


def _record_of(comparison: Comparison | None, production: str) -> TrackRecord | None:
    """Returns the track record of a comparison with this production, None where it has none."""
    if comparison is None or comparison.production_version != production:
        return None
    evidence = readable(comparison)
    return None if evidence is None else evidence.track_record
