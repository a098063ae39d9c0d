"""What an installation lacks that several machines share: each part of it has to be where all of them see it.

An installation is shared where its ledger, or the record of its runs, is on a server. A lake in a bucket alone may be
one machine's. What a machine may lose (downloads, scratch, a replay's trainings, locks on these) stays with it.
"""

from collections.abc import Iterator

from sqlalchemy.engine import URL, make_url

from taxifare.approval.versions import registry_of
from taxifare.settings import Settings


def faults(settings: Settings, run_server: str | None) -> Iterator[str]:
    """Yields what machines that share this installation would each have of their own, with the way out.

    Args:
        settings: Of this machine.
        run_server: Address of the server that has the record of runs, None for files.
    """
    if not settings.ledger_is_server and run_server is None:
        return
    if not settings.ledger_is_server:
        yield (
            "DATABASE_URL: expected postgresql://…, for runs of all machines are on a server, received SQLite in "
            "TAXIFARE_HOME: each machine would decide by itself"
        )
    if settings.storage_uri is None:
        yield (
            "STORAGE_URI: expected a bucket, or a folder that all machines mount, received none: the lake is in this "
            "machine's TAXIFARE_HOME"
        )
    if settings.approval_secret is None:
        yield (
            "APPROVAL_SECRET: expected one key for all machines, received none: links in messages of one machine are "
            'dead on the others. Make one: python -c "import secrets; print(secrets.token_hex(32))"'
        )
    yield from _of_mlflow(settings)
    yield from _in_one_database(settings, run_server)


def _of_mlflow(settings: Settings) -> Iterator[str]:
    store = registry_of(settings).store
    if not store.is_server and not store.is_database_server:
        yield (
            "MLFLOW_TRACKING_URI: expected an MLflow server, http://…, or its database, postgresql://…, received "
            "SQLite, which is this machine's"
        )
    elif store.is_database_server and settings.mlflow_artifact_location is None:
        yield (
            "MLFLOW_ARTIFACT_LOCATION: expected a bucket, or a folder that all machines mount, received none: with "
            "MLflow's database in MLFLOW_TRACKING_URI, and no server, models would be in folders of each machine"
        )


def _in_one_database(settings: Settings, run_server: str | None) -> Iterator[str]:
    """Yields which programs keep their tables in one place, where each takes the other's schema for its own."""
    places: dict[tuple[object, ...], str] = {}
    urls = {"DATABASE_URL": settings.ledger_url, "MLFLOW_TRACKING_URI": settings.tracking_uri}
    if run_server is not None:
        urls["Dagster's storage"] = run_server
    for name, url in urls.items():
        if not url.startswith("postgres"):
            continue
        place = _place(make_url(url))
        if place in places:
            yield (
                f"{places[place]} and {name}: expected a database each, received the same one: all programs call a "
                "table alembic_version"
            )
        places[place] = name


def _place(url: URL) -> tuple[object, ...]:
    """Returns which tables an address leads to, whatever opens them."""
    query = {name: value for name, value in url.query.items() if name in {"host", "port", "options"}}
    return url.host, url.port, url.database, *sorted(query.items())
