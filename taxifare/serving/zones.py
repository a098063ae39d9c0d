"""Zones: a ride may name the taxi zones where it starts and ends instead of coordinates, as the course's clients do.

It is priced from one zone's centroid to the other's, where models trained on zones have seen their rides. New York's
centroids are those that `taxifare.sources.tlc` computes from the Taxi and Limousine Commission's file; they are kept
here so that a process that prices rides needs neither the file nor the libraries that read it.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from taxifare.serving.rides import Fault, RideError, shown

ENDS = {"PULocationID": "pickup", "DOLocationID": "dropoff"}
"""The fields that name a zone, as the commission's files call them, and the end of the ride they stand for."""

Zones = Mapping[int, tuple[float, float]]
"""Longitude and latitude of the centroid of each zone, by its number; degrees."""


@cache
def zones_of(city: str) -> Zones:
    """Returns the zones of a city, none if they are not known.

    >>> zones_of("new-york")[132]
    (-73.78653, 40.646985)
    >>> zones_of("chicago")
    {}
    """
    file = files(__package__) / f"zones-{city}.json"
    if not file.is_file():
        return {}
    found: dict[str, list[float]] = json.loads(file.read_text())
    return {int(number): (longitude, latitude) for number, (longitude, latitude) in found.items()}


def placed(told: Mapping[str, object], zones: Zones) -> Mapping[str, object]:
    """Returns a ride as described, with coordinates in place of zones.

    >>> placed({"PULocationID": 132, "passenger_count": 1}, zones_of("new-york"))
    {'passenger_count': 1, 'pickup_longitude': -73.78653, 'pickup_latitude': 40.646985}
    >>> placed({"PULocationID": 264}, zones_of("new-york"))
    Traceback (most recent call last):
    taxifare.serving.rides.RideError: PULocationID: expected the number of a taxi zone, received 264

    Raises:
        RideError: There is no such zone, or the ride has coordinates for that end as well.
    """
    if not zones or not any(name in told for name in ENDS):
        return told
    found: dict[str, Any] = {name: value for name, value in told.items() if name not in ENDS}
    faults: list[Fault] = []
    for name, end in ENDS.items():
        if name not in told:
            continue
        number = told[name]
        place = zones.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
        coordinates = [field for field in (f"{end}_longitude", f"{end}_latitude") if field in told]
        if place is None:
            faults.append(Fault(name, "the number of a taxi zone", shown(number)))
        elif coordinates:
            faults.append(Fault(name, f"it or {' and '.join(coordinates)}, not both", shown(number)))
        else:
            found[f"{end}_longitude"], found[f"{end}_latitude"] = place
    if faults:
        raise RideError(faults)
    return found


def with_zones(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON schema of a ride that gives coordinates or a zone for each end."""
    zone = {"type": "integer", "description": "the number of a taxi zone, in place of coordinates"}
    of_place = {end: [f"{end}_longitude", f"{end}_latitude"] for end in ENDS.values()}
    coordinates = {field for fields in of_place.values() for field in fields}
    return {
        **schema,
        "properties": {**schema["properties"], **dict.fromkeys(ENDS, zone)},
        "required": [name for name in schema["required"] if name not in coordinates],
        "allOf": [{"oneOf": [{"required": [name]}, {"required": of_place[end]}]} for name, end in ENDS.items()],
    }
