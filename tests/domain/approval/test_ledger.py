"""The ledger keeps its promises by itself: whoever writes to the database cannot change what was decided."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa

from taxifare.approval.comparisons import comparison_of
from taxifare.approval.ledger import SCHEMA_REVISION, Ledger, LedgerError
from taxifare.approval.records import (
    Alarm,
    Delivery,
    Notice,
    Outcome,
    Promotion,
    Refusal,
    Request,
    RequestState,
    SpentToken,
    StandingEnd,
    StandingRequest,
)
from taxifare.approval.tables import METADATA
from tests.support.approvals import content_of, evidence, in_processes
from tests.support.places import REPOSITORY

NAMES = ("a", "rejected", "approved")
NOW = datetime(2015, 2, 1, 9, tzinfo=UTC)
MIGRATIONS = REPOSITORY / "taxifare" / "approval" / "migrations"


def make_request(name: str = "a", production: str | None = None) -> Request:
    shown = evidence("2015-01", "2", production)
    return Request(
        id=name,
        subject="2015-01",
        revision="r1",
        staging_version="2",
        production_version=production,
        verdict=shown.verdict,
        evidence_digest=shown.digest + name,
        round=1,
        requested_at=NOW,
        valid_until=NOW + timedelta(days=30),
        evidence_json=shown.model_dump_json(),
    )


def make_outcome(state: RequestState = RequestState.APPROVED, name: str = "a") -> Outcome:
    by = "Ada" if state in {RequestState.APPROVED, RequestState.REJECTED} else None
    return Outcome(name, state, by, "because", override=False, at=NOW)


def make_promotion(sequence: int = 1, version: str = "2", replaced: str | None = None) -> Promotion:
    return Promotion(sequence, version, replaced, "rollback", None, "Ada", "because", None, NOW)


def promoted(name: str, *, sequence: int = 2, version: str = "2", digest: str = "") -> Promotion:
    """The promotion that request `name` asks for."""
    entry = make_promotion(sequence, version, "2" if sequence > 1 else None)
    return replace(
        entry, kind="promotion", request_id=name, evidence_digest=digest or make_request(name).evidence_digest
    )


@pytest.fixture
def ledger(ledger_url: str) -> Ledger:
    """A ledger with one entry of each kind."""
    ledger = Ledger(ledger_url, "USD")
    with ledger.writing() as entries:
        entries.add_request(make_request())
        entries.settle(make_outcome())
        for name, state in (("rejected", RequestState.REJECTED), ("approved", RequestState.APPROVED)):
            entries.add_request(make_request(name))
            entries.settle(make_outcome(state, name))
        entries.promote(promoted("a", sequence=1))
        entries.add_refusal(Refusal("nonsense", "approve", "Eve", "no such request", NOW))
        entries.add_delivery(Delivery("a", "log", 0, NOW))
        entries.add_projection("promotion 1", NOW)
        entries.add_comparison(comparison_of(evidence("2015-01", "2", "1"), NOW))
        entries.add_content(content_of("2"), NOW)
        entries.add_spent_token(SpentToken("request a", 1, "no reason", NOW))
        entries.add_notice(Notice("promotion 1", "log", 0, NOW))
        entries.add_standing_request(
            StandingRequest("s", "2015-01", "2015-02", "2016-01", "2", "digest", 1, NOW, NOW, "{}")
        )
        entries.settle_standing(replace(make_outcome(), request_id="s"))
        entries.add_standing_use("a", "s")
        entries.end_standing(StandingEnd("s", "withdrawal", "Ada", "because", NOW))
        entries.add_alarm(Alarm("alarm", 1, "2", "2015-02", "digest", NOW, NOW, "{}"))
        entries.settle_alarm(replace(make_outcome(), request_id="alarm"))
    return ledger


def execute(ledger: Ledger, statement: str) -> None:
    with ledger._begin(exclusive=True) as connection:
        connection.exec_driver_sql(statement)


def test_what_is_written_is_read(ledger: Ledger) -> None:
    with ledger.reading() as entries:
        assert entries.request("a") == make_request()
        assert entries.open_requests() == []
        assert entries.outcome("a") == make_outcome()
        assert [entry.version for entry in entries.promotions()] == ["2"]
        assert entries.last_promotion() == entries.promotions()[0]
        assert entries.refusals()[0].by == "Eve"
        assert entries.deliveries("a") == [Delivery("a", "log", 0, NOW)]
        assert entries.pending().keys() == {f"{what} {name}" for what in ("request", "outcome") for name in NAMES}


CHANGES = ("DELETE FROM {0}", "UPDATE {0} SET {1} = {1}")
SQLITE_CHANGES = ("INSERT OR REPLACE INTO {0} SELECT * FROM {0}", "REPLACE INTO {0} SELECT * FROM {0}")
POSTGRESQL_CHANGES = ("TRUNCATE {0} CASCADE",)


def test_nothing_can_be_changed_by_any_statement(ledger: Ledger, ledger_url: str) -> None:
    changes = CHANGES + (SQLITE_CHANGES if ledger_url.startswith("sqlite") else POSTGRESQL_CHANGES)
    for table, change in product(METADATA.tables.values(), changes):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            execute(ledger, change.format(table.name, next(iter(table.columns)).name))


def test_a_request_ends_once(ledger: Ledger) -> None:
    for second in set(RequestState) - {RequestState.REQUESTED}:
        with pytest.raises(sa.exc.IntegrityError), ledger.writing() as entries:
            entries.settle(make_outcome(second))
    with ledger.reading() as entries:
        assert entries.outcome("a") == make_outcome()


def test_a_decision_is_signed_and_nothing_else_is(ledger: Ledger) -> None:
    with ledger.writing() as entries:
        entries.add_request(make_request("b"))
    for outcome in (replace(make_outcome(name="b"), by=None), replace(make_outcome(RequestState.VOID, "b"), by="Ada")):
        with pytest.raises(sa.exc.IntegrityError), ledger.writing() as entries:
            entries.settle(outcome)


@pytest.mark.parametrize(
    ("promotion", "mistake"),
    [
        (make_promotion(1, "3"), "the sequence is taken: somebody promoted in between"),
        (make_promotion(2, "3", "9"), "version 9 was not production"),
        (make_promotion(2, "3", None), "it replaces nothing, although version 2 was production"),
        (make_promotion(3, "3", "2"), "entry 2 is missing"),
        (replace(make_promotion(2, "3", "2"), kind="promotion"), "nobody decided it"),
        (promoted("nonsense"), "no such request"),
        (promoted("rejected"), "somebody decided against it"),
        (promoted("approved", version="3"), "another version was approved"),
        (promoted("approved", digest="other"), "other evidence was shown"),
        (promoted("a"), "one decision, twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_promotion_that_does_not_follow_from_the_last_is_refused(
    ledger: Ledger, promotion: Promotion, mistake: str
) -> None:
    with pytest.raises(sa.exc.IntegrityError), ledger.writing() as entries:
        entries.promote(promotion)
    with ledger.writing() as entries:
        entries.promote(promoted("approved"))


def test_the_same_evidence_is_asked_about_once_even_where_nothing_is_in_production(ledger: Ledger) -> None:
    with pytest.raises(sa.exc.IntegrityError), ledger.writing() as entries:
        entries.add_request(replace(make_request(), id="another name"))


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(sa.exc.IntegrityError), ledger.writing() as entries:  # noqa: PT012 - the second fails
        entries.add_request(make_request("b"))
        entries.settle(make_outcome(name="a"))
    with ledger.reading() as entries:
        assert entries.request("b") is None


def test_moments_are_kept_in_utc_whatever_zone_they_come_in(ledger: Ledger) -> None:
    in_new_york = NOW.astimezone(timezone(timedelta(hours=-5)))
    with ledger.writing() as entries:
        entries.add_request(replace(make_request("b"), requested_at=in_new_york))
    with ledger.reading() as entries:
        read = entries.request("b")
    assert read is not None
    assert read.requested_at == NOW
    assert read.requested_at.tzinfo == UTC
    with pytest.raises(sa.exc.StatementError, match="has no time zone"), ledger.writing() as entries:
        entries.add_request(replace(make_request("c"), requested_at=datetime(2015, 2, 1)))


def test_making_a_ledger_touches_nothing(tmp_path: Path) -> None:
    Ledger(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder' / 'ledger.db'}", "USD")
    Ledger("postgresql://nobody@127.0.0.1:1/nowhere", "USD")
    assert list(tmp_path.iterdir()) == []


def test_folders_on_the_way_to_the_ledger_are_made(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'a' / 'b' / 'ledger.db'}", "USD").reading() as entries:
        assert entries.requests() == []


def test_an_unreachable_ledger_says_which_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened"), Ledger(f"sqlite:///{tmp_path}", "USD").reading():
        pass
    with (
        pytest.raises(LedgerError, match=r"127\.0\.0\.1:1") as caught,
        Ledger("postgresql://me:hush@127.0.0.1:1/x", "USD").reading(),
    ):
        pass
    assert "hush" not in str(caught.value)


def test_a_ledger_of_a_later_release_is_left_alone(ledger: Ledger, ledger_url: str) -> None:
    execute(ledger, "UPDATE alembic_version SET version_num = '9999'")
    told = f"of schema 9999, this release of taxifare is older and knows {SCHEMA_REVISION}"
    for use in (lambda: Ledger(ledger_url, "USD").reading().__enter__(), Ledger(ledger_url, "USD").migrate):
        with pytest.raises(LedgerError, match=told):
            use()


def test_tables_of_another_program_are_left_alone(ledger: Ledger, ledger_url: str) -> None:
    """Dagster, MLflow and Optuna name a table of theirs as the ledger names one."""
    execute(ledger, "UPDATE alembic_version SET version_num = '7e2f3204cf8e'")
    with pytest.raises(LedgerError, match=r"another program's .*: expected a database, or a schema in it, of the led"):
        Ledger(ledger_url, "USD").migrate()


def test_a_ledger_of_another_target_says_what_to_do(ledger: Ledger, ledger_url: str) -> None:
    told = (
        "expected requests in min, received one in USD. Set TARGET back, or use another TAXIFARE_HOME or DATABASE_URL"
    )
    with pytest.raises(LedgerError, match=told), Ledger(ledger_url, "min").reading():
        pass
    with Ledger(ledger_url, "USD").reading() as entries:
        assert entries.requests()


def test_a_ledger_of_another_city_says_what_to_do(ledger: Ledger, ledger_url: str) -> None:
    told = "expected requests about lisbon, received one about new-york or chicago. Set CITY back, or use another"
    with pytest.raises(LedgerError, match=told), Ledger(ledger_url, "USD", "lisbon").reading():
        pass


def test_migrations_lead_to_the_tables_the_code_believes_in(ledger: Ledger) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION
    with ledger._begin(exclusive=False) as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []


def test_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"

    def use() -> int:
        with Ledger(ledger_url, "USD").writing() as entries:
            return len(entries.requests())

    assert in_processes([use] * 4) == [0] * 4


def test_importing_approval_is_cheap() -> None:
    script = (
        "import sys, taxifare.approval.approvals, taxifare.approval.delivery;"
        "print([name for name in ('alembic', 'mlflow', 'psycopg', 'apprise') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"
