"""Alarms: the question whether to retrain before the month is over, and its answer."""

import sqlalchemy as sa
from alembic import op

from taxifare.approval.migrations.append_only import forbid_changes

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "alarms",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.Text, nullable=False),
        sa.Column("requested_at", moment, nullable=False),
        sa.Column("valid_until", moment, nullable=False),
        sa.UniqueConstraint("sequence", name="one_alarm_a_promotion"),
        sa.ForeignKeyConstraint(
            ["sequence", "version"], ["promotions.sequence", "promotions.version"], name="about_what_was_promoted"
        ),
    )
    op.create_table(
        "alarm_outcomes",
        sa.Column("alarm_id", sa.Text, sa.ForeignKey("alarms.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_alarm_state"),
        sa.CheckConstraint("(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="alarm_decisions_are_signed"),
    )
    forbid_changes("alarms", "number", "id", "sequence")
    forbid_changes("alarm_outcomes", "alarm_id")


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
