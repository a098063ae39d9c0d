"""Months as Dagster's partitions: which there are, and how a month and its partition key become one another.

Nothing else is partitioned. Which months are published, or due, is asked of the source and of `taxifare.approval.due`.
"""

from datetime import UTC, datetime

import dagster as dg

from taxifare.settings import MonthSettings
from taxifare.trips.months import Month, parse_month

_PRESENT = 1
"""Months after the last that is over."""


def partition_key(month: Month) -> str:
    """Returns the month's Dagster partition key, its first day.

    >>> partition_key(parse_month("2015-01"))
    '2015-01-01'
    """
    return f"{month}-01"


def month_of_partition(key: str) -> Month:
    """Returns the month of a Dagster partition key.

    >>> month_of_partition("2015-01-01")
    Period('2015-01', 'M')
    """
    return parse_month(key.removesuffix("-01") if key.count("-") == 2 else key)


def months_of(settings: MonthSettings) -> dg.MonthlyPartitionsDefinition:
    """Returns the partitions of all monthly assets and checks: FIRST_MONTH to LAST_MONTH, both included.

    Without a LAST_MONTH every month up to now is one. So is the present month, which nobody has published: its rides
    are quoted and paid, and the watch looks at its days. Dagster's own end date is the first day that is out.
    """
    start = partition_key(settings.first_month)
    if settings.last_month is None:
        return dg.MonthlyPartitionsDefinition(start, end_offset=_PRESENT)
    end = partition_key(settings.last_month + 1)
    after = _months_after(datetime.fromisoformat(end).replace(tzinfo=UTC))
    return dg.MonthlyPartitionsDefinition(start, end, exclusions=after or None, end_offset=_PRESENT)


def _months_after(end: datetime) -> list[datetime]:
    """Returns the first day of each month from `end` to the end of next year.

    To draw metadata by month, Dagster's UI asks for the newest partitions, and Dagster 1.13 answers with the months up
    to today, as if there were no end date: months of 2015 are not among them, and the plots are empty. Months that are
    excluded by name are left out there, too.
    """
    until = datetime.now(UTC).year + 2
    return [
        datetime(year, month, 1, tzinfo=UTC)
        for year in range(end.year, until)
        for month in range(1, 13)
        if (year, month) >= (end.year, end.month)
    ]
