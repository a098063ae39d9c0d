"""Why cleaning drops trips, in words: which column, what was expected, what is there, and what it seems to be instead.

For the base years, the checks of a month and the doctor alike. The rules themselves are those of `cleaning`.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.city_files import CityFile
from taxifare.trips.cleaning import MINIMUM_SHARE_KEPT, broken_rules, coordinate_ranges
from taxifare.trips.table import COORDINATES
from taxifare.trips.targets import Target

_Floats = npt.NDArray[np.float64]

_Mask = npt.NDArray[np.bool_]

_OTHERWISE: tuple[tuple[str, Callable[[_Floats], _Floats]], ...] = (
    (
        "{end} longitudes lie in the city's latitudes, and {end} latitudes in its longitudes: exchange {end}_longitude "
        "and {end}_latitude in TRIP_COLUMNS (TRIP_SOURCE=bigquery: in the view), or the box in the city's file",
        lambda ends: ends[:, ::-1],
    ),
    ("{end} longitudes seem to have lost their sign: west of Greenwich they are negative", lambda ends: ends * [-1, 1]),
    ("{end} latitudes seem to have lost their sign: south of the equator they are negative", lambda e: e * [1, -1]),
    ("{end} longitudes and latitudes seem to have lost their sign: west and south are negative", lambda ends: -ends),
    ("{end} places seem to be in radians: write degrees", np.degrees),
    *(
        (f"{{end}} places seem to be degrees times {factor:,}: write degrees", lambda ends, by=factor: ends / by)
        for factor in (10**5, 10**6, 10**7)
    ),
)
"""What the ends of trips outside the city may be instead, and what would put them right."""


def why_dropped(trips: pd.DataFrame, city: CityFile, target: Target) -> str | None:
    """Returns why cleaning drops so many of the trips that they are no sound month; None where it keeps enough.

    Args:
        trips: A trip table, as published.
        city: Where the trips should be.
        target: What is to be learned of them.
    """
    if trips.empty:
        return None
    broken, kept, reasons = broken_rules(trips, city.facts, target), np.ones(len(trips), np.bool_), list[str]()
    for rule, breaks in broken.items():
        first = kept & breaks
        kept &= ~breaks
        if first.mean() > (1 - MINIMUM_SHARE_KEPT) / len(broken):  # a rule that drops less is not what is wrong
            reasons.append(_reason(rule, trips, first, city, target))
    return "; ".join(reasons) if kept.mean() < MINIMUM_SHARE_KEPT else None


def _reason(rule: str, trips: pd.DataFrame, breaks: _Mask, city: CityFile, target: Target) -> str:
    """Returns what the trips that break a rule have in common."""
    them, of_all = trips[breaks], f"{np.count_nonzero(breaks):,} of {len(trips):,} trips"
    match rule:
        case "missing_value":
            empty = [name for name in (*COORDINATES, target.column) if them[name].isna().any()]
            return f"{of_all} have no value in {_columns(empty)}"
        case "duplicate":
            return f"{of_all} are equal to an earlier one in everything but key"
        case "zero_coordinate":
            zero = [name for name in COORDINATES if them[name].eq(0).any()]
            return f"{of_all} have a coordinate of 0 in {_columns(zero)}"
        case "outside_city":
            return where_outside(trips, city) or of_all
        case "passenger_count":
            most = city.facts.max_passengers
            received = _span(them["passenger_count"].to_numpy(np.float64))
            return (
                f"column passenger_count: expected 1 to {most}, or nothing (max_passengers of CITY={city.told}), "
                f"received {received} in {of_all}"
            )
        case _:
            return _of_target(target.of(them).to_numpy(np.float64), of_all, city, target)


def _of_target(values: _Floats, of_all: str, city: CityFile, target: Target) -> str:
    """Returns what is wrong with values of the target, and what they may be instead."""
    is_fare = target.name == "fare"
    column = f"column {target.column}" if is_fare else f"{target.column} less pickup_datetime"
    limit = f" (highest_fare of CITY={city.told})" if is_fare else ""
    turned = (
        "with the other sign they would be fares"
        if is_fare
        else "exchange pickup_datetime and dropoff_datetime in TRIP_COLUMNS (TRIP_SOURCE=bigquery: in the view)"
    )
    instead = {
        turned: -values,
        f"they seem to be in {target.small_unit}: write them in {target.unit}": values / target.small_units,
    }
    seems = next(
        (f": {says}" for says, other in instead.items() if np.mean((other > 0) & (other < target.most)) > 1 / 2), ""
    )
    return (
        f"{column}: expected more than 0 and less than {target.most:g} {target.unit}{limit}, received {_span(values)} "
        f"in {of_all}{seems}"
    )


def where_outside(trips: pd.DataFrame, city: CityFile) -> str | None:
    """Returns how many trips have an end outside the city's box, and where those lie; None where none has.

    >>> from taxifare.trips.city_files import shipped
    >>> ends = dict(zip(COORDINATES, [[-74.0, -87.6, 2.3], [40.7, 41.9, 48.9], [-74.0] * 3, [40.7] * 3]))
    >>> where_outside(pd.DataFrame(ends), shipped("new-york"))
    '2 of 3 trips have an end outside the box of CITY=new-york (longitude -74.3 to -73.7, latitude 40.5 to 40.9): most
    of these ends lie at longitude -87.6 to 2.3, latitude 41.9 to 48.9'

    Args:
        trips: With coordinates; those that lack one play no part.
        city: Gives the box.
    """
    (west, east), (south, north) = (coordinate_ranges(city.facts)[name] for name in COORDINATES[:2])
    outside = dict(_outside(trips, city.facts))
    if not (number := int(np.logical_or.reduce(list(outside.values())).sum())):
        return None
    points = {end: _points(trips, end)[mask] for end, mask in outside.items()}
    # A few are nowhere, and say nothing of the others.
    first, last = np.quantile(np.concatenate(list(points.values())), [0.05, 0.95], axis=0, method="nearest")
    seems = (found for end, ends in points.items() if (found := _instead(end, ends, city.facts)) is not None)
    return "; ".join(
        [
            *seems,
            f"{number:,} of {len(trips):,} trips have an end outside the box of CITY={city.told} (longitude {west:g} "
            f"to {east:g}, latitude {south:g} to {north:g}): most of these ends lie at longitude {first[0]:g} to "
            f"{last[0]:g}, latitude {first[1]:g} to {last[1]:g}",
        ]
    )


def _outside(trips: pd.DataFrame, city: City) -> Iterator[tuple[str, _Mask]]:
    """Yields which trips begin outside the city's box, and which end there."""
    for end in ("pickup", "dropoff"):
        points = _points(trips, end)
        yield end, np.isfinite(points).all(axis=1) & ~_inside(points, city)


def _points(trips: pd.DataFrame, end: str) -> _Floats:
    return trips[[f"{end}_longitude", f"{end}_latitude"]].to_numpy(np.float64)


def _inside(points: _Floats, city: City) -> _Mask:
    (west, east), (south, north) = (coordinate_ranges(city)[name] for name in COORDINATES[:2])
    return np.asarray(((points >= [west, south]) & (points <= [east, north])).all(axis=1))


def _instead(end: str, ends: _Floats, city: City) -> str | None:
    """Returns what most of some ends outside a city seem to be, None where nothing would put them into it."""
    if not len(ends):
        return None
    found = (says for says, as_meant in _OTHERWISE if _inside(as_meant(ends), city).mean() > 1 / 2)
    return next((says.format(end=end) for says in found), None)


def _columns(names: list[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _span(values: _Floats) -> str:
    """Returns what most values lie between."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "no finite number"
    low, high = np.quantile(finite, [0.05, 0.95], method="nearest")
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
