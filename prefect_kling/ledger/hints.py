"""What callbacks said, written down before they are answered. A hint is no news about a purchase: only a GET is.

Who knows a purchase's token may name any task; so a purchase keeps few hints, and the same one within a few seconds is
the same one.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.database import PATIENCE, chunks
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.schema import hints, purchases

__all__ = ["AGAIN_SECONDS", "MOST_HINTS", "Call", "Heard", "Hint", "forget_hints", "hear", "heard_since", "hints_of"]

AGAIN_SECONDS: Final = 5.0
"""The same task said of the same purchase counts anew after so long."""
MOST_HINTS: Final = 50
"""A purchase has one task; more than so many are somebody's play."""
_SELECTOR: Final = 16
_KEPT: Final = timedelta(days=8)


@dataclass(frozen=True)
class Call:
    """A callback: the token of its path, and what it said; None where that was no callback of the gateway's."""

    token: str
    task_id: str | None = None
    state: str = ""


@dataclass(frozen=True)
class Heard:
    """What became of a call.

    Attributes:
        purchase: the row that its token names; None where no row has that token.
        short: of the token, for people.
        fresh: whether it was said for the first time, or for the first time in a while.
        kept: whether it is in the ledger; not, where the purchase has too many hints already.
    """

    purchase: int | None
    short: str = ""
    fresh: bool = False
    kept: bool = False


@dataclass(frozen=True)
class Hint:
    """A task that a callback named for a purchase."""

    purchase: int
    task_id: str
    state: str
    heard_at: datetime


async def hear(ledger: Ledger, calls: Sequence[Call], *, patience: float = PATIENCE) -> list[Heard]:
    """Writes down what calls said, whatever their purchases' state; many at once cost one commit.

    Args:
        ledger: which one.
        calls: with or without news.
        patience: seconds that a database in trouble is waited for.

    Returns:
        What became of each, in their order.

    Raises:
        LedgerUnavailable: nothing of it is written down.
    """

    async def work() -> list[Heard]:
        rows = await ledger.db.read(lambda connection: _named(connection, calls), patience=patience)
        said = {(rows[call.token], call.task_id): call for call in calls if call.token in rows and call.task_id}
        if not said:
            return [Heard(rows.get(call.token), call.token[:8]) for call in calls]

        async def write(connection: AsyncConnection) -> tuple[set[Any], set[Any]]:
            return await _written(ledger, connection, said)

        kept, fresh = await ledger.db.write(write, patience=patience)
        found = []
        for call in calls:
            this = (rows.get(call.token), call.task_id)
            found.append(Heard(this[0], call.token[:8], fresh=this in fresh, kept=this in kept))
            fresh.discard(this)  # said twice in one go, it is news once
        return found

    return await in_backroom(work())


async def _named(connection: AsyncConnection, calls: Sequence[Call]) -> dict[str, int]:
    """The rows that have the calls' tokens.

    A row is looked for by half of its token, and the other half compared in constant time: how long the database takes
    to find a token's neighbours tells nobody how to complete one.
    """
    rows: dict[str, int] = {}
    tokens = {call.token for call in calls}
    for some in chunks(token[:_SELECTOR] for token in tokens):
        near = or_(*(purchases.c.token.between(half, f"{half}g") for half in some))
        for number, token in await connection.execute(select(purchases.c.id, purchases.c.token).where(near)):
            rows |= {ours: number for ours in tokens if hmac.compare_digest(ours, token)}
    return rows


async def _written(
    ledger: Ledger, connection: AsyncConnection, said: dict[tuple[int, str], Call]
) -> tuple[set[Any], set[Any]]:
    there: dict[int, set[str]] = {}
    for some in chunks(number for number, _ in said):
        query = select(hints.c.purchase_id, hints.c.task_id).where(hints.c.purchase_id.in_(some))
        for number, task_id in await connection.execute(query):
            there.setdefault(number, set()).add(task_id)
    kept: set[Any] = set()
    for number, task_id in said:
        known = there.setdefault(number, set())
        if task_id in known or len(known) < MOST_HINTS:
            known.add(task_id)
            kept.add((number, task_id))
    # In one order for everybody: two receivers that are told the same at once would wait for each other.
    values = [{"purchase_id": this[0], "task_id": this[1], "state": said[this].state} for this in sorted(kept)]
    if not values:
        return kept, set()
    statement = ledger.insert(hints).values([{**row, "heard_at": ledger.db.now} for row in values])
    statement = statement.on_conflict_do_update(
        index_elements=[hints.c.purchase_id, hints.c.task_id],
        set_={"state": statement.excluded.state, "heard_at": statement.excluded.heard_at},
        where=hints.c.heard_at < ledger.db.later(-AGAIN_SECONDS),
    ).returning(hints.c.purchase_id, hints.c.task_id)
    return kept, {(number, task_id) for number, task_id in await connection.execute(statement)}


async def hints_of(ledger: Ledger, numbers: Collection[int]) -> list[Hint]:
    """What was said of these purchases, the newest first."""

    async def work(connection: AsyncConnection) -> list[Hint]:
        found = [await _read(connection, hints.c.purchase_id.in_(some)) for some in chunks(numbers)]
        return sorted((hint for some in found for hint in some), key=lambda hint: hint.heard_at, reverse=True)

    return await in_backroom(ledger.db.read(work)) if numbers else []


async def heard_since(ledger: Ledger, seconds: float) -> list[Hint]:
    """What was said in the last so many seconds, of any purchase."""
    since = hints.c.heard_at > ledger.db.later(-seconds)
    return await in_backroom(ledger.db.read(lambda connection: _read(connection, since)))


async def _read(connection: AsyncConnection, condition: Any) -> list[Hint]:
    rows = await connection.execute(select(hints).where(condition))
    return [Hint(row.purchase_id, row.task_id, row.state, row.heard_at) for row in rows]


async def forget_hints(ledger: Ledger) -> int:
    """Removes what was said before any result could still be had.

    Returns:
        How many there were.
    """
    old = hints.c.heard_at < ledger.db.later(-_KEPT / timedelta(seconds=1))

    async def work(connection: AsyncConnection) -> int:
        return int((await connection.execute(delete(hints).where(old))).rowcount)

    return await in_backroom(ledger.db.write(work))
