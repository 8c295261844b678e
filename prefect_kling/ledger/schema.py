"""The ledger's tables. Amounts are integer micro-dollars; times are UTC, kept as whole milliseconds since 1970.

Every table's name starts with `kling_`, so that a ledger can live in a PostgreSQL database beside other things.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from prefect_kling.ledger.states import IN_FLIGHT, LIVE, State

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "Time",
    "accounts",
    "counters",
    "films",
    "hints",
    "hold_items",
    "hold_runs",
    "hosted",
    "is_live",
    "is_moving",
    "metadata",
    "pins",
    "purchases",
    "this_ledger",
    "verdicts",
]

HEAD: Final = "0004"
"""The newest migration; a ledger with another version is brought up to this one, or refused where it is newer."""
VERSION_TABLE: Final = "kling_version"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Time(TypeDecorator[datetime]):
    """An aware UTC time, kept as milliseconds: the same order and the same arithmetic in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """To the database."""
        return None if value is None else (value - _EPOCH) // timedelta(milliseconds=1)

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else _EPOCH + timedelta(milliseconds=int(value))


# SQLite numbers rows by itself only where the type is INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData()

this_ledger = Table(
    "kling_ledger",
    metadata,
    Column("id", String(32), primary_key=True),  # tells this ledger's answers from another's
    Column("made_at", Time, nullable=False),
)

accounts = Table(
    "kling_accounts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("base_url", String(2048), nullable=False),
    Column("name", String(64), nullable=False),
    UniqueConstraint("base_url", "name", name="kling_accounts_one"),
)

# Said in the same words by the partial indexes and by every query that is meant to use them: SQLite compares the words.
is_live: Final = text(f"state IN ({', '.join(repr(str(s)) for s in sorted(LIVE))}) AND NOT spare")
is_moving: Final = text(
    f"state IN ({', '.join(repr(str(s)) for s in sorted({*IN_FLIGHT, State.UNCERTAIN, State.COMPLETED}))})"
)

purchases = Table(
    "kling_purchases",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("token", String(32).with_variant(String(32, "C"), "postgresql"), nullable=False, unique=True),
    Column("account_id", ForeignKey("kling_accounts.id"), nullable=False),
    Column("edition", String(255), nullable=False),
    Column("key", String(80), nullable=False),
    Column("state", String(16), nullable=False),
    Column("spare", Boolean, nullable=False, default=False),  # turned up when another row had taken its place
    # What was wanted, and by whom.
    Column("storyboard", String(255), nullable=False, default=""),
    Column("document", String(64), nullable=False, default=""),
    Column("shot", String(64), nullable=False, default=""),
    Column("take", Integer, nullable=False, default=1),
    Column("model", String(64), nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("request", JSON, nullable=False),  # the canonical body: no URL of ours, no Base64
    Column("folder", String(512), nullable=False, default="clips"),
    Column("run", String(64), nullable=False, default=""),
    # The money: what it was bought for, and what of it budgets count now.
    Column("price", BigInteger, nullable=False),
    Column("counted", BigInteger, nullable=False),
    # Who is sending it, and until when that is believed without proof.
    Column("owner", String(255), nullable=False, default=""),
    Column("lease_until", Time),
    Column("callback", String(2048)),  # the address that the gateway was asked to call, without the token
    # What the gateway said.
    Column("task_id", String(255)),
    Column("result_url", Text),
    Column("expires_at", Time),
    Column("reason", Text),
    Column("error", String(64)),
    # What came of it.
    Column("clip", JSON),
    Column("created_at", Time, nullable=False),
    Column("sent_at", Time),
    Column("answered_at", Time),
    Column("polled_at", Time),
    Column("missing_since", Time),
    Column("ended_at", Time),
    Column("stored_at", Time),
    Index(
        "kling_purchases_live",
        "account_id",
        "key",
        "edition",
        unique=True,
        sqlite_where=is_live,
        postgresql_where=is_live,
    ),
    Index("kling_purchases_task", "account_id", "task_id", unique=True),
    Index("kling_purchases_moving", "account_id", "state", sqlite_where=is_moving, postgresql_where=is_moving),
    Index("kling_purchases_shot", "account_id", "storyboard", "edition", "shot"),
    Index("kling_purchases_time", "account_id", "created_at"),
)

counters = Table(
    "kling_counters",
    metadata,
    Column("account_id", ForeignKey("kling_accounts.id"), primary_key=True),
    Column("period", String(80), primary_key=True),  # day:2026-11-22, month:2026-11, run:<id>
    Column("micro_usd", BigInteger, nullable=False),
)


def _hold() -> tuple[Column[Any], ...]:
    return (
        Column("account_id", ForeignKey("kling_accounts.id"), primary_key=True),
        Column("edition", String(255), primary_key=True),
        Column("document", String(64), primary_key=True),
    )


hold_runs = Table(
    "kling_hold_runs",
    metadata,
    *_hold(),
    Column("run", String(64), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("renewed_at", Time, nullable=False),
)

hold_items = Table(
    "kling_hold_items",
    metadata,
    *_hold(),
    Column("shot", String(64), primary_key=True),
    Column("take", Integer, primary_key=True, autoincrement=False),
    Column("micro_usd", BigInteger, nullable=False),
    Column("moved", Boolean, nullable=False, default=False),  # its money is in a purchase's row now
)

pins = Table(
    "kling_pins",
    metadata,
    Column("account_id", ForeignKey("kling_accounts.id"), primary_key=True),
    Column("edition", String(255), primary_key=True),
    Column("storyboard", String(255), primary_key=True),
    Column("shot", String(64), primary_key=True),
    Column("base_key", String(80), primary_key=True),  # the key without its take
    Column("take", Integer, nullable=False),
    Column("run", String(64), nullable=False),
    Column("series", Integer, nullable=False),  # the take with which the last --retake began
)

hosted = Table(
    "kling_hosted",
    metadata,
    Column("account_id", ForeignKey("kling_accounts.id"), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("url", Text, nullable=False),
    Column("expires_at", Time, nullable=False),  # when the URL stops being safe to use
)

films = Table(
    "kling_films",
    metadata,
    Column("account_id", ForeignKey("kling_accounts.id"), primary_key=True),
    Column("edition", String(255), primary_key=True),
    Column("name", String(512), primary_key=True),  # in storage: films/main/lighthouse.mp4
    Column("storyboard", String(255), nullable=False),
    Column("document", String(64), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("film", JSON, nullable=False),
    Column("purchases", JSON, nullable=False),  # the numbers of the rows that it was made of
    Column("rendered_at", Time, nullable=False),
    Column("whole", Boolean, nullable=False),  # not of some shots alone
)

verdicts = Table(
    "kling_verdicts",
    metadata,
    Column("purchase_id", ForeignKey("kling_purchases.id"), primary_key=True),
    Column("spec", String(64), primary_key=True),  # the digest of what was checked
    Column("passed", Boolean, nullable=False),
    Column("said", Text, nullable=False),
    Column("made_at", Time, nullable=False),
)

hints = Table(
    "kling_hints",
    metadata,
    Column("purchase_id", ForeignKey("kling_purchases.id"), primary_key=True),
    Column("task_id", String(255), primary_key=True),  # as somebody who knew the purchase's token said
    Column("state", String(16), nullable=False),
    Column("heard_at", Time, nullable=False),
    Index("kling_hints_time", "heard_at"),
)
