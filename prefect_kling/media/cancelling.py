"""Cancellation that leaves nothing running: whoever is cancelled waits for its work to end, then goes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["Checkpoint", "in_thread", "until_ended"]

T = TypeVar("T")

Checkpoint = Callable[[], None]
"""Called by blocking work between two steps; raises once the work is not wanted any more."""


class _Unwanted(Exception):
    """Ends the blocking work of a caller who was cancelled; never seen outside this module."""


async def until_ended(work: Awaitable[object]) -> None:
    """Waits for the work to end however often the waiting task is cancelled; its outcome is dropped.

    Only for work that is about to end by itself: a killed child, a thread whose flag is set.
    """
    future = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if not future.cancelled():
        future.exception()
    if cancelled is not None:
        raise cancelled


async def in_thread(work: Callable[[Checkpoint], T]) -> T:
    """Runs blocking work in a thread. When cancelled, its next checkpoint ends it, and only then is this over.

    Args:
        work: called with its checkpoint, which it calls between steps of a few milliseconds.
    """
    unwanted = threading.Event()

    def checkpoint() -> None:
        if unwanted.is_set():
            raise _Unwanted

    future = asyncio.get_running_loop().run_in_executor(None, work, checkpoint)
    try:
        # Shielded because a cancelled future would say "over" while its thread still writes.
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        unwanted.set()
        await until_ended(future)
        raise
