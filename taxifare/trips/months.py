"""Calendar months: `pandas.Period` of frequency M, half-open in time, written `YYYY-MM`.

A source, a setting and a person write them so; what Dagster calls them is the business of `taxifare_dagster`.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

import pandas as pd

Month: TypeAlias = pd.Period

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def parse_month(text: str) -> Month:
    """Returns the month written `YYYY-MM`.

    Raises:
        ValueError: The text is anything else.

    >>> parse_month("2015-01")
    Period('2015-01', 'M')
    >>> parse_month("2015-13")
    Traceback (most recent call last):
    ...
    ValueError: expected a month written YYYY-MM, received '2015-13'
    """
    if not _MONTH.fullmatch(text):
        raise ValueError(f"expected a month written YYYY-MM, received {text!r}")
    return pd.Period(text, freq="M")


def bounds(month: Month) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Returns the first instant of the month and of the next: `[first, next)`, so that a midnight is in one month.

    >>> bounds(parse_month("2015-12"))
    (Timestamp('2015-12-01 00:00:00'), Timestamp('2016-01-01 00:00:00'))
    """
    return month.start_time, (month + 1).start_time


def months_between(first: Month, last: Month) -> Iterator[Month]:
    """Yields the months from first to last, both included.

    >>> [str(month) for month in months_between(parse_month("2014-12"), parse_month("2015-02"))]
    ['2014-12', '2015-01', '2015-02']
    """
    yield from pd.period_range(first, last, freq="M")
