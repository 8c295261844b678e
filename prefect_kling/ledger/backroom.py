"""The back room: one thread with an event loop of its own, where a purchase and its commit run to their end.

Signals are delivered to the main thread and cancellation to the caller's loop; neither reaches in here. Whoever is
cancelled while work is going on waits for it to end and is cancelled then; and the interpreter's end waits for it too.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - before `_Room.drain` is registered, as its end has to come after it
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

__all__ = ["DRAIN_SECONDS", "backroom", "close_at_end", "closed", "in_backroom"]

T = TypeVar("T")
Close = Callable[[], Coroutine[Any, Any, None]]

DRAIN_SECONDS: Final = 90.0
"""At the interpreter's end, open work is waited for so long: more than a POST and its commit may take."""
_TELL_AFTER: Final = 1.0
_logger = logging.getLogger(__name__)


class _Room:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.open = 0
        self.closing: set[Close] = set()
        # A daemon, as an idle thread must not keep the interpreter; `drain` waits for one that is not idle.
        self.thread = threading.Thread(target=self._work, name="kling-ledger", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        # Hosts' names are looked up in a thread, and the interpreter's end is too late to start one.
        self.loop.run_in_executor(None, threading.get_ident)
        self.loop.run_forever()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._counted(work), self.loop)

    async def _counted(self, work: Coroutine[Any, Any, T]) -> T:
        self.open += 1
        try:
            return await work
        finally:
            self.open -= 1

    async def _idle(self) -> None:
        while self.open:  # noqa: ASYNC110 - once, at the end of a process
            await asyncio.sleep(0.01)
        await asyncio.gather(*(close() for close in self.closing), return_exceptions=True)

    def drain(self) -> None:
        if self.pid != os.getpid():
            return
        # Asked for in the room's own loop, where whatever was started before is counted by now.
        idle, begun, told = asyncio.run_coroutine_threadsafe(self._idle(), self.loop), time.monotonic(), False
        while not idle.done() and (waited := time.monotonic() - begun) < DRAIN_SECONDS:
            # Whatever a signal's handler raises: somebody is in a hurry, and a purchase's end is worth the wait.
            with suppress(BaseException):
                if waited > _TELL_AFTER and not told:
                    told = True
                    _logger.warning("A purchase is on its way; the process ends once its answer is written down")
                idle.exception(timeout=0.05)


_lock = threading.Lock()
_room: _Room | None = None
_of_parents: list[_Room] = []


def backroom() -> asyncio.AbstractEventLoop:
    """The loop of this process's back room, started when first asked for."""
    return _the_room().loop


def _the_room() -> _Room:
    global _room  # noqa: PLW0603 - one a process, which is the point
    with _lock:
        if _room is None:
            _room = _Room()
            _at_end(_room)
        return _room


def close_at_end(close: Close) -> None:
    """Has this called in the back room when the interpreter ends, after all work."""
    _the_room().closing.add(close)


def closed(close: Close) -> None:
    """Takes back `close_at_end`."""
    _the_room().closing.discard(close)


def _at_end(room: _Room) -> None:
    # `atexit` comes after the end of the executors that work in the room may need.
    register = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(room.drain)
    except RuntimeError:  # the interpreter is ending already
        atexit.register(room.drain)


def _forked() -> None:
    """A fork has no threads, and a lock that another thread held stays locked for ever."""
    global _lock, _room  # noqa: PLW0603 - see above
    _lock = threading.Lock()
    if _room is not None:
        _of_parents.append(_room)  # kept: closing its loop would reach into the parent's
        _room = None


os.register_at_fork(after_in_child=_forked)


async def in_backroom(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in the back room, to its end, and returns what it returns.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile; the work has ended all the same.
    """
    try:
        room, loop = _the_room(), asyncio.get_running_loop()
    except RuntimeError:  # awaited by nobody: a coroutine that is thrown away after its loop
        work.close()
        raise
    if loop is room.loop:
        return await work
    future, ended = room.start(work), asyncio.Event()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the caller's loop was closed: a signal's handler raised
            loop.call_soon_threadsafe(ended.set)

    future.add_done_callback(tell)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await ended.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled  # what came of the work is in the ledger
    return future.result()
