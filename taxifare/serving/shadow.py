"""Shadow: what the version that a person is asked about would have answered, written down beside production's answers.

Nobody is given it, and nobody waits for it: rides that were answered lie in a short queue, so that many are priced
together, until every request is answered and nothing has come for a moment. What finds no room there is dropped, and
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
"""Rides: some seconds of a busy service, a few MB."""

_TOGETHER = 64
"""Rides that are priced at once: whoever comes meanwhile waits for a millisecond or two; one costs nearly as much."""

_EVERY_S = 1.0
"""How long rides gather."""

_GAP_S = 0.001
"""For how long nothing has come when there is time."""

_AGAIN_S = 0.005
"""When somebody looks again whether there is."""

_log = logging.getLogger(__name__)


class _Refused(NamedTuple):
    """A bundle that is not used, why, and when it is looked at again."""

    digest: str
    why: str
    again_s: float


class StagingFollower:
    """Holds the version in shadow, and renews it, in a thread of its own: production's follower waits for nothing here.

    Attributes:
        current: It, None where there is none, or none that is fit.
        fault: Why what is in shadow cannot be told or used, None where all is as it should be.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.current: Served | None = None
        self.fault: str | None = None
        self._settings = settings
        self._in_shadow: InShadow | None = None
        self._refused: _Refused | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Ensures that somebody looks."""
        threading.Thread(target=self._look_on, name="follower of what is in shadow", daemon=True).start()

    def stop(self) -> None:
        """Ensures that nobody looks any more."""
        self._ended.set()

    def refuse(self, served: Served, why: str) -> None:
        """Ensures that a version that does not price rides is not asked again."""
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
            except Exception as error:  # noqa: BLE001 - clients of buckets raise what they like, and who looks has to live
                self._say(f"what is in shadow cannot be told or fetched: {error}")
            self._ended.wait(LOOK_EVERY_S)

    def _look(self) -> None:
        """Ensures that what is in shadow is held, or that it is said why not."""
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
        """Ensures that a version is held from now on; returns why it is not."""
        try:
            bundle = Bundle.read(
                bundles_in(self._settings.lake) / found.digest, city=self._settings.city, target=self._settings.target
            )
        except BundleError as error:
            # It may have been half there.
            return _Refused(found.digest, f"version {found.version} is refused: {error}", time.monotonic() + AGAIN_S)
        self.current = Served(bundle, found.sequence)
        _log.info("version %s prices in shadow beside promotion %s", found.version, found.sequence)
        return None

    def _say(self, fault: str | None) -> None:
        if fault is not None and fault != self.fault:
            _log.error("shadow: %s", fault)
        self.fault = fault


class Shadow:
    """Prices rides again that were answered, when there is time.

    Args:
        staging: With what.
        log: Where that is written down.
        metrics: What is counted.
        is_busy: Tells whether somebody waits for an answer.

    Attributes:
        priced: Rides priced.
        dropped: Rides that were not: there was no time, or the version in shadow could not price them.
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
        """Ensures that rides which that model has answered are priced when there is time, as far as there is room."""
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
        """Ensures that nothing is priced any more."""
        self._staging.stop()
        self._drop(len(self._waiting))
        self._waiting.clear()

    def facts(self) -> dict[str, Any]:
        """Returns what is in shadow, and what became of the rides."""
        return self._staging.facts() | {"priced": self.priced, "dropped": self.dropped}

    def _come_round(self) -> None:
        """Prices some of the rides if there is time, and comes again while there are more."""
        loop = asyncio.get_running_loop()
        if self._is_busy() or loop.time() - self._last_s < _GAP_S:
            loop.call_later(_AGAIN_S, self._come_round)
            return
        self._take_some()
        self._is_coming_round = bool(self._waiting)
        if self._is_coming_round:
            # Whoever has come meanwhile is seen first.
            loop.call_soon(self._come_round)

    def _take_some(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
        staging = self._staging.current
        # What has become another's question meanwhile, or nobody's, is not answered.
        asked = [each for each, by in some if by is staging]
        written = 0
        if staging is not None and asked:
            try:
                written = self._written_down(asked, staging)
            except Exception as error:  # noqa: BLE001 - whatever it is: nobody is answered otherwise for it
                self._staging.refuse(staging, f"it does not price rides: {error}")
        self._drop(len(some) - written)

    def _written_down(self, asked: Sequence[Asked], staging: Served) -> int:
        """Returns how many of the rides are priced and on the log; those beyond the version's limits are not.

        Raises:
            BundleError: The model answers what is no price; the runtime raises errors of its own.
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
