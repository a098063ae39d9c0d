"""The simulated city as a source of trips."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from taxifare.digests import digest
from taxifare.settings import Scenario, SimulatorSettings
from taxifare.sources.base import MonthNotPublishedError, NoBaseError, TripSource, new_york_now
from taxifare.sources.simulator.city import draw_journeys, draw_points_km, from_grid_km
from taxifare.sources.simulator.demand import DEMAND_BY_MONTH, draw_pickups_s
from taxifare.sources.simulator.meter import draw_fares_usd
from taxifare.sources.simulator.publishing import ROUND_TRIPS, draw_passengers, keys_of, spoil
from taxifare.sources.simulator.traffic import draw_route_km, draw_times_min, not_walked
from taxifare.trips.months import Month, months_between, parse_month
from taxifare.trips.publication import BasePublication, Publication
from taxifare.trips.table import as_trip_table

GENERATOR_VERSION = 1
"""Part of every revision. Raise it with any change that changes rows, so that months made before count as restated."""

FIRST_BASE_MONTH = parse_month("2009-01")


@dataclass(frozen=True, kw_only=True)
class Simulator(TripSource):
    """Publishes simulated trips, the same for the same seed, month, number of trips and scenario.

    Attributes:
        seed: Seed of all months.
        trips_per_month: Trips in a month of average demand; a month has up to 8 % more or fewer by its season.
        base_trips: Trips of the base years together.
        first_month: First published month; the base years run from 2009-01 up to it.
        last_month: Last published month, even one to come; None: the last that is over in New York.
        scenario: What changes: `fare-rise` makes rides about 16 % dearer, `slow-traffic` lowers all speeds by 30 %.
        scenario_from: First month of the scenario.
        now: The wall clock in New York.
    """

    seed: int
    trips_per_month: int
    base_trips: int
    first_month: Month
    last_month: Month | None
    scenario: Scenario
    scenario_from: Month
    now: Callable[[], pd.Timestamp] = new_york_now

    @classmethod
    def from_settings(cls, settings: SimulatorSettings) -> Self:
        """Returns the city that the settings describe."""
        return cls(
            seed=settings.simulator_seed,
            trips_per_month=settings.simulator_trips_per_month,
            base_trips=settings.simulator_base_trips,
            first_month=settings.first_month,
            last_month=settings.last_month,
            scenario=settings.simulator_scenario,
            scenario_from=settings.simulator_scenario_from,
        )

    def months(self) -> dict[Month, str]:
        """Returns the months from first to last and their revisions; a scenario changes those it touches."""
        last = self.last_month or self.now().to_period("M") - 1
        return {month: self._revision(month) for month in months_between(self.first_month, last)}

    def read_month(self, month: Month) -> Publication:
        """Returns one month of trips.

        Raises:
            MonthNotPublishedError: The month is before the first or after the last.
        """
        revisions = self.months()
        if month not in revisions:
            span = f"{min(revisions)} to {max(revisions)}" if revisions else f"none before {self.first_month} is over"
            raise MonthNotPublishedError(f"{self._origin}: no month {month}; months are {span}")
        trips = as_trip_table(self._rows(month, self._trips_in(month)), self._origin)
        return Publication(trips, revisions[month], self._origin)

    def read_base(self) -> BasePublication:
        """Returns the trips of the base years, from 2009-01 up to the first month, month by month.

        Raises:
            NoBaseError: The first month leaves no base years.
        """
        parts = (self._base_part(month, trips) for month, trips in self._base_months().items() if trips)
        return BasePublication(parts, self.base_revision(), self._origin)

    def base_revision(self) -> str:
        """Returns the revision of the base years.

        Raises:
            NoBaseError: The first month leaves no base years.
        """
        return digest([self._facts(month, trips) for month, trips in self._base_months().items()])

    @property
    def _origin(self) -> str:
        return f"simulator (seed {self.seed}, {self.scenario})"

    def _trips_in(self, month: Month) -> int:
        """Returns the trips of a published month: the average, by the season's demand."""
        return max(1, round(self.trips_per_month * float(DEMAND_BY_MONTH[month.month - 1])))

    def _base_months(self) -> dict[Month, int]:
        """Returns the months of the base years and how many of the base trips each has, by the season's demand."""
        if self.first_month <= FIRST_BASE_MONTH:
            raise NoBaseError(
                f"{self._origin}: no base years: they start in {FIRST_BASE_MONTH} and end before the first month, "
                f"received {self.first_month}"
            )
        months = list(months_between(FIRST_BASE_MONTH, self.first_month - 1))
        demand = np.cumsum([DEMAND_BY_MONTH[month.month - 1] for month in months])
        until = np.round(demand / demand[-1] * self.base_trips).astype(int)
        return dict(zip(months, np.diff(until, prepend=0).tolist(), strict=True))

    def _base_part(self, month: Month, trips: int) -> Publication:
        rows = as_trip_table(self._rows(month, trips), self._origin)
        return Publication(rows, digest(self._facts(month, trips)), self._origin)

    def _scenario_in(self, month: Month) -> Scenario:
        return self.scenario if month >= self.scenario_from else "as-it-was"

    def _facts(self, month: Month, trips: int) -> list[object]:
        """Returns all that decides the rows of a month."""
        return [GENERATOR_VERSION, self.seed, str(month), trips, self._scenario_in(month)]

    def _revision(self, month: Month) -> str:
        return digest(self._facts(month, self._trips_in(month)))

    def _rows(self, month: Month, trips: int) -> pd.DataFrame:
        """Returns the published rows of a month, sorted by pickup time."""
        # Seeded by month alone, so that no month's rows depend on which others were made before it.
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, month.year, month.month]))
        scenario = self._scenario_in(month)
        seconds = draw_pickups_s(rng, month, trips)
        origin, destination = draw_journeys(rng, seconds)
        pickup_km = draw_points_km(rng, origin)
        dropoff_km = not_walked(pickup_km, draw_points_km(rng, destination))
        driven_km = draw_route_km(rng, pickup_km, dropoff_km)
        duration_min, standing_min = draw_times_min(rng, month, seconds, driven_km, is_slow=scenario == "slow-traffic")
        start = np.datetime64(str(month), "us")
        pickup_times = start + seconds.astype("timedelta64[s]")
        fare_usd = draw_fares_usd(
            rng,
            pickup_times=pickup_times,
            origin=origin,
            destination=destination,
            driven_km=driven_km,
            standing_min=standing_min,
            rises=scenario == "fare-rise",
        )
        # There and back: nothing published tells how far such a ride went.
        returns = rng.random(trips) < ROUND_TRIPS
        dropoff_km = np.where(returns, pickup_km + rng.normal(0, 0.01, pickup_km.shape), dropoff_km)
        pickup_longitude, pickup_latitude = from_grid_km(*pickup_km)
        dropoff_longitude, dropoff_latitude = from_grid_km(*dropoff_km)
        columns = {
            "pickup_longitude": pickup_longitude,
            "pickup_latitude": pickup_latitude,
            "dropoff_longitude": dropoff_longitude,
            "dropoff_latitude": dropoff_latitude,
            "passenger_count": draw_passengers(rng, trips),
            "fare_amount": np.round(fare_usd, 2),
        }
        spoil(rng, columns)
        return pd.DataFrame(
            {
                "key": keys_of(start, seconds),
                "pickup_datetime": pickup_times,
                **columns,
                "dropoff_datetime": pickup_times + np.round(duration_min * 60).astype("timedelta64[s]"),
            }
        )
