"""What is in these files? They are looked at in a confined child process, or two where they are many.

A child costs 0.1 s to start. Whoever has one clip shares a child with those who come while another is at work: a
thousand clips that arrive one by one take some hundred children.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from prefect_kling.gateway.errors import InvalidMedia
from prefect_kling.media.facts import MediaFacts
from prefect_kling.media.untrusted import ProbeLimits, ask, ask_each

__all__ = ["ProbeLimits", "probe", "probe_one"]

SHARE_OF_TIME: Final = 3
"""A shared child works for at most one part in so many of the time; meanwhile clips gather for the next one."""
MANY: Final = 8
"""Clips from which on a second child is worth its start (measured: 0.1 s, and 0.015 s a clip at 720p)."""


async def probe(paths: Sequence[Path], *, limits: ProbeLimits | None = None) -> list[MediaFacts]:
    """Reads every packet of each clip, decodes its first frame, and says what it is.

    Nothing but MOV/MP4 on this disk is opened, whatever a file refers to. Cancelling kills the child.

    Args:
        paths: clips, in any number; a path may come twice.
        limits: what each may cost.

    Returns:
        One `MediaFacts` per path, in their order, each with the path as it was given.

    Raises:
        InvalidMedia: one or more are no usable clips; the text names each and says why.
    """
    different = list(dict.fromkeys(paths))
    if not different:
        return []
    found = {}
    children = 2 if len(different) >= MANY else 1
    documents = await ask("probe", different, limits or ProbeLimits(), children=children)
    for path, document in zip(different, documents, strict=True):
        found[path] = _facts(path, document)
    return [found[path] for path in paths]


async def probe_one(path: Path) -> MediaFacts:
    """What one clip is, as `probe` says it. Cancelling leaves the child to those who share it.

    Raises:
        InvalidMedia: it is no usable clip; the text says why.
    """
    loop = asyncio.get_running_loop()
    return await _shared.setdefault(loop, _Shared()).facts(path)


class _Shared:
    """The clips of one event loop that wait for the next child."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Path, asyncio.Future[MediaFacts]]] = []
        self._working: asyncio.Task[None] | None = None

    async def facts(self, path: Path) -> MediaFacts:
        answer: asyncio.Future[MediaFacts] = asyncio.get_running_loop().create_future()
        self._waiting.append((path, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while taken := [(path, answer) for path, answer in self._waiting if not answer.done()]:
            self._waiting.clear()
            begun = loop.time()
            found: Sequence[dict[str, Any] | str | Exception]
            try:
                found = await ask_each("probe", [path for path, _ in taken], ProbeLimits())
            except asyncio.CancelledError:
                for _, answer in taken:
                    answer.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - it is told to each who waits
                found = [error] * len(taken)
            for (path, answer), document in zip(taken, found, strict=True):
                if not answer.done():
                    _tell(answer, path, document)
            await asyncio.sleep((SHARE_OF_TIME - 1) * (loop.time() - begun))


def _tell(answer: asyncio.Future[MediaFacts], path: Path, found: dict[str, Any] | str | Exception) -> None:
    try:
        match found:
            case dict():
                answer.set_result(_facts(path, found))
            case str():
                answer.set_exception(InvalidMedia(f"{path} {found}."))
            case _:
                answer.set_exception(found)
    except InvalidMedia as error:
        answer.set_exception(error)


def _facts(path: Path, document: dict[str, Any]) -> MediaFacts:
    try:
        return MediaFacts.from_json({**document, "path": str(path)})
    except ValueError as error:
        raise InvalidMedia(f"{path} cannot be judged: {error}.") from error


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()
