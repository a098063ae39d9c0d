"""Shadow: what the version that a person is asked about would have answered, logged beside production's answers.

Nobody receives it, and nobody waits for it: answered rides wait in a short queue, so that many are priced together,
until every request is answered and nothing has arrived for a moment. Rides that find no room there are dropped and
counted.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from taxifare.environment import ServiceSettings
from taxifare.serving import in_shadow
from taxifare.serving.bundle import Bundle, BundleError
from taxifare.serving.following import AGAIN_S, LOOK_EVERY_S, Served
from taxifare.serving.in_force import bundles_in
from taxifare.serving.in_shadow import InShadow
from taxifare.serving.metrics import Metrics
from taxifare.serving.prediction_log import PredictionLog
from taxifare.serving.rides import packed, unfit
from taxifare.serving.turns import Asked, answers, priced

_MOST_WAITING = 4_096
"""Rides in the queue: some seconds of a busy service, a few MB."""

_TOGETHER = 64
"""Rides priced at once: a request in between waits for a millisecond or two; pricing one ride takes nearly as long."""

_EVERY_S = 1.0
"""How long rides gather."""

_GAP_S = 0.001
"""There is time once nothing has arrived for so long."""

_AGAIN_S = 0.005
"""How long until it is checked again whether there is time."""

_log = logging.getLogger(__name__)


class _Refused(NamedTuple):
    """A bundle that is not used, why, and when it is looked at again."""

    digest: str
    why: str
    again_s: float


class StagingFollower:
    """Holds the version in shadow and keeps it up to date, in a thread of its own: production's follower never waits.

    Attributes:
        current: The version, None where there is none, or none that is fit.
        fault: Why what is in shadow is unknown or cannot be used, None where all is well.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.current: Served | None = None
        self.fault: str | None = None
        self._settings = settings
        self._in_shadow: InShadow | None = None
        self._refused: _Refused | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Ensures that the thread is looking."""
        threading.Thread(target=self._look_on, name="follower of what is in shadow", daemon=True).start()

    def stop(self) -> None:
        """Ensures that the thread stops looking."""
        self._ended.set()

    def refuse(self, served: Served, why: str) -> None:
        """Ensures that a version that does not price rides is not used again."""
        self._refused = _Refused(served.bundle.digest, f"version {served.version} is refused: {why}", float("inf"))
        if self.current is served:
            self.current = None
        self._say(self._refused.why)

    def facts(self) -> dict[str, Any]:
        """Returns what is in shadow, since when, beside which promotion."""
        current, found = self.current, self._in_shadow
        return {
            "version": None if found is None else found.version,
            "bundle": None if current is None else current.bundle.digest,
            "sequence": None if found is None else found.sequence,
            "request_id": None if found is None else found.request_id,
            "since": None if found is None else found.since,
            "fault": self.fault,
        }

    def _look_on(self) -> None:
        while not self._ended.is_set():
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - bucket clients may raise anything, and the thread must survive
                self._say(f"what is in shadow cannot be told or fetched: {error}")
            self._ended.wait(LOOK_EVERY_S)

    def _look(self) -> None:
        """Ensures that what is in shadow is held, or that the reason why not is given."""
        found = in_shadow.read(self._settings.lake)
        if found != self._in_shadow:
            self.current, self._in_shadow = None, found
        refused = self._refused
        if found is None or (refused is not None and refused.digest != found.digest):
            refused = None
        if found is not None and self.current is None and (refused is None or time.monotonic() >= refused.again_s):
            refused = self._refused = self._taken(found)
        self._say(None if refused is None else refused.why)

    def _taken(self, found: InShadow) -> _Refused | None:
        """Ensures that a version is held from now on; otherwise returns why not."""
        try:
            bundle = Bundle.read(
                bundles_in(self._settings.lake) / found.digest, city=self._settings.city, target=self._settings.target
            )
        except BundleError as error:
            # It may have been incomplete.
            return _Refused(found.digest, f"version {found.version} is refused: {error}", time.monotonic() + AGAIN_S)
        self.current = Served(bundle, found.sequence)
        _log.info("version %s prices in shadow beside promotion %s", found.version, found.sequence)
        return None

    def _say(self, fault: str | None) -> None:
        if fault is not None and fault != self.fault:
            _log.error("shadow: %s", fault)
        self.fault = fault


class Shadow:
    """Prices answered rides again when there is time.

    Args:
        staging: What prices them.
        log: Where the prices are logged.
        metrics: Counts what happens.
        is_busy: Returns whether somebody is waiting for an answer.

    Attributes:
        priced: Rides priced.
        dropped: Rides not priced: there was no time, or the version in shadow could not price them.
    """

    def __init__(
        self, staging: StagingFollower, log: PredictionLog, metrics: Metrics, is_busy: Callable[[], bool]
    ) -> None:
        self.priced, self.dropped = 0, 0
        self._staging, self._log, self._metrics, self._is_busy = staging, log, metrics, is_busy
        self._waiting: deque[tuple[Asked, Served]] = deque()
        self._last_s = 0.0
        self._is_coming_round = False

    def offer(self, asked: Sequence[Asked], by: Served) -> None:
        """Ensures that rides answered by `by` are priced again when there is time, as far as there is room."""
        staging = self._staging.current
        if staging is None or staging.sequence != by.sequence:
            return
        room = _MOST_WAITING - len(self._waiting)
        self._waiting.extend((each, staging) for each in asked[:room])
        self._drop(max(len(asked) - room, 0))
        loop = asyncio.get_running_loop()
        self._last_s = loop.time()
        if not self._is_coming_round:
            self._is_coming_round = True
            loop.call_later(_EVERY_S, self._come_round)

    def end(self) -> None:
        """Ensures that nothing more is priced."""
        self._staging.stop()
        self._drop(len(self._waiting))
        self._waiting.clear()

    def facts(self) -> dict[str, Any]:
        """Returns what is in shadow, and what became of the rides."""
        return self._staging.facts() | {"priced": self.priced, "dropped": self.dropped}

    def _come_round(self) -> None:
        """Prices some of the rides if there is time, and schedules itself again while there are more."""
        loop = asyncio.get_running_loop()
        if self._is_busy() or loop.time() - self._last_s < _GAP_S:
            loop.call_later(_AGAIN_S, self._come_round)
            return
        self._take_some()
        self._is_coming_round = bool(self._waiting)
        if self._is_coming_round:
            # Requests that have arrived in the meantime come first.
            loop.call_soon(self._come_round)

    def _take_some(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
        staging = self._staging.current
        # Rides are skipped if the question has changed or ended in the meantime.
        asked = [each for each, by in some if by is staging]
        written = 0
        if staging is not None and asked:
            try:
                written = self._written_down(asked, staging)
            except Exception as error:  # noqa: BLE001 - whatever it is: nobody is answered otherwise for it
                self._staging.refuse(staging, f"it does not price rides: {error}")
        self._drop(len(some) - written)

    def _written_down(self, asked: Sequence[Asked], staging: Served) -> int:
        """Returns how many of the rides were priced and are on the log; those beyond the version's limits are not.

        Raises:
            BundleError: The model's answer is not a price; the runtime raises errors of its own.
        """
        beyond = unfit(packed([each.ride for each in asked]), staging.bundle.manifest.limits)
        within = [each for row, each in enumerate(asked) if row not in beyond]
        quotes = priced(within, staging)
        if not np.isfinite([quote[1:5] for quote in quotes]).all():
            raise BundleError("expected prices, received some that are no numbers")
        lost = self._log.lost
        self._log.append(answers(within, quotes, "shadow"))
        written = len(within) - (self._log.lost - lost)
        self.priced += written
        self._metrics.priced_in_shadow(written, staging.version)
        return written

    def _drop(self, rides: int) -> None:
        if rides:
            self.dropped += rides
            self._metrics.dropped(rides)
