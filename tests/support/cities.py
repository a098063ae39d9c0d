"""The project's own cities, New York with one of its facts corrected, and a city of one's own."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from taxifare.trips.cities import City
from taxifare.trips.city_files import CityFile, shipped

NEW_YORK, CHICAGO = shipped("new-york").facts, shipped("chicago").facts


def new_york_with(facts: City) -> CityFile:
    """New York's file with other facts."""
    return replace(shipped("new-york"), facts=facts)


def with_another_rule_date() -> City:
    *earlier, last = NEW_YORK.rules
    return replace(NEW_YORK, rules=(*earlier, replace(last, since=last.since + timedelta(days=1))))


def with_a_larger_airport() -> City:
    first, *others = NEW_YORK.airports
    return replace(NEW_YORK, airports=(replace(first, radius_km=5.0), *others))


CORRECTED: dict[str, City] = {
    "rule date": with_another_rule_date(),
    "airport radius": with_a_larger_airport(),
    "grid angle": replace(NEW_YORK, grid_angle_deg=45.0),
}

SAINT_DENIS = Path(__file__).parent / "saint-denis.yaml"
"""On La Réunion: euros, south of the equator, another clock."""
