"""Rides: what can be priced is, whatever the types of its numbers; all that is wrong with the others is named."""

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxifare.serving.rides import FIELDS, PLACES, Fault, Limits, RideError, Rides, checked, packed, unfit

LIMITS = Limits(
    longitude_range_deg=(-74.3, -73.7),
    latitude_range_deg=(40.5, 40.9),
    most_passengers=7,
    earliest=datetime(2009, 1, 1),
    latest=datetime(2025, 1, 1),
)

TOLD: dict[str, object] = {
    "pickup_datetime": "2015-03-14T18:05:30",
    "pickup_longitude": -73.98,
    "pickup_latitude": 40.75,
    "dropoff_longitude": -74,
    "dropoff_latitude": 40.64,
    "passenger_count": 2,
}


def test_a_ride_is_read_field_by_field() -> None:
    assert checked(TOLD, LIMITS) == (datetime(2015, 3, 14, 18, 5, 30), -73.98, 40.75, -74.0, 40.64, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pickup_datetime", "2015-03-14 18:05:00Z"),
        ("pickup_datetime", "2015-03-14 18:05:00+01:00"),
        ("pickup_datetime", "2015-03-14 18:05:00 UTC"),
        ("pickup_datetime", "2015-02-30 18:05"),
        ("pickup_datetime", "2015-03-14"),
        ("pickup_datetime", "２０15-03-14 18:05"),
        ("pickup_datetime", "2008-12-31 23:59:59"),
        ("pickup_datetime", "2025-01-01 00:00:01"),
        ("pickup_datetime", 1426356300),
        ("pickup_datetime", None),
        ("pickup_longitude", 0),
        ("pickup_longitude", 1e9),
        ("pickup_longitude", 10**400),
        ("pickup_longitude", float("nan")),
        ("pickup_longitude", float("inf")),
        ("pickup_longitude", "-73.98"),
        ("pickup_longitude", True),
        ("pickup_longitude", None),
        ("pickup_longitude", [-73.98]),
        ("dropoff_latitude", 40.9001),
        ("passenger_count", 0),
        ("passenger_count", 208),
        ("passenger_count", 1.5),
        ("passenger_count", float("nan")),
        ("passenger_count", True),
        ("passenger_count", "2"),
    ],
)
def test_what_is_no_ride_is_refused_and_its_field_named(field: str, value: object) -> None:
    with pytest.raises(RideError) as refused:
        checked(TOLD | {field: value}, LIMITS)
    (fault,) = refused.value.faults
    assert (fault.field, fault.expected) == (field, LIMITS.expected(field))
    assert len(fault.received) <= 100


def test_all_that_is_wrong_is_named_at_once() -> None:
    told = {name: value for name, value in TOLD.items() if name != "pickup_latitude"}
    with pytest.raises(RideError) as refused:
        checked(told | {"fare_amount": 7.5, "colour": "yellow", "passenger_count": 9}, LIMITS)
    assert [(fault.field, fault.received) for fault in refused.value.faults] == [
        ("fare_amount", "7.5"),
        ("colour", "'yellow'"),
        ("pickup_latitude", "nothing"),
        ("passenger_count", "9"),
    ]
    assert "known only after the ride" in str(refused.value)


@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(2008, 1, 1), datetime(2026, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
            *(st.floats(-75, -73) if "longitude" in name else st.floats(40, 41) for name in PLACES),
            st.integers(-1, 9),
        ),
        max_size=6,
    )
)
def test_many_are_judged_as_each_alone(rows: list[tuple[datetime, float, float, float, float, int]]) -> None:
    moments, *places, passengers = zip(*rows, strict=True) if rows else ([],) * 6
    rides = Rides(
        np.array(moments, "datetime64[s]"), *(np.array(place, float) for place in places), np.array(passengers, int)
    )
    found = unfit(rides, LIMITS)
    for row, values in enumerate(rows):
        told = dict(zip(FIELDS, (f"{values[0]:%Y-%m-%dT%H:%M:%S}", *values[1:]), strict=True))
        try:
            ride = checked(told, LIMITS)
        except RideError as error:
            fields = [fault.field for fault in error.faults]
            assert [fault.field for fault in found[row]] == fields
        else:
            assert row not in found
            assert packed([ride]).pickup_datetime[0] == rides.pickup_datetime[row]


def test_a_fault_in_words() -> None:
    assert str(Fault("passenger_count", "a whole number", "'two'")) == (
        "passenger_count: expected a whole number, received 'two'"
    )
