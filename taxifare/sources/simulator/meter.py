"""What a ride costs: the meter, flat fares, surcharges and tolls, by the tariff of its date."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from taxifare.sources.simulator.city import IN_MANHATTAN, NAMES, Floats, Integers, toll_shares

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Tariff:
    """What the meter charges from a date on, USD. The toll is the one of the MTA's bridges and tunnels."""

    since: date
    unit_usd: float
    jfk_flat_usd: float
    newark_surcharge_usd: float
    toll_usd: float


TARIFFS = (
    Tariff(date(2009, 1, 1), unit_usd=0.40, jfk_flat_usd=45.0, newark_surcharge_usd=15.0, toll_usd=4.57),
    Tariff(date(2010, 12, 31), unit_usd=0.40, jfk_flat_usd=45.0, newark_surcharge_usd=15.0, toll_usd=4.80),
    Tariff(date(2012, 9, 4), unit_usd=0.50, jfk_flat_usd=52.0, newark_surcharge_usd=17.5, toll_usd=4.80),
    Tariff(date(2013, 3, 3), unit_usd=0.50, jfk_flat_usd=52.0, newark_surcharge_usd=17.5, toll_usd=5.33),
    Tariff(date(2015, 3, 22), unit_usd=0.50, jfk_flat_usd=52.0, newark_surcharge_usd=17.5, toll_usd=5.54),
)

FLAG_DROP_USD = 2.50
UNIT_KM = 1.609344 / 5
UNIT_MIN = 1.0

# As in September 2012 the flag drop stays: 20 % more a unit is 15 to 17 % more a ride.
RISE_UNIT_FACTOR = 1.2
RISE_JFK_USD = 8.0


def metered_fare(driven_km: Floats, standing_min: Floats, unit_usd: Floats) -> Floats:
    """Returns what the meter shows, USD: the flag drop, which pays the first unit, and every unit begun after it.

    A unit is 1/5 mile driven or 60 s standing or crawling; fractions of both add up, and a unit counts as soon as it
    begins (Taxi and Limousine Commission, Standard City Rate: "pre-assessment of the unit currently being accrued").

    Two miles and 3.5 minutes at lights are 13.5 units, so 13 beyond the first:

    >>> metered_fare(np.array([2 * 1.609344]), np.array([3.5]), np.array([0.40])).round(2)
    array([7.7])
    """
    # Two miles are ten units, not eleven: the rounding keeps a float's last digits from beginning one.
    units = np.ceil(np.round(driven_km / UNIT_KM + standing_min / UNIT_MIN, 6))
    fare_usd: Floats = FLAG_DROP_USD + unit_usd * np.maximum(units - 1, 0)
    return fare_usd


def draw_fares_usd(
    rng: np.random.Generator,
    *,
    pickup_times: Times,
    origin: Integers,
    destination: Integers,
    driven_km: Floats,
    standing_min: Floats,
    rises: bool,
) -> Floats:
    """Returns meter fare plus tolls, by the tariff of each ride's date; `rises` adds the scenario's rise to it."""
    since = np.array([tariff.since for tariff in TARIFFS], "datetime64[us]")
    # Before the first known date the first known tariff applies.
    tariff = np.maximum(np.searchsorted(since, pickup_times, side="right") - 1, 0)

    def charge(name: str) -> Floats:
        charges: Floats = np.array([getattr(one, name) for one in TARIFFS])
        return charges[tariff]

    unit_usd = charge("unit_usd") * (RISE_UNIT_FACTOR if rises else 1.0)
    jfk_flat_usd = charge("jfk_flat_usd") + (RISE_JFK_USD if rises else 0.0)
    is_jfk, is_newark = NAMES == "JFK", NAMES == "EWR"
    is_flat = (is_jfk[origin] & IN_MANHATTAN[destination]) | (IN_MANHATTAN[origin] & is_jfk[destination])
    meter_usd = np.where(is_flat, jfk_flat_usd, metered_fare(driven_km, standing_min, unit_usd))
    surcharge_usd = charge("newark_surcharge_usd") * is_newark[destination]
    pays_toll = rng.random(len(origin)) < toll_shares()[origin, destination]
    tolls_usd = charge("toll_usd") * pays_toll * (1 + is_newark[destination])
    total: Floats = meter_usd + surcharge_usd + tolls_usd
    return total
