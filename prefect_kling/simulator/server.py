"""Serving on loopback: within a process for tests, or as the whole of one for `prefect-kling simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.applications import Starlette

from prefect_kling.serving import Server, listen, origin_of, serve_until_signal
from prefect_kling.simulator.app import BASE_PATH, create_app
from prefect_kling.simulator.clock import Clock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.service import Service
from prefect_kling.simulator.wire import DroppingProtocol

__all__ = ["Running", "running", "serve"]

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Running:
    """A simulator that serves.

    Attributes:
        origin: scheme, host and port, such as `http://127.0.0.1:8123`.
        app: the ASGI application.
    """

    origin: str
    app: Starlette
    _stop: Callable[[], None]

    def stop(self) -> None:
        """Ends it before its block does, as a gateway that goes away; the block still has to be left."""
        self._stop()

    @property
    def base_url(self) -> str:
        """What a client takes as `APIMODELS_BASE_URL`."""
        return f"{self.origin}{BASE_PATH}"

    @property
    def service(self) -> Service:
        """The account, tasks and counters. It lives in another thread: read it, do not drive it."""
        service: Service = self.app.state.service
        return service


class _Server(Server):
    def __init__(self, app: Starlette, started: Callable[[], object]) -> None:
        super().__init__(
            app,
            started,
            http=DroppingProtocol,
            lifespan="on",
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
        )
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Else answers that hang on purpose would be waited for.
        self._app.state.service.closing.set()
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def running(
    config: SimulatorConfig | None = None, port: int = 0, *, clock: Clock | None = None
) -> AsyncIterator[Running]:
    """Serves on 127.0.0.1 from a thread of this process, with an event loop of its own, until the block ends.

    Args:
        config: what the simulator is like; None for the defaults.
        port: 0 for any free one.
        clock: its time; None for the machine's.

    Raises:
        OSError: the port is taken.
    """
    app = create_app(config, clock=clock)
    listener = listen(HOST, port)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None = None) -> None:
        if ready.done():
            return
        if error is None:
            ready.set_result(None)
        else:
            ready.set_exception(error)

    server = _Server(app, lambda: loop.call_soon_threadsafe(settle))

    def stop() -> None:
        server.should_exit = True

    def work() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException as error:  # noqa: BLE001 - a thread cannot raise to anybody; the block's start does
            loop.call_soon_threadsafe(settle, error)

    thread = threading.Thread(target=work, name="kling-simulator", daemon=True)
    thread.start()
    try:
        await ready
        yield Running(origin_of(listener), app, stop)
    finally:
        stop()
        await asyncio.to_thread(thread.join)


def serve(
    config: SimulatorConfig | None = None,
    port: int = 0,
    *,
    announce: Callable[[str], None],
    clock: Clock | None = None,
) -> None:
    """Serves on 127.0.0.1 until SIGINT or SIGTERM, then cleans up and returns.

    Args:
        config: what the simulator is like; None for the defaults.
        port: 0 for any free one.
        announce: is called once, with the base URL, when the simulator serves.
        clock: its time; None for the machine's.

    Raises:
        OSError: the port is taken.
    """
    listener = listen(HOST, port)
    app = create_app(config, clock=clock)
    serve_until_signal(_Server(app, lambda: announce(f"{origin_of(listener)}{BASE_PATH}")), listener)
