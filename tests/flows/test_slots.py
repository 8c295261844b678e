"""Slots are filled before clips are fetched, and nobody waits for that for ever."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from prefect_kling.flows.slots import LEAST_AHEAD, Slots


async def passes(slots: Slots) -> bool:
    """Whether a clip is fetched without waiting."""
    return not await _waits(slots.filled(60))


async def _waits(waiting: object) -> bool:
    task = asyncio.ensure_future(waiting)  # type: ignore[call-overload] # a coroutine
    for _ in range(5):
        await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not ended


@pytest.mark.parametrize(
    ("buying", "generating", "fetches"),
    [
        (0, 0, True),
        (LEAST_AHEAD, 0, True),
        (LEAST_AHEAD + 1, 0, False),
        (LEAST_AHEAD + 1, 19, False),
        (LEAST_AHEAD + 1, 20, True),
        (200, 20, True),
        (LEAST_AHEAD, 19, True),
    ],
)
async def test_clips_wait_while_purchases_are_on_their_way_to_empty_slots(
    buying: int, generating: int, *, fetches: bool
) -> None:
    slots = Slots(20)
    with ExitStack() as stack:
        for _ in range(buying):
            stack.enter_context(slots.buying())
        for _ in range(generating):
            stack.enter_context(slots.generating())
        assert await passes(slots) is fetches
    assert await passes(slots)


async def test_whoever_waits_goes_on_when_slots_are_filled() -> None:
    slots = Slots(2)
    with ExitStack() as buying, ExitStack() as generating:
        for _ in range(LEAST_AHEAD + 1):
            buying.enter_context(slots.buying())
        clip = asyncio.create_task(slots.filled(60))
        await asyncio.sleep(0)
        for _ in range(2):
            generating.enter_context(slots.generating())
        async with asyncio.timeout(5):
            await clip


async def test_slots_that_stay_empty_hold_nothing_up_for_long() -> None:
    slots = Slots(5)
    with ExitStack() as stack:
        for _ in range(LEAST_AHEAD + 1):
            stack.enter_context(slots.buying())
        async with asyncio.timeout(5):
            await slots.filled(0.01)


async def test_a_purchase_beyond_the_slots_begins_once_they_are_filled() -> None:
    slots = Slots(20)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(slots.buying())
        assert not await _waits(slots.queued())
        stack.enter_context(slots.buying())
        assert await _waits(slots.queued())


@pytest.mark.parametrize(
    ("slots", "elsewhere", "turns"), [(3, False, 13), (200, False, 400), (3, True, 13), (200, True, 210)]
)
async def test_as_many_begin_as_slots_may_come_free_at_once(slots: int, turns: int, *, elsewhere: bool) -> None:
    mine = Slots(slots, elsewhere=elsewhere)
    for _ in range(turns):
        assert not await _waits(mine.turns.acquire())
    assert await _waits(mine.turns.acquire())
