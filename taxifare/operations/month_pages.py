"""Pages of months in the lake: which are there is derived from the ledger, and nobody waits for them.

A page is written anew where the ledger says more than it shows. What is wrong with the lake keeps no comparison, no
question and no decision from being made: the next time, the page is made.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from upath import UPath

from taxifare.approval.ledger import Ledger
from taxifare.monitoring.realised import RealisedMonth
from taxifare.reports.month_page import pages_of, render
from taxifare.secrets import redacted
from taxifare.settings import Settings
from taxifare.trips.months import Month
from taxifare.whole_files import whole_file

Realised = Callable[[UPath], Mapping[Month, RealisedMonth]]

_BEGINNING = 300
"""Bytes of a page in which it says what facts it shows."""

_log = logging.getLogger(__name__)


def page_in(lake: UPath, subject: str) -> UPath:
    """Returns where the page of a month, of `base`, or of the last replay is."""
    return lake / "reports" / f"{subject}.html"


def put_page(page: UPath, text: str) -> None:
    """Ensures that a page is there, whole."""
    if page.protocol in {"", "file"}:
        page.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(page) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def address_of(page: UPath) -> str:
    """Returns where a browser opens a page: a file of this machine, Google's own server of a bucket, or its address.

    >>> address_of(UPath("/srv/lake/reports/2015-01.html"))
    'file:///srv/lake/reports/2015-01.html'
    """
    if page.protocol in {"", "file"}:
        return Path(page.path).absolute().as_uri()
    if page.protocol in {"gs", "gcs"}:
        return f"https://storage.cloud.google.com/{page.path.lstrip('/')}"
    return str(page)


def renew_pages(ledger: Ledger, settings: Settings, realised: Realised) -> list[str]:
    """Returns the subjects whose pages were made just now: those of which more is known than they show.

    Where the lake cannot be read or written, none are, and a warning says why.

    Args:
        ledger: Says what was compared, asked and decided.
        settings: In force.
        realised: Returns what the quotes of each month came to, as the lake has it.
    """
    made = []
    try:
        with ledger.reading() as entries:
            pages = pages_of(entries, settings, realised(settings.lake))
        for page in pages:
            path = page_in(settings.lake, page.month.subject)
            if page.facts.encode() in _beginning(path):
                continue
            put_page(path, render(page))
            made.append(page.month.subject)
    except Exception as error:  # noqa: BLE001 - clients of buckets raise what they like, and no decision waits for a page
        _log.warning("pages of months are not made: %s", redacted(str(error)))
    return made


def _beginning(path: UPath) -> bytes:
    try:
        with path.open("rb") as file:
            return bytes(file.read(_BEGINNING))
    except FileNotFoundError:
        return b""
