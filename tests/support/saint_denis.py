"""Made-up taxi trips of Saint-Denis on La Réunion, which no source of the project has; dearer from February 2024 on."""

import numpy as np
import pandas as pd

from taxifare.trips.city_files import read_city
from tests.support.cities import SAINT_DENIS

FACTS = read_city(SAINT_DENIS).facts


def trips_between(first: str, end: str, number: int) -> pd.DataFrame:
    """Trips at random times from the first day up to the end, sorted; every tenth from the airport or to it."""
    draws = np.random.default_rng(int(pd.Timestamp(first).value % 2**32))
    low, high = np.array([FACTS.longitude_range_deg, FACTS.latitude_range_deg]).T
    middle = (low + high) / 2
    ends = np.clip(middle + draws.normal(0, 0.15, (2, number, 2)) * (high - low), low + 0.001, high - 0.001)
    airport = (FACTS.airports[0].longitude_deg, FACTS.airports[0].latitude_deg)
    ends[draws.integers(0, 2, number // 10), np.arange(number // 10) * 10] = airport
    span_s = (pd.Timestamp(end) - pd.Timestamp(first)).total_seconds()
    pickups = pd.Timestamp(first) + pd.to_timedelta(np.sort(draws.random(number)) * span_s, unit="s").floor("s")
    way_km = 111.2 * np.hypot(*((ends[1] - ends[0]) * [np.cos(np.radians(middle[1])), 1]).T)
    rate_eur = np.where(pickups >= pd.Timestamp(FACTS.rules[0].since), 2.20, 2.00)
    fares = np.round(3 + 1.3 * rate_eur * way_km + draws.gamma(2, 0.2, number), 1)
    places = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")
    return pd.DataFrame(
        {
            "pickup_datetime": pickups,
            **dict(zip(places, np.hstack([ends[0], ends[1]]).round(6).T, strict=True)),
            "passenger_count": draws.integers(1, 5, number),
            "fare_amount": fares,
        }
    )
