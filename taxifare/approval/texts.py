"""Texts that people write into decisions: who, why, which request."""

LONGEST_TEXT = 1000


def one_line(text: str) -> str:
    r"""Returns the text on one line without surrounding space, of a bearable length; NUL is no text to PostgreSQL.

    >>> one_line("  gain on\n airports\0")
    'gain on airports'
    """
    return " ".join(text.replace("\0", " ").split())[:LONGEST_TEXT]
