"""How this process hears of callbacks: one listener for each ledger, however many shots wait.

Three ways lead here. A receiver of its own, where the settings say so; a receiver elsewhere, by the Prefect event that
it sends; and the ledger, which is read again every second, or every few where events are heard. Whoever waits polls as
well, less often, so that nothing depends on any of them. All of it lives in the back room, whichever loops come and go.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

from prefect_kling.callbacks.addresses import Binding, binding_of, callback_base
from prefect_kling.callbacks.alarms import Alarm, Alarms
from prefect_kling.callbacks.events import RECEIVED, callback_received, server_is_shared
from prefect_kling.callbacks.marks import ledger_mark
from prefect_kling.callbacks.receiving import receiver
from prefect_kling.gateway.errors import LedgerUnavailable
from prefect_kling.ledger.backroom import backroom, in_backroom
from prefect_kling.ledger.desk import Desk
from prefect_kling.ledger.hints import Call, Heard, heard_since, hints_of
from prefect_kling.ledger.ledger import Ledger
from prefect_kling.ledger.purchases import Purchase
from prefect_kling.serving import Server, listen, origin_of
from prefect_kling.settings import StudioSettings

__all__ = ["Listener", "listener_of"]

REREAD_SECONDS: Final = 1.0
REREAD_SECONDS_WITH_EVENTS: Final = 5.0
_COMMITTED_WITHIN_SECONDS: Final = 10.0
_CONNECT_SECONDS: Final = 5.0
_TAKE_OVER_SECONDS: Final = 2.0
_RECONNECT_SECONDS: Final = 1.0
_MOST_SEEN: Final = 10_000
_logger = logging.getLogger(__name__)
_open: dict[tuple[int, str, str, str], Listener] = {}


async def listener_of(desk: Desk) -> Listener | None:
    """The listener of a studio, started where this process has not done so yet; None where it has no callbacks.

    It listens when this returns, so that what is bought afterwards cannot be missed.

    Raises:
        KlingError: the settings name an address that cannot be used.
    """
    settings = desk.settings
    base, binding = callback_base(settings), binding_of(settings)
    if not base and binding is None:
        return None
    key = (os.getpid(), desk.ledger.id, settings.callback_base_url, settings.receive_on)

    async def opened() -> Listener:
        if key not in _open:
            _open[key] = made = Listener(settings, desk.ledger, base, binding)

            async def close() -> None:
                _open.pop(key, None)
                await made.close()

            desk.ledger.close_before(close)
            made.starting = backroom().create_task(made.start(), context=_apart())
        listener = _open[key]
        try:
            await asyncio.shield(listener.starting)
        except BaseException:
            _open.pop(key, None)
            raise
        return listener

    return await in_backroom(opened())


class Listener:
    """See `listener_of`.

    Attributes:
        base: what a purchase's token is added to, after a slash, to make its `callback_url`.
        starting: the start, to be waited for.
    """

    starting: asyncio.Task[None]

    def __init__(self, settings: StudioSettings, ledger: Ledger, base: str, binding: Binding | None) -> None:
        self.base = base
        self._settings, self._ledger, self._binding = settings, ledger, binding
        self._alarms = Alarms()
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens every way by which calls can be heard of."""
        if self._binding is not None:
            await self._receive(self._binding)
        self._tasks.append(asyncio.create_task(self._reread()))
        if server_is_shared() and not self._alone:
            self._tasks.append(asyncio.create_task(self._subscribe()))
            with suppress(TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await self._connected.wait()

    @property
    def _alone(self) -> bool:
        """Whether it receives all calls itself: at an address of its own nobody else does."""
        return self._serving is not None and not self._settings.callback_base_url

    async def close(self) -> None:
        """Ends all of it; runs in the back room."""
        if self._server is not None:
            self._server.should_exit = True
        for task in self._tasks:
            task.cancel()
        serving = [] if self._serving is None else [self._serving]
        await asyncio.gather(*self._tasks, *serving, return_exceptions=True)

    @property
    def hears_events(self) -> bool:
        """Whether a Prefect server tells it of calls that are received elsewhere; the ledger is read in any case."""
        return self._connected.is_set()

    def expects(self, purchase: Purchase) -> bool:
        """Whether a purchase's callback comes to where this process hears of it."""
        return purchase.callback is not None and purchase.callback == self.base

    @asynccontextmanager
    async def alarm(self, purchase: Purchase) -> AsyncIterator[Alarm]:
        """Sets an alarm for a purchase's callback; one that has come already rings at once."""
        with self._alarms.set(purchase) as alarm:
            for hint in await hints_of(self._ledger, [purchase.id]):
                self._alarms.ring(purchase.id, hint.task_id)
            yield alarm

    # A receiver of its own.

    async def _receive(self, binding: Binding) -> None:
        try:
            listener = await _bound(binding)
        except (OSError, UnicodeError) as error:
            # Taken by another run on this machine, most likely, with the same ledger: what it hears is read there.
            level = logging.INFO if getattr(error, "errno", None) == errno.EADDRINUSE else logging.WARNING
            _logger.log(level, "Calls are not received on %s here: %s", self._settings.receive_on, error)
            self.base = self.base or f"{binding.origin}/kling"
            self._tasks.append(asyncio.create_task(self._take_over(binding)))
            return
        self.base = self.base or f"{origin_of(listener)}/kling"
        await self._serve(listener)

    async def _take_over(self, binding: Binding) -> None:
        """Receives as soon as whoever does so now has ended."""
        while True:
            await asyncio.sleep(_TAKE_OVER_SECONDS)
            with suppress(OSError, UnicodeError):
                listener = await _bound(binding)
                return await self._serve(listener)

    async def _serve(self, listener: socket.socket) -> None:
        started = asyncio.Event()
        app = receiver(self._settings, on_heard=self._heard)
        self._server = Server(app, started.set, lifespan="off", timeout_keep_alive=75, timeout_graceful_shutdown=1)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        self._serving.add_done_callback(lambda _: started.set())
        await started.wait()

    def _heard(self, ledger: Ledger, call: Call, heard: Heard) -> None:
        if heard.purchase is not None and call.task_id is not None:
            self._alarms.ring(heard.purchase, call.task_id)
        callback_received(ledger, call, heard)

    # A receiver elsewhere.

    async def _subscribe(self) -> None:
        mark, seen = ledger_mark(self._ledger.id), OrderedDict[UUID, None]()
        while True:
            try:
                wanted = EventFilter(event=EventNameFilter(name=[RECEIVED]))
                # Whoever connects anew is told of the last minute, so nothing is missed by not waiting inside.
                async with get_events_subscriber(wanted, reconnection_attempts=0) as subscriber:
                    self._connected.set()
                    async for event in subscriber:
                        if event.id not in seen and event.payload.get("ledger") == mark:
                            self._told(event.payload)
                        seen[event.id] = None
                        while len(seen) > _MOST_SEEN:
                            seen.popitem(last=False)
            except Exception as error:  # noqa: BLE001 - the server may restart; the ledger is read meanwhile
                _logger.debug("Events are not heard: %s", error)
            self._connected.clear()
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _told(self, payload: dict[str, Any]) -> None:
        purchase, task_id = payload.get("purchase"), payload.get("task_id")
        if isinstance(purchase, int) and isinstance(task_id, str):
            self._alarms.ring(purchase, task_id)

    # The ledger.

    async def _reread(self) -> None:
        before: set[tuple[int, str, float]] = set()
        read = time.monotonic()
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            now, last = time.monotonic(), read
            if (self._connected.is_set() or self._alone) and now - last < REREAD_SECONDS_WITH_EVENTS:
                continue
            if not self._alarms:
                read = now  # who sets one looks for what was said before
                continue
            try:
                # What is committed late was said earlier.
                hints = await heard_since(self._ledger, now - last + _COMMITTED_WITHIN_SECONDS)
            except LedgerUnavailable as error:
                _logger.debug("Callbacks cannot be looked for: %s", error)
                continue
            read = now
            found = {(hint.purchase, hint.task_id, hint.heard_at.timestamp()) for hint in hints}
            for purchase, task_id, _ in found - before:
                self._alarms.ring(purchase, task_id)
            before = found


async def _bound(binding: Binding) -> socket.socket:
    # In a thread: a name may take long to be looked up, and purchases are written down in this loop.
    return await asyncio.to_thread(listen, binding.host, binding.port)


def _apart() -> contextvars.Context:
    """The caller's settings without its run: what is heard later belongs to other runs as well."""
    context = contextvars.copy_context()
    for run in (FlowRunContext, TaskRunContext):
        context.run(run.__var__.set, None)  # type: ignore[arg-type] # as if there were none
    return context
