"""The page of a month: what a manager reads first, then the numbers behind it; it needs nothing beside itself.

Is the model still good, what changed, what has to be decided: in words that need no statistics. Everything on it comes
from the ledger and what was joined, so that the same facts give the same page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from math import isfinite
from typing import TYPE_CHECKING, Literal

from taxifare.approval.decisions import command
from taxifare.approval.due import Known
from taxifare.approval.ledger import Entries
from taxifare.approval.message import VERDICT_IN_WORDS, off_in_words, verdict_in_words
from taxifare.approval.promotions import rolled_back_in_words
from taxifare.approval.records import Promotion, readable
from taxifare.approval.requests import approved_on, is_void
from taxifare.digests import digest
from taxifare.gate.evidence import Evidence, Verdict
from taxifare.gate.scores import Interval, Scores, skill
from taxifare.gate.slices import MINIMUM_SLICE_TRIPS
from taxifare.gate.staleness import Change, change_shown
from taxifare.monitoring.calendar import learned_until, rules_since
from taxifare.monitoring.realised import RealisedError, RealisedMonth, errors_by_month, promoted_on
from taxifare.reports.drawing import svg
from taxifare.reports.figures import drawn_over_time
from taxifare.reports.months import TO_BE_ASKED, ComparedMonth, months_on_record
from taxifare.settings import Settings
from taxifare.texts import named_version, one_line
from taxifare.trips.cities import City, Rule
from taxifare.trips.editions import BASE, is_so_far
from taxifare.trips.months import Month, parse_month
from taxifare.trips.targets import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORM = 8
"""Of the page: one of another form is made anew."""

_DRAWN_MONTHS = 36

_NOT_LEARNED = " What is in production has not learned it."

_RULES = 4
"""How many dated rules are shown, the latest."""


@dataclass(frozen=True)
class ShortAnswer:
    """The answer to one of a manager's questions.

    Attributes:
        tone: Whether it is good or bad news, or neither.
        short: In a few words.
        sentences: The rest.
        commands: What may be typed; none where there is nothing to be done.
    """

    tone: Literal["good", "bad", "plain"]
    short: str
    sentences: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Both models on one kind of rides.

    Attributes:
        name: Which.
        rides: How many.
        production: Error of production, None where only the gain is on record.
        staging: Error of staging, likewise.
        gain: By how much staging is closer.
        says: What that comes to, in words.
        is_objection: Whether it speaks against staging beyond its tolerance.
    """

    name: str
    rides: int
    production: float | None
    staging: float | None
    gain: Interval
    says: str
    is_objection: bool


@dataclass(frozen=True)
class MonthPage:
    """What the page of a subject shows.

    Attributes:
        month: The subject.
        before: All subjects up to it, itself included, in order.
        city: Whose rides.
        target: What is predicted.
        tolerance: Most skill that a model may surely lack before it is stale.
        promised: The evidence on which production was approved; None where that is not on record.
        changes: The changes of production that were made on its evidence.
        promoted: The version that became production on a month's evidence, by month.
        realised: What the quotes of months up to it came to, in order.
        unlearned: The dated rules in force by the end of the month that came after what a version has learned, by
            version: of production, and of what was promoted on this evidence.
        rolled_back: The rollback that took the version asked about out of production before; None where there was none,
            or it came back since.
    """

    month: ComparedMonth
    before: tuple[ComparedMonth, ...]
    city: City
    target: Target
    tolerance: float
    promised: Evidence | None
    changes: tuple[Promotion, ...]
    promoted: Mapping[str, str]
    realised: tuple[RealisedMonth, ...] = ()
    unlearned: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    rolled_back: Promotion | None = None

    @property
    def title(self) -> str:
        """What the page is about."""
        return "The first model" if self.month.subject == BASE else self.month.subject

    @property
    def facts(self) -> str:
        """A short text that changes when something does that the page shows."""
        shown = [
            (one.subject, one.comparison.evidence_digest, one.decision, one.outcome is None or str(one.outcome.at))
            for one in self.before
        ]
        asked = None if self.month.asked is None else (self.month.asked.id, str(self.month.asked.valid_until))
        promised = None if self.promised is None else self.promised.digest
        changes = [change.sequence for change in self.changes]
        rules = [(str(rule.since), rule.description) for rule in self.rules]
        unlearned = [(version, [str(rule.since) for rule in lacks]) for version, lacks in self.unlearned.items()]
        paid = [month.model_dump(mode="json") for month in self.realised]
        about = [self.target.name, self.target.unit, self.city.name, self.tolerance]
        gone_back = None if self.rolled_back is None else self.rolled_back.sequence
        return digest([_FORM, shown, asked, promised, changes, rules, unlearned, paid, about, gone_back])

    @property
    def change(self) -> Change | None:
        """Why production errs more or less than was promised, and whether it is stale; None where it was not scored."""
        evidence = self.month.evidence
        return None if evidence is None else change_shown(evidence, self.promised, self.tolerance)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The latest dated rules in force at the end of the month, the newest first."""
        last = self._last_day
        known = (rule for rule in self.city.rules if last is None or str(rule.since) <= last)
        return tuple(sorted(known, key=lambda rule: rule.since, reverse=True)[:_RULES]) if last is not None else ()

    @property
    def new_rules(self) -> tuple[Rule, ...]:
        """Those that came into force in the month."""
        return tuple(rule for rule in self.rules if str(rule.since).startswith(self.month.subject))

    @property
    def not_learned(self) -> tuple[Rule, ...]:
        """The dated rules that whatever is in production after this month's decision has not learned, oldest first."""
        evidence = self.month.evidence
        in_production = None if evidence is None else evidence.production_version
        in_production = self.changes[-1].version if self.changes else in_production
        return () if in_production is None else self.unlearned.get(in_production, ())

    @property
    def _last_day(self) -> str | None:
        subject = self.month.subject
        return None if subject == BASE else f"{parse_month(subject).end_time:%Y-%m-%d}"

    @property
    def is_still_good(self) -> ShortAnswer:
        """Whether the model in production is still good, by this month."""
        evidence = self.month.evidence
        if evidence is None:
            return ShortAnswer(
                "plain", "Cannot be shown", ("The evidence was written by another release of taxifare.",)
            )
        if evidence.production_version is None:
            return ShortAnswer("plain", "There was no model yet", (self._of_the_first(evidence),))
        if evidence.production is None or evidence.verdict is Verdict.LEAK:
            return ShortAnswer("bad", "Unknown", tuple(f"{_capital(reason)}." for reason in evidence.reasons))
        change = self.change
        error = self._error(evidence.production_version, evidence.production.scores, evidence.production.corrected)
        sentences = (error, *self._against_promise(change), *self._paid())
        if any(told.is_kept is False for told in self.told):
            return ShortAnswer("bad", "No: worse than promised", sentences)
        if change is not None and change.is_stale:
            return ShortAnswer("bad", "No: it is stale", (*sentences, change.finding))
        return ShortAnswer("good", "Yes", sentences)

    def _of_the_first(self, evidence: Evidence) -> str:
        return (
            f"Nothing was in production. The candidate, version {evidence.staging.version}, is off by "
            f"{self.amount(evidence.staging.scores.mae)} a ride; a flat per-km rate by "
            f"{self.amount(evidence.difficulty_mae)}."
        )

    def _error(self, version: str, scores: Scores, corrected: Scores) -> str:
        comparison = self.month.comparison
        latest = "of the latest days so far" if is_so_far(comparison.revision) else "at the end of the month"
        return (
            f"Version {version} was off by {self.amount(scores.mae)} a ride on average, on {scores.trips:,} rides "
            f"{latest} that it had not seen. {self._overall(scores, corrected)}"
        )

    @property
    def overall(self) -> str | None:
        """How far predictions of production were off on the whole, and which way; None where it was not scored."""
        production = None if self.month.evidence is None else self.month.evidence.production
        return None if production is None else self._overall(production.scores, production.corrected)

    def _overall(self, scores: Scores, corrected: Scores) -> str:
        unit, promised = self.target.unit, self.promised
        then = ""
        if promised is not None and promised.subject != self.month.subject:
            then = f" ({off_in_words(promised.staging.scores.bias, unit)} when it was approved)"
        # Whoever aims at the median ride is off on the mean, and further off once that is corrected.
        is_shifted = corrected.mae < scores.mae
        median = ": they aim at the median ride, and a few expensive rides raise the mean" if scores.bias < 0 else ""
        why = ", and not only for a few expensive rides" if is_shifted else median
        # What is closer by less than is shown is not told: nobody can see it.
        then_off, now_off = self.amount(scores.mae), self.amount(corrected.mae)
        closer = f", and off by {now_off} a ride instead of {then_off}" if is_shifted and now_off != then_off else ""
        return (
            f"Overall, its predictions were {off_in_words(scores.bias, unit)}{then}{why}. With the "
            f"bias correction they would have been {off_in_words(corrected.bias, unit)}{closer}."
        )

    def _against_promise(self, change: Change | None) -> tuple[str, ...]:
        """Returns how the error compares with what was promised, and why."""
        rise = None if change is None else change.rise
        if rise is None or self.promised is None or self.promised.subject == self.month.subject:
            return ()
        if not rise.shown[0]:
            return (f"Its error was the one shown when it was approved ({self.promised.subject}).",)
        hardness = "harder" if rise.harder >= 0 else "easier"
        fit = "less well" if rise.staler >= 0 else "better"
        whole, harder, staler = rise.shown
        more = "higher" if whole >= 0 else "lower"
        return (
            f"Its error was {self.amount(abs(whole))} a ride {more} than when it was approved "
            f"({self.amount(rise.then.mae)}, {self.promised.subject}): {self.signed(harder)} because the "
            f"month is {hardness} for any model, {self.signed(staler)} because the model fits it {fit}.",
        )

    @property
    def quotes(self) -> RealisedMonth | None:
        """What the month's quotes came to; None where nothing is known."""
        return next((found for found in self.realised if found.month == self.month.subject), None)

    @property
    def told(self) -> tuple[RealisedError, ...]:
        """The errors of the versions whose quotes customers were told in the month."""
        quotes = self.quotes
        if quotes is None:
            return ()
        given = (error for error in quotes.errors if error.served_as == "production")
        return tuple(error for error in given if error is not quotes.production)

    def _paid(self) -> tuple[str, ...]:
        """Returns how far off quotes were of what was paid, in a sentence."""
        found = None if self.quotes is None else self.quotes.production
        if found is None:
            return ()
        return (
            f"What customers were told was off by {self.amount(found.mae)} a ride on average, and overall "
            f"{off_in_words(found.bias, self.target.unit)}, on the {found.rides:,} rides whose outcome is known.",
        )

    @property
    def what_changed(self) -> ShortAnswer:
        """What changed in production and in the rules, and which rules production has not learned."""
        not_learned = self.not_learned
        earlier = tuple(rule for rule in not_learned if rule not in self.new_rules)
        rules = (
            *(
                f"Since {rule.since}: {rule.description}.{_NOT_LEARNED * (rule in not_learned)}"
                for rule in self.new_rules
            ),
            *(f"In force since {rule.since}: {rule.description}.{_NOT_LEARNED}" for rule in earlier),
        )
        made = tuple(_told(change) for change in self.changes)
        evidence = self.month.evidence
        back: tuple[str, ...] = ()
        if evidence is not None and evidence.hindsight is not None:
            found = evidence.hindsight
            surely = "surely " if found.gain.low > 0 or found.gain.high < 0 else ""
            by = self.amount(abs(found.gain.mean))
            better = f"{'closer' if found.gain.mean >= 0 else 'further off'} by {by} a ride than"
            if by == self.amount(0.0):
                surely, better = "", "as close to the truth as"
            back = (
                f"Looking back: version {evidence.production_version} is {surely}{better} version "
                f"{found.replaced_version}, which it replaced.",
            )
        if made:
            return ShortAnswer(
                "plain", f"Version {self.changes[-1].version} went into production", (*made, *rules, *back)
            )
        if evidence is None or evidence.production_version is None:
            return ShortAnswer("plain", "Nothing is in production", (*rules, *back))
        stays = f"Version {evidence.production_version} stayed in production"
        to_learn = "a rule" if len(earlier) == 1 else f"{len(earlier)} rules"
        nothing = f"Nothing this month, but production has yet to learn {to_learn}" if earlier else "Nothing"
        short = "New rules" if self.new_rules else nothing
        return ShortAnswer("plain", short, (f"{stays}.", *rules, *back))

    @property
    def to_decide(self) -> ShortAnswer:
        """What a person has to decide, or has decided."""
        asked, outcome = self.month.asked, self.month.outcome
        if asked is None:
            title = "A question is on its way" if self.month.decision == TO_BE_ASKED else "Nothing"
            return ShortAnswer("plain", title, (f"{_capital(self.month.decision)}.",))
        evidence = self.month.evidence
        says = VERDICT_IN_WORDS[asked.verdict] if evidence is None else verdict_in_words(evidence)
        question = (
            f"Should version {asked.staging_version} replace {named_version(asked.production_version)}? The verdict is "
            f"{asked.verdict}: {says}."
        )
        if outcome is None:
            until = f"{asked.valid_until:%Y-%m-%d %H:%M} UTC"
            way = (
                "Answer with the links in the message, or type one of these in the folder of the installation (where "
                "taxifare is not found, type .venv/bin/taxifare):"
            )
            ways = (command(asked, "approve"), command(asked, "reject"))
            said = [question]
            if self.rolled_back is not None:
                said.append(f"{_capital(rolled_back_in_words(asked.staging_version, self.rolled_back))}.")
            return ShortAnswer("bad", f"One question, until {until}", (*said, way), ways)
        by = f" by {one_line(outcome.by)}" if outcome.by else ""
        ended = f"{_capital(str(outcome.state))}{by} on {outcome.at:%Y-%m-%d}: {one_line(outcome.reason)}"
        unanswered = "the question is void" if is_void(outcome) else "nobody answered in time"
        said = [question, ended]
        if self.month.taken_out is not None:
            said.append(f"{_capital(rolled_back_in_words(asked.staging_version, self.month.taken_out))}.")
        return ShortAnswer("plain", f"Nothing: {'it was decided' if outcome.by else unanswered}", tuple(said))

    @property
    def parts(self) -> tuple[Part, ...]:
        """Both models by kind of rides, the least gain first."""
        evidence = self.month.evidence
        if evidence is None:
            return ()
        objections = {objection.name for objection in evidence.objects("slice")}
        scored = {part.name: part for part in evidence.slices}
        found: Mapping[str, tuple[int, Interval]] = {
            part.name: (part.staging.trips, part.gain) for part in evidence.slices
        }
        if evidence.track_record is not None:
            of_record = evidence.track_record.gains.slices
            found = {name: (part.rides, part.interval) for name, part in of_record.items()}
        parts = []
        for name, (rides, gain) in found.items():
            if rides >= MINIMUM_SLICE_TRIPS:
                both, is_objection = scored.get(name), name in objections
                production, staging = (None, None) if both is None else (both.production.mae, both.staging.mae)
                says = _says(gain, is_objection=is_objection)
                parts.append(Part(name, rides, production, staging, gain, says, is_objection))
        return tuple(sorted(parts, key=lambda part: part.gain.mean))

    @property
    def figure(self) -> "Figure | None":
        """The errors of the months up to this one; None before the first."""
        comparisons = [one.comparison for one in self.before]
        errors = errors_by_month(comparisons, self.realised)[-_DRAWN_MONTHS:]
        if not errors:
            return None
        return drawn_over_time(errors, self.promoted, self.city.rules, self.target.unit)

    def amount(self, value: float) -> str:
        """Returns an amount with its unit."""
        return f"{value:.2f} {self.target.unit}"

    def signed(self, value: float) -> str:
        """Returns a difference with its sign and unit."""
        return f"{value:+.2f} {self.target.unit}".replace("-", "−", 1)

    @staticmethod
    def bounds(found: Interval | None) -> str:
        """Returns an error with its bounds."""
        if found is None:
            return "–"
        bounds = f" ({found.low:.2f} to {found.high:.2f})" if isfinite(found.high) else ""
        return f"{found.mean:.2f}{bounds}"

    def between(self, gain: Interval) -> str:
        """Returns a gain with its bounds."""
        return f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})".replace("-", "−")


def pages_of(entries: Entries, settings: Settings, realised: Mapping[Month, RealisedMonth]) -> list[MonthPage]:
    """Returns what the page of each subject that was compared shows, in order.

    Args:
        entries: One view of the ledger.
        settings: Give city, target and tolerance.
        realised: What the quotes of each month came to.
    """
    known, history, asked = Known.read(entries), entries.promotions(), entries.requests()
    months = months_on_record(known)
    subjects = {request.id: request.subject for request in asked}
    changes: dict[str, list[Promotion]] = {}
    for change in history:
        if change.request_id is not None:
            changes.setdefault(subjects[change.request_id], []).append(change)
    promoted = promoted_on(history, asked)
    approved = approved_on(history, asked)
    # A version is in production for months, and its bundle may be in a bucket.
    learned = cache(partial(learned_until, settings))
    found = []
    for place, month in enumerate(months):
        shown = approved.get(month.comparison.production_version or "")
        found.append(
            MonthPage(
                month=month,
                before=tuple(months[: place + 1]),
                city=settings.city_facts,
                target=settings.target_facts,
                tolerance=settings.staleness_tolerance,
                promised=None if shown is None else readable(shown),
                changes=tuple(changes.get(month.subject, ())),
                promoted={subject: version for subject, version in promoted.items() if subject <= month.subject},
                realised=() if month.subject == BASE else _until(month.subject, realised),
                unlearned=_unlearned(month, changes.get(month.subject, ()), learned, settings.city_facts),
                rolled_back=known.rolled_back.get(month.comparison.staging_version),
            )
        )
    return found


def _unlearned(
    month: ComparedMonth,
    changes: Sequence[Promotion],
    learned: Callable[[str, str | None], datetime | None],
    city: City,
) -> Mapping[str, tuple[Rule, ...]]:
    """Returns the rules that the versions in production before and after the month's decision have not learned."""
    evidence = month.evidence
    if evidence is None or month.subject == BASE:
        return {}
    scored = [
        contender
        for contender in (evidence.production, evidence.staging)
        if contender is not None
        and contender.version in {evidence.production_version, *(change.version for change in changes)}
    ]
    return {one.version: rules_since(learned(one.version, one.files_digest), month.subject, city) for one in scored}


def _until(subject: str, realised: Mapping[Month, RealisedMonth]) -> tuple[RealisedMonth, ...]:
    return tuple(found for _, found in sorted(realised.items()) if found.month <= subject)


def render(page: MonthPage) -> str:
    """Returns the page as HTML; the same facts give the same page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("taxifare.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evidence, figure = page.month.evidence, page.figure
    return environment.get_template("month.html").render(
        page=page,
        month=page.month,
        evidence=evidence,
        months=_shown(page.before),
        # It is drawn here, from numbers and names that matplotlib escapes.
        figure=None if figure is None else Markup(svg(figure)),  # noqa: S704
        skill=skill,
        answers=(
            ("Is the model still good?", page.is_still_good),
            ("What changed?", page.what_changed),
            ("What has to be decided?", page.to_decide),
        ),
    )


def _shown(months: Sequence[ComparedMonth]) -> list[ComparedMonth]:
    """Returns the last year, the latest first."""
    return list(reversed(months))[:12]


def _says(gain: Interval, *, is_objection: bool) -> str:
    if is_objection:
        return "gets worse"
    if gain.low > 0:
        return "better"
    return "worse, within tolerance" if gain.high < 0 else "no clear difference"


def _told(change: Promotion) -> str:
    return (
        f"{_capital(named_version(change.version))} replaced {named_version(change.replaced_version)} on "
        f"{change.promoted_at:%Y-%m-%d}, by {one_line(change.by)}: {one_line(change.reason)}"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
