"""Holds: the money of a storyboard that was admitted as a whole, until its shots are reserved one by one.

A hold belongs to an account, an edition and a document, and is shared by every run of it. Each item is a shot's upper
bound; reserving the shot moves the item's money into the purchase's row. A moved item stays, so that a second run does
not hold again what the first has bought. A hold ends with its last run, or lapses when nobody has renewed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.selectable import ScalarSelect

from prefect_kling.ledger.database import Database
from prefect_kling.ledger.owners import is_surely_gone
from prefect_kling.ledger.schema import hold_items as items
from prefect_kling.ledger.schema import hold_runs as runs

__all__ = ["HOLD_SECONDS", "Hold", "drop_dead", "end", "held", "move", "renew", "take"]

HOLD_SECONDS: Final = 300.0
"""A hold that nobody has renewed for so long counts no more."""


@dataclass(frozen=True)
class Hold:
    """What a run holds money for: a document, in an edition; and the run."""

    edition: str
    document: str
    run: str


async def take(
    connection: AsyncConnection,
    db: Database,
    account_id: int,
    hold: Hold,
    wanted: Mapping[tuple[str, int], int],
    owner: str,
) -> None:
    """Adds a run to a hold, with what it needs: micro-dollars by shot and take."""
    await renew(connection, db, account_id, hold, owner)
    rows = await connection.execute(
        select(items.c.shot, items.c.take, items.c.micro_usd, items.c.moved).where(_of(items, account_id, hold))
    )
    there = {(row.shot, row.take): row for row in rows}
    new = [
        {
            "account_id": account_id, "edition": hold.edition, "document": hold.document,
            "shot": shot, "take": number, "micro_usd": micro, "moved": False,
        }
        for (shot, number), micro in wanted.items()
        if (shot, number) not in there
    ]  # fmt: skip
    if new:
        await connection.execute(insert(items), new)
    for place, micro in wanted.items():
        found = there.get(place)
        if found is not None and not found.moved and found.micro_usd < micro:
            await connection.execute(
                update(items)
                .where(_of(items, account_id, hold), items.c.shot == place[0], items.c.take == place[1])
                .values(micro_usd=micro)
            )


async def renew(connection: AsyncConnection, db: Database, account_id: int, hold: Hold, owner: str) -> None:
    """Says that a run goes on."""
    renewed = await connection.execute(
        update(runs).where(_of(runs, account_id, hold), runs.c.run == hold.run).values(renewed_at=db.now, owner=owner)
    )
    if renewed.rowcount == 0:
        await connection.execute(
            insert(runs).values(
                account_id=account_id,
                edition=hold.edition,
                document=hold.document,
                run=hold.run,
                owner=owner,
                renewed_at=db.now,
            )
        )


async def end(connection: AsyncConnection, account_id: int, hold: Hold) -> None:
    """Takes a run out of a hold; the last one takes the hold with it."""
    await connection.execute(delete(runs).where(_of(runs, account_id, hold), runs.c.run == hold.run))
    await _drop_orphans(connection, account_id)


async def move(connection: AsyncConnection, account_id: int, hold: Hold, shot: str, number: int) -> None:
    """Takes a shot's money out of the hold, as it goes into a purchase's row."""
    values = {"account": account_id, "edition_of": hold.edition, "document_of": hold.document}
    await connection.execute(_MOVE, {**values, "shot_of": shot, "take_of": number})


def held(db: Database, *, of_document: bool) -> ScalarSelect[int]:
    """The sum that living holds hold, as a query on `:account`: all of them, or those on `:edition`, `:document`."""
    alive = exists().where(
        runs.c.account_id == items.c.account_id,
        runs.c.edition == items.c.edition,
        runs.c.document == items.c.document,
        runs.c.renewed_at > db.later(-HOLD_SECONDS),
    )
    found = select(func.sum(items.c.micro_usd)).where(items.c.account_id == bindparam("account"), ~items.c.moved, alive)
    if of_document:
        found = found.where(items.c.edition == bindparam("edition"), items.c.document == bindparam("document"))
    return found.scalar_subquery()


async def drop_dead(connection: AsyncConnection, db: Database, account_id: int) -> int:
    """Ends the part of runs that nobody has renewed in time, or whose process is surely gone.

    Returns:
        How many.
    """
    rows = await connection.execute(
        select(runs, (runs.c.renewed_at <= db.later(-HOLD_SECONDS)).label("lapsed")).where(
            runs.c.account_id == account_id
        )
    )
    dead = [row for row in rows.all() if row.lapsed or is_surely_gone(row.owner)]
    for row in dead:
        await connection.execute(
            delete(runs).where(_of(runs, account_id, Hold(row.edition, row.document, row.run)), runs.c.run == row.run)
        )
    if dead:
        await _drop_orphans(connection, account_id)
    return len(dead)


async def _drop_orphans(connection: AsyncConnection, account_id: int) -> None:
    kept = exists().where(
        runs.c.account_id == items.c.account_id,
        runs.c.edition == items.c.edition,
        runs.c.document == items.c.document,
    )
    await connection.execute(delete(items).where(items.c.account_id == account_id, ~kept))


def _of(table: Table, account_id: int, hold: Hold) -> ColumnElement[bool]:
    columns = table.c
    found: ColumnElement[bool] = (
        (columns.account_id == account_id) & (columns.edition == hold.edition) & (columns.document == hold.document)
    )
    return found


_MOVE = (
    update(items)
    .where(
        items.c.account_id == bindparam("account"),
        items.c.edition == bindparam("edition_of"),
        items.c.document == bindparam("document_of"),
        items.c.shot == bindparam("shot_of"),
        items.c.take == bindparam("take_of"),
    )
    .values(moved=True)
)
