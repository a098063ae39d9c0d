"""The ledger: requests, outcomes, promotions, refusals, deliveries and projections, none of which can be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Each table with the keys that are unique in it.
TABLES = {
    "requests": ("number", "id", "evidence_digest, round"),
    "outcomes": ("request_id",),
    "promotions": ("sequence", "request_id"),
    "refusals": ("id",),
    "deliveries": ("request_id, channel, reminder",),
    "projections": ("event",),
}


def upgrade() -> None:
    """Creates the tables and the triggers that refuse every change of what is in them."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "requests",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("staging_version", sa.Text, nullable=False),
        sa.Column("production_version", sa.Text),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("requested_at", moment, nullable=False),
        sa.Column("valid_until", moment, nullable=False),
        sa.UniqueConstraint("evidence_digest", "round", name="asked_once"),
        sa.UniqueConstraint("id", "staging_version", "evidence_digest", name="what_was_shown"),
    )
    op.create_table(
        "outcomes",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("override", sa.Boolean, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_state"),
        sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="decisions_are_signed"),
        sa.UniqueConstraint("request_id", "state", name="what_was_decided"),
    )
    op.create_table(
        "promotions",
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
        sa.Column("promoted_at", moment, nullable=False),
        sa.UniqueConstraint("sequence", "version", name="one_version_at_a_time"),
        sa.ForeignKeyConstraint(
            ["previous", "replaced_version"], ["promotions.sequence", "promotions.version"], name="extends_the_last"
        ),
        sa.ForeignKeyConstraint(
            ["request_id", "decision"], ["outcomes.request_id", "outcomes.state"], name="was_approved"
        ),
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
    op.create_table(
        "refusals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", moment, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("request_id", sa.Text, sa.ForeignKey("requests.id"), primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("reminder", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("delivered_at", moment, nullable=False),
    )
    op.create_table(
        "projections", sa.Column("event", sa.Text, primary_key=True), sa.Column("at", moment, nullable=False)
    )
    _forbid_changes()


def _forbid_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table, keys in TABLES.items():
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {change} of {table} refused'); END"
                )
            # INSERT OR REPLACE deletes without firing the DELETE trigger, so it has to be stopped before it begins.
            for number, key in enumerate(keys):
                new = ", ".join(f"NEW.{column}" for column in key.split(", "))
                op.execute(
                    f"CREATE TRIGGER {table}_refuse_replace_{number} BEFORE INSERT ON {table} "  # noqa: S608
                    f"WHEN EXISTS (SELECT 1 FROM {table} WHERE ({key}) = ({new})) "
                    f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: {table} ({key}) exists'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION taxifare_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'the ledger is append-only: % of % refused', TG_OP, TG_TABLE_NAME; END $$"
    )
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION taxifare_refuse_change()"
        )


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
