"""What is hosted, which films were made, what checks said; and `pruned` rows, which are live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LIVE = (
    "state IN ('completed', 'lost', 'pruned', 'reserved', 'sending', 'stored', 'submitted', 'uncertain') AND NOT spare"
)


def upgrade() -> None:
    """Adds the tables, and makes the index of live rows anew."""
    op.create_table(
        "kling_hosted",
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kling_films",
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), primary_key=True),
        sa.Column("edition", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(512), primary_key=True),
        sa.Column("storyboard", sa.String(255), nullable=False),
        sa.Column("document", sa.String(64), nullable=False),
        sa.Column("recipe", sa.String(64), nullable=False),
        sa.Column("film", sa.JSON, nullable=False),
        sa.Column("purchases", sa.JSON, nullable=False),
        sa.Column("rendered_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kling_verdicts",
        sa.Column("purchase_id", _ID, sa.ForeignKey("kling_purchases.id"), primary_key=True),
        sa.Column("spec", sa.String(64), primary_key=True),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("said", sa.Text, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
    )
    op.drop_index("kling_purchases_live", table_name="kling_purchases")
    op.create_index(
        "kling_purchases_live",
        "kling_purchases",
        ["account_id", "key", "edition"],
        unique=True,
        sqlite_where=sa.text(_LIVE),
        postgresql_where=sa.text(_LIVE),
    )
