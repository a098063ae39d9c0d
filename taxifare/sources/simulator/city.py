"""Where rides start and end: neighbourhoods and airports, the street grid, and who goes where (a gravity model)."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from taxifare.trips.city_files import shipped

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NEW_YORK = shipped("new-york").facts


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
NAMES = np.array([place.name for place in PLACES])
IN_MANHATTAN = _BOROUGHS == "Manhattan"
_IS_AIRPORT = np.isin(NAMES, [airport.code for airport in NEW_YORK.airports])

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
def toll_shares() -> Floats:
    """Returns the share of rides that pay a toll, by place of pickup and of drop-off."""
    shares = np.zeros((len(PLACES), len(PLACES)))
    for (one, other), share in TOLL_SHARES.items():
        is_one = np.isin(_BOROUGHS, one) | np.isin(NAMES, one)
        # An airport has an entry of its own; its borough's does not apply to it.
        is_other = np.isin(NAMES, other) | (np.isin(_BOROUGHS, other) & ~_IS_AIRPORT)
        crossing = np.outer(is_one, is_other)
        shares[crossing | crossing.T] = share
    return shares


def draw_journeys(rng: np.random.Generator, seconds: Integers) -> tuple[Integers, Integers]:
    """Returns the indices of the places where each ride starts and ends."""
    hour = seconds // 3600 % 24
    night_from, night_until = NEW_YORK.night_hours
    is_night = (hour >= night_from) | (hour < night_until)
    journeys = _journeys()
    # The last step of each part may fall short of a whole by a float's last digits.
    code = np.searchsorted(journeys, np.minimum(is_night + rng.random(len(seconds)), journeys[-1]))
    return code // len(PLACES) % len(PLACES), code % len(PLACES)


def draw_points_km(rng: np.random.Generator, place: Integers) -> Floats:
    """Returns points about the places on the grid: one row across the avenues, one along them, km."""
    scatter = rng.standard_normal((2, len(place))) * _SPREAD_KM[place]
    points: Floats = np.stack([_ACROSS_KM[place], _ALONG_KM[place]]) + scatter
    return points


def grid_distance_km(from_km: Floats, to_km: Floats) -> Floats:
    """Returns how far apart points of the grid are by its streets."""
    distance: Floats = np.abs(to_km - from_km).sum(axis=0)
    return distance
