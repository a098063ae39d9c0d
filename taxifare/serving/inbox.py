"""The files waiting in an inbox: priced one after another in this process, or in parallel on a cluster.

In this process each file keeps two cores busy already, see `files`; more processes of this machine would gain nothing.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from upath import UPath

from taxifare.serving import in_force
from taxifare.serving.batches import Receipt, score_in_inbox
from taxifare.serving.files import Form
from taxifare.settings import Settings
from taxifare.trips.city_files import CityFile
from taxifare.workers import workers_if_worth


def price_files(inbox: UPath, names: Sequence[str], settings: Settings) -> Iterator[tuple[str, Receipt | OSError]]:
    """Yields each file with its receipt, in order; with the error if it was removed or cannot be read.

    Args:
        inbox: Where they are.
        names: Of the files.
        settings: Say where the lake is, whose model prices them, and how the files are shared.

    Raises:
        NothingInForceError: Nothing is in production.
        WorkersError: The cluster of CLUSTER_URL cannot price them.
    """
    place, city, target = settings.lake, settings.city, settings.target
    promotion, bundle = in_force.model_in(place, city, target)
    form = Form.of(settings)
    with workers_if_worth(settings, len(names), 0.0) as workers:
        if workers is None:
            for name in names:
                try:
                    yield name, score_in_inbox(inbox / name, promotion, bundle, datetime.now(UTC), form)
                except OSError as error:
                    yield name, error
            return
        workers.ensure_sees("SCORING_INBOX", inbox)
        workers.ensure_sees("STORAGE_URI" if settings.storage_uri else "TAXIFARE_HOME", place)
        begun = [workers.submit(_priced, inbox / name, place, city, target, form) for name in names]
        for name, one in zip(names, begun, strict=True):
            try:
                yield name, one.result()
            except OSError as error:
                yield name, error


def _priced(rides: UPath, lake: UPath, city: CityFile, target: str, form: Form) -> Receipt:
    """Returns the receipt of a file, priced by what is in force."""
    return score_in_inbox(rides, *in_force.model_in(lake, city, target), datetime.now(UTC), form)
