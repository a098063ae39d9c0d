"""Requests, decisions and who was production when: `requests`, `decide`, `history`, `rollback`."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Annotated

import typer

from taxifare.approval import alarms, standing, verification
from taxifare.approval.approvals import Approvals
from taxifare.approval.chain import Head
from taxifare.approval.decisions import command
from taxifare.approval.errors import RollbackError
from taxifare.approval.heads import ToldHeads
from taxifare.approval.promotions import earlier_version, rolled_back, rolled_back_in_words, taken_out_since
from taxifare.approval.records import Decision, Outcome, Promotion, Question, Request, readable
from taxifare.approval.requests import by_subject
from taxifare.cli import records
from taxifare.cli.alone import misused
from taxifare.cli.shared import (
    AsJson,
    Terminal,
    approvals_in_force,
    errors_told,
    month_of,
    say,
    say_next,
    show,
    show_json,
    working,
    written,
)
from taxifare.operations.month_pages import renew_pages
from taxifare.reports import tables
from taxifare.reports.months import ending
from taxifare.reports.tables import Heading
from taxifare.serving.in_force import going_back, ways_out
from taxifare.settings import settings_in_force
from taxifare.texts import named_version, one_line
from taxifare.trips.editions import is_so_far
from taxifare.trips.months import Month

By = Annotated[str, typer.Option("--by", help="Who decides: a name.", callback=written)]

Reason = Annotated[str, typer.Option("--reason", help="Why, in a sentence.", callback=written)]


def _day_of(written: str) -> date:
    """Returns a day as it was written on the command line; parses options, as `month_of` does."""
    try:
        return datetime.strptime(written, "%Y-%m-%d").date()
    except ValueError:
        raise typer.BadParameter(f"expected a day written YYYY-MM-DD, received {written!r}") from None


def _head_of(written: str) -> Head:
    """Returns a head as it was written on the command line; parses options, as `month_of` does."""
    try:
        return Head.parse(written)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@errors_told()
def requests(
    everything: Annotated[bool, typer.Option("--all", help="Also show answered, expired and void requests.")] = False,
    newest: Annotated[int, typer.Option("--newest", min=1, help="With --all: how many, the newest ones.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Show the requests that wait for an answer, each with the first reason of its verdict; --json has all reasons."""
    approvals = approvals_in_force()
    found = approvals.record.requests() if everything else approvals.record.open_requests()
    shown = found[-newest:] if everything else found
    outcomes = approvals.record.outcomes() if everything else {}
    gone_back = rolled_back(approvals.record.history())
    if as_json:
        unit = settings_in_force().target_facts.unit
        show_json(
            [
                records.request(request, outcomes.get(request.id), gone_back.get(request.staging_version), unit)
                for request in shown
            ]
        )
        return
    last = Heading("state" if everything else "valid until", is_unbroken=not everything)
    rows = tuple(
        _row(
            request,
            _state(request, outcomes.get(request.id), gone_back) if everything else f"{request.valid_until:%Y-%m-%d}",
        )
        for request in shown
    )
    waiting = [request for request in shown if request.id not in outcomes]
    if shown:
        show(tables.Table((*_ASKED, last), rows))
        for request in sorted(waiting, key=by_subject):
            Terminal().print(_why(request, gone_back.get(request.staging_version)), highlight=False)
    else:
        say("No request waits for an answer.")
    if len(shown) < len(found):
        earlier = len(found) - len(shown)
        say(f"{earlier:,} earlier ones are not shown: --newest {len(found)} shows them all.")
    if waiting:
        say_how_to_answer(min(waiting, key=by_subject))
    with approvals.ledger.reading() as entries:
        agreement, alarm = standing.read(entries).open, alarms.read(entries).open
    if agreement is not None:
        say(f"A standing approval waits for an answer, {agreement.id}: taxifare standing")
    if alarm is not None:
        say(f"An alarm waits for an answer: retrain on the days of {alarm.month} so far?")
        say_how_to_answer(alarm)
    if not waiting and agreement is None and alarm is None:
        say_next("taxifare status" if everything else "taxifare requests --all")


_ASKED = (
    Heading("request", is_unbroken=True),
    Heading("verdict", is_unbroken=True),
    Heading("production", "float", 3),
    Heading("staging", "float", 3),
    Heading("gain"),
)


def _row(request: Request, end: str) -> tuple[tables.Value, ...]:
    """Returns a request as it is listed; evidence of another release may be unreadable, it is listed all the same."""
    if (evidence := readable(request)) is None:
        return request.id, request.verdict, None, None, "written by another release", end
    production = None if evidence.production is None else evidence.production.scores.mae
    gain = None if evidence.gain is None else f"{evidence.gain.mean:+.3f}"
    return request.id, request.verdict, production, evidence.staging.scores.mae, gain, end


def _reasons(request: Request) -> list[str] | None:
    """Returns the reasons of the verdict, None where another release has written them."""
    evidence = readable(request)
    return None if evidence is None else list(evidence.reasons)


def _why(request: Request, gone_back: Promotion | None) -> str:
    """Returns the first reason of the verdict, whether its month is not over, and whether it was rolled back before."""
    so_far = f", on the days of {request.subject} so far" if is_so_far(request.revision) else ""
    reason = next(iter(_reasons(request) or ()), "the evidence was written by another release")
    before = "" if gone_back is None else f"; {rolled_back_in_words(request.staging_version, gone_back)}"
    return f"{request.id}{so_far}: {one_line(reason)}{before}"


@errors_told()
def decide(
    context: typer.Context,
    request: Annotated[
        str, typer.Argument(help="The request's name, as in the message and in `taxifare requests`.", callback=written)
    ],
    by: By,
    reason: Reason,
    approve: Annotated[bool, typer.Option("--approve", help="The answer: this or --reject.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="The answer: this or --approve.")] = False,
    override: Annotated[bool, typer.Option("--override", help="Approve although the verdict is against it.")] = False,
) -> None:
    """Approve or reject a request; an approval puts exactly the version that was shown into production."""
    if approve == reject:
        raise typer.BadParameter(f"expected --approve or --reject, received {'both' if approve else 'neither'}")
    approvals = approvals_in_force()
    decision: Decision = "approve" if approve else "reject"
    with working("deciding"):
        outcome = approvals.decide(request, decision, by, reason, override=override)
        renew_pages(approvals.ledger, settings_in_force(), context.obj.realised)
    say(f"{request}: {outcome.state} by {outcome.by}. In production: {_in_production(approvals)}.")


@errors_told()
def history(
    on: Annotated[
        date | None,
        typer.Option(
            "--on",
            parser=_day_of,
            metavar="DAY",
            help="YYYY-MM-DD: only who was production at the end of that day (UTC).",
        ),
    ] = None,
    month: Annotated[
        Month | None,
        typer.Option(
            "--month",
            parser=month_of,
            metavar="MONTH",
            help="YYYY-MM: only who was production when that month was compared; exit code 1 if it never was.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that the ledger is what was written into it; exit code 1 if not.")
    ] = False,
    head: Annotated[
        Head | None,
        typer.Option(
            "--head",
            parser=_head_of,
            metavar="HEAD",
            help="With --verify: what a message shows after 'Ledger:', to be checked.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which version was in production when, by whose decision and why; or verify the whole ledger."""
    approvals = approvals_in_force()
    if verify:
        told = ToldHeads(settings_in_force().home, approvals.ledger.place)
        with working("reading the ledger"):
            verified = verification.verify(approvals.ledger, told.read(), head)
        say(str(verified))
        return
    if head is not None:
        raise misused("--head", "expected --verify beside it, which checks it, received --head alone")
    if on is not None and month is not None:
        raise typer.BadParameter("expected --on or --month, received both: they are two questions")
    entries = approvals.record.history()
    nothing = "Nothing was in production"
    if on is not None:
        nothing += f" at the end of {on} (UTC)"
        entry = approvals.record.production_on(on)
    if month is not None:
        nothing += f" when {month} was compared"
        entry = approvals.record.production_at(str(month))
    if on is not None or month is not None:
        first = entries[:1]
        entries = () if entry is None else (entry,)
        if first and not entries:
            nothing += f"; the first version came in on {first[0].promoted_at:%Y-%m-%d %H:%M} UTC"
    if as_json:
        show_json([records.promotion(entry) for entry in entries])
        return
    if not entries:
        say(f"{nothing}.")
        return
    show(tables.history(entries))
    say(f"Back: {_way_back(approvals.record.history())}")


def _way_back(changes: Sequence[Promotion]) -> str:
    """Returns the command that goes back from what is in production, or puts back what was taken out."""
    try:
        earlier_version(changes, None)
    except RollbackError:
        last = changes[-1]
        return going_back(last.replaced_version if last.version is None else None)
    return 'taxifare rollback --by YOU --reason "WHY"'


@errors_told()
def rollback(
    context: typer.Context,
    by: By,
    reason: Reason,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", help="Version to return to; by default the one that was replaced last. none: take the model out."
        ),
    ] = None,
) -> None:
    """Return to an earlier production version, or take the model out of production."""
    approvals = approvals_in_force()
    with working("going back"):
        promotion = approvals.rollback(to, by=by, reason=reason)
        renew_pages(approvals.ledger, settings_in_force(), context.obj.realised)
    # The same command twice is one rollback: its time tells when it was.
    since = f"since {promotion.promoted_at:%Y-%m-%d %H:%M} UTC"
    version, before = named_version(promotion.version), named_version(promotion.replaced_version)
    say(f"In production: {version}, instead of {before}, {since}.")
    if promotion.version is None:
        say(f"Nothing prices rides now; {ways_out(promotion.replaced_version)}.")


@errors_told()
def ask_again(
    request: Annotated[
        str, typer.Argument(help="The request's name, as in `taxifare requests --all`.", callback=written)
    ],
) -> None:
    """Ask a question again that nobody answered in time; for one that is open, send its message with new links."""
    again = approvals_in_force().ask_again(request)
    say(f"{again.id} waits for an answer until {again.valid_until:%Y-%m-%d %H:%M} UTC.")


@errors_told()
def adopt(by: By, reason: Reason) -> None:
    """Accept the versions that MLflow has and the ledger does not know, after an upgrade or a lost ledger.

    Their files are put on record as they are now, and checked against that whenever they are loaded. Where the ledger
    is an older one, the version that MLflow calls production goes on as production. To be run once, by somebody who
    knows where the files come from.
    """
    approvals = approvals_in_force()
    with working("reading the files of versions"):
        adopted = approvals.adopt(by=by, reason=reason)
    headings = (
        Heading("version"),
        *(Heading(name, is_unbroken=True) for name in ("MLflow run", "digest of its files")),
    )
    if adopted:
        rows = tuple((content.version, content.run_id, content.files_digest[:12]) for content in adopted)
        show(tables.Table(tuple(headings), rows))
    else:
        say("Every version that MLflow has is on record.")
    say(f"In production: {_in_production(approvals)}.")
    say_next("taxifare status")


def say_how_to_answer(asked: Question) -> None:
    """Prints the commands that answer a question."""
    say(f"Approve: {command(asked, 'approve')}")
    say(f"Reject:  {command(asked, 'reject')}")


def _state(request: Request, outcome: Outcome | None, gone_back: Mapping[str, Promotion]) -> str:
    """Returns where the request stands, with the name of whoever answered it, or took out what was approved."""
    if outcome is None:
        return "open"
    if outcome.by is None:
        return f"{outcome.state}: {outcome.reason}"
    return ending(outcome, taken_out_since(request, outcome, gone_back))


def _in_production(approvals: Approvals) -> str:
    """Returns the production version in words."""
    return named_version(approvals.production())
