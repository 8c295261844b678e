"""Those who ask while a read is under way share the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from prefect_kling.ledger.gathering import Gathering


class _Reads:
    """Reads squares of even numbers; each waits until it is let go."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go = asyncio.Semaphore(0)
        self.trouble: list[Exception | None] = []

    async def __call__(self, numbers: list[int]) -> Mapping[int, int]:
        self.asked.append(sorted(numbers))
        await self.go.acquire()
        error = self.trouble.pop(0) if self.trouble else None
        if error is not None:
            raise error
        return {number: number * number for number in numbers if number % 2 == 0}


async def _soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_is_read_for_at_once_and_the_others_together() -> None:
    reads = _Reads()
    gathering = Gathering(reads)
    first = asyncio.create_task(gathering.ask([2]))
    await _soon()
    others = [asyncio.create_task(gathering.ask(keys)) for keys in ([2, 4], [3], [], [4])]
    await _soon()
    assert reads.asked == [[2]]  # what is asked for now is not read before it was asked for
    reads.go.release()
    await _soon()
    assert reads.asked == [[2], [2, 3, 4]]
    reads.go.release()
    assert await asyncio.gather(first, *others) == [{2: 4}, {2: 4, 4: 16}, {}, {}, {4: 16}]


async def test_an_error_is_told_to_those_who_shared_it_and_to_nobody_else() -> None:
    reads = _Reads()
    reads.trouble = [OSError("away")]
    gathering = Gathering(reads)
    unlucky = [asyncio.create_task(gathering.ask([key])) for key in (2, 4)]
    await _soon()
    lucky = asyncio.create_task(gathering.ask([2]))
    await _soon()
    for _ in range(2):
        reads.go.release()
    for task in unlucky:
        with pytest.raises(OSError, match="away"):
            await task
    assert await lucky == {2: 4}


async def test_whoever_is_cancelled_leaves_the_others_their_answer() -> None:
    reads = _Reads()
    gathering = Gathering(reads)
    gone, stays = (asyncio.create_task(gathering.ask([2])) for _ in range(2))
    await _soon()
    gone.cancel()
    await _soon()
    reads.go.release()
    assert await stays == {2: 4}
    reads.go.release()
    assert await gathering.ask([4]) == {4: 16}
