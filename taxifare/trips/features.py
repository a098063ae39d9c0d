"""Features: what a network is told of a trip, from that trip and the city's facts alone.

What has to be learned from trips (scales, cells, weights) lives in the network. They are computed from plain arrays
(`RideFeatures`), by whoever trains and whoever serves: a process that prices rides has no pandas. A registered model
carries this module and `cities` with it by value, so both need nothing but numpy, and pandas where trips are a frame.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from taxifare.trips.cities import City

if TYPE_CHECKING:
    import pandas as pd

Vector = npt.NDArray[np.float32]

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG

KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180

MISSING_PASSENGERS = 1
"""What a null passenger count is taken for: the count of 70 % of the trips."""

_MICROSECONDS_PER_MINUTE = 60_000_000

_MINUTES_PER_DAY = 1440

_MINUTES_PER_WEEK = 7 * _MINUTES_PER_DAY

_FIRST_MINUTE_OF_WEEK = 3 * _MINUTES_PER_DAY  # 1970-01-01 was a Thursday, three days after a Monday

_SATURDAY = 5

_DAYS_PER_YEAR = 365.2425

_TREND_ORIGIN = np.datetime64("2000-01-01", "D")


class InputError(ValueError):
    """Trips without features, because of what they are: no model can predict them. Names the column."""


def feature_names(city: City) -> tuple[str, ...]:
    """Returns the names of the features, in the order of the columns of `RideFeatures.of`.

    >>> from taxifare.trips.city_files import shipped
    >>> feature_names(shipped("new-york").facts)[:4]
    ('haversine_km', 'grid_km', 'pickup_jfk_km', 'dropoff_jfk_km')
    """
    airport_names = (f"{end}_{airport.code.lower()}_km" for airport in city.airports for end in ("pickup", "dropoff"))
    return (
        *("haversine_km", "grid_km"),
        *airport_names,
        *("pickup_east_km", "pickup_north_km", "dropoff_east_km", "dropoff_north_km"),
        *("east_km", "north_km", "bearing_sin", "bearing_cos"),
        *("weekday", "hour", "hour_sin_1", "hour_cos_1", "hour_sin_2", "hour_cos_2"),
        *("week_sin", "week_cos", "is_night", "is_rush", "year_sin", "year_cos"),
        "passengers",
        *(rule.name for rule in city.rules),
        "trend_years",
    )


class RideFeatures:
    """The features of a city's rides; what repeats every week, or is the same all day, is kept once it is computed.

    | feature | unit | meaning |
    |---|---|---|
    | `haversine_km` | km | great-circle distance of the ends |
    | `grid_km` | km | distance along the streets of the city's rotated grid |
    | `east_km`, `north_km` | km | signed way from pickup to drop-off |
    | `bearing_sin`, `bearing_cos` | - | its direction, clockwise from north; 0, 1 where the ends coincide |
    | `pickup_east_km` … `dropoff_north_km` | km | position of an end, from the middle of the city's box |
    | `pickup_jfk_km` … | km | distance of an end to an airport |
    | `hour`, `hour_sin_1` … | h, - | time of day, and its first two harmonics |
    | `weekday`, `week_sin`, `week_cos` | 0 Monday … 6, - | day, and time in the week |
    | `is_night`, `is_rush` | 0/1 | the city's night hours; its evening rush, Monday to Friday |
    | `year_sin`, `year_cos` | - | season |
    | `trend_years` | years | since 2000, by day |
    | a rule's name | 0/1 | whether the dated rule was in force |
    | `passengers` | - | null counts as `MISSING_PASSENGERS` |

    Positions are projected as x = R·cos(middle latitude)·Δlongitude, y = R·Δlatitude: within a city's box that is
    right to 0.3 %. Nothing that is known only after the pickup is read.

    Args:
        city: Where the rides are.

    Attributes:
        names: What each column is, see `feature_names`.
    """

    def __init__(self, city: City) -> None:
        self.names = feature_names(city)
        self._city = city
        self._week = _by_minute_of_week(city)
        self._days = _Days(0, -1, {})
        self._airports = {
            airport.code.lower(): project_km(np.array(airport.longitude_deg), np.array(airport.latitude_deg), city)
            for airport in city.airports
        }

    def of(
        self,
        pickup_datetime: npt.NDArray[np.datetime64],
        pickup: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        dropoff: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        passenger_count: npt.NDArray[Any],
    ) -> npt.NDArray[np.float32]:
        """Returns the features of n rides (n, k), each column in one piece of memory.

        Args:
            pickup_datetime: When they begin on the city's clock, shape (n,), none null.
            pickup: Longitudes and latitudes where they begin, degrees, finite.
            dropoff: Those where they end.
            passenger_count: How many ride; see `MISSING_PASSENGERS`.
        """
        columns = self._geometry(pickup, dropoff) | self._calendar(pickup_datetime)
        columns["passengers"] = passenger_count
        block = np.empty((len(self.names), len(pickup_datetime)), dtype=np.float32)
        for row, name in zip(block, self.names, strict=True):
            row[:] = columns[name]
        return block.T

    def _geometry(
        self,
        pickup: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        dropoff: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    ) -> dict[str, npt.NDArray[Any]]:
        """Returns the features that depend on where a ride starts and ends."""
        ends = {"pickup": project_km(*pickup, self._city), "dropoff": project_km(*dropoff, self._city)}
        east_km = ends["dropoff"][0] - ends["pickup"][0]
        north_km = ends["dropoff"][1] - ends["pickup"][1]
        straight_km = np.hypot(east_km, north_km)
        moved = straight_km > 0
        columns: dict[str, npt.NDArray[Any]] = {
            "haversine_km": haversine_km(*pickup, *dropoff),
            "grid_km": grid_distance_km(east_km, north_km, self._city.grid_angle_deg),
            "east_km": east_km,
            "north_km": north_km,
            "bearing_sin": np.divide(east_km, straight_km, out=np.zeros_like(east_km), where=moved),
            "bearing_cos": np.divide(north_km, straight_km, out=np.ones_like(north_km), where=moved),
        }
        for end, (end_east_km, end_north_km) in ends.items():
            columns[f"{end}_east_km"] = end_east_km
            columns[f"{end}_north_km"] = end_north_km
            for code, here in self._airports.items():
                columns[f"{end}_{code}_km"] = np.hypot(end_east_km - here[0], end_north_km - here[1])
        return columns

    def _calendar(self, pickup_datetime: npt.NDArray[np.datetime64]) -> dict[str, npt.NDArray[Any]]:
        """Returns the features that depend on when a ride starts, each looked up by its minute of the week or day."""
        minutes = pickup_datetime.astype("datetime64[us]").view(np.int64) // _MICROSECONDS_PER_MINUTE
        minute_of_week = (minutes + _FIRST_MINUTE_OF_WEEK) % _MINUTES_PER_WEEK
        columns = {name: values[minute_of_week] for name, values in self._week.items()}
        days = minutes // _MINUTES_PER_DAY
        first, last = (int(days.min()), int(days.max())) if len(days) else (0, 0)
        known = self._days
        if not known.first <= first <= last <= known.last:
            if known.columns:
                first, last = min(first, known.first), max(last, known.last)
            # One assignment: whoever predicts in another thread meets the old days or the new ones, each whole.
            known = self._days = _Days(first, last, _by_day(first, last, self._city))
        day = days - known.first
        return columns | {name: values[day] for name, values in known.columns.items()}


def compute_features(trips: "pd.DataFrame", city: City) -> "pd.DataFrame":
    """Returns the features of each trip, see `RideFeatures`: one float32 column for each of `feature_names`, no nulls.

    Args:
        trips: Rows with the trip-table columns known at pickup; others are not looked at.
        city: Where the trips are.

    Returns:
        A frame with the trips' index, in one block of memory: its values can be taken without a copy.

    Raises:
        InputError: A coordinate is null or infinite, or a pickup time is null.
    """
    import pandas as pd

    pickup, dropoff = _places(trips)
    passengers = trips["passenger_count"].to_numpy(dtype=np.float32, na_value=MISSING_PASSENGERS)
    features = RideFeatures(city)
    block = features.of(_times(trips), pickup, dropoff, passengers)
    return pd.DataFrame(block, columns=list(features.names), index=trips.index, copy=False)


def check_computable(trips: "pd.DataFrame") -> None:
    """Ensures that the trips have features, of whatever city.

    Raises:
        InputError: A coordinate is null or infinite, or a pickup time is null.
    """
    _places(trips)
    _times(trips)


def haversine_km(
    longitude_1: npt.ArrayLike,
    latitude_1: npt.ArrayLike,
    longitude_2: npt.ArrayLike,
    latitude_2: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Returns the great-circle distance of points given in degrees, in km.

    2 R asin √(sin²(Δφ/2) + cos φ₁ cos φ₂ sin²(Δλ/2)), with the Earth's mean radius.

    >>> float(haversine_km(-73.9857, 40.7484, -73.7781, 40.6413).round(3))
    21.17
    """
    phi_1, phi_2 = np.radians(latitude_1), np.radians(latitude_2)
    half_way = np.sin((phi_2 - phi_1) / 2) ** 2
    half_way = (
        half_way + np.cos(phi_1) * np.cos(phi_2) * np.sin(np.radians(np.subtract(longitude_2, longitude_1)) / 2) ** 2
    )
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half_way)))


def project_km(
    longitude_deg: npt.NDArray[np.float64], latitude_deg: npt.NDArray[np.float64], city: City
) -> tuple[Vector, Vector]:
    """Returns how far east and north of the middle of the city's box points given in degrees are, in km."""
    middle_longitude = sum(city.longitude_range_deg) / 2
    middle_latitude = sum(city.latitude_range_deg) / 2
    east_km_per_degree = KM_PER_DEGREE * np.cos(np.radians(middle_latitude))
    return (
        ((longitude_deg - middle_longitude) * east_km_per_degree).astype(np.float32),
        ((latitude_deg - middle_latitude) * KM_PER_DEGREE).astype(np.float32),
    )


def grid_distance_km(east_km: Vector, north_km: Vector, grid_angle_deg: float) -> Vector:
    """Returns the length of a way that follows a rotated street grid: |along the avenues| + |across them|.

    >>> round(float(grid_distance_km(np.float32([1]), np.float32([1]), 45.0)[0]), 4)
    1.4142
    """
    sine, cosine = (
        np.float32(np.sin(np.radians(grid_angle_deg))),
        np.float32(np.cos(np.radians(grid_angle_deg))),
    )
    return np.abs(east_km * sine + north_km * cosine) + np.abs(east_km * cosine - north_km * sine)


class _Days(NamedTuple):
    """The features of the days from first to last, counted from 1970-01-01."""

    first: int
    last: int
    columns: dict[str, Vector]


def _by_minute_of_week(city: City) -> dict[str, Vector]:
    """Returns the features of the 10,080 minutes of a week that starts on Monday at midnight."""
    weekday, minute = np.divmod(np.arange(_MINUTES_PER_WEEK), _MINUTES_PER_DAY)
    hour = minute / 60
    day_turn = 2 * np.pi * minute / _MINUTES_PER_DAY
    week_turn = 2 * np.pi * np.arange(_MINUTES_PER_WEEK) / _MINUTES_PER_WEEK
    night_from, night_to = city.night_hours
    rush_from, rush_to = city.rush_hours
    columns = {
        "hour": hour,
        "hour_sin_1": np.sin(day_turn),
        "hour_cos_1": np.cos(day_turn),
        "hour_sin_2": np.sin(2 * day_turn),
        "hour_cos_2": np.cos(2 * day_turn),
        "weekday": weekday,
        "week_sin": np.sin(week_turn),
        "week_cos": np.cos(week_turn),
        "is_night": (hour >= night_from) | (hour < night_to),
        "is_rush": (hour >= rush_from) & (hour < rush_to) & (weekday < _SATURDAY),
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _by_day(first_day: int, last_day: int, city: City) -> dict[str, Vector]:
    """Returns the features of the days from first to last, counted from 1970-01-01."""
    days = np.arange(first_day, last_day + 1).astype("datetime64[D]")
    new_year = days.astype("datetime64[Y]").astype("datetime64[D]")
    season = 2 * np.pi * (days - new_year).astype(np.float64) / _DAYS_PER_YEAR
    columns = {
        "year_sin": np.sin(season),
        "year_cos": np.cos(season),
        "trend_years": (days - _TREND_ORIGIN).astype(np.float64) / _DAYS_PER_YEAR,
    } | {rule.name: days >= np.datetime64(rule.since, "D") for rule in city.rules}
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _places(trips: "pd.DataFrame") -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Returns the longitudes and latitudes of pickups and of drop-offs, or raises where one is null or infinite."""
    return [(_finite(trips, f"{end}_longitude"), _finite(trips, f"{end}_latitude")) for end in ("pickup", "dropoff")]


def _finite(trips: "pd.DataFrame", name: str) -> npt.NDArray[np.float64]:
    """Returns the column's numbers, or raises where one is null or infinite."""
    values = trips[name].to_numpy(dtype=np.float64, na_value=np.nan)
    unfit = len(values) - int(np.count_nonzero(np.isfinite(values)))
    if unfit:
        raise InputError(f"column {name}: {unfit:,} of {len(values):,} values are null or infinite, expected degrees")
    return values


def _times(trips: "pd.DataFrame") -> npt.NDArray[np.datetime64]:
    """Returns the pickup times, or raises where one is null."""
    times: npt.NDArray[np.datetime64] = trips["pickup_datetime"].to_numpy().astype("datetime64[us]")
    unfit = int(np.count_nonzero(np.isnat(times)))
    if unfit:
        raise InputError(f"column pickup_datetime: {unfit:,} of {len(times):,} values are null, expected a time")
    return times
