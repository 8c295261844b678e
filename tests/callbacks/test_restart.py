"""A Prefect server that goes away and comes back: callbacks are heard of all the while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from prefect_kling.callbacks import listening
from prefect_kling.callbacks.events import callback_received
from prefect_kling.callbacks.listening import Listener, listener_of
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.hints import Call, Heard, hear

if TYPE_CHECKING:
    from tests.callbacks.conftest import Bought

BASE = "http://127.0.0.1:9/kling"
SOON = 60.0


class Wire:
    """A way to a server, which can be cut: whoever is connected is thrown out, and nobody gets through."""

    def __init__(self, server: str) -> None:
        self._host, self._port = str(urlsplit(server).hostname), int(urlsplit(server).port or 0)
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        """The server's API through it, for as long as the block lasts."""
        listener = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{self.port}/api"
        finally:
            listener.close()
            for writer in list(self._open):
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        ends = {writer, there_writer}
        self._open |= ends
        with contextlib.suppress(OSError):
            await asyncio.gather(_pumped(reader, there_writer), _pumped(there_reader, writer))
        self._open -= ends
        for end in ends:
            end.close()


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def connected(listener: Listener, *, wanted: bool) -> None:
    async with asyncio.timeout(SOON):
        while listener.hears_events is not wanted:  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.05)


async def test_callbacks_are_heard_of_before_while_and_after_the_server_is_away(
    prefect_server: str, ours: Desk, bought: Bought, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "REREAD_SECONDS_WITH_EVENTS", 600.0)
    purchase = await bought("fox", callback=BASE)
    heard = Heard(purchase.id, purchase.short, fresh=True, kept=True)
    call, wire = Call(purchase.token, "t-fox", "completed"), Wire(prefect_server)
    async with wire.up() as url:
        with temporary_settings({PREFECT_API_URL: url}):
            listener = await listener_of(ours)
        assert listener is not None
        await connected(listener, wanted=True)
        async with listener.alarm(purchase) as alarm:
            callback_received(ours.ledger, call, heard)
            assert await alarm.wait(SOON)
    await connected(listener, wanted=False)
    async with listener.alarm(purchase) as alarm:
        await hear(ours.ledger, [call])
        assert await alarm.wait(SOON)
    async with wire.up(), listener.alarm(purchase) as alarm:
        await connected(listener, wanted=True)
        await alarm.wait(0)  # what the ledger says already
        callback_received(ours.ledger, call, heard)
        assert await alarm.wait(SOON)
