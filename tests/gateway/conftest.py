"""A raw HTTP server on loopback, for what a mocked transport cannot show: connections refused, cut or silent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal

import pytest

CLOSE: Final = "close"
HANG: Final = "hang"
Step = bytes | Literal["close", "hang"]


class RawServer:
    """Answers request number n of its life, whichever connection it comes by, with the steps at n; the last repeat.

    A step is bytes to send, `close` to close the connection or `hang` to say nothing more. Without `close` the
    connection stays open for the next request.
    """

    def __init__(self, script: tuple[tuple[Step, ...], ...]) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.asked = asyncio.Event()
        self._over = asyncio.Event()
        self._talks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._over.set()
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client hung up first, or spoke no HTTP
        finally:
            writer.close()
            self._talks.discard(talk)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == b"\x16":
            return False  # the hello of TLS
        head = first + await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        self.requests.append(head + body)
        self.asked.set()
        for step in self.script[min(len(self.requests), len(self.script)) - 1]:
            if step == CLOSE:
                return False
            if step == HANG:
                await self._over.wait()
                return False
            assert isinstance(step, bytes)
            writer.write(step)
            await writer.drain()
        return True


def http(body: object, status: int = 200, *, length: int | None = None, **headers: str) -> bytes:
    """An HTTP answer; bytes as they are, anything else as JSON; `length` is what it claims, where that is not true."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(content) if length is None else length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


Serve = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts raw servers: `await serve((http({...}),), (CLOSE,))`, a tuple of steps for each request."""
    running: list[RawServer] = []

    async def start(*script: tuple[Step, ...]) -> RawServer:
        server = RawServer(script)
        await server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        await server.stop()


@pytest.fixture
def answer() -> Callable[..., bytes]:
    """Makes the bytes of an HTTP answer, as `http` in this module says."""
    return http
