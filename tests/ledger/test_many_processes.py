"""Processes beside each other: two that want the same, eight against a budget, eight against a limit in flight."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from benchmarks.buyer_process import BUDGET, DONE, SIX_SHOTS, UNCERTAIN, Buyer, plain_shots
from benchmarks.chaos import Scene, scene
from prefect_kling.ledger.holds import Hold
from prefect_kling.ledger.schema import purchases
from prefect_kling.ledger.states import State
from prefect_kling.ledger.sweeping import sweep
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.life import SimulatedTask

PAIRS = 15
AT_ONCE = 3
PROCESSES = 8
LIMIT = 2_000_000
PRICE = 189_900
SLOTS = 3
SEED = 7


@pytest.mark.timeout(300)
async def test_pairs_of_runs_started_at_once_buy_every_shot_once(ledger_url: str, tmp_path: Path) -> None:
    """Thirty pairs: fifteen on each database."""
    config = SimulatorConfig(seed=SEED, generation_seconds=0.1, shrink=8)
    chain = SIX_SHOTS[:2]
    async with scene(tmp_path, ledger_url, config) as there:
        for number in range(0, PAIRS, AT_ONCE):
            at = time.monotonic() + 0.1
            buyers = [
                await there.nursery.start(there.job(f"edition-{pair}", shots=chain, run=f"run-{twin}", start_at=at))
                for pair in range(number, min(number + AT_ONCE, PAIRS))
                for twin in range(2)
            ]
            assert await _ended(buyers) == [DONE] * len(buyers), there.log.read_text()
        assert await there.problems() == []
        creates = there.gateway.service.creates
        assert (len(creates), creates.total()) == (PAIRS * len(chain), PAIRS * len(chain))


@pytest.mark.timeout(180)
async def test_eight_processes_never_pass_a_budget_and_use_it_up(ledger_url: str, tmp_path: Path) -> None:
    config = SimulatorConfig(seed=SEED, generation_seconds=0.2, shrink=8)
    limits = {"budget_per_day": LIMIT, "budget_per_month": LIMIT}
    chance = random.Random(SEED)
    async with scene(tmp_path, ledger_url, config, **limits) as there, _watched(there) as most:
        for holds, kills in ((True, 3), (False, 2), (False, 0)):
            buyers = await _eight(there, holds=holds)
            await _some_killed(buyers, kills, chance)
            assert set(await _ended(buyers)) <= {DONE, BUDGET, UNCERTAIN, -9}, there.log.read_text()
            await there.settled()
        await there.swept()
        assert await there.problems() == []
        stored = await there.rows(purchases.c.state == str(State.STORED))
        money = there.gateway.service.account
        assert [row.counted for row in stored] == [PRICE] * (LIMIT // PRICE)
        assert money.taken == PRICE * (LIMIT // PRICE)
        assert max(most) <= LIMIT


@pytest.mark.timeout(180)
async def test_eight_processes_never_have_more_in_flight_than_allowed(ledger_url: str, tmp_path: Path) -> None:
    config = SimulatorConfig(seed=SEED, generation_seconds=0.2, shrink=8)
    chance = random.Random(SEED)
    async with scene(tmp_path, ledger_url, config, max_in_flight=SLOTS) as there:
        for kills in (3, 0):
            buyers = await _eight(there, holds=True)
            await _some_killed(buyers, kills, chance)
            # What the killed have begun takes slots until somebody asks about it.
            await there.settled()
            async with there.desk.keeper() as keeper:
                await sweep(keeper)
            assert set(await _ended(buyers)) <= {DONE, UNCERTAIN, -9}, there.log.read_text()
            await there.settled()
        await there.swept()
        assert await there.problems() == []
        assert len(await there.rows(purchases.c.state == str(State.STORED))) == PROCESSES * 3
        assert _most_at_once(there.tasks()) == SLOTS


async def _eight(there: Scene, *, holds: bool) -> list[Buyer]:
    at = time.monotonic() + 0.2
    return [
        await there.nursery.start(
            there.job(f"edition-{n}", shots=plain_shots(3, f"process {n}"), run=f"run-{n}", holds=holds, start_at=at)
        )
        for n in range(PROCESSES)
    ]


async def _some_killed(buyers: list[Buyer], kills: int, chance: random.Random) -> None:
    await asyncio.sleep(0.2)
    for victim in chance.sample(buyers, kills):
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        await victim.kill()


async def _ended(buyers: Iterable[Buyer]) -> list[int]:
    return list(await asyncio.gather(*(buyer.ended for buyer in buyers)))


@contextlib.asynccontextmanager
async def _watched(there: Scene) -> AsyncIterator[list[int]]:
    """What was bought and held, as the ledger and as the gateway count it, again and again."""
    seen: list[int] = []

    async def watch() -> None:
        while True:
            spent = await there.desk.ledger.spent(there.desk.account, Hold("", "", ""))
            money = there.gateway.service.account
            seen.extend((spent.day + spent.held, money.taken + money.frozen))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _most_at_once(tasks: Iterable[SimulatedTask]) -> int:
    """How many tasks ran at the same time, at most; exactly, by the gateway's own clock."""
    begins = [(task.created_at, 1) for task in tasks]
    ends = [(task.completed_at, -1) for task in tasks if task.completed_at is not None]
    running = most = 0
    for _, change in sorted([*begins, *ends]):
        running += change
        most = max(most, running)
    return most
