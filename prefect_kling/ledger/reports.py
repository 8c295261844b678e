"""What people ask of a ledger: its purchases as plain data, what to do about each, and what was spent on what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import BigInteger, ColumnElement, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.money import Limits
from prefect_kling.ledger.owners import is_surely_gone
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import is_moving, purchases
from prefect_kling.ledger.states import State

__all__ = [
    "Budget",
    "Budgets",
    "Grouping",
    "Spending",
    "as_json",
    "budgets",
    "grouped",
    "latest",
    "resolving",
    "spending",
    "to_do",
]

Grouping = Literal["day", "storyboard", "model"]
_DAY_MS: Final = 86_400_000


async def latest(
    ledger: Ledger, account: Account, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[Purchase]:
    """An account's newest rows that fulfil conditions on `schema.purchases`, the newest last."""
    account_id = await ledger.account_id(account)
    query = select(purchases).where(purchases.c.account_id == account_id, *conditions)

    async def work(connection: AsyncConnection) -> list[Purchase]:
        rows = await connection.execute(query.order_by(purchases.c.id.desc()).limit(limit))
        return [Purchase.read(row) for row in rows.mappings()][::-1]

    return await in_backroom(ledger.db.read(work))


def to_do(purchase: Purchase) -> str:
    """What a person does about a purchase next, in a few words; empty where there is nothing to do."""
    match purchase.state:
        case State.RESERVED | State.SENDING:
            return "sweep: its run is gone" if is_surely_gone(purchase.owner) else "wait: a run is buying it"
        case State.SUBMITTED:
            return "run again, or sweep"
        case State.COMPLETED if purchase.expires_at is not None:
            return f"run again, or sweep, by {purchase.expires_at:%Y-%m-%d}"
        case State.COMPLETED:
            return "run again, or sweep"
        case State.UNCERTAIN:
            return "ledger resolve"
        case State.LOST if purchase.order.shot:
            return f"--retake {purchase.order.shot} buys a new one"
        case State.LOST:
            return "another edition buys a new one"
        case State.PRUNED:
            by = f", by {purchase.expires_at:%Y-%m-%d}" if purchase.expires_at else ""
            return f"a run that wants it fetches it{by}"
        case State.REFUSED | State.FAILED:
            return "ledger show says why"
        case _:
            return ""


def resolving(purchase: Purchase) -> tuple[str, str]:
    """The two commands that settle an uncertain purchase: it is that task, or there is none."""
    command = f"prefect-kling ledger resolve {purchase.short}"
    return f"{command} --task-id ID", f"{command} --never-created"


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


def grouped(rows: Iterable[Spending], by: Grouping | None) -> dict[tuple[str, ...], tuple[int, int]]:
    """Purchases and micro-dollars by day, storyboard and model, or by one of them; in the order of these names."""
    sums: dict[tuple[str, ...], tuple[int, int]] = {}
    for row in rows:
        names = {"day": row.day.isoformat(), "storyboard": row.storyboard, "model": row.model}
        key = tuple(names.values()) if by is None else (names[by],)
        count, micro = sums.get(key, (0, 0))
        sums[key] = (count + row.purchases, micro + row.micro_usd)
    return dict(sorted(sums.items()))


@dataclass(frozen=True)
class Budget:
    """A budget and what counts against it, in micro-dollars; a limit of None is no limit."""

    limit: int | None
    bought: int
    held: int

    @property
    def left(self) -> int | None:
        """What may still be bought; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.bought - self.held)


@dataclass(frozen=True)
class Budgets:
    """How an account stands with its budgets now.

    Attributes:
        day, month: of this UTC day and month.
        uncertain, uncertain_micro_usd: how many purchases nobody knows the fate of, and what is held for them.
    """

    day: Budget
    month: Budget
    uncertain: int
    uncertain_micro_usd: int


async def budgets(ledger: Ledger, account: Account, limits: Limits) -> Budgets:
    """How an account stands with its budgets now."""
    spent = await ledger.spent(account, Hold("", "", ""))
    uncertain = await ledger.of_account(account, is_moving, purchases.c.state == str(State.UNCERTAIN))
    return Budgets(
        Budget(limits.per_day, spent.day, spent.held),
        Budget(limits.per_month, spent.month, spent.held),
        len(uncertain),
        sum(purchase.counted for purchase in uncertain),
    )


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
