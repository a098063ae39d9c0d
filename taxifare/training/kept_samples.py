"""Samples of rehearsals that are kept in the lake, so that no month is read again to be rehearsed.

Each edition has its own (`rehearsal_samples/2015-03.parquet`, `base.parquet`), and so has everything up to a month
(`until-2015-03.parquet`). A sample says what it was drawn from, and by what settings and code: another is made in its
place where that has changed. So they may be deleted at any time; what is rehearsed is the same without them.

Why two of each month: docs/decisions.md, under training.
"""

import io
import json
import logging
from dataclasses import dataclass
from functools import cache

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_jsonable_python

from taxifare.digests import code_digest, digest
from taxifare.settings import Settings
from taxifare.trips.editions import Edition
from taxifare.whole_files import whole_file

_log = logging.getLogger(__name__)

_MARKS = b"taxifare.rehearsal_sample"
"""Where a file says what its sample was drawn from, and by what."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample, and what it was drawn from.

    Attributes:
        trips: See `Reservoir.with_waits`.
        drawn_from: The editions, those included that have no trip to rehearse: they are not sound.
    """

    trips: pd.DataFrame
    drawn_from: frozenset[Edition]


class KeptSamples:
    """The samples in a lake that were drawn as the settings have it.

    Args:
        settings: Where the lake is, and what decides which trips are drawn.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.lake / "rehearsal_samples"
        self._drawn_by = _drawn_by(settings)

    def find(self, name: str, only_from: frozenset[Edition]) -> Sample | None:
        """Returns the sample of a name if it was drawn from these editions and no other; None where there is none."""
        place = self._folder / f"{name}.parquet"
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            return None
        try:
            marks = json.loads((pq.read_schema(io.BytesIO(content)).metadata or {}).get(_MARKS, b"{}"))
            drawn_from = frozenset(Edition(*edition) for edition in marks.get("drawn_from", ()))
            if marks.get("drawn_by") != self._drawn_by or not drawn_from <= only_from:
                return None
            with pd.option_context("mode.string_storage", "pyarrow"):
                trips = pd.read_parquet(io.BytesIO(content), page_checksum_verification=True)
        except (OSError, AttributeError, TypeError, ValueError) as error:  # of Arrow, JSON, or what stands in it
            _log.warning("%s is damaged, and is made anew: %s", place, error)
            return None
        return Sample(trips, drawn_from)

    def keep(self, name: str, sample: Sample) -> None:
        """Ensures that a sample is found by its name."""
        place = self._folder / f"{name}.parquet"
        if place.protocol in {"", "file"}:
            place.parent.mkdir(parents=True, exist_ok=True)
        drawn_from = sorted([edition.subject, edition.revision] for edition in sample.drawn_from)
        marks = json.dumps({"drawn_from": drawn_from, "drawn_by": self._drawn_by}).encode()
        table = pa.Table.from_pandas(sample.trips, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _MARKS: marks})
        with whole_file(place) as unfinished, unfinished.open("wb") as file:
            pq.write_table(table, file, write_page_checksum=True)


def _drawn_by(settings: Settings) -> str:
    """Returns a short text that changes when a setting, a fact or a line does that decides which trips are drawn."""
    facts = {
        "seed": settings.seed,
        "rehearsal_trips": settings.rehearsal_trips,
        "city": settings.city_facts,
        "target": settings.target,
        "minimum_trips": settings.minimum_trips,
        "validation_share": settings.validation_share,
        "code": _code(),
    }
    return digest(to_jsonable_python(facts))


@cache
def _code() -> list[str]:
    """Returns what changes with the code that says which trips are clean, which months sound, and what is drawn."""
    return [code_digest("taxifare.trips.preparation"), code_digest("taxifare.training.reservoir")]
