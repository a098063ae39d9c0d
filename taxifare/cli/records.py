"""Listings as programs read them, for `--json`: nothing is known from words alone.

Numbers are numbers, with their unit in the name (`gain_usd`, `mae_min`), and null where there is none; moments are
ISO 8601 in UTC, to the second; what is yes or no is true or false. docs/commands.md lists the fields.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict

from taxifare.approval.records import Outcome, Promotion, Request, RequestState, StandingRequest, readable
from taxifare.gate.scores import Interval
from taxifare.gate.staleness import Change
from taxifare.monitoring.realised import Beside, QuotedPart, RealisedError, RealisedMonth
from taxifare.operations.inventory import KnownMonth
from taxifare.operations.status import Status, StillGood
from taxifare.reports.months import ComparedMonth
from taxifare.settings import Settings
from taxifare.trips.editions import is_so_far
from taxifare.trips.targets import Unit, with_unit

Record = dict[str, object]


def in_unit(unit: Unit, **amounts: float | None) -> Record:
    """Returns amounts under names that say their unit; what is infinite or unknown is none.

    >>> in_unit("USD", mae=1.5, gain_high=math.inf)
    {'mae_usd': 1.5, 'gain_high_usd': None}
    """
    return {
        with_unit(name, unit): amount if amount is not None and math.isfinite(amount) else None
        for name, amount in amounts.items()
    }


def request(asked: Request, outcome: Outcome | None, rolled_back: Promotion | None, unit: Unit) -> Record:
    """Returns a request, its numbers and how it ended; none where its evidence is of another release.

    Args:
        asked: The request.
        outcome: How it ended; None while it is open.
        rolled_back: The rollback that took its version out of production, if the version has not come back since.
        unit: Of errors.
    """
    evidence = readable(asked)
    production = None if evidence is None else evidence.production
    return {
        "request": asked.id,
        "subject": asked.subject,
        "is_so_far": is_so_far(asked.revision),
        "verdict": asked.verdict,
        "staging_version": asked.staging_version,
        "production_version": asked.production_version,
        **in_unit(
            unit,
            production_mae=None if production is None else production.scores.mae,
            staging_mae=None if evidence is None else evidence.staging.scores.mae,
        ),
        **_bounds("gain", None if evidence is None else evidence.gain, unit),
        "reasons": None if evidence is None else list(evidence.reasons),
        **_taken_out(rolled_back),
        "requested_at": asked.requested_at,
        "valid_until": asked.valid_until,
        "state": RequestState.REQUESTED if outcome is None else outcome.state,
        **_answer(outcome),
    }


def promotion(entry: Promotion) -> Record:
    """Returns a promotion or rollback; no version: the model was taken out."""
    return {
        "promoted_at": entry.promoted_at,
        "version": entry.version,
        "replaced_version": entry.replaced_version,
        "kind": entry.kind,
        "decided_by": entry.by,
        "reason": entry.reason,
        "request": entry.request_id,
    }


def month(known: KnownMonth) -> Record:
    """Returns a month of the source or the lake."""
    return {
        "month": str(known.month),
        "source_revision": known.published,
        "lake_revision": known.in_lake,
        "state": known.state,
        "waits": known.waits,
        "decision": (str(known.answer.state) if known.answer is not None else known.decided) or None,
        "is_on_earlier_edition": known.is_on_earlier_edition,
        **_answer(known.answer),
        **_taken_out(known.taken_out),
    }


def standing(asked: StandingRequest, state: str, uses: int) -> Record:
    """Returns a standing approval.

    Args:
        asked: The question that it is the answer to.
        state: Where it stands.
        uses: How many candidates were approved under it.
    """
    return {
        "standing_approval": asked.id,
        "first_month": str(asked.first_month),
        "last_month": str(asked.last_month),
        "requested_at": asked.requested_at,
        "valid_until": asked.valid_until,
        "state": state,
        "approved_under_it": uses,
    }


def realised(found: RealisedMonth) -> Record:
    """Returns what the quotes of a month came to: of each version, of weeks and slices, and in shadow."""
    return {
        "month": found.month,
        "rides": found.rides,
        "share_matched": found.share_matched,
        "errors": [_error(error, found.unit) for error in found.errors],
        "in_shadow": [_beside(beside, found.unit) for beside in found.beside],
    }


def _error(found: RealisedError, unit: Unit) -> Record:
    return {
        "version": found.name,
        "served_as": found.served_as,
        **_part(found, unit),
        **_bounds("mae", found.interval, unit),
        **_bounds("promised_mae", found.expected, unit),
        **in_unit(unit, quoted_mae=found.quoted_mae),
        "is_kept": found.is_kept,
        "weeks": [{"week_from": week.name, **_part(week, unit)} for week in found.weeks],
        "slices": [{"slice": part.name, **_part(part, unit)} for part in found.slices],
    }


def _part(found: QuotedPart, unit: Unit) -> Record:
    amounts = in_unit(unit, mae=found.mae, bias=found.bias, difficulty_mae=found.difficulty_mae)
    return {"rides": found.rides, **amounts, "skill": found.skill}


def _beside(found: Beside, unit: Unit) -> Record:
    versions = {"version": found.shadow, "production_version": found.production}
    return {**versions, "rides": found.rides, **_bounds("gain", found.gain, unit)}


def status(found: Status, settings: Settings) -> Record:
    """Returns the screen for programs, complete: all months, questions and alarms."""
    unit = settings.target_facts.unit
    return {
        "now": found.now,
        "city": settings.city_facts.name,
        "unit": unit,
        "production": _production(found, unit),
        "still_good": None if found.still_good is None else _still_good(found.still_good),
        "months": [_compared(one, unit) for one in found.months],
        "due": [{"month": str(one.month), "why": str(one.why)} for one in found.behind],
        "questions": [asdict(question) for question in found.questions],
        "alarms": [asdict(alarm) for alarm in found.alarms],
        "next": list(found.next_commands),
    }


def _production(found: Status, unit: Unit) -> Record | None:
    last, quotes = found.promotion, found.quotes
    if last is None:
        return None
    amounts = in_unit(
        unit,
        promised_mae=None if last.version is None else found.promised_mae,
        realised_mae=None if quotes is None else quotes[1].mae,
    )
    return {**promotion(last), **amounts, "realised_month": None if quotes is None else quotes[0]}


def _compared(one: ComparedMonth, unit: Unit) -> Record:
    return {
        "subject": one.subject,
        "verdict": one.verdict,
        **in_unit(unit, production_mae=one.production_mae, staging_mae=one.staging_mae),
        **_bounds("gain", None if one.evidence is None else one.evidence.gain, unit),
        "decision": one.decision if one.outcome is None else str(one.outcome.state),
        **_answer(one.outcome),
        **_taken_out(one.taken_out),
    }


def _still_good(found: StillGood) -> Record:
    change, is_known = found.change, found.is_good is not None
    return {
        "month": found.month,
        "later": list(found.later),
        "is_good": found.is_good,
        "answer": found.answer,
        "why": found.why,
        "overall": found.overall,
        **({} if change is None else _change(change, is_known=is_known)),
    }


def _change(found: Change, *, is_known: bool) -> Record:
    then = found.then
    return {
        "is_stale": found.is_stale if is_known and found.attainable is not None else None,
        **in_unit(
            found.unit,
            mae=found.now.mae,
            mae_when_approved=None if then is None else then.mae,
            difficulty_mae=found.now.difficulty_mae,
            difficulty_mae_when_approved=None if then is None else then.difficulty_mae,
            tolerated=found.tolerated,
        ),
        **_bounds("gain", found.attainable, found.unit),
        "skill": found.now.skill,
        "skill_when_approved": None if then is None else then.skill,
    }


def _bounds(name: str, found: Interval | None, unit: Unit) -> Record:
    """Returns a mean and the ends of its 95 % interval."""
    values: Mapping[str, float | None] = (
        {name: None, f"{name}_low": None, f"{name}_high": None}
        if found is None
        else {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    )
    return in_unit(unit, **values)


def _answer(outcome: Outcome | None) -> Record:
    """Returns who has answered a question, when and why; nobody, where it expired or became void."""
    if outcome is None:
        return {"decided_by": None, "decided_at": None, "decision_reason": None}
    return {"decided_by": outcome.by, "decided_at": outcome.at, "decision_reason": outcome.reason}


def _taken_out(rolled_back: Promotion | None) -> Record:
    """Returns the rollback that took a version out of production, if it has not come back since."""
    return {"rolled_back": None if rolled_back is None else promotion(rolled_back)}
