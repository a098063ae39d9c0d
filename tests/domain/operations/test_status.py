"""Where an installation stands, on one screen: what a person has to know first, and what to type next."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxifare.approval.comparisons import record
from taxifare.approval.faults import about_failure
from taxifare.approval.heads import ToldHead, ToldHeads
from taxifare.approval.ledger import Ledger, LedgerError
from taxifare.approval.locks import holding
from taxifare.approval.records import Delivery, Notice, Request
from taxifare.cli.main import app
from taxifare.cli.status import lines_of
from taxifare.gate.evidence import Verdict
from taxifare.gate.scores import Interval
from taxifare.model.exposure import Exposure
from taxifare.operations.doctor import examine
from taxifare.operations.status import Status, status_of
from taxifare.serving import in_force
from taxifare.serving.in_force import InForce
from taxifare.sources import TripSource, make_source
from taxifare.sources.base import CannotTellError, SourceError
from taxifare.trips.months import Month, parse_month
from taxifare_dagster.command import surroundings
from taxifare_dagster.lake import realised
from tests.support.approvals import ALARM, Office, evidence
from tests.support.bundles import put_in_force
from tests.support.quotes import put_quotes, quotes_of
from tests.support.small import small_settings
from tests.support.standing import month


@dataclass
class Published:
    """A source of which only what is published matters; it may be unable to tell."""

    months_of: tuple[str, ...] = ()
    fault: SourceError | None = None

    def months(self) -> dict[Month, str]:
        if self.fault is not None:
            raise self.fault
        return {parse_month(name): "r1" for name in self.months_of}

    def rides(self) -> dict[Month, int]:
        return {}

    def extent(self, month: Month) -> None:
        """Nothing is known of any month before it is read."""


class Installation:
    """An installation as `status` meets it: a ledger, what is published, what is in force."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.settings = small_settings(home, **settings)
        home.mkdir()
        self.office = Office.open(self.settings.ledger_url, home=home)
        self.source = Published()

    def status(self) -> Status:
        source: Callable[[], TripSource] = lambda: self.source  # type: ignore[assignment, return-value]  # noqa: E731
        return status_of(self.settings, self.office.approvals.ledger, source, realised, self.office.clock())

    def screen(self) -> str:
        lines = lines_of(self.status(), self.settings)
        copied = [line for line in lines if "taxifare decide" in line or "/" in line]
        assert max(len(line) for line in lines if line not in copied) <= 80
        return "\n".join(lines)

    def told(self) -> None:
        """Everything that people should know has reached them, and those who price rides."""
        approvals = self.office.approvals
        with approvals.ledger.writing() as entries:
            last = entries.last_promotion()
            for request in entries.open_requests():
                entries.add_delivery(Delivery(request.id, "run log", 0, self.office.clock()))
            if last is not None:
                entries.add_notice(Notice(f"promotion {last.sequence}", "run log", 0, self.office.clock()))
                found = InForce(
                    sequence=last.sequence,
                    version=last.version,
                    digest=None,
                    city="new-york",
                    target="fare",
                    by=last.by,
                    reason=last.reason,
                    promoted_at=last.promoted_at,
                    replaced_version=last.replaced_version,
                )
                in_force.publish(self.settings.lake, found)

    def ask(self, subject: str, staging: str, verdict: Verdict = Verdict.PROMOTE) -> Request:
        return self.office.ask(subject, staging, self.status().production, verdict=verdict)


def words(screen: str) -> str:
    return " ".join(screen.split())


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "state")


def test_in_an_empty_folder_it_says_how_to_begin_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAXIFARE_HOME", str(tmp_path / "state"))
    shown = CliRunner().invoke(app, ["status"], obj=surroundings())
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[-1] == "Next        make demo"
    assert f"Production  nothing yet: there is no state in {tmp_path / 'state'} (TAXIFARE_HOME)" in shown.output
    assert "\x1b" not in shown.output
    assert not (tmp_path / "state").exists()


def test_a_production_that_nothing_waits_for(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    here.office.clock.move(days=3)
    assert here.screen().splitlines() == [
        "taxifare    New York, fare in USD; 2015-02-04 09:00 UTC",
        "Still good? not known yet: no month was compared with version 1",
        "Production  version 1 since 2015-02-01 (3 days), by Ada, in place of nothing",
        "            why: I looked at the slices",
        "            promised: off by 2.10 USD a ride (measured on base)",
        "            realised: no outcomes yet",
        "Months               verdict     production  staging  decision",
        "            base     COLD_START           –    2.100  approved by Ada",
        "            (errors in USD a ride, both on the same rides)",
        "Questions   none waits for an answer",
        "Alarms      none; taxifare doctor checks every part",
        "Next        nothing: no question, month or alarm waits for you",
    ]


def test_it_opens_with_whether_production_is_still_good_as_the_page_of_the_last_month_has_it(
    here: Installation,
) -> None:
    """Version 1 has learned 2014; bridge tolls rise on 22 March 2015, and April's candidate does better."""
    office = here.office.with_first_model()
    here.told()
    learned = Exposure(
        subject="base", revision="r", first_pickup=datetime(2014, 1, 1), last_pickup=datetime(2014, 12, 31)
    )
    put_in_force(here.settings, "1", 1, [learned])
    office.ask("2015-02", "2", "1", mae=2.27)
    february = here.status().still_good
    assert february is not None
    assert (february.month, february.answer) == ("2015-02", "Yes")
    assert february.why.startswith("The error went from 2.10 to 2.31 USD a ride (+0.21): ")
    assert "tolls" not in february.why.lower(), "they rise in March"
    office.request(evidence("2015-04", "3", "1").model_copy(update={"gain": Interval(mean=0.8, low=0.7, high=0.9)}))
    second = here.screen().splitlines()[1]
    assert (
        "Overall, its predictions were 0.45 USD too low (0.25 USD too low when it was approved): they aim at the "
        "median ride, and a few expensive rides raise the mean. With the bias correction they would have been 0.05 USD "
        "too low. Production version 1 "
    ) in words(here.screen())
    assert second.startswith("Still good? No: it is stale, as of 2015-04. The error went from 2.10 to 2.31 USD")
    assert "Fare rules that changed since training: " in words(here.screen())
    assert "2015-03-22 Bridge and tunnel tolls" in words(here.screen())
    office.approve(here.ask("2015-05", "4"))
    assert here.status().still_good is None
    assert here.screen().splitlines()[1] == "Still good? not known yet: no month was compared with version 4"


def test_a_bias_within_its_tolerance_is_not_told(tmp_path: Path) -> None:
    here = Installation(tmp_path / "state", bias_tolerance=0.5)
    here.office.with_first_model().ask("2015-02", "2", "1")
    found = here.status().still_good
    assert found is not None
    assert found.overall is None
    assert "too low" not in here.screen()


def test_open_questions_are_answered_in_the_order_of_their_months(here: Installation) -> None:
    here.office.with_first_model()
    held = here.ask("2015-02", "3", Verdict.HOLD)
    first = here.ask("2015-01", "2")
    here.ask("2015-03", "4")
    here.told()
    here.office.clock.move(days=2)
    found, shown = here.status(), here.screen()
    assert (
        found.next_commands
        == found.questions[0].answers
        == (
            f'taxifare decide {first.id} --approve --by YOU --reason "WHY"',
            f'taxifare decide {first.id} --reject --by YOU --reason "WHY"',
        )
    )
    assert found.questions[1].answers == (
        f'taxifare decide {held.id} --reject --by YOU --reason "WHY"',
        f'taxifare decide {held.id} --approve --override --by YOU --reason "WHY"',
    )
    assert "2015-01: PROMOTE, version 2 to replace version 1; asked 2 days ago," in shown
    assert "and 1 more: taxifare requests" in shown
    assert shown.splitlines()[-2:] == [f"Next        {found.next_commands[0]}", f"{'':12}{found.next_commands[1]}"]


def test_a_question_that_nobody_answered_in_time_is_asked_again(here: Installation) -> None:
    here.office.with_first_model()
    asked = here.ask("2015-01", "2")
    here.told()
    here.office.clock.move(days=31)
    found = here.status()
    assert found.next_commands == (f"taxifare ask-again {asked.id}",)
    assert "nobody answered in time" in words(here.screen())
    again = here.office.approvals.ask_again(asked.id)
    assert here.status().next_commands[0] == f'taxifare decide {again.id} --approve --by YOU --reason "WHY"'


def test_a_production_that_was_rolled_back_and_one_that_was_taken_out(here: Installation) -> None:
    here.office.with_first_model()
    here.office.approve(here.ask("2015-01", "2"))
    here.office.approvals.rollback("1", by="Grace\n\x1b[31m", reason="complaints " * 30)
    here.told()
    shown = here.screen()
    assert "version 1 since 2015-02-01 (0 minutes), put back by Grace, in place of version 2" in words(shown)
    assert "promised: off by 2.10 USD a ride (measured on base)" in shown
    assert "…" in shown
    here.office.approvals.rollback("none", by="Grace", reason="nothing is better than this")
    here.told()
    here.source = Published(("2015-01",))
    found, shown = here.status(), here.screen()
    assert shown.splitlines()[1:4] == [
        "Still good? No: nothing is in production, so nothing prices rides",
        "Production  nothing since 2015-02-01 (0 minutes): Grace took version 1 out",
        "            why: nothing is better than this",
    ]
    assert "promised" not in shown
    back = 'taxifare rollback --to 1 --by YOU --reason "WHY"'
    assert [(alarm.name, alarm.says) for alarm in found.alarms] == [
        (
            "production",
            f"nothing prices rides; {back} puts version 1 back, or the next month's run makes a new start that is "
            "asked about",
        ),
    ]
    assert found.next_commands == (back,)
    here.office.approvals.rollback("2", by="Ada", reason="on second thought")
    assert "version 2 since 2015-02-01 (0 minutes), put back by Ada, in place of nothing" in words(here.screen())


def test_months_that_a_new_start_may_come_from_are_told_where_production_was_taken_out(here: Installation) -> None:
    here.office.with_first_model()
    here.office.request(evidence("2015-01", "2", "1", verdict=Verdict.HOLD))
    here.office.approvals.rollback("none", by="Grace", reason="nothing is better than this")
    here.told()
    here.source = Published(("2015-01",))
    here.office.clock.move(days=1)
    found = here.status()
    assert [alarm.name for alarm in found.alarms] == ["production", "behind"]
    assert found.next_commands == ('taxifare rollback --to 1 --by YOU --reason "WHY"', "make dev")


def test_months_that_the_demo_is_running_wait_for_nobody(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    here.source = Published(("2015-01",))
    assert here.status().next_commands == ("make dev",)
    with holding(here.settings, "make demo"):
        found = here.status()
    assert [alarm.says for alarm in found.alarms] == [
        "2015-01 published and not compared yet: make demo is at work on it"
    ]
    assert found.next_commands == ()


def test_months_that_wait_or_are_behind(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    here.source = Published(("2015-01", "2015-02", "2015-07"))
    assert [str(one.month) for one in here.status().behind] == ["2015-01"], "February is not over"
    here.office.clock.move(days=28)
    found = here.status()
    assert [str(one.month) for one in found.behind] == ["2015-01", "2015-02"], "LAST_MONTH is 2015-06"
    assert [alarm.name for alarm in found.alarms] == ["behind"]
    assert found.alarms[0].says == "2015-01 and 2015-02 published and not compared yet: make dev runs what is due"
    assert found.next_commands == ("make dev",)
    told = CannotTellError("cannot tell whether month 2015-02 is published", parse_month("2015-02"), {})
    here.source = Published(fault=told)
    found = here.status()
    assert [alarm.name for alarm in found.alarms] == ["source"]
    assert found.next_commands == ("taxifare months",)


def test_a_run_that_failed_is_said_until_a_month_is_compared_again(here: Installation) -> None:
    """Which month's it was is not on record; a month that was run and failed is not said to wait for its first run."""
    here.office.with_first_model()
    here.told()
    here.source = Published(("2015-01",))
    here.office.clock.move(days=1)
    with here.office.approvals.ledger.writing() as entries:
        entries.add_notice(Notice(about_failure("of run 4f"), "chat", 0, here.office.clock()))
    (behind,) = here.status().alarms
    assert behind.says == (
        "2015-01 published and not compared yet: make dev runs what is due; a run has failed since the last "
        f"comparison: see the message of {here.office.clock():%Y-%m-%d %H:%M} UTC, or the run's page in make dev"
    )
    here.office.clock.move(days=1)
    here.ask("2015-01", "2", Verdict.HOLD)
    here.source = Published(("2015-01", "2015-02"))
    here.office.clock.move(days=60)
    assert not any("failed" in alarm.says for alarm in here.status().alarms)
    assert any(alarm.says.startswith("2015-02 published and not compared yet") for alarm in here.status().alarms)


def test_after_a_rollback_months_are_to_be_compared_again_and_who_took_the_version_back_is_told(
    here: Installation,
) -> None:
    """Version 2 came in on January and was rolled back; March offers it again, and February was compared with it."""
    office = here.office.with_first_model()
    office.approve(here.ask("2015-01", "2"))
    office.request(evidence("2015-02", "3", "2", verdict=Verdict.HOLD))
    office.approvals.rollback(by="Grace", reason="complaints from JFK")
    office.clock.move(days=70)
    here.source = Published(("2015-01", "2015-02", "2015-03"))
    here.told()
    says = {alarm.name: alarm.says for alarm in here.status().alarms}["behind"]
    assert says == (
        "2015-03 published and not compared yet; 2015-02 to be compared again, because production has changed: make "
        "dev runs what is due"
    )
    assert ", as of 2015-01; 2015-02 compared with another version. The error" in words(here.screen())
    here.ask("2015-03", "2")
    assert (
        "2015-03: PROMOTE, version 2 to replace version 1; version 2 was in production until 2015-02-01, when Grace "
        "went back to version 1: complaints from JFK; asked"
    ) in words(here.screen())


def test_a_rule_that_a_month_was_measured_under_is_no_alarm_and_the_doctor_agrees(here: Installation) -> None:
    """Bridge tolls rose on 22 March 2015; April, all of it under them, shows that version 1 is not stale."""
    office = here.office.with_first_model()
    learned = Exposure(
        subject="base", revision="r", first_pickup=datetime(2014, 1, 1), last_pickup=datetime(2014, 12, 31)
    )
    put_in_force(here.settings, "1", 1, [learned])
    office.clock.move(days=100)

    def said() -> tuple[list[str], bool, str]:
        """The alarms of `status`; whether the doctor finds the calendar well, and what it says."""
        alarms = [alarm.says for alarm in here.status().alarms if alarm.name == "calendar"]
        found = {one.part: one for one in examine(here.settings, lambda _: None)}["calendar"]
        return alarms, found.is_well is True, found.says

    alarms, is_well, says = said()
    assert (len(alarms), is_well) == (1, False), says
    assert alarms[0].endswith("no whole month under it has been compared yet")
    close = Interval(mean=0.02, low=-0.02, high=0.06)
    office.request(evidence("2015-04", "2", "1", verdict=Verdict.HOLD, mae=2.29).model_copy(update={"gain": close}))
    alarms, is_well, says = said()
    assert (alarms, is_well) == ([], True), says
    assert "off by 2.31 USD a ride in 2015-04, where 2.10 was to be expected at its difficulty: not stale there" in says


def test_a_source_that_cannot_be_made_is_an_alarm(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    without = small_settings(here.settings.home, trip_source="folder", trip_folder=here.settings.home / "nowhere")
    found = status_of(
        without, here.office.approvals.ledger, lambda: make_source(without), realised, here.office.clock()
    )
    assert [alarm.name for alarm in found.alarms] == ["source"]


def test_where_no_channel_is_set_an_open_question_is_no_alarm_and_one_that_is_not_recorded_is(
    here: Installation,
) -> None:
    here.office.with_first_model()
    here.ask("2015-01", "2")
    assert here.status().untold == ()
    record(here.office.approvals.ledger, here.office.gathered(month("2015-02", "3", "1")), here.office.clock())
    assert here.status().untold == ("the question about 2015-02",)


def test_what_nobody_was_told_of_and_who_prices_by_another_version(tmp_path: Path) -> None:
    here = Installation(tmp_path / "state", slack_webhook_url="https://hooks.example/T0/x")
    here.office.with_first_model()
    request = here.ask("2015-01", "2")
    found = here.status()
    assert [alarm.name for alarm in found.alarms] == ["service", "messages"]
    assert found.untold == ("the question about 2015-01", "promotion 1")
    here.office.approve(request)
    assert here.status().next_commands == ("taxifare bundle",)


def test_a_standing_approval_that_is_asked_for(tmp_path: Path) -> None:
    here = Installation(tmp_path / "state", approval_policy="standing")
    here.office.with_first_model()
    here.office.request(month("2015-01", "2", "1"))
    asked = here.office.approvals.ask_standing(here.settings)
    assert here.status().questions[0].id == asked.id
    assert f"taxifare decide {asked.id} --approve" in here.screen()


def test_the_error_that_was_realised_stands_beside_what_was_promised(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    put_quotes(
        here.settings.lake, {"2015-01": quotes_of("2015-01", {"1": 2.14}), "2015-02": quotes_of("2015-02", {"9": 3})}
    )
    assert "realised: off by 2.14 USD a ride on 900 rides quoted in 2015-01; promised at" in words(here.screen())
    assert here.status().alarms == ()
    put_quotes(here.settings.lake, {"2015-03": quotes_of("2015-03", {"1": 3.14})})
    assert [alarm.name for alarm in here.status().alarms] == ["promise"]
    (here.settings.lake / "served_mae" / "2015-04-01.json").write_text("{}")
    assert [alarm.name for alarm in here.status().alarms] == ["outcomes"]
    assert "realised: cannot be told" in here.screen()


def test_errors_of_durations_are_in_minutes(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "state", target="duration")
    settings.home.mkdir()
    office = Office.open(settings.ledger_url)
    office.approvals.ledger = Ledger(settings.ledger_url, "min")
    with office.approvals.ledger.writing():
        pass
    found = status_of(settings, office.approvals.ledger, Published, realised, office.clock())  # type: ignore[arg-type]
    assert lines_of(found, settings)[0].startswith("taxifare    New York, duration in min;")


def test_evidence_of_another_release_hides_nothing_else(here: Installation) -> None:
    here.office.with_first_model()
    with here.office.approvals.ledger.writing() as entries:
        of_another = replace(
            entries.comparisons()["base"], subject="2015-01", evidence_json='{"unit": "USD"}', evidence_digest="d"
        )
        entries.add_comparison(of_another)
    shown = here.screen()
    assert "2015-01  unreadable" in shown
    assert "version 1 since" in shown


def test_a_ledger_that_people_know_a_later_state_of(here: Installation) -> None:
    here.office.with_first_model()
    here.told()
    place = here.office.approvals.ledger.place
    head = here.office.approvals.record.head()
    assert head is not None
    later = type(head)(head.number + 5, head.digits)
    ToldHeads(here.settings.home, place).remember(ToldHead(later, "Promotion 2 to chat", here.office.clock()))
    found = here.status()
    assert found.alarms[0].name == "ledger"
    assert found.next_commands == ("taxifare doctor",)


def test_a_broken_ledger_is_told_in_a_line(here: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here.settings.home)
    monkeypatch.setenv("TAXIFARE_HOME", str(here.settings.home))
    (here.settings.home / "ledger.db").write_bytes(b"no database at all, " * 100)
    shown = CliRunner().invoke(app, ["status"], obj=surroundings())
    assert shown.exit_code == 1
    assert "LedgerError" in shown.output
    with pytest.raises(LedgerError):
        here.status()


def test_an_alarm_of_the_watch_and_a_rule_that_was_not_learned(here: Installation) -> None:
    """On 1 March 2015 production has learned 2014; bridge tolls rise on 22 March, and its errors have already."""
    office = here.office.with_first_model()
    office.clock.moment = datetime(2015, 3, 10, 9, tzinfo=UTC)
    learned = Exposure(
        subject="base", revision="r", first_pickup=datetime(2014, 1, 1), last_pickup=datetime(2014, 12, 31)
    )
    put_in_force(here.settings, "1", 1, [learned])
    alarm = office.approvals.raise_alarm(ALARM.model_copy(update={"month": "2015-03"}), "1")
    found = here.status()
    assert found.questions[0].id == alarm.id
    assert found.next_commands[0] == f'taxifare decide {alarm.id} --approve --by YOU --reason "WHY"'
    said = {one.name: one.says for one in found.alarms}
    assert said["calendar"].startswith("version 1 has not learned tolls_2015_03, in 12 days, on 2015-03-22")
    assert said["watch"].endswith("the question whether to retrain: waits for an answer")
    here.screen()
    office.clock.move(days=31)
    late = here.status()
    assert late.questions == ()
    assert "nobody answered; 2015-03 is compared when it is published" in words(here.screen())
    assert "ask-again" not in str(late.next_commands)
    office.clock.move(days=-31)
    office.decide(alarm, "reject")
    assert "rejected by Ada" in {one.name: one.says for one in here.status().alarms}["watch"]
