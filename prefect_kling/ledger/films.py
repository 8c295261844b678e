"""Which films were made, and of which purchases: what needs no rendering again, and which takes no film uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import films

__all__ = ["FilmRecord", "film_named", "films_in", "remember_film"]


@dataclass(frozen=True)
class FilmRecord:
    """A film that was rendered.

    Attributes:
        edition, storyboard: whose takes it shows.
        name: of its file in storage, such as `films/main/lighthouse.mp4`.
        document: the digest of the storyboard's document.
        recipe: the digest of all that makes the film what it is; another one means that it has to be made anew.
        film: what the film is, as plain data.
        purchases: the numbers of the rows whose clips it was made of; `ledger prune` leaves those alone.
        rendered_at: when, by the database's clock; None until it is remembered.
        whole: whether it shows the whole storyboard, and not some of its shots alone.
    """

    edition: str
    storyboard: str
    name: str
    document: str
    recipe: str
    film: Mapping[str, Any]
    purchases: tuple[int, ...]
    rendered_at: datetime | None = None
    whole: bool = True


async def film_named(ledger: Ledger, account: Account, edition: str, name: str) -> FilmRecord | None:
    """The film of an edition that has this name in storage."""
    account_id = await ledger.account_id(account)

    async def work(connection: AsyncConnection) -> list[FilmRecord]:
        return await films_in(connection, account_id, films.c.edition == edition, films.c.name == name)

    found = await in_backroom(ledger.db.read(work))
    return found[0] if found else None


async def films_in(connection: AsyncConnection, account_id: int, *conditions: ColumnElement[bool]) -> list[FilmRecord]:
    """An account's films as a transaction sees them, the oldest first."""
    query = select(films).where(films.c.account_id == account_id, *conditions)
    rows = await connection.execute(query.order_by(films.c.rendered_at, films.c.edition, films.c.name))
    return [
        FilmRecord(
            edition=row["edition"],
            storyboard=row["storyboard"],
            name=row["name"],
            document=row["document"],
            recipe=row["recipe"],
            film=row["film"],
            purchases=tuple(row["purchases"]),
            rendered_at=row["rendered_at"],
            whole=row["whole"],
        )
        for row in rows.mappings()
    ]


async def remember_film(ledger: Ledger, account: Account, record: FilmRecord) -> None:
    """Writes down that a film was rendered just now, in place of what had its name; `rendered_at` is not looked at."""
    account_id = await ledger.account_id(account)
    values = {
        "storyboard": record.storyboard,
        "document": record.document,
        "recipe": record.recipe,
        "film": dict(record.film),
        "purchases": list(record.purchases),
        "whole": record.whole,
        "rendered_at": ledger.db.now,
    }
    statement = ledger.insert(films).values(account_id=account_id, edition=record.edition, name=record.name, **values)
    key = [films.c.account_id, films.c.edition, films.c.name]

    async def work(connection: AsyncConnection) -> None:
        await ledger.lock(connection, account_id)  # whoever prunes looks at films and rows under this lock
        await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values))

    await in_backroom(ledger.db.write(work))
