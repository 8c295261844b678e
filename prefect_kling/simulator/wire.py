"""What HTTP does not do by itself: a connection that ends without an answer, or in the middle of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["DROP", "DroppingProtocol", "drop_connection", "gone"]

DROP = "prefect_kling.drop"
"""The ASGI extension: a function that closes the connection once what was written has left."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class DroppingProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which also lets the application close the connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        inner = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {**scope.get("extensions", {}), DROP: self._drop}
            await inner(scope, receive, send)

        self.app = app

    def _drop(self) -> None:
        self.transport.close()


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Closes the connection of this request and returns once it is gone.

    Raises:
        ConnectionAbortedError: the server has no way to close connections, as when called without one.
    """
    drop = scope.get("extensions", {}).get(DROP)
    if drop is None:
        raise ConnectionAbortedError("the simulator drops this connection on purpose")
    drop()
    await gone(receive)


async def gone(receive: Receive) -> None:
    """Returns once the caller has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
