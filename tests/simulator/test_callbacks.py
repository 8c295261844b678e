"""Callbacks as a receiver gets them, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from prefect_kling.simulator.clock import ManualClock


class Inbox:
    """What arrived: paths and JSON bodies, with what is answered to each."""

    def __init__(self, statuses: list[int]) -> None:
        self.url = ""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._statuses = statuses

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(x.split(":")[1]) for x in head.splitlines() if x.lower().startswith("content-length"))
                body = json.loads(await reader.readexactly(length))
                self.calls.append((head.split()[1], body))
                status = self._statuses.pop(0) if self._statuses else 200
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        writer.close()


Open = Callable[..., AbstractAsyncContextManager[Inbox]]


@pytest.fixture
def inbox() -> Open:
    """A receiver on loopback that answers these statuses, then 200."""

    @contextlib.asynccontextmanager
    async def opened(*statuses: int) -> AsyncIterator[Inbox]:
        box = Inbox(list(statuses))
        server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
        box.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/kling/secret"
        try:
            yield box
        finally:
            server.close()

    return opened


async def arrived(until: Any, box: Inbox, count: int) -> None:
    async def enough() -> bool:
        return len(box.calls) >= count

    await until(enough)


async def test_a_completed_task_is_called_back_in_the_gateways_shape(
    simulate: Any, until: Any, finish: Any, inbox: Open, order: dict[str, Any]
) -> None:
    async with inbox() as box, simulate() as (simulator, client):
        body = {**order, "callback_url": box.url}
        data = await finish(client, body)
        await arrived(until, box, 1)
        ((path, call),) = box.calls
        assert path == "/kling/secret"
        assert (call["code"], call["msg"]) == (200, "success")
        said = call["data"]
        assert set(said) == {
            "taskId", "model", "state", "param", "resultJson", "failCode", "failMsg", "costTime", "completeTime",
            "createTime",
        }  # fmt: skip
        assert (said["taskId"], said["state"], said["failMsg"]) == (data["taskId"], "completed", None)
        assert json.loads(said["param"]) == body
        assert json.loads(said["resultJson"])["resultUrls"] == data["resultUrls"]

        async def counted() -> bool:
            return bool(simulator.service.stats()["callbacks"]["delivered"] == 1)

        await until(counted)


async def test_a_failed_task_is_called_back_without_a_result(
    simulate: Any, until: Any, finish: Any, inbox: Open, order: dict[str, Any]
) -> None:
    async with inbox() as box, simulate(faults="moderation=1") as (_, client):
        await finish(client, {**order, "callback_url": box.url})
        await arrived(until, box, 1)
        said = box.calls[0][1]["data"]
        assert (said["state"], said["resultJson"], said["failCode"]) == ("failed", None, "1301")


async def test_a_callback_is_repeated_until_a_2xx(
    simulate: Any, until: Any, inbox: Open, order: dict[str, Any]
) -> None:
    """After 1, 2, 4 and then 8 seconds of the simulator's time; a redirect is no 2xx."""
    clock = ManualClock()
    async with inbox(500, 404, 302, 503) as box, simulate(clock=clock) as (simulator, client):
        await client.post("video/generations", json={**order, "callback_url": box.url})

        async def pushed() -> bool:
            clock.advance(1)
            return bool(box.calls)

        await until(pushed)
        for count, pause in enumerate((1, 2, 4, 8), start=1):
            await arrived(until, box, count)

            async def answered(count: int = count) -> bool:
                return bool(simulator.service.stats()["callbacks"]["answered_badly"] >= count)

            await until(answered)
            clock.advance(pause - 0.5)
            assert len(box.calls) == count

            async def again(count: int = count) -> bool:
                clock.advance(0.5)
                return len(box.calls) > count

            await until(again)
        assert simulator.service.stats()["callbacks"]["given_up"] == 0
        assert len({json.dumps(call, sort_keys=True) for _, call in box.calls}) == 1


async def test_callbacks_are_dropped_tripled_and_forged(
    simulate: Any, until: Any, finish: Any, inbox: Open, order: dict[str, Any]
) -> None:
    spec = "callback-drop=@1,callback-duplicate=@2,callback-forged=@3"
    async with inbox() as box, simulate(faults=spec, generation_seconds=0.4) as (simulator, client):
        body = {**order, "callback_url": box.url}
        ids = [(await finish(client, body))["taskId"] for _ in range(3)]
        await arrived(until, box, 5)
        said = [call["data"] for _, call in box.calls]
        assert [data["taskId"] for data in said] == [ids[1], ids[1], ids[1], ids[2], ids[2]]
        forged, true = (json.loads(data["resultJson"])["resultUrls"][0] for data in said[3:])
        assert ids[2] not in forged
        assert ids[2] in true
        assert (await client.get(forged)).status_code == 404
        assert simulator.service.stats()["faults"] == {
            "callback-drop": 1, "callback-duplicate": 1, "callback-forged": 1,
        }  # fmt: skip


async def test_a_late_callback_comes_after_the_poll_has_said_it(
    simulate: Any, until: Any, inbox: Open, order: dict[str, Any]
) -> None:
    clock = ManualClock()
    async with (
        inbox() as box,
        simulate(clock=clock, faults="callback-late=1", generation_seconds=1, late_seconds=1000) as (simulator, client),
    ):
        await client.post("video/generations", json={**order, "callback_url": box.url})

        async def completed() -> bool:
            clock.advance(1)
            return bool(simulator.service.stats()["states"].get("completed"))

        await until(completed)
        assert box.calls == []

        async def late() -> bool:
            clock.advance(100)
            return bool(box.calls)

        await until(late)


async def test_nobody_outside_is_ever_called(simulate: Any, until: Any, finish: Any, order: dict[str, Any]) -> None:
    async with simulate() as (simulator, client):
        await finish(client, {**order, "callback_url": "https://receiver.example.com/kling/secret"})

        async def counted() -> bool:
            return bool(simulator.service.stats()["callbacks"]["not_loopback"] == 1)

        await until(counted)
        assert simulator.service.stats()["callbacks"]["attempts"] == 0
