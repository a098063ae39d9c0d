"""Comparisons: what a decision rests on is the ledger's own, not the orchestrator's log's."""

import sqlalchemy as sa
from alembic import op

from taxifare.approval.migrations.append_only import forbid_changes

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table; comparisons of before are taken over by whoever has the log that holds them."""
    op.create_table(
        "comparisons",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("staging_version", sa.Text, nullable=False),
        sa.Column("staging_run", sa.Text, nullable=False),
        sa.Column("production_version", sa.Text),
        sa.Column("evidence_digest", sa.Text, nullable=False),
        sa.Column("schema", sa.Integer, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("comparisons_by_subject", "comparisons", ["subject", "number"])
    forbid_changes("comparisons", "number")


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
