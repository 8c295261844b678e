"""Waiting for a task by polling: a pure schedule, and a loop that ends with the task, a failure or a timeout.

Only a GET decides how a task stands. Trouble on the way to the gateway is no news about the task: the wait goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import (
    GatewayUnavailable,
    GenerationFailed,
    GenerationTimeout,
    RateLimited,
    TaskNotFound,
)

__all__ = ["NOT_FOUND_IS_BELIEVED_AFTER", "ODD_ANSWERS", "failure_of", "poll_delays", "wait_for"]

NOT_FOUND_IS_BELIEVED_AFTER: Final = 300.0
"""Seconds, from the start of a wait or the last good answer; a new task may not be readable everywhere yet."""
ODD_ANSWERS: Final = 3
_logger = logging.getLogger(__name__)


def poll_delays(interval: float, rand: Callable[[], float]) -> Iterator[float]:
    """Seconds before each poll: twice the interval, then once, growing to twice, each give or take a tenth.

    No clip is done at once, so the first look comes later than the following ones.
    """
    yield 2 * interval * (0.9 + 0.2 * rand())
    factor = 1.0
    while True:
        yield factor * interval * (0.9 + 0.2 * rand())
        factor = min(2.0, factor * 1.1)


async def wait_for(
    client: KlingClient,
    task_id: str,
    *,
    poll_interval: float = 5.0,
    max_wait: float = 3600.0,
    on_state: Callable[[Task], Awaitable[None]] | None = None,
    on_answer: Callable[[Task], Awaitable[None]] | None = None,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = _logger,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rand: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> Task:
    """Polls until a task has completed.

    Args:
        client: of the account that bought it.
        task_id: the gateway's name of the task.
        poll_interval: seconds, see `poll_delays`.
        max_wait: seconds until giving up; the task itself goes on.
        on_state: called when the gateway's word for the task's state changes.
        on_answer: called after each answer.
        logger: where trouble on the way is reported.
        sleep, rand, clock: time and chance, for tests.

    Returns:
        The completed task, with at least one result URL.

    Raises:
        GenerationFailed: the gateway says so; nothing is billed.
        GenerationTimeout: it did not end within `max_wait`.
        TaskNotFound: the gateway has not known it for 5 minutes.
        GatewayUnavailable: it reports, again and again, a state that nobody knows or a result without URL.
    """
    begun, state, odd = clock(), None, 0
    missing_since: float | None = 0.0
    for delay in poll_delays(poll_interval, rand):
        await sleep(max(0.0, min(delay, max_wait - (clock() - begun))))
        waited = clock() - begun
        try:
            task = await _ask(client, task_id, logger)
        except TaskNotFound:
            missing_since = waited if missing_since is None else missing_since
            if waited - missing_since >= NOT_FOUND_IS_BELIEVED_AFTER:
                raise
            task = None
        if task is not None:
            missing_since = None
            if on_answer is not None:
                await on_answer(task)
            if task.state != state and on_state is not None:
                await on_state(task)
            state = task.state
            odd = 0 if _makes_sense(task) else odd + 1
            if _is_over(task, odd):
                return task
            if odd:
                logger.warning("Task %s is %r, without a result; asking again", task_id, state)
        if waited >= max_wait:
            raise _timeout(task_id, max_wait, state)
    raise AssertionError("poll_delays never ends")


async def _ask(
    client: KlingClient, task_id: str, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Task | None:
    try:
        return await client.get(task_id)
    except (GatewayUnavailable, RateLimited) as error:
        logger.warning("No news of task %s: %s", task_id, error)
    return None


def _makes_sense(task: Task) -> bool:
    return task.known and (task.state != "completed" or bool(task.result_urls))


def _is_over(task: Task, odd: int) -> bool:
    if task.state == "failed":
        raise failure_of(task)
    if odd >= ODD_ANSWERS:
        raise _odd(task)
    return task.state == "completed" and odd == 0


def _timeout(task_id: str, max_wait: float, state: str | None) -> GenerationTimeout:
    return GenerationTimeout(
        f"Task {task_id} did not end within {max_wait:g} s (last state: {state or 'unknown'}). It goes on at the "
        "gateway, and its result is kept there for 7 days.",
        task_id=task_id,
    )


def failure_of(task: Task) -> GenerationFailed:
    """What to raise for a task that failed."""
    reason = task.fail_message or "no reason given"
    code = f" (code {task.fail_code})" if task.fail_code else ""
    error = GenerationFailed(
        f"The gateway made no clip: {reason}{code}. Task {task.task_id}; failed tasks are not billed.",
        code=task.fail_code,
        task_id=task.task_id,
    )
    error.retryable = bool(task.retryable)
    return error


def _odd(task: Task) -> GatewayUnavailable:
    error = GatewayUnavailable(
        f"Task {task.task_id} is {task.state!r} without a result URL, {ODD_ANSWERS} times in a row; nobody knows what "
        "that means. It may still be billed: ask the gateway's support about it.",
        task_id=task.task_id,
    )
    error.retryable = False
    return error
