"""The line for slots: one tries, and as many more as slots were seen free."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from prefect_kling.gateway.errors import InsufficientCredits
from prefect_kling.ledger.line import WIDEST, Line, Place


def _called(places: list[Place]) -> list[int]:
    return [number for number, place in enumerate(places) if place.called.is_set()]


@pytest.mark.parametrize(
    ("free", "called"), [(0, [0]), (1, [0]), (3, [0, 1, 2]), (WIDEST, list(range(16))), (200, list(range(16)))]
)
def test_as_many_try_as_slots_were_seen_free(free: int, called: list[int]) -> None:
    line = Line()
    with ExitStack() as stack:
        places = [stack.enter_context(line.place()) for _ in range(20)]
        assert _called(places) == [0]
        line.seen(free)
        assert _called(places) == called
        line.seen(0)
        assert _called(places) == [0]


async def test_who_leaves_lets_the_next_one_try_in_their_order() -> None:
    line, order = Line(), []

    async def wait(number: int) -> None:
        with line.place() as place:
            await place.turn()
            order.append(number)

    with line.place() as first:
        await first.turn()
        others = [asyncio.create_task(wait(number)) for number in range(5)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == []
        others[1].cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert order == [0, 2, 3, 4]


async def test_only_the_first_goes_on_asking_once_there_are_no_more() -> None:
    line = Line()
    with line.place() as first, line.place() as second:
        line.seen(2)
        await asyncio.gather(first.turn(), second.turn())
        line.seen(0)
        await first.turn()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await second.turn()


def test_a_refusal_holds_for_those_of_the_run_who_joined_before_it() -> None:
    line = Line()
    line.close("run", 5.0, InsufficientCredits("no money"))
    with pytest.raises(InsufficientCredits):
        line.refuse("run", 5.0)
    line.refuse("run", 5.1)
    line.refuse("another", 1.0)
