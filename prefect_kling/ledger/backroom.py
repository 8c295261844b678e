"""The back room: one thread with an event loop of its own, where a purchase and its commit run to their end.

Signals are delivered to the main thread and cancellation to the caller's loop; neither reaches in here. Whoever is
cancelled while work is going on waits for it to end and is cancelled then.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["backroom", "in_backroom"]

T = TypeVar("T")

DRAIN_SECONDS: Final = 90.0
"""At the interpreter's end, open work is waited for so long: more than a POST and its commit may take."""


class _Room:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.open: set[Future[Any]] = set()
        # A daemon, as an idle thread must not keep the interpreter; `drain` waits for one that is not idle.
        self.thread = threading.Thread(target=self._work, name="kling-ledger", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        self.open.add(future)
        future.add_done_callback(self.open.discard)
        return future

    def drain(self) -> None:
        waiting = threading.Event()
        left = DRAIN_SECONDS
        while self.open and left > 0 and self.pid == os.getpid():
            with suppress(KeyboardInterrupt):  # somebody in a hurry; a purchase's end is worth the wait
                waiting.wait(0.02)
            left -= 0.02


_lock = threading.Lock()
_room: _Room | None = None


def backroom() -> asyncio.AbstractEventLoop:
    """The loop of this process's back room, started when first asked for."""
    return _the_room().loop


def _the_room() -> _Room:
    global _room  # noqa: PLW0603 - one a process, which is the point
    with _lock:
        if _room is None or _room.pid != os.getpid():  # a fork has no threads
            _room = _Room()
            atexit.register(_room.drain)
        return _room


async def in_backroom(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in the back room, to its end, and returns what it returns.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile; the work has ended all the same.
    """
    room = _the_room()
    if asyncio.get_running_loop() is room.loop:
        return await work
    waiter = asyncio.wrap_future(room.start(work))
    cancelled: asyncio.CancelledError | None = None
    while not waiter.done():
        try:
            # Not awaited itself: cancelling it would cancel the work.
            await asyncio.wait([waiter])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not waiter.cancelled():
            waiter.exception()  # looked at, so that nobody warns; what happened is in the ledger
        raise cancelled
    return waiter.result()
