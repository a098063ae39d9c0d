"""Publishing: puts the promotion in force and its version's bundle where those who price rides look for them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from upath import UPath

from taxifare.approval.approvals import Approvals
from taxifare.approval.projection import NotPublishedError
from taxifare.approval.records import Promotion, Request
from taxifare.approval.versions import registry_of
from taxifare.model.contents import NotOnRecordError
from taxifare.model.registry import ModelRegistry
from taxifare.serving import in_force, in_shadow
from taxifare.serving.bundle import MANIFEST, Bundle, BundleError
from taxifare.serving.in_force import InForce, InForceError, bundles_in
from taxifare.serving.in_shadow import InShadow
from taxifare.serving.making import make_bundle
from taxifare.settings import Settings
from taxifare.texts import named_version
from taxifare.whole_files import whole_file

_log = logging.getLogger(__name__)


def approvals_of(settings: Settings) -> Approvals:
    """Returns the approvals of these settings, which publish what is in force; connects to nothing."""
    registry = registry_of(settings)
    return Approvals.from_settings(settings, registry, LakePublisher(settings, registry))


class LakePublisher:
    """Publishes in the lake, see `taxifare.approval.projection.Publisher`. Creating one connects to nothing.

    Args:
        settings: Name the lake, the city and the target.
        registry: Has the versions.
    """

    def __init__(self, settings: Settings, registry: ModelRegistry) -> None:
        self._settings = settings
        self._registry = registry

    def is_published(self, promotion: Promotion) -> bool:
        """Returns whether those who price rides find this promotion, or a later one."""
        with _told():
            try:
                published = in_force.read(self._settings.lake)
            except InForceError as error:
                _log.warning("it is published anew: %s", error)
                return False
            if published is None or published.sequence < promotion.sequence:
                return False
            return published.sequence > promotion.sequence or published == self._as_in_force(promotion)

    def found(self) -> InForce | None:
        """Returns what those who price rides find, None where they find nothing.

        Raises:
            NotPublishedError: That cannot be told.
        """
        with _told():
            return in_force.read(self._settings.lake)

    def difference(self, found: InForce | None, last: Promotion) -> str | None:
        """Returns how what they find differs from the ledger's last promotion, None if it does not.

        Args:
            found: What they find.
            last: The promotion.

        Raises:
            NotPublishedError: That cannot be told.
        """
        if found is not None and found.sequence > last.sequence:
            return (
                f"what is in force is a later promotion than the ledger's last, {last.sequence}: restore the ledger, "
                f"or remove {self._bundles}"
            )
        with _told():
            if found == self._as_in_force(last):
                return None
        return (
            f"expected promotion {last.sequence}, {named_version(last.version)}, received "
            f"{'nothing' if found is None else f'promotion {found.sequence}, {named_version(found.version)}'}; "
            "the next command or run publishes it: taxifare bundle"
        )

    def prepare(self, version: str) -> None:
        """Ensures that the version has a bundle."""
        with _told():
            self.bundle_of(version)

    def publish(self, promotion: Promotion) -> None:
        """Ensures that those who price rides find the promotion, unless a later one is published."""
        with _told():
            in_force.publish(self._settings.lake, self._as_in_force(promotion))

    def is_in_shadow(self, asked: Request | None, beside: Promotion) -> bool:
        """Returns whether they find the version asked about, or nothing if it has no bundle yet."""
        with _told():
            try:
                return in_shadow.read(self._settings.lake) == self._as_in_shadow(asked, beside)
            except InForceError as error:
                _log.warning("it is published anew: %s", error)
                return False

    def put_in_shadow(self, asked: Request | None, beside: Promotion) -> None:
        """Ensures that they find it and no other."""
        with _told():
            in_shadow.publish(self._settings.lake, self._as_in_shadow(asked, beside))

    def bundle_of(self, version: str, on_making: Callable[[], None] = lambda: None) -> str:
        """Returns the digest of the version's bundle, which is made if it is missing or damaged.

        Args:
            version: A registered version.
            on_making: Called before one is made, which takes seconds.

        Raises:
            NotOnRecordError: Nobody has recorded what the version is.
            VersionUnusableError: Its files are not those that were registered, or cannot be loaded.
            BundleError: It cannot be served.
            RegistryError: MLflow does not answer.
        """
        known = self.made_of(version)
        if known is not None and self._is_whole(known):
            return known
        on_making()
        model = self._registry.load_once(version)
        digest = make_bundle(model, self._settings, self._bundles)
        place = in_force.made_for(self._settings.lake, model.content.files_digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as unfinished:
            unfinished.write_text(digest)
        return digest

    def made_of(self, version: str) -> str | None:
        """Returns the digest of the version's bundle, None where there is none; whether it was changed is not checked.

        Raises:
            NotOnRecordError: Nobody has recorded what the version is.
        """
        content = self._registry.contents.of(version)
        if content is None:
            raise NotOnRecordError(f"version {version} is not on record")
        digest = in_force.made_of(self._settings.lake, content.files_digest)
        return digest if digest is not None and (self._bundles / digest / MANIFEST).exists() else None

    def _is_whole(self, digest: str) -> bool:
        try:
            Bundle.read(self._bundles / digest, city=self._settings.city, target=self._settings.target)
        except BundleError as error:
            _log.warning("it is made anew: %s", error)
            return False
        return True

    @property
    def _bundles(self) -> UPath:
        return bundles_in(self._settings.lake)

    def _as_in_force(self, promotion: Promotion) -> InForce:
        return InForce(
            sequence=promotion.sequence,
            version=promotion.version,
            digest=None if promotion.version is None else self.made_of(promotion.version),
            city=self._settings.city.slug,
            target=self._settings.target,
            by=promotion.by,
            reason=promotion.reason,
            promoted_at=promotion.promoted_at,
            replaced_version=promotion.replaced_version,
        )

    def _as_in_shadow(self, asked: Request | None, beside: Promotion) -> InShadow | None:
        digest = None if asked is None else self.made_of(asked.staging_version)
        if asked is None or digest is None:
            return None
        return InShadow(
            version=asked.staging_version,
            digest=digest,
            city=self._settings.city.slug,
            target=self._settings.target,
            sequence=beside.sequence,
            request_id=asked.id,
            since=asked.requested_at,
        )


@contextmanager
def _told() -> Iterator[None]:
    """Turns whatever a lake, MLflow or a version raises into errors approval knows: its entries stand regardless."""
    try:
        yield
    except Exception as error:
        raise NotPublishedError(str(error)) from error
