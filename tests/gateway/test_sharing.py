"""Clients of one account in one event loop share their connections for everything but creates."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from prefect_kling.gateway.client import KlingClient
from prefect_kling.gateway.sharing import SharedClient
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.server import running


async def test_it_is_open_until_the_last_has_given_it_back() -> None:
    first, second = (SharedClient.borrow("a", {}) for _ in range(2))
    other = SharedClient.borrow("b", {})
    assert first is second
    assert first is not other
    await first.give_back()
    closed = [second.client.is_closed]
    await second.give_back()
    await other.give_back()
    assert [*closed, second.client.is_closed] == [False, True]
    anew = SharedClient.borrow("a", {})
    assert not anew.client.is_closed
    await anew.give_back()


def test_each_event_loop_has_its_own() -> None:
    async def borrowed() -> httpx.AsyncClient:
        shared = SharedClient.borrow("a", {})
        client = shared.client
        await shared.give_back()
        return client

    assert asyncio.run(borrowed()) is not asyncio.run(borrowed())


@pytest.mark.parametrize(("keys", "connections"), [(["sk-one-3a1f"] * 20, 1), (["sk-one-3a1f", "sk-two-90bc"] * 10, 2)])
async def test_many_who_poll_in_turn_use_one_connection_a_key(
    monkeypatch: pytest.MonkeyPatch, keys: list[str], connections: int
) -> None:
    made = []
    connect: Any = asyncio.get_running_loop().create_connection

    async def counted(*args: Any, **options: Any) -> Any:
        made.append(args)
        return await connect(*args, **options)

    async with running(SimulatorConfig(seed=1)) as gateway:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", counted)
        clients = [KlingClient(key, base_url=gateway.base_url) for key in keys]
        for client in clients:
            assert (await client.balance()).total > 0
        for client in clients:
            await client.aclose()
    assert len(made) == connections


async def test_a_key_is_not_sent_by_another_keys_client() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={"code": 200, "data": {"balance": 1, "total": 1, "frozen": 0}})

    transport = httpx.MockTransport(answer)
    one, two = (KlingClient(key, base_url="http://127.0.0.1:1/api/v1", transport=transport) for key in ("sk-1", "sk-2"))
    async with one, two:
        await asyncio.gather(one.balance(), two.balance())
    assert sorted(seen) == ["Bearer sk-1", "Bearer sk-2"]
