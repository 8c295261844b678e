"""Bringing a ledger up to date: tables made where there are none, older ones migrated, newer ones refused."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.database import Database
from prefect_kling.ledger.schema import HEAD, VERSION_TABLE, this_ledger

__all__ = ["SCRIPTS", "up_to_date"]

SCRIPTS: Final = Path(__file__).with_name("migrations")
_LOCK: Final = 0x6B6C696E67  # "kling": PostgreSQL's name for "one upgrade at a time"


async def up_to_date(db: Database) -> str:
    """Makes sure of the tables.

    Returns:
        The ledger's id.

    Raises:
        LedgerUnavailable: it cannot be used, or was made by a newer version of this package.
    """

    async def look(connection: AsyncConnection) -> str | None:
        if await connection.run_sync(_version) != HEAD:
            return None
        return (await connection.execute(select(this_ledger.c.id))).scalar_one_or_none()

    async def upgrade(connection: AsyncConnection) -> str:
        if not db.is_sqlite:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = await connection.run_sync(_version)
        if found != HEAD:
            await connection.run_sync(_migrate, db.shown, found)
        there: str | None = (await connection.execute(select(this_ledger.c.id))).scalar_one_or_none()
        if there is not None:
            return there
        made = secrets.token_hex(16)
        await connection.execute(insert(this_ledger).values(id=made, made_at=db.now))
        return made

    found = await db.read(look)
    return await db.write(upgrade) if found is None else found


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608


def _migrate(connection: Connection, shown: str, found: str | None) -> None:
    # Slow to import, and needed once in a ledger's life.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerUnavailable(
            f"The ledger {shown} was made by a newer version of prefect-kling (its tables are at version {found}, this "
            f"one knows up to {HEAD}). Upgrade prefect-kling; nothing is bought without the ledger"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
