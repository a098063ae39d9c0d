"""Versions by content, on record in the ledger: what the model registry checks against before it reads a file."""

from datetime import UTC, datetime

from taxifare.approval.ledger import Ledger
from taxifare.model.contents import Content
from taxifare.model.registry import ModelRegistry
from taxifare.settings import MlflowSettings


class RecordedContents:
    """The ledger's record of versions, `taxifare.model.contents.Contents`.

    Args:
        ledger: Where it is kept.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def of(self, version: str) -> Content | None:
        """Returns the content of the version, None where it is not recorded."""
        with self._ledger.reading() as entries:
            return entries.content(version)

    def record(self, content: Content) -> None:
        """Ensures that a newly registered version is on record."""
        with self._ledger.writing() as entries:
            entries.add_content(content, datetime.now(UTC))


def registry_of(settings: MlflowSettings) -> ModelRegistry:
    """Returns the model registry the settings name, which checks versions against their ledger; connects to nothing."""
    return ModelRegistry.from_settings(settings, RecordedContents(ledger_of(settings)))


def ledger_of(settings: MlflowSettings) -> Ledger:
    """Returns the ledger the settings name; connects to nothing."""
    return Ledger(settings.ledger_url, settings.target_facts.unit, settings.city.on_record)
