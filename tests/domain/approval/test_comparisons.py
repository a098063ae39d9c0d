"""Comparisons in the ledger: the one record of what was found, whoever else shows it, of this release and of others."""

import json
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from taxifare.approval.comparisons import SCHEMA, comparison_of, record, take_over
from taxifare.approval.due import Known, next_month, to_ask
from taxifare.approval.ledger import Ledger
from taxifare.approval.records import Comparison, EvidenceUnreadableError, Request, digest_of
from taxifare.approval.requests import request_on
from taxifare.approval.tables import REQUESTS
from taxifare.gate.evidence import Evidence, Objection
from taxifare.trips.months import parse_month
from tests.support.approvals import PERSON, Clock, Office, contender, evidence, scores
from tests.support.places import REPOSITORY

LATER = timedelta(hours=1)


def recorded(office: Office, found: Evidence) -> Comparison:
    office.clock.moment += LATER
    return record(office.approvals.ledger, found, office.clock())


def entries_of(office: Office) -> int:
    """How many comparisons the ledger holds, those that were overtaken included."""
    with office.approvals.ledger._begin(exclusive=False) as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM comparisons").scalar_one())


def of_another_release(found: Evidence, change: Mapping[str, Any], *, schema: int) -> Comparison:
    """The comparison as another release has written it: more fields, or fewer (None)."""
    written = json.loads(json.dumps(found.model_dump(mode="json"))) | dict(change)
    kept = {name: value for name, value in written.items() if value is not None or name == "production_version"}
    own = comparison_of(found, Office.open("sqlite://").clock())
    return Comparison(**{**vars(own), "schema": schema, "evidence_json": json.dumps(kept)})


def test_what_was_found_is_read_back_as_it_was(office: Office) -> None:
    found = evidence("2015-01", "2", "1")
    assert recorded(office, found).evidence == found
    kept = office.approvals.record.comparisons()["2015-01"]
    assert (kept.evidence, kept.evidence_digest, kept.schema) == (found, found.digest, SCHEMA)
    assert (kept.staging_version, kept.staging_run, kept.production_version) == ("2", "run-s", "1")


def test_the_last_comparison_of_a_subject_counts(office: Office) -> None:
    first, second = evidence("2015-01", "2", "1"), evidence("2015-01", "3", "1")
    for found in (first, second, evidence("2015-02", "4", "1"), first):
        recorded(office, found)
    latest = office.approvals.record.comparisons()
    assert {subject: found.staging_version for subject, found in latest.items() if subject != "base"} == {
        "2015-01": "2",
        "2015-02": "4",
    }


def test_the_same_evidence_again_is_the_same_comparison(office: Office) -> None:
    found = evidence("2015-01", "2", "1")
    first = recorded(office, found)
    again = found.model_copy(update={"staging": found.staging.model_copy(update={"run_id": "executed again"})})
    before = entries_of(office)
    assert recorded(office, again) == first
    assert entries_of(office) == before


def test_the_digest_does_not_depend_on_the_order_of_fields() -> None:
    found = evidence("2015-01", "2", "1")
    backwards = dict(reversed(found.model_dump(mode="json").items()))
    backwards["staging"] = dict(reversed(backwards["staging"].items()))
    assert Evidence.model_validate(backwards).digest == found.digest
    assert json.dumps(backwards) != json.dumps(found.model_dump(mode="json"))
    assert digest_of(json.dumps(backwards)) == digest_of(found.model_dump_json())


class TestOtherReleases:
    """The shape of the evidence changes from release to release; what is due must not hang on it."""

    def test_a_later_release_may_know_more(self, office: Office) -> None:
        found = evidence("2015-01", "2", "1")
        with office.approvals.ledger.writing() as entries:
            entries.add_comparison(of_another_release(found, {"fairness": 0.7}, schema=SCHEMA + 1))
        assert office.approvals.record.comparisons()["2015-01"].evidence == found

    def test_an_earlier_one_knew_no_objections(self, office: Office) -> None:
        found = evidence("2015-01", "2", "1")
        with office.approvals.ledger.writing() as entries:
            entries.add_comparison(of_another_release(found, {"objections": None}, schema=1))
        assert office.approvals.record.comparisons()["2015-01"].evidence == found

    def test_what_cannot_be_read_is_skipped_with_a_warning(
        self, office: Office, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorded(office, evidence("2015-02", "3", "1"))
        with office.approvals.ledger.writing() as entries:
            entries.add_comparison(of_another_release(evidence("2015-01", "2", "1"), {"staging": None}, schema=9))
        known = Known.of(office.approvals)
        done = known.comparisons
        with pytest.raises(EvidenceUnreadableError, match=r"evidence of 2015-01 .* another release .* staging"):
            _ = done["2015-01"].evidence
        with caplog.at_level(logging.WARNING):
            assert [found.subject for found in to_ask(known, ("chat",), PERSON)] == ["2015-02"]
        assert "nobody is asked about 2015-01" in caplog.text
        months = {parse_month(month): "r1" for month in ("2015-01", "2015-02", "2015-03")}
        due = next_month(months, known)
        assert due is not None
        assert str(due.month) == "2015-03", "it has been compared, whoever can read what came of it"

    def test_a_question_that_was_answered_is_not_asked_anew_for_its_shape(self, office: Office) -> None:
        """The earlier release had another rule for digests: run again, the month says what it said."""
        found = evidence("2015-01", "2", "1")
        with office.approvals.ledger.writing() as entries:
            entries.add_comparison(comparison_of(found, office.clock(), schema=1, digest="by the earlier rule"))
        objection = Objection(about="bias", name="bias", reason="it grows")
        again = recorded(office, found.model_copy(update={"objections": (objection,)}))
        assert again.evidence_digest == "by the earlier rule"
        assert recorded(office, evidence("2015-01", "2", "1", mae=2.2)).schema == SCHEMA

    @pytest.mark.parametrize("production", ["1", None])
    def test_a_month_that_says_otherwise_of_production_is_asked_about_anew(
        self, office: Office, production: str | None
    ) -> None:
        found = evidence("2015-01", "2", production)
        with office.approvals.ledger.writing() as entries:
            entries.add_comparison(comparison_of(found, office.clock(), schema=1, digest="by the earlier rule"))
        assert recorded(office, found).evidence_digest == "by the earlier rule"
        otherwise = contender("1", scores(2.40), run_id="run-p")
        assert recorded(office, found.model_copy(update={"production": otherwise})).schema == SCHEMA


def ledger_of_before(url: str, *asked: Request) -> Office:
    """Approvals on a ledger as the release before left it: its tables, and requests without comparisons."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(REPOSITORY / "taxifare" / "approval" / "migrations"))
    with Ledger(url, "USD")._begin(exclusive=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for request in asked:
            values = {name: value for name, value in vars(request).items() if name in REQUESTS.c}
            connection.execute(REQUESTS.insert().values(**values, evidence=request.evidence_json))
    Ledger(url, "USD").migrate()
    return Office.open(url)


class TestTakingOver:
    """States of before have their comparisons elsewhere; they are taken over once, and only by such a state."""

    def asked(self, found: Evidence, digest: str) -> Request:
        """The request of an earlier release, which had another rule for digests."""
        now = Clock()()
        return request_on(comparison_of(found, now, schema=1, digest=digest), now, timedelta(days=30))

    def test_the_history_of_an_earlier_release_opens(self, empty_database: str) -> None:
        asked = self.asked(evidence("base", "1", None), "d1")
        before = ledger_of_before(empty_database, asked)
        assert before.approvals.record.open_requests() == (asked,)
        before.approve(asked)
        assert before.approvals.production() == "1"

    def test_comparisons_keep_the_digests_that_they_were_asked_about_with(self, empty_database: str) -> None:
        base, january = evidence("base", "1", None), evidence("2015-01", "2", "1")
        asked = self.asked(base, "d1")
        before = ledger_of_before(empty_database, asked)
        now = before.clock()
        assert take_over(before.approvals.ledger, [(base, now), (january, now)]) == 2
        kept = before.approvals.record.comparisons()
        assert {subject: found.evidence_digest for subject, found in kept.items()} == {
            "base": "d1",
            "2015-01": january.digest,
        }
        assert {found.schema for found in kept.values()} == {1}
        assert before.approvals.request(kept["base"]) == asked, "the same question, not another one"

    def test_it_happens_once(self, empty_database: str) -> None:
        base = evidence("base", "1", None)
        before = ledger_of_before(empty_database, self.asked(base, "d1"))
        assert take_over(before.approvals.ledger, [(base, before.clock())]) == 1
        assert take_over(before.approvals.ledger, [(evidence("2015-01", "9", "1"), before.clock())]) == 0
        assert set(before.approvals.record.comparisons()) == {"base"}

    def test_a_state_of_this_release_takes_nothing_over(self, ledger_url: str) -> None:
        fresh = Office.open(ledger_url)
        assert take_over(fresh.approvals.ledger, [(evidence("base", "1", None), fresh.clock())]) == 0
        assert not fresh.approvals.record.comparisons()
