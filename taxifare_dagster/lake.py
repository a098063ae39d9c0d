"""What is in the lake, by its files alone: for the `taxifare` command, which starts without Dagster.

How values are written and read back stands in `io_managers`; what a run reads beside its inputs, in `stored`.
"""

import json
from collections.abc import Iterator

import pyarrow.parquet as pq
from upath import UPath

from taxifare.trips.months import Month, parse_month

_RAW_TRIPS = "raw_new_data"


def editions(lake: UPath) -> dict[Month, str]:
    """Returns the months of which raw trips are in the lake, with their revisions; reads only the end of files."""
    return dict(_editions(lake / _RAW_TRIPS))


def _editions(folder: UPath) -> Iterator[tuple[Month, str]]:
    for path in folder.glob("????-??-01.parquet") if folder.exists() else ():
        with path.open("rb") as file:
            marks = json.loads((pq.read_schema(file).metadata or {})[b"PANDAS_ATTRS"])
        yield parse_month(path.stem.removesuffix("-01")), marks["revision"]
