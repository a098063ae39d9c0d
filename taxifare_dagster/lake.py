"""What is in the lake, by its files alone: for the `taxifare` command, which starts without Dagster.

How values are written and read back stands in `io_managers`; what a run reads beside its inputs, in `stored`.
"""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from taxifare.monitoring.errors import MonitoringError
from taxifare.monitoring.realised import RealisedMonth
from taxifare.trips.months import Month, parse_month
from taxifare.trips.stored import StoredTrips

_RAW_TRIPS = "raw_new_data"

_CLEAN_TRIPS = "preprocessed_data"

_REALISED = "served_mae"


def editions(lake: UPath) -> dict[Month, str]:
    """Returns the months of which raw trips are in the lake, with their revisions; reads only the end of files."""
    found = ((_month_of(path), _revision_in(path)) for path in _months(lake / _RAW_TRIPS))
    return {month: revision for month, revision in found if revision is not None}


def whole_edition(month: Month, lake: UPath) -> str | None:
    """Returns the revision of a month in the lake, None where raw and clean trips are not of one and the same."""
    found = {_revision_in(lake / asset / f"{month}-01.parquet") for asset in (_RAW_TRIPS, _CLEAN_TRIPS)}
    return found.pop() if len(found) == 1 else None


def revision_of(schema: pa.Schema) -> str:
    """Returns the revision of the trips in a parquet file, which carries it beside its columns."""
    revision: str = json.loads((schema.metadata or {})[b"PANDAS_ATTRS"])["revision"]
    return revision


def realised(lake: UPath) -> dict[Month, RealisedMonth]:
    """Returns what quotes came to, by month, oldest first.

    Raises:
        MonitoringError: One of the files cannot be read as that.
    """
    folder = lake / _REALISED
    found = sorted(folder.glob("????-??-01.json"), key=str) if folder.exists() else []
    return {_month_of(path): _realised_in(path) for path in found}


def _realised_in(path: UPath) -> RealisedMonth:
    try:
        return RealisedMonth.model_validate_json(path.read_bytes())
    except ValueError as error:
        month = _month_of(path)
        raise MonitoringError(
            f"{path}: expected what the quotes of {month} came to, received something else: {error}. Materialize "
            f"{_REALISED} of {month} again"
        ) from None


def month_with(key: str, lake: UPath) -> tuple[Month, pd.DataFrame] | None:
    """Returns the month in which there is a clean trip with that key, and its trips as stored; None where none has it.

    Of months without it only their keys are read.
    """
    for path in _months(lake / _CLEAN_TRIPS):
        with path.open("rb") as file:
            if pc.any(pc.equal(pq.read_table(file, columns=["key"])["key"], key)).as_py():
                return _month_of(path), StoredTrips(file).in_memory().frame
    return None


def _months(folder: UPath) -> list[UPath]:
    return sorted(folder.glob("????-??-01.parquet"), key=str) if folder.exists() else []


def _month_of(path: UPath) -> Month:
    return parse_month(path.stem.removesuffix("-01"))


def _revision_in(path: UPath) -> str | None:
    try:
        with path.open("rb") as file:
            return revision_of(pq.read_schema(file))
    except FileNotFoundError:
        return None
