"""States that are expensive to reach, reached once; each test goes on from a copy in a folder of its own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.small import plain_networks
from tests.support.world import JANUARY, World, failures


@pytest.fixture(scope="session", autouse=True)
def unhurried_disks() -> Iterator[None]:
    """SQLite does not wait for the disk: nobody pulls the plug here, and Dagster alone commits 300 times a month."""

    def hurry(connection: object, _record: object) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]

    sa.event.listen(sa.engine.Engine, "connect", hurry)
    yield
    sa.event.remove(sa.engine.Engine, "connect", hurry)


@pytest.fixture(scope="module", autouse=True)
def in_every_module(networks_without_tables: None) -> None:
    """Each module trains plain networks, and so do the states below, which last longer than one."""


@pytest.fixture(scope="session")
def _empty(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> World:
    return World.create(tmp_path_factory.mktemp("empty") / "state", migrated_store)


@pytest.fixture(scope="session")
def _trained(_empty: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = _empty.copy(tmp_path_factory.mktemp("trained") / "state")
    with plain_networks():
        assert failures(world.run("base_job")) == {}
    return world


@pytest.fixture(scope="session")
def _started(_trained: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = _trained.copy(tmp_path_factory.mktemp("started") / "state")
    world.ask_and_approve("base")
    assert failures(world.run("notice_job")) == {}
    return world


@pytest.fixture(scope="session")
def _compared(_started: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = _started.copy(tmp_path_factory.mktemp("compared") / "state")
    with plain_networks():
        assert failures(world.run_month(JANUARY)) == {}
    return world


@pytest.fixture
def empty(_empty: World, tmp_path: Path) -> World:
    """Nothing has happened yet."""
    return _empty.copy(tmp_path / "state")


@pytest.fixture
def trained(_trained: World, tmp_path: Path) -> World:
    """The base model is trained, and nobody has been asked about it."""
    return _trained.copy(tmp_path / "state")


@pytest.fixture
def started(_started: World, tmp_path: Path) -> World:
    """The base model is in production, and January is out."""
    return _started.copy(tmp_path / "state")


@pytest.fixture
def compared_january(_compared: World, tmp_path: Path) -> World:
    """January has been run, and nobody has been asked about it."""
    return _compared.copy(tmp_path / "state")


@pytest.fixture(scope="session")
def closed_port() -> int:
    """A port of the loopback address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
