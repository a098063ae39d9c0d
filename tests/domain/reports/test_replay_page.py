"""The report of a replay: every decision is told, the numbers are those of the replay, and nothing is fetched."""

import re

import pytest

from taxifare.replay.policies import POLICIES
from taxifare.replay.results import Replay
from taxifare.reports.drawing import png
from taxifare.reports.replay_figures import figures
from taxifare.reports.replay_page import headline, render
from tests.support.replays import by_hand


@pytest.fixture(scope="module")
def replay() -> Replay:
    return by_hand()


@pytest.fixture(scope="module")
def page(replay: Replay) -> str:
    return render(replay)


def rows_of(page: str) -> list[str]:
    return re.findall(r'<tr class="(promoted|regretted|kept)">', page)


def cells_of(page: str, policy: str) -> list[str]:
    """The row of the summary."""
    (row,) = re.findall(rf'<tr[^>]*>\s*<td class="name">{policy}</td>(.*?)</tr>', page, re.DOTALL)
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def test_it_needs_nothing_beside_itself(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)|@import", page)


def test_the_same_replay_gives_the_same_page(replay: Replay, page: str) -> None:
    assert render(replay) == page


def test_it_tells_every_decision_and_every_model(replay: Replay, page: str) -> None:
    assert rows_of(page) == [
        *("promoted", "kept", "kept"),
        *("promoted", "regretted", "promoted"),
        *("kept", "kept", "kept"),
    ]
    for model in replay.models:
        assert model.name in page
    assert "because of HOLD &amp; policy" in page


def test_the_headline_compares_the_first_policy_with_the_others(replay: Replay, page: str) -> None:
    """By hand: 3.0 · 1000 + 2.5 · 2000 + 2.6 · 1000 = 10,600 USD on 4,000 rides; the others 10,800 and 12,800."""
    assert headline(replay) == (
        "Under the policy “gate”, from 2015-01 to 2015-03, a fare was off by 2.65 USD a ride, with 1 promotion. On "
        "4,000 rides that is 200 USD less than under “always” and 2,200 USD less than under “never”."
    )
    assert headline(replay) in page


GATE = ("2.700", "2.6500", "10,600", "3", "1", "0", "0.000", "3,704")


def test_the_summary_says_what_each_policy_does_and_came_to(page: str) -> None:
    assert cells_of(page, "gate") == [POLICIES["gate"].meaning, *GATE]
    assert cells_of(page, "always")[2:6] == ["2.7000", "10,800", "0", "3"]
    assert cells_of(page, "never")[-1] == "0"
    (least,) = re.findall(r'<tr class="least">\s*<td class="name">(\w+)</td>', page)
    assert least == "gate"


def test_rules_are_marked_with_their_dates(page: str) -> None:
    assert "2015-03-22, tolls of 5.33 &amp; more" in page
    assert ">2015-03-22<" in page, "its date stands beside its line"


def test_figures_are_pictures_too(replay: Replay) -> None:
    assert list(figures(replay)) == ["errors", "staleness", "matrix"]
    for figure in figures(replay).values():
        assert png(figure).startswith(b"\x89PNG")
