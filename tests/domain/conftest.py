"""Databases for the ledger: SQLite always, a private PostgreSQL where its programs are installed."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.approvals import Office
from tests.servers import postgres_programs, postgres_server

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgres_server(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.end_to_end)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own for each test; in PostgreSQL a schema, which is made and dropped in milliseconds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgres")
    schema = f"ledger{next(_numbers)}"
    engine = sa.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    return f"{url}&options=-csearch_path%3D{schema}"


@pytest.fixture
def office(ledger_url: str) -> Office:
    """Approvals in which version 1 is production."""
    return Office.open(ledger_url).with_first_model()
