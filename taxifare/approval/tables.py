"""The ledger's tables: the database itself enforces their keys and checks."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A moment, always aware and in UTC: SQLite forgets the zone, PostgreSQL answers in the session's."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; raises ValueError for one without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; the ledger keeps moments")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The moment, aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = sa.MetaData()

COMPARISONS = sa.Table(
    "comparisons",
    METADATA,
    # The order they were made in, whatever the clock said; the last of a subject counts.
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("staging_version", sa.Text, nullable=False),
    sa.Column("staging_run", sa.Text, nullable=False),
    sa.Column("production_version", sa.Text),
    sa.Column("evidence_digest", sa.Text, nullable=False),
    # Of the evidence's JSON, see `comparisons.SCHEMA`: what is due follows from the other columns alone.
    sa.Column("schema", sa.Integer, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("compared_at", UtcDateTime, nullable=False),
    sa.Index("comparisons_by_subject", "subject", "number"),
)

REQUESTS = sa.Table(
    "requests",
    METADATA,
    # The order they were asked in, whatever the clock said.
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("staging_version", sa.Text, nullable=False),
    sa.Column("production_version", sa.Text),
    sa.Column("verdict", sa.Text, nullable=False),
    # Text, not JSON: kept exactly as it was shown, and PostgreSQL's JSON refuses the infinite bounds of an interval.
    sa.Column("evidence", sa.Text, nullable=False),
    # The digest covers subject, versions and numbers. A unique key over the versions themselves would let a cold start
    # be asked twice: NULL is never equal to NULL.
    sa.Column("evidence_digest", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("valid_until", UtcDateTime, nullable=False),
    sa.UniqueConstraint("evidence_digest", "round", name="asked_once"),
    sa.UniqueConstraint("id", "staging_version", "evidence_digest", name="what_was_shown"),
)

OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("override", sa.Boolean, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_state"),
    sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="decisions_are_signed"),
    sa.UniqueConstraint("request_id", "state", name="what_was_decided"),
)

PROMOTIONS = sa.Table(
    "promotions",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("replaced_version", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, unique=True),
    sa.Column("decision", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence_digest", sa.Text),
    sa.Column("promoted_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("sequence", "version", name="one_version_at_a_time"),
    # Compare-and-swap: entry n + 1 exists only on top of entry n, and only if that really was the version it replaces.
    sa.ForeignKeyConstraint(
        ["previous", "replaced_version"], ["promotions.sequence", "promotions.version"], name="extends_the_last"
    ),
    # What is promoted is what somebody approved, and what was approved is what was shown.
    sa.ForeignKeyConstraint(["request_id", "decision"], ["outcomes.request_id", "outcomes.state"], name="was_approved"),
    sa.ForeignKeyConstraint(
        ["request_id", "version", "evidence_digest"],
        ["requests.id", "requests.staging_version", "requests.evidence_digest"],
        name="was_shown",
    ),
    sa.CheckConstraint(
        "(sequence = 1 AND previous IS NULL AND replaced_version IS NULL)"
        " OR (sequence > 1 AND previous = sequence - 1 AND replaced_version IS NOT NULL)",
        name="no_gaps",
    ),
    sa.CheckConstraint(
        "(kind = 'promotion' AND request_id IS NOT NULL AND decision = 'approved' AND evidence_digest IS NOT NULL)"
        " OR (kind = 'rollback' AND request_id IS NULL)",
        name="promotions_have_a_decision",
    ),
)

STANDING_REQUESTS = sa.Table(
    "standing_requests",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    # The last month in its evidence.
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("first_month", sa.Text, nullable=False),
    sa.Column("last_month", sa.Text, nullable=False),
    sa.Column("production_version", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("evidence_digest", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("valid_until", UtcDateTime, nullable=False),
    sa.UniqueConstraint("evidence_digest", "round", name="standing_asked_once"),
    sa.CheckConstraint("first_month > subject AND last_month >= first_month", name="standing_months_in_order"),
)

STANDING_OUTCOMES = sa.Table(
    "standing_outcomes",
    METADATA,
    sa.Column("standing_id", sa.Text, sa.ForeignKey("standing_requests.id"), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_standing_state"),
    sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="standing_decisions_are_signed"),
    sa.UniqueConstraint("standing_id", "state", name="what_was_agreed"),
)

STANDING_ENDS = sa.Table(
    "standing_ends",
    METADATA,
    sa.Column("standing_id", sa.Text, primary_key=True),
    sa.Column("agreed", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    # None where a rule of the approval has ended it.
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.ForeignKeyConstraint(
        ["standing_id", "agreed"],
        ["standing_outcomes.standing_id", "standing_outcomes.state"],
        name="ends_what_was_agreed",
    ),
    sa.CheckConstraint("agreed = 'approved'", name="only_what_was_approved_ends"),
    sa.CheckConstraint("cause IN ('rollback', 'regret', 'withdrawal', 'successor')", name="known_cause"),
)

# Which of a policy's approvals rest on a standing one.
STANDING_USES = sa.Table(
    "standing_uses",
    METADATA,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("standing_id", sa.Text, nullable=False),
    sa.Column("agreed", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(
        ["request_id", "decision"], ["outcomes.request_id", "outcomes.state"], name="was_approved_under"
    ),
    sa.ForeignKeyConstraint(
        ["standing_id", "agreed"],
        ["standing_outcomes.standing_id", "standing_outcomes.state"],
        name="under_what_was_agreed",
    ),
    sa.CheckConstraint("decision = 'approved' AND agreed = 'approved'", name="approvals_under_approvals"),
)

# Whether to retrain before the month is over; one for each promotion, which is the latch.
ALARMS = sa.Table(
    "alarms",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("month", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("evidence_digest", sa.Text, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("valid_until", UtcDateTime, nullable=False),
    sa.UniqueConstraint("sequence", name="one_alarm_a_promotion"),
    sa.ForeignKeyConstraint(
        ["sequence", "version"], ["promotions.sequence", "promotions.version"], name="about_what_was_promoted"
    ),
)

ALARM_OUTCOMES = sa.Table(
    "alarm_outcomes",
    METADATA,
    sa.Column("alarm_id", sa.Text, sa.ForeignKey("alarms.id"), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("by", sa.Text),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_alarm_state"),
    sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="alarm_decisions_are_signed"),
)

REFUSALS = sa.Table(
    "refusals",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    # Not a foreign key: an attempt on a request that never existed is recorded too.
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

DELIVERIES = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("reminder", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("delivered_at", UtcDateTime, nullable=False),
)

PROJECTIONS = sa.Table(
    "projections",
    METADATA,
    sa.Column("event", sa.Text, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
)

# One link for each row of every other table, see `taxifare.approval.chain`.
CHAIN = sa.Table(
    "chain",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entry_table", sa.Text, nullable=False),
    sa.Column("entry_key", sa.Text, nullable=False),
    sa.Column("seal", sa.Text, nullable=False),
    sa.UniqueConstraint("entry_table", "entry_key", name="sealed_once"),
)

VERSIONS = sa.Table(
    "versions",
    METADATA,
    # A number is recorded once: it means one content for good, whatever MLflow has under it.
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("files_digest", sa.Text, nullable=False),
    # For versions that an earlier release registered: who vouched that they are what they were.
    sa.Column("adopted_by", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
)

SPENT_TOKENS = sa.Table(
    "spent_tokens",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    # What the token was about: `request …`, `promotion …`.
    sa.Column("about", sa.Text, nullable=False),
    # How many messages about it had been sent: the next one has fresh tokens.
    sa.Column("messages", sa.Integer, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("spent_tokens_by_about", "about"),
)

NOTICES = sa.Table(
    "notices",
    METADATA,
    sa.Column("about", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("message", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("delivered_at", UtcDateTime, nullable=False),
)
