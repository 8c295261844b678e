"""What the gateway hosts for an account (gateway.md, `/files`): a content is uploaded once while its URL lives."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account
from prefect_kling.ledger.schema import hosted

__all__ = ["hosted_url", "remember_hosted"]

_USABLE_SECONDS: Final = (RESULT_LIFE - RESULT_MARGIN) / timedelta(seconds=1)


async def hosted_url(ledger: Ledger, account: Account, sha256: str) -> str | None:
    """Where the gateway hosts a content, by the sha256 of its bytes.

    Returns:
        None where it was never uploaded, and within 6 hours of the URL's end: the next shot may wait in the gateway's
        queue for a while.
    """
    account_id = await ledger.account_id(account)
    query = select(hosted.c.url).where(
        hosted.c.account_id == account_id, hosted.c.sha256 == sha256, hosted.c.expires_at > ledger.db.now
    )

    async def work(connection: AsyncConnection) -> str | None:
        return (await connection.execute(query)).scalar_one_or_none()

    return await in_backroom(ledger.db.read(work))


async def remember_hosted(ledger: Ledger, account: Account, sha256: str, url: str) -> None:
    """Writes down that a content was uploaded just now, in place of what was known of it."""
    values = {"url": url, "expires_at": ledger.db.later(_USABLE_SECONDS)}
    statement = ledger.insert(hosted).values(account_id=await ledger.account_id(account), sha256=sha256, **values)
    upsert = statement.on_conflict_do_update(index_elements=[hosted.c.account_id, hosted.c.sha256], set_=values)

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(upsert)

    await in_backroom(ledger.db.change(work))
