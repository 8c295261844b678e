"""Waiting for a task: a pure schedule, and a loop that ends with the task, a failure or a timeout.

Whoever waits is woken by an alarm, where one is set, or by a timer. Only a GET decides how a task stands. Trouble on
the way to the gateway is no news about the task: the wait goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final, Protocol

from prefect_kling.gateway.answers import Task
from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.errors import (
    GatewayUnavailable,
    GenerationFailed,
    GenerationTimeout,
    RateLimited,
    TaskNotFound,
)

__all__ = ["NOT_FOUND_IS_BELIEVED_AFTER", "ODD_ANSWERS", "Alarm", "failure_of", "poll_delays", "wait_for"]

NOT_FOUND_IS_BELIEVED_AFTER: Final = 300.0
"""Seconds, from the start of a wait or the last good answer; a new task may not be readable everywhere yet."""
ODD_ANSWERS: Final = 3
_DOUBT_SECONDS: Final = 1.0
"""A GET that does not bear out a callback is repeated after so long: the gateway's machines may not agree yet."""
_CALLED: Final = 12
_logger = logging.getLogger(__name__)


class Alarm(Protocol):
    """Something that rings when a task is said to have ended."""

    async def wait(self, seconds: float) -> bool:
        """Waits so many seconds at most; whether it rang."""
        ...


def poll_delays(interval: float, rand: Callable[[], float], *, called: bool = False) -> Iterator[float]:
    """Seconds before each poll: twice the interval, then once, growing to twice, each give or take a tenth.

    No clip is done at once, so the first look comes later than the following ones.

    Args:
        interval: seconds.
        rand: chance from 0 to 1.
        called: a callback is expected, and polls are only for where it does not come: 24 times the interval, then 12.
    """
    if called:
        interval *= _CALLED
    yield 2 * interval * (0.9 + 0.2 * rand())
    factor = 1.0
    while True:
        yield factor * interval * (0.9 + 0.2 * rand())
        factor = 1.0 if called else min(2.0, factor * 1.1)


async def wait_for(
    client: KlingClient,
    task_id: str,
    *,
    alarm: Alarm | None = None,
    at_once: bool = False,
    poll_interval: float = 5.0,
    max_wait: float = 3600.0,
    on_state: Callable[[Task], Awaitable[None]] | None = None,
    on_answer: Callable[[Task], Awaitable[None]] | None = None,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = _logger,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    rand: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> Task:
    """Waits until a task has completed.

    Args:
        client: of the account that bought it.
        task_id: the gateway's name of the task.
        alarm: rings when a callback has come; None where none is expected. One that rings although the task goes on is
            not listened to any more: from then on the task is polled as if no callback were expected.
        at_once: ask before waiting; what nobody has waited for may have ended long ago.
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
    called = partial(logger.info, "Task %s has called back", task_id)
    pauses = _Pauses(alarm, called, poll_interval, sleep, rand, at_once=at_once)
    while True:
        await pauses.pause(max(0.0, max_wait - (clock() - begun)))
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


class _Pauses:
    """The time between two looks at a task: until its alarm rings, or the timer's."""

    def __init__(
        self,
        alarm: Alarm | None,
        called: Callable[[], None],
        interval: float,
        sleep: Callable[[float], Awaitable[None]],
        rand: Callable[[], float],
        *,
        at_once: bool,
    ) -> None:
        self._alarm, self._called = alarm, called
        self._interval, self._sleep, self._rand = interval, sleep, rand
        self._delays = poll_delays(interval, rand, called=alarm is not None)
        self._soon = 0.0 if at_once else None

    async def pause(self, most: float) -> None:
        delay = next(self._delays) if self._soon is None else self._soon
        delay, self._soon = min(delay, most), None
        if self._alarm is None:
            await self._sleep(delay)
        elif await self._alarm.wait(delay):
            self._called()
            # Who pauses again after this was called in vain, and not by the gateway.
            self._alarm, self._soon = None, _DOUBT_SECONDS
            self._delays = poll_delays(self._interval, self._rand)


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
