"""Taxi zones: where rides are priced is where the source places them."""

from pathlib import Path

import numpy as np
import pytest

from taxifare.serving.zones import zones_of
from taxifare.sources.tlc import Zones
from tests.support.places import DATA


@pytest.mark.real_trips
def test_zones_are_where_the_source_places_rides(real_trips: Path) -> None:
    published = Zones.read(DATA / "tlc" / "taxi_zones.zip", "zones")
    numbers = np.flatnonzero(~np.isnan(published.longitude))
    zones = zones_of("new-york")
    assert sorted(zones) == numbers.tolist()
    kept = np.array([zones[number] for number in numbers])
    np.testing.assert_allclose(kept, np.array([published.longitude, published.latitude]).T[numbers], atol=1e-6)
