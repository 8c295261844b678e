"""How a purchase whose answer was lost comes home: a callback names its task, and the gateway bears it out.

What a callback names is taken only by `settling.objection`: a token that somebody has learned, with another task's id,
changes nothing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import IntegrityError

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.errors import KlingError, TaskNotFound
from prefect_kling.gateway.waiting import Alarm
from prefect_kling.ledger.hints import hints_of
from prefect_kling.ledger.keeping import Keeper
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.settling import objection
from prefect_kling.ledger.states import Event, State

__all__ = ["MAY_COME_HOME", "bring_home", "come_home"]

MAY_COME_HOME: Final = (State.UNCERTAIN, State.ABANDONED, State.REFUSED, State.RELEASED)
"""The states in which a purchase has no task, and one may turn up."""
LOOK_EVERY: Final = 15.0
"""Seconds after which an uncertain purchase's row is read again: somebody may have settled it by hand."""


async def bring_home(keeper: Keeper, purchase: Purchase, asked: dict[str, bool] | None = None) -> Purchase:
    """Asks the gateway about the tasks that callbacks named for a purchase, and takes the one that is its own.

    Args:
        keeper: of the account.
        purchase: as last seen.
        asked: tasks that are not asked about again, and whether they are known to be none of it; added to.

    Returns:
        Its row: submitted, completed or failed where a task was found, else as it is.
    """
    ledger, account, logger = keeper.ledger, keeper.account, keeper.logger
    asked = {} if asked is None else asked
    if purchase.task_id is not None or purchase.state not in MAY_COME_HOME:
        return purchase
    for hint in await hints_of(ledger, [purchase.id]):
        if hint.task_id in asked:
            continue
        other = await ledger.by_task(account, hint.task_id)
        if other is not None and other.id == purchase.id:
            return other  # somebody else who waits has brought it home meanwhile
        asked[hint.task_id] = other is not None
        if asked[hint.task_id]:
            continue
        task = await _named(keeper, purchase, hint.task_id)
        if task is None:
            continue
        why = objection(purchase, task, callback=True)
        if why is not None:
            asked[hint.task_id] = True
            logger.warning("A callback named task %s as %s, and is not believed: %s", hint.task_id, purchase.named, why)
            continue
        try:
            found = await ledger.happened(purchase, Event.ACCEPTED, task_id=task.task_id, reason=None, error=None)
        except IntegrityError:
            continue  # another purchase was quicker to have it
        if found.task_id != task.task_id:
            return found
        logger.info("The lost answer to %s has come home: it is task %s", purchase.named, task.task_id)
        return await keeper.learned(found, task)
    return purchase


async def _named(keeper: Keeper, purchase: Purchase, task_id: str) -> Task | None:
    """How the gateway describes a task that somebody named for a purchase; None where it does not, now."""
    try:
        return await keeper.client.get(task_id)
    except TaskNotFound:
        return None
    except KlingError as error:
        # Whatever it is: who knows the token may have named one that the gateway does not let us see.
        keeper.logger.warning("No news of task %s, which may be %s: %s", task_id, purchase.named, error)
        return None


async def come_home(keeper: Keeper, purchase: Purchase, alarm: Alarm, *, max_wait: float) -> Purchase:
    """Waits until an uncertain purchase is settled: by a callback, by somebody's hand, or not within `max_wait`.

    Args:
        keeper: of the account.
        purchase: uncertain.
        alarm: rings when a callback has come for it.
        max_wait: seconds from its POST.

    Returns:
        Its row, which is still uncertain where nothing came.
    """
    sent = purchase.sent_at or purchase.created_at
    told, asked, looked = False, dict[str, bool](), keeper.clock()
    while True:
        purchase = await bring_home(keeper, await keeper.ledger.get(purchase.id), asked)
        if purchase.state is not State.UNCERTAIN:
            return purchase
        left = max_wait - (await keeper.ledger.time() - sent).total_seconds()
        if left <= 0:
            return purchase
        if not told:
            told = True
            keeper.logger.warning(
                "The answer to the purchase of %s was lost; its callback is waited for, for %.0f s at most. "
                "`prefect-kling ledger resolve %s` settles it sooner",
                purchase.named,
                left,
                purchase.short,
            )
        rung = await alarm.wait(min(left, LOOK_EVERY))
        if not rung or keeper.clock() - looked >= LOOK_EVERY:
            # Those that the gateway did not know, or gave no news of, may be there by now; however often it rings.
            looked = keeper.clock()
            asked = {task_id: known for task_id, known in asked.items() if known}
