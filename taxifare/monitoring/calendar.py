"""The calendar: dated rules, in force or about to be, that the model pricing rides has learned nothing about.

No method that looks at rides sees a fare rise coming, and none that looks at inputs sees it at all: its date is in the
city's facts, and is announced before the first ride under it is paid. Only after that date can its effect be learned,
and measured: once a whole month under a rule shows that the model is not stale, the rule is no concern any more. The
check, the doctor and `status` name the same concerns.

Why the calendar comes first: docs/decisions.md, under monitoring.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from taxifare.approval.faults import FaultNotice
from taxifare.approval.ledger import Entries
from taxifare.approval.records import Comparison, readable
from taxifare.approval.requests import approved_on
from taxifare.errors import ToldError
from taxifare.gate.evidence import Evidence, Verdict
from taxifare.gate.staleness import Baseline, baseline_shown, change_shown, rules_between, rules_in_words
from taxifare.serving import in_force
from taxifare.serving.bundle import Manifest, read_manifest
from taxifare.settings import Settings
from taxifare.texts import counted
from taxifare.trips.cities import City, Rule
from taxifare.trips.editions import BASE, is_so_far
from taxifare.trips.months import Month, parse_month
from taxifare.trips.targets import Unit

LOOKS_AHEAD = timedelta(days=14)
"""How long before its date a rule is named: enough to warn those who set prices before the first such ride is paid."""

IS_NEWS = timedelta(days=31)
"""How long after its date people are still told about a rule; later it is only shown."""


class HasLearned(Protocol):
    """What a model has learned from, as far as the calendar needs it."""

    @property
    def last_pickup(self) -> datetime:
        """The last pickup among the trips it has learned."""


@dataclass(frozen=True)
class Observed:
    """How a model did on the latest month that was compared with it.

    Attributes:
        month: The month.
        mae: Its error a ride.
        expected: What was to be expected at the month's difficulty with the skill that it was approved with; None where
            that is not on record.
        is_stale: Whether a model that has learned the month surely saves more than is tolerated; None where the month's
            rides are too few to tell.
    """

    month: Month
    mae: float
    expected: float | None
    is_stale: bool | None

    def told(self, unit: Unit) -> str:
        """Returns it in words."""
        beside = "" if self.expected is None else f", where {self.expected:.2f} was to be expected at its difficulty"
        found = {True: "stale there", False: "not stale there", None: "too few rides to tell whether it is stale"}
        return f"off by {self.mae:.2f} {unit} a ride in {self.month}{beside}: {found[self.is_stale]}"


@dataclass(frozen=True)
class UnlearnedRule:
    """A dated rule that a model has learned nothing about.

    Attributes:
        rule: The rule.
        days: Days since it came into force; negative before.
        why: What the model lacks.
        is_ahead: Whether its date is after all rides the model has learned; otherwise it is only not a feature.
        observed: How the model did in the latest month that was compared with it; None unless all rides of that month
            were paid under the rule.
        is_beyond: Whether it begins after LAST_MONTH, so that no month under it will be compared.
    """

    rule: Rule
    days: int
    why: str
    is_ahead: bool
    observed: Observed | None = None
    is_beyond: bool = False

    @property
    def is_concern(self) -> bool:
        """Whether it may cost more than is tolerated: no whole month under it has shown that the model is not stale.

        An installation that works on past months is not concerned by what came after them.
        """
        if self.observed is not None:
            return self.observed.is_stale is not False
        return self.is_news or not self.is_beyond

    @property
    def is_news(self) -> bool:
        """Whether it is about to come into force, or has been in force for no more than about a month."""
        return self.days <= IS_NEWS.days

    def __str__(self) -> str:
        """Returns it in words."""
        since = self.rule.since
        when = f"in force since {since}" if self.days >= 0 else f"in {counted(-self.days, 'days')}, on {since}"
        return f"{self.rule.name}, {when}: {self.rule.description}; {self.why}"

    def told(self, unit: Unit) -> str:
        """Returns it in words, with what it has come to so far."""
        if self.observed is not None:
            return f"{self}; {self.observed.told(unit)}"
        if self.is_beyond:
            return f"{self}; it begins after LAST_MONTH, so no month under it is worked on"
        return f"{self}; no whole month under it has been compared yet" if self.days >= 0 else str(self)


@dataclass(frozen=True)
class Expectation:
    """The error to expect of a model given how hard rides are: blind to rules, as it assumes that skill stays the same.

    Attributes:
        then: How well it did where it was approved.
        difficulty: How hard rides were in the last month that was compared.
        month: That month.
    """

    then: Baseline
    difficulty: float
    month: str

    @property
    def mae(self) -> float:
        """The error to expect per ride.

        >>> round(Expectation(Baseline(mae=1.5, difficulty_mae=3.0), 3.4, "2012-08").mae, 6)
        1.7
        """
        return (1 - self.then.skill) * self.difficulty

    def told(self, unit: Unit) -> str:
        """Returns it in words."""
        return (
            f"{self.mae:.2f} {unit} a ride at the difficulty of {self.month} (promised: {self.then.mae:.2f}). This "
            "estimate does not account for rules: under one that was not learned the error is larger, nobody can say "
            "by how much before rides are paid"
        )


@dataclass(frozen=True)
class Calendar:
    """What the calendar says about the model that prices rides.

    Attributes:
        version: The version, None where none is in production.
        today: On the city's clock.
        unlearned: The rules that it has learned nothing about, oldest first.
        expected: The error to expect, None where the ledger does not say what was promised.
    """

    version: str | None
    today: date
    unlearned: tuple[UnlearnedRule, ...] = ()
    expected: Expectation | None = None

    @property
    def concerns(self) -> tuple[UnlearnedRule, ...]:
        """The unlearned rules that may cost more than is tolerated."""
        return tuple(one for one in self.unlearned if one.is_concern)

    @property
    def news(self) -> tuple[UnlearnedRule, ...]:
        """Those that people get a message about; of a month compared under a rule, its own question tells."""
        return tuple(one for one in self.unlearned if one.observed is None and one.is_news)

    @property
    def state(self) -> str:
        """A text that changes when the model, what it lacks or what that comes to changes, but not from day to day."""
        rules = (
            f"{one.rule.name}: {one.why}, {'a concern' if one.is_concern else 'no concern'}"
            f"{'' if one.observed is None else f' after {one.observed.month}'}"
            for one in self.unlearned
        )
        return "; ".join([f"version {self.version}", *rules])

    def told(self, unit: Unit) -> str:
        """Returns it in words."""
        if self.version is None:
            return "no model is in production"
        until = self.today + LOOKS_AHEAD
        if not self.unlearned:
            return f"version {self.version} has learned every dated rule in force by {until}"
        named = "; ".join(one.told(unit) for one in self.unlearned)
        is_unknown = any(one.is_ahead and one.observed is None for one in self.unlearned)
        expected = f". Error to expect: {self.expected.told(unit)}" if self.expected is not None and is_unknown else ""
        lacks = f"{len(self.unlearned)} of the rules in force by {until}"
        return f"version {self.version} has not learned {lacks}: {named}{expected}"


def unlearned_rules(
    city: City,
    exposure: Iterable[HasLearned],
    today: date,
    features: Sequence[str] | None = None,
    observed: Observed | None = None,
    last_month: Month | None = None,
) -> tuple[UnlearnedRule, ...]:
    """Returns the dated rules, in force or within `LOOKS_AHEAD`, that a model has learned nothing about, oldest first.

    It has learned a rule if its exposure ends on the rule's date or later and the rule is one of its features.

    Args:
        city: Gives the rules.
        exposure: What the model has learned from.
        today: On the city's clock.
        features: Inputs of the model; None if unknown.
        observed: How it did in the latest month that was compared with it; None if there is none.
        last_month: The last month that is worked on; None if there will always be another.
    """
    last = max(entry.last_pickup for entry in exposure).date()
    found = []
    for rule in sorted(city.rules, key=lambda rule: rule.since):
        lacks = [f"learned until {last}"] if last < rule.since else []
        if features is not None and rule.name not in features:
            lacks.append("it is none of its features")
        if lacks and rule.since <= today + LOOKS_AHEAD:
            is_under_it = observed is not None and observed.month.start_time.date() >= rule.since
            found.append(
                UnlearnedRule(
                    rule,
                    (today - rule.since).days,
                    ", ".join(lacks),
                    is_ahead=last < rule.since,
                    observed=observed if is_under_it else None,
                    is_beyond=last_month is not None and last_month.end_time.date() < rule.since,
                )
            )
    return tuple(found)


def calendar_in(entries: Entries, settings: Settings, now: datetime) -> Calendar:
    """Returns what the calendar says about the model that prices rides, as published beside the bundles.

    Args:
        entries: The ledger's, which say what was promised.
        settings: Name the lake and the city.
        now: The moment.

    Raises:
        InForceError: What is in force is unknown.
        BundleError: Its bundle is not a valid one.
        OSError: The lake cannot be read.
    """
    today = now.astimezone(ZoneInfo(settings.time_zone)).date()
    manifest = _manifest_in_force(settings)
    if manifest is None:
        return Calendar(None, today)
    asked = approved_on(entries.promotions(), entries.requests()).get(manifest.version)
    approved = None if asked is None else readable(asked)
    months = sorted((one for one in entries.comparisons().values() if one.is_of_month), key=lambda one: one.subject)
    seen = observed_in(months, manifest.version, approved, settings.staleness_tolerance)
    unlearned = unlearned_rules(
        settings.city_facts, manifest.exposure, today, manifest.features, seen, settings.last_month
    )
    return Calendar(manifest.version, today, unlearned, expectation(months, approved))


def learned_until(settings: Settings, version: str, files_digest: str | None) -> datetime | None:
    """Returns the last pickup that a version has learned, by its bundle; None where that is not there.

    Args:
        settings: Name the lake.
        version: The version.
        files_digest: Of its files, by which its bundle is found; None where that is unknown: the one in force is its.
    """
    try:
        digest = None if files_digest is None else in_force.made_of(settings.lake, files_digest)
        manifest = (
            _manifest_in_force(settings)
            if digest is None
            else read_manifest(in_force.bundles_in(settings.lake) / digest)
        )
    except (ToldError, OSError):
        return None
    if manifest is None or manifest.version != version:
        return None
    return max(entry.last_pickup for entry in manifest.exposure)


def rules_since(learned: datetime | None, month: str, city: City) -> tuple[Rule, ...]:
    """Returns the dated rules that came into force after what was learned last, by the end of a month.

    Args:
        learned: See `learned_until`; None: nothing is said.
        month: The month, `YYYY-MM`.
        city: Gives the rules.
    """
    return () if learned is None else rules_between(learned, parse_month(month).end_time, city)


def rules_not_learned(evidence: Evidence, settings: Settings) -> tuple[str, ...]:
    """Returns the dated rules, in words, that production had not learned by the end of a month that was compared.

    Empty where that is not known, of the base years, and of the days of a month so far.

    Args:
        evidence: Of the comparison.
        settings: Name the lake and the city.
    """
    version, scored = evidence.production_version, evidence.production
    if version is None or evidence.subject == BASE or is_so_far(evidence.revision):
        return ()
    learned = learned_until(settings, version, None if scored is None else scored.files_digest)
    return rules_in_words(rules_since(learned, evidence.subject, settings.city_facts))


def calendar_if_told(entries: Entries, settings: Settings, now: datetime) -> Calendar | None:
    """Returns what `calendar_in` does, None where what is in force is unknown: the service's state says so."""
    try:
        return calendar_in(entries, settings, now)
    except (ToldError, OSError):
        return None


def expectation(months: Sequence[Comparison], approved: Evidence | None) -> Expectation | None:
    """Returns the error to expect of a version; None where it is not known what was promised, or how hard rides are.

    Args:
        months: Those that were compared, in order.
        approved: The evidence on which the version was approved; None where that is not on record.
    """
    then, now = baseline_shown(approved), readable(months[-1]) if months else None
    return None if then is None or now is None else Expectation(then, now.difficulty_mae, now.subject)


def observed_in(
    months: Sequence[Comparison], version: str, approved: Evidence | None, tolerance: float
) -> Observed | None:
    """Returns how a version did in the latest month that was compared with it; None where it was not scored there.

    Args:
        months: Those that were compared, in order.
        version: The version in production.
        approved: The evidence on which it was approved; None where that is not on record.
        tolerance: The most skill that it may surely lack before it is stale.
    """
    latest = next((one for one in reversed(months) if one.production_version == version), None)
    evidence = None if latest is None else readable(latest)
    change = None if evidence is None else change_shown(evidence, approved, tolerance)
    if evidence is None or change is None or evidence.verdict is Verdict.LEAK:
        return None
    then, now = change.then, change.now
    expected = None if then is None else Expectation(then, now.difficulty_mae, evidence.subject).mae
    is_fresh = change.attainable is not None and change.attainable.high <= change.tolerated
    is_stale = True if change.is_stale else False if is_fresh else None
    return Observed(parse_month(evidence.subject), now.mae, expected, is_stale)


def faults_of(calendar: Calendar | None, unit: Unit, page: str) -> dict[str, FaultNotice]:
    """Returns what people are to be told about rules that are about to come into force, or recently did, by key.

    Args:
        calendar: What the calendar says, None if unknown.
        unit: Of errors.
        page: Where to look.
    """
    faults = [] if calendar is None else [fault_of(one, calendar, unit, page) for one in calendar.news]
    return {fault.about: fault for fault in faults}


def fault_of(unlearned: UnlearnedRule, calendar: Calendar, unit: Unit, page: str) -> FaultNotice:
    """Returns what people are told about one rule, once for each version."""
    about = f"rule {unlearned.rule.name} and version {calendar.version}"
    said = f"Not learned: {unlearned}"
    if not unlearned.is_ahead:
        return FaultNotice(
            about, (said, f"Version {calendar.version}, which prices rides, knows nothing of this rule"), page
        )
    expected = () if calendar.expected is None else (f"Error to expect: {calendar.expected.told(unit)}",)
    lines = (
        said,
        f"Version {calendar.version}, which prices rides, was trained before it",
        *expected,
        "What to do: nothing can be learned before rides are paid under the rule. Where quotes and outcomes are "
        "collected, the watch asks whether to retrain a few days after it began; until then, allow for the rule when "
        "quoting",
    )
    return FaultNotice(about, lines, page)


def _manifest_in_force(settings: Settings) -> Manifest | None:
    """Returns the manifest of the bundle in force, None where nothing is in production."""
    promotion = in_force.read(settings.lake)
    if promotion is None or promotion.digest is None:
        return None
    return read_manifest(in_force.bundles_in(settings.lake) / promotion.digest)
