"""Cities: where a trip can be, which places and dates its fares depend on. Facts only, no behaviour.

Models carry these facts with them; what they are of a city is read from its file, see `city_files`. A dated rule is a
fact known to everybody on its date, so a feature may use it: it lets a network tell the fares before a rise from those
after it. A change nobody has entered is what the monthly watch is for.
"""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Airport:
    """An airport: trips whose either end lies within `radius_km` of it count as its trips."""

    code: str
    longitude_deg: float
    latitude_deg: float
    radius_km: float


@dataclass(frozen=True)
class Rule:
    """A dated change of what rides cost, in force from `since` on."""

    name: str
    since: date
    description: str


@dataclass(frozen=True)
class City:
    """What the code knows of a city.

    Attributes:
        name: Its name as a person writes it.
        longitude_range_deg: Smallest and largest longitude of a trip's ends.
        latitude_range_deg: Smallest and largest latitude of a trip's ends.
        grid_angle_deg: Clockwise angle from north to the avenues of the street grid.
        airports: Airports whose trips are priced or behave differently.
        rules: Dated fare and toll changes, oldest first.
        max_passengers: Passenger counts above it are defects.
        night_hours: First hour of the night and first hour after it.
        rush_hours: First hour of the weekday evening rush and first hour after it.
    """

    name: str
    longitude_range_deg: tuple[float, float]
    latitude_range_deg: tuple[float, float]
    grid_angle_deg: float
    airports: tuple[Airport, ...]
    rules: tuple[Rule, ...]
    max_passengers: int
    night_hours: tuple[int, int]
    rush_hours: tuple[int, int]
