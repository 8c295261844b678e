"""Pruning: freeing the storage of takes that no film uses. What was paid for stays written down, as `pruned`.

The row says `pruned` before its file goes. A crash in between leaves a row that has a `stored_at` still; the next prune
removes its file, so nothing leaks. The other way round, a crash would leave a row that calls a clip stored that is
gone. While a file is being removed its row is locked, and has to be `pruned` still; and who fetches a pruned clip again
looks once more after saying so (`Keeper.keep`). So a clip that somebody wants back meanwhile is there in the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.clips import ClipStorage
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.films import FilmRecord, films_in
from prefect_kling.ledger.holds import HOLD_SECONDS
from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import hold_runs, pins, purchases
from prefect_kling.ledger.states import Event, State, step
from prefect_kling.ledger.takes import Slate

__all__ = ["Pruned", "prunable", "prune", "unused"]

_REASON: Final = "no film uses it"


@dataclass
class Pruned:
    """What a prune did.

    Attributes:
        removed: rows whose clip is no longer in storage.
        spared: rows that were left as they are, as something wants them by now.
        left: rows that are pruned and whose file could not be removed, with why; the next prune tries again.
    """

    removed: list[Purchase] = field(default_factory=list)
    spared: list[Purchase] = field(default_factory=list)
    left: list[tuple[Purchase, OSError]] = field(default_factory=list)


def unused(
    rows: Iterable[Purchase],
    films: Iterable[FilmRecord],
    *,
    pinned: Iterable[tuple[Slate, int]] = (),
    busy: Collection[str] = (),
) -> list[Purchase]:
    """The rows whose clips nothing wants. Pure.

    That is so where the whole film of their storyboard and edition was rendered after they were bought, and neither
    that nor any other film was made of them; a film of some shots alone says nothing about the others. What was bought
    after the film may be for the next one, what is pinned is what the next run uses, and a clip that shares its file or
    its bytes with one that is wanted stays.

    Args:
        rows: every row of the account that has a file in storage.
        films: every film of the account.
        pinned: what is pinned, with the take.
        busy: editions in which a run is under way.
    """
    known, pins_there = list(films), list(pinned)
    used = {number for film in known for number in film.purchases}
    rendered: dict[tuple[str, str], datetime] = {}
    for film in known:
        if film.rendered_at is not None and film.whole:
            place = film.edition, film.storyboard
            rendered[place] = max(film.rendered_at, rendered.get(place, film.rendered_at))
    # By key, as shots share purchases; and by name, as a take may have been bought in softer words.
    keys = {(slate.edition, key_of(slate.base_key, take)) for slate, take in pins_there}
    names = {(slate.edition, slate.storyboard, slate.shot, take) for slate, take in pins_there}

    def is_wanted(row: Purchase) -> bool:
        order = row.order
        film_made = rendered.get((order.edition, order.storyboard)) if order.storyboard else None
        return (
            film_made is None
            or row.created_at > film_made
            or row.id in used
            or (order.edition, order.key) in keys
            or (order.edition, order.storyboard, order.shot, order.take) in names
            or order.edition in busy
        )

    clips = [(row, row.clip) for row in rows if row.clip is not None]
    wanted = [clip for row, clip in clips if is_wanted(row)]
    paths, contents = {clip.path for clip in wanted}, {clip.sha256 for clip in wanted}
    return [row for row, clip in clips if not is_wanted(row) and clip.path not in paths and clip.sha256 not in contents]


async def prunable(
    ledger: Ledger, account: Account, storage: ClipStorage, *, edition: str | None = None
) -> list[Purchase]:
    """The rows whose clips can be removed from a storage, the oldest first; also those that a prune had to leave."""
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> list[Purchase]:
        return await _prunable(connection, ledger, account_id, storage)

    found = await in_backroom(ledger.db.read(work))
    return [row for row in found if edition is None or row.order.edition == edition]


async def _prunable(
    connection: AsyncConnection, ledger: Ledger, account_id: int, storage: ClipStorage
) -> list[Purchase]:
    with_file = purchases.c.state.in_([str(State.STORED), str(State.PRUNED)]), purchases.c.stored_at.is_not(None)
    found = await connection.execute(
        select(purchases).where(purchases.c.account_id == account_id, *with_file).order_by(purchases.c.id)
    )
    pinned = await connection.execute(
        select(pins.c.edition, pins.c.storyboard, pins.c.shot, pins.c.base_key, pins.c.take).where(
            pins.c.account_id == account_id
        )
    )
    moving = await connection.execute(
        select(hold_runs.c.edition).where(
            hold_runs.c.account_id == account_id, hold_runs.c.renewed_at > ledger.db.later(-HOLD_SECONDS)
        )
    )
    free = unused(
        [Purchase.read(row) for row in found.mappings()],
        await films_in(connection, account_id),
        pinned=[(Slate(*slate), int(take)) for *slate, take in pinned],
        busy=set(moving.scalars()),
    )
    return [row for row in free if row.clip is not None and storage.keeps(row.clip.path)]


async def prune(ledger: Ledger, account: Account, storage: ClipStorage, wanted: Iterable[Purchase]) -> Pruned:
    """Removes the clips of rows that `prunable` gave from storage, but for those that something wants by now.

    Their money stays counted and their clips' facts stay known, so that the keys of what was made of them stay.
    """
    account_id, asked = await ledger.account_id(account), list(wanted)
    numbers = {row.id for row in asked}

    async def mark(connection: AsyncConnection) -> list[Purchase]:
        await ledger.lock(connection, account_id)
        marked = []
        for row in await _prunable(connection, ledger, account_id, storage):
            if row.id in numbers:
                after, facts = step(row.state, Event.PRUNED), {"reason": _REASON}
                now = await ledger.change(connection, seen=row, after=after, event=Event.PRUNED, facts=facts)
                marked += [] if now is None else [now]
        return marked

    marked = await in_backroom(ledger.db.write(mark))
    pruned = Pruned(spared=[row for row in asked if row.id not in {one.id for one in marked}])
    for row in marked:
        try:
            is_gone = await _remove(ledger, storage, row)
        except _NotRemoved as error:
            pruned.left.append((row, error.why))
        else:
            (pruned.removed if is_gone else pruned.spared).append(row)
    return pruned


class _NotRemoved(Exception):
    """Rolls the transaction back in which a file could not be removed; no OSError, as those are the database's."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


async def _remove(ledger: Ledger, storage: ClipStorage, row: Purchase) -> bool:
    """Removes the file of a pruned row; False where the row is not pruned any more."""
    assert row.clip is not None  # noqa: S101 - only such rows are marked
    location = row.clip.path
    is_pruned = purchases.c.id == row.id, purchases.c.state == str(State.PRUNED)

    async def work(connection: AsyncConnection) -> bool:
        # Says that the file is gone, and locks the row until it is.
        found = await connection.execute(update(purchases).where(*is_pruned).values(stored_at=None))
        if found.rowcount == 0:
            return False
        try:
            await storage.remove(location)
        except OSError as error:
            raise _NotRemoved(error) from error
        return True

    return await in_backroom(ledger.db.write(work))
