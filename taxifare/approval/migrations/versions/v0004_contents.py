"""Contents: what each version is, tokens that were spent, and notices of what nobody has to answer."""

import sqlalchemy as sa
from alembic import op

from taxifare.approval.migrations.append_only import forbid_changes

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables; versions of before are recorded by a person, who says that they are what they were."""
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "versions",
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("files_digest", sa.Text, nullable=False),
        sa.Column("adopted_by", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("recorded_at", moment, nullable=False),
    )
    op.create_table(
        "spent_tokens",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("at", moment, nullable=False),
    )
    op.create_index("spent_tokens_by_about", "spent_tokens", ["about"])
    op.create_table(
        "notices",
        sa.Column("about", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("message", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("delivered_at", moment, nullable=False),
    )
    forbid_changes("versions", "version")
    forbid_changes("spent_tokens", "number")
    forbid_changes("notices", "about, channel, message")


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
