"""Texts from outside: whatever they contain, what is stored and shown is what people see."""

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taxifare.approval import texts as approval_texts
from taxifare.errors import ToldError
from taxifare.texts import difference, one_line, parts_of, plain

FOREIGN = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "\x1b\x9b\x9d\x07\\[]8;m\0\r\n\t\x85\u2028\u202e\u2066\u200b\u200d\u200c\u200f\ufeff\u212ae\u0301é"
        ),
    )
)


@given(FOREIGN)
@example("e\u200f\u0301\u200dé")
@example("\u200d\u200dé")
@example("\x1b\0[31m")
def test_nothing_is_left_that_nobody_sees(text: str) -> None:
    for clean in (plain(text), one_line(text)):
        kinds = {unicodedata.category(character) for character in clean.replace("\n", "")}
        assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
        assert not set(clean) & set(
            "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\ufeff"
        )
        assert unicodedata.is_normalized("NFC", clean)
    assert "\n" not in one_line(text)


@given(FOREIGN)
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert one_line(one_line(text)) == one_line(text)
    assert approval_texts.one_line(approval_texts.one_line(text)) == approval_texts.one_line(text)


@pytest.mark.parametrize(
    "text",
    [
        "Zoë O’Neill (Ops) <ada@example.org>",
        "שלום עולם",
        "مرحبا بالعالم",
        "می\u200cخواهم",
        "क्\u200dष",
        "日本語、ひらがな",
        "👩\u200d🚀 🏳️\u200d🌈 👍🏽",
        "[/JFK] is [bold]text[/bold] & <b>no markup</b>",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert one_line(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("\x1b[2J\x1b[1;31mred", "red"),
        ("\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\", "here"),
        ("\x1b]0;title\x07x", "x"),
        ("\x9b31mred", "red"),
        ("fare\u202eEVOM\u202c", "fareEVOM"),
        ("a\u200bd\u2060m\ufeffi\u00adn", "admin"),
        ("\u3164\u2800", ""),
        ("one\r\ntwo\u2028three", "one two three"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_commands_and_directions_do_not(written: str, seen: str) -> None:
    assert one_line(written) == seen


def test_an_error_that_is_told_is_one_clean_line() -> None:
    assert str(ToldError("a\x1b[31mb\nforged line\u202e")) == "ab forged line"


AMOUNTS = st.floats(0, 100, allow_nan=False)


@given(AMOUNTS, AMOUNTS)
def test_a_difference_is_that_of_the_amounts_as_they_are_shown(before: float, after: float) -> None:
    shown = Decimal(f"{after:.2f}") - Decimal(f"{before:.2f}")
    assert Decimal(f"{difference(before, after):.2f}") == shown


@given(AMOUNTS, AMOUNTS, st.floats(-100, 100))
@example(1.594, 1.788, 0.171)
@example(1.5949, 1.5951, -0.3)
def test_parts_come_to_their_whole_as_it_is_shown(before: float, after: float, first: float) -> None:
    whole = difference(before, after)
    parts = parts_of(whole, first, after - before - first)
    assert sum(Decimal(f"{part:.2f}") for part in parts) == Decimal(f"{whole:.2f}")
    for shown, part in zip(parts, (first, after - before - first), strict=True):
        assert abs(shown - part) <= 0.015 + 1e-9
        assert f"{shown:+.2f}" != "-0.00"
