"""The draw of a rehearsal: which trips of many editions stay in a bounded sample.

Each trip waits for an exponential time, half as long for each year that it is newer; the shortest waits stay. That is
weighted sampling without replacement (Efraimidis and Spirakis 2006) with forward decay (Cormode et al. 2009): a trip's
rank never changes, so the sample is the same whichever edition comes first, and a sample of samples is the sample of
the whole. A restated month is drawn anew, the others are not.

Which editions these are is said in `rehearsal`, which samples are kept in `kept_samples`.
"""

import hashlib

import numpy as np
import pandas as pd

from taxifare.trips.cleaning import row_hashes
from taxifare.trips.columns import COLUMN_NAMES, TRIP_COLUMNS
from taxifare.trips.editions import TripBatches
from taxifare.trips.table import DTYPES

HALF_LIFE_YEARS = 1.0
"""A trip a year older is half as likely to be kept: traffic drifts, and rare routes still have to be remembered."""

_ORIGIN = pd.Timestamp("2000-01-01")

_YEAR = pd.Timedelta(days=365.2425)

_DTYPES = {column.name: DTYPES[column.kind] for column in TRIP_COLUMNS} | {
    "subject": "object",
    "revision": "object",
    "wait": "float64",
}


class Reservoir:
    """At most `size` trips drawn from editions, newer ones likelier: edition by edition, or sample by sample.

    Args:
        size: Most trips to keep.
        seed: Of the draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._kept = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _DTYPES.items()})

    def draw_from(self, trips: TripBatches) -> None:
        """Draws from one more edition: clean trips, each batch in memory only while it is drawn from."""
        edition = trips.edition
        name = f"{self._seed}:{edition.subject}:{edition.revision}"
        salt = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        for batch in trips.batches():
            years = ((batch["pickup_datetime"] - _ORIGIN) / _YEAR).to_numpy(np.float64)
            # A hash of the trip is as good a draw as any, and the same however an edition is divided into batches.
            wait = -np.log((row_hashes(batch, salt) + 0.5) / 2**64) * 2 ** (-years / HALF_LIFE_YEARS)
            drawn = np.sort(np.argsort(wait, kind="stable")[: self._size])
            sample = batch[list(COLUMN_NAMES)].iloc[drawn]
            self.add(sample.assign(subject=edition.subject, revision=edition.revision, wait=wait[drawn]))

    def add(self, sample: pd.DataFrame) -> None:
        """Adds a sample, `with_waits`, of editions that have not been drawn from, of the same size and seed."""
        if self._kept.empty:
            self._kept = sample
        else:
            self._kept = pd.concat([self._kept, sample]).nsmallest(self._size, "wait")

    @property
    def with_waits(self) -> pd.DataFrame:
        """What has been drawn so far, by pickup time; `wait` is what each trip waits for."""
        return self._kept.sort_values(["pickup_datetime", "wait"], ignore_index=True)

    @property
    def drawn(self) -> pd.DataFrame:
        """What has been drawn so far, by pickup time.

        The columns of the trip table, with `subject` and `revision` of the edition each trip is from.
        """
        return self.with_waits.drop(columns="wait")
