"""States that are expensive to reach, reached once; each test goes on from a copy in a folder of its own."""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from matplotlib.figure import Figure

from tests.support.small import plain_networks
from tests.support.world import JANUARY, World, failures

_drawn: dict[tuple[int, str], bytes] = {}


@pytest.fixture(scope="session", autouse=True)
def unhurried_disks() -> Iterator[None]:
    """SQLite does not wait for the disk: nobody pulls the plug here, and Dagster alone commits 300 times a month."""

    def hurry(connection: object, _record: object) -> None:
        if type(connection).__module__ == "sqlite3":
            connection.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]

    sa.event.listen(sa.engine.Engine, "connect", hurry)
    yield
    sa.event.remove(sa.engine.Engine, "connect", hurry)


@pytest.fixture(scope="session", autouse=True)
def one_engine_a_file() -> Iterator[None]:
    """Dagster's SQLite makes an engine for every event, which takes longer than writing the event."""
    engines: dict[str, sa.Engine] = {}

    def engine_of(url: str, **how: Any) -> sa.Engine:
        known = f"{url} {how}"
        if known not in engines:
            engines[known] = sa.create_engine(url, **how)
        return engines[known]

    with pytest.MonkeyPatch.context() as patch:
        for storage in (sqlite_event_log, sqlite_run_storage):
            patch.setattr(storage, "create_engine", engine_of)
        yield


@pytest.fixture(scope="module", autouse=True)
def each_kind_of_picture_once() -> Iterator[None]:
    """A month shows six pictures, and tests/domain/reports draws them: here one of each is enough.

    Pictures are alike that have the same titles, and as many lines, texts and areas.
    """
    draw = Figure.savefig

    def savefig(figure: Figure, file: IO[bytes], *, format: str, **how: Any) -> None:  # noqa: A002
        titles = "".join(axes.get_title() + axes.get_title("left") for axes in figure.axes)
        kind = len(figure.findobj()), titles
        if format != "png":
            draw(figure, file, format=format, **how)
            return
        if kind not in _drawn:
            draw(figure, file, format=format, **how)
            _drawn[kind] = file.getvalue()  # type: ignore[attr-defined]
        else:
            file.write(_drawn[kind])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture(scope="module", autouse=True)
def in_every_module(networks_without_tables: None) -> None:
    """Each module trains plain networks, and so do the states below, which last longer than one."""


class States:
    """Worlds by name; what one process that runs tests has reached, the others open.

    Args:
        folder: Theirs in common.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reached(self, name: str, reach: Callable[[Path], World]) -> World:
        """The world of that name, which is reached in a folder if no process has done so yet."""
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if (folder / "reached").exists():
                return World.at(folder / "state")
            with plain_networks():
                world = reach(folder / "state")
            (folder / "reached").touch()
            return world


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    """The states below."""
    own = tmp_path_factory.getbasetemp()
    return States((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "states")


@pytest.fixture(scope="session")
def _empty(states: States, migrated_store: Path) -> World:
    return states.reached("empty", lambda home: World.create(home, migrated_store))


@pytest.fixture(scope="session")
def _trained(states: States, _empty: World) -> World:
    def train(home: Path) -> World:
        world = _empty.copy(home)
        assert failures(world.run("base_job")) == {}
        return world

    return states.reached("trained", train)


@pytest.fixture(scope="session")
def _started(states: States, _trained: World) -> World:
    def start(home: Path) -> World:
        world = _trained.copy(home)
        world.ask_and_approve("base")
        assert failures(world.run("notice_job")) == {}
        return world

    return states.reached("started", start)


@pytest.fixture(scope="session")
def _compared(states: States, _started: World) -> World:
    def compare(home: Path) -> World:
        world = _started.copy(home)
        assert failures(world.run_month(JANUARY)) == {}
        return world

    return states.reached("compared", compare)


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
