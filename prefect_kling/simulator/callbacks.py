"""The sender of callbacks, with the gateway's schedule (gateway.md, "Callback"). It only ever calls loopback."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from prefect_kling.simulator.clock import Clock
from prefect_kling.simulator.inputs import Unfetchable, loopback_target

__all__ = ["ATTEMPT_SECONDS", "AT_ONCE", "GIVE_UP_SECONDS", "deliver", "retry_delays"]

ATTEMPT_SECONDS = 10.0
GIVE_UP_SECONDS = 30 * 60.0
LONGEST_PAUSE = 60.0
AT_ONCE = 32
"""Attempts; a client with hundreds of them in line spends its time on the line."""


def retry_delays() -> Iterator[float]:
    """Seconds to wait before each further attempt: 1, 2, 4, then the background job, doubling up to a minute.

    The gateway says how long its background job lasts, not how often it tries.
    """
    delay, waited = 1.0, 0.0
    while waited + delay <= GIVE_UP_SECONDS:
        yield delay
        waited += delay
        delay = min(delay * 2, LONGEST_PAUSE)


async def deliver(
    url: str,
    payload: Mapping[str, Any],
    *,
    client: httpx.AsyncClient,
    turns: asyncio.Semaphore,
    clock: Clock,
    counts: Counter[str],
) -> bool:
    """Posts `payload` until somebody answers 2xx or the schedule ends.

    Args:
        url: as in `callback_url`; one that is not loopback is never contacted.
        payload: the whole JSON.
        client: its timeout is replaced by the gateway's 10 s an attempt.
        turns: one is taken for each attempt.
        clock: waits between attempts are on it.
        counts: `attempts`, `delivered`, `given_up` and `not_loopback` are added here.

    Returns:
        Whether a 2xx came.
    """
    try:
        target = loopback_target(url)
    except Unfetchable:
        counts["given_up"] += 1
        return False
    if target is None:
        counts["not_loopback"] += 1
        return False
    pauses = retry_delays()
    while True:
        counts["attempts"] += 1
        try:
            async with turns:
                answer = await client.post(target, json=payload, timeout=ATTEMPT_SECONDS)
        except httpx.HTTPError:
            counts["unreachable"] += 1
        else:
            if answer.is_success:
                counts["delivered"] += 1
                return True
            counts["answered_badly"] += 1
        pause = next(pauses, None)
        if pause is None:
            counts["given_up"] += 1
            return False
        await clock.sleep_until(clock.now() + pause)
