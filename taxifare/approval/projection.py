"""The projection: the model registry, and the files that tell servers what is in force, made to agree with the ledger.

Both may be lost or wiped without effect.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Protocol

from taxifare.approval.errors import NotAdoptedError, RegistryBehindError
from taxifare.approval.ledger import Entries, Ledger
from taxifare.approval.promotions import in_use
from taxifare.approval.records import Comparison, Promotion, Request, RequestState, readable
from taxifare.errors import ToldError
from taxifare.gate.staleness import baseline_shown
from taxifare.model.contents import Content
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.store import RegistryError
from taxifare.texts import named_version

TELLING_S = 0.5
"""About how long a command may hold the ledger's lock to tag versions with what became of them."""

_log = logging.getLogger(__name__)


class Registry(Protocol):
    """What approval needs of `taxifare.model.registry.ModelRegistry`; a call raises RegistryError if MLflow fails."""

    def production_version(self) -> str | None:
        """The version the alias `production` points at, None where it is not set; raises if the registry is down."""

    def set_production(self, version: str | None) -> None:
        """Points the alias at a version, None for none."""

    def verify(self, version: str) -> Content:
        """Returns the version's content; raises VersionUnusableError if it is not what was registered."""

    def as_they_are(self) -> Sequence[Content]:
        """Returns the present content of every version whose files are there."""

    def tag(self, version: str, tags: Mapping[str, str]) -> bool:
        """Sets tags of a version and returns whether any was otherwise; raises if there is no such version."""


class NotPublishedError(ToldError, RuntimeError):
    """What is in force could not be published or found out; says why. Whoever prices rides goes on as before."""


class Publisher(Protocol):
    """What approval needs of `taxifare.serving.publishing`; a call raises NotPublishedError if it does not succeed."""

    def is_published(self, promotion: Promotion) -> bool:
        """Returns whether those who price rides find the promotion, or a later one."""

    def prepare(self, version: str) -> None:
        """Ensures that the version can be published at once: making its bundle takes seconds."""

    def publish(self, promotion: Promotion) -> None:
        """Ensures that those who price rides find the promotion, unless a later one is published."""

    def is_in_shadow(self, asked: Request | None, beside: Promotion) -> bool:
        """Returns whether what is in shadow is the version asked about, or nothing while that has no bundle yet."""

    def put_in_shadow(self, asked: Request | None, beside: Promotion) -> None:
        """Ensures that it is."""


class Projection:
    """The production alias, the tags of versions, what is in force and what is in shadow, as the ledger has them.

    Args:
        ledger: The truth.
        registry: What is made to agree with it.
        publisher: Likewise, None where nobody prices rides.
        clock: Gives the present moment.
    """

    def __init__(
        self, ledger: Ledger, registry: Registry, publisher: Publisher | None, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._publisher = publisher
        self._now = clock

    def repair(self) -> tuple[str, ...]:
        """Returns what was wrong in the registry and is repaired now: a command was killed, or the alias was moved.

        Raises:
            NotAdoptedError: The registry has a production version that the ledger does not know.
        """
        moved, tagged = self._project()
        for what in moved:
            _log.warning("the model registry differed from the ledger; repaired: %s", what)
        # Tags may wait for the next command by design: on a busy machine that is nothing to be warned of.
        for what in tagged:
            _log.info("the model registry was behind the ledger; caught up: %s", what)
        self._publish()
        return (*moved, *tagged)

    def retell(self) -> tuple[str, ...]:
        """Returns which versions said otherwise in the registry than the ledger does, and say the same now.

        Somebody may have edited tags there; only events on which they rest would bring them back.
        """
        with self._ledger.reading() as entries:
            comparisons, history = entries.comparisons().values(), entries.promotions()
            known = {one.staging_version for one in comparisons} | {one.staging_version for one in entries.requests()}
            known |= {entry.version for entry in history if entry.version is not None}
            tags = {version: _tags(entries, history, comparisons, version) for version in sorted(known)}
        return tuple(f"tags of version {version}" for version, told in tags.items() if self._is_told(version, told))

    def _is_told(self, version: str, tags: Mapping[str, str]) -> bool:
        try:
            return self._registry.tag(version, tags)
        except RegistryError as error:
            # Somebody may have deleted an old version: that must not stop the others.
            _log.warning("version %s does not tell its story: %s", version, error)
            return False

    def prepare(self, version: str) -> None:
        """Ensures, if possible, that a promotion of the version can be published without a wait."""
        if self._publisher is None:
            return
        try:
            self._publisher.prepare(version)
        except NotPublishedError as error:
            _log.warning("version %s has no bundle yet, its promotion tries again: %s", version, error)

    def show(self, entry: str) -> None:
        """Ensures that the registry shows an entry that the ledger already has.

        Args:
            entry: Which one, for the error.

        Raises:
            RegistryBehindError: The registry could not be told; the next command that reaches it catches up.
        """
        try:
            self._project()
        except RegistryError as error:
            raise RegistryBehindError(
                f"{entry}: recorded, but the model registry could not be told ({error}); the next command catches up"
            ) from error
        self._publish()

    def _publish(self) -> None:
        """Ensures, if possible, that the last promotion is in force and the version asked about is in shadow."""
        if self._publisher is None:
            return
        with self._ledger.reading() as entries:
            last, asked = in_use(entries, self._now())
        if last is None:
            return
        try:
            self._put_in_force(last, self._publisher)
        except NotPublishedError as error:
            _log.warning("promotion %s is not in force yet, the next command tries again: %s", last.sequence, error)
        try:
            self._put_in_shadow(asked, last, self._publisher)
        except NotPublishedError as error:
            _log.warning("what is in shadow is not published yet, the next command tries again: %s", error)

    def _put_in_force(self, last: Promotion, publisher: Publisher) -> None:
        if publisher.is_published(last):
            return
        if last.version is not None:
            # Not under the ledger's lock, which nobody holds for seconds.
            publisher.prepare(last.version)
        with self._ledger.writing() as entries:
            # Whoever promoted another one meanwhile publishes that.
            if entries.last_promotion() == last:
                publisher.publish(last)

    def _put_in_shadow(self, asked: Request | None, last: Promotion, publisher: Publisher) -> None:
        if publisher.is_in_shadow(asked, last):
            return
        with self._ledger.writing() as entries:
            if in_use(entries, self._now()) == (last, asked):
                publisher.put_in_shadow(asked, last)

    def _project(self) -> tuple[list[str], list[str]]:
        """Returns what was changed in the registry to make it say what the ledger says: of the alias, and of tags."""
        with self._ledger.reading() as entries:
            last, pending = entries.last_promotion(), entries.pending()
        if not pending and (last.version if last else None) == self._alias(last):
            return [], []
        # One at a time, under the ledger's lock: a slow process must not put an older version back on the alias.
        with self._ledger.writing() as entries:
            return self._move_alias(entries.last_promotion()), self._tag_versions(entries)

    def _move_alias(self, last: Promotion | None) -> list[str]:
        """Returns what was changed of the alias."""
        alias = self._alias(last)
        if last is None or last.version == alias:
            return []
        try:
            if last.version is not None:
                self._registry.verify(last.version)
        except VersionUnusableError as error:
            # The alias never moves to anything but what was approved; and the command that would mend this must run.
            _log.warning("the ledger says version %s is production, the alias stays as it is: %s", last.version, error)
            return []
        self._registry.set_production(last.version)
        return [f"production is {named_version(last.version)}, was {alias or 'nothing'}"]

    def _tag_versions(self, entries: Entries) -> list[str]:
        """Returns which versions were tagged with what became of them; what could not be tagged stays pending.

        The latest events come first, and only for a moment: a promotion ends hundreds of questions, and their tags can
        wait for the next command, but nobody else should wait for the lock.
        """
        told: set[str] = set()
        untold: set[str] = set()
        pending, history, until = entries.pending(), entries.promotions(), monotonic() + TELLING_S
        comparisons = entries.comparisons().values() if pending else ()
        for event, versions in reversed(pending.items()):
            for version in sorted({*versions} - told - untold):
                try:
                    self._registry.tag(version, _tags(entries, history, comparisons, version))
                    told.add(version)
                except RegistryError as error:
                    # Somebody may have deleted an old version: that must not stop the others.
                    _log.warning("version %s does not tell its story, the next command tries again: %s", version, error)
                    untold.add(version)
            if untold.isdisjoint(versions):
                entries.add_projection(event, self._now())
            if told and monotonic() > until:
                break
        return [f"tags of version {version}" for version in sorted(told)]

    def _alias(self, last: Promotion | None) -> str | None:
        """Returns the version the alias points at; raises NotAdoptedError if there is one but no promotion."""
        alias = self._registry.production_version()
        if last is None and alias is not None:
            raise NotAdoptedError(
                f"the registry's production is version {alias}, but the ledger records no promotion; "
                'adopt it: taxifare adopt --by YOU --reason "WHY"'
            )
        return alias


def _tags(
    entries: Entries, promotions: Sequence[Promotion], comparisons: Iterable[Comparison], version: str
) -> dict[str, str]:
    """Returns the version's story, as its page in the registry tells it, and how well it did."""
    request = entries.last_request_of(version)
    compared = (one for one in comparisons if one.staging_version == version)
    latest = max(compared, key=lambda one: one.compared_at, default=request)
    baseline = None if latest is None else baseline_shown(readable(latest))
    tags: dict[str, str] = {} if baseline is None else baseline.tags
    if request is not None:
        outcome = entries.outcome(request.id)
        tags |= {
            # Not "month", which says what it was trained on: a version may be asked about on later months, too.
            "asked_about": request.subject,
            "verdict": request.verdict,
            "request": request.id,
            "decision": outcome.state if outcome else RequestState.REQUESTED,
            "decided_by": (outcome.by if outcome else None) or "-",
            "decision_reason": outcome.reason if outcome else "-",
        }
    index = max((i for i, entry in enumerate(promotions) if entry.version == version), default=None)
    if index is not None:
        entry, following = promotions[index], promotions[index + 1 : index + 2]
        tags |= {
            "promoted_by": entry.by,
            "promoted_at": entry.promoted_at.isoformat(),
            "replaced": entry.replaced_version or "-",
            "replaced_by": (following[0].version or "none") if following else "-",
        }
    return {name: str(value) for name, value in tags.items()}
