"""Whether a month is there as a whole: its rides reach its end, and are not a fraction of what its neighbours have.

A publisher may put a month up while it is being written, or let the first rides of one spill into the file of the one
before. Neither is a month, and every check of single rides passes. Why these two rules: docs/decisions.md, under trips.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import pandas as pd

from taxifare.trips.months import Month, bounds
from taxifare.trips.publication import LargePublication, Publication

NEIGHBOURS = 3
"""How many months on either side are compared with: demand has a season."""

_GAPS = 14
"""So many mean gaps in a row, without a ride, have a chance of one in a million."""


@dataclass(frozen=True)
class Extent:
    """How far a month goes.

    Attributes:
        rides: How many rides were published, drawn or not.
        first: When the first one begins.
        last: When the last one begins.
    """

    rides: int
    first: pd.Timestamp
    last: pd.Timestamp


def extent_of(published: Publication | LargePublication) -> Extent:
    """Returns how far a month goes that was read."""
    pickups = published.pickups
    rides = len(pickups) + published.dropped.get("not_drawn", 0)
    return Extent(rides, pd.Timestamp(pickups.min()), pd.Timestamp(pickups.max()))


def lacks_end(month: Month, extent: Extent, within_hours: float) -> str | None:
    """Returns in what a month does not reach its end; None where it does.

    Of a month with few rides the last one may be earlier: by so many mean gaps between rides as chance allows.

    >>> from taxifare.trips.months import parse_month
    >>> january, day = parse_month("2015-01"), pd.Timestamp
    >>> lacks_end(january, Extent(12_000, day("2015-01-01"), day("2015-01-31 23:50")), 24)
    >>> lacks_end(january, Extent(150, day("2015-01-01"), day("2015-01-01 03:10")), 24)
    'its last ride begins 2015-01-01 03:10, expected one less than 24 h before 2015-02-01 (MONTH_ENDS_WITHIN_HOURS)'
    >>> lacks_end(january, Extent(60, day("2015-01-01"), day("2015-01-30 03:10")), 24)
    """
    until = bounds(month)[1]
    mean_gap = (extent.last - extent.first) / max(extent.rides - 1, 1)
    if until - extent.last <= max(pd.Timedelta(hours=within_hours), _GAPS * mean_gap):
        return None
    return (
        f"its last ride begins {extent.last:%Y-%m-%d %H:%M}, expected one less than {within_hours:g} h before "
        f"{until:%Y-%m-%d} (MONTH_ENDS_WITHIN_HOURS)"
    )


def lacks_rides(month: Month, rides: int, others: Mapping[Month, int], least_share: float) -> str | None:
    """Returns of what number a month's rides are a fraction; None where they are not, or no neighbour is known.

    >>> from taxifare.trips.months import parse_month
    >>> others = {parse_month("2015-01"): 12_000, parse_month("2015-02"): 13_000, parse_month("2013-03"): 9}
    >>> lacks_rides(parse_month("2015-03"), 12_900, others, 0.25)
    >>> lacks_rides(parse_month("2015-03"), 150, others, 0.25)
    'it has 150 rides, expected at least 25 % of the 12,500 of the months beside it (MONTH_LEAST_SHARE)'
    """
    beside = [count for other, count in others.items() if 0 < abs((other - month).n) <= NEIGHBOURS]
    if not beside or rides >= least_share * (usual := median(beside)):
        return None
    return (
        f"it has {rides:,} rides, expected at least {100 * least_share:.0f} % of the {usual:,.0f} of the months beside "
        "it (MONTH_LEAST_SHARE)"
    )
