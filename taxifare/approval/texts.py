"""Texts that people write into decisions: who, why, which request."""

from taxifare import texts

LONGEST_TEXT = 1000


def one_line(text: str) -> str:
    r"""Returns the text as it is stored: what people see of it, on one line and of a bearable length.

    >>> one_line("  gain on\n airports\0")
    'gain on airports'
    """
    return texts.one_line(texts.one_line(text)[:LONGEST_TEXT])
