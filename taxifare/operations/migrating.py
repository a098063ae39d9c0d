"""Migrating servers' schemas to those of this release; files migrate themselves when they are opened.

Why a command of its own: docs/decisions.md, under operations.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from taxifare.approval.versions import ledger_of, registry_of
from taxifare.settings import Settings
from taxifare.studies import database as studies

Migration = Callable[[Settings], str | None]
"""Returns the schema that a server's tables had and have no more, `none` for no tables; None if nothing was to do."""


@dataclass(frozen=True)
class Migrated:
    """What became of one store.

    Attributes:
        store: Which.
        before: The schema that it had and has no more, `none` for no tables; None if nothing was to do.
    """

    store: str
    before: str | None

    def __str__(self) -> str:
        """What became of it, in a line.

        >>> print(Migrated("ledger", "0005"))
        ledger: migrated from schema 0005
        >>> print(Migrated("MLflow", None))
        MLflow: nothing to do
        """
        return f"{self.store}: " + ("nothing to do" if self.before is None else f"migrated from schema {self.before}")


def migrate(settings: Settings, more: Mapping[str, Migration]) -> Iterator[Migrated]:
    """Yields what became of each store, one after another; the first that cannot be migrated ends it.

    Args:
        settings: Name the stores.
        more: Stores that are not known here, by name.

    Raises:
        ToldError: A store is of a later release, does not answer, or the role may not change it.
    """
    stores: dict[str, Migration] = {
        "ledger": lambda settings: ledger_of(settings).migrate() if settings.ledger_is_server else None,
        "studies": studies.migrate,
        "MLflow": lambda settings: registry_of(settings).store.migrate(),
        **more,
    }
    for store, migrated in stores.items():
        yield Migrated(store, migrated(settings))
