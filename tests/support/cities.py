"""New York with one of its facts corrected."""

from dataclasses import replace
from datetime import timedelta

from taxifare.trips.cities import NEW_YORK, City


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
