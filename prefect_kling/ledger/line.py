"""One process's line for one account's slots: who tries to get one, and whether the gateway still sells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prefect_kling.gateway.errors import KlingError

__all__ = ["Line", "Place"]

WIDEST: Final = 16


class Place:
    """A place in the line."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def turn(self) -> None:
        """Waits until whoever has this place may try."""
        await self.called.wait()


class Line:
    """The first in the line tries to get a slot, and as many of the next ones as slots were seen free.

    Nobody asks in vain while all slots are taken, and a hundred that come free at once are not given away one by one.

    Attributes:
        moved: when somebody last got one.
    """

    def __init__(self) -> None:
        self.moved = 0.0
        self._places: list[Place] = []
        self._wide = 1
        self._closed: dict[str, tuple[float, KlingError]] = {}

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the line's end, for as long as the block lasts."""
        place = Place()
        self._places.append(place)
        self._call()
        try:
            yield place
        finally:
            self._places.remove(place)
            self._call()

    def seen(self, free: int) -> None:
        """So many slots were free a moment ago."""
        self._wide = max(1, min(free, WIDEST))
        self._call()

    def close(self, run: str, at: float, why: KlingError) -> None:
        """The gateway has stopped selling to a run; those who queued before are not sent any more."""
        self._closed[run] = (at, why)

    def refuse(self, run: str, joined: float) -> None:
        """Raises why the gateway stopped selling to a run, where that was after somebody joined the line."""
        at, why = self._closed.get(run, (0.0, None))
        if why is not None and at >= joined:
            raise why

    def _call(self) -> None:
        for place in self._places[: self._wide]:
            place.called.set()
        for place in self._places[self._wide : 2 * WIDEST]:
            place.called.clear()
