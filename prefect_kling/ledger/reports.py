"""What people ask of a ledger: its purchases as plain data, and what was spent by day, storyboard and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import purchases

__all__ = ["Spending", "as_json", "spending"]

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Spending:
    """What counts as spent or held, of one UTC day, storyboard and model, in micro-dollars."""

    day: date
    storyboard: str
    model: str
    purchases: int
    micro_usd: int


async def spending(ledger: Ledger, account: Account, *, since: date | None = None) -> list[Spending]:
    """What an account spent, the newest day first; money that was given back is not in it."""
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> list[Spending]:
        # In whole days of milliseconds since 1970, which both databases divide alike.
        day = (type_coerce(purchases.c.created_at, BigInteger) // _DAY_MS).label("day")
        query = (
            select(day, purchases.c.storyboard, purchases.c.model, func.count(), func.sum(purchases.c.counted))
            .where(purchases.c.account_id == account_id, purchases.c.counted > 0)
            .group_by(day, purchases.c.storyboard, purchases.c.model)
            .order_by(day.desc(), purchases.c.storyboard, purchases.c.model)
        )
        if since is not None:
            query = query.where(purchases.c.created_at >= datetime(since.year, since.month, since.day, tzinfo=UTC))
        return [
            Spending(date(1970, 1, 1) + timedelta(days=int(number)), storyboard, model, count, int(micro))
            for number, storyboard, model, count, micro in await connection.execute(query)
        ]

    return await in_backroom(ledger.db.read(work))


def as_json(purchase: Purchase, *, whole: bool = False) -> dict[str, Any]:
    """A purchase as `ledger list --json` prints it; `whole` adds what was asked for and what came of it."""
    order = purchase.order
    found: dict[str, Any] = {
        "token": purchase.token,
        "edition": order.edition,
        "storyboard": order.storyboard,
        "shot": order.shot,
        "take": order.take,
        "key": order.key,
        "state": str(purchase.state),
        "task_id": purchase.task_id,
        "model": order.model,
        "seconds": order.seconds,
        "usd": float(Decimal(purchase.counted) / 1_000_000),
        "created_at": _time(purchase.created_at),
        "reason": purchase.reason,
        "clip": purchase.clip.path if purchase.clip else None,
    }
    if whole:
        times: Mapping[str, datetime | None] = {
            name: getattr(purchase, name)
            for name in ("sent_at", "answered_at", "ended_at", "stored_at", "expires_at", "polled_at")
        }
        found |= {
            "price_usd": float(Decimal(order.micro_usd) / 1_000_000),
            "run": order.run,
            "request": dict(order.request),
            "error": purchase.error,
            "spare": purchase.spare,
            "next": str(purchase.next),
            "sha256": purchase.clip.sha256 if purchase.clip else None,
            **{name: _time(value) for name, value in times.items()},
        }
    return found


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat(timespec="milliseconds")
