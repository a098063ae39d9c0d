"""Turns: rides that arrive while the event loop is busy are priced together, by one model, and logged together.

Pricing eight rides costs little more than pricing one. None waits for others to arrive: whichever rides are there when
the loop comes round are priced then.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from taxifare.serving.following import Follower, Served
from taxifare.serving.metrics import Metrics
from taxifare.serving.prediction_log import Answer, PredictionLog, Role
from taxifare.serving.rides import Ride, packed

_LARGE = 256
"""From so many rides on they are priced in a thread, so that others can go on in the meantime."""

_MOST_ROUNDS = 4
"""Rounds of the loop, each of which takes what has arrived: a fraction of a millisecond."""


class Asked(NamedTuple):
    """A ride whose price is asked for.

    Attributes:
        ride_id: The client's id of it.
        told: The ride as the client described it.
        ride: The same, checked.
        received_at: When the request arrived, UTC.
    """

    ride_id: str | int
    told: dict[str, Any]
    ride: Ride
    received_at: datetime


class Quote(NamedTuple):
    """The answer to a ride, the model that gave it, and the dated rules in force that the model has not learned."""

    served: Served
    fare: float
    upper: float
    corrected: float
    quoted: float
    unlearned: tuple[str, ...]


class Turns:
    """Prices rides in turns of the event loop."""

    def __init__(self, follower: Follower, log: PredictionLog, metrics: Metrics) -> None:
        self._follower, self._log, self._metrics = follower, log, metrics
        self._waiting: list[tuple[Asked, asyncio.Future[Quote]]] = []
        self._thread = ThreadPoolExecutor(1, "large batches")

    async def quote(self, asked: Asked) -> Quote:
        """Returns the quote for a ride, priced with the others of this turn.

        Raises:
            ProblemError: There is no model.
            BundleError: It does not predict.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Quote] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._come_round, 0)
        self._waiting.append((asked, future))
        return await future

    async def quote_all(self, asked: Sequence[Asked], served: Served) -> list[Quote]:
        """Returns the quotes of rides, all by that model.

        Raises:
            BundleError: It does not predict.
        """
        if len(asked) < _LARGE:
            quotes = priced(asked, served)
        else:
            quotes = await asyncio.get_running_loop().run_in_executor(self._thread, priced, asked, served)
        self._write_down(asked, quotes)
        return quotes

    def _come_round(self, before: int, rounds: int = 1) -> None:
        """Takes the turn, unless this round of the loop has brought more rides: then the next one may, too."""
        now = len(self._waiting)
        if now > max(before, 1) and rounds < _MOST_ROUNDS:
            asyncio.get_running_loop().call_soon(self._come_round, now, rounds + 1)
        else:
            self._take_turn()

    def _take_turn(self) -> None:
        turn, self._waiting = self._waiting, []
        # Clients that have gone in the meantime are not answered.
        turn = [(asked, future) for asked, future in turn if not future.done()]
        asked = [each for each, _ in turn]
        try:
            # Taken once: whatever is promoted in the meantime, one model answers all of them.
            quotes = priced(asked, self._follower.served())
            self._write_down(asked, quotes)
        except Exception as error:  # noqa: BLE001 - it is raised wherever one of them is awaited
            for _, future in turn:
                future.set_exception(error)
        else:
            for (_, future), quote in zip(turn, quotes, strict=True):
                future.set_result(quote)

    def _write_down(self, asked: Sequence[Asked], quotes: Sequence[Quote]) -> None:
        """Ensures that the answers are on the log before they are sent."""
        if not asked:
            return
        lost = self._log.lost
        self._log.append(answers(asked, quotes))
        self._metrics.priced(len(asked), quotes[0].served.version, self._log.lost - lost)


def priced(asked: Sequence[Asked], served: Served) -> list[Quote]:
    """Returns the quotes of rides, all by that model.

    Raises:
        BundleError: It does not predict.
    """
    if not asked:
        return []
    bundle = served.bundle
    found = bundle.quote(packed([each.ride for each in asked]))
    # As they are logged: to a hundredth of a cent.
    columns = np.array([found.fare, found.upper, found.corrected, found.quoted], np.float64).round(4).tolist()
    unlearned = (bundle.unlearned(each.ride.pickup_datetime) for each in asked)
    return [Quote(served, *values) for values in zip(*columns, unlearned, strict=True)]


def answers(asked: Sequence[Asked], quotes: Sequence[Quote], role: Role = "production") -> list[Answer]:
    """Returns the lines of the log: what rides are answered now, or would have been."""
    now = datetime.now(UTC)
    return [
        Answer(
            ride_id=each.ride_id,
            ride=each.told,
            role=role,
            version=quote.served.version,
            bundle=quote.served.bundle.digest,
            sequence=quote.served.sequence,
            fare=quote.fare,
            upper=quote.upper,
            corrected=quote.corrected,
            quoted=quote.quoted,
            unit=quote.served.bundle.manifest.unit,
            received_at=each.received_at,
            answered_at=now,
        )
        for each, quote in zip(asked, quotes, strict=True)
    ]
