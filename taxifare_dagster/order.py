"""In which order months are run: which there are, and whose turn it is where a policy decides.

What is due follows from what is on record and stands in `taxifare.approval.due`; asking for runs is `sensors`'. Runs
that are refused whatever their turn are `run_guards`'. Why months wait at all: docs/decisions.md, under
taxifare_dagster.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import Known, covered, undecided_before
from taxifare.settings import MonthSettings, Settings
from taxifare.sources.base import TripSource, base_revision_of, published_before
from taxifare.trips.editions import BASE
from taxifare.trips.months import Month
from taxifare_dagster.partitions import month_of_partition

TRIES, PAUSE_S = 30, 10
"""How often a month asks whether the policy has decided on the one before it, and the seconds between: five minutes,
where `approval_sensor` is on. Between tries no step is at work, and nothing is held that the decision needs."""


def known_in_turn(
    context: dg.AssetExecutionContext, source: TripSource, approvals: Approvals, settings: Settings
) -> Known:
    """Returns what is on record, once it is the month's turn; a person may decide on months in any order.

    Raises:
        dg.Failure: The month before has not been compared, or failed.
        dg.RetryRequested: It is about to be decided on; the step is tried again, and fails after so many tries.
    """
    month, known = month_of_partition(context.partition_key), Known.of(approvals)
    revisions = revisions_before(month, covered_months_before(month, source, settings), source, known)
    before = undecided_before(month, revisions, known, settings)
    if before is None:
        return known
    if not before.is_compared:
        raise dg.Failure(
            f"{month} comes after {before.subject}, which has not been compared with the present production: "
            f"APPROVAL_POLICY={settings.approval_policy} takes months strictly one after another, and one that "
            f"failed stops those behind it. Run {before.subject} first.",
            allow_retries=False,
        )
    raise dg.RetryRequested(max_retries=TRIES, seconds_to_wait=PAUSE_S) from dg.Failure(
        f"{month} waits for the decision on {before.subject}, {TRIES * PAUSE_S} s at most: is approval_sensor on, and "
        "what do its runs say?"
    )


def covered_months(source: TripSource, settings: MonthSettings) -> dict[Month, str]:
    """Returns the published months that are partitions and over, with their revisions, see `due.covered`.

    Raises:
        SourceError: The source cannot tell which are published; `CannotTellError` where those before a month are known.
    """
    return covered(source.months(), settings, datetime.now(UTC))


def covered_months_before(month: Month, source: TripSource, settings: MonthSettings) -> dict[Month, str]:
    """Returns those before a month; of later ones the source need not tell."""
    return covered(published_before(source, month), settings, datetime.now(UTC))


def revisions_before(month: Month, published: Mapping[Month, str], source: TripSource, known: Known) -> dict[str, str]:
    """Returns the revision of each subject that is published before a month; the base years are one, if there are.

    They matter until something is in production; afterwards nobody waits for a source that cannot tell of them.

    Args:
        month: The month.
        published: Revision of each month that is published, at least of those before it.
        source: Has the base years.
        known: What is on record.
    """
    base = base_revision_of(source) if known.production is None else None
    earlier = {str(other): revision for other, revision in published.items() if other < month}
    return earlier if base is None else {BASE: base} | earlier
