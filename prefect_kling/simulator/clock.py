"""The simulator's time, as an argument: the machine's own, or one that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "RealClock"]


class Clock(Protocol):
    """What the simulator needs to know about time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep_until(self, moment: float) -> None:
        """Returns once `now()` has reached `moment`, in seconds since the epoch."""
        ...


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep_until(self, moment: float) -> None:
        """Sleeps until `moment`; past moments still yield to the event loop once."""
        while True:
            left = moment - time.time()
            await asyncio.sleep(max(left, 0))
            # Event loops round timers down, and a task must not look unfinished to the sleeper it just woke.
            if time.time() >= moment:
                return


class ManualClock:
    """A clock that stands still until `advance` moves it; safe to move from any thread.

    Args:
        start: seconds since the epoch at which it stands.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._sleepers: list[tuple[float, int, asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._count = 0

    def now(self) -> float:
        """Seconds since the epoch, as last moved."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock on and wakes whoever waited for a moment that has now come."""
        with self._lock:
            self._now += seconds
            woken = []
            while self._sleepers and self._sleepers[0][0] <= self._now:
                woken.append(heapq.heappop(self._sleepers))
        for _, _, loop, event in woken:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def sleep_until(self, moment: float) -> None:
        """Waits until the clock has been moved to `moment` or past it."""
        event = asyncio.Event()
        with self._lock:
            if moment > self._now:
                self._count += 1
                heapq.heappush(self._sleepers, (moment, self._count, asyncio.get_running_loop(), event))
            else:
                event.set()
        await event.wait()
        await asyncio.sleep(0)
