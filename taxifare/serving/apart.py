"""How far the prices of the version in shadow are from production's, on the rides that were asked for."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from taxifare.serving.in_shadow import InShadow
from taxifare.serving.prediction_log import Answer
from taxifare.trips.meters import Meter, steps_of


@dataclass(frozen=True)
class Apart:
    """How far apart they are.

    Attributes:
        rides: On how many rides.
        unit: In which unit.
        mean: How much more the version in shadow asks than production, per ride.
        over_a_step: The share of rides whose prices are more than a step of the meter apart, None where no step is
            known.
    """

    rides: int
    unit: str
    mean: float
    over_a_step: float | None

    def __str__(self) -> str:
        """In one line."""
        less_or_more = "less" if self.mean < 0 else "more"
        said = f"{self.rides:,} rides: {abs(self.mean):.2f} {self.unit} {less_or_more} than production, on average"
        return said if self.over_a_step is None else f"{said}; {self.over_a_step:.1%} more than a meter's step apart"


def apart(answers: Iterable[Answer], shadow: InShadow, meter: Meter) -> Apart | None:
    """Returns how far apart they are, None where no ride was priced by both.

    Args:
        answers: Those on the log, each once; of a ride, production's before the other.
        shadow: The version in shadow, and the promotion it stands beside.
        meter: The city's.
    """
    given: dict[str, Answer] = {}
    pairs: list[tuple[Answer, float]] = []
    for answer in answers:
        if answer.sequence != shadow.sequence:
            continue
        if answer.role == "production":
            given[str(answer.ride_id)] = answer
        elif answer.version == shadow.version and str(answer.ride_id) in given:
            pairs.append((answer, answer.fare - given.pop(str(answer.ride_id)).fare))
    if not pairs:
        return None
    differences = np.array([difference for _, difference in pairs])
    steps = steps_of(np.array([answer.ride["pickup_datetime"] for answer, _ in pairs], "datetime64[s]"), meter)
    known = ~np.isnan(steps)
    over = float((np.abs(differences[known]) > steps[known]).mean()) if known.any() else None
    return Apart(len(pairs), pairs[0][0].unit, float(differences.mean()), over)
