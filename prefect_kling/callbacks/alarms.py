"""Who in this process waits for a callback. Any thread may ring; whoever waits wakes in its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prefect_kling.ledger.purchases import Purchase

__all__ = ["Alarm", "Alarms"]


class Alarm:
    """One who waits for a purchase's callback; a `gateway.waiting.Alarm`.

    Args:
        task_id: of the purchase; calls that name another task do not ring. None where it is not known yet.
    """

    def __init__(self, task_id: str | None) -> None:
        self.task_id = task_id
        self._loop, self._rung = asyncio.get_running_loop(), asyncio.Event()

    def ring(self) -> None:
        """Wakes whoever waits, or will wait next; from any thread."""
        with suppress(RuntimeError):  # its loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> bool:
        """Waits so many seconds at most; whether it rang."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class Alarms:
    """All who wait in this process, by the numbers of their purchases' rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: dict[int, set[Alarm]] = {}

    @contextmanager
    def set(self, purchase: Purchase) -> Iterator[Alarm]:
        """Sets an alarm for a purchase, for as long as the block lasts."""
        alarm = Alarm(purchase.task_id)
        with self._lock:
            self._set.setdefault(purchase.id, set()).add(alarm)
        try:
            yield alarm
        finally:
            with self._lock:
                others = self._set[purchase.id]
                others.discard(alarm)
                if not others:
                    del self._set[purchase.id]

    def ring(self, purchase: int, task_id: str) -> None:
        """Wakes those who wait for a purchase, where the task can be its own."""
        with self._lock:
            found = [alarm for alarm in self._set.get(purchase, ()) if alarm.task_id in (None, task_id)]
        for alarm in found:
            alarm.ring()

    def __bool__(self) -> bool:
        return bool(self._set)
