"""How BigQuery is reached, to read and to write: the client, what is tried again, and its errors in words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

import requests

from taxifare.errors import ToldError
from taxifare.trips.text_files import is_page

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud import bigquery

PATIENCE_S = 120.0
"""How long passing faults of one call are tried again."""

OpenClient: TypeAlias = "Callable[[], AbstractContextManager[bigquery.Client]]"


def connect(project: str | None, location: str | None) -> "bigquery.Client":
    """Returns a client with the credentials of the environment; the project pays for the queries."""
    from google.cloud import bigquery

    return bigquery.Client(project=project, location=location)


def patient(patience_s: float) -> "Retry":
    """Returns the rule by which Google's client tries passing faults again (429, 5xx, no connection), and no others.

    A web page is one: what answers in BigQuery's place may be gone by then.
    """
    from google.cloud.bigquery import DEFAULT_RETRY

    may_pass = DEFAULT_RETRY._predicate  # noqa: SLF001 - which faults pass is known there alone
    return DEFAULT_RETRY.with_timeout(patience_s).with_predicate(
        lambda error: may_pass(error) or isinstance(error, requests.JSONDecodeError)
    )


@contextmanager
def in_our_words(table: str, raised: type[ToldError], advice: Mapping[str, str]) -> Iterator[None]:
    """Turns what BigQuery and its client raise into an error that says what to do.

    Args:
        table: Which table it is about.
        raised: The error.
        advice: What to do where something was `missing`, and where the account was `refused`.
    """
    try:
        from google.api_core import exceptions as api
        from google.auth.exceptions import GoogleAuthError, TransportError
    except ImportError:
        raise raised(f"BigQuery table {table} needs Google's client: pip install -e '.[gcp]'") from None
    hints: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (api.NotFound, advice["missing"]),
        (api.Unauthorized, "check GOOGLE_APPLICATION_CREDENTIALS"),
        (api.Forbidden, f"{advice['refused']}; or a quota is used up"),
        (api.RetryError, "given up: try again later"),
        (api.ServerError, "try again later"),
        (api.TooManyRequests, "try again later"),
        (api.GoogleAPIError, "check the settings that begin with BIGQUERY_"),
        ((TransportError, requests.RequestException), "no connection to Google: try again later"),
        (GoogleAuthError, "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account"),
        # What the client raises where neither settings nor environment name a project.
        (OSError, "set BIGQUERY_PROJECT, the project that pays for the queries"),
    )
    try:
        yield
    except (api.GoogleAPIError, GoogleAuthError, OSError) as error:
        hint = next(hint for kind, hint in hints if isinstance(error, kind))
        told, fault = str(error), error.cause if isinstance(error, api.RetryError) else error
        if isinstance(fault, requests.JSONDecodeError):
            kind = "a web page" if is_page(str(fault.doc).encode()) else "no JSON"
            told = f"expected an answer of BigQuery, received {kind} with status 200: {str(fault.doc)[:40]!r}"
        raise raised(f"BigQuery table {table}: {told}: {hint}") from error
