"""Why cleaning drops trips, in words: which column, what was expected, what is there, and what it seems to be instead.

For the base years, the checks of a month and the doctor alike. The rules themselves are those of `cleaning`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from taxifare.trips.cities import City
from taxifare.trips.city_files import CityFile
from taxifare.trips.cleaning import MINIMUM_SHARE_KEPT, broken_rules, coordinate_ranges
from taxifare.trips.columns import COORDINATES, in_file
from taxifare.trips.targets import Target

_Floats = npt.NDArray[np.float64]

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Otherwise:
    """What the ends of trips outside the city may be instead.

    Attributes:
        seems: What they seem to be, with `{end}` for which end.
        mend: What to do where all are like that.
        as_meant: What would put them right.
    """

    seems: str
    mend: str
    as_meant: Callable[[_Floats], _Floats]


_EXCHANGED = "{end} longitudes lie in the city's latitudes, and {end} latitudes in its longitudes"

_NO_SIGN = "seem to have lost their sign"

_OTHERWISE = (
    _Otherwise(_EXCHANGED, "exchange {end}_longitude and {end}_latitude", lambda ends: ends[:, ::-1]),
    _Otherwise(f"{{end}} longitudes {_NO_SIGN}", "west of Greenwich they are negative", lambda ends: ends * [-1, 1]),
    _Otherwise(f"{{end}} latitudes {_NO_SIGN}", "south of the equator they are negative", lambda ends: ends * [1, -1]),
    _Otherwise(f"{{end}} longitudes and latitudes {_NO_SIGN}", "west and south are negative", np.negative),
    _Otherwise("{end} places seem to be in radians", "write degrees", np.degrees),
    *(
        _Otherwise(f"{{end}} places seem to be degrees times {by:,}", "write degrees", partial(np.multiply, 1 / by))
        for by in (10**5, 10**6, 10**7)
    ),
)


def why_dropped(trips: pd.DataFrame, city: CityFile, target: Target, names: Mapping[str, str]) -> str | None:
    """Returns why cleaning drops so many of the trips that they are no sound month; None where it keeps enough.

    Args:
        trips: A trip table, as published.
        city: Where the trips should be.
        target: What is to be learned of them.
        names: What columns are called in the files, as TRIP_COLUMNS says.
    """
    if trips.empty:
        return None
    broken, kept, reasons = broken_rules(trips, city.facts, target), np.ones(len(trips), np.bool_), list[str]()
    for rule, breaks in broken.items():
        first = kept & breaks
        kept &= ~breaks
        if first.mean() > (1 - MINIMUM_SHARE_KEPT) / len(broken):  # a rule that drops less is not what is wrong
            reasons.append(_reason(rule, trips, first, city, target, names))
    return "; ".join(reasons) if kept.mean() < MINIMUM_SHARE_KEPT else None


def left_out(trips: pd.DataFrame, city: CityFile, target: Target, names: Mapping[str, str]) -> str | None:
    """Returns how many of the trips of a sound month cleaning drops, by rule, and what is odd about some; None if none.

    Few rows that are wrong in the same way leave a month sound, and are worth a look all the same.

    Args:
        trips: A trip table, as published.
        city: Where the trips should be.
        target: What is to be learned of them.
        names: As for `why_dropped`.
    """
    kept, told = np.ones(len(trips), np.bool_), list[str]()
    for rule, breaks in broken_rules(trips, city.facts, target).items():
        them = trips[kept & breaks]
        kept &= ~breaks
        if len(them):
            told.append(f"{len(them):,} {_those(rule, them, city, target, names)}")
    odd = list(_instead({end: _points(trips, end) for end in ("pickup", "dropoff")}, city.facts, names))
    took = trips["dropoff_datetime"] - trips["pickup_datetime"]
    if turned := int((took < pd.Timedelta(0)).sum()):
        dropoff, pickup = in_file("dropoff_datetime", names), in_file("pickup_datetime", names)
        odd.append(f"in {turned:,} of {len(trips):,} trips {dropoff} is before {pickup}")
    return "; ".join([*([f"left out: {', '.join(told)}"] if told else []), *odd]) or None


def _those(rule: str, them: pd.DataFrame, city: CityFile, target: Target, names: Mapping[str, str]) -> str:
    """Returns which trips those are that break a rule, after their number."""
    match rule:
        case "missing_value":
            return f"without a value in {_columns(_empty(them, target), names)}"
        case "duplicate":
            return f"equal to an earlier one in everything but {in_file('key', names)}"
        case "zero_coordinate":
            return f"with a coordinate of 0 in {_columns(_zero(them), names)}"
        case "outside_city":
            return f"with an end outside the box of CITY={city.told}"
        case "passenger_count":
            return f"whose {in_file('passenger_count', names)} is not {_passengers(city)}"
        case _:
            return f"whose {_measured(target, names)} is not {_limits(city, target)}"


def _empty(them: pd.DataFrame, target: Target) -> list[str]:
    return [name for name in (*COORDINATES, target.column) if them[name].isna().any()]


def _zero(them: pd.DataFrame) -> list[str]:
    return [name for name in COORDINATES if them[name].eq(0).any()]


def _passengers(city: CityFile) -> str:
    return f"1 to {city.facts.max_passengers}, or nothing (max_passengers of CITY={city.told})"


def _measured(target: Target, names: Mapping[str, str]) -> str:
    """Returns what the values of the target are, by columns of the file."""
    column = in_file(target.column, names)
    return column if target.name == "fare" else f"{column} less {in_file('pickup_datetime', names)}"


def _limits(city: CityFile, target: Target) -> str:
    limit = f" (highest_fare of CITY={city.told})" if target.name == "fare" else ""
    return f"more than 0 and less than {target.most:g} {target.unit}{limit}"


def _reason(
    rule: str, trips: pd.DataFrame, breaks: _Mask, city: CityFile, target: Target, names: Mapping[str, str]
) -> str:
    """Returns what the trips that break a rule have in common."""
    them, of_all = trips[breaks], f"{np.count_nonzero(breaks):,} of {len(trips):,} trips"
    match rule:
        case "missing_value":
            return f"{of_all} have no value in {_columns(_empty(them, target), names)}"
        case "duplicate":
            return f"{of_all} are equal to an earlier one in everything but {in_file('key', names)}"
        case "zero_coordinate":
            return f"{of_all} have a coordinate of 0 in {_columns(_zero(them), names)}"
        case "outside_city":
            return where_outside(trips, city, names) or of_all
        case "passenger_count":
            received = _span(them["passenger_count"].to_numpy(np.float64))
            column = in_file("passenger_count", names)
            return f"column {column}: expected {_passengers(city)}, received {received} in {of_all}"
        case _:
            return _of_target(target.of(them).to_numpy(np.float64), of_all, city, target, names)


def _of_target(values: _Floats, of_all: str, city: CityFile, target: Target, names: Mapping[str, str]) -> str:
    """Returns what is wrong with values of the target, and what they may be instead."""
    is_fare = target.name == "fare"
    column = f"column {_measured(target, names)}" if is_fare else _measured(target, names)
    turned = (
        "with the other sign they would be fares"
        if is_fare
        else f"exchange pickup_datetime and dropoff_datetime: {_exchanging(names, [_TIMES])}"
    )
    instead = {
        turned: -values,
        f"they seem to be in {target.small_unit}: write them in {target.unit}": values / target.small_units,
    }
    seems = next(
        (f": {says}" for says, other in instead.items() if np.mean((other > 0) & (other < target.most)) > 1 / 2), ""
    )
    return f"{column}: expected {_limits(city, target)}, received {_span(values)} in {of_all}{seems}"


def where_outside(trips: pd.DataFrame, city: CityFile, names: Mapping[str, str]) -> str | None:
    """Returns how many trips have an end outside the city's box, and where those lie; None where none has.

    >>> from taxifare.trips.city_files import shipped
    >>> ends = dict(zip(COORDINATES, [[-74.0, -87.6, 2.3], [40.7, 41.9, 48.9], [-74.0] * 3, [40.7] * 3]))
    >>> where_outside(pd.DataFrame(ends), shipped("new-york"), {})
    '2 of 3 trips have an end outside the box of CITY=new-york (longitude -74.3 to -73.7, latitude 40.5 to 40.9): most
    of these ends lie at longitude -87.6 to 2.3, latitude 41.9 to 48.9'

    Args:
        trips: With coordinates; those that lack one play no part.
        city: Gives the box.
        names: As for `why_dropped`.
    """
    (west, east), (south, north) = (coordinate_ranges(city.facts)[name] for name in COORDINATES[:2])
    outside = dict(_outside(trips, city.facts))
    if not (number := int(np.logical_or.reduce(list(outside.values())).sum())):
        return None
    points = {end: _points(trips, end) for end in outside}
    # A few are nowhere, and say nothing of the others.
    elsewhere = np.concatenate([points[end][mask] for end, mask in outside.items()])
    first, last = np.quantile(elsewhere, [0.05, 0.95], axis=0, method="nearest")
    return "; ".join(
        [
            *_instead(points, city.facts, names),
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


def _instead(points: Mapping[str, _Floats], city: City, names: Mapping[str, str]) -> Iterator[str]:
    """Yields what most ends outside a city seem to be, and what to do, where something would put them into it.

    Args:
        points: Of all trips, by end.
        city: Gives the box.
        names: As for `why_dropped`.
    """
    exchanged = list[tuple[str, str]]()
    for end, ends in points.items():
        is_inside, is_known = _inside(ends, city), np.asarray(np.isfinite(ends).all(axis=1))
        outside = ends[is_known & ~is_inside]
        if not len(outside):
            continue
        for other in _OTHERWISE:
            meant = int(np.count_nonzero(_inside(other.as_meant(outside), city)))
            if meant <= len(outside) / 2:
                # No place lies in the city by chance with longitude and latitude exchanged.
                if meant and other.seems == _EXCHANGED:
                    yield _in_some(meant, is_known, other, end)
                continue
            # What is said of a column as a whole has to leave a sound month; what makes sense neither way says nothing.
            if meant >= MINIMUM_SHARE_KEPT * (meant + np.count_nonzero(is_inside)):
                yield f"{other.seems}: {other.mend}".format(end=end)
                if other.seems == _EXCHANGED:
                    exchanged.append((f"{end}_longitude", f"{end}_latitude"))
            else:
                yield _in_some(meant, is_known, other, end)
            break
    if exchanged:
        yield f"{_exchanging(names, exchanged)}, or exchange the box in the city's file"


def _in_some(meant: int, is_known: _Mask, other: _Otherwise, end: str) -> str:
    some = f"{meant:,} of {np.count_nonzero(is_known):,} trips"
    return f"in {some} only, {other.seems.format(end=end)}: mend these rows in the file; they are dropped"


_TIMES = ("pickup_datetime", "dropoff_datetime")


def _exchanging(names: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> str:
    """Returns what has to be written where, so that columns are exchanged.

    >>> _exchanging({"fare_amount": "price", "pickup_datetime": "end"}, [_TIMES])
    'write TRIP_COLUMNS=fare_amount=price,pickup_datetime=dropoff_datetime,dropoff_datetime=end into .env
    (TRIP_SOURCE=bigquery: change the view)'

    Args:
        names: In force.
        pairs: Columns of the trip table that stand for each other.
    """
    changed = dict(names)
    for one, other in pairs:
        changed |= {one: names.get(other, other), other: names.get(one, one)}
    line = ",".join(f"{ours}={theirs}" for ours, theirs in changed.items() if ours != theirs)
    return f"write TRIP_COLUMNS={line} into .env (TRIP_SOURCE=bigquery: change the view)"


def _columns(columns: list[str], names: Mapping[str, str]) -> str:
    """Returns columns of the trip table as they are called in the files."""
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(in_file(column, names) for column in columns)}"


def _span(values: _Floats) -> str:
    """Returns what most values lie between."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "no finite number"
    low, high = np.quantile(finite, [0.05, 0.95], method="nearest")
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
