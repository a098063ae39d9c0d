"""Texts from outside – of people, servers, files – as they may be stored and shown: what is seen is all there is.

Control characters and the sequences by which a terminal is commanded are gone, and so are characters that are not seen
but turn the direction of others or hide between them. Letters of all scripts stay, and emoji.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

# Sequences first, whole: without its first character the rest would stay as litter. OSC (links, titles) ends with BEL
# or ST, or not at all; CSI is colours and the cursor; the rest is two characters.
_SEQUENCE = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BLANK = re.compile("[\t\u115f\u1160\u2800\u3164\uffa0]")
# Arabic and Syriac signs that are seen although Unicode counts them as format characters.
_SEEN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
_JOINERS = "\u200c\u200d"
# A joiner is part of a word or an emoji where it stands between characters of a script that has joins.
_LOOSE_JOINER = re.compile(rf"(?<![^\x00-\x7f\s{_JOINERS}])[{_JOINERS}]|[{_JOINERS}](?![^\x00-\x7f\s{_JOINERS}])")
_VARIATIONS = range(0xE0100, 0xE01F0)


def plain(text: str) -> str:
    r"""Returns the text without anything that is not seen; its lines stay lines.

    >>> plain("\x1b[31mgain\x1b[0m on \u202eJFK\u2069\n\x1b]8;;http://evil\x07airports\x1b]8;;\x07\0")
    'gain on JFK\nairports '
    >>> plain("שלום 👩\u200d🚀")
    'שלום 👩\u200d🚀'
    """
    if text.isascii() and text.isprintable():
        return text
    seen = _SEQUENCE.sub("", unicodedata.normalize("NFC", text))
    seen = _BLANK.sub(" ", _LINE_END.sub("\n", seen))
    seen = _LOOSE_JOINER.sub("", seen.translate(_TABLE))
    return unicodedata.normalize("NFC", seen)


def one_line(text: str) -> str:
    r"""Returns the text without anything that is not seen, on one line and without space at its ends.

    >>> one_line("  gain on\n airports\0")
    'gain on airports'
    """
    return " ".join(plain(text).split())


def unsaid(text: str) -> str | None:
    """Returns what was received in place of a name or a reason, None where it is one.

    Commands are printed with YOU and WHY where a name and a reason belong, and with REQUEST for the name of one;
    whoever copies them may send them as they are.

    >>> unsaid(" "), unsaid("you"), unsaid("'-'"), unsaid("You Zhang, by the report")
    ('nothing', 'you', "'-'", None)
    """
    said = one_line(text)
    is_said = any(letter.isalnum() for letter in said) and said.casefold() not in {"you", "why", "request"}
    return None if is_said else said or "nothing"


def counted(count: int, plural: str) -> str:
    """Returns so many of something.

    >>> counted(1, "entries"), counted(1, "months"), counted(1_200, "spent tokens")
    ('1 entry', '1 month', '1,200 spent tokens')
    """
    one = f"{plural.removesuffix('ies')}y" if plural.endswith("ies") else plural.removesuffix("s")
    return f"{count:,} {one if count == 1 else plural}"


def named_version(version: str | None) -> str:
    """Returns a version in words, or that there is none.

    >>> named_version("3"), named_version(None)
    ('version 3', 'nothing')
    """
    return "nothing" if version is None else f"version {version}"


def in_range(months: Sequence[str]) -> str:
    """Returns which months, oldest first, at least one; those between need not all be among them, so they are counted.

    >>> [in_range(["2015-01", "2015-03", "2015-06"][:count]) for count in (1, 2, 3)]
    ['2015-01', '2015-01 and 2015-03', '2015-01 to 2015-06 (3 months)']
    """
    if len(months) < 3:
        return " and ".join(months)
    return f"{months[0]} to {months[-1]} ({len(months)} months)"


def difference(before: float, after: float) -> float:
    """Returns by how much the second of two amounts is more than the first, as whoever sees both works it out.

    In sentences amounts have two digits, and the difference of two that stand beside it is that of what is shown. In
    tables they have a third, as gains have: these are measured by themselves, with an interval of their own.

    >>> f"{1.594:.2f} to {1.788:.2f}: {difference(1.594, 1.788):+.2f}"
    '1.59 to 1.79: +0.20'
    """
    return round(round(after, 2) - round(before, 2), 2)


def parts_of(whole: float, first: float, second: float) -> tuple[float, float]:
    """Returns two parts with two digits that add up to their whole as it is shown; the larger takes what is left over.

    >>> parts_of(0.20, 0.174, 0.019)
    (0.18, 0.02)
    """
    if abs(first) < abs(second):
        return parts_of(whole, second, first)[::-1]
    smaller = round(second, 2) + 0.0
    return round(whole - smaller, 2), smaller


def written_as(pattern: str, words: str) -> Callable[[str], str]:
    """Returns what returns a text that is written as a pattern says, and raises ValueError in words for another.

    >>> written_as("[A-Z]{3}", "three capital letters, as in EUR")("euro")
    Traceback (most recent call last):
    ValueError: expected three capital letters, as in EUR, received 'euro'
    """

    def ensured(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {words}, received {text!r}")
        return text

    return ensured


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most like one, in whatever order its words stand; None where none is like it.

    >>> nearest("TRIP_SORCE", ["TRIP_SOURCE", "TRIP_FOLDER"]), nearest("pickup_longitude", ["Longitud pickup"])
    ('TRIP_SOURCE', 'Longitud pickup')
    >>> nearest("pickup_longitude", ["Fare", "PickupLongitude"])
    'PickupLongitude'
    """
    by_words = {_by_words(one): one for one in known}
    found = get_close_matches(_by_words(name), by_words, 1)
    return by_words[found[0]] if found else None


def same_words(name: str, known: Iterable[str]) -> str | None:
    """Returns the first known name that has the words of one, in whatever letters and order; None where none has.

    >>> same_words("pickup_longitude", ["PICKUP-LONGITUDE"]), same_words("key", ["keys"])
    ('PICKUP-LONGITUDE', None)
    """
    return next((one for one in known if _by_words(one) == _by_words(name)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the known one that is most like it, if any is.

    >>> did_you_mean("chikago", ["new-york", "chicago"]), did_you_mean("Rome", ["new-york", "chicago"])
    (' (did you mean chicago?)', '')
    """
    found = nearest(name, known)
    return "" if found is None else f" (did you mean {found}?)"


def _by_words(name: str) -> str:
    return " ".join(sorted(re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())))


def _seen(character: str) -> str:
    """Returns the character where people see it, a blank where they see one, else nothing."""
    kind = unicodedata.category(character)
    if kind == "Cs":
        return "\ufffd"
    if kind == "Cc":
        return character if character == "\n" else " " if character == "\0" else ""
    hidden = (kind == "Cf" and character not in _SEEN and character not in _JOINERS) or ord(character) in _VARIATIONS
    return "" if hidden else character


class _Table(dict[int, str]):
    """What each character is seen as, found once."""

    def __missing__(self, code: int) -> str:
        seen = self[code] = _seen(chr(code))
        return seen


_TABLE = _Table()


EXPECTED = {
    "date_from_datetime_parsing": "a day",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "fields with values",
    "string_too_long": "a text of at most {max_length} characters",
    "string_too_short": "a text",
    "string_type": "a text",
    "too_long": "at most {max_length} of them",
    "tuple_type": "a list",
}
"""What a setting or a field has to be, by the type of pydantic's error; our own validators have words of their own."""
