"""Finishing what nobody waits for: the dead are recovered, tasks asked about, clips brought home before they expire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import or_, select

from prefect_kling.clips import RESULT_LIFE, RESULT_MARGIN
from prefect_kling.gateway.errors import KlingError, TaskNotFound
from prefect_kling.ledger.hints import forget_hints
from prefect_kling.ledger.homecoming import MAY_COME_HOME, bring_home
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.schema import hints, is_moving, purchases
from prefect_kling.ledger.states import State

__all__ = ["Swept", "sweep"]

AT_ONCE: Final = 4
MOST_NAMED: Final = 10
_logger = logging.getLogger(__name__)


@dataclass
class Swept:
    """What a sweep did, by the short tokens of purchases.

    Attributes:
        recovered: answers, reservations and holds that the dead had left, and purchases that a callback named.
        stored, failed, lost: purchases that ended now.
        waiting: those that the gateway still works on.
        uncertain: those that wait for somebody's decision.
        errors: by purchase, what could not be done this time.
        raised: the same errors as they were raised.
    """

    recovered: int = 0
    stored: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    uncertain: list[Purchase] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    raised: list[KlingError | OSError] = field(default_factory=list)

    def sentence(self) -> str:
        """One line for a run's final state."""
        parts = [
            (self.recovered, "recovered"),
            (len(self.stored), "stored"),
            (len(self.failed), "failed"),
            (len(self.lost), "lost"),
            (len(self.waiting), "still generating"),
            (len(self.uncertain), "uncertain"),
            (len(self.errors), "to be tried again"),
        ]
        return ", ".join(f"{count} {name}" for count, name in parts if count) or "nothing to do"

    def what_to_do(self) -> str:
        """What somebody has to do now, in sentences; empty where nobody has to do anything."""
        said = []
        if self.uncertain:
            them = _named(f"{purchase.short} ({purchase.named})" for purchase in self.uncertain)
            said.append(
                f"Nobody knows whether {them} was bought, and it is not bought again by itself: "
                "`prefect-kling ledger show TOKEN` says what was asked and what it may have cost, "
                "`prefect-kling ledger resolve TOKEN --task-id ID` or `--never-created` settles it"
            )
        if self.lost:
            said.append(
                f"{_named(self.lost)} was paid for, and the gateway no longer has it: `--retake` or another edition "
                "buys a new clip"
            )
        if self.failed:
            said.append(f"The gateway made no clip of {_named(self.failed)} and bills none; a run buys it again")
        reasons = [f"{token}: {error.rstrip('.')}" for token, error in self.errors.items()]
        if reasons:
            said.append(f"Not done this time, tried again by the next sweep: {_named(reasons, '; ')}")
        return ". ".join(said)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, with short tokens."""
        return {
            "recovered": self.recovered,
            "stored": list(self.stored),
            "failed": list(self.failed),
            "lost": list(self.lost),
            "waiting": list(self.waiting),
            "uncertain": [purchase.short for purchase in self.uncertain],
            "errors": dict(self.errors),
        }


async def sweep(keeper: Keeper, *, logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = _logger) -> Swept:
    """Goes once over an account's purchases that are not finished; what goes wrong with one leaves the others.

    Args:
        keeper: of the account, with storage.
        logger: where each purchase that ends is told.
    """
    ledger, account, swept = keeper.ledger, keeper.account, Swept()
    swept.recovered = await ledger.reclaim(account)
    if keeper.storage is not None:
        await keeper.storage.tidy()
    # Before all others, as what comes home may be completed.
    states = [str(state) for state in MAY_COME_HOME]
    named = purchases.c.id.in_(select(hints.c.purchase_id))
    strays = await ledger.of_account(account, named, purchases.c.state.in_(states), purchases.c.task_id.is_(None))
    await _each(strays, lambda purchase: _bring_home(keeper, purchase, swept), swept)
    # The first to expire first; what is being generated has its seven days before it.
    completed = await ledger.of_account(account, is_moving, purchases.c.state == str(State.COMPLETED))
    completed.sort(key=lambda purchase: purchase.expires_at or purchase.created_at)
    await _each(completed, lambda purchase: _keep(keeper, purchase, swept), swept)
    submitted = await ledger.of_account(account, is_moving, purchases.c.state == str(State.SUBMITTED))
    await _each(submitted, lambda purchase: _look(keeper, purchase, swept), swept)
    # What the gateway said it no longer had may be there after all, as long as results are kept.
    life = (RESULT_LIFE + RESULT_MARGIN) / timedelta(seconds=1)
    recent = or_(purchases.c.answered_at > ledger.db.later(-life), purchases.c.sent_at > ledger.db.later(-life))
    # One that was stored once may be there again at any time, as a disk is that was away.
    worth_a_look = or_(recent, purchases.c.clip.is_not(None))
    missing = await ledger.of_account(account, purchases.c.state == str(State.LOST), worth_a_look)
    ago = await ledger.time() - RESULT_LIFE - RESULT_MARGIN
    missing = [row for row in missing if (row.answered_at or row.created_at) > ago or await _is_back(keeper, row)]
    await _each(missing, lambda purchase: _try_again(keeper, purchase, swept), swept)
    swept.uncertain = await ledger.of_account(account, is_moving, purchases.c.state == str(State.UNCERTAIN))
    await forget_hints(ledger)
    logger.info("Swept: %s", swept.sentence())
    return swept


async def _each(found: list[Purchase], work: Callable[[Purchase], Awaitable[None]], swept: Swept) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(purchase: Purchase) -> None:
        async with slots:
            try:
                await work(purchase)
            except TaskNotFound:
                swept.lost.append(purchase.short)
            except (KlingError, OSError) as error:
                swept.errors[purchase.short] = str(error)
                swept.raised.append(error)

    await asyncio.gather(*(one(purchase) for purchase in found))


async def _bring_home(keeper: Keeper, purchase: Purchase, swept: Swept) -> None:
    found = await bring_home(keeper, purchase)
    swept.recovered += found.state not in MAY_COME_HOME
    if found.state is State.FAILED:
        swept.failed.append(found.short)


async def _look(keeper: Keeper, purchase: Purchase, swept: Swept) -> None:
    found = await keeper.look(purchase)
    match found.state:
        case State.COMPLETED:
            await _keep(keeper, found, swept)
        case State.FAILED:
            swept.failed.append(found.short)
        case State.LOST:
            swept.lost.append(found.short)
        case State.SUBMITTED:
            swept.waiting.append(found.short)


async def _keep(keeper: Keeper, purchase: Purchase, swept: Swept) -> None:
    await keeper.keep(purchase)
    swept.stored.append(purchase.short)


async def _is_back(keeper: Keeper, purchase: Purchase) -> bool:
    """Whether the file of a lost purchase is there; the gateway need not be asked about it any more."""
    storage, clip = keeper.storage, purchase.clip
    return storage is not None and clip is not None and await storage.size(clip.path) == clip.bytes


async def _try_again(keeper: Keeper, purchase: Purchase, swept: Swept) -> None:
    try:
        await keeper.keep(purchase, again=True)
    except TaskNotFound:
        return  # told as lost when it was found to be
    swept.stored.append(purchase.short)


def _named(things: Iterable[str], between: str = ", ") -> str:
    first = list(things)
    more = f" and {len(first) - MOST_NAMED} more" if len(first) > MOST_NAMED else ""
    return between.join(first[:MOST_NAMED]) + more
