"""Files that are whole or not there, on a disk and in a bucket."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from upath import UPath

from taxifare.whole_files import put_in_place, whole_file
from tests.support.places import REPOSITORY


@pytest.fixture(params=["path", "upath", "file url", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | UPath:
    """A file that is there, in an empty folder of its own."""
    places = {
        "path": tmp_path,
        "upath": UPath(tmp_path),
        "file url": UPath(f"file://{tmp_path}"),
        "bucket": UPath(f"memory://{uuid4().hex}"),
    }
    place = places[request.param] / "trips.csv"
    place.write_text("old")
    return place


def listed(place: Path | UPath) -> list[str]:
    return [path.name for path in place.parent.iterdir()]


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(place: Path | UPath) -> None:
    with whole_file(place) as unfinished:
        unfinished.write_text("new")
        assert place.read_text() == "old"
        assert unfinished.name.startswith(".")
        assert unfinished.suffix == ".csv"
    assert place.read_text() == "new"
    assert listed(place) == ["trips.csv"]


def test_a_file_may_be_the_first(place: Path | UPath) -> None:
    first = place.with_name("first.csv")
    with whole_file(first) as unfinished:
        unfinished.write_text("new")
    assert first.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_nothing_else(place: Path | UPath) -> None:
    def write() -> None:
        with whole_file(place) as unfinished:
            unfinished.write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write()
    assert place.read_text() == "old"
    assert listed(place) == ["trips.csv"]


def test_a_writer_that_wrote_nothing_is_an_error(place: Path | UPath) -> None:
    def write() -> None:
        with whole_file(place):
            pass

    with pytest.raises(FileNotFoundError):
        write()
    assert place.read_text() == "old"


@pytest.mark.parametrize("kind", [Path, UPath])
@pytest.mark.parametrize("folder", ["nowhere", "a file"])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, kind: type[Path | UPath], folder: str) -> None:
    """Not the one beside it, of which nobody knows."""
    (tmp_path / "a file").write_text("no folder")
    place = kind(tmp_path / folder / "prices.csv")

    def write() -> None:
        with whole_file(place) as unfinished:
            unfinished.write_text("new")

    with pytest.raises(OSError, match=r"prices\.csv") as refused:
        write()
    assert refused.value.filename == str(place)
    assert "/." not in str(refused.value)


def test_two_writers_do_not_meet(place: Path | UPath) -> None:
    with whole_file(place) as one:
        one.write_text("one")
        with whole_file(place) as other:
            other.write_text("other")
        assert place.read_text() == "other"
    assert place.read_text() == "one"


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path) -> None:
    place = tmp_path / "trips.csv"
    place.write_text("old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom taxifare.whole_files import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half')\n    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(place)], cwd=REPOSITORY, check=False)
    assert killed.returncode == -9
    assert place.read_text() == "old"
    assert all(name.startswith(".") for name in listed(place) if name != "trips.csv"), "a reader of names sees no half"


def test_what_is_put_in_place_is_on_the_disk_and_so_is_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_ino, (tmp_path / "whole").exists()))
    )
    part = tmp_path / "part"
    part.write_text("new")
    inode = part.stat().st_ino
    put_in_place(part, tmp_path / "whole")
    assert flushed == [(inode, False), (tmp_path.stat().st_ino, True)]
    assert (tmp_path / "whole").stat().st_ino == inode
