"""How a ride goes: by which route, and how fast (hour, weekday, season, good and bad days). Neither is published."""

import numpy as np

from taxifare.sources.simulator.city import Floats, Integers, grid_distance_km
from taxifare.sources.simulator.demand import weekdays
from taxifare.trips.months import Month

SHORTEST_RIDE_KM = 0.5
"""Rides shorter than about this are walked."""

# Door-to-door speed of a 2.5 km ride in 2012, km/h, on weekdays and at weekends by hour; relative speed by month.
SPEED_BY_HOUR_KMH = np.array(
    [
        [20, 21, 22, 22, 22, 21, 21, 18, 14, 13, 13, 13, 13, 13, 13, 13, 14, 14, 15, 16, 17, 18, 18, 18],
        [18, 19, 20, 20, 21, 21, 22, 21, 21, 19, 18, 17, 17, 16, 15, 16, 16, 16, 16, 16, 17, 18, 18, 18],
    ]
)
SPEED_BY_MONTH = np.array([1.03, 1.03, 1.02, 1.0, 0.99, 0.99, 1.02, 1.03, 0.98, 0.98, 0.97, 0.97])
YEARLY_SLOWDOWN = 0.02
SPEED_SPREAD_OF_DAYS = 0.04
SPEED_SPREAD_OF_RIDES = 0.27
LONG_RIDES_ARE_FASTER = 0.25
"""Speed grows with distance to this power: long rides use the highways."""

CRUISING_KMH = 32.0
"""Speed between lights; what a ride takes longer than that, it stands."""

MEAN_DETOUR = 0.06
"""Mean excess of the route over the grid distance."""

ERRANDS = 0.02
MEAN_ERRAND = 0.9
"""Share of rides that stop or turn on the way, and the mean excess of their route over the grid distance."""

SLOW_TRAFFIC_FACTOR = 0.7


def draw_route_km(rng: np.random.Generator, pickup_km: Floats, dropoff_km: Floats) -> Floats:
    """Returns the length of each ride's route: the grid distance, with detours and errands nobody publishes."""
    trips = pickup_km.shape[1]
    detour = rng.exponential(MEAN_DETOUR, trips)
    errand = rng.exponential(MEAN_ERRAND, trips) * (rng.random(trips) < ERRANDS)
    driven: Floats = grid_distance_km(pickup_km, dropoff_km) * (1 + detour + errand)
    return driven


def not_walked(pickup_km: Floats, dropoff_km: Floats) -> Floats:
    """Returns the drop-offs, moved away from the pickups where people would have walked."""
    distance_km = np.maximum(grid_distance_km(pickup_km, dropoff_km), 1e-6)
    return pickup_km + (dropoff_km - pickup_km) * np.hypot(distance_km, SHORTEST_RIDE_KM) / distance_km


def draw_times_min(
    rng: np.random.Generator, month: Month, seconds: Integers, driven_km: Floats, *, is_slow: bool
) -> tuple[Floats, Floats]:
    """Returns how long each ride takes and how much of it the taxi stands, minutes.

    `is_slow` lowers all speeds by the scenario's factor.
    """
    day, hour = seconds // 86_400, seconds // 3600 % 24
    is_weekend = (weekdays(month) >= 5).astype(int)
    mood_of_day = np.exp(rng.normal(0, SPEED_SPREAD_OF_DAYS, month.days_in_month))
    years = month.year - 2012 + month.start_time.dayofyear / 366
    level = SPEED_BY_MONTH[month.month - 1] * (1 - YEARLY_SLOWDOWN) ** years
    level *= SLOW_TRAFFIC_FACTOR if is_slow else 1.0
    by_day_and_hour = SPEED_BY_HOUR_KMH[is_weekend] * mood_of_day[:, None] * level
    of_ride = np.exp(
        rng.normal(0, SPEED_SPREAD_OF_RIDES, len(seconds)) + LONG_RIDES_ARE_FASTER * np.log(driven_km / 2.5)
    )
    speed_kmh = np.clip(by_day_and_hour[day, hour] * of_ride, 3.0, 80.0)
    duration_min = 60 * driven_km / speed_kmh
    return duration_min, np.maximum(duration_min - 60 * driven_km / CRUISING_KMH, 0)
