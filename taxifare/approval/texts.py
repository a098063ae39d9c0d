"""Texts that people enter with decisions: who, why, which request."""

from taxifare import texts
from taxifare.approval.errors import ApprovalError

LONGEST_TEXT = 1000


def one_line(text: str) -> str:
    r"""Returns the text as it is stored: its visible characters, on one line.

    Raises:
        ApprovalError: It is longer than anybody reads.

    >>> one_line("  gain on\n airports\0")
    'gain on airports'
    """
    seen = texts.one_line(text)
    if len(seen) > LONGEST_TEXT:
        raise ApprovalError(
            f"expected at most {LONGEST_TEXT:,} characters, received {len(seen):,}: {seen[:40]}…; say it in fewer"
        )
    return seen
