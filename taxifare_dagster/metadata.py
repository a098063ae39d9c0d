"""What Dagster's pages show of domain values: numbers, tables, schemas, pictures.

No decisions here, and no pictures of its own: figures and tables are drawn by `taxifare.reports`.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import dagster as dg
import pandas as pd
import pyarrow as pa
from upath import UPath

from taxifare.approval.message import verdict_in_words
from taxifare.approval.records import Promotion
from taxifare.gate.evidence import Appraisal, Contender, Evidence
from taxifare.gate.scores import Interval, Scores, describe_gain, predictions_of
from taxifare.gate.slices import SliceComparison
from taxifare.gate.staleness import Baseline, Change, baseline_of
from taxifare.gate.track_record import TrackRecord
from taxifare.model.exposure import leaked
from taxifare.model.fitting import peak_memory_mib
from taxifare.model.registry import ModelRegistry
from taxifare.monitoring.calendar import Calendar
from taxifare.monitoring.drift import InputDrift
from taxifare.monitoring.gathering import GatheredQuotes
from taxifare.monitoring.joining import Joined
from taxifare.monitoring.realised import RealisedMonth
from taxifare.monitoring.watch import Watched
from taxifare.operations.month_pages import page_in
from taxifare.reports import figures, tables, watch_figures
from taxifare.reports.columns import meaning_of_feature, meaning_of_quote
from taxifare.reports.tables import Heading, Table
from taxifare.serving.batches import Receipt
from taxifare.serving.in_force import InForce
from taxifare.serving.scored_table import MONTH, PROMOTION, fields_of
from taxifare.settings import ProblemSettings, Settings
from taxifare.studies.results import TuningResult
from taxifare.texts import one_line
from taxifare.training.appraisal import quoted_mae
from taxifare.training.candidates import Candidate
from taxifare.training.challengers import Standing
from taxifare.trips.columns import TRIP_COLUMNS, Column
from taxifare.trips.editions import Trips
from taxifare.trips.features import feature_names
from taxifare.trips.targets import Unit, with_unit

Metadata = Mapping[str, Any]

AGREES = "served_as_in_the_ledger"
"""Whether what is served is what the ledger says, or why that cannot be told."""

_IS_VALIDATION = dg.TableColumn(
    "is_validation", "bool", description="Whether the trip is held out for validation (true or false)"
)


def trip_schema(settings: ProblemSettings) -> dg.TableSchema:
    """Returns the columns of published trips for the Columns panel."""
    currency = settings.city.currency.name
    return dg.TableSchema([*(_trip_column(column, currency) for column in TRIP_COLUMNS), _IS_VALIDATION])


def preprocessed_schema(settings: ProblemSettings) -> dg.TableSchema:
    """Returns the columns of clean trips with their target and features for the Columns panel."""
    target, published = settings.target_facts, trip_schema(settings)
    meanings = {name: meaning_of_feature(name, settings.city_facts) for name in feature_names(settings.city_facts)}
    features = [dg.TableColumn(name, "float32", description=meaning) for name, meaning in meanings.items()]
    predicted = dg.TableColumn("target", "number", description=f"The {target.name} to be predicted ({target.unit})")
    return dg.TableSchema([*published.columns, predicted, *features])


def rehearsal_schema(settings: ProblemSettings) -> dg.TableSchema:
    """Returns the columns of rehearsed trips for the Columns panel."""
    edition = {
        "subject": "Where the trip was published: a month, or base for the years before (text)",
        "revision": "The source's revision of it that the trip is from (text)",
    }
    published = [_trip_column(column, settings.city.currency.name) for column in TRIP_COLUMNS]
    return dg.TableSchema([*published, *(dg.TableColumn(name, "text", said) for name, said in edition.items())])


def scored_schema(settings: ProblemSettings) -> dg.TableSchema:
    """Returns the columns of scored trips for the Columns panel: as the table in BigQuery has them."""
    fields = fields_of(settings.target_facts.unit, settings.city.currency.name)
    in_file = (field for field in fields if field.name not in {MONTH, PROMOTION})
    return dg.TableSchema([dg.TableColumn(field.name, field.kind.lower(), field.description) for field in in_file])


def served_schema(columns: pa.Schema, unit: Unit) -> dg.TableSchema:
    """Returns the columns of quotes, or of what became of them, for the Columns panel."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                str(column.type),
                meaning_of_quote(column.name, unit),
                dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


def _trip_column(column: Column, currency: str) -> dg.TableColumn:
    return dg.TableColumn(
        column.name,
        column.kind,
        description=column.described(currency),
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
    return {with_unit(name, unit): rounded(value) for name, value in values.items()}


def plot(png: bytes) -> dg.MarkdownMetadataValue:
    """Returns a PNG as metadata that the UI shows as a picture."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(shown: Table) -> dg.TableMetadataValue:
    """Returns a table as the UI shows it."""
    records = [
        dg.TableRecord(
            {
                heading.name: round(value, heading.digits or None) if isinstance(value, float) else value
                for heading, value in zip(shown.headings, row, strict=True)
            }
        )
        for row in shown.rows
    ]
    schema = dg.TableSchema([dg.TableColumn(heading.name, heading.kind) for heading in shown.headings])
    return dg.MetadataValue.table(records, schema=schema)


def dropped(counts: Mapping[str, int]) -> dg.TableMetadataValue:
    """Returns the trips dropped by each rule, or left out for each reason, as a table."""
    return table(Table((Heading("rule"), Heading("trips dropped", "int")), tuple(counts.items())))


def refused_rides(examples: Iterable[tuple[int, str]]) -> Metadata:
    """Returns the first rides that could not be priced as a table; nothing where all were."""
    rows = tuple(examples)
    return {"refused_rides": table(Table((Heading("row", "int"), Heading("why")), rows))} if rows else {}


def receipt(name: str, found: Receipt) -> Metadata:
    """Returns what came of a file of rides."""
    return {
        "file": name,
        "production_version": found.version,
        "promotion": found.sequence,
        "rides": found.rides,
        "refused": found.refused,
        **({} if found.fault is None else {"fault": found.fault}),
        **refused_rides(found.examples),
    }


def scores(found: Scores, unit: Unit) -> Metadata:
    """Returns scores as numbers, which the UI draws over the months."""
    errors = measured(unit, mae=found.mae, rmse=found.rmse, bias=found.bias)
    return {**errors, "validation_trips": found.trips}


def standings(found: Iterable[Standing], unit: Unit) -> dg.TableMetadataValue:
    """Returns the challengers of a month as a table; errors and gains are on training trips that none learned from."""
    headings = (
        Heading("challenger"),
        Heading("staged", "bool"),
        Heading("trips", "int"),
        Heading("seconds", "float", 1),
        Heading(f"MAE, {unit}", "float", 3),
        *_gain_headings(unit),
    )
    rows = (
        (
            standing.name,
            standing.is_staged,
            standing.learned_trips,
            standing.seconds,
            standing.mae,
            *((None, None, None) if standing.gain is None else _bounds(standing.gain)),
        )
        for standing in found
    )
    return table(Table(headings, tuple(rows)))


def slices(parts: Iterable[SliceComparison], unit: Unit) -> dg.TableMetadataValue:
    """Returns the comparison on each slice as a table."""
    errors = (Heading(f"{name} MAE, {unit}", "float", 3) for name in ("production", "staging"))
    rows = (
        (
            part.name,
            part.staging.trips,
            part.production.mae,
            part.staging.mae,
            *_bounds(part.gain),
        )
        for part in parts
    )
    return table(
        Table(
            (Heading("slice"), Heading("trips, last days", "int"), *errors, *_gain_headings(unit, ", last days")),
            tuple(rows),
        )
    )


def _gain_headings(unit: Unit, over: str = "") -> tuple[Heading, ...]:
    """Returns what stands above a gain over some days and the ends of its 95 % interval."""
    return tuple(Heading(name, "float", 3) for name in (f"gain{over}, {unit}", "from (95 %)", "to (95 %)"))


def _bounds(gain: Interval) -> tuple[float | None, ...]:
    """Returns a gain and the ends of its interval; none for one that is infinite, which a page cannot draw."""
    return tuple(value if math.isfinite(value) else None for value in (gain.mean, gain.low, gain.high))


def appraisal(found: Appraisal, trips: Trips, registry: ModelRegistry, settings: Settings) -> Metadata:
    """Returns what is shown of a scored version, or why it was not scored."""
    if found.contender is None:
        return {"not_scored": found.fault or "nothing is in production"}
    run_id, target = found.contender.run_id, settings.target_facts
    predictions, validation = registry.runs.read_predictions(run_id), trips.validation
    predicted, baseline = predictions_of(validation, predictions), baseline_of(trips, found.contender)
    quoted = quoted_mae(predicted, validation, settings.meter)
    numbers: dict[str, Any] = {
        **scores(found.contender.scores, target.unit),
        **measured(
            target.unit,
            correction=found.contender.correction,
            corrected_mae=found.contender.corrected.mae,
            corrected_bias=found.contender.corrected.bias,
            difficulty_mae=baseline.difficulty_mae,
            **quoted,
        ),
        "skill": rounded(baseline.skill),
    }
    if (learned := leaked(found.exposure, validation)) is not None:
        # A month of the past, run again: its point in the plots would be too good.
        numbers = {
            "learned_these_rides": f"version {found.version} has learned rides of {learned.subject} until "
            f"{learned.last_pickup:%Y-%m-%d}: these are not errors on rides that it has never seen"
        }
    shown: dict[str, Any] = {
        "all_numbers": table(_numbers(found.contender, baseline, quoted, target.unit)),
        **numbers,
        "mlflow_page": dg.MetadataValue.url(registry.runs.url(run_id)),
        "errors": plot(figures.errors_by_hour(predictions, validation, target)),
        "worst_rides": table(tables.worst_rides(predicted, validation, target)),
    }
    return shown


def _numbers(found: Contender, baseline: Baseline, quoted: Mapping[str, float], unit: Unit) -> Table:
    """Returns the numbers of a scored version in groups; the UI draws them under other names."""
    rows = (
        ("prediction: MAE", found.scores.mae),
        ("prediction: RMSE", found.scores.rmse),
        ("prediction: bias", found.scores.bias),
        *(("quote on the meter: MAE", value) for value in quoted.values()),
        ("corrected: MAE", found.corrected.mae),
        ("corrected: bias", found.corrected.bias),
        ("flat per-km rate: MAE", baseline.difficulty_mae),
    )
    return Table((Heading("of what"), Heading(f"{unit} a ride", "float", 4)), rows)


def candidate(found: Candidate, trips: Trips, registry: ModelRegistry, settings: Settings) -> Metadata:
    """Returns what is shown of a trained version."""
    unit = settings.target_facts.unit
    shown: dict[str, Any] = {
        "version": str(found.appraisal.version),
        "parent_version": found.parent_version or "none",
        **appraisal(found.appraisal, trips, registry, settings),
    }
    if found.history is None and not found.standings:
        shown["reused"] = "a version of the same trips, parent and settings was registered before"
    if found.history is not None:
        shown |= {
            "epochs": len(found.history.epochs) - 1,
            "best_epoch": found.history.best_epoch,
            "training_seconds": round(found.history.seconds, 1),
            "epochs_per_s": rounded(found.history.epochs_per_s),
            "trips_per_s": round(found.history.trips_per_s),
            "peak_memory_mib": round(peak_memory_mib()),
            "loss_curve": plot(figures.training_curve(found.history, unit)),
        }
    if found.standings:
        shown["challengers"] = standings(found.standings, unit)
        shown["challengers_seconds"] = round(sum(standing.seconds for standing in found.standings), 1)
    if found.appraisal.track_record is not None:
        shown |= track_record(found.appraisal.track_record, unit)
        shown["lesson"] = "kept" if found.keeps_lesson else _lesson_lost(found)
    exposure = [entry.model_dump(mode="json") for entry in found.appraisal.exposure]
    return shown | {"revision": trips.edition.revision, "exposure": dg.MetadataValue.json(exposure)}


def _lesson_lost(found: Candidate) -> str:
    """Returns that the lesson was not kept, and where it started, which is the `parent_version` shown."""
    return f"version {found.lesson_version}, from version {found.parent_version}, was no better: not kept"


def track_record(record: TrackRecord, unit: Unit) -> Metadata:
    """Returns what the candidate saved over production so far, as numbers and as a picture.

    On the page of `staging_model` the month's validation trips are not in it yet: they join when it is compared.
    """
    so_far = record.gains.all
    bounds = {"saved_low": so_far.interval.low, "saved_high": so_far.interval.high}
    return {
        "rides_on_record": so_far.rides,
        **measured(
            unit,
            saved_so_far=so_far.mean,
            **{name: value for name, value in bounds.items() if math.isfinite(value)},
        ),
        "track_record": plot(figures.track_record(record, unit)),
    }


def change(found: Change, version: str | None) -> Metadata:
    """Returns why a version errs more or less than when it was approved; parts of it only where that is on record."""
    rise, since = found.rise, {}
    if rise is not None:
        parts = measured(
            found.unit, rise=rise.whole, rise_by_a_harder_month=rise.harder, rise_by_lost_skill=rise.staler
        )
        since = {**parts, "skill_when_approved": rounded(rise.then.skill)}
    return {
        "why": found.sentence,
        **since,
        "rules_not_learned": "; ".join(found.rules) or "none",
        "skill": rounded(found.now.skill),
        **({} if found.attainable is None else interval(found.attainable, found.unit)),
        **measured(found.unit, tolerated=found.tolerated),
        "production_version": str(version),
    }


def gathered(found: GatheredQuotes) -> Metadata:
    """Returns what came of gathering a month's quotes."""
    return {
        "dagster/partition_row_count": found.quotes,
        "rides": found.rides,
        "quoted_again": found.repeated,
        "quoted_again_otherwise": found.contradicting,
        "torn_lines": found.torn,
    }


def joined(found: Joined) -> Metadata:
    """Returns what came of joining a month's quotes with what their rides came to."""
    share = {} if found.share_matched is None else {"share_matched": rounded(found.share_matched)}
    fates = Table((Heading("fate"), Heading("rides", "int")), tuple(sorted(found.fates.items())))
    return {
        "dagster/partition_row_count": found.quotes,
        "rides": found.rides,
        **share,
        "fates": table(fates),
        "told_otherwise_than_published": found.differing,
        "revision": found.revision or "none: the month is not published yet",
    }


def realised(found: RealisedMonth) -> Metadata:
    """Returns what a month's quotes came to: production's as numbers, which the UI draws, all of it as tables."""
    production, unit = found.production, found.unit
    shown: dict[str, Any] = {"rides": found.rides}
    if found.share_matched is not None:
        shown["share_matched"] = rounded(found.share_matched)
    if production is None:
        return {**shown, "not_known": "no ride that was quoted has a truth yet"}
    of_versions = [error for error in found.errors if error.served_as == "production" and error is not production]
    shown |= measured(unit, mae=production.mae, bias=production.bias, quoted_mae=production.quoted_mae)
    if production.difficulty_mae is not None:
        shown |= measured(unit, difficulty_mae=production.difficulty_mae)
    if production.skill is not None:
        shown["skill"] = rounded(production.skill)
    if len(of_versions) == 1 and (expected := of_versions[0].expected) is not None:
        shown |= measured(unit, promised_mae=expected.mean, promised_mae_high=expected.high)
    shown["versions"] = table(tables.realised([found], unit))
    shown["weeks"] = table(tables.parts(production.weeks, "week from", unit))
    shown["slices"] = table(tables.parts(production.slices, "slice", unit))
    for beside in found.beside:
        told = f"version {beside.shadow} against version {beside.production}, {beside.rides:,} rides"
        shown[f"shadow_version_{beside.shadow}"] = f"{told}: {describe_gain(beside.gain, unit)}"
    return shown


def biases(evidence: Evidence) -> Metadata:
    """Returns the bias of both models, as it is and corrected."""
    models = {"staging": evidence.staging} | ({"production": evidence.production} if evidence.production else {})
    return {
        shown: value
        for name, model in models.items()
        for shown, value in measured(
            evidence.unit,
            **{
                f"{name}_bias": model.scores.bias,
                f"{name}_corrected_bias": model.corrected.bias,
                f"{name}_corrected_mae": model.corrected.mae,
            },
        ).items()
    }


def objections(evidence: Evidence, about: Literal["slice", "bias"]) -> str:
    """Returns what speaks against the candidate in a month, in a sentence: Dagster's list does not name the month."""
    what = {"slice": "no kind of rides gets worse", "bias": "the bias does not grow"}[about]
    found = "; ".join(objection.reason for objection in evidence.objects(about))
    return f"{evidence.subject}: {found or f'{what} by more than is tolerated'}"


def answer(evidence: Evidence) -> str:
    """Returns the verdict and its reasons as a sentence; pages of checks sort by name, and it comes first there."""
    reasons = "; ".join(evidence.reasons)
    return f"{evidence.subject}: {evidence.verdict.value}, {verdict_in_words(evidence)} ({reasons})"


def comparison(evidence: Evidence) -> Metadata:
    """Returns the evidence as metadata: what a person reads first, and the whole of it as JSON."""
    numbers: dict[str, Any] = {
        "answer": answer(evidence),
        "verdict": evidence.verdict.value,
        "staging_version": evidence.staging.version,
        "production_version": evidence.production_version or "none",
        **measured(evidence.unit, staging_mae=evidence.staging.scores.mae, difficulty_mae=evidence.difficulty_mae),
        "evidence": dg.MetadataValue.json(evidence.model_dump(mode="json")),
    }
    if evidence.production is not None:
        numbers |= measured(evidence.unit, production_mae=evidence.production.scores.mae)
    if evidence.gain is not None:
        numbers |= interval(evidence.gain, evidence.unit)
    if evidence.track_record is not None:
        numbers |= track_record(evidence.track_record, evidence.unit)
    if evidence.slices:
        numbers["slices"] = slices(evidence.slices, evidence.unit)
    return numbers


def report(subject: str, lake: UPath) -> Metadata:
    """Returns where the page of a month, or of `base`, is."""
    return {"report": dg.MetadataValue.path(str(page_in(lake, subject)))}


def tuning(found: TuningResult) -> Metadata:
    """Returns what a search found, with the lines that a person may adopt."""
    return {
        "settings": dg.MetadataValue.md("\n".join(("```", *found.env_lines, "```"))),
        "adopt": "taxifare tuned --write --by … --reason …",
        "gain": "none" if found.gain is None else describe_gain(found.gain, found.unit),
        **measured(found.unit, winner_mae=found.winner_mae),
        "trials": dg.MetadataValue.json(found.trials),
        "mlflow_run": found.run_id,
    }


def promotion(entry: Promotion, entries: Sequence[Promotion]) -> Metadata:
    """Returns what production_model shows of a promotion or rollback, and of all up to it."""
    return {
        "version": entry.version or "none",
        "replaced_version": entry.replaced_version or "none",
        "kind": entry.kind,
        "decided_by": one_line(entry.by),
        "reason": one_line(entry.reason),
        "request": entry.request_id or "none",
        "evidence_digest": (entry.evidence_digest or "none")[:12],
        "promoted_at": entry.promoted_at.isoformat(timespec="seconds"),
        "sequence": entry.sequence,
        "history": table(tables.history(reversed(entries))),
        "timeline": plot(figures.production_timeline(entries)),
    }


def served(found: InForce | None, difference: str | None) -> Metadata:
    """Returns what those who price rides find, and whether it is what the ledger says."""
    what = "nothing"
    if found is not None:
        model = "no model" if found.version is None else f"version {found.version}"
        since = f"{found.promoted_at:%Y-%m-%d %H:%M} UTC"
        what = f"{model} since {since}, promotion {found.sequence} by {one_line(found.by)}"
    return {
        "served": what,
        "bundle": ((None if found is None else found.digest) or "none")[:12],
        AGREES: "yes" if difference is None else f"no: {difference}",
    }


def interval(gain: Interval, unit: Unit) -> Metadata:
    """Returns the gain and its bounds; bounds that are infinite are left out, for the UI draws numbers."""
    bounds = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
    return measured(unit, **{name: value for name, value in bounds.items() if math.isfinite(value)})


def input_drift(found: InputDrift) -> Metadata:
    """Returns what there is to see of a month's inputs: the picture, each feature, what is missing and outside."""
    headings = (Heading("feature"), Heading("PSI", "float", 4), Heading("threshold", "float", 4))
    features = tuple((feature.name, feature.index, feature.threshold) for feature in found.features)
    columns = tuple((name, share, found.outside[name]) for name, share in found.missing.items())
    shares = (Heading("column"), Heading("share missing", "float", 5), Heading("share outside the city", "float", 5))
    return {
        "says": found.says,
        "rides": found.rides,
        "held_against": found.reference_rides,
        "farthest_psi": rounded(found.features[0].index),
        "features": table(Table(headings, features)),
        "published": table(Table(shares, columns)),
        "picture": plot(watch_figures.inputs(found)),
    }


def watched(found: Watched, version: str, unit: Unit) -> dict[str, Any]:
    """Returns what the watch on the days shows: the picture, the score, and what it comes to."""
    shown: dict[str, Any] = {"production_version": version, "days": len(found.days), "says": found.says}
    if len(found.days):
        last = found.days.iloc[-1]
        shown |= measured(unit, mae=float(last["mae"]), difficulty_mae=float(last["difficulty"]))
        shown |= {"score": rounded(float(last["score"])), "last_day": f"{found.days.index[-1]:%Y-%m-%d}"}
        shown |= {"picture": plot(watch_figures.days(found, version, unit))}
    return shown


def calendar(found: Calendar, unit: Unit) -> Metadata:
    """Returns what the calendar says of the model that prices rides."""
    rules = {one.rule.name: one.told(unit) for one in found.unlearned}
    expected = {} if found.expected is None else {"error_to_expect": found.expected.told(unit)}
    return {"production_version": found.version or "none", "today": found.today.isoformat(), **rules, **expected}
