"""Stored clips on their way into one film: each is brought to hand, and worked on, as soon as it is stored."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from prefect.logging import get_run_logger

from prefect_kling.clips import Clip, ClipStorage
from prefect_kling.gateway.errors import KlingError
from prefect_kling.media.cancelling import until_ended
from prefect_kling.media.cut import Cut
from prefect_kling.media.room import CuttingRoom, Version, version_of
from prefect_kling.storyboard.cutting import ShotCut

__all__ = ["Arrivals"]

_Fetched: TypeAlias = tuple[Path, Version | None]


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
        self._local: dict[str, asyncio.Task[_Fetched]] = {}
        self._coming: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.folder = await self._stack.enter_async_context(self.storage.incoming())
        self.room = CuttingRoom(self.folder, self.cut, self.expected)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._coming, *self._local.values()]
        for task in tasks:
            task.cancel()
        # However often this is cancelled meanwhile: nothing is left behind.
        try:
            await until_ended(asyncio.gather(*tasks, return_exceptions=True))
        finally:
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
        # A failure is not kept: the clip may be there the next time it is asked for; nor is a file that was changed.
        known = self._local.get(clip.path)
        if known is None or (known.done() and not _holds(known)):
            self._local[clip.path] = known = asyncio.create_task(self._fetched(clip))
        path, _ = await asyncio.shield(known)
        return path

    async def _fetched(self, clip: Clip) -> _Fetched:
        path = await self._stack.enter_async_context(self.storage.at_hand(clip.path, sha256=clip.sha256))
        return path, version_of(path)

    async def _come(self, clip: Clip, shot: ShotCut) -> None:
        try:
            path = await self.local(clip)
        except (KlingError, OSError) as error:
            get_run_logger().debug("%s is not worked on ahead of the join: %s", clip.path, error)
            return
        self.room.arrived(shot.at(path))


def _holds(task: asyncio.Task[_Fetched]) -> bool:
    """Whether a clip that was brought to hand is there as it was when its bytes were looked at."""
    if task.cancelled() or task.exception() is not None:
        return False
    path, version = task.result()
    return version_of(path) == version
