"""The first ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LIVE = "state IN ('completed', 'lost', 'reserved', 'sending', 'stored', 'submitted', 'uncertain') AND NOT spare"
_MOVING = "state IN ('completed', 'reserved', 'sending', 'submitted', 'uncertain')"


def upgrade() -> None:
    """Makes every table."""
    op.create_table(
        "kling_ledger",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("made_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kling_accounts",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("base_url", sa.String(2048), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.UniqueConstraint("base_url", "name", name="kling_accounts_one"),
    )
    op.create_table(
        "kling_purchases",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("token", sa.String(32), nullable=False, unique=True),
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), nullable=False),
        sa.Column("edition", sa.String(255), nullable=False),
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spare", sa.Boolean, nullable=False),
        sa.Column("storyboard", sa.String(255), nullable=False),
        sa.Column("document", sa.String(64), nullable=False),
        sa.Column("shot", sa.String(64), nullable=False),
        sa.Column("take", sa.Integer, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("folder", sa.String(512), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("price", sa.BigInteger, nullable=False),
        sa.Column("counted", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("task_id", sa.String(255)),
        sa.Column("result_url", sa.Text),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.Column("error", sa.String(64)),
        sa.Column("clip", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("answered_at", sa.BigInteger),
        sa.Column("polled_at", sa.BigInteger),
        sa.Column("missing_since", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("stored_at", sa.BigInteger),
    )
    _index("live", "account_id", "key", "edition", unique=True, where=_LIVE)
    _index("task", "account_id", "task_id", unique=True)
    _index("moving", "account_id", "state", where=_MOVING)
    _index("shot", "account_id", "storyboard", "edition", "shot")
    _index("time", "account_id", "created_at")
    op.create_table(
        "kling_counters",
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), primary_key=True),
        sa.Column("period", sa.String(80), primary_key=True),
        sa.Column("micro_usd", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kling_hold_runs",
        *_hold(),
        sa.Column("run", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("renewed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kling_hold_items",
        *_hold(),
        sa.Column("shot", sa.String(64), primary_key=True),
        sa.Column("take", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("micro_usd", sa.BigInteger, nullable=False),
        sa.Column("moved", sa.Boolean, nullable=False),
    )
    op.create_table(
        "kling_pins",
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), primary_key=True),
        sa.Column("edition", sa.String(255), primary_key=True),
        sa.Column("storyboard", sa.String(255), primary_key=True),
        sa.Column("shot", sa.String(64), primary_key=True),
        sa.Column("base_key", sa.String(80), primary_key=True),
        sa.Column("take", sa.Integer, nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
    )


def _index(name: str, *columns: str, unique: bool = False, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        f"kling_purchases_{name}",
        "kling_purchases",
        list(columns),
        unique=unique,
        sqlite_where=condition,
        postgresql_where=condition,
    )


def _hold() -> tuple[sa.Column[int] | sa.Column[str], ...]:
    return (
        sa.Column("account_id", _ID, sa.ForeignKey("kling_accounts.id"), primary_key=True),
        sa.Column("edition", sa.String(255), primary_key=True),
        sa.Column("document", sa.String(64), primary_key=True),
    )
