"""The `taxifare` command, as a person meets it: real ledger, real MLflow store, the exit code and the words."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from taxifare.approval.approvals import Approvals, utc_now
from taxifare.approval.comparisons import comparison_of, record
from taxifare.approval.records import Request
from taxifare.approval.requests import request_on
from taxifare.cli.main import app
from taxifare.gate.evidence import Verdict
from taxifare.model.provenance import version_in_words
from taxifare.model.registry import ModelRegistry
from taxifare.settings import Settings
from taxifare_dagster.command import surroundings
from tests.support.approvals import by_recorded_files, evidence
from tests.support.registry import put_files


class Desk:
    """A person at a terminal, on a state folder with three registered versions and version 1 in production."""

    def __init__(self, settings: Settings, registry: ModelRegistry) -> None:
        self.registry = registry
        self.approvals = Approvals.from_settings(settings, registry)
        put_files(registry, 3, settings.home / "files")
        first = self.ask("base", "1", None)
        assert self.run("decide", first.id, "--approve", "--by", "Ada", "--reason", "a start").exit_code == 0

    def ask(self, subject: str, staging: str, production: str | None, **facts: Any) -> Request:
        found = evidence(subject, staging, production, **facts)
        found = by_recorded_files(found, self.approvals.ledger)
        return self.approvals.request(record(self.approvals.ledger, found, utc_now()))

    def run(self, *words: str, columns: int = 160) -> Result:
        return CliRunner().invoke(app, list(words), obj=surroundings(), env={"COLUMNS": str(columns)})


@pytest.fixture
def desk(
    settings: Settings,
    open_registry: Callable[[Settings], ModelRegistry],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXIFARE_HOME", str(settings.home))
    return Desk(settings, open_registry(settings))


def test_a_request_of_a_later_release_is_listed(desk: Desk) -> None:
    """Its evidence has another shape; whoever looks for the request must find it."""
    now = utc_now()
    found = comparison_of(evidence("2015-01", "2", "1"), now)
    asked = replace(request_on(found, now, timedelta(days=30)), evidence_json='{"unit": "USD"}')
    with desk.approvals.ledger.writing() as entries:
        entries.add_request(asked)
    listed = desk.run("requests")
    assert listed.exit_code == 0, listed.output
    assert asked.id in listed.output
    assert "another release" in " ".join(listed.output.split())


def test_a_request_is_listed_answered_and_gone(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    approve, reject = desk.run("requests").output.splitlines()[-2:]
    assert approve.endswith(f'taxifare decide {request.id} --approve --by YOU --reason "WHY"')
    assert reject.endswith(f'taxifare decide {request.id} --reject --by YOU --reason "WHY"')

    answer = desk.run("decide", request.id, "--approve", "--by", "Ada", "--reason", "airports")

    assert answer.exit_code == 0
    assert "approved by Ada. In production: version 2." in answer.output
    assert desk.registry.production_version() == "2"
    assert "No request waits" in desk.run("requests").output
    assert "approved by Ada" in desk.run("requests", "--all").output


def test_how_to_answer_says_what_approving_against_the_verdict_takes(desk: Desk) -> None:
    held = desk.ask("2015-02", "3", "1", verdict=Verdict.HOLD)
    assert f"taxifare decide {held.id} --approve --override --by" in desk.run("requests").output
    first = desk.ask("2015-01", "2", "1")
    shown = desk.run("requests", "--all").output.splitlines()
    assert f"taxifare decide {first.id} --approve --by" in shown[-2], held.id
    assert [line.split()[-1] for line in shown if line.startswith((first.id, held.id)) and ":" not in line] == [
        "open"
    ] * 2


def test_a_listing_fits_a_narrow_terminal_and_folds_no_id(desk: Desk) -> None:
    words = "a long reason that nobody would want to see cut off, and which has to go on in the next line"
    first = desk.ask("2015-01", "2", "1")
    desk.run("decide", first.id, "--approve", "--by", "Ada Lovelace of the pricing team", "--reason", words)
    second = desk.ask("2015-02", "3", "2")
    for listing in ("requests", "requests --all", "history"):
        table = [line for line in desk.run(*listing.split(), columns=80).output.splitlines() if "taxifare " not in line]
        assert not [line for line in table if len(line) > 80], listing
        assert "…" not in "".join(table)
    shown = desk.run("requests", "--all", columns=80).output
    assert first.id in shown
    assert second.id in shown
    assert " ".join(words.split()[-3:]) in " ".join(desk.run("history", columns=160).output.split())
    assert first.id in desk.run("requests", "--all", columns=20).output, "even where there is no room for it"


LISTINGS = ("status", "requests", "requests --all", "history", "months", "outcomes", "standing", "settings --all")

IN_WORDS = re.compile(r"taxifare |/|\S{25}|\. |\.$")
"""Commands, addresses, whatever is longer than an id, and sentences below a listing stay on one line."""


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_every_listing_fits_its_terminal_and_breaks_no_word(desk: Desk, columns: int) -> None:
    """Below 80 columns each value has its line; a folded heading, id or number would be read wrongly or not at all."""
    first = desk.ask("2015-01", "2", "1", verdict=Verdict.HOLD)
    words = "a long reason that nobody would want to see cut off, and which has to go on in the next line"
    desk.run("decide", first.id, "--reject", "--by", "Ada Lovelace of the pricing team", "--reason", words)
    second = desk.ask("2015-02", "3", "1")
    shown = {listing: desk.run(*listing.split(), columns=columns).output for listing in LISTINGS}
    for listing, output in shown.items():
        over = [line for line in output.splitlines() if len(line.rstrip()) > columns and not IN_WORDS.search(line)]
        # A path in a table stays in one piece, and all rows run over with it.
        assert not over or (listing == "settings --all" and columns >= 80), listing
    for words in (first.id, second.id, "COLD_START", "production", "staging", "gain"):
        assert words in shown["requests --all"]
    for words in ("version", "replaced", "Ada"):
        assert words in shown["history"]
    assert "production" in shown["status"]
    assert ("Production\n  version 1 since" in shown["status"]) == (columns < 80)
    assert (f"request: {second.id}\n" in shown["requests"]) == (columns < 80)


def test_a_listing_says_why_and_what_is_on_the_days_so_far(desk: Desk) -> None:
    whole = desk.ask("2015-01", "2", "1")
    days = desk.ask("2015-02", "3", "1", revision="so-far-2015-02-08-a1b2")
    shown = desk.run("requests", columns=80).output
    assert f"{whole.id}: the gain exceeds 0.01 USD" in shown.splitlines()
    assert f"{days.id}, on the days of 2015-02 so far: the gain exceeds 0.01 USD" in " ".join(shown.split())
    listed = json.loads(desk.run("requests", "--json").output)
    assert [one["is_so_far"] for one in listed] == [False, True]
    desk.run("decide", whole.id, "--reject", "--by", "Ada", "--reason", "airports")
    assert f"{whole.id}: " not in desk.run("requests", "--all").output, "it is answered"


def test_listings_are_read_by_programs(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    (listed,) = json.loads(desk.run("requests", "--json").output)
    assert listed["reasons"] == ["the gain exceeds 0.01 USD"]
    assert (listed["request"], listed["verdict"], listed["state"]) == (request.id, "PROMOTE", "requested")
    evidence = request.evidence
    assert evidence.gain is not None
    assert listed["staging_mae_usd"] == evidence.staging.scores.mae
    assert [listed[f"gain{end}_usd"] for end in ("", "_low", "_high")] == list(evidence.gain.model_dump().values())
    (promoted,) = json.loads(desk.run("history", "--json").output)
    assert (promoted["version"], promoted["decided_by"], promoted["replaced_version"]) == ("1", "Ada", None)
    desk.run("decide", request.id, "--reject", "--by", "Ada", "--reason", "airports")
    start, answered = json.loads(desk.run("requests", "--all", "--json").output)
    assert start.keys() == answered.keys() == listed.keys()
    assert start["gain_usd"] is start["production_mae_usd"] is None
    assert (answered["state"], answered["decided_by"], answered["decision_reason"]) == ("rejected", "Ada", "airports")
    assert json.loads(desk.run("outcomes", "--json").output) == []


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in what JSON holds, with the name that stands before it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value


MOMENTS, AMOUNTS = ("_at", "now", "valid_until"), ("mae", "gain", "bias", "tolerated", "low", "high")


def test_programs_find_numbers_with_units_moments_in_utc_and_booleans(desk: Desk) -> None:
    desk.ask("2015-01", "2", "1", verdict=Verdict.HOLD)
    listings = ("status", "requests", "requests --all", "history", "months", "standing", "settings", "doctor")
    found = {listing: list(leaves(json.loads(desk.run(*listing.split(), "--json").stdout))) for listing in listings}
    assert {name for name, _ in found["status"]} >= {"is_good", "is_stale", "mae_usd", "gain_usd", "skill", "asked_at"}
    for listing, values in found.items():
        for name, value in values:
            at = f"{listing}: {name}={value!r}"
            if name.endswith(MOMENTS):
                assert value is None or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", value), at
            if name.startswith("is_") or name == "differs":
                assert value is None or isinstance(value, bool), at
            if any(word in name.split("_") for word in AMOUNTS):
                assert name.endswith("_usd"), at
                assert value is None or isinstance(value, float), at
            assert not (isinstance(value, str) and re.fullmatch(r"[+-]?\d*\.\d+", value) and listing != "settings"), at


def test_who_was_production_when_a_month_was_compared(desk: Desk) -> None:
    january = desk.ask("2015-01", "2", "1")
    desk.run("decide", january.id, "--approve", "--by", "Ada", "--reason", "airports")
    desk.ask("2015-02", "3", "2")
    desk.run("rollback", "--by", "Ben", "--reason", "complaints")

    def version(month: str) -> str:
        (entry,) = json.loads(desk.run("history", "--month", month, "--json").output)
        return str(entry["version"])

    assert [version(month) for month in ("2015-01", "2015-02")] == ["1", "2"]
    desk.ask("2015-03", "2", "1")
    offered = json.loads(desk.run("requests", "--json").output)[-1]
    assert (offered["rolled_back"]["decided_by"], offered["rolled_back"]["reason"]) == ("Ben", "complaints")
    assert "when Ben went back to version 1: complaints" in " ".join(desk.run("requests").output.split())
    never = desk.run("history", "--month", "2014-12")
    assert never.exit_code == 1
    assert (
        "2014-12 was never compared, so no version is on record for it. Compared: 2015-01, 2015-02, 2015-03."
        in never.stderr
    )
    assert desk.run("history", "--month", "January").exit_code == 2


def test_a_longer_list_asks_the_ledger_no_more_often(desk: Desk) -> None:
    statements: list[str] = []

    def count(words: str) -> int:
        statements.clear()
        assert desk.run(*words.split()).exit_code == 0
        return len(statements)

    listings = ("requests", "requests --all", "history")
    sa.event.listen(sa.Engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    before = [count(words) for words in listings]
    desk.ask("2015-01", "2", "1")
    desk.ask("2015-02", "3", "1")
    assert [count(words) for words in listings] == before


def test_a_rejection_is_recorded_and_changes_nothing(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    assert desk.run("decide", request.id, "--reject", "--by", "Ben", "--reason", "JFK").exit_code == 0
    assert desk.registry.production_version() == "1"
    outcome = desk.approvals.record.outcome(request.id)
    assert outcome is not None
    assert (outcome.by, outcome.reason) == ("Ben", "JFK")


def test_a_decision_has_to_be_said(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    answer = desk.run("decide", request.id, "--by", "Ada", "--reason", "airports")
    assert answer.exit_code == 2
    assert "expected --approve or --reject, received neither" in " ".join(answer.output.split())
    copied = desk.run("decide", "REQUEST", "--approve", "--by", "Ada", "--reason", "airports")
    assert copied.exit_code == 2
    assert "expected the request's name, as in" in " ".join(copied.output.split())
    both = desk.run("decide", request.id, "--approve", "--reject", "--by", "Ada", "--reason", "airports")
    assert both.exit_code == 2
    assert "received both" in " ".join(both.output.split())
    assert desk.approvals.record.outcome(request.id) is None


def test_nobody_decides_without_a_name_and_a_reason(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    for command in (f"decide {request.id} --approve", "rollback", "adopt", "standing end", "take 2015-01"):
        for by, reason, option, received in (
            (" ", "airports", "--by", "nothing"),
            ("Ada", "", "--reason", "nothing"),
            ("YOU", "airports", "--by", "YOU"),
            ("Ada", "why", "--reason", "why"),
            ("Ada", "' '", "--reason", "' '"),
        ):
            refused = desk.run(*command.split(), "--by", by, "--reason", reason)
            assert refused.exit_code == 2
            assert re.search(
                rf"'{option}': expected (the name|why).*, received {received}", " ".join(refused.output.split())
            )
    with desk.approvals.ledger.reading() as entries:
        assert entries.refusals() == [], "it is refused before anything is asked of the ledger"


def test_approving_against_the_verdict_takes_the_override(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1", verdict=Verdict.HOLD)
    refused = desk.run("decide", request.id, "--approve", "--by", "Ada", "--reason", "I like it")
    assert refused.exit_code == 1
    assert "AgainstVerdictError" in refused.stderr
    assert desk.registry.production_version() == "1"
    words = ("decide", request.id, "--approve", "--override", "--by", "Ada", "--reason", "I like it")
    assert desk.run(*words).exit_code == 0
    assert desk.registry.production_version() == "2"


def test_a_mistyped_request_is_answered_with_the_one_that_is_meant(desk: Desk) -> None:
    open_one = desk.ask("2015-01", "2", "1")
    for mistyped in (f"{open_one.id[:-1]}0", "2015-01", open_one.id.replace("-v2-", "-v3-"), open_one.id[1:]):
        answer = desk.run("decide", mistyped, "--reject", "--by", "Ada", "--reason", "x")
        assert answer.exit_code == 1
        assert f"(did you mean {open_one.id}?)" in answer.stderr


def test_a_day_that_is_none_is_told_in_a_sentence(desk: Desk) -> None:
    answer = desk.run("history", "--on", "2015-13-01")
    assert answer.exit_code == 2
    assert "'--on': expected a day written YYYY-MM-DD, received '2015-13-01'" in " ".join(answer.stderr.split())


def test_an_unknown_request_is_named_in_the_error(desk: Desk) -> None:
    answer = desk.run("decide", "2015-09-v9", "--approve", "--by", "Ada", "--reason", "x")
    assert answer.exit_code == 1
    assert "2015-09-v9" in answer.stderr


SIGNED = "--by Ada --reason airports"
REFUSED = (
    f"decide 2015-09-v9 --approve {SIGNED}",
    f"decide HELD --approve {SIGNED}",
    "ask-again 2015-09-v9",
    f"rollback {SIGNED}",
    f"rollback --to 1 {SIGNED}",
    f"rollback --to 9 {SIGNED}",
    f"standing end {SIGNED}",
    "standing ask",
    f"take 2030-01 {SIGNED}",
    "explain nobody",
    "history --month 2014-12",
    "history --head 1:00000000",
    "tuned",
    "new-data 2015-01",
)


def test_a_refusal_says_what_to_do_next(desk: Desk) -> None:
    held = desk.ask("2015-01", "2", "1", verdict=Verdict.HOLD)
    for command in REFUSED:
        refused = desk.run(*command.replace("HELD", held.id).split(), columns=900)
        assert refused.exit_code in {1, 2}, (command, refused.output)
        said = refused.stderr.partition("Error")[2]
        assert re.search(r"taxifare [a-z-]+\b|make dev|--verify|[A-Z]+_[A-Z]+", said), (command, said)


def test_history_says_who_why_and_on_which_day(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    desk.run("decide", request.id, "--approve", "--by", "Ben", "--reason", "airports")
    everything = desk.run("history").output
    assert everything.index("Ada") < everything.index("Ben")
    assert request.id in everything
    today = f"{desk.approvals.record.history()[-1].promoted_at:%Y-%m-%d}"
    assert "Ben" in desk.run("history", "--on", today).output
    long_ago = desk.run("history", "--on", "2009-01-01").output
    assert long_ago.startswith(
        "Nothing was in production at the end of 2009-01-01 (UTC); the first version came in on "
    )
    assert "end of that day (UTC)" in " ".join(desk.run("history", "--help").output.split())


def test_the_ledger_is_verified_and_a_change_of_the_past_is_named(desk: Desk, settings: Settings) -> None:
    head = desk.approvals.record.head()
    well = desk.run("history", "--verify", "--head", str(head))
    assert well.exit_code == 0, well.output
    assert f"its head is {head}" in well.output
    unreadable = desk.run("history", "--verify", "--head", "nonsense")
    assert unreadable.exit_code == 2
    assert "expected 214:9f3c0a1b2c3d4e5f" in " ".join(unreadable.stderr.replace("│", "").split())

    with sqlite3.connect(settings.home / "ledger.db") as connection:
        connection.execute("DROP TRIGGER outcomes_refuse_update")
        connection.execute("UPDATE outcomes SET \"by\" = 'Eve'")
    connection.close()
    told = desk.run("history", "--verify")
    assert told.exit_code == 1
    assert 'does not fit outcomes ["base-v1-' in told.stderr
    said = desk.run("doctor").output.splitlines()
    assert re.fullmatch(r"Next: put right what is said of .*ledger's chain.*; then \S*taxifare doctor", said[-1])
    ill = next(line for line in said if "ledger's chain" in line)
    assert ill.startswith("FAIL")
    assert "does not fit outcomes" in ill


def test_programs_read_where_things_stand(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    stands = json.loads(desk.run("status", "--json").stdout)
    assert (stands["production"]["version"], stands["production"]["decided_by"]) == ("1", "Ada")
    assert [question["id"] for question in stands["questions"]] == [request.id]
    assert stands["next"] == stands["questions"][0]["answers"]
    assert stands["still_good"]["month"] == "2015-01"
    examined = json.loads(desk.run("doctor", "--json").stdout)
    assert {finding["part"] for finding in examined} >= {"ledger", "lake", "trips"}
    assert all(isinstance(finding["is_well"], bool) for finding in examined)
    assert json.loads(desk.run("standing", "--json").stdout) == []


def test_rollback_goes_back_in_one_command(desk: Desk) -> None:
    request = desk.ask("2015-01", "2", "1")
    desk.run("decide", request.id, "--approve", "--by", "Ben", "--reason", "airports")
    back = desk.run("rollback", "--by", "Ada", "--reason", "complaints")
    assert back.exit_code == 0
    assert "In production: version 1, instead of version 2, since 20" in back.output
    assert desk.registry.production_version() == "1"
    never = desk.run("rollback", "--to", "3", "--by", "Ada", "--reason", "a shortcut")
    assert never.exit_code == 1
    assert "never production" in never.stderr


def test_what_was_approved_and_then_taken_out_is_listed_so_until_it_comes_back(desk: Desk) -> None:
    january = desk.ask("2015-01", "2", "1")
    desk.run("decide", january.id, "--approve", "--by", "Ben", "--reason", "airports")

    def told(listing: str, request: str) -> str:
        output = desk.run(*listing.split()).output
        return next(line for line in output.splitlines() if line.strip().startswith(request))

    def in_json(*listing: str) -> list[tuple[str, str | None]]:
        found = json.loads(desk.run(*listing, "--json").output)
        rows = found["months"] if isinstance(found, dict) else found
        return [
            (row.get("decision", row.get("state")), row["rolled_back"] and row["rolled_back"]["decided_by"])
            for row in rows
        ]

    assert told("requests --all", january.id).split("  ")[-1].strip() == "approved by Ben"
    desk.run("rollback", "--to", "none", "--by", "Ada", "--reason", "complaints")
    for request in (january.id, "base-v1"):
        assert "approved, taken out by Ada" in told("requests --all", request)
    assert "approved, taken out by Ada" in told("status", "2015-01")
    assert in_json("requests", "--all") == in_json("status") == [("approved", "Ada")] * 2
    desk.run("rollback", "--to", "2", "--by", "Ben", "--reason", "on second thought")
    assert "approved by Ben" in told("requests --all", january.id)
    assert "approved by Ben" in told("status", "2015-01")
    assert in_json("requests", "--all") == in_json("status") == [("approved", None)] * 2


def ill(examined: Result) -> list[str]:
    """The parts that the doctor finds ill; the versions here are no models, so none of them can be in force."""
    parts = [line[6:24].strip() for line in examined.output.splitlines() if line.startswith("FAIL")]
    return [part for part in parts if part != "in force"]


def test_the_doctor_finds_everything_well(desk: Desk) -> None:
    examined = desk.run("doctor")
    assert ill(examined) == [], examined.output
    assert "they agree" in examined.output
    assert "taxifare bundle" in examined.output


def test_the_doctor_reports_an_alias_moved_by_hand_and_the_next_command_repairs_it(desk: Desk) -> None:
    desk.registry.set_production("3")
    examined = desk.run("doctor")
    assert examined.exit_code == 1
    assert "the ledger says version 1 is production, MLflow says 3" in examined.output
    desk.approvals.repair()
    assert ill(desk.run("doctor")) == []


def test_the_doctor_goes_on_after_a_part_that_is_ill(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIP_SOURCE", "folder")
    monkeypatch.setenv("TRIP_FOLDER", str(Path.cwd() / "nowhere"))
    monkeypatch.setenv("CHAT_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CHAT_CHANNEL", "fares")
    examined = desk.run("doctor")
    assert examined.exit_code == 1
    lines = [line.split()[:2] for line in examined.output.splitlines()]
    assert ["FAIL", "trips"] in lines
    assert ["FAIL", "chat"] in lines
    assert ["ok", "MLflow"] in lines


def test_the_doctor_says_in_words_that_the_model_was_taken_out(desk: Desk) -> None:
    desk.run("rollback", "--to", "none", "--by", "Ada", "--reason", "complaints")
    said = {one["part"]: one["says"] for one in json.loads(desk.run("doctor", "--json").output)}
    assert said["ledger"] == "1 request, 0 of them wait for an answer, 1 promotion, 1 rollback"
    assert "2 production changes" in said["ledger's chain"]
    assert said["MLflow"] == "nothing is in production, nothing is staging"
    assert said["in force"].startswith(
        "no model is in production, so nothing prices rides, since Ada took version 1 out on "
    )
    desk.registry.set_production("3")
    said = {one["part"]: one["says"] for one in json.loads(desk.run("doctor", "--json").output)}
    assert "the ledger says nothing is production, MLflow says 3: " in said["ledger and MLflow"]


# What every command does


def test_a_faulty_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCH_SIZE", "many")
    answer = CliRunner().invoke(app, ["history"])
    assert answer.exit_code == 2
    assert "BATCH_SIZE: expected a whole number, received 'many'" in answer.output
    assert "pydantic" not in answer.output


def test_help_and_version_are_where_one_looks() -> None:
    assert CliRunner().invoke(app, ["decide", "-h"]).output == CliRunner().invoke(app, ["decide", "--help"]).output
    answer = CliRunner().invoke(app, ["--version"])
    assert (answer.exit_code, answer.output) == (0, f"taxifare {version_in_words()}\n")


@pytest.mark.parametrize("earlier_release", [False, True])
def test_what_people_wrote_is_printed_as_text(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, earlier_release: bool
) -> None:
    """Neither as markup nor as commands to the terminal, although an earlier release stored it as it came."""
    if earlier_release:
        monkeypatch.setattr("taxifare.approval.approvals.one_line", str)
    request = desk.ask("2015-01", "2", "1")
    by, reason = "[red]Ada\x1b[2J", "better [/JFK] \x1b]8;;https://evil.example\x07airports\u202e :smile:"
    assert desk.run("decide", request.id, "--approve", "--by", by, "--reason", reason).exit_code == 0
    for words in (["history"], ["requests", "--all"]):
        shown = desk.run(*words)
        assert shown.exit_code == 0
        assert not set(shown.output) & set("\x1b\x07\u202e")
        assert "[red]Ada" in shown.output
    assert "better [/JFK] airports :smile:" in " ".join(desk.run("history").output.replace("│", " ").split())


def test_a_standing_approval_is_asked_for_agreed_to_and_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No standing approval was ever asked for" in desk.run("standing").output
    refused = desk.run("standing", "ask")
    assert (refused.exit_code, "APPROVAL_POLICY: expected standing, received person" in refused.output) == (1, True)
    monkeypatch.setenv("APPROVAL_POLICY", "standing")
    assert "expected a month that was compared" in desk.run("standing", "ask").output
    desk.ask("2015-01", "2", "1", verdict=Verdict.HOLD)
    asked = desk.run("standing", "ask")
    assert asked.exit_code == 0, asked.output
    name = asked.output.split()[0]
    assert f"taxifare decide {name} --approve --by YOU" in desk.run("standing").output
    assert f"A standing approval waits for an answer, {name}: " in desk.run("requests").output
    agreed = desk.run("decide", name, "--approve", "--by", "Ada", "--reason", "fair terms")
    assert f"{name}: approved by Ada" in agreed.output
    assert f"Who decides: under {name}, until 2016-01." in desk.run("standing").output
    monkeypatch.setenv("APPROVAL_POLICY", "person")
    assert f"APPROVAL_POLICY=person, under which {name} decides nothing" in desk.run("standing").output
    assert f"APPROVAL_POLICY=person, under which {name} decides nothing" in " ".join(desk.run("doctor").output.split())
    over = desk.run("standing", "end", "--by", "Bea", "--reason", "tolls change")
    assert f"{name} is over" in over.output
    assert "over by withdrawal: tolls change" in " ".join(desk.run("standing").output.split())
    assert "nothing to end" in desk.run("standing", "end", "--by", "Bea", "--reason", "again").output


def test_of_many_requests_the_newest_are_shown_and_how_many_are_not(desk: Desk) -> None:
    for staging in ("2", "3"):
        desk.ask("2015-01", staging, "1")
    output = desk.run("requests", "--all", "--newest", "1").output
    assert "2015-01-v3" in output
    assert "2015-01-v2" not in output
    assert "2 earlier ones are not shown: --newest 3 shows them all." in output


def test_history_ends_with_a_way_back_that_can_be_typed(desk: Desk) -> None:
    assert re.search(r"Back: \S*taxifare rollback --to VERSION --by", desk.run("history").output), (
        "nothing came before version 1"
    )
    january = desk.ask("2015-01", "2", "1")
    desk.run("decide", january.id, "--approve", "--by", "Ada", "--reason", "airports")
    assert re.search(r"Back: \S*taxifare rollback --by", desk.run("history").output)
    out = desk.run("rollback", "--to", "none", "--by", "Ben", "--reason", "complaints")
    assert out.exit_code == 0
    assert re.search(r"In production: nothing, instead of version 2, since [0-9: -]+ UTC\.\nNothing prices", out.output)
    assert re.search(r"Back: \S*taxifare rollback --to 2 --by", desk.run("history").output), "what was taken out"
    assert desk.run("rollback", "--to", "2", "--by", "Ben", "--reason", "on second thought").exit_code == 0
