"""What Dagster's pages show of domain values: tables, schemas, figures. No decisions here."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
import pandas as pd

from taxifare.approval.records import Promotion
from taxifare.gate.evidence import Evidence
from taxifare.gate.scores import Interval, Scores, describe_gain
from taxifare.gate.slices import SliceComparison
from taxifare.replay.results import Replay
from taxifare.reports import figures
from taxifare.training.challengers import Standing
from taxifare.trips.cities import City
from taxifare.trips.features import feature_names
from taxifare.trips.table import TRIP_COLUMNS, Column
from taxifare.trips.targets import TARGETS, Target, Unit

Metadata = Mapping[str, Any]

_TIMELINE_MARGIN = timedelta(days=1)
"""How far the present version is drawn; the picture is made when it is promoted."""

_IS_VALIDATION = dg.TableColumn(
    "is_validation", "bool", description="Whether the trip is one of the latest, kept to judge models by"
)


def trip_schema() -> dg.TableSchema:
    """Returns the columns of published trips for the Columns panel."""
    return dg.TableSchema([*map(_trip_column, TRIP_COLUMNS), _IS_VALIDATION])


def preprocessed_schema(city: City, target: Target) -> dg.TableSchema:
    """Returns the columns of clean trips with their target and features for the Columns panel."""
    features = [dg.TableColumn(name, "float32", description="Feature") for name in feature_names(city)]
    predicted = dg.TableColumn("target", "number", description=f"What is predicted: the {target.name} ({target.unit})")
    return dg.TableSchema([*map(_trip_column, TRIP_COLUMNS), _IS_VALIDATION, predicted, *features])


def _trip_column(column: Column) -> dg.TableColumn:
    description = f"{column.description} ({column.unit})" if column.unit else column.description
    return dg.TableColumn(
        column.name,
        column.kind,
        description=description,
        constraints=dg.TableColumnConstraints(nullable=column.nullable),
    )


def time_span(trips: pd.DataFrame) -> str:
    """Returns the first and last pickup time, for people."""
    times = trips["pickup_datetime"]
    return f"{times.min():%Y-%m-%d %H:%M} to {times.max():%Y-%m-%d %H:%M}"


def rounded(value: float) -> float:
    """Returns the value with as many digits as a person reads; the evidence keeps them all.

    >>> rounded(1.8303507129524712)
    1.8304
    """
    return round(value, 4)


def measured(unit: Unit, **values: float) -> dict[str, float]:
    """Returns numbers in the target's unit under the names that all pages show them by.

    >>> measured("min", mae=2.123456)
    {'mae_min': 2.1235}
    """
    return {f"{name}_{unit.lower()}": rounded(value) for name, value in values.items()}


def plot(png: bytes) -> dg.MarkdownMetadataValue:
    """Returns a PNG as metadata that the UI shows as a picture."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def dropped(counts: Mapping[str, int]) -> dg.TableMetadataValue:
    """Returns the trips dropped by each rule, or left out for each reason, as a table."""
    return dg.MetadataValue.table(
        [dg.TableRecord({"rule": rule, "trips dropped": count}) for rule, count in counts.items()],
        schema=dg.TableSchema([dg.TableColumn("rule", "string"), dg.TableColumn("trips dropped", "int")]),
    )


def scores(found: Scores, unit: Unit) -> Metadata:
    """Returns scores as numbers, which the UI draws over the months."""
    errors = measured(unit, mae=found.mae, rmse=found.rmse, bias=found.bias)
    return {**errors, "validation_trips": found.trips}


def standings(found: Iterable[Standing], unit: Unit) -> dg.TableMetadataValue:
    """Returns the challengers of a month as a table."""
    columns = {
        "challenger": "string",
        "staged": "bool",
        "trips": "int",
        "seconds": "float",
        f"MAE on held trips, {unit}": "float",
        f"gain, {unit}": "string",
    }
    records = [
        dg.TableRecord(
            dict(
                zip(
                    columns,
                    (
                        standing.name,
                        standing.is_staged,
                        standing.learned_trips,
                        round(standing.seconds, 1),
                        round(standing.mae, 3),
                        "" if standing.gain is None else describe_gain(standing.gain, unit),
                    ),
                    strict=True,
                )
            )
        )
        for standing in found
    ]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    )


def slices(parts: Iterable[SliceComparison], unit: Unit) -> dg.TableMetadataValue:
    """Returns the comparison on each slice as a table."""
    production, staging, gain = f"production MAE, {unit}", f"staging MAE, {unit}", f"gain, {unit}"
    records = [
        dg.TableRecord(
            {
                "slice": part.name,
                "trips": part.staging.trips,
                production: round(part.production.mae, 3),
                staging: round(part.staging.mae, 3),
                gain: round(part.gain.mean, 3),
                "from": round(part.gain.low, 3),
                "to": round(part.gain.high, 3),
            }
        )
        for part in parts
    ]
    types = {"slice": "string", "trips": "int"}
    names = ["slice", "trips", production, staging, gain, "from", "to"]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema([dg.TableColumn(name, types.get(name, "float")) for name in names])
    )


def summaries(found: Replay) -> dg.TableMetadataValue:
    """Returns the policies of a replay as a table."""
    unit = TARGETS[found.target].unit
    columns = {
        "policy": "string",
        f"mean MAE, {unit}": "float",
        f"off in all, {unit}": "float",
        "promotions": "int",
        "regretted": "int",
        f"regret, {unit} a ride": "float",
        "training, s": "float",
    }
    records = [
        dg.TableRecord(
            dict(
                zip(
                    columns,
                    (
                        one.policy,
                        round(one.mean_mae, 4),
                        round(one.total),
                        one.promotions,
                        one.regretted,
                        round(one.mean_regret, 4),
                        round(one.training_seconds),
                    ),
                    strict=True,
                )
            )
        )
        for one in map(found.summary, found.policies)
    ]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    )


def comparison(evidence: Evidence) -> Metadata:
    """Returns the evidence as metadata: what a person reads first, and the whole of it as JSON."""
    numbers: dict[str, Any] = {
        "verdict": evidence.verdict.value,
        "reasons": "; ".join(evidence.reasons),
        "staging_version": evidence.staging.version,
        "production_version": evidence.production_version or "none",
        **measured(evidence.unit, staging_mae=evidence.staging.scores.mae, difficulty_mae=evidence.difficulty_mae),
        "evidence": dg.MetadataValue.json(evidence.model_dump(mode="json")),
    }
    if evidence.production is not None:
        numbers |= measured(evidence.unit, production_mae=evidence.production.scores.mae)
    if evidence.gain is not None:
        numbers |= interval(evidence.gain, evidence.unit)
    if evidence.slices:
        numbers["slices"] = slices(evidence.slices, evidence.unit)
    return numbers


def history(entries: Sequence[Promotion]) -> dg.TableMetadataValue:
    """Returns who was production when, newest first, as a table."""
    records = [
        dg.TableRecord(
            {
                "since (UTC)": f"{entry.promoted_at:%Y-%m-%d %H:%M}",
                "version": entry.version,
                "replaced": entry.replaced_version or "nothing",
                "by": entry.by,
                "why": entry.reason,
                "how": entry.kind,
                "request": entry.request_id or "none",
            }
        )
        for entry in reversed(entries)
    ]
    names = ["since (UTC)", "version", "replaced", "by", "why", "how", "request"]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name, "string") for name in names]))


def promotion(entry: Promotion, entries: Sequence[Promotion]) -> Metadata:
    """Returns what production_model shows of a promotion or rollback, and of all up to it."""
    return {
        "version": entry.version,
        "replaced_version": entry.replaced_version or "none",
        "kind": entry.kind,
        "decided_by": entry.by,
        "reason": entry.reason,
        "request": entry.request_id or "none",
        "evidence_digest": (entry.evidence_digest or "none")[:12],
        "promoted_at": entry.promoted_at.isoformat(timespec="seconds"),
        "sequence": entry.sequence,
        "history": history(entries),
        "timeline": plot(figures.production_timeline(entries, entry.promoted_at + _TIMELINE_MARGIN)),
    }


def interval(gain: Interval, unit: Unit) -> Metadata:
    """Returns the gain and its bounds; bounds that are infinite are left out, for the UI draws numbers."""
    bounds = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return measured(unit, **{name: value for name, value in bounds.items() if math.isfinite(value)})
