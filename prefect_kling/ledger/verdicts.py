"""What checks said about a purchase's clip: looked at once for each specification, remembered with its row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.database import chunks, storable
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.schema import verdicts as table

__all__ = ["Verdict", "remember_verdict", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """What the checks of one specification found: whether a clip passed, and what they said about it."""

    passed: bool
    said: str


async def verdicts(ledger: Ledger, purchase_ids: Iterable[int]) -> dict[tuple[int, str], Verdict]:
    """All that is known about purchases, by the number of the row and the digest of the specification."""
    wanted = list(chunks(purchase_ids))

    async def work(connection: AsyncConnection) -> dict[tuple[int, str], Verdict]:
        found: dict[tuple[int, str], Verdict] = {}
        for some in wanted:
            rows = await connection.execute(
                select(table.c.purchase_id, table.c.spec, table.c.passed, table.c.said).where(
                    table.c.purchase_id.in_(some)
                )
            )
            found |= {(purchase_id, spec): Verdict(passed, said) for purchase_id, spec, passed, said in rows}
        return found

    return await in_backroom(ledger.db.read(work)) if wanted else {}


async def remember_verdict(ledger: Ledger, purchase_id: int, spec: str, verdict: Verdict) -> Verdict:
    """Writes down what the checks of a specification found.

    Returns:
        What counts: what was found first, as two runs may look at once, and one of them may have gone on with it.
    """
    values = {"passed": verdict.passed, "said": storable(verdict.said), "made_at": ledger.db.now}
    insert = ledger.insert(table).values(purchase_id=purchase_id, spec=spec, **values).on_conflict_do_nothing()

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(insert)

    await in_backroom(ledger.db.change(work))
    return (await verdicts(ledger, [purchase_id]))[purchase_id, spec]
