"""The track record that still holds before a month: by what is published, compared and in production."""

from datetime import UTC, datetime, timedelta

from taxifare.approval.comparisons import comparison_of
from taxifare.approval.due import Known, last_learned
from taxifare.approval.records import Comparison, Promotion, Request
from taxifare.approval.requests import request_on
from taxifare.approval.track_records import record_before
from taxifare.gate.track_record import MonthOnRecord, TrackRecord
from taxifare.trips.months import Month, parse_month
from tests.support.approvals import evidence

JANUARY, FEBRUARY, MARCH, APRIL = (parse_month(f"2015-0{number}") for number in range(1, 5))

PUBLISHED = {JANUARY: "r1", FEBRUARY: "r1", MARCH: "r1"}

NOW = datetime(2015, 2, 1, 9, tzinfo=UTC)


def record(*months: tuple[str, str], production: str = "1") -> TrackRecord:
    """A record of these months and revisions, whose candidates are numbered on."""
    entries = (
        MonthOnRecord(month=month, revision=revision, candidate=str(number))
        for number, (month, revision) in enumerate(months, 2)
    )
    return TrackRecord(production=production, months=tuple(entries))


def compared(found: TrackRecord | None, subject: str, production: str | None = "1") -> Comparison:
    """The comparison that holds a record."""
    staging = "9" if found is None else found.months[-1].candidate
    return comparison_of(evidence(subject, staging, production).model_copy(update={"track_record": found}), NOW)


def known(*comparisons: Comparison, production: str | None = "1", requests: tuple[Request, ...] = ()) -> Known:
    approved = requests[-1].id if requests else None
    promotion = Promotion(1, production, None, "promotion", approved, "Ada", "", None, NOW)
    return Known({each.subject: each for each in comparisons}, promotion, requests, (), ())


def before(month: Month, on_record: Known, published: dict[Month, str] | None = None) -> TrackRecord | None:
    return record_before(month, PUBLISHED if published is None else published, on_record)


TO_JANUARY, TO_FEBRUARY = record(("2015-01", "r1")), record(("2015-01", "r1"), ("2015-02", "r1"))


def test_the_longest_one_that_holds() -> None:
    on_record = known(compared(TO_JANUARY, "2015-01"), compared(TO_FEBRUARY, "2015-02"))
    assert before(JANUARY, on_record) == TrackRecord(production="1")
    assert before(FEBRUARY, on_record) == TO_JANUARY
    assert before(MARCH, on_record) == TO_FEBRUARY
    assert before(APRIL, on_record) == TO_FEBRUARY, "March has not been run: what it teaches is learned on the way"


def test_nothing_in_production_has_no_record() -> None:
    assert before(MARCH, known(production=None)) is None


def test_a_restated_month_ends_the_records_that_name_its_first_edition() -> None:
    on_record = known(compared(TO_JANUARY, "2015-01"), compared(TO_FEBRUARY, "2015-02"))
    assert before(MARCH, on_record, PUBLISHED | {FEBRUARY: "r2"}) == TO_JANUARY
    assert before(MARCH, on_record, PUBLISHED | {JANUARY: "r2"}) == TrackRecord(production="1")


def test_a_month_that_is_published_late_is_learned_in_its_place() -> None:
    without_january = record(("2015-02", "r1"))
    on_record = known(compared(without_january, "2015-02"))
    assert before(MARCH, on_record, {FEBRUARY: "r1", MARCH: "r1"}) == without_january
    assert before(MARCH, on_record) == TrackRecord(production="1")


def test_a_record_against_another_production_or_of_an_earlier_release_is_none() -> None:
    other = record(("2015-01", "r1"), production="7")
    assert before(FEBRUARY, known(compared(other, "2015-01", "7"))) == TrackRecord(production="1")
    assert before(FEBRUARY, known(compared(None, "2015-01"))) == TrackRecord(production="1")


def test_it_begins_after_the_month_that_production_was_approved_on() -> None:
    """Version 2 learned January, and February's lesson was not worth keeping: it was approved on February."""
    january, february = (
        request_on(compared(None, subject), NOW, timedelta(days=30)) for subject in ("2015-01", "2015-02")
    )
    on_record = known(production="9", requests=(january, february))
    assert last_learned(on_record) == FEBRUARY
    rolled_back = Known({}, Promotion(2, "9", "3", "rollback", None, "Ada", "", None, NOW), (january, february), (), ())
    assert last_learned(rolled_back) == JANUARY
    march = record(("2015-03", "r1"), production="9")
    on_record = Known({"2015-03": compared(march, "2015-03", "9")}, on_record.promotion, on_record.requests, (), ())
    assert before(APRIL, on_record) == march
