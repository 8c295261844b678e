"""A simulator on loopback with a client that has a key, and an order that is followed to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from prefect_kling.simulator.clock import Clock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import Running, running

Simulate = Callable[..., AbstractAsyncContextManager[tuple[Running, httpx.AsyncClient]]]
Until = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
Finish = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def simulate() -> Simulate:
    """Starts a simulator with small, quick clips; fields of its configuration may be given."""

    @contextlib.asynccontextmanager
    async def start(*, clock: Clock | None = None, **fields: Any) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
        config = SimulatorConfig(**{"seed": 7, "generation_seconds": 0.05, "shrink": 4, **fields})
        headers = {"Authorization": "Bearer sk-test"}
        async with (
            running(config, clock=clock) as simulator,
            httpx.AsyncClient(base_url=f"{simulator.base_url}/", headers=headers, timeout=30) as client,
        ):
            yield simulator, client

    return start


@pytest.fixture
def until() -> Until:
    """Asks again and again until the answer is true, and gives that answer."""

    async def wait(ask: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(30):
            while not (answer := await ask()):  # noqa: ASYNC110 - it is a remote state
                await asyncio.sleep(0.01)
            return answer

    return wait


@pytest.fixture
def order() -> dict[str, Any]:
    """The cheapest body there is."""
    return {"model": "kling-v3-omni", "prompt": "The sea at dusk", "aspect_ratio": "16:9", "duration": "3"}


@pytest.fixture
def finish(until: Until) -> Finish:
    """Posts a body and follows the task to its end; gives the last poll's `data`."""

    async def posted(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
        answer = await client.post("video/generations", json=body)
        assert answer.status_code == 200, answer.text
        task_id = answer.json()["data"]["taskId"]

        async def ended() -> dict[str, Any] | None:
            data: dict[str, Any] = (await client.get("video/generations", params={"task_id": task_id})).json()["data"]
            return data if data["state"] in ("completed", "failed") else None

        ended_data: dict[str, Any] = await until(ended)
        return ended_data

    return posted
