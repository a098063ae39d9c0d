"""Cities: where a trip can be, which places and dates its fares depend on. Facts only, no behaviour.

A dated rule is a fact known to everybody on its date, so a feature may use it: it lets a network tell the fares before
a rise from those after it. A change nobody has entered here is what the monthly watch is for.
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


# Box and passenger limit are those of the Le Wagon course's cleaning; they keep 97.3 % of the public trips.
# Rules and dates: Taxi and Limousine Commission, Port Authority and MTA schedules, each visible in the trips.
NEW_YORK = City(
    name="New York",
    longitude_range_deg=(-74.3, -73.7),
    latitude_range_deg=(40.5, 40.9),
    grid_angle_deg=29.0,
    airports=(
        Airport("JFK", -73.7781, 40.6413, radius_km=2.5),
        Airport("LGA", -73.8740, 40.7769, radius_km=1.6),
        Airport("EWR", -74.1745, 40.6895, radius_km=2.5),
    ),
    rules=(
        Rule("tolls_2010_12", date(2010, 12, 31), "Bridge and tunnel tolls 4.57 to 4.80 USD"),
        Rule(
            "fares_2012_09",
            date(2012, 9, 4),
            "0.40 to 0.50 USD a unit, JFK flat fare 45 to 52 USD, Newark surcharge 15 to 17.50",
        ),
        Rule("tolls_2013_03", date(2013, 3, 3), "Bridge and tunnel tolls 4.80 to 5.33 USD"),
        Rule("tolls_2015_03", date(2015, 3, 22), "Bridge and tunnel tolls 5.33 to 5.54 USD"),
    ),
    max_passengers=7,
    night_hours=(20, 6),
    rush_hours=(16, 20),
)

# Box: the city's limits, within which the centroids lie that its data portal publishes. Airports: the radius covers the
# centroids of the census tract and of the community areas that their trips are published at. Fares: Department of
# Business Affairs and Consumer Protection, https://checkertaxichicago.com/rates-table/ ("as of January 1, 2016"); the
# one before is of July 2012, older than the published trips. A rise of about a fifth has been before the City Council
# since 2025; nothing published when this was written says from when.
CHICAGO = City(
    name="Chicago",
    longitude_range_deg=(-87.95, -87.52),
    latitude_range_deg=(41.64, 42.03),
    grid_angle_deg=0.0,
    airports=(
        Airport("ORD", -87.9048, 41.9786, radius_km=2.5),
        Airport("MDW", -87.7522, 41.7868, radius_km=1.8),
    ),
    rules=(Rule("fares_2016_01", date(2016, 1, 1), "1.80 to 2.25 USD a mile, about 15 % a ride"),),
    max_passengers=7,
    night_hours=(20, 6),
    rush_hours=(16, 19),
)

CITIES: dict[str, City] = {"new-york": NEW_YORK, "chicago": CHICAGO}
