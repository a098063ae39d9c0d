"""Where an installation stands: what is in production, what was decided lately, what waits, what is wrong, what to do.

Read from the ledger, the source's list of months and what those who price rides find, so that it is there in a moment;
`doctor` asks every part whether it works. Nothing is written, and nothing repaired.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from taxifare.approval import requests
from taxifare.approval.channels import notifiers
from taxifare.approval.decisions import by_verdict, command
from taxifare.approval.due import Due, Known, Why, covered, months_due, to_ask, to_tell
from taxifare.approval.faults import is_about_failure
from taxifare.approval.heads import ToldHeads
from taxifare.approval.ledger import Entries, Ledger
from taxifare.approval.locks import is_held
from taxifare.approval.promotions import rolled_back_in_words
from taxifare.approval.records import Decision, Promotion, Question, Request, StandingRequest, readable
from taxifare.errors import ToldError
from taxifare.gate.evidence import Verdict
from taxifare.gate.staleness import Change, rules_in_words
from taxifare.monitoring.calendar import calendar_if_told
from taxifare.monitoring.realised import RealisedError, RealisedMonth
from taxifare.operations.month_pages import Realised
from taxifare.reports.month_page import MonthPage, pages_of
from taxifare.reports.months import ComparedMonth, months_on_record
from taxifare.secrets import redacted
from taxifare.serving import in_force
from taxifare.settings import Settings
from taxifare.sources import CannotTellError, SourceError, TripSource
from taxifare.sources.whole_months import why_waiting
from taxifare.texts import in_range, named_version, one_line
from taxifare.trips.months import Month

NO_STATE = "make demo"
"""The first command of an installation; while it is at work it holds a lock of that name."""

WORKS = "make dev"
"""The command whose daemon runs months that are due, and asks."""

_TO_BE_RUN = {
    Why.NEW: "published and not compared yet",
    Why.RESTATED: "published anew since, and to be run again",
    Why.PRODUCTION_CHANGED: "to be compared again, because production has changed",
}


@dataclass(frozen=True)
class OpenQuestion:
    """Something that waits for a person's answer.

    Attributes:
        id: Its name.
        about: What is asked, in words.
        asked_at: Since when.
        valid_until: Until when it can be answered.
        answers: The commands that answer it, what the evidence alone says first.
    """

    id: str
    about: str
    asked_at: datetime
    valid_until: datetime
    answers: tuple[str, ...]


StatusAlarmName = Literal[
    "ledger",
    "production",
    "service",
    "calendar",
    "watch",
    "source",
    "waiting",
    "behind",
    "outcomes",
    "promise",
    "messages",
]


@dataclass(frozen=True)
class StatusAlarm:
    """Something that is not as it should be.

    Attributes:
        name: Which alarm it is.
        says: What has happened, and the way out.
    """

    name: StatusAlarmName
    says: str


@dataclass(frozen=True)
class StillGood:
    """Whether what is in production is still good, by the latest month that was compared with it.

    Attributes:
        month: That month.
        later: The months after it, which were compared with another version.
        answer: In a few words, as the month's page has it.
        why: What its error came from, and whether a model that has learned the month saves more than is tolerated.
        overall: How far its predictions are off on the whole, as the month's page has it; None while that is tolerated.
        is_good: Whether it is; None where that is not known.
        change: The numbers behind it; None where it could not be scored.
    """

    month: str
    later: tuple[str, ...]
    answer: str
    why: str
    overall: str | None
    is_good: bool | None
    change: Change | None


@dataclass(frozen=True)
class Status:
    """Where an installation stands at one moment.

    Attributes:
        now: The moment.
        promotion: The last change of production, None before the first.
        promised: The comparison's question on which production was approved; None where it is not on record.
        months: What was compared, the base model first.
        still_good: Whether it is still good; None while no month was compared with it.
        questions: What waits for an answer, in the order in which to answer.
        behind: The published months that have yet to be run, or run again, oldest first.
        waits: Why the first of them is not to be run yet; None where it may be.
        cannot_tell: Why it is not known what is published, None where it is.
        quotes: The last month in which it is known what quotes of production came to; None where there is none.
        lost_quotes: Why that cannot be told, None where it can.
        is_demo_at_work: Whether `make demo` is running what is due, at this moment.
        untold: What people should know and no message has told them in every channel.
        alarms: What is not as it should be.
        next_commands: What to type next: one of them; none where nothing is to be done.
    """

    now: datetime
    promotion: Promotion | None = None
    promised: Request | None = None
    months: tuple[ComparedMonth, ...] = ()
    still_good: StillGood | None = None
    questions: tuple[OpenQuestion, ...] = ()
    behind: tuple[Due, ...] = ()
    waits: str | None = None
    cannot_tell: str | None = None
    quotes: tuple[str, RealisedError] | None = None
    lost_quotes: str | None = None
    is_demo_at_work: bool = False
    untold: tuple[str, ...] = ()
    alarms: tuple[StatusAlarm, ...] = ()
    next_commands: tuple[str, ...] = ()

    @property
    def production(self) -> str | None:
        """The version in production, None where there is none."""
        return None if self.promotion is None else self.promotion.version

    @property
    def promised_mae(self) -> float | None:
        """The error a ride that was shown when production was approved; None where that is not known."""
        evidence = None if self.promised is None else readable(self.promised)
        return None if evidence is None else evidence.staging.scores.mae


def status_of(
    settings: Settings, ledger: Ledger, source: Callable[[], TripSource], realised: Realised, now: datetime
) -> Status:
    """Returns where the installation stands; makes no state where there is none.

    Args:
        settings: In force.
        ledger: What is on record.
        source: Makes the source of trips; what it says of itself when it cannot be made is an alarm.
        realised: Returns what the quotes of each month came to, as the lake has it.
        now: The moment.

    Raises:
        LedgerError: The ledger cannot be read, or was written by another release.
    """
    if not settings.has_ledger:
        return Status(now, next_commands=(NO_STATE,))
    quotes, lost_quotes = _quotes_by_month(realised, settings)
    with ledger.reading() as entries:
        known = Known.read(entries)
        production = None if known.promotion is None else known.promotion.version
        still_good = _still_good(pages_of(entries, settings, quotes), production, settings.bias_tolerance)
        missing = ToldHeads(settings.home, ledger.place).missing(entries)
        promised = _promised(entries, known.promotion)
        unlearned = list(_unlearned(entries, settings, now))
    # Without a channel whoever reads this is told by it: the demo's last question is no alarm.
    channels = [one.channel for one in notifiers(settings)]
    found = Status(
        now,
        known.promotion,
        promised,
        tuple(months_on_record(known)),
        still_good,
        tuple(_in_time(question, now) for question in _questions(known, now)),
        untold=tuple(_untold(known, channels, settings)),
        quotes=_last_quotes(quotes, production),
        lost_quotes=lost_quotes,
    )
    found = _with_months(found, known, source, settings)
    if found.behind or found.promotion is None:
        found = replace(found, is_demo_at_work=_is_demo_at_work(settings))
    alarms = [
        *([] if missing is None else [_behind_what_was_told(missing.told_at)]),
        *_service(known.promotion, settings),
        *unlearned,
        *_errs(known, now),
        *_months(found, _failed_at(known)),
        *_quotes(found),
        *_messages(found),
    ]
    found = replace(found, alarms=tuple(alarms))
    return replace(found, next_commands=_next_commands(found, is_behind=missing is not None))


def _promised(entries: Entries, promotion: Promotion | None) -> Request | None:
    """Returns the question on which what is in production was approved; what a rollback returned to had one, too."""
    if promotion is None or promotion.version is None:
        return None
    return requests.approved_on(entries.promotions(), entries.requests()).get(promotion.version)


def _questions(known: Known, now: datetime) -> Iterator[OpenQuestion]:
    """Yields what waits for an answer, the oldest subject first; an alarm only in time, for it is not asked again."""
    if known.standing.open is not None:
        yield _about_standing(known.standing.open)
    if (raised := known.alarms.open) is not None and now <= raised.valid_until:
        about = f"Version {raised.version} errs more than it did: retrain on the days of {raised.month} so far?"
        yield OpenQuestion(raised.id, about, raised.requested_at, raised.valid_until, _answers(raised, "approve"))
    waiting = (request for request in known.requests if request.id not in known.ends)
    for request in sorted(waiting, key=requests.by_subject):
        before = named_version(request.production_version)
        about = f"{request.subject}: {request.verdict}, version {request.staging_version} to replace {before}"
        if (gone_back := known.rolled_back.get(request.staging_version)) is not None:
            about = f"{about}; {rolled_back_in_words(request.staging_version, gone_back)}"
        answers = _answers(request, by_verdict(request.verdict))
        yield OpenQuestion(request.id, about, request.requested_at, request.valid_until, answers)


def _answers(asked: Question, first: Decision) -> tuple[str, ...]:
    """Returns the commands that answer a question, the given answer first."""
    return tuple(command(asked, one) for one in sorted(get_args(Decision), key=lambda one: one != first))


def _in_time(question: OpenQuestion, now: datetime) -> OpenQuestion:
    """Returns the question, or how it is asked again where nobody has answered it in time."""
    if now <= question.valid_until:
        return question
    again = "taxifare standing ask" if question.id.startswith("standing-") else f"taxifare ask-again {question.id}"
    return replace(question, about=f"{question.about}; nobody answered in time", answers=(again,))


def _about_standing(request: StandingRequest) -> OpenQuestion:
    about = f"Standing approval of {request.first_month} to {request.last_month}"
    return OpenQuestion(request.id, about, request.requested_at, request.valid_until, _answers(request, "approve"))


def _untold(known: Known, channels: Sequence[str], settings: Settings) -> Iterator[str]:
    """Yields what people should know and no message has told them in every channel, in words."""
    for comparison in to_ask(known, channels, settings):
        yield f"the question about {comparison.subject}"
    yield from to_tell(known, channels)


def _with_months(found: Status, known: Known, source: Callable[[], TripSource], settings: Settings) -> Status:
    """Returns the status with what the source has published that was not compared yet."""
    doubt = None
    try:
        trips = source()
        try:
            published = trips.months()
        except CannotTellError as error:
            published, doubt = error.before, one_line(redacted(str(error)))
        due = list(months_due(covered(published, settings, found.now), known))
        waits = None
        if due and due[0].why is not Why.PRODUCTION_CHANGED:
            first = due[0].month
            waits = why_waiting(trips, first, published[first], trips.rides(), settings, settings.lake)
    except (SourceError, OSError) as error:
        return replace(found, cannot_tell=one_line(redacted(str(error))))
    return replace(found, behind=tuple(due), waits=waits, cannot_tell=doubt)


def _quotes_by_month(realised: Realised, settings: Settings) -> tuple[Mapping[Month, RealisedMonth], str | None]:
    """Returns what the quotes of each month came to, and why that cannot be told, None where it can."""
    try:
        return realised(settings.lake), None
    # Clients of buckets raise what they like.
    except Exception as error:  # noqa: BLE001
        return {}, one_line(redacted(str(error)))


def _last_quotes(months: Mapping[Month, RealisedMonth], production: str | None) -> tuple[str, RealisedError] | None:
    """Returns the last month of which it is known what quotes of production came to; None where there is none."""
    for month, quotes in sorted(months.items(), reverse=True):
        for of_version in quotes.errors:
            if (of_version.served_as, of_version.name) == ("production", production):
                return str(month), of_version
    return None


def _still_good(pages: Sequence[MonthPage], production: str | None, bias_tolerance: float) -> StillGood | None:
    """Returns whether a version is still good, by the latest month that was compared with it; None without one."""
    later: tuple[str, ...] = ()
    for page in reversed(pages):
        evidence = page.month.evidence
        if production is not None and evidence is not None and evidence.production_version == production:
            is_good, change = page.is_still_good, page.change
            rules = rules_in_words(page.unlearned.get(production, ()))
            why = " ".join(is_good.sentences) if change is None else change.with_rules(rules).sentence
            scored = evidence.production
            is_off = scored is not None and abs(scored.scores.bias) > bias_tolerance
            return StillGood(
                page.month.subject,
                later,
                is_good.short,
                why,
                page.overall if is_off else None,
                None if change is None or evidence.verdict is Verdict.LEAK else is_good.tone == "good",
                change,
            )
        later = (page.month.subject, *later)
    return None


def _behind_what_was_told(told_at: datetime) -> StatusAlarm:
    says = (
        f"the ledger lacks what people were told on {told_at:%Y-%m-%d %H:%M} UTC: it was restored from an older backup "
        "or cut off, and nothing is decided meanwhile; taxifare doctor says more"
    )
    return StatusAlarm("ledger", says)


def _service(last: Promotion | None, settings: Settings) -> Iterator[StatusAlarm]:
    """Yields that nothing prices rides, or something else than what the ledger says."""
    if last is None:
        return
    try:
        found = in_force.read(settings.lake)
    except (ToldError, OSError) as error:
        yield StatusAlarm("service", f"what prices rides cannot be told: {one_line(redacted(str(error)))}")
        return
    if found is None or (found.sequence, found.version) != (last.sequence, last.version):
        instead = named_version(None if found is None else found.version)
        yield StatusAlarm("service", f"rides are priced by {instead}, not by what is in production: taxifare bundle")
    elif last.version is None:
        yield StatusAlarm("production", f"nothing prices rides; {in_force.ways_out(last.replaced_version)}")


def _unlearned(entries: Entries, settings: Settings, now: datetime) -> Iterator[StatusAlarm]:
    """Yields the dated rules that what prices rides has not learned, while they may cost more than is tolerated."""
    if (calendar := calendar_if_told(entries, settings, now)) is not None:
        for rule in calendar.concerns:
            said = rule.told(settings.target_facts.unit)
            yield StatusAlarm("calendar", f"version {calendar.version} has not learned {said}")


def _errs(known: Known, now: datetime) -> Iterator[StatusAlarm]:
    """Yields that what is in production errs more than it did, from the alarm until production changes."""
    raised = None if known.promotion is None else known.alarms.of(known.promotion.sequence)
    if raised is not None:
        says = f"since {raised.requested_at:%Y-%m-%d} version {raised.version} is known to err more than it did"
        is_late = raised == known.alarms.open and now > raised.valid_until
        late = f"nobody answered; {raised.month} is compared when it is published"
        yield StatusAlarm(
            "watch", f"{says}; the question whether to retrain: {late if is_late else known.alarms.state(raised)}"
        )


def _failed_at(known: Known) -> datetime | None:
    """Returns when people were last told that a run failed; None where they were not since the last comparison.

    Of which month it was, Dagster knows.
    """
    told = max((notice.delivered_at for notice in known.notices if is_about_failure(notice.about)), default=None)
    compared = max((comparison.compared_at for comparison in known.comparisons.values()), default=None)
    return told if told is not None and (compared is None or told > compared) else None


def _months(found: Status, failed_at: datetime | None) -> Iterator[StatusAlarm]:
    """Yields what keeps months from being run."""
    if found.cannot_tell is not None:
        yield StatusAlarm("source", f"the source cannot tell what is published: {found.cannot_tell}")
    if found.waits is not None:
        yield StatusAlarm("waiting", one_line(found.waits))
    elif found.behind and found.promotion is not None:
        due = {why: [str(one.month) for one in found.behind if one.why is why] for why in Why}
        said = "; ".join(f"{in_range(months)} {_TO_BE_RUN[why]}" for why, months in due.items() if months)
        failed = (
            ""
            if failed_at is None
            else "; a run has failed since the last comparison: see the message of "
            f"{failed_at:%Y-%m-%d %H:%M} UTC, or the run's page in {WORKS}"
        )
        yield StatusAlarm("behind", f"{said}: {_who_runs(found)}{failed}")


def _is_demo_at_work(settings: Settings) -> bool:
    try:
        return is_held(settings, NO_STATE)
    except OSError:  # whoever may only read the folder cannot tell
        return False


def _who_runs(found: Status) -> str:
    return f"{NO_STATE} is at work on it" if found.is_demo_at_work else f"{WORKS} runs what is due"


def _quotes(found: Status) -> Iterator[StatusAlarm]:
    """Yields that quotes were further off than was promised, or that it cannot be told."""
    if found.lost_quotes is not None:
        yield StatusAlarm("outcomes", f"what quotes came to cannot be read: {found.lost_quotes}")
    if found.quotes is not None and found.quotes[1].is_kept is False:
        month, _ = found.quotes
        yield StatusAlarm(
            "promise", f"quotes of {month} were surely further off than promised: taxifare outcomes {month}"
        )


def _messages(found: Status) -> Iterator[StatusAlarm]:
    """Yields what people should know and were not told."""
    if found.untold:
        more = "" if len(found.untold) == 1 else f" and {len(found.untold) - 1} more"
        yield StatusAlarm("messages", f"not in every channel yet: {found.untold[0]}{more}; {WORKS} sends what is due")


def _next_commands(found: Status, *, is_behind: bool) -> tuple[str, ...]:
    """Returns what to type next: one of them; none where nothing is to be done."""
    if is_behind:
        return ("taxifare doctor",)
    if found.questions:
        return found.questions[0].answers
    if any(alarm.name == "service" for alarm in found.alarms):
        return ("taxifare bundle",)
    if found.cannot_tell is not None or found.waits is not None:
        return ("taxifare months",)
    last = found.promotion
    back = (in_force.going_back(last.replaced_version),) if last is not None and last.version is None else ()
    is_due = bool(found.behind or found.untold) or last is None
    return (*back, WORKS) if is_due and not found.is_demo_at_work else back
