"""Where a purchase's callback was asked for, and what callbacks have said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Adds the column and the table; purchases until now asked for no callback."""
    op.add_column("kling_purchases", sa.Column("callback", sa.String(2048)))
    op.create_table(
        "kling_hints",
        sa.Column("purchase_id", _ID, sa.ForeignKey("kling_purchases.id"), primary_key=True),
        sa.Column("task_id", sa.String(255), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("heard_at", sa.BigInteger, nullable=False),
    )
    op.create_index("kling_hints_time", "kling_hints", ["heard_at"])
    if op.get_bind().dialect.name == "postgresql":
        # Tokens are looked for by their first half, as a range of bytes. In a Danish database "aa" comes after "z".
        op.alter_column("kling_purchases", "token", type_=sa.String(32, collation="C"))
