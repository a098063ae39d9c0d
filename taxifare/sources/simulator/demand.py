"""When rides start: demand by month, weekday and hour."""

import numpy as np

from taxifare.sources.simulator.city import Integers
from taxifare.trips.months import Month

# Thousandths of a day's rides by hour, on weekdays and at weekends; of a week's by weekday from Monday; relative demand
# by month of the year.
DEMAND_BY_HOUR = np.array(
    [
        [29, 18, 12, 8, 7, 11, 27, 47, 55, 51, 46, 48, 47, 47, 50, 46, 40, 49, 63, 64, 63, 61, 60, 49],
        [58, 51, 43, 32, 21, 9, 12, 14, 23, 32, 43, 50, 52, 54, 49, 50, 45, 52, 55, 55, 51, 47, 52, 48],
    ]
)
DEMAND_BY_WEEKDAY = np.array([128, 141, 144, 150, 154, 152, 131])
DEMAND_BY_MONTH = np.array([0.99, 0.95, 1.06, 1.03, 1.06, 1.02, 0.98, 0.92, 1.01, 1.04, 0.97, 0.97])


def draw_pickups_s(rng: np.random.Generator, month: Month, trips: int) -> Integers:
    """Returns the seconds of the month at which rides start, ascending: demand by hour and weekday."""
    weekday = weekdays(month)
    weights = DEMAND_BY_WEEKDAY[weekday, None] * DEMAND_BY_HOUR[(weekday >= 5).astype(int)]
    cumulative = np.concatenate([[0.0], np.cumsum(weights.ravel())])
    hour_starts_s = np.arange(len(cumulative)) * 3600
    seconds = np.interp(np.sort(rng.random(trips)), cumulative / cumulative[-1], hour_starts_s)
    # Interpolation may round up to the first instant of the next month.
    return np.minimum(seconds.astype(np.int64), month.days_in_month * 86_400 - 1)


def weekdays(month: Month) -> Integers:
    """Returns the weekday of each day of the month, Monday 0."""
    return (month.start_time.weekday() + np.arange(month.days_in_month)) % 7
