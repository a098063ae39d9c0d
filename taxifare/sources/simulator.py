"""A simulated New York taxi meter: months of trips that need no network, no files and no account.

A ride is told from its start: when it is hailed (demand by hour, weekday and season), from where to where (a gravity
model over neighbourhoods and airports), by which route (the street grid, with detours), how fast (hour, weekday,
season, a slow decline over the years, good and bad days) and what the meter shows for it (the tariff and tolls of that
date). Neither route nor speed is published, so the fare cannot be computed from what is known at pickup, only
estimated – with about the error that real trips leave.

Shares, speeds and defect rates were measured on a 1/1000 sample of the public yellow-taxi records, 2009 to June 2015.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from taxifare.digests import digest
from taxifare.sources.base import MonthNotPublishedError, NoBaseError, TripSource, new_york_now
from taxifare.trips.cities import NEW_YORK
from taxifare.trips.months import Month, months_between, parse_month
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.table import DTYPES, as_trip_table

Scenario = Literal["as-it-was", "fare-rise", "slow-traffic"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Times = npt.NDArray[np.datetime64]

GENERATOR_VERSION = 1
"""Part of every revision. Raise it with any change that changes rows, so that months made before count as restated."""

FIRST_BASE_MONTH = parse_month("2009-01")


# The meter


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
SLOW_TRAFFIC_FACTOR = 0.7


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


# The city


@dataclass(frozen=True)
class Place:
    """A neighbourhood or airport: where its rides start and end, and how many do.

    Attributes:
        name: Its name; an airport's is its code.
        borough: Manhattan, Brooklyn, Queens, Bronx or New Jersey: decides the flat fare and the tolls.
        longitude_deg: Its centre.
        latitude_deg: Its centre.
        spread_km: Standard deviation of its rides' ends about the centre, along either axis of the grid.
        pickups: Share of the city's pickups, by day and by night, in thousandths.
        dropoffs: Pull on the drop-offs, by day and by night; for an airport, its share in thousandths.
    """

    name: str
    borough: str
    longitude_deg: float
    latitude_deg: float
    spread_km: float
    pickups: tuple[float, float]
    dropoffs: tuple[float, float]


PLACES = (
    Place("Financial District", "Manhattan", -74.0100, 40.7080, 0.45, (34, 28), (36, 32)),
    Place("SoHo", "Manhattan", -74.0020, 40.7225, 0.45, (45, 60), (47, 42)),
    Place("Lower East Side", "Manhattan", -73.9890, 40.7200, 0.35, (16, 48), (18, 38)),
    Place("Greenwich Village", "Manhattan", -74.0020, 40.7350, 0.42, (48, 80), (45, 63)),
    Place("East Village", "Manhattan", -73.9865, 40.7285, 0.36, (36, 69), (32, 59)),
    Place("Chelsea", "Manhattan", -74.0010, 40.7455, 0.40, (40, 52), (40, 41)),
    Place("Gramercy", "Manhattan", -73.9870, 40.7390, 0.40, (62, 69), (59, 53)),
    Place("Murray Hill", "Manhattan", -73.9777, 40.7455, 0.37, (48, 42), (43, 46)),
    Place("Penn Station", "Manhattan", -73.9910, 40.7507, 0.35, (77, 66), (78, 55)),
    Place("Times Square", "Manhattan", -73.9868, 40.7593, 0.42, (69, 85), (76, 63)),
    Place("Grand Central", "Manhattan", -73.9740, 40.7560, 0.42, (97, 84), (109, 60)),
    Place("Columbus Circle", "Manhattan", -73.9805, 40.7660, 0.42, (63, 53), (64, 40)),
    Place("Lenox Hill", "Manhattan", -73.9630, 40.7670, 0.50, (97, 53), (86, 54)),
    Place("Yorkville", "Manhattan", -73.9540, 40.7790, 0.50, (93, 48), (83, 71)),
    Place("Lincoln Square", "Manhattan", -73.9815, 40.7780, 0.45, (49, 34), (44, 36)),
    Place("Upper West Side", "Manhattan", -73.9715, 40.7920, 0.55, (43, 27), (39, 39)),
    Place("Harlem", "Manhattan", -73.9500, 40.8065, 0.90, (15, 14), (21, 31)),
    Place("Washington Heights", "Manhattan", -73.9400, 40.8410, 0.80, (1.8, 2.3), (4.5, 12)),
    Place("Williamsburg", "Brooklyn", -73.9560, 40.7160, 0.65, (2.6, 17), (6.5, 28)),
    Place("Downtown Brooklyn", "Brooklyn", -73.9900, 40.6905, 0.65, (7.8, 11), (8.4, 22)),
    Place("Park Slope", "Brooklyn", -73.9770, 40.6725, 0.90, (1.5, 5.2), (4.3, 19)),
    Place("Bedford-Stuyvesant", "Brooklyn", -73.9400, 40.6850, 1.40, (0.5, 2.5), (2.9, 18)),
    Place("South Brooklyn", "Brooklyn", -73.9700, 40.6250, 2.80, (0.8, 1.0), (2.9, 9.1)),
    Place("Long Island City", "Queens", -73.9320, 40.7550, 1.10, (8.0, 10), (8.4, 24)),
    Place("Jackson Heights", "Queens", -73.8850, 40.7480, 1.10, (1.7, 2.3), (3.0, 9.9)),
    Place("Forest Hills", "Queens", -73.8450, 40.7220, 1.60, (1.3, 1.4), (2.8, 7.1)),
    Place("Flushing", "Queens", -73.8150, 40.7600, 2.20, (0.4, 0.4), (1.6, 2.6)),
    Place("South Bronx", "Bronx", -73.9150, 40.8220, 1.40, (0.5, 0.6), (1.5, 3.4)),
    Place("Riverdale", "Bronx", -73.8900, 40.8700, 2.00, (0.4, 0.5), (2.2, 6.1)),
    Place("Jersey City", "New Jersey", -74.0500, 40.7250, 1.50, (0.3, 0.7), (0.4, 1.3)),
    Place("LGA", "Queens", -73.8720, 40.7740, 0.40, (23, 18), (17, 7.5)),
    Place("JFK", "Queens", -73.7840, 40.6450, 0.45, (17, 15.5), (9.5, 4.5)),
    Place("EWR", "New Jersey", -74.1785, 40.6915, 0.30, (0.2, 0.2), (1.9, 1.2)),
)

_BOROUGHS = np.array([place.borough for place in PLACES])
_NAMES = np.array([place.name for place in PLACES])
_IN_MANHATTAN = _BOROUGHS == "Manhattan"
_IS_AIRPORT = np.isin(_NAMES, [airport.code for airport in NEW_YORK.airports])

# Share of rides between two boroughs (or with an airport) that pay a toll; the Newark driver is paid the way back too.
TOLL_SHARES = {
    ("Manhattan", "LGA"): 0.83,
    ("Manhattan", "JFK"): 0.80,
    ("Manhattan", "EWR"): 0.74,
    ("Manhattan", "Queens"): 0.18,
    ("Manhattan", "Bronx"): 0.11,
    ("Manhattan", "Brooklyn"): 0.07,
    ("Manhattan", "New Jersey"): 0.74,
    ("Bronx", "Queens"): 1.0,
}

# Degrees to kilometres about the centre of the city, on a plane that the street grid's angle turns.
_CENTRE_DEG = (-73.98, 40.75)
_KM_PER_DEGREE = (84.33, 111.05)
_GRID_ANGLE_RAD = np.radians(NEW_YORK.grid_angle_deg)

GRAVITY_KM = 2.2
AIRPORT_GRAVITY_KM = 12.0
"""Distance at which the pull of a place on rides from elsewhere in the city, or from an airport, has halved."""

SHORTEST_RIDE_KM = 0.5
"""Rides shorter than about this are walked."""


def to_grid_km(longitude_deg: Floats, latitude_deg: Floats) -> tuple[Floats, Floats]:
    """Returns kilometres across the avenues (eastward) and along them (uptown) from Midtown; nulls stay null.

    The distance a taxi drives on the grid is the sum of the absolute differences of the two. An avenue block north:

    >>> across, along = to_grid_km(np.array([-73.98, -73.97422]), np.array([40.75, 40.75788]))
    >>> np.diff(across).round(2) + 0.0, np.diff(along).round(2)
    (array([0.]), array([1.]))
    """
    east_km = (longitude_deg - _CENTRE_DEG[0]) * _KM_PER_DEGREE[0]
    north_km = (latitude_deg - _CENTRE_DEG[1]) * _KM_PER_DEGREE[1]
    cosine, sine = np.cos(_GRID_ANGLE_RAD), np.sin(_GRID_ANGLE_RAD)
    return east_km * cosine - north_km * sine, east_km * sine + north_km * cosine


def from_grid_km(across_km: Floats, along_km: Floats) -> tuple[Floats, Floats]:
    """Returns longitude and latitude of a point on the grid: the inverse of `to_grid_km`, to the sixth decimal.

    >>> from_grid_km(np.array([0.0]), np.array([0.0]))
    (array([-73.98]), array([40.75]))
    """
    cosine, sine = np.cos(_GRID_ANGLE_RAD), np.sin(_GRID_ANGLE_RAD)
    east_km, north_km = across_km * cosine + along_km * sine, along_km * cosine - across_km * sine
    longitude_deg = _CENTRE_DEG[0] + east_km / _KM_PER_DEGREE[0]
    latitude_deg = _CENTRE_DEG[1] + north_km / _KM_PER_DEGREE[1]
    return np.round(longitude_deg, 6), np.round(latitude_deg, 6)


_ACROSS_KM, _ALONG_KM = to_grid_km(
    np.array([place.longitude_deg for place in PLACES]), np.array([place.latitude_deg for place in PLACES])
)
_SPREAD_KM = np.array([place.spread_km for place in PLACES])


@cache
def _journeys() -> Floats:
    """Returns the cumulative shares of journeys (from, to) by day, in (0, 1], then by night, in (1, 2]."""
    tables = []
    for part_of_day in (0, 1):
        pickups = np.array([place.pickups[part_of_day] for place in PLACES])
        dropoffs = np.array([place.dropoffs[part_of_day] for place in PLACES])
        distance_km = np.hypot(_ACROSS_KM[:, None] - _ACROSS_KM, _ALONG_KM[:, None] - _ALONG_KM)
        reach_km = np.where(_IS_AIRPORT, AIRPORT_GRAVITY_KM, GRAVITY_KM)[:, None]
        pull = dropoffs / (1 + (distance_km / reach_km) ** 2)
        pull[:, _IS_AIRPORT] = 0
        to_airport = np.where(_IS_AIRPORT[:, None], 0.0, dropoffs * _IS_AIRPORT) / 1000
        to_city = pull / pull.sum(axis=1, keepdims=True) * (1 - to_airport.sum(axis=1, keepdims=True))
        tables.append(pickups[:, None] / pickups.sum() * (to_city + to_airport))
    cumulative: Floats = np.cumsum(np.concatenate([table.ravel() for table in tables]))
    return cumulative


@cache
def _toll_shares() -> Floats:
    """Returns the share of rides that pay a toll, by place of pickup and of drop-off."""
    shares = np.zeros((len(PLACES), len(PLACES)))
    for (one, other), share in TOLL_SHARES.items():
        is_one = np.isin(_BOROUGHS, one) | np.isin(_NAMES, one)
        # An airport has an entry of its own; its borough's does not apply to it.
        is_other = np.isin(_NAMES, other) | (np.isin(_BOROUGHS, other) & ~_IS_AIRPORT)
        crossing = np.outer(is_one, is_other)
        shares[crossing | crossing.T] = share
    return shares


# Thousandths of a day's rides by hour, on weekdays and at weekends; of a week's by weekday from Monday; relative demand
# by month of the year.
_DEMAND_BY_HOUR = np.array(
    [
        [29, 18, 12, 8, 7, 11, 27, 47, 55, 51, 46, 48, 47, 47, 50, 46, 40, 49, 63, 64, 63, 61, 60, 49],
        [58, 51, 43, 32, 21, 9, 12, 14, 23, 32, 43, 50, 52, 54, 49, 50, 45, 52, 55, 55, 51, 47, 52, 48],
    ]
)
_DEMAND_BY_WEEKDAY = np.array([128, 141, 144, 150, 154, 152, 131])
_DEMAND_BY_MONTH = np.array([0.99, 0.95, 1.06, 1.03, 1.06, 1.02, 0.98, 0.92, 1.01, 1.04, 0.97, 0.97])

# Door-to-door speed of a 2.5 km ride in 2012, km/h, on weekdays and at weekends by hour; relative speed by month.
_SPEED_BY_HOUR_KMH = np.array(
    [
        [20, 21, 22, 22, 22, 21, 21, 18, 14, 13, 13, 13, 13, 13, 13, 13, 14, 14, 15, 16, 17, 18, 18, 18],
        [18, 19, 20, 20, 21, 21, 22, 21, 21, 19, 18, 17, 17, 16, 15, 16, 16, 16, 16, 16, 17, 18, 18, 18],
    ]
)
_SPEED_BY_MONTH = np.array([1.03, 1.03, 1.02, 1.0, 0.99, 0.99, 1.02, 1.03, 0.98, 0.98, 0.97, 0.97])
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

_PASSENGERS = np.array([1, 2, 5, 3, 4, 6])
_PASSENGER_SHARES = np.array([0.6938, 0.1483, 0.0711, 0.0441, 0.0216, 0.0211])

# Share of published rows with a defect, one for each kind.
ROUND_TRIPS = 0.007
ZERO_COORDINATES = 0.018
ZERO_PICKUP = 0.001
ZERO_DROPOFF = 0.001
NO_PASSENGERS = 0.0035
ABSURD_PASSENGERS = 1e-5
NEGATIVE_FARES = 4e-5
ZERO_FARES = 3e-5
ABSURD_FARES = 1e-5
NULL_DROPOFFS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Simulator(TripSource):
    """Publishes simulated trips, the same for the same seed, month, number of trips and scenario.

    Attributes:
        seed: Seed of all months.
        trips_per_month: Trips in a month of average demand; a month has up to 8 % more or fewer by its season.
        base_trips: Trips of the base years together.
        first_month: First published month; the base years run from 2009-01 up to it.
        last_month: Last published month, even one to come; None: the last that is over in New York.
        scenario: What changes: `fare-rise` makes rides about 16 % dearer, `slow-traffic` lowers all speeds by 30 %.
        scenario_from: First month of the scenario.
        now: The wall clock in New York.
    """

    seed: int
    trips_per_month: int
    base_trips: int
    first_month: Month
    last_month: Month | None
    scenario: Scenario
    scenario_from: Month
    now: Callable[[], pd.Timestamp] = new_york_now

    def months(self) -> dict[Month, str]:
        """Returns the months from first to last and their revisions; a scenario changes those it touches."""
        last = self.last_month or self.now().to_period("M") - 1
        return {month: self._revision(month) for month in months_between(self.first_month, last)}

    def read_month(self, month: Month) -> Publication:
        """Returns one month of trips.

        Raises:
            MonthNotPublishedError: The month is before the first or after the last.
        """
        revisions = self.months()
        if month not in revisions:
            span = f"{min(revisions)} to {max(revisions)}" if revisions else f"none before {self.first_month} is over"
            raise MonthNotPublishedError(f"{self._origin}: no month {month}; months are {span}")
        trips = as_trip_table(self._rows(month, self._trips_in(month)), self._origin)
        return Publication(trips, revisions[month], self._origin)

    def read_base(self) -> BasePublication:
        """Returns the trips of the base years, from 2009-01 up to the first month, month by month.

        Raises:
            NoBaseError: The first month leaves no base years.
        """
        parts = (self._base_part(month, trips) for month, trips in self._base_months().items() if trips)
        return BasePublication(parts, self.base_revision(), self._origin)

    def base_revision(self) -> str:
        """Returns the revision of the base years.

        Raises:
            NoBaseError: The first month leaves no base years.
        """
        return digest([self._facts(month, trips) for month, trips in self._base_months().items()])

    @property
    def _origin(self) -> str:
        return f"simulator (seed {self.seed}, {self.scenario})"

    def _trips_in(self, month: Month) -> int:
        """Returns the trips of a published month: the average, by the season's demand."""
        return max(1, round(self.trips_per_month * float(_DEMAND_BY_MONTH[month.month - 1])))

    def _base_months(self) -> dict[Month, int]:
        """Returns the months of the base years and how many of the base trips each has, by the season's demand."""
        if self.first_month <= FIRST_BASE_MONTH:
            raise NoBaseError(
                f"{self._origin}: no base years: they start in {FIRST_BASE_MONTH} and end before the first month, "
                f"received {self.first_month}"
            )
        months = list(months_between(FIRST_BASE_MONTH, self.first_month - 1))
        demand = np.cumsum([_DEMAND_BY_MONTH[month.month - 1] for month in months])
        until = np.round(demand / demand[-1] * self.base_trips).astype(int)
        return dict(zip(months, np.diff(until, prepend=0).tolist(), strict=True))

    def _base_part(self, month: Month, trips: int) -> Publication:
        rows = as_trip_table(self._rows(month, trips), self._origin)
        return Publication(rows, digest(self._facts(month, trips)), self._origin)

    def _scenario_in(self, month: Month) -> Scenario:
        return self.scenario if month >= self.scenario_from else "as-it-was"

    def _facts(self, month: Month, trips: int) -> list[object]:
        """Returns all that decides the rows of a month."""
        return [GENERATOR_VERSION, self.seed, str(month), trips, self._scenario_in(month)]

    def _revision(self, month: Month) -> str:
        return digest(self._facts(month, self._trips_in(month)))

    def _rows(self, month: Month, trips: int) -> pd.DataFrame:
        """Returns the published rows of a month, sorted by pickup time."""
        # Seeded by month alone, so that no month's rows depend on which others were made before it.
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, month.year, month.month]))
        scenario = self._scenario_in(month)
        seconds = _pickup_seconds(rng, month, trips)
        origin, destination = _choose_journeys(rng, seconds)
        pickup_km = _around(rng, origin)
        dropoff_km = _not_walked(pickup_km, _around(rng, destination))
        driven_km = _driven_km(rng, pickup_km, dropoff_km)
        duration_min, standing_min = _times_min(rng, month, seconds, driven_km, scenario)
        start = np.datetime64(str(month), "us")
        pickup_times = start + seconds.astype("timedelta64[s]")
        fare_usd = _fares_usd(
            rng,
            pickup_times=pickup_times,
            origin=origin,
            destination=destination,
            driven_km=driven_km,
            standing_min=standing_min,
            rises=scenario == "fare-rise",
        )
        # There and back: nothing published tells how far such a ride went.
        returns = rng.random(trips) < ROUND_TRIPS
        dropoff_km = np.where(returns, pickup_km + rng.normal(0, 0.01, pickup_km.shape), dropoff_km)
        pickup_longitude, pickup_latitude = from_grid_km(*pickup_km)
        dropoff_longitude, dropoff_latitude = from_grid_km(*dropoff_km)
        rows = pd.DataFrame(
            {
                "key": _keys(start, seconds),
                "pickup_datetime": pickup_times,
                "pickup_longitude": pickup_longitude,
                "pickup_latitude": pickup_latitude,
                "dropoff_longitude": dropoff_longitude,
                "dropoff_latitude": dropoff_latitude,
                "passenger_count": rng.choice(_PASSENGERS, trips, p=_PASSENGER_SHARES),
                "fare_amount": np.round(fare_usd, 2),
                "dropoff_datetime": pickup_times + np.round(duration_min * 60).astype("timedelta64[s]"),
            }
        )
        return _with_defects(rng, rows)


def _pickup_seconds(rng: np.random.Generator, month: Month, trips: int) -> Integers:
    """Returns the seconds of the month at which rides start, ascending: demand by hour and weekday."""
    weekday = _weekdays(month)
    weights = _DEMAND_BY_WEEKDAY[weekday, None] * _DEMAND_BY_HOUR[(weekday >= 5).astype(int)]
    cumulative = np.concatenate([[0.0], np.cumsum(weights.ravel())])
    hour_starts_s = np.arange(len(cumulative)) * 3600
    seconds = np.interp(np.sort(rng.random(trips)), cumulative / cumulative[-1], hour_starts_s)
    # Interpolation may round up to the first instant of the next month.
    return np.minimum(seconds.astype(np.int64), month.days_in_month * 86_400 - 1)


def _weekdays(month: Month) -> Integers:
    """Returns the weekday of each day of the month, Monday 0."""
    return (month.start_time.weekday() + np.arange(month.days_in_month)) % 7


def _choose_journeys(rng: np.random.Generator, seconds: Integers) -> tuple[Integers, Integers]:
    """Returns the indices of the places where each ride starts and ends."""
    hour = seconds // 3600 % 24
    night_from, night_until = NEW_YORK.night_hours
    is_night = (hour >= night_from) | (hour < night_until)
    journeys = _journeys()
    # The last step of each part may fall short of a whole by a float's last digits.
    code = np.searchsorted(journeys, np.minimum(is_night + rng.random(len(seconds)), journeys[-1]))
    return code // len(PLACES) % len(PLACES), code % len(PLACES)


def _around(rng: np.random.Generator, place: Integers) -> Floats:
    """Returns points about the places on the grid: one row across the avenues, one along them, km."""
    scatter = rng.standard_normal((2, len(place))) * _SPREAD_KM[place]
    points: Floats = np.stack([_ACROSS_KM[place], _ALONG_KM[place]]) + scatter
    return points


def _grid_distance_km(from_km: Floats, to_km: Floats) -> Floats:
    distance: Floats = np.abs(to_km - from_km).sum(axis=0)
    return distance


def _driven_km(rng: np.random.Generator, pickup_km: Floats, dropoff_km: Floats) -> Floats:
    """Returns the length of each ride's route: the grid distance, with detours and errands nobody publishes."""
    trips = pickup_km.shape[1]
    detour = rng.exponential(MEAN_DETOUR, trips)
    errand = rng.exponential(MEAN_ERRAND, trips) * (rng.random(trips) < ERRANDS)
    driven: Floats = _grid_distance_km(pickup_km, dropoff_km) * (1 + detour + errand)
    return driven


def _not_walked(pickup_km: Floats, dropoff_km: Floats) -> Floats:
    """Returns the drop-offs, moved away from the pickups where people would have walked."""
    distance_km = np.maximum(_grid_distance_km(pickup_km, dropoff_km), 1e-6)
    return pickup_km + (dropoff_km - pickup_km) * np.hypot(distance_km, SHORTEST_RIDE_KM) / distance_km


def _times_min(
    rng: np.random.Generator, month: Month, seconds: Integers, driven_km: Floats, scenario: Scenario
) -> tuple[Floats, Floats]:
    """Returns how long each ride takes and how much of it the taxi stands, minutes."""
    day, hour = seconds // 86_400, seconds // 3600 % 24
    is_weekend = (_weekdays(month) >= 5).astype(int)
    mood_of_day = np.exp(rng.normal(0, SPEED_SPREAD_OF_DAYS, month.days_in_month))
    years = month.year - 2012 + month.start_time.dayofyear / 366
    level = _SPEED_BY_MONTH[month.month - 1] * (1 - YEARLY_SLOWDOWN) ** years
    level *= SLOW_TRAFFIC_FACTOR if scenario == "slow-traffic" else 1.0
    by_day_and_hour = _SPEED_BY_HOUR_KMH[is_weekend] * mood_of_day[:, None] * level
    of_ride = np.exp(
        rng.normal(0, SPEED_SPREAD_OF_RIDES, len(seconds)) + LONG_RIDES_ARE_FASTER * np.log(driven_km / 2.5)
    )
    speed_kmh = np.clip(by_day_and_hour[day, hour] * of_ride, 3.0, 80.0)
    duration_min = 60 * driven_km / speed_kmh
    return duration_min, np.maximum(duration_min - 60 * driven_km / CRUISING_KMH, 0)


def _fares_usd(
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
    is_jfk, is_newark = _NAMES == "JFK", _NAMES == "EWR"
    is_flat = (is_jfk[origin] & _IN_MANHATTAN[destination]) | (_IN_MANHATTAN[origin] & is_jfk[destination])
    meter_usd = np.where(is_flat, jfk_flat_usd, metered_fare(driven_km, standing_min, unit_usd))
    surcharge_usd = charge("newark_surcharge_usd") * is_newark[destination]
    pays_toll = rng.random(len(origin)) < _toll_shares()[origin, destination]
    tolls_usd = charge("toll_usd") * pays_toll * (1 + is_newark[destination])
    total: Floats = meter_usd + surcharge_usd + tolls_usd
    return total


def _keys(start: np.datetime64, seconds: Integers) -> pd.Series:
    """Returns a unique text for each ride as Kaggle writes it: `2015-01-27 13:08:24.0000001`.

    The seventh decimal counts the rides that start in the same second, so it is a time in steps of 100 ns – and the
    time's own text, cut to seven decimals, is the key: no string is formatted row by row.
    """
    of_second = np.arange(len(seconds)) - np.searchsorted(seconds, seconds) + 1
    time_ns = start.astype("datetime64[ns]").astype(np.int64) + seconds * 1_000_000_000 + of_second * 100
    text = pc.utf8_slice_codeunits(pa.array(time_ns, pa.timestamp("ns")).cast(pa.string()), 0, 27)
    return pd.Series(text, dtype=DTYPES["text"])


def _with_defects(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows as they are published: with what goes wrong between meter and file, at its natural rate."""
    pickup, dropoff = ["pickup_longitude", "pickup_latitude"], ["dropoff_longitude", "dropoff_latitude"]

    def some(share: float) -> npt.NDArray[np.intp]:
        return np.flatnonzero(rng.random(len(rows)) < share)

    for columns, share in ((pickup + dropoff, ZERO_COORDINATES), (pickup, ZERO_PICKUP), (dropoff, ZERO_DROPOFF)):
        rows.loc[some(share), columns] = 0.0
    rows.loc[some(NULL_DROPOFFS), dropoff] = np.nan
    rows.loc[some(NO_PASSENGERS), "passenger_count"] = 0
    rows.loc[some(ABSURD_PASSENGERS), "passenger_count"] = 208
    negative, absurd = some(NEGATIVE_FARES), some(ABSURD_FARES)
    rows.loc[negative, "fare_amount"] *= -1
    rows.loc[some(ZERO_FARES), "fare_amount"] = 0.0
    rows.loc[absurd, "fare_amount"] = 6770.0
    return rows
