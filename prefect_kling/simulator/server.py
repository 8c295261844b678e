"""Serving on loopback: within a process for tests, or as the whole of one for `prefect-kling simulate`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from prefect_kling.simulator.app import BASE_PATH, create_app
from prefect_kling.simulator.clock import Clock
from prefect_kling.simulator.config import SimulatorConfig
from prefect_kling.simulator.service import Service
from prefect_kling.simulator.wire import DroppingProtocol

if TYPE_CHECKING:
    from types import FrameType

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


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves, and leaves signals to us."""

    def __init__(self, app: Starlette, started: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=DroppingProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=2,
            )
        )
        self._app = app
        self._said = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._said()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Else answers that hang on purpose would be waited for.
        self._app.state.service.closing.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
    listener = _listen(port)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None = None) -> None:
        if ready.done():
            return
        if error is None:
            ready.set_result(None)
        else:
            ready.set_exception(error)

    server = _Server(app, lambda: (loop.call_soon_threadsafe(settle), None)[1])

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
        yield Running(_origin(listener), app, stop)
    finally:
        stop()
        await asyncio.to_thread(thread.join)


def serve(config: SimulatorConfig | None = None, port: int = 0, *, announce: Callable[[str], None]) -> None:
    """Serves on 127.0.0.1 until SIGINT or SIGTERM, then cleans up and returns.

    Args:
        config: what the simulator is like; None for the defaults.
        port: 0 for any free one.
        announce: is called once, with the base URL, when the simulator serves.

    Raises:
        OSError: the port is taken.
    """
    listener = _listen(port)
    server = _Server(create_app(config), lambda: announce(f"{_origin(listener)}{BASE_PATH}"))

    def stop(_signum: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {name: signal.signal(name, stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _origin(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"
