"""The message that asks a person for a decision: the numbers, what they mean, and where to answer.

Its wording belongs here. Whoever serves the pages provides its links (`Links`); `delivery` and `channels` send it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from taxifare.approval.chain import Head
from taxifare.approval.channels import Message
from taxifare.approval.decisions import APPROVABLE
from taxifare.approval.faults import FaultNotice
from taxifare.approval.policies import PolicyDecision
from taxifare.approval.promotions import rolled_back_in_words
from taxifare.approval.records import (
    Alarm,
    AlarmEvidence,
    Decision,
    Outcome,
    Promotion,
    Question,
    Request,
    StandingEnd,
    StandingEvidence,
    StandingRequest,
)
from taxifare.approval.requests import by_subject
from taxifare.gate.evidence import Contender, Evidence, Verdict
from taxifare.gate.scores import Interval, Scores, describe_saving
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS
from taxifare.gate.verdict import RECORD_SHARE, StandingAnswer
from taxifare.texts import counted, named_version, one_line
from taxifare.trips.editions import is_so_far
from taxifare.trips.targets import Unit

VERDICT_IN_WORDS = {
    Verdict.PROMOTE: "the new model is better",
    Verdict.HOLD: "no difference worth a promotion",
    Verdict.REJECT: "the new model is worse",
    Verdict.UNCHANGED: "both models predict the same",
    Verdict.COLD_START: "nothing is in production yet",
    Verdict.UNSCORABLE: "the production model could not be scored",
    Verdict.LEAK: "a model has been trained on the trips it was scored on",
}


def verdict_in_words(evidence: Evidence) -> str:
    """Returns what the verdict says, in words; of a HOLD on a model that is better, what it lacks.

    A reader who sees an interval above zero beside HOLD would otherwise take one of the two for a mistake.
    """
    record = None if evidence.track_record is None else evidence.track_record.gains.all.interval
    is_better = any(gain is not None and gain.low > 0 for gain in (evidence.gain, record))
    if evidence.verdict is Verdict.HOLD and is_better:
        if evidence.reasons == tuple(objection.reason for objection in evidence.objections):
            return "the new model is better on the whole, but not in everything that is checked"
        return "the new model is better, but perhaps by less than a promotion has to be worth"
    return VERDICT_IN_WORDS[evidence.verdict]


class Links(Protocol):
    """Addresses of the pages that a message leads to."""

    def subject(self, subject: str) -> str:
        """Returns the address of what was compared: of a month, or of `base`."""

    def report(self, subject: str) -> str:
        """Returns the address of the page about a month, or `base`, in plain words."""

    def run(self, run_id: str) -> str:
        """Returns the address of a run's page."""

    def production(self) -> str:
        """Returns the address of what is in production."""

    def way_back(self, to: str, token: str) -> str:
        """Returns the address that takes production back to a version, prefilled except for who decides and why."""

    def asking_again(self, request: Request, token: str) -> str:
        """Returns the address that repeats a request which nobody answered, prefilled."""

    def decision(self, request: Question, token: str, decision: Decision) -> str:
        """Returns the address that answers the request, prefilled except for who decides and why."""


def message(
    request: Request,
    tokens: Mapping[Decision, str],
    links: Links,
    by_policy: PolicyDecision | None = None,
    *,
    head: Head | None = None,
    reminder: int = 0,
    dead_links: str | None = None,
    rolled_back: Promotion | None = None,
    restated: Sequence[Outcome] = (),
    other_starts: Sequence[Request] = (),
    comparison_page: str | None = None,
    rules: Sequence[str] = (),
) -> Message:
    """The question, as plain text a person can judge by: the numbers, what they mean, and where to answer.

    Args:
        request: What is asked.
        tokens: Go into the links that answer it, each decision's into its own.
        links: Where to look and where to answer.
        by_policy: What a policy is about to decide; None where a person decides.
        head: Of the ledger's chain; a ledger that is changed afterwards no longer has it. None before any entry.
        reminder: 0 for the question itself, n for its n-th reminder.
        dead_links: Why the links of earlier messages no longer work; None where they do.
        rolled_back: The rollback that took the same version out of production; None where there was none.
        restated: Decisions on earlier editions of the same trips.
        other_starts: Other open requests, where nothing is in production yet.
        comparison_page: Where MLflow shows the two runs side by side, None without a server.
        rules: Dated rules that have come into force since production was trained, in words.
    """
    evidence, unit = request.evidence, request.evidence.unit
    production = evidence.production.scores if evidence.production else None
    staging = evidence.staging.scores
    key = f"Request {request.id}" + (f", reminder {reminder}" if reminder else "")
    lines = [
        # The course's format: other software reads this line.
        f"Evaluation MAE: {_amount(production.mae if production else None)} - New training MAE: {_amount(staging.mae)}",
        f"{request.subject}: {request.verdict}, {verdict_in_words(evidence)}",
        *(f"- {reason}" for reason in evidence.reasons),
        *_so_far(request),
        *_warnings(request, dead_links, other_starts, rolled_back),
        *(
            f"Restated: {earlier.request_id} was {earlier.state} by {one_line(str(earlier.by))} on "
            f"{_moment(earlier.at)}, on the basis of an earlier edition of these trips"
            for earlier in restated
        ),
    ]
    lines += [
        *_gains(evidence),
        f"Bias (mean error a ride): production {_bias(production, unit)}, staging {_bias(staging, unit)}",
        f"Bias after correction: production {_corrected(evidence.production, unit)}, staging "
        f"{_corrected(evidence.staging, unit)}",
        f"Difficulty: a flat per-km rate has an MAE of {_amount(evidence.difficulty_mae)} on these rides",
        *_worse_than_flat_rate(evidence),
        *(f"Version {request.production_version} was trained before a rule came into force: {rule}" for rule in rules),
        f"Versions: {request.staging_version} to replace {request.production_version or 'nothing'},"
        f" evidence {request.evidence_digest[:12]}",
    ]
    pages = [("See", links.subject(request.subject)), ("In plain words", links.report(request.subject))]
    if comparison_page:
        pages.append(("Compare the runs", comparison_page))
    if by_policy is not None:
        lines.append(f"{_deciding(by_policy)}; asked {_moment(request.requested_at)}")
    else:
        lines.append(f"Decide before {_moment(request.valid_until)}; asked {_moment(request.requested_at)}")
        if request.verdict not in APPROVABLE:
            lines.append(
                "Approving would go against the verdict: on the page that opens, change override: false to "
                "override: true, and explain why in the reason"
            )
        pages += [
            ("Approve", links.decision(request, tokens["approve"], "approve")),
            ("Reject", links.decision(request, tokens["reject"], "reject")),
        ]
    return _message(key, lines, pages, head)


def _so_far(request: Request) -> list[str]:
    """Returns what has to be known about a month that is not over; nothing for one that is."""
    if not is_so_far(request.revision):
        return []
    return [
        f"Based on the outcomes of the days of {request.subject} so far. That is only a few days; the whole month is "
        "compared once it is published"
    ]


def _gains(evidence: Evidence) -> list[str]:
    """Returns what the new model would have saved, and how sure that is."""
    lines, unit = [], evidence.unit
    if evidence.track_record is not None:
        so_far = evidence.track_record.gains.all
        lines.append(
            f"Saved so far: {_interval(so_far.interval, unit)} a ride, on the {so_far.rides:,} rides since "
            f"version {evidence.production_version} went into production"
        )
    if evidence.gain is not None:
        rides = evidence.staging.scores.trips
        lines.append(f"On the month's last days: {_interval(evidence.gain, unit)} a ride, on {rides:,} rides")
        lines.append(
            "How to read this: + means closer to the truth. With other days like these, the mean would fall within the "
            "interval 19 times out of 20. It describes these rides; next month's may differ"
        )
    if evidence.hindsight is not None:
        before = evidence.hindsight.replaced_version
        lines.append(
            f"Looking back: version {evidence.production_version} {describe_saving(evidence.hindsight.gain, unit)} "
            f"against version {before}, which it replaced, on the month's last days"
        )
    if (worst := _worst_slice(evidence)) is not None:
        name, gain, rides = worst
        since = f"since version {evidence.production_version} went into production"
        when = "on the month's last days" if evidence.track_record is None else since
        lines.append(f"Worst slice {when}: {name}, gain {_interval(gain, unit)}, on {rides:,} rides")
    return lines


def _worst_slice(evidence: Evidence) -> tuple[str, Interval, int] | None:
    """Returns the slice with the least gain: its name, the gain and the rides; from the track record if there is one.

    None if no slice can be judged.
    """
    if evidence.track_record is None:
        slices = [(part.name, part.gain, part.staging.trips) for part in evidence.slices]
    else:
        of_record = evidence.track_record.gains.slices
        slices = [(name, part.interval, part.rides) for name, part in of_record.items()]
    judged = [part for part in slices if part[2] >= MINIMUM_SLICE_TRIPS]
    return min(judged, key=lambda part: part[1].mean, default=None)


def _warnings(
    request: Request, dead_links: str | None, other_starts: Sequence[Request], rolled_back: Promotion | None
) -> list[str]:
    """Returns what has to be known before answering, besides the numbers."""
    lines = []
    if rolled_back is not None:
        told = rolled_back_in_words(request.staging_version, rolled_back)
        lines.append(f"It was rolled back: {told}. Only a person puts it back")
    if dead_links is not None:
        lines.append(f"The links in earlier messages about this no longer work: {dead_links}. Use the links below")
    if other_starts:
        first = min([request, *other_starts], key=by_subject)
        waiting = sorted({request.subject, *(start.subject for start in other_starts)})
        lines.append(
            f"{len(waiting)} first models are waiting for an answer: {', '.join(waiting)}. Decide on {first.subject} "
            "first; the others are then compared with it"
        )
    return lines


def promotion_notice(
    promotion: Promotion, links: Links, way_back: str | None, number: int, head: Head | None
) -> Message:
    """Returns the message that tells of a change of production, with the link back.

    Args:
        promotion: The change.
        links: Where to look.
        way_back: The token of the way back, None where nothing was in production before.
        number: How many messages about it there were.
        head: Of the ledger's chain.
    """
    key = f"Promotion {promotion.sequence}" + (f", message {number}" if number else "")
    pages = [("See", links.production())]
    before = promotion.replaced_version
    if before is not None and way_back is not None:
        pages.append((f"Back to version {before}", links.way_back(before, way_back)))
    lines = [
        f"In production: {named_version(promotion.version)}, in place of {named_version(before)}",
        f"By {promotion.kind}, {promotion.by}, {_moment(promotion.promoted_at)}: {promotion.reason}",
    ]
    return _message(key, lines, pages, head)


def expiry_notice(request: Request, links: Links, token: str, number: int, head: Head | None) -> Message:
    """Returns the message that tells of a question which nobody answered in time, with the link that asks it again.

    Args:
        request: The request.
        links: Where to look, and where to ask again.
        token: Goes into the link that asks again.
        number: How many messages about it there were.
        head: Of the ledger's chain.
    """
    key = f"Expiry of {request.id}" + (f", message {number}" if number else "")
    pages = [("See", links.subject(request.subject)), ("Ask again", links.asking_again(request, token))]
    before = named_version(request.production_version)
    lines = [
        f"Expired: {request.subject}, {request.verdict}: nobody answered by {_moment(request.valid_until)}",
        f"Its evidence still stands: version {request.staging_version} to replace {before}",
    ]
    return _message(key, lines, pages, head)


def fault_notice(fault: FaultNotice, head: Head | None) -> Message:
    """Returns the message that tells of something that has gone wrong."""
    return _message(fault.about.capitalize(), fault.lines, [("See", fault.page)], head)


def standing_question(
    request: StandingRequest,
    evidence: StandingEvidence,
    tokens: Mapping[Decision, str],
    links: Links,
    number: int,
    head: Head | None,
) -> Message:
    """Returns the question about a standing approval: what would happen by itself, what speaks for it, what ends it.

    Args:
        request: What is asked.
        evidence: Its terms, and what it would have done so far.
        tokens: Go into the links that answer it, each decision's into its own.
        links: Where to look and where to answer.
        number: How many messages about it there were.
        head: Of the ledger's chain.
    """
    terms = evidence.terms
    key = f"Standing approval {request.id}" + (f", message {number}" if number else "")
    so_far = []
    if evidence.so_far is not None:
        so_far.append(f"Saved so far: {_interval(evidence.so_far, terms.unit)} a ride, on {evidence.rides:,} rides")
    lines = [
        f"May candidates be promoted automatically from {request.first_month} to {request.last_month}?",
        f"Promoted automatically, with a message: a candidate that is better, with 95 % confidence, by more than "
        f"{terms.minimum_gain:g} {terms.unit} a ride on the month's last days; or better since production came in, by "
        f"more than {terms.minimum_gain * RECORD_SHARE:g} {terms.unit} a ride on average, while the last days agree",
        f"Still asked: where one kind of trip is worse, with 95 % confidence, by more than {terms.slice_tolerance:g} "
        f"{terms.unit}, or the bias grows by more than {terms.bias_tolerance:g} {terms.unit}; where production cannot "
        "be scored",
        "Left as it is, without a question: everything else",
        _reviewed(evidence),
        *so_far,
        "It ends after the last month. It ends earlier with any rollback, when the next month shows that a promotion "
        "under it made things worse, when the settings change, or by hand: taxifare standing end",
        f"In production: version {request.production_version}, which prices rides of {terms.city}",
        f"Decide before {_moment(request.valid_until)}; asked {_moment(request.requested_at)}",
    ]
    pages = [
        ("See", links.subject(request.subject)),
        ("Approve", links.decision(request, tokens["approve"], "approve")),
        ("Reject", links.decision(request, tokens["reject"], "reject")),
    ]
    return _message(key, lines, pages, head)


def alarm_question(
    alarm: Alarm, evidence: AlarmEvidence, tokens: Mapping[Decision, str], links: Links, number: int, head: Head | None
) -> Message:
    """Returns the question whether to retrain before the month is over: what was seen, and how certain it is.

    Args:
        alarm: What is asked.
        evidence: What has been seen.
        tokens: Go into the links that answer it, each decision's into its own.
        links: Where to look and where to answer.
        number: How many messages about it there were.
        head: Of the ledger's chain.
    """
    key = f"Alarm {alarm.id}" + (f", message {number}" if number else "")
    first, last, unit = evidence.days[0].day, evidence.days[-1].day, evidence.unit
    rules = evidence.rules or ("none on file for this city; ask somebody who knows the prices",)
    lines = [
        f"The error of production has grown: retrain on the days of {alarm.month} so far?",
        f"Since {first} the MAE of version {alarm.version} has been {evidence.mae:.2f} {unit} on {evidence.rides:,} "
        f"rides; at its usual skill it would have been {evidence.usual_mae:.2f}",
        f"Its skill, the share of a flat per-km rate's error that it avoids, fell from {evidence.usual_skill:.1%} to "
        f"{evidence.recent_skill:.1%}; a month that is hard for any model does not lower it",
        "Day by day: " + ", ".join(f"{day.day:%m-%d} {day.mae:.2f} ({day.score:.1f})" for day in evidence.days[-10:]),
        f"How to read this: the number in brackets adds up how far below the usual the days were. The alarm is raised "
        f"at {evidence.threshold:g}; expect at most {evidence.false_alarms_a_year:g} false alarms a year",
        f"Dated rules not learned: {'; '.join(rules)}",
        f"Approving trains a candidate on the outcomes up to {last} and later. Whether it goes into production is a "
        "second question, with a comparison. Rejecting changes nothing. This is asked once until production changes",
        f"Decide before {_moment(alarm.valid_until)}; asked {_moment(alarm.requested_at)}",
    ]
    pages = [
        ("See", links.production()),
        ("Approve", links.decision(alarm, tokens["approve"], "approve")),
        ("Reject", links.decision(alarm, tokens["reject"], "reject")),
    ]
    return _message(key, lines, pages, head)


def alarm_expiry_notice(alarm: Alarm, links: Links, head: Head | None) -> Message:
    """Returns the message about an alarm which nobody answered in time; it can no longer be answered.

    Args:
        alarm: The alarm.
        links: Where to look.
        head: Of the ledger's chain.
    """
    lines = [
        f"Expired: nobody answered until {_moment(alarm.valid_until)} whether to retrain on the days of {alarm.month} "
        "so far",
        f"Version {alarm.version} goes on pricing rides, and errs more than it did. {alarm.month} is compared like any "
        "month when it is published; this is not asked again until production changes",
    ]
    return _message(f"Expiry of {alarm.id}", lines, [("See", links.production())], head)


def _worse_than_flat_rate(evidence: Evidence) -> Iterator[str]:
    """Yields a warning where staging is no better than a rate per km: against nothing or a bad model, it still wins."""
    if not evidence.beats_flat_rate:
        yield (
            f"Beware: staging, with an MAE of {_amount(evidence.staging.scores.mae)}, is no better than that flat "
            "rate. Look for what is wrong with the trips (taxifare doctor) before it prices rides"
        )


def _reviewed(evidence: StandingEvidence) -> str:
    """Returns what a standing approval would have done in the months on record."""
    months: dict[StandingAnswer, list[str]] = {"promote": [], "keep": [], "ask": []}
    for one in evidence.months:
        months[one.answer].append(one.month)
    return (
        f"Over {counted(len(evidence.months), 'months')} on record it would have promoted "
        f"{_some(months['promote'])}, asked a person about {_some(months['ask'])}, and changed nothing in "
        f"{len(months['keep'])}"
    )


def _some(months: Sequence[str]) -> str:
    return f"{len(months)} ({', '.join(months)})" if months else "none"


def standing_end_notice(end: StandingEnd, used: Sequence[str], links: Links, head: Head | None) -> Message:
    """Returns the message that tells of the end of a standing approval.

    Args:
        end: How it ended.
        used: The requests that were approved under it.
        links: Where to look.
        head: Of the ledger's chain.
    """
    who = "its own rule" if end.by is None else end.by
    lines = [
        f"The standing approval {end.standing_id} is over: by {end.cause}, {who}, {_moment(end.at)}: {end.reason}",
        f"Approved under it: {', '.join(used) or 'nothing'}",
        "From now on a person is asked about each month. A new standing approval is asked for after the next month",
    ]
    if end.cause == "regret":
        lines.append("To go back: taxifare rollback, or the link in the message of the promotion")
    return _message(f"End of {end.standing_id}", lines, [("See", links.production())], head)


def _deciding(by_policy: PolicyDecision) -> str:
    """Returns who decides in a person's place, and what."""
    if by_policy.standing_id is None:
        return f"Decided by policy: {by_policy.decision}"
    return f"Decided under {by_policy.by}: {by_policy.decision}, because {by_policy.reason}"


def _message(key: str, lines: Sequence[str], pages: Sequence[tuple[str, str]], head: Head | None) -> Message:
    """Returns a message made of the lines, followed by the ledger's head, the links and the key."""
    told = [] if head is None else [f"Ledger: {head}"]
    addresses = [f"{name}: {address}" for name, address in pages]
    return Message(key, "\n".join([*lines, *told, *addresses, key]), tuple(pages))


def _amount(amount: float | None) -> str:
    return "none" if amount is None else f"{amount:.2f}"


def off_in_words(bias: float, unit: Unit) -> str:
    """Returns how far predictions are off on the whole, and in which direction.

    >>> off_in_words(-0.8, "USD"), off_in_words(0.001, "min")
    ('0.80 USD too low', '0.00 min')
    """
    direction = "" if abs(bias) < 0.005 else " too low" if bias < 0 else " too high"
    return f"{abs(bias):.2f} {unit}{direction}"


def _bias(scores: Scores | None, unit: Unit) -> str:
    return "none" if scores is None else off_in_words(scores.bias, unit)


def _corrected(contender: Contender | None, unit: Unit) -> str:
    """Bias and error of a version's corrected predictions."""
    if contender is None:
        return "none"
    return f"{_bias(contender.corrected, unit)} (MAE {_amount(contender.corrected.mae)})"


def _interval(interval: Interval, unit: Unit) -> str:
    return f"{interval.mean:+.3f} {unit} (95 % interval {interval.low:+.3f} to {interval.high:+.3f})"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
