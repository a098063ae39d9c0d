"""The pictures of README and docs: small, shown, and no older than what they show."""

import json
import re

import pytest

from tests.support.pictures import DIGESTS, IMAGES, MOST_BYTES, PICTURES, digests
from tests.support.places import REPOSITORY


def test_no_picture_is_older_than_what_it_shows() -> None:
    taken, now = json.loads(DIGESTS.read_text()), digests()
    older = sorted(name for name in now if now[name] != taken.get(name))
    assert not older, f"{', '.join(older)}: what is on these pictures is drawn otherwise now: make pictures"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_the_tour_shows_it(name: str) -> None:
    assert (IMAGES / f"{name}.png").stat().st_size <= MOST_BYTES
    assert f"](images/{name}.png)" in (REPOSITORY / "docs" / "tour.md").read_text()


def test_every_picture_is_shown_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"images/([\w-]+\.png)", page.read_text())}
    assert shown == {file.name for file in IMAGES.glob("*.png")}
