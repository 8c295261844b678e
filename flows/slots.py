"""Whose turn it is in a run of many shots: slots at the gateway are filled first, clips are fetched afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["Slots"]

LEAST_AHEAD: Final = 10
DOWNLOADS: Final = 16
SLOTS_FIRST_SECONDS: Final = 10.0
"""A clip waits so long at most while slots are filled: an empty slot is time lost, and the clip is there."""


class Slots:
    """A run's share of its process's time.

    Args:
        slots: videos that the account may have in flight.
        elsewhere: each purchase is made by a process of its own, of which few should only wait.

    Attributes:
        turns: to be bought and generated: as many as there are slots, and those that queue for one, since many may come
            free at once. A thousand tasks that begin together would keep those waiting that are under way.
        downloads: to be fetched.
    """

    def __init__(self, slots: int, *, elsewhere: bool = False) -> None:
        self._slots, self._buying, self._generating = slots, 0, 0
        self.turns = asyncio.Semaphore(slots + (LEAST_AHEAD if elsewhere else max(LEAST_AHEAD, slots)))
        self.downloads = asyncio.Semaphore(DOWNLOADS)
        self._filled = asyncio.Event()
        self._filled.set()

    @contextmanager
    def buying(self) -> Iterator[None]:
        """A purchase is on its way to the gateway for as long as the block lasts."""
        self._moved(buying=1)
        try:
            yield
        finally:
            self._moved(buying=-1)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """The gateway generates a video for as long as the block lasts."""
        self._moved(generating=1)
        try:
            yield
        finally:
            self._moved(generating=-1)

    async def filled(self, most: float = SLOTS_FIRST_SECONDS) -> None:
        """Waits while slots are empty that purchases are on their way to, so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._filled.wait()

    async def queued(self) -> None:
        """Waits likewise where there are purchases enough for all slots."""
        if self._buying + self._generating > self._slots:
            await self.filled()

    def _moved(self, *, buying: int = 0, generating: int = 0) -> None:
        self._buying, self._generating = self._buying + buying, self._generating + generating
        if self._generating < self._slots and self._buying > LEAST_AHEAD:
            self._filled.clear()
        else:
            self._filled.set()
