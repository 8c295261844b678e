"""Serving HTTP by uvicorn as rooms need it: bound first, without logs of requests, with signals left to others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import uvicorn

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Server", "listen", "origin_of", "serve_until_signal"]

_listening: WeakSet[socket.socket] = WeakSet()


class Server(uvicorn.Server):
    """uvicorn, which says when it serves. It logs no request: paths hold secrets.

    Args:
        app: an ASGI application.
        started: is called once, when it serves.
        options: of `uvicorn.Config`.
    """

    def __init__(self, app: Any, started: Callable[[], object], **options: Any) -> None:
        super().__init__(uvicorn.Config(app, ws="none", log_config=None, access_log=False, **options))
        self._said = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and says so."""
        await super().startup(sockets)
        self._said()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def serve_until_signal(server: Server, listener: socket.socket) -> None:
    """Serves until SIGINT or SIGTERM, then ends what is open and returns."""

    def stop(_signum: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; the kernel keeps connections until somebody accepts them.

    Args:
        host: an address or name of this machine.
        port: 0 for any free one.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    _listening.add(listener)
    return listener


def _forked() -> None:
    """A fork serves nobody; and after its parent's end whoever calls would wait there for an answer."""
    for listener in list(_listening):
        listener.close()


os.register_at_fork(after_in_child=_forked)


def origin_of(listener: socket.socket) -> str:
    """Where it listens, such as `http://127.0.0.1:8123`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
