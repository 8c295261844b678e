"""How a process hears of callbacks: its own receiver, the event of another one, and the ledger that both write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_kling import serving
from prefect_kling.callbacks import listening, receiving
from prefect_kling.callbacks.events import callback_received
from prefect_kling.callbacks.listening import Listener, listener_of
from prefect_kling.gateway.callback import MAX_CALLBACK_BYTES
from prefect_kling.gateway.errors import KlingError
from prefect_kling.ledger.desk import Desk, desk
from prefect_kling.ledger.hints import Call, Heard, hear, hints_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.ledger.states import Event
from prefect_kling.settings import StudioSettings

if TYPE_CHECKING:
    from tests.callbacks.conftest import Bought

SOON = 20.0
"""Seconds in which what has to come comes, on any machine."""
BASE = "http://127.0.0.1:9/kling"


def body(task_id: str = "t-fox") -> bytes:
    return f'{{"code": 200, "data": {{"taskId": "{task_id}", "state": "completed"}}}}'.encode()


@pytest.fixture
def alone() -> Iterator[None]:
    """Without a Prefect server."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


async def here(settings: StudioSettings) -> tuple[Desk, Listener]:
    """A desk and a listener with a receiver of its own, on any port."""
    ours = await desk(replace(settings, callback_base_url="", receive_on="127.0.0.1:0"))
    listener = await listener_of(ours)
    assert listener is not None
    return ours, listener


async def elsewhere(ours: Desk) -> Listener:
    listener = await listener_of(ours)
    assert listener is not None
    return listener


@pytest.fixture
async def other(ours: Desk, tmp_path: Path) -> AsyncIterator[Ledger]:
    """The same ledger in another process, as far as anybody can tell."""
    url = ours.settings.ledger_url.get_secret_value()
    async with await Ledger.open(url, answers=tmp_path / "other.jsonl") as ledger:
        yield ledger


def call(purchase: Purchase, task_id: str = "t-fox") -> Call:
    return Call(purchase.token, task_id, "completed")


# --- a receiver of its own ---


async def test_a_call_to_this_process_wakes_who_waits_for_it(
    settings: StudioSettings, bought: Bought, alone: None
) -> None:
    _, listener = await here(settings)
    purchase, unrelated = await bought("fox", callback=listener.base), await bought("hare", callback=listener.base)
    assert listener.expects(purchase)
    async with listener.alarm(purchase) as alarm, listener.alarm(unrelated) as silent, httpx.AsyncClient() as client:
        answer = await client.post(f"{listener.base}/{purchase.token}", content=body())
        assert answer.status_code == 200
        assert await alarm.wait(SOON)
        assert not await silent.wait(0)
        # Once more is no news, and another task is not its own.
        for task_id in ("t-fox", "t-hare"):
            assert (await client.post(f"{listener.base}/{purchase.token}", content=body(task_id))).status_code == 200
        assert not await alarm.wait(0.1)


async def test_two_who_wait_for_one_are_both_woken(settings: StudioSettings, bought: Bought, alone: None) -> None:
    _, listener = await here(settings)
    purchase = await bought("fox", callback=listener.base)
    async with listener.alarm(purchase) as one, listener.alarm(purchase) as two, httpx.AsyncClient() as client:
        await client.post(f"{listener.base}/{purchase.token}", content=body())
        assert all(await asyncio.gather(one.wait(SOON), two.wait(SOON)))


async def test_a_call_that_came_before_anybody_waited_rings_at_once(
    settings: StudioSettings, bought: Bought, alone: None
) -> None:
    ours, listener = await here(settings)
    purchase = await bought("fox", callback=listener.base)
    await hear(ours.ledger, [call(purchase, "another")])
    async with listener.alarm(purchase) as alarm:
        assert not await alarm.wait(0)
    await hear(ours.ledger, [call(purchase)])
    async with listener.alarm(purchase) as alarm:
        assert await alarm.wait(SOON)


async def test_an_uncertain_purchase_is_woken_by_whatever_task_is_named(
    settings: StudioSettings, bought: Bought, alone: None
) -> None:
    _, listener = await here(settings)
    purchase = await bought("fox", Event.ANSWER_LOST, callback=listener.base)
    async with listener.alarm(purchase) as alarm, httpx.AsyncClient() as client:
        await client.post(f"{listener.base}/{purchase.token}", content=body("any"))
        assert await alarm.wait(SOON)


async def test_one_process_listens_once(settings: StudioSettings, ours: Desk, alone: None) -> None:
    found = await asyncio.gather(*(here(settings) for _ in range(5)))
    assert len({id(listener) for _, listener in found}) == 1


async def test_what_was_told_of_another_address_is_polled(
    settings: StudioSettings, bought: Bought, alone: None
) -> None:
    _, listener = await here(settings)
    assert not listener.expects(await bought("fox", callback="http://127.0.0.1:1/kling"))


async def test_a_port_that_is_taken_leaves_the_ledger_to_be_read(
    settings: StudioSettings, ours: Desk, other: Ledger, bought: Bought, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there = await desk(replace(settings, callback_base_url="", receive_on=f"127.0.0.1:{port}"))
        listener = await elsewhere(there)
        assert listener.base == f"http://127.0.0.1:{port}/kling"
        purchase = await bought("fox", callback=listener.base)
        async with listener.alarm(purchase) as alarm:
            await hear(other, [call(purchase)])
            assert await alarm.wait(SOON)


@pytest.mark.parametrize(
    ("receive_on", "base"),
    [("[2001:db8::1]:8787", "http://[2001:db8::1]:8787/kling"), ("no..name:8787", "http://no..name:8787/kling")],
)
async def test_an_address_that_is_not_this_machines_is_told(
    settings: StudioSettings,
    ours: Desk,
    alone: None,
    caplog: pytest.LogCaptureFixture,
    receive_on: str,
    base: str,
) -> None:
    there = await desk(replace(settings, callback_base_url="", receive_on=receive_on))
    with caplog.at_level(logging.WARNING):
        assert (await elsewhere(there)).base == base
    assert f"Calls are not received on {receive_on} here" in caplog.text


async def test_a_name_that_takes_long_to_look_up_keeps_nobody_from_the_ledger(
    settings: StudioSettings, ours: Desk, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = threading.Event()

    def listen(host: str, port: int) -> socket.socket:
        looked_up.wait(SOON)
        return serving.listen(host, port)

    monkeypatch.setattr(listening, "listen", listen)
    starting = asyncio.create_task(here(settings))
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(SOON / 2):
            await ours.ledger.time()
    finally:
        looked_up.set()
    await starting


async def test_who_waits_for_the_port_takes_it_over(
    settings: StudioSettings, ours: Desk, bought: Bought, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_TAKE_OVER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there = await desk(replace(settings, callback_base_url="", receive_on=f"127.0.0.1:{port}"))
        listener = await elsewhere(there)
    purchase = await bought("fox", callback=listener.base)
    async with listener.alarm(purchase) as alarm, httpx.AsyncClient() as client, asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = await client.post(f"{listener.base}/{purchase.token}", content=body())
                break
            await asyncio.sleep(0.05)
        assert answer.status_code == 200
        assert await alarm.wait(SOON)


async def test_closing_the_ledger_ends_the_receiver(settings: StudioSettings, ours: Desk, alone: None) -> None:
    there, listener = await here(settings)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{listener.base}/health")).status_code == 200
        await there.ledger.close()
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{listener.base}/health")
    # Whoever needs one afterwards gets another.
    assert (await here(settings))[1] is not listener


async def test_a_fork_does_not_keep_the_port(settings: StudioSettings, ours: Desk, alone: None) -> None:
    there, listener = await here(settings)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own of forks and threads
        child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        await there.ledger.close()
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{listener.base}/health", timeout=2)
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once


async def raw(base: str, head: str, *parts: bytes) -> bytes:
    """What comes back for a request that is sent as it stands; the connection is left open."""
    host, port = base.removeprefix("http://").partition("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + b"\r\nHost: x\r\n\r\n" + b"".join(parts))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), SOON)
    writer.close()
    return answer


async def test_a_body_without_end_is_refused_when_it_is_too_long(
    settings: StudioSettings, bought: Bought, alone: None
) -> None:
    _, listener = await here(settings)
    purchase = await bought("fox", callback=listener.base)
    head = f"POST /kling/{purchase.token} HTTP/1.1\r\nContent-Length: 1000000000"
    assert b" 413 " in await raw(listener.base, head, b"x" * (MAX_CALLBACK_BYTES + 1))


async def test_a_body_that_never_comes_is_not_waited_for(
    settings: StudioSettings, bought: Bought, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "BODY_SECONDS", 0.1)
    _, listener = await here(settings)
    purchase = await bought("fox", callback=listener.base)
    head = f"POST /kling/{purchase.token} HTTP/1.1\r\nContent-Length: 20"
    assert b" 408 " in await raw(listener.base, head, b"{")


async def test_settings_that_cannot_be_are_told_before_anything_listens(settings: StudioSettings, ours: Desk) -> None:
    with pytest.raises(KlingError, match="HOST:PORT"):
        await listener_of(replace(ours, settings=replace(settings, receive_on="anywhere")))
    assert await listener_of(replace(ours, settings=replace(settings, callback_base_url=""))) is None


# --- a receiver elsewhere ---


async def test_without_a_server_the_ledger_is_read_again(
    ours: Desk, other: Ledger, bought: Bought, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS", 0.05)
    listener, purchase = await elsewhere(ours), await bought("fox", callback=BASE)
    async with listener.alarm(purchase) as alarm:
        await hear(other, [call(purchase)])
        assert await alarm.wait(SOON)
        # What has been read is not news the next time.
        assert not await alarm.wait(0.3)


async def test_the_event_of_a_receiver_elsewhere_wakes_who_waits(
    ours: Desk, bought: Bought, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS_WITH_EVENTS", 600.0)
    listener, purchase = await elsewhere(ours), await bought("fox", callback=BASE)
    async with listener.alarm(purchase) as alarm:
        callback_received(ours.ledger, call(purchase), Heard(purchase.id, purchase.short, fresh=True, kept=True))
        assert await alarm.wait(SOON)


@pytest.mark.parametrize(("base", "hears"), [("", False), (BASE, True)])
async def test_who_receives_alone_at_an_address_is_told_of_nothing_by_events(
    prefect_server: str, settings: StudioSettings, base: str, *, hears: bool
) -> None:
    # At a public address a proxy may hand calls to other receivers too.
    ours = await desk(replace(settings, callback_base_url=base, receive_on="127.0.0.1:0"))
    listener = await listener_of(ours)
    assert listener is not None
    assert listener.hears_events is hears


async def test_the_event_of_another_ledger_wakes_nobody(
    ours: Desk, bought: Bought, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS_WITH_EVENTS", 600.0)
    listener, purchase = await elsewhere(ours), await bought("fox", callback=BASE)
    heard = Heard(purchase.id, purchase.short, fresh=True, kept=True)
    foreign = await Ledger.open(f"sqlite:///{tmp_path / 'foreign.db'}", answers=tmp_path / "foreign.jsonl")
    async with foreign, listener.alarm(purchase) as alarm:
        callback_received(foreign, call(purchase), heard)
        assert not await alarm.wait(1)
        callback_received(ours.ledger, call(purchase), heard)
        assert await alarm.wait(SOON)
    assert await hints_of(ours.ledger, [purchase.id]) == []


async def test_a_server_that_is_away_leaves_the_ledger(
    ours: Desk, other: Ledger, bought: Bought, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS", 0.05)
    monkeypatch.setattr(listening, "_CONNECT_SECONDS", 0.2)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        listener, purchase = await elsewhere(ours), await bought("fox", callback=BASE)
        async with listener.alarm(purchase) as alarm:
            await hear(other, [call(purchase)])
            assert await alarm.wait(SOON)
