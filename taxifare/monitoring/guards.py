"""Guards: whether quotes are what the registered versions predict, by versions that the ledger knows, on time.

Errors are computed from quotes, so quotes have to be what they claim to be.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from upath import UPath

from taxifare.approval.records import Promotion
from taxifare.model.contents import NotOnRecordError
from taxifare.model.packaging import VersionUnusableError
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.joining import KNOWN
from taxifare.monitoring.outcomes import PREDICTIONS
from taxifare.serving.bundle import CENT

SAMPLE_RIDES = 200
"""Rides per version that are predicted again."""

_LATEST_MIN = 5
"""Minutes by which a ride may have begun before its price was asked for: clocks differ, and messages wait."""

_SOONEST_MIN = 60
"""If hardly anybody asks within so many minutes before the ride, a clock is off by an hour or more."""

_REPLAYED_MIN = 2 * 24 * 60
"""Further away than this the clock is not wrong: rides of another time were asked for."""

_APART_MIN = 30
"""Minutes, in the median, by which published pickups may differ from those for which prices were asked."""

_FEWEST_RIDES, _LEAST_MATCHED = 30, 0.05
"""About fewer rides nothing can be said; among more, a share below this is chance, or none match."""

_EXAMPLES = 5


@dataclass(frozen=True)
class GuardFinding:
    """What a guard found.

    Attributes:
        is_passed: Whether all is well, as far as can be told.
        said: What was found, for people.
        rides: On how many rides.
    """

    is_passed: bool
    said: str
    rides: int


def read_predictions(predictions: UPath) -> pd.DataFrame:
    """Returns a month's table of predictions."""
    with predictions.open("rb") as file:
        frame: pd.DataFrame = pq.read_table(file, columns=PREDICTIONS.names).to_pandas(strings_to_categorical=True)
    return frame


def read_fates(outcomes: UPath) -> pd.DataFrame:
    """Returns what became of each ride in a month's table of outcomes, and when it began."""
    with outcomes.open("rb") as file:
        names = ["ride_id", "fate", "pickup_datetime", "began_at"]
        frame: pd.DataFrame = pq.read_table(file, columns=names).to_pandas(strings_to_categorical=True)
    return frame


def rides_match(outcomes: pd.DataFrame) -> GuardFinding:
    """Returns whether the ids of quotes match those of trips: not everybody who asks for a price rides, but some do.

    Args:
        outcomes: See `read_fates`.
    """
    fates = outcomes.drop_duplicates("ride_id")["fate"]
    rides, counts = len(fates), fates.astype(str).value_counts()
    matched = int(counts.reindex(list(KNOWN)).sum())
    told = ", ".join(f"{count:,} {fate}" for fate, count in sorted(counts.items()))
    said = f"the truth is known of {matched:,} of {rides:,} rides that were quoted ({told or 'none'})"
    if rides < _FEWEST_RIDES or matched >= _LEAST_MATCHED * rides:
        return GuardFinding(is_passed=True, said=said, rides=rides)
    why = (
        "either the month is not published yet, or the source calls its rides otherwise than clients do (TLC numbers "
        "them itself): tell outcomes by POST /outcomes or STREAM_OUTCOMES"
    )
    return GuardFinding(is_passed=False, said=f"{said}: {why}", rides=rides)


def same_again(predictions: pd.DataFrame, registry: ModelRegistry) -> GuardFinding:
    """Returns whether the registered versions reproduce the prices of a sample of the rides, to the cent.

    Raises:
        RegistryError: MLflow does not answer.
    """
    faults: list[str] = []
    sampled = 0
    for version, rows in predictions.groupby("version", observed=True):
        sample = rows.sample(min(SAMPLE_RIDES, len(rows)), random_state=0)
        sampled += len(sample)
        faults += _differences(str(version), sample, registry)
    if faults:
        return GuardFinding(is_passed=False, said="; ".join(faults), rides=sampled)
    said = f"{sampled:,} rides predicted again by the registered versions, each equal to the cent"
    return GuardFinding(is_passed=True, said=said, rides=sampled)


def _differences(version: str, sample: pd.DataFrame, registry: ModelRegistry) -> Iterator[str]:
    """Yields a sentence on how far a registered version is from what was priced, or why that cannot be told."""
    try:
        again = registry.load(version).predict(sample)
    except (VersionUnusableError, NotOnRecordError) as error:
        yield f"version {version} cannot predict again: {error}"
        return
    apart = np.abs(again - sample["predicted"].to_numpy(np.float64))
    off = np.flatnonzero(~(apart < CENT))
    if len(off):
        worst = int(apart.argmax())
        yield (
            f"version {version}: {len(off):,} of {len(sample):,} rides differ, the worst by {apart[worst]:.2f}: ride "
            f"{sample['ride_id'].iloc[worst]} was priced {sample['predicted'].iloc[worst]:.2f} and is "
            f"{again[worst]:.2f} by the registered version"
        )


def known_versions(predictions: pd.DataFrame, history: Sequence[Promotion], asked: Collection[str]) -> GuardFinding:
    """Returns whether, by the ledger, every version served was in production and every one in shadow was asked about.

    Args:
        predictions: The month's.
        history: Promotions and rollbacks.
        asked: The versions that somebody was asked about.
    """
    promoted = {(entry.sequence, entry.version) for entry in history}
    versions = {entry.version for entry in history}
    counts = predictions.groupby(
        ["served_as", "version", "sequence"], observed=True, dropna=False, as_index=False
    ).size()
    faults = []
    for row in counts.to_dict("records"):
        version, number = str(row["version"]), None if pd.isna(row["sequence"]) else int(row["sequence"])
        if row["served_as"] == "shadow":
            is_known = version in asked
        else:
            is_known = version in versions if number is None else (number, version) in promoted
        if not is_known:
            of = "" if number is None else f", promotion {number}"
            faults.append(f"version {version} ({row['served_as']}{of}): {row['size']:,} quotes")
    if faults:
        told = "; ".join(faults[:_EXAMPLES])
        said = f"the ledger knows nothing of {told}: who serves it, and from which lake (taxifare doctor)?"
        return GuardFinding(is_passed=False, said=said, rides=len(predictions))
    return GuardFinding(is_passed=True, said="every version is in the ledger", rides=len(predictions))


def asked_in_time(predictions: pd.DataFrame, time_zone: str) -> GuardFinding:
    """Returns whether prices were asked for before their rides began, comparing the service's clock with the city's.

    Files of rides may be priced at any time, so they say nothing about clocks.

    Args:
        predictions: The month's.
        time_zone: Of the city's clocks.
    """
    asked = predictions[(predictions["served_as"] == "production") & predictions["bundle"].notna()]
    if asked.empty:
        return GuardFinding(is_passed=True, said="nothing was asked for, but by files", rides=0)
    local = asked["asked_at"].dt.tz_convert(time_zone).dt.tz_localize(None)
    lead_min = (asked["pickup_datetime"] - local).dt.total_seconds() / 60
    median, soonest = float(lead_min.median()), float(lead_min.quantile(0.05))
    said = f"prices were asked for {median:,.0f} min before the ride in the middle, 5 % within {soonest:,.0f} min"
    if abs(median) > _REPLAYED_MIN:
        told = f"{said}: rides of another time were asked for, so clocks cannot be told from that"
        return GuardFinding(is_passed=True, said=told, rides=len(asked))
    is_late, is_early = median < -_LATEST_MIN, soonest > _SOONEST_MIN
    if is_late or is_early:
        why = "rides had begun before" if is_late else "nobody asks within the hour"
        told = f"{said}: {why}; expected the city's clock ({time_zone}) of clients, and UTC of the service"
        return GuardFinding(is_passed=False, said=told, rides=len(asked))
    return GuardFinding(is_passed=True, said=said, rides=len(asked))


def clocks_agree(outcomes: pd.DataFrame) -> GuardFinding:
    """Returns whether rides began, as the source published them, at about the pickups for which prices were asked.

    Args:
        outcomes: With `pickup_datetime` and `began_at`.
    """
    known = outcomes[outcomes["began_at"].notna()]
    if known.empty:
        return GuardFinding(is_passed=True, said="no ride that was priced is published", rides=0)
    apart_min = float(((known["began_at"] - known["pickup_datetime"]).dt.total_seconds() / 60).median())
    said = f"published pickups lie {apart_min:+,.0f} min from those that were priced, in the middle"
    if abs(apart_min) > _APART_MIN:
        said += ": the clocks of source and clients differ (a time zone, or a change of the clock?)"
        return GuardFinding(is_passed=False, said=said, rides=len(known))
    return GuardFinding(is_passed=True, said=said, rides=len(known))
