"""Which take of a shot is wanted: the first, or the one that a `--retake` has pinned (design.md, "Ledger", 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import pins, purchases
from prefect_kling.ledger.states import State

__all__ = ["FINISHED", "Pin", "Slate", "bought_for", "pin_in", "pin_take", "pinned", "retake"]

FINISHED = (State.COMPLETED, State.STORED, State.LOST, State.PRUNED)
"""A take in one of these is followed by another one when it is retaken; any other is gone on with."""


@dataclass(frozen=True)
class Slate:
    """What a pin belongs to: a shot of a storyboard in an edition, and what it is but for the take."""

    edition: str
    storyboard: str
    shot: str
    base_key: str


@dataclass(frozen=True)
class Pin:
    """The take that runs use in place of the first.

    Attributes:
        take: its number.
        run: that pinned it.
        series: the take with which the last `--retake` began, 1 before any: takes that follow failed checks are counted
            from there, whichever of them is chosen.
    """

    take: int
    run: str
    series: int = 1


async def pinned(ledger: Ledger, account: Account, edition: str, storyboard: str) -> dict[tuple[str, str], Pin]:
    """What is pinned for a storyboard: by shot and key without take."""
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> dict[tuple[str, str], Pin]:
        rows = await connection.execute(
            select(pins.c.shot, pins.c.base_key, pins.c.take, pins.c.run, pins.c.series).where(
                pins.c.account_id == account_id, pins.c.edition == edition, pins.c.storyboard == storyboard
            )
        )
        return {(shot, base): Pin(*pin) for shot, base, *pin in rows}

    return await in_backroom(ledger.db.read(work))


async def pin_take(
    ledger: Ledger, account: Account, slate: Slate, take: int, run: str, *, seen: Pin | None = None
) -> None:
    """Pins the take that a run has chosen, for later runs; one that somebody else has pinned meanwhile stays.

    Args:
        ledger, account, slate: what is chosen.
        take: the number.
        run: the flow run, or empty.
        seen: the pin that the choice was made under.
    """
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> None:
        await ledger.lock(connection, account_id)
        if await _pin_of(connection, account_id, slate) == seen:
            pin = Pin(take, run) if seen is None else replace(seen, take=take, run=run)
            await pin_in(ledger, connection, account_id, slate, pin)

    await in_backroom(ledger.db.write(work))


async def retake(ledger: Ledger, account: Account, slate: Slate, run: str, *, also: Sequence[str] = ()) -> Pin:
    """Pins the next take, for this run and later ones.

    A retry of the same run gets the same pin; a take that was pinned and not finished is gone on with.

    Args:
        ledger, account, slate: what is retaken.
        run: the flow run, or empty.
        also: keys without a take under which the same shot may have been bought, in other words.
    """
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> Pin:
        await ledger.lock(connection, account_id)
        found = await _pin_of(connection, account_id, slate)
        if found is not None and run and found.run == run:
            return found
        pin = Pin(1, run) if found is None else replace(found, run=run)
        of_slate = bought_for(account_id, slate, also)
        finished = await connection.execute(
            select(func.count()).where(
                of_slate, purchases.c.take == pin.take, purchases.c.state.in_([str(state) for state in FINISHED])
            )
        )
        if finished.scalar_one():
            last = (await connection.execute(select(func.max(purchases.c.take)).where(of_slate))).scalar_one()
            following = max(pin.take, int(last or 0)) + 1
            pin = Pin(following, run, series=following)
        await pin_in(ledger, connection, account_id, slate, pin)
        return pin

    return await in_backroom(ledger.db.write(work))


async def pin_in(ledger: Ledger, connection: AsyncConnection, account_id: int, slate: Slate, pin: Pin) -> None:
    """Pins a take in a transaction that holds the account's lock."""
    statement = ledger.insert(pins).values(account_id=account_id, **vars(slate), **vars(pin))
    key = [pins.c.account_id, pins.c.edition, pins.c.storyboard, pins.c.shot, pins.c.base_key]
    await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=vars(pin)))


async def _pin_of(connection: AsyncConnection, account_id: int, slate: Slate) -> Pin | None:
    query = select(pins.c.take, pins.c.run, pins.c.series).where(_of(account_id, slate))
    found = (await connection.execute(query)).first()
    return None if found is None else Pin(*found)


def bought_for(account_id: int, slate: Slate, also: Sequence[str] = ()) -> ColumnElement[bool]:
    """The purchases of every take of a slate's video, or of the same in other words; whoever wanted them."""
    bases = (slate.base_key, *also)
    return and_(
        purchases.c.account_id == account_id,
        purchases.c.edition == slate.edition,
        or_(*(purchases.c.key.startswith(key_of(base, 0)[:-1], autoescape=True) for base in bases)),
    )


def _of(account_id: int, slate: Slate) -> ColumnElement[bool]:
    return and_(
        pins.c.account_id == account_id,
        pins.c.edition == slate.edition,
        pins.c.storyboard == slate.storyboard,
        pins.c.shot == slate.shot,
        pins.c.base_key == slate.base_key,
    )
