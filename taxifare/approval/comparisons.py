"""Comparing a month, and recording the result: the one place that writes comparisons into the ledger.

What is due, asked and decided rests on these entries alone. Whatever else shows a comparison – a check in Dagster, a
page, a tag – is a picture of it that is never read back.

Why in the ledger: docs/decisions.md, under approval.
"""

from collections.abc import Iterable
from datetime import datetime

from taxifare.approval import standing
from taxifare.approval.errors import ApprovalError
from taxifare.approval.ledger import Entries, Ledger
from taxifare.approval.records import Comparison, as_kept, readable
from taxifare.gate.evidence import Appraisal, Evidence
from taxifare.gate.scores import EvaluationError
from taxifare.gate.verdict import judge
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare.trips.editions import Trips

SCHEMA = 5
"""Of the evidence that this release writes. 1 is that of releases which left it in Dagster's event log: without
objections, and with a digest that depended on the order of fields. 2 lacks the versions' files; 3 lacks the track
record, and its intervals are by ride; 4 does not look back at the version that production replaced."""

KNOWS_THE_FILES = 3
"""From this schema on, evidence says with which files each version was scored."""

KEEPS_ITS_DIGEST = 2
"""From this schema on, evidence has the same digest when it is read again."""


def compare(
    trips: Trips, production: Appraisal, staging: Appraisal, registry: ModelRegistry, settings: Settings
) -> Evidence:
    """Returns the evidence from what both models left with their MLflow runs.

    Args:
        trips: Preprocessed trips of the subject.
        production: What came of scoring production on them.
        staging: What came of scoring staging.
        registry: Where their predictions are.
        settings: Give the target, the city's slices and the tolerances.

    Raises:
        EvaluationError: Staging was not scored, or predictions are not of these trips.
        RegistryError: MLflow does not answer.
    """
    if staging.contender is None:
        raise EvaluationError(f"staging version {staging.version} was not scored: {staging.fault}")
    return judge(
        trips=trips,
        production=production,
        production_predicted=(
            None if production.contender is None else registry.runs.read_predictions(production.contender.run_id)
        ),
        staging=staging,
        staging_predicted=registry.runs.read_predictions(staging.contender.run_id),
        settings=settings,
    )


def record(ledger: Ledger, evidence: Evidence, at: datetime) -> Comparison:
    """Returns the comparison, on record; with the same evidence as the last one of its subject, it is that one.

    A standing approval ends where the evidence shows that what it promoted should not have been promoted.

    Args:
        ledger: Where it is kept.
        evidence: What was found.
        at: When it was found.

    Raises:
        ApprovalError: It contradicts the ledger's record of its versions.
    """
    found = comparison_of(evidence, at)
    with ledger.writing() as entries:
        ensure_of_recorded_files(entries, found)
        last = entries.comparison(evidence.subject)
        if last is not None and _says_the_same(last, found):
            return last
        entries.add_comparison(found)
        standing.end_if_regretted(entries, found, at)
    return found


def comparison_of(evidence: Evidence, at: datetime, *, schema: int = SCHEMA, digest: str | None = None) -> Comparison:
    """Returns the entry for some evidence.

    Args:
        evidence: What was found.
        at: When.
        schema: Of the evidence, if another release wrote it.
        digest: Under which it was asked about, if that followed the rule of another release.
    """
    return Comparison(
        subject=evidence.subject,
        revision=evidence.revision,
        staging_version=evidence.staging.version,
        staging_run=evidence.staging.run_id,
        production_version=evidence.production_version,
        evidence_digest=digest or evidence.digest,
        schema=schema,
        evidence_json=as_kept(evidence),
        compared_at=at,
    )


def ensure_of_recorded_files(entries: Entries, comparison: Comparison) -> None:
    """Ensures that both versions were scored with the files on record; earlier evidence does not name any.

    The MLflow runs may differ from those that registered the versions: a month that is run again scores its version in
    a run of its own.

    Raises:
        ApprovalError: One was scored with other files, or with files that the evidence does not name.
    """
    if comparison.schema < KNOWS_THE_FILES:
        return
    for scored in (comparison.evidence.staging, comparison.evidence.production):
        content = None if scored is None else entries.content(scored.version)
        if scored is not None and content is not None and scored.files_digest != content.files_digest:
            received = "none" if scored.files_digest is None else scored.files_digest[:12]
            raise ApprovalError(
                f"{comparison.subject}: expected evidence on version {scored.version} by its files on record, digest "
                f"{content.files_digest[:12]}, received it with digest {received}: run the month again"
            )


def _says_the_same(last: Comparison, found: Comparison) -> bool:
    """Whether a comparison says the same as the last one, whose evidence may be of an earlier release."""
    if last.evidence_digest == found.evidence_digest:
        return True
    if last.schema >= found.schema:
        return False
    known = readable(last)
    # The earlier release knew less and judged differently; a question that was answered must not be asked again.
    return known is not None and _compared(known) == _compared(found.evidence)


def _compared(evidence: Evidence) -> tuple[object, ...]:
    """Returns what was compared on which trips: everything else in evidence follows from it."""
    production = None if evidence.production is None else (evidence.production.scores, evidence.production.corrected)
    staging = (evidence.staging.version, evidence.staging.scores, evidence.staging.corrected)
    return evidence.revision, evidence.production_version, production, staging


def take_over(ledger: Ledger, found: Iterable[tuple[Evidence, datetime]]) -> int:
    """Returns how many comparisons of earlier releases were added to the ledger, 0 if it has any already.

    One that somebody was asked about keeps the digest under which they were asked, so that nobody is asked again.

    Args:
        ledger: Where they go.
        found: What earlier releases have left elsewhere, oldest first, and when; read only if the ledger lacks it.
    """
    with ledger.writing() as entries:
        if not entries.lacks_comparisons():
            return 0
        read = ((request, readable(request)) for request in entries.requests())
        asked = {evidence.digest: request.evidence_digest for request, evidence in read if evidence is not None}
        taken = [comparison_of(evidence, at, schema=1, digest=asked.get(evidence.digest)) for evidence, at in found]
        for comparison in taken:
            entries.add_comparison(comparison)
    return len(taken)
