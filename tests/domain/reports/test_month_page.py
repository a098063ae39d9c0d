"""The page of a month: what a manager reads first is true, nothing on it commands a browser, and it needs no other."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from upath import UPath

from taxifare.approval.decisions import command
from taxifare.approval.records import Request
from taxifare.gate.evidence import Objection, Verdict
from taxifare.gate.scores import Interval
from taxifare.model.exposure import Exposure
from taxifare.monitoring.realised import Beside
from taxifare.operations.month_pages import page_in, renew_pages
from taxifare.reports.month_page import MonthPage, pages_of, render
from taxifare.settings import Settings
from taxifare_dagster.lake import realised
from tests.support.approvals import Office, contender, content_of, evidence, scores
from tests.support.bundles import put_in_force
from tests.support.quotes import put_quotes, quotes_of
from tests.support.small import small_settings
from tests.support.standing import month


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return small_settings(tmp_path / "state")


@pytest.fixture
def office(home: Settings) -> Office:
    home.home.mkdir()
    return Office.open(home.ledger_url).with_first_model()


def page(office: Office, settings: Settings, subject: str = "2015-01") -> MonthPage:
    with office.approvals.ledger.reading() as entries:
        pages = pages_of(entries, settings, realised(settings.lake))
        return next(one for one in pages if one.month.subject == subject)


def words(html: str) -> str:
    """What a person reads."""
    seen = re.sub(r"<(style|svg).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", seen).split())


def test_it_needs_nothing_beside_itself_and_is_the_same_for_the_same_facts(office: Office, home: Settings) -> None:
    office.ask("2015-01", "2", "1")
    shown = render(page(office, home))
    assert "<script" not in shown
    assert not re.search(r'(src|href)="(?!#|data:)', shown)
    assert not re.search(r"url\((?!#)|@import", shown)
    assert render(page(office, home)) == shown


def test_a_shift_is_not_told_as_a_few_expensive_rides(office: Office, home: Settings) -> None:
    """June of the demo: the correction made most rides closer, and the page explained the bias away."""
    found = evidence("2015-01", "2", "1", mae=2.27)
    assert found.production is not None
    corrected = found.production.corrected.model_copy(update={"mae": 2.2})
    production = found.production.model_copy(update={"corrected": corrected})
    office.request(found.model_copy(update={"production": production}))
    told = page(office, home).is_still_good.sentences[0]
    assert told.endswith(
        "Overall, its predictions were 0.45 USD too low (0.25 USD too low when it was approved), and not only for a "
        "few expensive rides. With the bias correction they would have been 0.05 USD too low, and off by 2.20 USD a "
        "ride instead of 2.31 USD."
    )


def test_a_correction_that_gains_less_than_is_shown_is_not_told_as_closer(office: Office, home: Settings) -> None:
    """February of the demo was "off by 1.61 USD a ride instead of 1.61 USD"."""
    found = evidence("2015-01", "2", "1", mae=2.27)
    assert found.production is not None
    corrected = found.production.corrected.model_copy(update={"mae": found.production.scores.mae - 0.002})
    production = found.production.model_copy(update={"corrected": corrected})
    office.request(found.model_copy(update={"production": production}))
    told = page(office, home).is_still_good.sentences[0]
    assert told.endswith("With the bias correction they would have been 0.05 USD too low.")


def test_an_open_question_says_until_when_and_how_to_answer(office: Office, home: Settings) -> None:
    request = office.ask("2015-01", "2", "1", mae=2.27)
    found = page(office, home)
    assert found.is_still_good.short == "Yes"
    assert found.is_still_good.sentences[0] == (
        "Version 1 was off by 2.31 USD a ride on average, on 4,000 rides at the end of the month that it had not seen. "
        "Overall, its predictions were 0.45 USD too low (0.25 USD too low when it was approved): they aim at the "
        "median ride, and a few expensive rides raise the mean. With the bias correction they would have been 0.05 USD "
        "too low."
    )
    assert (
        "Its error was 0.21 USD a ride higher than when it was approved (2.10 USD, base)"
        in found.is_still_good.sentences[1]
    )
    assert found.what_changed.short == "Nothing"
    assert found.to_decide.short == "One question, until 2015-03-03 09:00 UTC"
    assert found.to_decide.commands == (command(request, "approve"), command(request, "reject"))
    shown = render(found)
    assert f"taxifare decide {request.id}" in words(shown)
    assert not any(token in shown for token in office.approvals.answer_tokens(request).values())


def test_days_so_far_are_not_told_as_a_month_s_end(office: Office, home: Settings) -> None:
    office.ask("2015-01", "2", "1", revision="so-far-2015-01-08-a1b2")
    assert "on 4,000 rides of the latest days so far that" in page(office, home).is_still_good.sentences[0]


def learned(subject: str, last: datetime) -> Exposure:
    return Exposure(subject=subject, revision="r", first_pickup=datetime(2014, 1, 1), last_pickup=last)


def test_a_rule_that_production_has_not_learned_is_named_in_every_later_month(office: Office, home: Settings) -> None:
    """Version 1 has learned 2014; bridge tolls rise on 22 March 2015, and version 4 has learned April."""
    with office.approvals.ledger.writing() as entries:
        for version in ("1", "4"):
            entries.add_content(content_of(version), office.clock())
    put_in_force(home, "1", 1, [learned("base", datetime(2014, 12, 31))])
    for subject, staging in (("2015-02", "2"), ("2015-03", "3")):
        office.reject(office.ask(subject, staging, "1"))
    assert "not learned" not in words(render(page(office, home, "2015-02")))
    march = page(office, home, "2015-03").what_changed
    assert march.short == "New rules"
    assert march.sentences[-1].startswith("Since 2015-03-22: Bridge and tunnel tolls")
    assert march.sentences[-1].endswith(" What is in production has not learned it.")
    asked = office.ask("2015-04", "4", "1")
    april = page(office, home, "2015-04")
    assert april.what_changed.short == "Nothing this month, but production has yet to learn a rule"
    assert april.what_changed.sentences[-1].startswith("In force since 2015-03-22: Bridge and tunnel tolls")
    shown = words(render(april))
    assert "not learned by production" in shown
    put_in_force(home, "4", 2, [learned("base", datetime(2014, 12, 31)), learned("2015-04", datetime(2015, 4, 24))])
    assert words(render(page(office, home, "2015-04"))) == shown, "what production had learned then"
    office.approve(asked)
    assert "not learned" not in words(render(page(office, home, "2015-04")))
    office.ask("2015-05", "5", "4")
    assert page(office, home, "2015-05").what_changed.short == "Nothing"


def test_a_version_that_was_rolled_back_is_asked_about_with_who_took_it_out(office: Office, home: Settings) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    office.approvals.rollback(by="Grace", reason="complaints from JFK")
    asked = office.ask("2015-02", "2", "1")
    found = page(office, home, "2015-02")
    assert found.to_decide.sentences[1] == (
        "Version 2 was in production until 2015-02-01, when Grace went back to version 1: complaints from JFK."
    )
    assert found.facts != replace(found, rolled_back=None).facts, "the page is made anew"
    office.approve(asked)
    assert "went back" not in " ".join(page(office, home, "2015-02").to_decide.sentences)


def test_an_approval_that_was_taken_back_since_is_not_told_as_if_it_stood(office: Office, home: Settings) -> None:
    office.approve(office.ask("2015-01", "2", "1"))
    before = page(office, home)
    assert len(before.to_decide.sentences) == 2
    office.approvals.rollback("none", by="Grace", reason="complaints from JFK")
    after = page(office, home)
    assert after.to_decide.sentences[1].startswith("Approved by ")
    assert after.to_decide.sentences[2] == (
        "Version 2 was in production until 2015-02-01, when Grace went back to nothing: complaints from JFK."
    )
    assert after.facts != before.facts, "the page is made anew"


def test_a_decision_is_told_with_who_and_why_on_the_pages_of_all_that_it_ended(office: Office, home: Settings) -> None:
    other = office.ask("2015-02", "3", "1")
    office.approve(office.ask("2015-01", "2", "1"))
    found = page(office, home)
    assert found.what_changed.short == "Version 2 went into production"
    assert "by Ada: I looked at the slices" in found.what_changed.sentences[0]
    assert found.to_decide.short == "Nothing: it was decided"
    void = page(office, home, "2015-02")
    assert void.to_decide.short == "Nothing: the question is void"
    assert void.to_decide.sentences[1].startswith("Void on 2015-02-01: ")
    assert void.month.asked is not None
    assert void.month.asked.id == other.id
    assert void.promoted == {"2015-01": "2"}


def test_a_stale_model_is_told_as_one(office: Office, home: Settings) -> None:
    gain = Interval(mean=0.8, low=0.7, high=0.9)
    found = evidence("2015-01", "2", "1").model_copy(update={"gain": gain})
    office.request(found)
    told = page(office, home).is_still_good
    assert (told.tone, told.short) == ("bad", "No: it is stale")
    assert told.sentences[-1].startswith("The model is stale:")


@pytest.mark.parametrize(
    ("changes", "short", "sentence"),
    [
        ({"verdict": Verdict.LEAK, "reasons": ("it was trained on them",)}, "Unknown", "It was trained"),
        (
            {"verdict": Verdict.UNSCORABLE, "production": None, "gain": None, "reasons": ("its files are gone",)},
            "Unknown",
            "Its files are gone.",
        ),
    ],
)
def test_what_cannot_be_told_is_not_called_right(
    office: Office, home: Settings, changes: dict[str, object], short: str, sentence: str
) -> None:
    office.request(evidence("2015-01", "2", "1").model_copy(update=changes))
    told = page(office, home).is_still_good
    assert told.short == short
    assert told.sentences[0].startswith(sentence)
    assert short in words(render(page(office, home)))


def test_the_first_model_has_a_page(office: Office, home: Settings) -> None:
    shown = words(render(page(office, home, "base")))
    assert "The first model" in shown
    assert "There was no model yet" in shown
    assert "Version 1 went into production" in shown


def test_what_was_quoted_is_held_against_what_was_paid(office: Office, home: Settings) -> None:
    office.ask("2015-02", "2", "1", mae=2.27)
    assert "No outcomes of this month’s quotes are known yet" in words(render(page(office, home, "2015-02")))
    gain = Interval(mean=0.05, low=0.01, high=0.09)
    beside = Beside(production="1", shadow="2", gain=gain, rides=700)
    put_quotes(home.lake, {"2015-02": quotes_of("2015-02", {"1": 2.15}, beside=(beside,))})
    found = page(office, home, "2015-02")
    assert found.is_still_good.short == "Yes"
    assert found.is_still_good.sentences[-1].startswith(
        "What customers were told was off by 2.15 USD a ride on average, and overall 0.30 USD"
    )
    shown = words(render(found))
    assert "1,000 rides were quoted; the outcome of 90.0 % is known" in shown
    assert "version 1 900 2.15 (2.05 to 2.25) 2.10 (2.00 to 2.20) −0.30 USD as promised" in shown
    assert "version 2 would have been closer than version 1 by +0.050 (+0.010 to +0.090) USD a ride" in shown
    put_quotes(home.lake, {"2015-02": quotes_of("2015-02", {"1": 3.15})})
    told = page(office, home, "2015-02")
    assert (told.is_still_good.tone, told.is_still_good.short) == ("bad", "No: worse than promised")
    assert told.facts != found.facts


def test_slices_that_got_worse_come_first_and_are_marked(office: Office, home: Settings) -> None:
    worse = Objection(about="slice", name="airport", reason="airport trips get worse by a dollar")
    office.request(
        month("2015-01", "2", "1", at_airports=-1.0, objections=(worse,), looking_back=-0.5, verdict=Verdict.HOLD)
    )
    found = page(office, home)
    assert [(part.name, part.says) for part in found.parts] == [("airport", "gets worse")]
    shown = render(found)
    assert '<tr class="worse"><td>airport</td>' in shown
    assert "airport trips get worse by a dollar" in shown
    assert "is surely further off by 0.50 USD a ride than version 1" in words(shown)
    assert "on all 300 rides since the present version went into production" in words(shown).replace("On all", "on all")
    office.request(month("2015-02", "3", "1", looking_back=-0.004))
    assert "version 1 is as close to the truth as version 1, which it" in words(render(page(office, home, "2015-02")))


def test_rules_of_the_month_are_new(office: Office, home: Settings) -> None:
    office.ask("2015-03", "2", "1")
    found = page(office, home, "2015-03")
    assert [str(rule.since) for rule in found.new_rules] == ["2015-03-22"]
    assert found.what_changed.short == "New rules"
    office.ask("2015-02", "3", "1")
    assert page(office, home, "2015-02").new_rules == ()


def test_what_people_and_registries_write_is_shown_and_commands_nothing(office: Office, home: Settings) -> None:
    request = office.ask("2015-01", "2", "1")
    token = office.approvals.answer_tokens(request)["approve"]
    office.approvals.decide(request.id, "approve", '<img src=x onerror="alert(1)">', "</p><script>x</script>", token)
    shown = render(page(office, home))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown


def test_evidence_of_another_release_has_a_page_that_says_so(office: Office, home: Settings) -> None:
    from dataclasses import replace

    with office.approvals.ledger.writing() as entries:
        base = entries.comparisons()["base"]
        entries.add_comparison(replace(base, subject="2015-01", evidence_json="{}", evidence_digest="d"))
    assert "Cannot be shown" in words(render(page(office, home)))


class TestPagesInTheLake:
    """They are made where the ledger says more than they show."""

    def test_each_is_made_once_and_anew_when_there_is_more_to_say(self, office: Office, home: Settings) -> None:
        ledger = office.approvals.ledger
        request: Request = office.ask("2015-01", "2", "1")
        assert renew_pages(ledger, home, realised) == ["base", "2015-01"]
        assert renew_pages(ledger, home, realised) == []
        office.approve(request)
        assert renew_pages(ledger, home, realised) == ["2015-01"]
        shown = page_in(home.lake, "2015-01").read_text()
        assert "Nothing: it was decided" in shown
        again = evidence("2015-01", "3", "2", revision="r2").model_copy(
            update={"staging": contender("3", scores(1.5), run_id="run-t")}
        )
        office.request(again)
        assert renew_pages(ledger, home, realised) == ["2015-01"]
        assert "version 3" in page_in(home.lake, "2015-01").read_text()
        assert [path.name for path in (home.home / "lake" / "reports").iterdir() if path.name.startswith(".")] == []

    def test_a_lake_that_cannot_be_written_stops_nothing(
        self, office: Office, home: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        (home.home / "lake").write_text("a file in its place")
        assert renew_pages(office.approvals.ledger, home, realised) == []
        assert "pages of months are not made" in caplog.text

    def test_they_lie_in_a_bucket_as_well(self, office: Office, home: Settings, bucket: str) -> None:
        in_bucket = home.model_copy(update={"storage_uri": f"{bucket}/lake"})
        office.ask("2015-01", "2", "1")
        assert renew_pages(office.approvals.ledger, in_bucket, realised) == ["base", "2015-01"]
        assert renew_pages(office.approvals.ledger, in_bucket, realised) == []
        assert "2015-01" in UPath(f"{bucket}/lake/reports/2015-01.html").read_text()
