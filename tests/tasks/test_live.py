"""Live state names of tasks, on a real Prefect server."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.exceptions import ObjectNotFound

from prefect_kling.tasks import live
from prefect_kling.tasks.live import live_state

pytestmark = pytest.mark.usefixtures("prefect_server")


async def names_of(task_run: UUID) -> list[str]:
    """The names of a task run's states as the server has them in the end, in their order."""
    async with asyncio.timeout(30), get_client() as client:
        while True:
            try:
                states = await client.read_task_run_states(task_run)
            except ObjectNotFound:
                states = []
            if any(state.is_final() for state in states):
                return [str(state.name) for state in sorted(states, key=lambda state: state.timestamp)]
            await asyncio.sleep(0.1)


async def is_shown(task_run: UUID, name: str) -> None:
    """Returns once the server says so."""
    async with asyncio.timeout(30), get_client() as client:
        while True:
            try:
                run = await client.read_task_run(task_run)
            except ObjectNotFound:
                run = None
            if run is not None and run.state is not None and run.state.name == name:
                return
            await asyncio.sleep(0.05)


def own_id() -> UUID:
    context = TaskRunContext.get()
    assert context is not None
    return context.task_run.id


async def test_a_task_says_what_it_does_and_ends_as_it_ended() -> None:
    @task
    async def work() -> UUID:
        async with live_state("Queued", "Waits") as state:
            await is_shown(own_id(), "Queued")
            assert state is not None
            state.say("Generating", "Task t1")
            await is_shown(own_id(), "Generating")
        return own_id()

    @flow
    async def run() -> UUID:
        return await work()

    names = await names_of(await run())
    assert [name for name in names if name not in ("Pending", "Running")] == ["Queued", "Generating", "Completed"]


async def test_a_task_that_fails_is_failed() -> None:
    found: list[UUID] = []

    @task
    async def work() -> None:
        found.append(own_id())
        async with live_state("Downloading"):
            await is_shown(own_id(), "Downloading")
            raise OSError("no room")

    @flow
    async def run() -> None:
        await work()

    await run(return_state=True)
    assert (await names_of(found[0]))[-2:] == ["Downloading", "Failed"]


async def test_a_short_task_makes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> Any:
        raise AssertionError("a call was made")

    monkeypatch.setattr(live, "get_client", refuses)

    @task
    async def work() -> UUID:
        async with live_state("Generating"):
            await asyncio.sleep(0)
        return own_id()

    @flow
    async def run() -> UUID:
        return await work()

    assert "Generating" not in await names_of(await run())


async def test_a_server_that_refuses_stops_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    def refuses() -> Any:
        asked.set()
        raise OSError("no server for names")

    monkeypatch.setattr(live, "get_client", refuses)

    @task
    async def work() -> str:
        async with live_state("Generating"):
            await asked.wait()
        return "done"

    @flow
    async def run() -> str:
        return await work()

    assert await run() == "done"


async def test_a_task_that_ends_does_not_wait_for_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSES", 1_000_000)
    under_way, answered = asyncio.Event(), asyncio.Event()

    async def takes_a_moment(said: live.Live) -> bool:
        under_way.set()
        await answered.wait()
        await asyncio.sleep(0.01)
        return True

    monkeypatch.setattr(live.Live, "_tried", takes_a_moment)
    said = live.Live(uuid4(), "Generating", "")
    await under_way.wait()
    ending = asyncio.create_task(said.end())
    await asyncio.sleep(0)
    assert not ending.done()
    answered.set()
    await asyncio.wait_for(ending, 30)


async def test_outside_of_a_task_there_is_nothing_to_say() -> None:
    async with live_state("Generating") as state:
        assert state is None
