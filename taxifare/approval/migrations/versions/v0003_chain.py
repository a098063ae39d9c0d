"""The chain: a seal for every entry, see `taxifare.approval.chain`; the entries of before are sealed as they are."""

from dataclasses import asdict
from operator import itemgetter

import sqlalchemy as sa
from alembic import op

from taxifare.approval.chain import Link, key_of, seal
from taxifare.approval.migrations.append_only import forbid_changes

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADOPTED = ("comparisons", "requests", "outcomes", "promotions", "refusals", "deliveries", "projections")
"""The tables of before, in the order in which they are sealed; the rows of each in the order of their keys."""


def upgrade() -> None:
    """Creates the table and seals what is there."""
    chain = op.create_table(
        "chain",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entry_table", sa.Text, nullable=False),
        sa.Column("entry_key", sa.Text, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
        sa.UniqueConstraint("entry_table", "entry_key", name="sealed_once"),
    )
    if links := _adopted():
        op.bulk_insert(chain, links)
    forbid_changes("chain", "number", "entry_table, entry_key")


def _adopted() -> list[dict[str, object]]:
    """Returns the links of the entries that are there already."""
    connection, before = op.get_bind(), ""
    links: list[dict[str, object]] = []
    for name in ADOPTED:
        table = sa.Table(name, sa.MetaData(), autoload_with=connection, resolve_fks=False)
        keys = [column.name for column in table.primary_key]
        rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        for row in sorted(rows, key=itemgetter(*keys)):
            before = seal(before, name, row)
            link = Link(len(links) + 1, name, key_of(row, keys), before)
            links.append(asdict(link))
    return links


def downgrade() -> None:
    """Refused: going back would throw the record away."""
    raise NotImplementedError("the ledger is append-only; restore a backup instead")
