"""What the gateway's moderation has refused: only then is a shot's video in softer words that shot's."""

from __future__ import annotations

from collections.abc import Iterable

from prefect_kling.gateway.moderation import is_moderated
from prefect_kling.ledger.buying import as_before
from prefect_kling.ledger.database import chunks
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import State

__all__ = ["is_moderated_row", "moderated"]


async def moderated(ledger: Ledger, account: Account, edition: str, keys: Iterable[str]) -> set[str]:
    """Those of some keys that moderation has refused, on a create or as a task."""
    found: set[str] = set()
    for some in chunks(keys):
        rows = await ledger.of_account(
            account,
            purchases.c.edition == edition,
            purchases.c.key.in_(some),
            purchases.c.state.in_([str(State.REFUSED), str(State.FAILED)]),
        )
        found |= {row.order.key for row in rows if is_moderated_row(row)}
    return found


def is_moderated_row(purchase: Purchase) -> bool:
    """Whether a purchase ended as moderation refused it."""
    return purchase.state in (State.REFUSED, State.FAILED) and is_moderated(as_before(purchase))
