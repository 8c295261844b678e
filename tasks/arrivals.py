"""Stored clips on their way into one film: each is brought to hand, and worked on, as soon as it is stored."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from prefect.logging import get_run_logger

from prefect_kling.clips import Clip, ClipStorage
from prefect_kling.gateway.errors import KlingError
from prefect_kling.media.cut import Cut
from prefect_kling.media.room import CuttingRoom
from prefect_kling.storyboard.cutting import ShotCut

__all__ = ["Arrivals"]


class Arrivals:
    """The clips of one film, as an async context: at its end everything that was made for the join is removed.

    Args:
        storage: where the clips are.
        cut: how the film is cut.
        expected: how many clips it will have; 0 where it is joined at once.
    """

    def __init__(self, storage: ClipStorage, cut: Cut, expected: int = 0) -> None:
        self.storage, self.cut, self.expected = storage, cut, expected
        self._stack = AsyncExitStack()
        self._local: dict[str, asyncio.Task[Path]] = {}
        self._coming: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.folder = await self._stack.enter_async_context(self.storage.incoming())
        work = self.folder / "room"
        await asyncio.to_thread(work.mkdir)
        self.room = CuttingRoom(work, self.cut, self.expected)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (*self._coming, *self._local.values()):
            task.cancel()
        await asyncio.gather(*self._coming, *self._local.values(), return_exceptions=True)
        try:
            await self.room.end()
        finally:
            await self._stack.aclose()

    def begin(self, clip: Clip, shot: ShotCut) -> None:
        """Works on a clip while others are still awaited. What fails here fails again, and is told, at the join."""
        task = asyncio.create_task(self._come(clip, shot))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def local(self, clip: Clip) -> Path:
        """The clip as a file on this machine.

        Raises:
            InvalidMedia: it is missing, or other bytes than were stored.
        """
        # A failure is not kept: the clip may be there the next time it is asked for.
        if clip.path not in self._local or _failed(self._local[clip.path]):
            self._local[clip.path] = asyncio.create_task(self._fetched(clip))
        return await asyncio.shield(self._local[clip.path])

    async def _fetched(self, clip: Clip) -> Path:
        return await self._stack.enter_async_context(self.storage.at_hand(clip.path, sha256=clip.sha256))

    async def _come(self, clip: Clip, shot: ShotCut) -> None:
        try:
            path = await self.local(clip)
        except (KlingError, OSError) as error:
            get_run_logger().debug("%s is not worked on ahead of the join: %s", clip.path, error)
            return
        self.room.arrived(shot.at(path))


def _failed(task: asyncio.Task[Path]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
