"""Targets: what a model predicts of a trip – its fare, or how long it takes. Facts and words, no behaviour.

A target is known after the trip, and is never a feature. Features and network are the same for both; whatever else is
said of a target anywhere – units, limits, words – is said here.

Why the target is a column, and durations end at three hours: docs/decisions.md, under trips.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from taxifare.trips.city_files import MINUTES, CityFile, Currency

if TYPE_CHECKING:
    import pandas as pd

TargetName = Literal["fare", "duration"]

Unit: TypeAlias = str
"""What predictions, errors and tolerances are in: the city's currency by its code, as in USD, or `min`."""


@dataclass(frozen=True)
class Target:
    """What a model predicts.

    Attributes:
        name: What it is called, in settings, rules and sentences.
        unit: Of predictions, errors and tolerances.
        column: The column of the trip table without which a trip has no target.
        of: Returns the target of each trip, in its unit, null where the column is null.
        most: At or above it, and at or below zero, is a defect, not a ride.
        model_name: Name of the registered model, unless MODEL_NAME says otherwise.
        question: What a picture of it over the distance answers.
        truth: What it turned out to be, in one word.
        total: What the errors of all rides come to, in words.
        small_unit: What small differences are told in.
        small_units: How many of these a unit has.
    """

    name: TargetName
    unit: Unit
    column: str
    of: "Callable[[pd.DataFrame], pd.Series]"
    most: float
    model_name: str
    question: str
    truth: str
    total: str
    small_unit: str
    small_units: int


def _fares(trips: "pd.DataFrame") -> "pd.Series":
    """Returns what was paid for each trip, in the city's currency.

    >>> import pandas as pd
    >>> _fares(pd.DataFrame({"fare_amount": [7.5, None]})).tolist()
    [7.5, nan]
    """
    return trips["fare_amount"].astype("float64")


def _durations(trips: "pd.DataFrame") -> "pd.Series":
    """Returns how long each trip took, in minutes: from pickup to drop-off, which before the pickup is negative.

    >>> import pandas as pd
    >>> times = pd.to_datetime(["2015-01-01 10:00:00", "2015-01-01 10:12:30", None])
    >>> _durations(pd.DataFrame({"pickup_datetime": times[[0, 1, 0]], "dropoff_datetime": times[[1, 0, 2]]})).tolist()
    [12.5, -12.5, nan]
    """
    return (trips["dropoff_datetime"] - trips["pickup_datetime"]).dt.total_seconds() / 60


# Fares are in the currency of the city and have its limit, see `target_in`. Of 55,906 green-taxi rides of January 2024,
# 24 took two to three hours, 14 three to five, and 206 longer, most of them close to a day: meters that nobody stopped.
FARE = Target(
    name="fare",
    unit="USD",
    column="fare_amount",
    of=_fares,
    most=400.0,
    model_name="taxifare",
    question="What do they cost?",
    truth="paid",
    total="what riders over- and underpaid in all",
    small_unit="cents",
    small_units=100,
)

DURATION = Target(
    name="duration",
    unit=MINUTES,
    column="dropoff_datetime",
    of=_durations,
    most=180.0,
    model_name="taxifare-duration",
    question="How long do they take?",
    truth="taken",
    total="how far off all rides were together",
    small_unit="seconds",
    small_units=60,
)

TARGETS: dict[str, Target] = {"fare": FARE, "duration": DURATION}


def target_in(city: CityFile, name: TargetName) -> Target:
    """Returns a target as it is in a city: fares are in its currency and have its limit.

    Models of a city of one's own are registered under its name, so that two cities at one MLflow server do not meet.

    >>> from taxifare.trips.city_files import shipped
    >>> target_in(shipped("chicago"), "fare") == FARE
    True
    """
    own = TARGETS[name]
    if name == "fare":
        own = replace(in_currency(name, city.currency), most=city.highest_fare)
    return own if city.is_shipped else replace(own, model_name=f"{own.model_name}-{city.slug}")


def with_unit(name: str, unit: Unit) -> str:
    """Returns the name of an amount in a unit.

    >>> with_unit("mae", "USD")
    'mae_usd'
    """
    return f"{name}_{unit.lower()}"


def column_of(unit: Unit) -> str:
    """Returns how columns and fields of a target are called that is in that unit.

    >>> column_of("USD"), column_of("EUR"), column_of("min")
    ('fare_usd', 'fare_eur', 'duration_min')
    """
    return with_unit("duration" if unit == MINUTES else "fare", unit)


def in_currency(name: TargetName, currency: Currency) -> Target:
    """Returns a target whose amounts, if it is one of money, are in that currency.

    >>> yen = in_currency("fare", Currency("JPY", None))
    >>> yen.unit, yen.small_unit, yen.small_units
    ('JPY', 'JPY', 1)
    """
    if name != "fare":
        return TARGETS[name]
    small_unit, small_units = (currency.name, 1) if currency.hundredth is None else (currency.hundredth, 100)
    return replace(TARGETS[name], unit=currency.name, small_unit=small_unit, small_units=small_units)
