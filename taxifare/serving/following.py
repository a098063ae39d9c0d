"""Following: what is in force is served within seconds of a promotion, and the last good model while that is unknown.

A thread looks. A new bundle is copied to this machine, loaded and checked, and then replaces the old one atomically:
whoever prices rides takes one reference and keeps it. A process starts from the copy when the lake cannot be reached.
"""

import logging
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from upath import UPath

from taxifare.environment import ServiceSettings
from taxifare.serving import in_force
from taxifare.serving.bundle import Bundle, BundleError, copy_bundle
from taxifare.serving.in_force import InForce, InForceError, bundles_in
from taxifare.serving.metrics import Metrics
from taxifare.serving.problems import ProblemError
from taxifare.texts import named_version

LOOK_EVERY_S = 1.0

AGAIN_S = 30.0
"""How long until a refused bundle is looked at again: it may have been incomplete."""

_FIRST_LOOK_S = 5.0
"""How long a process waits for the lake before it starts without it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """What rides are priced with, and the promotion that put it there.

    Attributes:
        bundle: The model.
        sequence: Number of the promotion, None where a bundle is served regardless of production.
    """

    bundle: Bundle
    sequence: int | None

    @property
    def version(self) -> str:
        """Number of the registered version."""
        return self.bundle.manifest.version


class Follower:
    """Holds what is served, and keeps it up to date.

    Attributes:
        current: What is served, None where nothing is.
        behind: Why what is in force is unknown or cannot be served, None where all is well.
    """

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self.current: Served | None = None
        self.behind: str | None = None
        self._settings, self._metrics = settings, metrics
        self._own = settings.home / "serving"
        self._in_force: InForce | None = None
        self._refused: tuple[str, float] | None = None
        self._first_look, self._ended = threading.Event(), threading.Event()

    def served(self) -> Served:
        """Returns what is served.

        Raises:
            ProblemError: Nothing is.
        """
        if self.current is None:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, self.why_nothing, headers=((b"retry-after", b"5"),))
        return self.current

    def start(self) -> None:
        """Ensures that what is in force is served, or the local copy while that is unknown; a thread keeps looking.

        Requests are accepted only after that: otherwise several processes at one socket would answer differently.

        Raises:
            BundleError: The bundle of SERVICE_MODEL_PATH is not fit to serve.
            SettingsError: It cannot be opened.
        """
        if self.begin():
            threading.Thread(target=self._look_on, name="follower", daemon=True).start()
            self._first_look.wait(_FIRST_LOOK_S)

    @property
    def why_nothing(self) -> str:
        """Why rides are not priced while `current` is None, and the way out."""
        if self.behind is not None:
            return f"no model is served: {self.behind}"
        if self._in_force is not None and self._in_force.digest is None:
            return in_force.taken_out(self._in_force)
        return "no model is in production: approve one, or set SERVICE_MODEL_PATH"

    def begin(self) -> bool:
        """Returns whether approvals are followed; whatever can be served without looking is served.

        Raises:
            BundleError: The bundle of SERVICE_MODEL_PATH is not fit to serve.
            SettingsError: It cannot be opened.
        """
        if (bundle := self._settings.service_bundle) is not None:
            self.current = Served(self._loaded(bundle), None)
            return False
        with suppress(FileNotFoundError):
            self._start_from_copy()
        return True

    def look(self) -> None:
        """Ensures that what is in force is served, or that the reason why not is given."""
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 - bucket clients may raise anything, and the thread must survive
            self._say(f"what is in force cannot be told or fetched: {error}")

    def stop(self) -> None:
        """Ensures that the thread stops looking."""
        self._ended.set()

    def facts(self) -> dict[str, Any]:
        """Returns what is served, who decided on it, and whether it is known to be what is in force."""
        served = self.current
        manifest = None if served is None else msgspec.to_builtins(served.bundle.manifest)
        promotion = None if self._in_force is None else msgspec.to_builtins(self._in_force)
        bundle = None if served is None else served.bundle.digest
        return {"bundle": bundle, "manifest": manifest, "promotion": promotion, "behind": self.behind}

    def _start_from_copy(self) -> None:
        try:
            found = in_force.read(UPath(self._own))
            if found is not None:
                self._take(found, self._from_copy(found))
        except (InForceError, BundleError) as error:
            _log.warning("the own copy of what was in force is not used: %s", error)

    def _look_on(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._first_look.set()
            self._ended.wait(LOOK_EVERY_S)

    def _look(self) -> None:
        found = in_force.read(self._settings.lake)
        known = None if self._in_force is None else self._in_force.sequence
        if found is None:
            self._say(
                None if known is None else f"expected promotion {known} or a later one in the lake, received none"
            )
        elif known is not None and found.sequence < known:
            self._say(f"expected promotion {known} or a later one in the lake, received {found.sequence}")
        elif found == self._in_force:
            self._say(None)
        else:
            self._follow(found)

    def _follow(self, found: InForce) -> None:
        """Ensures that a new promotion is served, or refused while the present model stays."""
        now_s = time.monotonic()
        if self._refused is not None and self._refused[0] == found.digest and now_s < self._refused[1]:
            return
        bundles = bundles_in(self._settings.lake)
        try:
            bundle = None if found.digest is None else self._loaded(bundles / found.digest)
        except BundleError as error:
            self._refused = (found.digest or "", now_s + AGAIN_S)
            self._metrics.refused()
            self._say(f"version {found.version} of promotion {found.sequence} is refused: {error}")
            return
        self._refused = None
        self._take(found, bundle)
        self._say(None)
        self._keep(found, bundles)

    def _take(self, found: InForce, bundle: Bundle | None) -> None:
        """Ensures that rides are priced as promoted from now on: one assignment, which a request sees or does not."""
        self.current = None if bundle is None else Served(bundle, found.sequence)
        self._in_force = found
        _log.info("promotion %s: %s is served", found.sequence, named_version(found.version))

    def _from_copy(self, found: InForce) -> Bundle | None:
        return None if found.digest is None else self._loaded(bundles_in(UPath(self._own)) / found.digest)

    def _loaded(self, folder: UPath) -> Bundle:
        """Returns a checked bundle: whole, answering as it should, of this city and target."""
        return Bundle.read(folder, city=self._settings.city, target=self._settings.target)

    def _keep(self, found: InForce, bundles: UPath) -> None:
        """Ensures that the next start finds a copy of what is served now, and of nothing else."""
        own = Path(bundles_in(UPath(self._own)).path)
        try:
            own.mkdir(parents=True, exist_ok=True)
            if found.digest is not None and not (own / found.digest).exists():
                copy_bundle(bundles / found.digest, own / found.digest)
            in_force.publish(UPath(self._own), found)
            for folder in own.iterdir():
                if folder.is_dir() and folder.name != found.digest:
                    shutil.rmtree(folder, ignore_errors=True)
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("no copy of promotion %s is kept for the next start: %s", found.sequence, error)

    def _say(self, behind: str | None) -> None:
        if behind is not None and behind != self.behind:
            _log.error("behind: %s", behind)
        self.behind = behind
        served = self.current
        self._metrics.follows(None if served is None else served.sequence, is_behind=behind is not None)
