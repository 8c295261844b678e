"""Adopting a clip that was bought elsewhere: its task gets a row of its own, as a take of a shot, and costs nothing."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import count

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_kling.clips import RESULT_LIFE
from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import InvalidRequest
from prefect_kling.ledger.backroom import in_backroom
from prefect_kling.ledger.keys import key_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Order, Purchase
from prefect_kling.ledger.schema import is_live, purchases
from prefect_kling.ledger.settling import made_by_another, no_row_has, objection, task_named
from prefect_kling.ledger.states import State
from prefect_kling.ledger.takes import Pin, Slate, bought_for, pin_in

__all__ = ["adopt", "objection_to_adopting"]


def objection_to_adopting(order: Order, task: Task, now: datetime) -> str | None:
    """Why a task cannot be a take of what an order asks for, or None. Pure.

    Its prompt is not looked at: a clip that was made in other words is adopted on purpose.
    """
    if task.state == "failed":
        return f"it failed at the gateway ({task.fail_message or 'no reason given'}), so there is no clip"
    if not task.known:
        return f"the gateway calls it {task.state!r}, and nobody knows what that means; ask again later"
    if made_by_another(task, order.model):
        return f"it was made by {task.model}, and the shot is of {order.model}: name that model in the storyboard first"
    if task.completed_at is not None and now - task.completed_at > RESULT_LIFE:
        return (
            f"it was completed at {task.completed_at:%Y-%m-%d %H:%M} UTC, and the gateway keeps results for "
            f"{RESULT_LIFE.days} days"
        )
    return None


async def adopt(
    ledger: Ledger,
    account: Account,
    client: KlingClient,
    order: Order,
    base_key: str,
    task_id: str,
    *,
    run: str = "",
    also: Sequence[str] = (),
) -> Purchase:
    """Makes a task that was bought elsewhere a take of a shot, and pins that take.

    It is the first take where that has no live row, else the next free one. It counts against no budget.

    Args:
        ledger, account: where it is written down.
        client: of the account.
        order: what the shot asks for; its take, key, price and run are not looked at.
        base_key: the order's key without its take.
        task_id: the gateway's.
        run: that adopts it, as in `takes.retake`; empty for none.
        also: keys without a take under which the same shot may have been bought, in other words.

    Returns:
        Its row, `submitted`: whoever waits for it and keeps it brings its clip home.

    Raises:
        InvalidRequest: another row has the task, or it cannot be a take of this shot.
        TaskNotFound: the gateway does not know the task.
    """
    await ledger.reclaim(account)  # it may be an answer in the journal
    await no_row_has(ledger, account, task_id)
    task = await task_named(client, task_id)
    why = objection_to_adopting(order, task, await ledger.time())
    if why is not None:
        raise InvalidRequest(f"Task {task_id} cannot be adopted: {why}. Nothing was changed", task_id=task_id)
    account_id, token = await ledger.account_id(account), secrets.token_hex(16)
    slate = Slate(order.edition, order.storyboard, order.shot, base_key)

    async def work(connection: AsyncConnection) -> Purchase:
        now = await ledger.lock(connection, account_id)
        # This may be the second try of a commit whose success nobody heard of.
        done = (await connection.execute(select(purchases).where(purchases.c.token == token))).mappings().first()
        if done is not None:
            return Purchase.read(done)
        rows = await connection.execute(select(purchases).where(bought_for(account_id, slate, also), is_live))
        live = [Purchase.read(row) for row in rows.mappings()]
        _is_no_lost_answer(task, live)
        taken = {row.order.take for row in live}
        take = next(number for number in count(1) if number not in taken)
        adopted = await ledger.add(
            connection,
            account_id,
            replace(order, take=take, key=key_of(base_key, take), micro_usd=0, run=run),
            token,
            state=str(State.SUBMITTED),
            owner="",
            task_id=task_id,
            created_at=now,
            sent_at=now,
            answered_at=now,
        )
        await pin_in(ledger, connection, account_id, slate, Pin(take, run, series=take))
        return adopted

    try:
        return await in_backroom(ledger.db.write(work))
    except IntegrityError:
        await no_row_has(ledger, account, task_id)  # somebody was quicker
        raise


def _is_no_lost_answer(task: Task, live: Sequence[Purchase]) -> None:
    """Refuses a task that an uncertain purchase of the same video may be: its money is held there already."""
    for purchase in live:
        if purchase.state is State.UNCERTAIN and objection(purchase, task) is None:
            raise InvalidRequest(
                f"Task {task.task_id} may be what the lost answer to the purchase of {purchase.named} named. Where it "
                f"is, say `prefect-kling ledger resolve {purchase.short} --task-id {task.task_id}`; else say "
                f"`prefect-kling ledger resolve {purchase.short} --never-created`, and adopt it then. Nothing was "
                "changed",
                task_id=task.task_id,
            )
