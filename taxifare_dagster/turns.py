"""Whose turn it is. Where a policy decides, a month is compared with what the one before it left in production."""

import time
from collections.abc import Mapping

import dagster as dg

from taxifare.approval.approvals import Approvals
from taxifare.approval.due import undecided_before
from taxifare.settings import Settings
from taxifare.sources.base import NoBaseError, TripSource
from taxifare.trips.editions import BASE
from taxifare.trips.months import Month
from taxifare_dagster.partitions import month_of_partition, months_of, partition_key

PATIENCE_S = 300.0
"""How long a month waits for the policy to decide on the one before it: seconds, where `approval_sensor` is on."""
_PAUSE_S = 2.0


def production_in_turn(
    context: dg.AssetExecutionContext, source: TripSource, approvals: Approvals, settings: Settings
) -> str | None:
    """Returns the version in production, once it is the month's turn; a person may decide on months in any order.

    Raises:
        dg.Failure: The month before has not been compared, failed, or is not decided on in time.
    """
    if settings.approval_policy == "person":
        return approvals.production()
    month, until = month_of_partition(context.partition_key), time.monotonic() + PATIENCE_S
    revisions = revisions_of(source, settings)
    while (before := undecided(month, revisions, approvals)) is not None:
        comparison, production = approvals.record.comparisons().get(before), approvals.production()
        if comparison is None or (comparison.revision, comparison.production_version) != (
            revisions[before],
            production,
        ):
            raise dg.Failure(
                f"{month} comes after {before}, which has not been compared with the present production: "
                f"APPROVAL_POLICY={settings.approval_policy} takes months strictly one after another, and one that "
                f"failed stops those behind it. Run {before} first.",
                allow_retries=False,
            )
        if time.monotonic() > until:
            raise dg.Failure(
                f"{month} waited {PATIENCE_S:.0f} s for the decision on {before}: is approval_sensor on, and what do "
                "its runs say?",
                allow_retries=False,
            )
        context.log.info("%s waits for the decision on %s", month, before)
        time.sleep(_PAUSE_S)
    return approvals.production()


def undecided(month: Month, revisions: Mapping[str, str], approvals: Approvals) -> str | None:
    """Returns the subject that the policy has to decide on before the month is run, None where there is none."""
    production = approvals.production()
    with approvals.ledger.reading() as entries:
        return undecided_before(month, revisions, production, entries.requests(), entries.outcomes())


def covered_months(source: TripSource, settings: Settings) -> dict[Month, str]:
    """Returns the published months that are partitions, with their revisions."""
    keys = set(months_of(settings).get_partition_keys())
    return {month: revision for month, revision in source.months().items() if partition_key(month) in keys}


def base_revision(source: TripSource) -> str | None:
    """Returns the revision of the base years, None where the source has no base years."""
    try:
        return source.base_revision()
    except NoBaseError:
        return None


def revisions_of(source: TripSource, settings: Settings) -> dict[str, str]:
    """Returns the revision of each subject that is published: the base years, where there are any, and months."""
    base = base_revision(source)
    published = {str(month): revision for month, revision in covered_months(source, settings).items()}
    return published if base is None else {BASE: base} | published
