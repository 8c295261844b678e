"""Settling an uncertain purchase: a person, or a callback, says which task it is, or that there is none.

A task id is taken only where nothing speaks against it; what the gateway leaves out is not held against it. The
judgement is pure; `settle_*` ask the gateway and write the answer down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import CREATE_SECONDS, KlingClient
from prefect_kling.gateway.errors import InvalidRequest, TaskNotFound
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Account, Purchase
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import Event, State

__all__ = [
    "WINDOW",
    "made_by_another",
    "named_by",
    "no_row_has",
    "objection",
    "settle_as_never_created",
    "settle_as_task",
    "task_named",
]

WINDOW: Final = timedelta(minutes=2)
"""How far the gateway's clock and the database's may be apart."""
_PREFIX: Final = "kling-video/"
SHORTEST_TOKEN: Final = 8


def objection(purchase: Purchase, task: Task, *, callback: bool = False) -> str | None:
    """Why a task cannot be what a purchase's lost answer named, or None.

    Args:
        purchase: uncertain, or abandoned.
        task: as the gateway describes it.
        callback: whether the purchase's token was sent, as part of its `callback_url`.
    """
    if made_by_another(task, purchase.order.model):
        return f"it was made by {task.model}, asked for was {purchase.order.model}"
    if task.created_at is not None and purchase.sent_at is not None:
        earliest, latest = purchase.sent_at - WINDOW, purchase.sent_at + timedelta(seconds=CREATE_SECONDS) + WINDOW
        if not earliest <= task.created_at <= latest:
            return (
                f"it was created at {task.created_at:%Y-%m-%d %H:%M:%S} UTC, the purchase was sent at "
                f"{purchase.sent_at:%Y-%m-%d %H:%M:%S} UTC"
            )
    if task.param is None:
        return None
    if callback and purchase.token not in task.param:
        return "it does not carry this purchase's token"
    return _other_words(purchase, task.param)


def made_by_another(task: Task, model: str) -> bool:
    """Whether a task names a model, and not this one."""
    return task.model is not None and task.model.removeprefix(_PREFIX) != model


def _other_words(purchase: Purchase, param: str) -> str | None:
    try:
        said = json.loads(param)
    except ValueError:
        return None
    if not isinstance(said, Mapping):
        return None
    for field in ("prompt", "mode", "duration", "aspect_ratio", "sound"):
        asked: Any = purchase.order.request.get(field)
        if asked is not None and said.get(field) is not None and str(said[field]) != str(asked):
            return f"its {field} is not what was asked for"
    return None


async def named_by(ledger: Ledger, account: Account, token: str) -> Purchase:
    """The purchase that a token, or at least its first 8 characters, names.

    Raises:
        InvalidRequest: none, or several.
    """
    if len(token) < SHORTEST_TOKEN:
        raise InvalidRequest(f"'{token}' is too short: give at least {SHORTEST_TOKEN} characters of the token")
    found = await ledger.of_account(account, purchases.c.token.startswith(token, autoescape=True))
    if len(found) != 1:
        said = "no purchase" if not found else f"{len(found)} purchases"
        raise InvalidRequest(f"the account '{account.name}' has {said} with the token {token[:8]}…")
    return found[0]


async def settle_as_task(ledger: Ledger, account: Account, client: KlingClient, token: str, task_id: str) -> Purchase:
    """Says that an uncertain purchase is this task.

    Returns:
        Its row, `submitted`: the next run or sweep brings its clip home.

    Raises:
        InvalidRequest: the purchase is not uncertain, or the task is not it.
        TaskNotFound: the gateway does not know the task.
    """
    purchase = await _unsettled(ledger, account, token, task_id)
    if purchase.task_id == task_id:
        return purchase
    await no_row_has(ledger, account, task_id)
    task = await task_named(client, task_id)
    why = objection(purchase, task)
    if why is not None:
        raise InvalidRequest(f"Task {task_id} is not the purchase of {purchase.named}: {why}. Nothing was changed")
    try:
        settled = await ledger.happened(purchase, Event.ACCEPTED, task_id=task_id, reason=None, error=None)
    except IntegrityError:
        await no_row_has(ledger, account, task_id)  # somebody was quicker
        raise
    if settled.task_id != task_id:
        raise InvalidRequest(f"The answer to {purchase.named} has come meanwhile: it is task {settled.task_id}")
    return settled


async def settle_as_never_created(ledger: Ledger, account: Account, token: str) -> Purchase:
    """Says that an uncertain purchase was never created: its money is free, and the next run buys it.

    Returns:
        Its row, `abandoned`.

    Raises:
        InvalidRequest: the purchase is not uncertain.
    """
    purchase = await _unsettled(ledger, account, token, None)
    return await ledger.happened(purchase, Event.NEVER_CREATED, reason="settled: never created")


async def task_named(client: KlingClient, task_id: str) -> Task:
    """How the gateway describes a task.

    Raises:
        TaskNotFound: it does not know it.
    """
    try:
        return await client.get(task_id)
    except TaskNotFound as error:
        raise TaskNotFound(f"The gateway does not know task {task_id}; nothing was changed", task_id=task_id) from error


async def no_row_has(ledger: Ledger, account: Account, task_id: str) -> None:
    """Makes sure that a task is nobody's yet.

    Raises:
        InvalidRequest: a row has it, which is named.
    """
    other = await ledger.by_task(account, task_id)
    if other is not None:
        raise InvalidRequest(
            f"Task {task_id} belongs to {other.named} already ({other.short}, {other.state}). Nothing was changed"
        )


async def _unsettled(ledger: Ledger, account: Account, token: str, task_id: str | None) -> Purchase:
    await ledger.reclaim(account)  # its sender may be gone, or its answer in the journal
    purchase = await named_by(ledger, account, token)
    if purchase.task_id is not None and purchase.task_id == task_id:
        return purchase
    # An abandoned one can still turn up; that it was never created has been said already.
    allowed = (State.UNCERTAIN,) if task_id is None else (State.UNCERTAIN, State.ABANDONED)
    if purchase.state not in allowed:
        raise InvalidRequest(f"{purchase.named} ({purchase.short}) is {purchase.state}: there is nothing to settle")
    return purchase
