"""Standing approvals: the question, its answer, its end, and what was approved under it."""

import sqlalchemy as sa
from alembic import op

from taxifare.approval.migrations.append_only import forbid_changes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "standing_requests",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("first_month", sa.Text, nullable=False),
        sa.Column("last_month", sa.Text, nullable=False),
        sa.Column("production_version", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("evidence_digest", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("requested_at", moment, nullable=False),
        sa.Column("valid_until", moment, nullable=False),
        sa.UniqueConstraint("evidence_digest", "round", name="standing_asked_once"),
        sa.CheckConstraint("first_month > subject AND last_month >= first_month", name="standing_months_in_order"),
    )
    op.create_table(
        "standing_outcomes",
        sa.Column("standing_id", sa.Text, sa.ForeignKey("standing_requests.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.CheckConstraint("state IN ('approved', 'rejected', 'expired', 'void')", name="known_standing_state"),
        sa.CheckConstraint(
            "(state IN ('approved', 'rejected')) = (by IS NOT NULL)", name="standing_decisions_are_signed"
        ),
        sa.UniqueConstraint("standing_id", "state", name="what_was_agreed"),
    )
    op.create_table(
        "standing_ends",
        sa.Column("standing_id", sa.Text, primary_key=True),
        sa.Column("agreed", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("by", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["standing_id", "agreed"],
            ["standing_outcomes.standing_id", "standing_outcomes.state"],
            name="ends_what_was_agreed",
        ),
        sa.CheckConstraint("agreed = 'approved'", name="only_what_was_approved_ends"),
        sa.CheckConstraint("cause IN ('rollback', 'regret', 'withdrawal', 'successor')", name="known_cause"),
    )
    op.create_table(
        "standing_uses",
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
    forbid_changes("standing_requests", "number", "id", "evidence_digest, round")
    forbid_changes("standing_outcomes", "standing_id")
    forbid_changes("standing_ends", "standing_id")
    forbid_changes("standing_uses", "request_id")


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
